"""Random materials: noise in many octaves, patterns and colours. All pictures are BGR, as OpenCV writes them."""

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


def noise(rng: np.random.Generator, height: int, width: int, coarse: float, roughness: float = 0.6) -> np.ndarray:
    """Return random noise in several octaves, float32 [height,width] with mean 0 and standard deviation 1.

    Args:
        rng: makes all random choices.
        height, width: the size, in pixels.
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


def soft_step(field: np.ndarray, sharpness: float) -> np.ndarray:
    """Map values below 0 to 0 and values above 0 to 1. The ramp around 0 has the width 1/sharpness."""
    return np.clip(field * sharpness + 0.5, 0, 1)


def colour(hue: float, saturation: float, value: float) -> np.ndarray:
    """Return a colour, float32 BGR [3] from 0 to 255. The arguments are from 0 to 1, and ``hue`` is periodic."""
    return 255 * np.float32(colorsys.hsv_to_rgb(hue % 1, saturation, value)[::-1])


def texture(rng: np.random.Generator, height: int, width: int, base: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return a picture of a material, float32 BGR [height,width,3]: a random pattern of two colours, and grain."""
    pattern = pick(rng, (_stripes, _checks, _spots, _patches, _gradient))(rng, height, width)[..., None]
    grain = 1 + rng.uniform(0.04, 0.11) * noise(rng, height, width, 12, 0.8)[..., None]
    return (base + (other - base) * np.float32(pattern)) * grain


def _waves(rng: np.random.Generator, height: int, width: int, turn: float = 0) -> np.ndarray:
    """Return the phase of bent waves: 2 to 7 in the picture."""
    angle, count = rng.uniform(-0.5, 0.5) + turn, 2 * np.pi * rng.uniform(2, 7) / max(height, width)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return count * (x * np.cos(angle) + y * np.sin(angle)) + 0.6 * noise(rng, height, width, 2, 0.3)


def _stripes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return soft_step(np.sin(_waves(rng, height, width, rng.uniform(0, 3))), 4)


def _checks(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return (_stripes(rng, height, width) + soft_step(np.sin(_waves(rng, height, width)), 4)) / 2


def _spots(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    bumps = np.sin(_waves(rng, height, width)) * np.sin(_waves(rng, height, width, np.pi / 2))
    return soft_step(bumps - 0.35, 6)


def _patches(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return soft_step(noise(rng, height, width, rng.uniform(3, 8), 0.4), 4)


def _gradient(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return soft_step(noise(rng, height, width, 1.5, 0.3), 0.4)
