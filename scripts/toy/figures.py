"""Figures: objects made of textured parts that are connected by joints, and functions that draw figures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from toy.motion import rotation, scaling, translation
from toy.shapes import blob, ellipse
from toy.textures import colour, log_uniform, pick, soft_step, texture

_LEVELS = 4  # each sprite exists in four sizes, 1 to 1/8, so that small objects do not flicker
# For each level, the matrix [3,3] from the pixels of the full-size sprite to the pixels of the level.
_TO_LEVEL = [translation(-0.5, -0.5) @ scaling(0.5**n, 0.5**n) @ translation(0.5, 0.5) for n in range(_LEVELS)]


@dataclass
class Part:
    """One rigid part of a figure. A joint connects the part to its parent. The joint is (0, 0) in the part's units.

    Attributes:
        outlines: the shape, floats [N,2] each. By the even-odd rule, an outline inside another one is a hole.
        material: the number of the part's material.
        parent: the index of the part that this part is connected to, or None for the root part.
        joint: the place (x, y) of the joint, in the parent's units.
        angle: the angle at the joint in the rest pose, in radians.
        swing: the amplitude of the angle's motion, in radians.
        beat: the number of swings in a period of the figure's motion.
        phase: the phase of the swings, in radians.
        spin: the steady rotation at the joint, in radians per frame.
        layer: parts with a higher number are drawn later, so they hide others.
        decals: outlines that are drawn on the part, each with the number of its material.
    """

    outlines: list[np.ndarray]
    material: int = 0
    parent: int | None = None
    joint: tuple[float, float] = (0, 0)
    angle: float = 0
    swing: float = 0
    beat: float = 1
    phase: float = 0
    spin: float = 0
    layer: int = 0
    decals: list[tuple[np.ndarray, int]] = field(default_factory=list)


@dataclass
class Sprite:
    """The picture of a part, in several sizes."""

    levels: list[np.ndarray]  # premultiplied RGBA, uint8 [h,w,4]; each is half as large as the previous one
    to_pixels: np.ndarray  # [3,3], from the part's units to the pixels of level 0
    corners: np.ndarray  # [3,4], the corners of the sprite in the part's units


@dataclass
class Figure:
    """An object with textures, which `draw` can put into frames.

    Attributes:
        parts: the parts. A parent comes before its children.
        sprites: the picture of each part.
        root: the matrix [3,3] from the root part's units to the figure's units. The centre of the rest pose is (0, 0),
            and y points down.
        period: the period of the figure's motion, in frames.
        ripple: waves that bend the figure. Each has a wave vector, a displacement, a rate in radians per frame, and a
            phase.
        radius: the radius of the rest pose.
        order: the indices of the parts, from the rearmost to the foremost.
    """

    parts: list[Part]
    sprites: list[Sprite]
    root: np.ndarray
    period: float
    ripple: list[tuple[np.ndarray, np.ndarray, float, float]]
    radius: float
    order: list[int]

    def pose(self, t: float) -> list[np.ndarray]:
        """Return for each part the matrix [3,3] from its units to the figure's units at time ``t``."""
        return _pose(self.parts, self.root, 2 * math.pi * t / self.period, t)


@dataclass
class Outline:
    """The centre (x, y), size and area of a figure in its rest pose, in the units of the root part."""

    centre: tuple[float, float]
    height: float
    width: float
    area: float


def _pose(parts: Sequence[Part], root: np.ndarray, beat: float, t: float) -> list[np.ndarray]:
    matrices: list[np.ndarray] = []
    for part in parts:
        angle = part.angle + part.swing * math.sin(part.beat * beat + part.phase) + part.spin * t
        base = root if part.parent is None else matrices[part.parent]
        matrices.append(base @ translation(*part.joint) @ rotation(angle))
    return matrices


def measure(parts: Sequence[Part]) -> Outline:
    """Return the size and area of parts in their rest pose."""
    shapes = []
    for part, matrix in zip(parts, _pose(parts, np.eye(3), 0, 0), strict=True):
        shapes.append([outline @ matrix[:2, :2].T + matrix[:2, 2] for outline in part.outlines])
    points = np.concatenate([outline for shape in shapes for outline in shape])
    low, high = points.min(0), points.max(0)
    unit = 200 / (high - low).max()
    canvas = np.zeros((208, 208), np.uint8)
    for shape in shapes:
        layer = np.zeros_like(canvas)
        cv2.fillPoly(layer, [((outline - low) * unit + 3).astype(np.int32) for outline in shape], 1)
        canvas |= layer
    (width, height), (x, y) = high - low, (low + high) / 2
    return Outline((float(x), float(y)), float(height), float(width), float(canvas.sum()) / unit**2)


def dress(
    rng: np.random.Generator,
    parts: list[Part],
    pixels: float,
    softness: float,
    palette: Sequence[np.ndarray] = (),
) -> Figure:
    """Return a figure made of parts with random textures, light and motion.

    Args:
        rng: makes all random choices.
        parts: the parts. A parent comes before its children.
        pixels: the number of pixels per unit at the largest size at which the figure is drawn.
        softness: the amplitude of the ripple, as a fraction of the figure's size. With 0 the figure is rigid.
        palette: the mean colours (float RGB [3] from 0 to 255) of the first materials. The others are random.
    """
    outline = measure(parts)
    sizes = [np.ptp(np.concatenate(part.outlines), axis=0) * pixels for part in parts]
    side = int(np.clip(max(size.max() for size in sizes) * 1.15, 24, 640))
    count = 1 + max(max([part.material, *(material for _, material in part.decals)]) for part in parts)
    palette = [*palette, *(colour(rng) for _ in range(count))]
    materials = [texture(rng, side, side, palette[index]) for index in range(count)]
    light = rng.uniform(-math.pi, 0)
    look = (light, rng.uniform(0, 0.8), rng.uniform(-0.05, 0.3), rng.random() < 0.35, rng.random() < 0.3)
    sprites = [_sprite(rng, part, pixels, materials, *look) for part in parts]
    mirror = scaling(pick(rng, [-1, 1]), 1)
    period = log_uniform(rng, 8, 60)
    ripple = random_ripple(rng, max(outline.height, outline.width), softness)
    root = mirror @ translation(-outline.centre[0], -outline.centre[1])
    order = sorted(range(len(parts)), key=lambda index: parts[index].layer)
    return Figure(parts, sprites, root, period, ripple, math.hypot(outline.height, outline.width) / 2, order)


def random_ripple(
    rng: np.random.Generator, extent: float, softness: float
) -> list[tuple[np.ndarray, np.ndarray, float, float]]:
    """Return waves that bend a figure of this size; ``softness`` is that of `dress`. See `Figure.ripple`."""
    ripple = []
    for _ in range(3 if softness else 0):
        turn, way = rng.uniform(0, 2 * np.pi, 2)
        wave = np.array([np.cos(turn), np.sin(turn)]) * 2 * np.pi / (extent * rng.uniform(0.5, 1.5))
        size = extent * softness * rng.uniform(0.3, 1)
        ripple.append((wave, size * np.array([np.cos(way), np.sin(way)]), 6.28 / log_uniform(rng, 10, 60), way))
    return ripple


def sprite_of(image: np.ndarray, to_pixels: np.ndarray) -> Sprite:
    """Return the sprite of a picture.

    Args:
        image: premultiplied RGBA, uint8 [h,w,4].
        to_pixels: [3,3], from the part's units to the pixels of the picture.
    """
    levels = [image]
    for _ in range(_LEVELS - 1):
        levels.append(cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    height, width = image.shape[:2]
    corners = np.linalg.inv(to_pixels) @ np.array([[0, width, width, 0], [0, 0, height, height], [1, 1, 1, 1]], float)
    return Sprite(levels, to_pixels, corners)


def _sprite(
    rng: np.random.Generator,
    part: Part,
    pixels: float,
    materials: list[np.ndarray],
    light: float,
    relief: float,
    skylight: float,
    glossy: bool,
    rimmed: bool,
) -> Sprite:
    points = np.concatenate(part.outlines)
    low = points.min(0)
    pixels = min(pixels, 900 / max(np.ptp(points, axis=0).max(), 1e-3))
    margin = 4
    width, height = (int(math.ceil((side + 2 * margin) / 8) * 8) for side in np.ptp(points, axis=0) * pixels)

    def fill(outlines: list[np.ndarray]) -> np.ndarray:
        canvas = np.zeros((height * 2, width * 2), np.uint8)
        # Draw at twice the size and average, because OpenCV's anti-aliasing makes shapes half a pixel too large.
        corners = [np.round(((outline - low) * pixels + margin) * 2 * 16).astype(np.int32) for outline in outlines]
        cv2.fillPoly(canvas, corners, 255, shift=4)
        return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)

    def cover(material: np.ndarray) -> np.ndarray:
        side = material.shape[0]
        if height > side or width > side:
            return cv2.resize(material, (width, height), interpolation=cv2.INTER_LINEAR)
        top, left = int(rng.integers(side - height + 1)), int(rng.integers(side - width + 1))
        return np.ascontiguousarray(material[top : top + height, left : left + width])

    alpha = fill(part.outlines)
    picture = cover(materials[part.material])
    for outline, material in part.decals:
        weight = fill([outline]).astype(np.float32) / 255
        picture = cv2.blendLinear(picture, cover(materials[material]), 1 - weight, weight)
    shade = _relief(alpha, light - part.angle) * np.float32(relief)
    # Upper parts are brighter, because light comes from the sky. Lower parts are darker.
    gain = 1 + shade + np.linspace(skylight, -skylight, height, dtype=np.float32)[:, None]
    if rimmed:
        gain *= 0.55 + 0.45 * soft_step(cv2.boxFilter(alpha, cv2.CV_32F, (5, 5)) / 255 - np.float32(0.8), 3)
    lit = picture.astype(np.float32) * gain[..., None]
    if glossy:
        lit += (np.clip(shade * 4 - 1, 0, 1) ** 2 * np.float32(90))[..., None]
    cover_share = alpha.astype(np.float32)[..., None] / 255
    image = np.dstack([np.clip(lit, 0, 255) * cover_share, alpha[..., None]]).astype(np.uint8)
    to_pixels = scaling(pixels, pixels) @ translation(-low[0], -low[1])
    return sprite_of(image, translation(margin - 0.5, margin - 0.5) @ to_pixels)


def _relief(alpha: np.ndarray, light: float) -> np.ndarray:
    """Return the light on a cushion with this outline, relative to flat ground: float32 [H,W], about -1 to 1."""
    height, width = alpha.shape
    small = cv2.resize(alpha, (max(4, width // 4), max(4, height // 4)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small.astype(np.float32) / 255, (0, 0), max(1.0, min(small.shape) * 0.22))
    slope_x, slope_y = cv2.Sobel(small, cv2.CV_32F, 1, 0), cv2.Sobel(small, cv2.CV_32F, 0, 1)
    slope = -(slope_x * np.float32(math.cos(light)) + slope_y * np.float32(math.sin(light)))
    slope /= np.abs(slope).max() + np.float32(1e-6)
    return cv2.resize(slope, (width, height), interpolation=cv2.INTER_LINEAR)


def over(below: np.ndarray, above: np.ndarray) -> None:
    """Put a picture on another one in place. Both are premultiplied RGBA, uint8 [H,W,4]."""
    rest = cv2.merge([cv2.bitwise_not(cv2.extractChannel(above, 3))] * 4)
    cv2.multiply(below, rest, dst=below, scale=1 / 255)
    cv2.add(below, above, dst=below)


def crop(drawn: tuple[int, int, np.ndarray], height: int, width: int) -> tuple[slice, slice, np.ndarray]:
    """Cut off the parts of a picture that lie outside of a frame.

    Args:
        drawn: the top and left edges of the picture in the frame, and the picture [h,w,4], as `draw` returns them.
        height, width: the size of the frame, in pixels.

    Returns:
        The rows and columns of the frame that the rest covers, and the rest [h,w,4]. It may be empty.
    """
    top, left, picture = drawn
    rows = slice(min(max(top, 0), height), max(min(top + picture.shape[0], height), 0))
    columns = slice(min(max(left, 0), width), max(min(left + picture.shape[1], width), 0))
    seen = picture[rows.start - top : max(rows.stop - top, 0), columns.start - left : max(columns.stop - left, 0)]
    return rows, columns, np.ascontiguousarray(seen)


def draw(figure: Figure, t: float, matrix: np.ndarray, height: int, width: int) -> tuple[int, int, np.ndarray] | None:
    """Draw a figure for a frame.

    Args:
        figure: the figure.
        t: the time in the figure's motion, in frames.
        matrix: [3,3], from the figure's units to the pixels of the frame. It may contain perspective.
        height, width: the size of the frame, in pixels.

    Returns:
        The top and left edges of the picture in the frame, and the picture, premultiplied RGBA uint8 [h,w,4]. The
        picture may extend beyond the frame. None if the figure is outside of the frame.
    """
    poses = np.stack(figure.pose(t))
    corners = matrix @ poses @ np.stack([sprite.corners for sprite in figure.sprites])
    corners = corners[:, :2] / np.maximum(corners[:, 2:], 0.05)
    boxes = np.concatenate([corners.min(2), corners.max(2)], 1)
    scale = math.sqrt(abs(np.linalg.det(matrix[:2, :2])))
    slack = 2 + scale * sum(float(np.abs(way).max()) for _, way, _, _ in figure.ripple)
    step = 8 if scale * figure.radius > 48 else 4
    low = np.maximum(boxes[:, :2].min(0) - slack, -4 * step)
    high = np.minimum(boxes[:, 2:].max(0) + slack, (width + 4 * step, height + 4 * step))
    if (high - low < 1).any() or high[0] < 0 or high[1] < 0 or low[0] >= width or low[1] >= height:
        return None
    left, top = (np.floor(low / step).astype(int) * step).tolist()
    columns, rows = (np.ceil((high - (left, top)) / step).astype(int) + 1).tolist()

    # Places are computed for the centres of the cells of a grid, and interpolated in between.
    x = left + (np.arange(columns) + 0.5) * step - 0.5
    y = top + (np.arange(rows) + 0.5) * step - 0.5
    inverse = np.linalg.inv(matrix)
    grid = np.stack(np.broadcast_arrays(x[None], y[:, None], 1.0), -1) @ inverse.T
    place = grid[..., :2] / grid[..., 2:]
    bent = place
    for wave, way, rate, phase in figure.ripple:
        bent = bent + np.sin(place @ wave + rate * t + phase)[..., None] * way

    picture = np.zeros((rows * step, columns * step, 4), np.uint8)
    first = np.floor((boxes[:, :2] - slack - (left, top)) / step).astype(int) - 1
    last = np.ceil((boxes[:, 2:] + slack - (left, top)) / step).astype(int) + 1
    cells = np.hstack([np.maximum(first, 0), np.minimum(last, (columns, rows))]).tolist()
    to_sprites = np.stack([sprite.to_pixels for sprite in figure.sprites]) @ np.linalg.inv(poses)
    shrink = np.sqrt(np.abs(np.linalg.det(to_sprites[:, :2, :2]))) / scale
    levels = np.round(np.log2(shrink)).clip(0, _LEVELS - 1).astype(int).tolist()
    for index in figure.order:
        j0, i0, j1, i1 = cells[index]
        if j1 - j0 < 2 or i1 - i0 < 2:
            continue
        sprite, level = figure.sprites[index], levels[index]
        to_level = _TO_LEVEL[level] @ to_sprites[index]
        places = (bent[i0:i1, j0:j1] @ to_level[:2, :2].T + to_level[:2, 2]).astype(np.float32)
        places = cv2.resize(places, ((j1 - j0) * step, (i1 - i0) * step), interpolation=cv2.INTER_LINEAR)
        drawn = cv2.remap(sprite.levels[level], places, None, cv2.INTER_LINEAR)
        over(picture[i0 * step : i1 * step, j0 * step : j1 * step], drawn)
    return top, left, picture


def smear(picture: np.ndarray, x: float, y: float) -> np.ndarray:
    """Return a picture with motion blur, as from an object that moves while the shutter is open.

    Each pass averages two copies of the picture that are shifted in opposite directions. The shift of a pass is half of
    that of the previous pass.

    Args:
        picture: premultiplied RGBA, uint8 [h,w,4].
        x, y: the motion while the shutter is open, in pixels.
    """
    x, y = x / 4, y / 4
    while max(abs(x), abs(y)) >= 0.5:
        ahead, back = _shifted(picture, round(x), round(y)), _shifted(picture, -round(x), -round(y))
        picture = cv2.addWeighted(ahead, 0.5, back, 0.5, 0)
        x, y = x / 2, y / 2
    return picture


def _shifted(picture: np.ndarray, x: int, y: int) -> np.ndarray:
    height, width = picture.shape[:2]
    padded = cv2.copyMakeBorder(picture, abs(y), abs(y), abs(x), abs(x), cv2.BORDER_REPLICATE)
    return padded[abs(y) - y : abs(y) - y + height, abs(x) - x : abs(x) - x + width]


def lump(rng: np.random.Generator, width: float, height: float, materials: int) -> Part:
    """Return a part of random shape with up to three patches in one of ``materials`` materials."""
    rough = log_uniform(rng, 0.1, 0.8)
    decals = []
    for _ in range(int(rng.integers(0, 4))):
        centre = rng.uniform(-0.4, 0.4, 2) * (width, height)
        side = rng.uniform(0.15, 0.5, 2) * (width, height)
        shape = blob(rng, *side, 0.4, centre) if rng.random() < 0.6 else ellipse(*side, centre)
        decals.append((shape, int(rng.integers(materials))))
    return Part([blob(rng, width, height, rough)], material=int(rng.integers(materials)), decals=decals)
