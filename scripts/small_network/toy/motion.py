"""Smooth motion over time. The unit of time is a frame of DAVIS, and lengths are shares of the frame's width."""

import math
from dataclasses import dataclass, field

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
    """A random smooth function of time between -amplitude and amplitude.

    The function is the sum of three sines. Their periods have no common multiple, so the function does not repeat.

    Args:
        rng: makes all random choices.
        amplitude: the largest absolute value.
        period: the approximate longest period, in frames.
    """

    def __init__(self, rng: np.random.Generator, amplitude: float, period: float) -> None:
        weights = rng.dirichlet([6, 3, 1])
        periods = period * np.array([1, 0.57, 0.31]) * rng.uniform(0.85, 1.15, 3)
        self._terms = list(
            zip((amplitude * weights).tolist(), (2 * np.pi / periods).tolist(), rng.uniform(0, 6.28, 3), strict=True)
        )

    def __call__(self, t: float) -> float:
        return sum(size * math.sin(rate * t + phase) for size, rate, phase in self._terms)


class Camera:
    """A camera in a hand that pans, zooms and rolls."""

    def __init__(self, rng: np.random.Generator) -> None:
        pan = rng.uniform(0.01, 0.05)
        self._pan = Wander(rng, pan, rng.uniform(40, 90)), Wander(rng, 0.4 * pan, rng.uniform(40, 90))
        self._shake = Wander(rng, 0.004, rng.uniform(8, 25)), Wander(rng, 0.004, rng.uniform(8, 25))
        self._log_zoom = Wander(rng, rng.uniform(0.03, 0.1), rng.uniform(40, 120))
        self._roll = Wander(rng, rng.uniform(0.01, 0.08), rng.uniform(40, 120))

    def view(self, t: float, height: int, width: int) -> np.ndarray:
        """Return the matrix [3,3] that moves the pixels of the scene to those of frame ``t``, height×width pixels."""
        x, y = (pan(t) + shake(t) for pan, shake in zip(self._pan, self._shake, strict=True))
        zoom = math.exp(self._log_zoom(t))
        centre = translation(width * (0.5 + x), height / 2 + width * y)
        return centre @ rotation(self._roll(t)) @ scaling(zoom, zoom) @ translation(-width / 2, -height / 2)


@dataclass
class Track:
    """The path of one object.

    Attributes:
        start: the time at which the object is at ``place``.
        place: where the object is at ``start``, (x, y).
        goal: where it goes, (x, y). It comes back to ``place``, again and again.
        period: the time from ``place`` to ``goal`` and back.
        drift: the motion (x, y) around this path.
        log_scale: the logarithm of the factor by which the size changes.
        angle: the rotation, in radians.
        facing: a rotation about the vertical axis, in radians. It makes the object narrower.
        absences: the times at which the object is away. Each has a start, an end, the side to which the object leaves,
            -1 or 1, and the number of frames that it takes to leave or to come back.
    """

    start: float
    place: tuple[float, float]
    goal: tuple[float, float]
    period: float
    drift: tuple[Wander, Wander]
    log_scale: Wander
    angle: Wander
    facing: Wander
    absences: list[tuple[float, float, int, float]] = field(default_factory=list)

    def matrix(self, t: float, width: int) -> np.ndarray:
        """Return the matrix [3,3] from the object's pixels to those of a scene that is ``width`` pixels wide."""
        share = math.sin(math.pi * (t - self.start) / self.period) ** 2
        x, y = (
            place + share * (goal - place) + drift(t) - drift(self.start)
            for place, goal, drift in zip(self.place, self.goal, self.drift, strict=True)
        )
        size = math.exp(self.log_scale(t))
        turn = rotation(self.angle(t)) @ scaling(size * math.cos(self.facing(t)), size)
        return translation((x + self._away(t)) * width, y * width) @ turn

    def _away(self, t: float) -> float:
        """Return the sideways distance between the object and its path that its absences cause."""
        x = 0.0
        for start, end, side, ease in self.absences:
            share = min(1.0, max(0.0, min((t - start) / ease, (end - t) / ease)))
            x += side * 2.5 * share * share * (3 - 2 * share)
        return x
