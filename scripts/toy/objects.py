"""Random objects: drawn, photographed or clip art. Hard ones have many colours and turn. Also spray, dust and smoke."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from toy.cutouts import cut_out
from toy.figures import Figure, Outline, Part, dress, measure, random_ripple, sprite_of
from toy.motion import Wander, scaling, translation
from toy.plans import random_glider, random_plan
from toy.textures import Pictures, colour, log_uniform, noise, pick, soft_step, texture
from toy.turning import Turntable

# Makes a side of an object: of the same shape as the front, or with True of another shape.
_Side = Callable[[bool], tuple[Figure, Outline]]


def random_object(
    rng: np.random.Generator,
    area: float,
    frame: tuple[int, int],
    pictures: Pictures,
    colours: Sequence[np.ndarray],
    unseen: bool,
    hard: bool,
    lead: bool,
) -> tuple[Figure | Turntable, Outline, str, float]:
    """Return a random object.

    Args:
        rng: makes all random choices.
        area: the area of the object, in pixels.
        frame: the height and width of the frames, in pixels.
        pictures: the pictures that the object may be made of.
        colours: mean colours of the scenery, float RGB [3] from 0 to 255. The object may have the same colours.
        unseen: whether the object may have a category that no training video shows.
        hard: whether the object may turn and have many colours.
        lead: whether the object turns more often, and more often has many colours.

    Returns:
        the object, the outline of its front, its category, and its size in pixels per unit.
    """
    if (pictures.cutouts or pictures.clip_art) and rng.random() < 0.5:
        category, size, side = _cut_out(rng, area, frame, pictures)
    else:
        category, size, side = _drawn(rng, area, frame, pictures, colours, unseen, hard, lead)
    front, outline = side(False)
    if (hard or lead) and rng.random() < (0.8 if lead else 0.45):
        return _turning(rng, front, outline, side), outline, category, size
    return front, outline, category, size


def _cut_out(
    rng: np.random.Generator, area: float, frame: tuple[int, int], pictures: Pictures
) -> tuple[str, float, _Side]:
    """Return the category, the size and the sides of an object that is a photograph or clip art."""
    cutouts = pictures.cutouts
    if pictures.clip_art and (not cutouts or rng.random() < 0.5):
        cutouts = pictures.clip_art
    front = pick(rng, cutouts)
    unit = max(front.shape)
    solid = float((front[..., 3] >= 128).sum()) / unit**2
    size = _size(area, Outline((0, 0), front.shape[0] / unit, front.shape[1] / unit, solid), frame)
    softness = log_uniform(rng, 0.008, 0.12) if rng.random() < 0.7 else 0.0

    def side(other: bool) -> tuple[Figure, Outline]:
        return cut_out(rng, pick(rng, cutouts) if other else front, softness, pictures.photos)

    return "others", size, side


def _drawn(
    rng: np.random.Generator,
    area: float,
    frame: tuple[int, int],
    pictures: Pictures,
    colours: Sequence[np.ndarray],
    unseen: bool,
    hard: bool,
    lead: bool,
) -> tuple[str, float, _Side]:
    """Return the category, the size and the sides of an object that is drawn."""
    glides = hard and rng.random() < 0.06
    parts, category = random_glider(rng) if glides else random_plan(rng, unseen)
    size = _size(area, measure(parts), frame)
    softness = log_uniform(rng, 0.004, 0.08) if rng.random() < 0.6 else 0.0
    near = [pick(rng, colours) * log_uniform(rng, 0.8, 1.25)] if rng.random() < 0.25 else []
    palette = [*near, *(colour(rng) for _ in range(5))]
    rng.shuffle(palette)
    patchwork = (hard or lead) and rng.random() < (0.6 if lead else 0.3)

    def side(other: bool) -> tuple[Figure, Outline]:
        shapes = random_plan(rng, unseen)[0] if other else parts
        return dress(rng, shapes, size * 1.2, softness, palette, pictures.photos, patchwork), measure(shapes)

    return category, size, side


def _size(area: float, outline: Outline, frame: tuple[int, int]) -> float:
    """Return the pixels per unit with which an object has this area, in pixels, and is not much larger than a frame."""
    size = math.sqrt(area / max(outline.area, 1e-3))
    return min(size, 1.4 * frame[1] / outline.width, 1.3 * frame[0] / outline.height)


def _turning(rng: np.random.Generator, front: Figure, outline: Outline, side: _Side) -> Turntable:
    """Return an object whose first side is ``front``; ``side`` makes the others, of the same or of another shape."""
    flank, flank_outline = side(rng.random() < 0.5)
    back, _ = side(False)
    factor = outline.height / max(flank_outline.height, 1e-3)
    flank_width = float(np.clip(flank_outline.width * factor, 0.3 * outline.width, 1.2 * outline.width))
    factor = min(factor, flank_width / max(flank_outline.width, 1e-3))
    roundness = pick(rng, [1.0, 0.6, 0.3])
    reach = [roundness * flank_width / 2, roundness * outline.width / 2] * 2
    start = rng.uniform(-0.3, 0.3)
    if rng.random() < 0.6:
        rate = log_uniform(rng, 0.006, 0.09) * pick(rng, [-1, 1])

        def yaw(t: float) -> float:
            return start + rate * t
    else:
        yaw = Wander(rng, rng.uniform(0.6, 2.5), rng.uniform(40, 150))
    return Turntable([(front, 1.0), (flank, factor), (back, 1.0), (flank, factor)], reach, yaw, rng.uniform(0, 0.5))


def puffs(rng: np.random.Generator, photos: Sequence[np.ndarray]) -> Figure:
    """Return a cloud of spray, dust or smoke: soft blobs that one can see through, about one unit wide.

    Args:
        rng: makes all random choices.
        photos: photographs, uint8 RGB [H,W,3], from which the texture may be cut.
    """
    side = 96  # pixels of a blob's picture
    base = np.full(3, rng.uniform(90, 245)) + rng.normal(0, 12, 3)
    tint = texture(rng, side, side, base, photos if rng.random() < 0.2 else ())
    across = np.linspace(-1, 1, side, dtype=np.float32)
    radius = np.hypot(across[None], across[:, None])
    dense = rng.uniform(0.25, 0.75)
    parts, sprites = [], []
    for index in range(int(rng.integers(2, 7))):
        field = noise(rng, side, side, log_uniform(rng, 2, 12), rng.uniform(0.5, 1.0))
        alpha = soft_step(np.float32(0.6) - radius + np.float32(0.18) * field, log_uniform(rng, 0.8, 4))
        alpha *= np.float32(255 * dense * rng.uniform(0.6, 1)) * np.clip(1.6 - 1.6 * radius, 0, 1)
        motion = {"spin": rng.normal(0, 0.1), "swing": rng.uniform(0, 0.6)}
        parts.append(Part([], parent=0, joint=tuple(rng.normal(0, 0.25, 2)), **motion) if index else Part([], **motion))
        density = side / rng.uniform(0.3, 0.8)  # pixels per unit
        to_pixels = translation(side / 2 - 0.5, side / 2 - 0.5) @ scaling(density, density)
        sprites.append(sprite_of(np.dstack([tint * (alpha[..., None] / 255), alpha]).astype(np.uint8), to_pixels))
    ripple = random_ripple(rng, 1.0, 0.08)
    return Figure(parts, sprites, np.eye(3), log_uniform(rng, 6, 40), ripple, 0.8, list(range(len(parts))))
