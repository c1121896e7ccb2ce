"""Random textures and colours. All pictures are BGR, as OpenCV writes them."""

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np


def pick(rng: np.random.Generator, choices: Sequence):
    """Return a random element of ``choices``. All are equally likely."""
    return choices[int(rng.integers(len(choices)))]


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Return a random number between ``low`` and ``high``. Its logarithm is uniformly distributed."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def noise(rng: np.random.Generator, height: int, width: int, coarse: float, roughness: float) -> np.ndarray:
    """Return random noise in several octaves, float32 [height,width] with mean 0 and standard deviation 1.

    Args:
        coarse: the number of cells of the coarsest octave along the longer side.
        roughness: the amplitude of an octave, divided by that of the next coarser octave.
    """
    total = np.zeros((1, 1), np.float32)
    cell, amplitude = max(height, width) / coarse, 1.0
    while cell >= 1.5:
        size = (int(width / cell) + 2, int(height / cell) + 2)
        # Each octave is added at its own resolution. So all octaves take little more time than the finest alone.
        total = cv2.resize(total, size, interpolation=cv2.INTER_CUBIC)
        total += amplitude * rng.standard_normal(size[::-1], dtype=np.float32)
        cell, amplitude = cell / 2, amplitude * roughness
    total = cv2.resize(total, (width, height), interpolation=cv2.INTER_CUBIC)
    return (total - total.mean()) / (total.std() + 1e-6)


def texture(rng: np.random.Generator, height: int, width: int, hue: float) -> np.ndarray:
    """Return stripes or patches of two colours with grain, float32 BGR [height,width,3] from 0 to 255.

    ``hue`` is that of both colours, from 0 to 1 and periodic.
    """
    first, second = (
        255 * np.float32(colorsys.hsv_to_rgb((hue + rng.normal(0, 0.03)) % 1, rng.uniform(0.3, 0.8), value)[::-1])
        for value in (rng.uniform(0.3, 0.55), rng.uniform(0.65, 0.95))
    )
    field = noise(rng, height, width, rng.uniform(3, 7), 0.4)
    if rng.random() < 0.5:
        angle, waves = rng.uniform(0, np.pi), 2 * np.pi * rng.uniform(3, 7) / max(height, width)
        y, x = np.mgrid[:height, :width].astype(np.float32)
        field = np.sin(waves * (x * np.cos(angle) + y * np.sin(angle)) + field)
    share = np.clip(3 * field + 0.5, 0, 1)[..., None]
    grain = 1 + 0.08 * noise(rng, height, width, 12, 0.8)[..., None]
    return np.clip((first + share * (second - first)) * grain, 0, 255)
