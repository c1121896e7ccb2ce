"""Random textures with statistics like those of photographs: noise in many octaves, muted colours, and patterns."""

from collections.abc import Sequence

import cv2
import numpy as np

# Typical mean colours (RGB) of surfaces: greys, soil and wood, skin and fur, plants, sky and cloth, paint.
_SURFACES = np.array(
    [
        [120, 120, 122], [60, 62, 66], [200, 198, 194], [30, 30, 34], [118, 92, 66], [150, 126, 96], [84, 62, 44],
        [198, 156, 128], [140, 94, 68], [222, 190, 164], [88, 104, 58], [58, 78, 42], [124, 134, 84], [116, 142, 172],
        [70, 92, 130], [160, 176, 190], [150, 52, 46], [188, 150, 60], [52, 98, 92], [96, 62, 96],
    ],
    dtype=np.float32,
)  # fmt: skip


def pick(rng: np.random.Generator, choices: Sequence):
    """Return a random element of ``choices``. All are equally likely."""
    return choices[int(rng.integers(len(choices)))]


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Return a random number between ``low`` and ``high``. Its logarithm is uniformly distributed."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def noise(
    rng: np.random.Generator, height: int, width: int, coarse: float = 4, roughness: float = 0.7, stretch: float = 1
) -> np.ndarray:
    """Return random noise in several octaves, float32 [height,width] with mean 0 and standard deviation 1.

    Args:
        rng: makes all random choices.
        height, width: the size, in pixels.
        coarse: the number of cells of the coarsest octave along the longer side.
        roughness: the amplitude of an octave, divided by that of the next coarser octave. 1 gives the 1/f spectrum of
            natural images.
        stretch: the width of a cell divided by its height. Grain, water and hair have long cells.
    """
    total = np.zeros((1, 1), np.float32)
    cell, amplitude = max(height, width) / coarse, 1.0
    while cell >= 1.5:
        rows = min(height, int(height / cell * max(stretch, 1)) + 2)
        columns = min(width, int(width / cell * max(1 / stretch, 1)) + 2)
        # Each octave is added at its own resolution. So all octaves take little more time than the finest alone.
        total = cv2.resize(total, (columns, rows), interpolation=cv2.INTER_CUBIC)
        total += rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(amplitude)
        cell, amplitude = cell / 2, amplitude * roughness
    total = cv2.resize(total, (width, height), interpolation=cv2.INTER_CUBIC)
    mean, deviation = cv2.meanStdDev(total)
    return (total - float(mean[0, 0])) / (float(deviation[0, 0]) + 1e-6)


def colour(rng: np.random.Generator, vivid: float = 0.12) -> np.ndarray:
    """Return a random surface colour, float32 RGB [3] from 8 to 248. ``vivid`` is its probability to be saturated."""
    mean = pick(rng, _SURFACES) * log_uniform(rng, 0.5, 1.6)
    grey = mean.mean()
    tint = rng.normal(0, 7, 3)
    saturation = rng.uniform(1.1, 2.2) if rng.random() < vivid else rng.uniform(0.15, 0.8)
    return np.clip(grey + (mean - grey) * saturation + tint, 8, 248).astype(np.float32)


def ramp(rng: np.random.Generator, base: np.ndarray, contrast: float) -> np.ndarray:
    """Return colours for the values of a noise field, from dark to bright.

    The colours differ mostly in brightness and a little in hue, as on a material in the light.

    Args:
        rng: makes all random choices.
        base: the mean colour, float RGB [3] from 0 to 255.
        contrast: the difference in brightness between the mean and both ends, as a fraction of the mean.

    Returns:
        uint8 RGB [1,256,3].
    """
    steps = np.linspace(-1, 1, 5, dtype=np.float32)[:, None]
    drift = rng.normal(0, 4, (5, 3)).astype(np.float32) + steps * rng.normal(0, 8, 3).astype(np.float32)
    knots = base * (1 + contrast * steps) + drift
    return cv2.resize(np.clip(knots, 0, 255)[None], (256, 1), interpolation=cv2.INTER_LINEAR).astype(np.uint8)


def paint(field: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Colour a noise field, float32 [H,W] as from `noise`, with the colours of a `ramp`. Returns uint8 RGB [H,W,3]."""
    index = cv2.convertScaleAbs(np.clip(field, -2.6, 2.6), alpha=48, beta=128)
    return cv2.LUT(cv2.merge([index] * 3), colours)


def mix(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Blend two uint8 pictures [H,W,3]. ``weight``, float32 [H,W] from 0 to 1, is the weight of the second picture."""
    return cv2.blendLinear(first, second, 1 - weight, weight)


def soft_step(field: np.ndarray, sharpness: float) -> np.ndarray:
    """Map values below 0 to 0 and values above 0 to 1, as float32. The ramp around 0 has the width 1/sharpness."""
    return np.clip(field * np.float32(sharpness) + np.float32(0.5), 0, 1).astype(np.float32, copy=False)


def texture(rng: np.random.Generator, height: int, width: int, base: np.ndarray | None = None) -> np.ndarray:
    """Return a picture of one random material, uint8 RGB [height,width,3].

    Args:
        rng: makes all random choices.
        height, width: the size, in pixels.
        base: the mean colour, float RGB [3] from 0 to 255, or None for a random colour.
    """
    base = colour(rng) if base is None else base
    field = noise(rng, height, width, log_uniform(rng, 1.5, 10), rng.uniform(0.55, 1.15), log_uniform(rng, 0.3, 3))
    contrast = log_uniform(rng, 0.06, 0.6)
    picture = paint(field, ramp(rng, base, contrast))
    pattern = pick(rng, _PATTERNS)
    if pattern is None:
        return picture
    other = colour(rng, 0.1) if rng.random() < 0.35 else np.clip(base * log_uniform(rng, 0.4, 2.2), 5, 250)
    second = paint(field if rng.random() < 0.5 else field[::-1], ramp(rng, other, contrast))
    weight = pattern(rng, height, width) * np.float32(rng.uniform(0.4, 1))
    return mix(picture, second, np.ascontiguousarray(weight, np.float32))


def _axis(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return the distance along a random, slightly bent direction, float32 [H,W], about 0 to 1."""
    angle = pick(rng, [0, np.pi / 2, rng.uniform(0, np.pi)])
    x = np.linspace(0, width / max(height, width), width, dtype=np.float32)[None] * np.float32(np.cos(angle))
    y = np.linspace(0, height / max(height, width), height, dtype=np.float32)[:, None] * np.float32(np.sin(angle))
    bend = cv2.resize(rng.standard_normal((4, 4), dtype=np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return x + y + bend * np.float32(pick(rng, [0, 0.01, 0.05]))


def _stripes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    waves = np.sin(_axis(rng, height, width) * np.float32(2 * np.pi * log_uniform(rng, 2, 24)))
    return soft_step(waves + np.float32(rng.uniform(-0.7, 0.7)), log_uniform(rng, 0.7, 6))


def _checks(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    first, second = _stripes(rng, height, width), _stripes(rng, height, width)
    return np.abs(first - second) if rng.random() < 0.5 else (first + second) / 2


def _patches(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    field = noise(rng, height, width, log_uniform(rng, 2, 16), rng.uniform(0.2, 0.7), log_uniform(rng, 0.4, 2.5))
    return soft_step(field + np.float32(rng.uniform(-1, 0.6)), log_uniform(rng, 1, 10))


def _veins(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    field = noise(rng, height, width, log_uniform(rng, 2, 8), rng.uniform(0.3, 0.7))
    return np.clip(1 - np.abs(field) * np.float32(log_uniform(rng, 1.5, 8)), 0, 1)


def _bricks(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    rows = log_uniform(rng, 4, 24)
    y = np.linspace(0, rows, height, dtype=np.float32)[:, None]
    x = np.linspace(0, rows * rng.uniform(0.4, 0.8) * width / height, width, dtype=np.float32)[None]
    x = x + np.floor(y) % 2 * np.float32(pick(rng, [0, 0.5]))
    edge = np.minimum(np.abs(y - np.round(y)), np.abs(x - np.round(x)))
    return soft_step(np.float32(rng.uniform(0.03, 0.12)) - edge, 15)


def _leaves(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draw many small overlapping strokes of random brightness, which look like leaves, feathers or pebbles."""
    canvas = np.zeros((height, width), np.uint8)
    size = max(height, width) * log_uniform(rng, 0.012, 0.06)
    shape = rng.uniform(0.2, 1)
    count = int(min(900, 1.6 * height * width / (size * size * shape * 3)))
    turn, spread = rng.uniform(0, 180), pick(rng, [15, 180])
    centres = (rng.random((count, 2)) * (width, height)).astype(int).tolist()
    sizes = np.maximum(1, size * rng.uniform(0.5, 1.3, count)).astype(int).tolist()
    turns = (turn + rng.uniform(-spread, spread, count)).tolist()
    shades = rng.integers(0, 256, count).tolist()
    for centre, length, angle, shade in zip(centres, sizes, turns, shades, strict=True):
        cv2.ellipse(canvas, centre, (length, max(1, int(length * shape))), angle, 0, 360, shade, -1, cv2.LINE_AA)
    return canvas.astype(np.float32) / 255


def _gradient(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return np.clip(_axis(rng, height, width) * np.float32(rng.uniform(0.6, 1.5)), 0, 1)


def _dots(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    count = log_uniform(rng, 4, 20) * np.pi
    x, y = _axis(rng, height, width) * count, _axis(rng, height, width) * count
    return soft_step(np.sin(x) * np.sin(y) - np.float32(rng.uniform(0.1, 0.6)), log_uniform(rng, 2, 8))


_PATTERNS = (None, None, _stripes, _checks, _patches, _patches, _veins, _bricks, _leaves, _leaves, _gradient, _dots)
