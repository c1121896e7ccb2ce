"""Objects that turn about their vertical axis, so that sides come into view which the first frame did not show."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from toy.figures import Figure, draw, over
from toy.motion import scaling, translation


@dataclass
class Turntable:
    """Four figures that are the sides of one object, like the sides of a box.

    Attributes:
        sides: the figures, each with the factor that brings the figure to the height of the object. After a quarter
            turn the next side faces the camera.
        reach: for each side its distance from the vertical axis, in units of the object.
        yaw: the angle of the object over time, in radians. At 0 the first side faces the camera.
        shade: the share of the light that a side loses when it faces sideways.
    """

    sides: Sequence[tuple[Figure, float]]
    reach: Sequence[float]
    yaw: Callable[[float], float]
    shade: float

    def draw(self, t: float, matrix: np.ndarray, height: int, width: int) -> tuple[int, int, np.ndarray] | None:
        """Draw the object; the arguments and the result are those of `figures.draw`."""
        yaw = self.yaw(t)
        angles = [yaw + index * math.pi / 2 for index in range(len(self.sides))]
        drawn = []
        for index in sorted(range(len(angles)), key=lambda index: math.cos(angles[index])):
            facing = math.cos(angles[index])
            if facing < 0.06:
                continue
            figure, factor = self.sides[index]
            place = translation(math.sin(angles[index]) * self.reach[index], 0) @ scaling(factor * facing, factor)
            side = draw(figure, t, matrix @ place, height, width)
            if side is not None:
                top, left, picture = side
                gain = 1 - self.shade * (1 - facing)
                picture[..., :3] = cv2.convertScaleAbs(picture[..., :3], alpha=gain)
                drawn.append((top, left, picture))
        return together(drawn)


def together(drawn: Sequence[tuple[int, int, np.ndarray]]) -> tuple[int, int, np.ndarray] | None:
    """Put pictures, each as `figures.draw` returns them, into one; later ones hide earlier ones."""
    if len(drawn) < 2:
        return drawn[0] if drawn else None
    top, left = min(part[0] for part in drawn), min(part[1] for part in drawn)
    bottom = max(part[0] + part[2].shape[0] for part in drawn)
    right = max(part[1] + part[2].shape[1] for part in drawn)
    canvas = np.zeros((bottom - top, right - left, 4), np.uint8)
    for y, x, picture in drawn:
        target = canvas[y - top : y - top + picture.shape[0], x - left : x - left + picture.shape[1]]
        over(target, picture)
    return top, left, canvas
