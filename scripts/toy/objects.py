"""Random objects: their shape, materials and size."""

import math
from collections.abc import Sequence

import numpy as np

from toy.figures import Figure, Outline, dress, measure
from toy.plans import random_plan
from toy.textures import colour, log_uniform, pick


def random_object(
    rng: np.random.Generator,
    area: float,
    frame: tuple[int, int],
    colours: Sequence[np.ndarray],
    unseen: bool,
) -> tuple[Figure, Outline, str, float]:
    """Return a random object.

    Args:
        rng: makes all random choices.
        area: the area of the object, in pixels.
        frame: the height and width of the frames, in pixels.
        colours: mean colours of the scenery, float RGB [3] from 0 to 255. The object may have the same colours.
        unseen: whether the object may have a category that no training video shows.

    Returns:
        the object, its outline, its category, and its size in pixels per unit.
    """
    parts, category = random_plan(rng, unseen)
    outline = measure(parts)
    size = math.sqrt(area / max(outline.area, 1e-3))
    size = min(size, 1.4 * frame[1] / outline.width, 1.3 * frame[0] / outline.height)
    softness = log_uniform(rng, 0.004, 0.08) if rng.random() < 0.6 else 0.0
    near = [pick(rng, colours) * log_uniform(rng, 0.8, 1.25)] if rng.random() < 0.25 else []
    palette = [*near, *(colour(rng) for _ in range(5))]
    rng.shuffle(palette)
    return dress(rng, parts, size * 1.2, softness, palette), outline, category, size
