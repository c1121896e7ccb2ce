"""Objects cut out of photographs or clip art: pictures with opacity, taken apart at joints and bent.

Photographs of objects come from Debian's package tuxpaint-stamps-default, clip art from openclipart-png, and
photographs for scenery from Debian's packages of wallpapers. The tables below list them with their licences.
"""

import functools
import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from toy.figures import Figure, Outline, Part, Sprite, random_ripple, sprite_of
from toy.motion import scaling, translation
from toy.textures import log_uniform, pick, texture
from util.errors import InputError

# Debian's package tuxpaint-stamps-default (GPL-2).
STAMPS = Path("/usr/share/tuxpaint/stamps")
# Folders of stamps that hold photographs. The other folders hold drawings, letters and symbols.
STAMP_FOLDERS = ("animals", "food", "hobbies", "household", "military", "plants", "space", "sports", "town", "vehicles")
# Debian's package openclipart-png (in the public domain).
CLIP_ART = Path("/usr/share/openclipart/png")
# Folders of clip art that show single objects, and folders in them that hold signs, symbols or faces.
CLIP_ART_FOLDERS = (
    "animals", "buildings", "computer/hardware", "education", "electronics", "food", "office", "people", "plants",
    "recreation/music", "recreation/party", "recreation/sports", "recreation/toys", "tools", "transportation",
)  # fmt: skip
CLIP_ART_SYMBOLS = {"aiga-symbols", "bodypart", "roadsigns", "smilies", "stickmen"}
# Debian's packages of wallpapers: the folder, and the files or folders in it that are photographs.
WALLPAPERS = {
    # GPL-2 or later
    "plasma-workspace-wallpapers": (
        "/usr/share/wallpapers",
        (
            "Autumn", "BytheWater", "ColorfulCups", "DarkestHour", "EveningGlow", "FallenLeaf", "Grey", "Kite",
            "OneStandsOut", "Path", "SafeLanding", "summer_1am",
        ),
    ),
    # GPL-2 or later, and CC BY-SA 4.0
    "mate-backgrounds": ("/usr/share/backgrounds/mate/nature", ("*",)),
    # each picture has its own: CC BY 4.0, CC BY-SA 3.0, CC BY-SA 4.0 or CC0
    "lomiri-wallpapers-16.04": (
        "/usr/share/backgrounds",
        (
            "Bridge_by_*", "Dragonfly_by_*", "Picture_0B_by_*", "Picture_1A_by_*", "Wine_by_*", "aitzgorri_by_*",
            "analogpattern_by_*", "free_by_*", "friends_by_*", "greentock_by_*", "life_by_*", "picosdeeuropa_by_*",
            "seeding_by_*", "sunset_by_*", "umang_by_*",
        ),
    ),
}  # fmt: skip
_MARGIN = 4  # pixels around a picture, so that its edge is smooth
_LEAST_COLOURS = 0.04  # share of distinct colours among the pixels, above which a picture counts as a photograph


@functools.cache
def load_cutouts() -> tuple[np.ndarray, ...]:
    """Return the photographs of single objects in tuxpaint-stamps-default, each uint8 RGBA [H,W,4], cropped.

    Raises:
        InputError: the package is missing.
    """
    cutouts = []
    for path in _pictures_below(STAMPS, STAMP_FOLDERS, {"cartoon"}):
        picture = _read_cropped(path)
        if picture is None:
            continue
        solid = picture[..., 3] >= 128
        if max(picture.shape) < 120 or not 0.1 < solid.mean() < 0.9:
            continue
        if _count_colours(picture[solid], bits=6) < _LEAST_COLOURS * solid.sum():
            continue
        cutouts.append(picture)
    if not cutouts:
        raise InputError(
            "--cutouts needs the photographs of Debian's package tuxpaint-stamps-default; "
            "run apt install tuxpaint-stamps-default"
        )
    return tuple(cutouts)


@functools.cache
def load_clip_art() -> tuple[np.ndarray, ...]:
    """Return the clip art of single objects in openclipart-png, each uint8 RGBA [H,W,4], cropped, up to 480 pixels.

    A picture is left out if it is small or huge, nearly a rectangle, in several pieces or of very few colours.

    Raises:
        InputError: the package is missing.
    """
    drawings = []
    for path in _pictures_below(CLIP_ART, CLIP_ART_FOLDERS, CLIP_ART_SYMBOLS):
        # Some have sides of 16,000 pixels, and take seconds to read.
        picture = _read_cropped(path) if path.stat().st_size < 500_000 else None
        if picture is None or min(picture.shape[:2]) < 80:
            continue
        if (factor := 480 / max(picture.shape[:2])) < 1:
            picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        solid = picture[..., 3] >= 128
        _, _, pieces, _ = cv2.connectedComponentsWithStats(solid.astype(np.uint8))
        largest = pieces[1:, cv2.CC_STAT_AREA].max(initial=0)
        if not 0.15 < solid.mean() < 0.9 or largest < 0.9 * solid.sum():
            continue
        if _count_colours(picture[solid], bits=4) >= 12:
            drawings.append(picture)
    if not drawings:
        raise InputError("--clip_art needs Debian's package openclipart-png; run apt install openclipart-png")
    return tuple(drawings)


def _pictures_below(root: Path, folders: Sequence[str], without: set[str]) -> list[Path]:
    """Return the PNG files in these folders and the folders in them, except in those named ``without``."""
    paths = sorted(path for folder in folders for path in (root / folder).rglob("*.png"))
    return [path for path in paths if without.isdisjoint(path.parts)]


def _read_cropped(path: Path) -> np.ndarray | None:
    """Return the object that a picture shows, uint8 RGBA [H,W,4], without empty borders; None if it has no opacity."""
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if picture is None or picture.ndim != 3 or picture.shape[2] != 4:
        return None
    solid = picture[..., 3] >= 128
    if not solid.any():
        return None
    rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    picture = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return cv2.cvtColor(picture, cv2.COLOR_BGRA2RGBA)


def _count_colours(pixels: np.ndarray, bits: int) -> int:
    """Return the number of distinct colours of pixels, uint8 RGBA [N,4], whose channels are cut to ``bits`` bits."""
    red, green, blue = (pixels[:, channel].astype(np.int64) >> (8 - bits) for channel in range(3))
    return int(np.count_nonzero(np.bincount((red << 2 * bits) + (green << bits) + blue)))


@functools.cache
def load_wallpapers() -> tuple[np.ndarray, ...]:
    """Return the photographs in `WALLPAPERS`' packages, each uint8 RGB [H,W,3] of 1,200 pixels in width.

    Raises:
        InputError: a package is missing.
    """
    pictures = []
    for package, (folder, names) in WALLPAPERS.items():
        found = 0
        for path in sorted(path for name in names for path in _images(Path(folder), name)):
            picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if picture is not None:
                height = round(1200 * picture.shape[0] / picture.shape[1])
                small = cv2.resize(picture, (1200, height), interpolation=cv2.INTER_AREA)
                pictures.append(cv2.cvtColor(small, cv2.COLOR_BGR2RGB))
                found += 1
        if not found:
            raise InputError(
                f"--cutouts needs the photographs of Debian's package {package}; run apt install {package}"
            )
    return tuple(pictures)


def _images(folder: Path, name: str) -> list[Path]:
    """Return the pictures of this name in a folder: files, or KDE's folders that hold one picture in several sizes."""
    matches = sorted(folder.glob(name))
    nested = [max(path.glob("contents/images/*x*.*"), key=lambda file: file.stat().st_size, default=None)
              for path in matches if path.is_dir()]  # fmt: skip
    return [path for path in matches if path.suffix in (".jpg", ".png")] + [path for path in nested if path]


def cut_out(
    rng: np.random.Generator, picture: np.ndarray, softness: float, photos: Sequence[np.ndarray] = ()
) -> tuple[Figure, Outline]:
    """Return a figure that shows a photographed object, and the figure's outline.

    The object comes in up to three pieces that swing at joints. Its colours change at random. In some cases another
    texture takes the place of the photograph, so that only the shape is that of the object.

    Args:
        rng: makes all random choices.
        picture: the object, uint8 RGBA [H,W,4]. The longer side is one unit.
        softness: the amplitude of the ripple, as a share of the figure's size.
        photos: photographs, uint8 RGB [H,W,3], from which other textures may be cut.
    """
    rows, columns = picture.shape[:2]
    unit = max(rows, columns)
    middle_x, middle_y = columns / 2 + _MARGIN - 0.5, rows / 2 + _MARGIN - 0.5
    root_to_pixels = translation(middle_x, middle_y) @ scaling(unit, unit)
    picture = _recoloured(rng, picture, photos)
    opacity = picture[..., 3].astype(np.float32)
    whole = float((opacity >= 128).sum())
    pieces, parts = [opacity], [Part([])]
    for _ in range(int(pick(rng, [0, 1, 1, 2, 2]))):
        cut = _random_cut(rng, pieces[0], whole, 0.04 * unit)
        if cut is None:
            continue
        kept, moved, (x, y) = cut
        pieces[0] = kept
        pieces.append(moved)
        joint = ((x - middle_x) / unit, (y - middle_y) / unit)
        swing, beat = log_uniform(rng, 0.05, 0.7), pick(rng, [1, 1, 2])
        phase, layer = rng.uniform(0, 6.28), pick(rng, [-1, 1])
        parts.append(Part([], parent=0, joint=joint, swing=swing, beat=beat, phase=phase, layer=layer))
    sprites: list[Sprite] = []
    for part, piece in zip(parts, pieces, strict=True):
        to_pixels = root_to_pixels @ translation(*part.joint)
        premultiplied = picture[..., :3] * (piece[..., None] / 255)
        sprites.append(sprite_of(np.dstack([premultiplied, piece]).astype(np.uint8), to_pixels))
    height, width = rows / unit, columns / unit
    order = sorted(range(len(parts)), key=lambda index: parts[index].layer)
    mirror = scaling(pick(rng, [-1, 1]), 1)
    ripple = random_ripple(rng, max(height, width), softness)
    radius = math.hypot(height, width) / 2
    figure = Figure(parts, sprites, mirror, log_uniform(rng, 8, 60), ripple, radius, order)
    return figure, Outline((0.0, 0.0), height, width, whole / unit**2)


def _recoloured(rng: np.random.Generator, picture: np.ndarray, photos: Sequence[np.ndarray]) -> np.ndarray:
    """Return the picture, uint8 RGBA [H,W,4], with a margin, other colours and in some cases another texture."""
    # Multiples of 8, so that smaller copies of the picture lie exactly on it.
    bottom, right = (-(-(side + 2 * _MARGIN) // 8) * 8 - side - _MARGIN for side in picture.shape[:2])
    picture = cv2.copyMakeBorder(picture, _MARGIN, bottom, _MARGIN, right, cv2.BORDER_CONSTANT)
    colours, opacity = picture[..., :3], picture[..., 3]
    kind = rng.random()
    if kind < 0.25:
        colours = texture(rng, *colours.shape[:2], photos=photos)
    elif kind < 0.45:
        light = cv2.cvtColor(texture(rng, *colours.shape[:2], photos=photos), cv2.COLOR_RGB2GRAY)
        colours = cv2.multiply(colours, cv2.merge([light] * 3), scale=1 / 128)
    if rng.random() < 0.4:
        hue = cv2.cvtColor(np.ascontiguousarray(colours), cv2.COLOR_RGB2HSV)
        hue[..., 0] = (hue[..., 0].astype(np.int32) + int(rng.integers(180))) % 180
        hue[..., 1] = cv2.convertScaleAbs(hue[..., 1], alpha=rng.uniform(0.3, 1.1))
        colours = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)
    gain = log_uniform(rng, 0.6, 1.5) * rng.uniform(0.85, 1.15, 3)
    values = 255 * (np.arange(256)[:, None] / 255) ** log_uniform(rng, 0.7, 1.5) * gain
    table = np.clip(values, 0, 255).astype(np.uint8)
    return np.dstack([cv2.LUT(np.ascontiguousarray(colours), table[None]), opacity])


def _random_cut(
    rng: np.random.Generator, opacity: np.ndarray, whole: float, overlap: float
) -> tuple[np.ndarray, np.ndarray, tuple[float, float]] | None:
    """Cut a piece off along a random line.

    Args:
        rng: makes all random choices.
        opacity: float32 [H,W], 0 to 255.
        whole: the area of the object, in pixels.
        overlap: the width of the strip along the line that both pieces keep, in pixels.

    Returns:
        the opacity of the rest and of the piece, and the place (x, y) of the joint; None if no good cut was found.
    """
    ys, xs = np.nonzero(opacity >= 128)
    y_all, x_all = np.indices(opacity.shape, dtype=np.float32)
    for _ in range(8):
        index = int(rng.integers(len(xs)))
        angle = rng.uniform(0, 2 * math.pi)
        distance = (x_all - xs[index]) * np.float32(math.cos(angle)) + (y_all - ys[index]) * np.float32(math.sin(angle))
        moved = opacity * np.clip(distance + overlap, 0, 1)
        kept = opacity * np.clip(overlap - distance, 0, 1)
        if not 0.08 * whole < (moved >= 128).sum() < 0.6 * whole or (kept >= 128).sum() < 0.3 * whole:
            continue
        near = np.abs(distance[ys, xs]) < 2
        return kept, moved, (float(xs[near].mean()), float(ys[near].mean()))
    return None
