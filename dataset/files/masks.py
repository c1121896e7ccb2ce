"""What a mask means: object ids from the pixels of an image, whatever program painted it.

Data sets write ids into their files: the indices of a palette PNG, or the values of a grey one. `stated_ids` returns
them. People paint masks in programs that know nothing of ids: in colours on black, white or transparency, as 0 and
255, in a palette of any order. `interpret` says what such an image shows, and `VideoIds` gives the objects their ids,
the same in all masks of a video.

This module needs NumPy and Pillow only, so that `scripts/onnx_example.py` reads masks in the same way.
"""

import enum
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dataset.files.colours import davis_palette
from util.errors import InputError

# A grey value up to this is an id also where it is the only one. A higher one, such as 255, then marks object 1.
MOST_PLAIN_ID = 31
VOID = 255  # pixels of no object in Pascal VOC, VSPW and VIPSeg; its colour in their palette is cream
_CREAM = 0xE0E0C0
_VOID_NOTE = f"{VOID} beside other ids marks pixels of no object, as in Pascal VOC; they are taken as background"
_OUTLINE = 8  # pixels: the greatest width of an outline of void around objects
_LOSSY_FORMATS = ("JPEG", "MPO", "JPEG2000", "AVIF", "HEIF")
_BLACK_OBJECT = 1 << 24  # stands for black where black is the object, and transparency the background
_MIXTURE = 10  # levels by which a mixture of two colours may miss the line between them
_TRACE = 3  # levels by which compression changes plain colours; nobody paints with colours that are so alike
_SOLID = 0.02  # the least share of an area's pixels whose neighbours belong to it, too; of noise it is less
_TRACES = "shows the traces of lossy compression, values that differ by almost nothing"
# Of the border of the image: white that covers more of it is the background, where there is no black.
_FRAME_SHARE = 0.5


class Kind(enum.Enum):
    """What the values of a mask are."""

    IDS = "ids of objects"
    GREY = "grey values; one that stands alone in a video is object 1"
    COLOURS = "colours, as red · 65536 + green · 256 + blue"


@dataclass(frozen=True, eq=False)
class MaskValues:
    """What a mask shows.

    Attributes:
        kind: what the values are.
        values: integers [H,W]; 0 is the background.
        note: a sentence that a user should read, without the name of the file; mostly none.
        palette: 256 RGB triples by id, where the file has a palette whose indices are the ids.
    """

    kind: Kind
    values: np.ndarray
    note: str = ""
    palette: bytes | None = None

    def shown(self) -> list[int]:
        """The values of the objects, in order."""
        found = np.unique(self.values)
        return found[found > 0].tolist()


class VideoIds:
    """The ids of the objects in the masks of one video.

    Ids in the files stay as they are. Grey values are ids, too. If all grey masks together have only one value, and it
    is above `MOST_PLAIN_ID`, such as 255, it is object 1. Colours get the smallest free ids, in the order in which the
    masks bring them, and within a mask from ``#ffffff`` downwards: red comes before green, and green before blue.

    Args:
        masks: all given masks of the video, in the order of their frames.
    """

    def __init__(self, masks: Iterable[MaskValues]) -> None:
        ids: set[int] = set()
        grey: set[int] = set()
        colours: list[int] = []
        for mask in masks:
            values = mask.shown()
            match mask.kind:
                case Kind.IDS:
                    ids.update(values)
                case Kind.GREY:
                    grey.update(values)
                case Kind.COLOURS:
                    colours += [value for value in reversed(values) if value not in colours]
        # Small grey values are ids already, so a video that has them as well has no value that stands alone.
        self._grey = grey if len(grey | ids) > 1 else set()
        self._colours: dict[int, int] = {}
        self._taken = ids | (grey if self._grey else {1} if grey else set())
        self._assign(self._colours, colours)

    def of(self, mask: MaskValues, path: Path | str) -> np.ndarray:
        """Return the ids of a mask, uint8 [H,W]. The mask may be another one than the given masks.

        Raises:
            InputError: the mask has ids above 255, or the video more than 255 objects.
        """
        values = mask.values
        match mask.kind:
            case Kind.GREY:
                shown = mask.shown()
                if len(shown) == 1 and shown[0] not in self._grey:
                    return (values > 0).astype(np.uint8)
                if shown[-1] > 255:
                    raise InputError(
                        f"{path} holds the id {shown[-1]}, but ids go from 1 to 255; {_conversion(path)} renumbers the "
                        f"objects"
                    )
            case Kind.COLOURS:
                table = dict(self._colours)
                self._assign(table, reversed(mask.shown()))
                if max(table.values()) > 255:
                    raise InputError(f"{path} brings the video to more than 255 objects; leave some out")
                known = sorted(table)
                lookup = np.array([0] + [table[value] for value in known], np.uint8)
                return lookup[np.searchsorted(known, values) + 1] * (values > 0)
        return values.astype(np.uint8)

    def _assign(self, table: dict[int, int], colours: Iterable[int]) -> None:
        taken = self._taken | set(table.values())
        for colour in colours:
            if colour not in table:
                free = next(number for number in range(1, len(taken) + 2) if number not in taken)
                table[colour] = free
                taken.add(free)


def stated_ids(image: Image.Image, path: Path | str) -> np.ndarray:
    """Return the ids that a mask of a data set states, uint8 [H,W].

    They are the indices of a palette image or the values of a grey one. An image with 1 bit per pixel has 0 and 1. Of
    colours the ids are known where they are colours of DAVIS's palette.

    Raises:
        InputError: the image shows other colours, ids above 255, or is no mask, as `interpret`.
    """
    if image.mode == "P" or image.mode in ("L", "1"):
        return np.array(image).astype(np.uint8)
    if image.mode[0] in "IF":
        values = _grey_values(image, path)
        if values.max() > 255:
            raise InputError(
                f"{path} holds the id {values.max()}, but ids go from 1 to 255; {_conversion(path)} renumbers the "
                f"objects"
            )
        return values.astype(np.uint8)
    mask = interpret(image, path)
    if mask.kind == Kind.COLOURS:
        raise InputError(
            f"{path} has colours that are not those of DAVIS's palette, so its ids are ambiguous; {_conversion(path)} "
            f"makes a palette PNG of it"
        )
    return mask.values.astype(np.uint8)


def interpret(image: Image.Image, path: Path | str) -> MaskValues:
    """Say what a mask shows, whatever its mode. Void is background, see `is_void`.

    Black and transparent pixels are the background; where there are none, white that surrounds the objects is. The
    indices of a palette are ids if index 0 is black or transparent. Other palettes, and colours, are ids where they are
    DAVIS's. See `VideoIds` for all other colours, and for grey values.

    Args:
        image: the image as Pillow has decoded it.

    Raises:
        InputError: the image is no mask: its format is lossy, its edges are soft, it has the many colours of a picture,
            or no background.
    """
    if image.format in _LOSSY_FORMATS or _is_lossy_webp(image, path):
        name = "WebP with losses" if image.format == "WEBP" else image.format
        raise InputError(
            f"{path} is a {name} file, in which the colours of a mask do not last; save the mask as a PNG, or "
            f"{_conversion(path)} makes one of it"
        )
    return _without_void(_interpreted(image, path))


def _interpreted(image: Image.Image, path: Path | str) -> MaskValues:
    if image.mode == "1":
        return MaskValues(Kind.IDS, np.array(image).astype(np.int32), _note_about_border(np.array(image)))
    if image.mode == "P":
        return _interpret_palette(image, path)
    if image.mode == "L" or image.mode[0] in "IF":
        return _interpret_grey(_grey_values(image, path), path)
    return _interpret_colours(np.array(image.convert("RGBA")), path)


def is_void(values: np.ndarray) -> np.ndarray:
    """The pixels of no object in a mask of integer values [H,W], bool [H,W].

    `VOID` marks them if it stands beside other values that are plain ids, or if it is only a thin outline around them.
    A mask whose only value is 255 shows an object.
    """
    void = values == VOID
    others = np.unique(values[~void & (values > 0)])
    if not void.any() or not len(others):
        return np.zeros_like(void)
    if others[-1] <= MOST_PLAIN_ID or _is_thin(void):
        return void
    return np.zeros_like(void)


def _is_thin(chosen: np.ndarray) -> bool:
    """Whether the chosen pixels (bool [H,W]) contain no square whose sides exceed `_OUTLINE` pixels."""
    side = _OUTLINE + 1
    if min(chosen.shape) < side:
        return False
    total = np.pad(chosen.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    return int(inside.max()) < side * side


def _without_void(mask: MaskValues) -> MaskValues:
    """The mask with void as background, and a note about it."""
    if mask.kind == Kind.COLOURS or not (void := is_void(mask.values)).any():
        return mask
    values = np.where(void, 0, mask.values)
    kind = Kind.IDS if values.max() <= MOST_PLAIN_ID else mask.kind
    return MaskValues(kind, values, ". ".join(filter(None, [_VOID_NOTE, mask.note])), mask.palette)


def described(name: str, ids: np.ndarray, most: int = 12) -> str:
    """Say what a mask holds: ``mask 00000.png: 2 objects, 1 (12.3% of the frame), 2 (0.8%)``.

    Args:
        ids: uint8 object ids [H,W].
        most: how many objects are listed.
    """
    counts = np.bincount(ids.reshape(-1), minlength=256)[1:]
    found = np.flatnonzero(counts) + 1
    if not len(found):
        return f"mask {name}: no object"
    shares = [f"{number} ({_percent(counts[number - 1] / ids.size)})" for number in found[:most]]
    shares[0] = shares[0].replace("%)", "% of the frame)")
    rest = [f"{len(found) - most} more"] if len(found) > most else []
    return f"mask {name}: {len(found)} object{'s' * (len(found) > 1)}, " + ", ".join(shares + rest)


def _percent(share: float) -> str:
    """A share in percent, with enough digits not to be rounded to 0."""
    return f"{100 * share:.1f}%" if share >= 0.0005 else f"{100 * share:.2g}%"


def _conversion(path: Path | str) -> str:
    return f"python scripts/convert_mask.py {shlex.quote(str(path))} --output NEW.png"


def _interpret_palette(image: Image.Image, path: Path | str) -> MaskValues:
    indices, colours = np.array(image), _palette_colours(image)
    used = np.unique(indices)
    palette = colours[:, :3].tobytes()
    if palette == davis_palette() and (colours[used, 3] == 255).all():
        return MaskValues(Kind.IDS, indices.astype(np.int32), palette=palette)
    if (colours[used] == np.stack([used, used, used, np.full_like(used, 255)], axis=1)).all():  # a grey image
        return _interpret_grey(indices.astype(np.int32), path)
    pixels = colours[indices]
    # A used index other than 0 may be the background: a black, transparent or white one.
    plain = ~colours[used, :3].any(axis=1) | (colours[used, 3] == 0) | (colours[used, :3] == 255).all(axis=1)
    starts_black = not colours[0, :3].any() or not colours[0, 3]
    if plain.any():
        has_ids = starts_black and 0 in used
    else:
        has_ids = starts_black or _share_of_border(indices == 0) > _FRAME_SHARE
    if has_ids:
        _refuse_soft(indices.astype(np.int64), pixels, path)
        values = np.where(pixels[:, :, 3] > 0, indices, 0).astype(np.int32)
        return MaskValues(Kind.IDS, values, _note_about_border(values), palette)
    return _interpret_colours(pixels, path)


def refuse_shades(values: np.ndarray, path: Path | str) -> None:
    """Refuse grey values (integers [H,W]) that are shades of soft edges or noise, and no ids."""
    ids = np.unique(values[values > 0])
    dense = _are_dense(ids)
    pixels = np.repeat(values[:, :, None], 3, axis=2)
    _refuse_soft(values, pixels, path, few=dense or ids[-1] <= MOST_PLAIN_ID)
    faint = (values > 0) & (values <= _TRACE)
    is_noise = faint.any() and ids[-1] > MOST_PLAIN_ID and _around(faint, np.minimum).sum() < _SOLID * faint.sum()
    if is_noise or (not dense and (ids >= 248).sum() - (ids > 255).sum() > 1):
        raise InputError(f"{path} {_TRACES}; {_conversion(path)} makes a clean mask of it")


def _are_dense(ids: np.ndarray) -> bool:
    """Whether few values are missing between sorted ids, as in ids, and unlike in shades."""
    return not len(ids) or ids[-1] <= 2 * len(ids)


def _interpret_grey(values: np.ndarray, path: Path | str) -> MaskValues:
    shown = np.unique(values)
    ids = shown[shown > 0]
    refuse_shades(values, path)
    note = ""
    white = values == (255 if values.max() <= 255 else 65535)
    if 0 not in shown and len(ids) > 1 and _share_of_border(white) > _FRAME_SHARE:
        values, note = np.where(white, 0, values), "white is the background, because no pixel is black or transparent"
        ids = ids[:-1]
    elif 0 not in shown and not _are_dense(ids) and ids[-1] > MOST_PLAIN_ID and len(ids) > 1:
        raise InputError(
            f"{path} has no background, because no pixel is 0 and no white surrounds the objects; save the background "
            f"as 0, or {_conversion(path)} --threshold 128 takes the bright pixels as the object"
        )
    kind = Kind.IDS if not len(ids) or ids[-1] <= MOST_PLAIN_ID else Kind.GREY
    return MaskValues(kind, values, note or _note_about_border(values))


def _interpret_colours(pixels: np.ndarray, path: Path | str) -> MaskValues:
    """What RGBA pixels [H,W,4] show."""
    clear = pixels[:, :, 3] <= _TRACE
    colours, opaque = pixels[:, :, :3], ~clear
    grey = (colours[:, :, 0] == colours[:, :, 1]) & (colours[:, :, 1] == colours[:, :, 2])
    if grey.all() and (pixels[:, :, 3] == 255).all():
        return _interpret_grey(colours[:, :, 0].astype(np.int32), path)
    values = _packed(pixels)
    _refuse_soft(values, pixels, path)
    values = np.where(clear, 0, values & 0xFFFFFF)
    note = ""
    if clear.any() and not values.any():
        values = np.where(opaque, _BLACK_OBJECT, 0)
    elif values.all() and len(np.unique(values)) > 1:
        white = values == 0xFFFFFF
        if _share_of_border(white) <= _FRAME_SHARE:
            raise InputError(
                f"{path} has no background, because no pixel is black or transparent and no white surrounds the "
                f"objects; paint the background black"
            )
        values, note = np.where(white, 0, values), "white is the background, because no pixel is black or transparent"
    shown = np.unique(values)
    shown = shown[shown > 0]
    cream = values == _CREAM
    if cream.any() and len(shown) > 1 and _is_thin(cream):
        values, shown, note = np.where(cream, 0, values), shown[shown != _CREAM], _VOID_NOTE
    if len(shown) > 255:
        raise _too_many(path, len(shown))
    levels = np.array([0, *shown])[:, None] >> np.array([16, 8, 0]) & 255
    apart = np.abs(levels[:, None] - levels).max(axis=2) + 255 * np.eye(len(levels), dtype=int)
    if apart.min() <= _TRACE and _BLACK_OBJECT not in shown:
        raise InputError(f"{path} {_TRACES}; {_conversion(path)} makes a clean mask of it")
    table = {int(code): number for number, code in enumerate(_packed(_davis_pixels())) if number}
    if len(shown) and all(int(value) in table for value in shown):
        ids = np.array([0] + [table[int(value)] for value in shown], np.int32)
        values = np.where(values > 0, ids[np.searchsorted(shown, values) + 1], 0)
        return MaskValues(Kind.IDS, values, note or _note_about_border(values))
    return MaskValues(Kind.COLOURS, values, note or _note_about_border(values))


def _refuse_soft(values: np.ndarray, pixels: np.ndarray, path: Path | str, *, few: bool = False) -> None:
    """Refuse soft edges, noise and pictures.

    A value belongs to a soft edge if it fills no 3×3 pixels, and most of its pixels have a lower and a higher value
    beside them. Hard masks have hardly any such value. If its colour is a mixture of the two, one such value is enough.

    Args:
        values: integers [H,W] that tell the colours apart.
        pixels: the colours [H,W,3], or [H,W,4] with opacity.
        few: whether the values may be ids. Then only many such values are refused.
    """
    shown, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(values.shape)
    if len(shown) < 3:
        return
    if len(shown) > 4096:
        raise _too_many(path, len(shown))
    lowest, highest = _around(inverse, np.minimum), _around(inverse, np.maximum)
    solid = np.zeros(len(shown), bool)
    solid[inverse[(lowest == inverse) & (highest == inverse)]] = True
    below, above = _other_values(inverse, len(shown))
    edge = (below < above) & (below >= 0) & (above < len(shown))
    share = np.bincount(inverse[edge], minlength=len(shown)) / counts
    thin = ~solid & (share > 0.5)
    soft = int(thin.sum())
    many = soft >= 3 and 2 * soft >= len(shown) - 1
    if not many and not few and soft:
        chosen = edge & thin[inverse]
        soft = int(_is_mixture(pixels, inverse, chosen, below, above))
    elif not many:
        return
    if soft:
        raise InputError(
            f"{path} has soft edges: {len(shown)} values, many of them only along edges; paint without smoothing, or "
            f"{_conversion(path)} makes a hard mask of it"
        )


def _is_mixture(
    pixels: np.ndarray, inverse: np.ndarray, chosen: np.ndarray, below: np.ndarray, above: np.ndarray
) -> bool:
    """Whether most of the chosen pixels have a colour between the colours of two values beside them."""
    _, first = np.unique(inverse, return_index=True)
    palette = pixels.reshape(-1, pixels.shape[2])[first].astype(np.float64)
    if pixels.shape[2] == 4:  # on black, transparent pixels are black
        partial = (pixels[:, :, 3] > 0) & (pixels[:, :, 3] < 255)
        if partial[chosen].mean() > 0.5:
            return True
        palette = palette[:, :3] * palette[:, 3:] / 255
    low, middle, high = (palette[index[chosen]] for index in (below, inverse, above))
    scale = max(1.0, palette.max() / 255)  # of images with 16 bits
    line = high - low
    position = ((middle - low) * line).sum(1) / np.maximum((line**2).sum(1), 1e-9)
    distance = np.abs(low + position[:, None] * line - middle).max(1)
    return bool(((distance <= _MIXTURE * scale) & (position > 0) & (position < 1)).mean() > 0.5)


def _around(values: np.ndarray, choose: np.ufunc) -> np.ndarray:
    """The smallest or the largest of the values in the 3×3 pixels around each pixel."""
    padded = np.pad(values, 1, mode="edge")
    rows = choose(choose(padded[:-2], padded[1:-1]), padded[2:])
    return choose(choose(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])


def _other_values(values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest value beside each pixel that is not the pixel's own; ``count`` and −1 if none."""
    height, width = values.shape
    padded = np.pad(values, 1, mode="edge")
    smallest, largest = np.full_like(values, count), np.full_like(values, -1)
    for dy in range(3):
        for dx in range(3):
            beside = padded[dy : dy + height, dx : dx + width]
            other = beside != values
            smallest = np.where(other, np.minimum(smallest, beside), smallest)
            largest = np.where(other, np.maximum(largest, beside), largest)
    return smallest, largest


def _too_many(path: Path | str, count: int) -> InputError:
    return InputError(
        f"{path} has {count} colours, so it is a picture or has soft edges; give a mask in a few plain colours, "
        f"or {_conversion(path)} makes one of it"
    )


def surrounds(values: np.ndarray) -> bool:
    """Whether the only object of a mask (integers [H,W]) covers nearly the whole border, which inverted masks do."""
    found = np.unique(values)
    return len(found) == 2 and not found[0] and _share_of_border(values > 0) >= 0.9


def _note_about_border(values: np.ndarray) -> str:
    """A sentence about a mask whose object surrounds everything, which is often an inverted mask."""
    if not surrounds(values):
        return ""
    return (
        "the object surrounds the rest of the frame; if it should be the other way round, convert the mask with "
        "scripts/convert_mask.py --invert"
    )


def _share_of_border(chosen: np.ndarray) -> float:
    """The share of the pixels on the border of an image that are chosen (bool [H,W])."""
    border = np.concatenate([chosen[0], chosen[-1], chosen[1:-1, 0], chosen[1:-1, -1]])
    return float(border.mean())


def _grey_values(image: Image.Image, path: Path | str) -> np.ndarray:
    values = np.array(image)
    whole = np.rint(values).astype(np.int64)
    if values.dtype.kind == "f" and (whole != values).any():
        if len(np.unique(values)) > 2:
            raise InputError(f"{path} holds fractions; save the mask with whole numbers, 0 for the background")
        return (values != values.min()).astype(np.int32) * 255
    if whole.min() < 0:
        raise InputError(f"{path} holds negative values; save the mask with ids from 0 to 255")
    if whole.max() > 255 and not (whole % 257).any():  # 8 bits, spread over 16
        whole //= 257
    if whole.max() == 65535 and whole[whole < 65535].max() < VOID:  # void of ids in 16 bits
        whole = np.where(whole == 65535, VOID, whole)
    clear = image.info.get("transparency")
    return np.where(whole == clear, 0, whole) if isinstance(clear, int) else whole


def _palette_colours(image: Image.Image) -> np.ndarray:
    """The colours of a palette image as uint8 RGBA [256,4]; entries that its file leaves out are those of DAVIS."""
    table = _davis_pixels()
    table[:, 3] = 255
    stored = np.array(image.getpalette("RGBA"), np.uint8).reshape(-1, 4)
    table[: len(stored)] = stored
    clear = image.info.get("transparency")
    if isinstance(clear, bytes):  # the opacity of the first entries
        table[: len(clear), 3] = np.frombuffer(clear, np.uint8)
    elif clear is not None:
        table[clear, 3] = 0
    return table


def _davis_pixels() -> np.ndarray:
    colours = np.frombuffer(davis_palette(), np.uint8).reshape(256, 3)
    return np.concatenate([colours, np.zeros((256, 1), np.uint8)], axis=1)


def _packed(pixels: np.ndarray) -> np.ndarray:
    """RGBA pixels as single integers, in the order opacity, red, green, blue."""
    red, green, blue, opacity = np.moveaxis(pixels.astype(np.int64), -1, 0)
    return opacity << 24 | red << 16 | green << 8 | blue


def _is_lossy_webp(image: Image.Image, path: Path | str) -> bool:
    """Whether a WebP file was compressed with losses: its data are in a chunk of another name than without."""
    if image.format != "WEBP":
        return False
    with open(path, "rb") as file:
        return b"VP8 " in file.read(4096)
