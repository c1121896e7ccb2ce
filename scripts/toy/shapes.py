"""Outlines of shapes. An outline is a closed polygon: floats [N,2] of (x, y) in an object's units, with y down."""

import numpy as np


def ellipse(width: float, height: float, centre: tuple[float, float] = (0, 0), points: int = 40) -> np.ndarray:
    """Return an ellipse, floats [points,2], with this width and height."""
    turn = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([np.cos(turn) * width / 2 + centre[0], np.sin(turn) * height / 2 + centre[1]], 1)


def blob(rng: np.random.Generator, width: float, height: float, rough: float, centre=(0, 0)) -> np.ndarray:
    """Return a random smooth shape, floats [72,2], of about this size. With ``rough`` 0 it is an ellipse."""
    turn = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radius = np.ones_like(turn)
    for order in range(2, 8):
        radius += rough * rng.normal() / order * np.cos(order * turn + rng.uniform(0, 2 * np.pi))
    radius = np.clip(radius, 0.35, 1.8)
    return np.stack([radius * np.cos(turn) * width / 2 + centre[0], radius * np.sin(turn) * height / 2 + centre[1]], 1)


def box(width: float, height: float, corner: float = 0.2, centre: tuple[float, float] = (0, 0)) -> np.ndarray:
    """Return a rectangle, floats [48,2]. With ``corner`` 0 its corners are nearly square, with 1 it is an ellipse."""
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    # The shape is a superellipse. The exponent 2 is round, and 20 is nearly square.
    power = 2 / (2 + 18 * (1 - corner) ** 2)
    x, y = (np.sign(side) * np.abs(side) ** power for side in (np.cos(turn), np.sin(turn)))
    return np.stack([x * width / 2 + centre[0], y * height / 2 + centre[1]], 1)


def limb(length: float, start: float, end: float, bulge: float = 0) -> np.ndarray:
    """Return a round bar, floats [N,2], from (0, 0) down to (0, ``length``).

    Args:
        length: the length of the bar without its round ends.
        start: the width at (0, 0).
        end: the width at (0, ``length``).
        bulge: the fraction by which the middle is wider, 0 for straight sides. It may be negative.
    """
    along = np.linspace(0, 1, 9)
    half = (start + (end - start) * along) / 2 * (1 + bulge * np.sin(np.pi * along))
    right = np.stack([half, along * length], 1)
    left = right[::-1] * (-1, 1)
    cap = np.linspace(0, np.pi, 8)[1:-1]
    tip = np.stack([np.cos(cap) * end / 2, length + np.sin(cap) * end / 2], 1)
    top = np.stack([-np.cos(cap) * start / 2, -np.sin(cap) * start / 2], 1)
    return np.concatenate([right, tip, left, top])


def polygon(rng: np.random.Generator, size: float, corners: int, depth: float = 0) -> np.ndarray:
    """Return a random polygon or star, floats [N,2].

    Args:
        rng: makes all random choices.
        size: the approximate diameter.
        corners: the number of corners, or of the points of a star.
        depth: 0 for a polygon. For a star, the fraction of the radius (0 to 1) by which its inner corners are nearer to
            the centre.
    """
    count = corners * 2 if depth else corners
    turn = np.sort(np.linspace(0, 2 * np.pi, count, endpoint=False) + rng.uniform(-0.6, 0.6, count) / count)
    radius = size / 2 * rng.uniform(0.8, 1.1, count)
    radius[1::2] *= 1 - depth
    return np.stack([radius * np.cos(turn), radius * np.sin(turn)], 1)


def wheel(radius: float, rim: float, spokes: int, spoke: float) -> list[np.ndarray]:
    """Return the outlines of a wheel: a disc, and a hole between each two spokes. The even-odd rule makes the holes.

    Args:
        radius: the radius of the wheel.
        rim: the width of the rim and the radius of the hub, as a fraction of the radius.
        spokes: the number of spokes.
        spoke: half of the width of a spoke at the rim, in radians.
    """
    outlines = [ellipse(2 * radius, 2 * radius, points=56)]
    for index in range(spokes):
        start, end = (2 * np.pi * (index + side) / spokes for side in (0, 1))
        arc = np.linspace(start + spoke, end - spoke, 10)
        middle = (start + end) / 2
        outer = radius * (1 - rim) * np.stack([np.cos(arc), np.sin(arc)], 1)
        outlines.append(np.vstack([outer, [radius * rim * np.cos(middle), radius * rim * np.sin(middle)]]))
    return outlines
