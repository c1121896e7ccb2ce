"""Objects that are hard to follow: photographed or drawn, of many colours, turning, and with spray around them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toy.cutouts import cut_out
from toy.figures import Figure, Outline, Part, dress, measure, random_ripple, sprite_of
from toy.motion import Wander, scaling, translation
from toy.plans import random_glider, random_plan
from toy.textures import colour, log_uniform, noise, pick, soft_step, texture
from toy.turning import Turntable


@dataclass
class Material:
    """The pictures that objects are made of.

    Attributes:
        photos: photographs, uint8 RGB [H,W,3], from which textures may be cut.
        cutouts: photographed objects, uint8 RGBA [H,W,4]; may be empty.
        colours: mean colours of the scenery, float RGB [3] from 0 to 255.
        hard: whether objects may turn and have many colours.
    """

    photos: Sequence[np.ndarray]
    cutouts: Sequence[np.ndarray]
    colours: Sequence[np.ndarray]
    hard: bool


def random_object(
    rng: np.random.Generator, area: float, frame: tuple[int, int], material: Material
) -> tuple[Figure | Turntable, Outline, str, float]:
    """Return a random object.

    Args:
        rng: makes all random choices.
        area: the area of the object, in pixels.
        frame: the height and width of the frames, in pixels.
        material: what the object is made of.

    Returns:
        the object, its outline, its category, and its size in pixels per unit.
    """
    if material.cutouts and rng.random() < 0.5:
        first = pick(rng, material.cutouts)
        solid = float((first[..., 3] >= 128).sum()) / max(first.shape) ** 2
        size = _size(area, Outline((0, 0), *(side / max(first.shape) for side in first.shape[:2]), solid), frame)
        softness = log_uniform(rng, 0.008, 0.12) if rng.random() < 0.7 else 0.0

        def side(fresh: bool) -> tuple[Figure, Outline]:
            return cut_out(rng, pick(rng, material.cutouts) if fresh else first, softness, material.photos)

        category = "others"
    else:
        plan = random_glider if material.hard and rng.random() < 0.06 else lambda rng: random_plan(rng, False)
        parts, category = plan(rng)
        size = _size(area, measure(parts), frame)
        softness = log_uniform(rng, 0.004, 0.08) if rng.random() < 0.6 else 0.0
        near = [pick(rng, material.colours) * log_uniform(rng, 0.8, 1.25)] if rng.random() < 0.25 else []
        palette = [*near, *(colour(rng) for _ in range(6))]
        rng.shuffle(palette)
        patchwork = material.hard and rng.random() < 0.3

        def side(fresh: bool) -> tuple[Figure, Outline]:
            shapes = random_plan(rng, False)[0] if fresh else parts
            figure = dress(rng, shapes, size * 1.2, softness, palette, material.photos, patchwork)
            return figure, measure(shapes)

    front, outline = side(False)
    if not material.hard or rng.random() > 0.45:
        return front, outline, category, size
    return _turning(rng, front, outline, side), outline, category, size


def _size(area: float, outline: Outline, frame: tuple[int, int]) -> float:
    size = math.sqrt(area / max(outline.area, 1e-3))
    return min(size, 1.4 * frame[1] / outline.width, 1.3 * frame[0] / outline.height)


def _turning(rng: np.random.Generator, front: Figure, outline: Outline, side) -> Turntable:
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
    """Return a cloud of spray, dust or smoke: soft blobs that one can see through, about one unit wide."""
    side = 96
    tint = texture(
        rng, side, side, np.full(3, rng.uniform(90, 245)) + rng.normal(0, 12, 3), photos if rng.random() < 0.2 else ()
    )
    x, y = np.meshgrid(*[np.linspace(-1, 1, side, dtype=np.float32)] * 2)
    parts, sprites = [], []
    dense = rng.uniform(0.25, 0.75)
    for index in range(int(rng.integers(2, 7))):
        field = noise(rng, side, side, log_uniform(rng, 2, 12), rng.uniform(0.5, 1.0)) * np.float32(0.5)
        alpha = soft_step(
            1 - np.sqrt(x * x + y * y) + np.float32(0.35) * field - np.float32(0.4), log_uniform(rng, 0.8, 4)
        )
        alpha *= np.float32(255 * dense * rng.uniform(0.6, 1)) * np.clip(1.6 - np.sqrt(x * x + y * y) * 1.6, 0, 1)
        joint = (0.0, 0.0) if not index else tuple(rng.normal(0, 0.25, 2))
        part = Part(
            [], parent=None if not index else 0, joint=joint, spin=rng.normal(0, 0.1), swing=rng.uniform(0, 0.6)
        )
        wide = rng.uniform(0.3, 0.8)
        to_pixels = translation(side / 2 - 0.5, side / 2 - 0.5) @ scaling(side / wide, side / wide)
        image = np.dstack([tint * (alpha[..., None] / 255), alpha]).astype(np.uint8)
        parts.append(part)
        sprites.append(sprite_of(image, to_pixels))
    ripple = random_ripple(rng, 1.0, 0.08)
    return Figure(parts, sprites, np.eye(3), log_uniform(rng, 6, 40), ripple, 0.8, list(range(len(parts))))
