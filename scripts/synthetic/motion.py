"""Smooth random motion over time. The unit of time is a frame."""

import math
from typing import NamedTuple

import numpy as np


def translation(x: float, y: float) -> np.ndarray:
    """Return the homogeneous matrix [3,3] of a shift by (x, y)."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], float)


def rotation(angle: float) -> np.ndarray:
    """Return the homogeneous matrix [3,3] of a rotation by ``angle`` radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], float)


def scaling(x: float, y: float) -> np.ndarray:
    """Return the homogeneous matrix [3,3] of a scaling by ``x`` and ``y``."""
    return np.diag([x, y, 1.0])


class Wander:
    """A random smooth function of time between -amplitude and amplitude. Its longest period is about ``period`` frames.

    The function is the sum of three sines. Their periods have no common multiple, so the function does not repeat.
    """

    def __init__(self, rng: np.random.Generator, amplitude: float, period: float) -> None:
        weights = rng.dirichlet([6, 3, 1])
        periods = period * np.array([1, 0.57, 0.31]) * rng.uniform(0.85, 1.15, 3)
        self._terms = list(
            zip((amplitude * weights).tolist(), (2 * np.pi / periods).tolist(), rng.uniform(0, 6.28, 3), strict=True)
        )

    def __call__(self, t: float) -> float:
        return sum(size * math.sin(rate * t + phase) for size, rate, phase in self._terms)


class Absence(NamedTuple):
    """A time in which an object is outside the frame."""

    start: float  # when it starts to leave
    end: float  # when it is back
    side: int  # to which it leaves and from which it returns, -1 or 1
    ease: float  # the number of frames that leaving takes, and returning too

    def shift(self, t: float) -> float:
        """Return how far the object is at time ``t``, from 0 (in its place) to ``side`` (away)."""
        away = min(1.0, max(0.0, min((t - self.start) / self.ease, (self.end - t) / self.ease)))
        return self.side * away * away * (3 - 2 * away)
