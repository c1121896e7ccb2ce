"""Outlines: closed polygons, float arrays [N,2] of (x, y) with y down, in an object's own units."""

import numpy as np


def ellipse(width: float, height: float, centre: tuple[float, float] = (0, 0), points: int = 40) -> np.ndarray:
    """An ellipse [N,2] with the given full width and height."""
    turn = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([np.cos(turn) * width / 2 + centre[0], np.sin(turn) * height / 2 + centre[1]], 1)


def blob(rng: np.random.Generator, width: float, height: float, rough: float, centre=(0, 0)) -> np.ndarray:
    """A smooth irregular closed curve [N,2] about as wide and high as given; ``rough`` 0 is an ellipse."""
    turn = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radius = np.ones_like(turn)
    for order in range(2, 8):
        radius += rough * rng.normal() / order * np.cos(order * turn + rng.uniform(0, 2 * np.pi))
    radius = np.clip(radius, 0.35, 1.8)
    return np.stack([radius * np.cos(turn) * width / 2 + centre[0], radius * np.sin(turn) * height / 2 + centre[1]], 1)


def box(width: float, height: float, corner: float = 0.2, centre: tuple[float, float] = (0, 0)) -> np.ndarray:
    """A rectangle [N,2] whose corners are rounded by ``corner`` (0..1) of its half sides."""
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    power = 2 / (2 + 18 * (1 - corner) ** 2)  # a superellipse: exponent 2 is round, 20 nearly square
    x, y = (np.sign(side) * np.abs(side) ** power for side in (np.cos(turn), np.sin(turn)))
    return np.stack([x * width / 2 + centre[0], y * height / 2 + centre[1]], 1)


def limb(length: float, start: float, end: float, bulge: float = 0) -> np.ndarray:
    """A rounded bar [N,2] from (0,0) down to (0,length), ``start`` wide there and ``end`` wide at the tip."""
    along = np.linspace(0, 1, 9)
    half = (start + (end - start) * along) / 2 * (1 + bulge * np.sin(np.pi * along))
    right = np.stack([half, along * length], 1)
    left = right[::-1] * (-1, 1)
    cap = np.linspace(0, np.pi, 8)[1:-1]
    tip = np.stack([np.cos(cap) * end / 2, length + np.sin(cap) * end / 2], 1)
    top = np.stack([-np.cos(cap) * start / 2, -np.sin(cap) * start / 2], 1)
    return np.concatenate([right, tip, left, top])


def polygon(rng: np.random.Generator, size: float, corners: int, depth: float = 0) -> np.ndarray:
    """A polygon [N,2] of about ``size`` across; ``depth`` > 0 pulls every other corner in, which makes a star."""
    count = corners * 2 if depth else corners
    turn = np.sort(np.linspace(0, 2 * np.pi, count, endpoint=False) + rng.uniform(-0.6, 0.6, count) / count)
    radius = size / 2 * rng.uniform(0.8, 1.1, count)
    radius[1::2] *= 1 - depth
    return np.stack([radius * np.cos(turn), radius * np.sin(turn)], 1)


def wheel(radius: float, rim: float, spokes: int, spoke: float) -> list[np.ndarray]:
    """A disc with see-through sectors: its outline and, by the even-odd rule, one hole [N,2] between each two spokes.

    Args:
        rim: width of the rim and radius of the hub, as a share of the radius.
        spoke: half width of a spoke in radians at the rim.
    """
    outlines = [ellipse(2 * radius, 2 * radius, points=56)]
    for index in range(spokes):
        start, end = (2 * np.pi * (index + side) / spokes for side in (0, 1))
        arc = np.linspace(start + spoke, end - spoke, 10)
        middle = (start + end) / 2
        outer = radius * (1 - rim) * np.stack([np.cos(arc), np.sin(arc)], 1)
        outlines.append(np.vstack([outer, [radius * rim * np.cos(middle), radius * rim * np.sin(middle)]]))
    return outlines
