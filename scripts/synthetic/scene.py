"""A synthetic clip: textured objects in front of a background, and a camera. A frame can be drawn for any time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from synthetic.motion import Absence, Wander, rotation, scaling, translation
from synthetic.textures import log_uniform, pick, texture

LEAST_AREA = 0.004  # the smallest fraction of the frame that an object covers in its first annotated frame
LEAST_SPAN = 6  # the length of a clip in which objects leave and return, in multiples of the shortest absence
_ROOM = 1.5  # the size of the background, in frames
_TURN = np.linspace(0, 2 * np.pi, 120, endpoint=False)
# The outlines of objects: the radius by direction, at most 1.
KINDS = {
    "ball": np.ones_like(_TURN),
    "box": (np.abs(np.cos(_TURN)) ** 7 + np.abs(np.sin(_TURN)) ** 7) ** (-1 / 7) / 1.28,
    "star": (1 + 0.35 * np.cos(5 * _TURN)) / 1.35,
    "flower": (1 + 0.15 * np.cos(8 * _TURN)) / 1.15,
    "leaf": 1 - 0.5 * np.sin(_TURN) ** 2,
}


@dataclass
class Actor:
    """An object and its path. Positions (x, y) are in frame widths."""

    kind: str  # a name in `KINDS`
    picture: np.ndarray  # uint8 BGRA [S,S,4], the colours multiplied by the opacity
    label: int  # the id in the masks, or 0 if the object is not annotated
    start: float  # the time at which the object is at ``place``, apart from ``drift``
    place: tuple[float, float]  # the object moves between ``place`` and ``goal``, again and again
    goal: tuple[float, float]
    period: float  # the time from ``place`` to ``goal`` and back
    drift: tuple[Wander, Wander]  # the motion (x, y) around this path
    angle: Wander  # the rotation, in radians
    log_scale: Wander  # the logarithm of the factor by which the size changes
    absences: list[Absence] = field(default_factory=list)  # when the object is outside the frame

    def matrix(self, t: float, width: int) -> np.ndarray:
        """Return the matrix [3,3] from the pixels of ``picture`` to those of a frame that is ``width`` pixels wide."""
        share = math.sin(math.pi * (t - self.start) / self.period) ** 2
        x, y = (a + share * (b - a) + drift(t) for a, b, drift in zip(self.place, self.goal, self.drift, strict=True))
        x += 2.5 * sum(absence.shift(t) for absence in self.absences)
        size, middle = math.exp(self.log_scale(t)), len(self.picture) / 2
        turned = rotation(self.angle(t)) @ scaling(size, size) @ translation(-middle, -middle)
        return translation(x * width, y * width) @ turned


class Scene:
    """One random clip of ``span`` frames, which are drawn on demand.

    At time 0, or at its ``late`` time, an object covers at least `LEAST_AREA` of the frame.

    Args:
        labels: the ids of the annotated objects.
        late: by id, the time at which an object is visible, for objects that are not visible at time 0.
        leave: if it is above 0, every annotated object leaves the frame repeatedly, for at least this time, and
            returns at least once. ``span`` is at least `LEAST_SPAN` times as long.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        height: int,
        width: int,
        span: float,
        labels: Sequence[int],
        late: dict[int, float] | None = None,
        leave: float = 0.0,
    ) -> None:
        self.size = height, width
        self._pan = [Wander(rng, amplitude, rng.uniform(40, 90)) for amplitude in (0.04, 0.02)]
        self._log_zoom = Wander(rng, 0.08, rng.uniform(40, 120))
        hue = rng.random()
        self.background = texture(rng, int(_ROOM * height), int(_ROOM * width), hue).astype(np.uint8)
        # One more object is not annotated, so that an only object meets another one.
        labels = rng.permutation([*labels, 0]).tolist()
        places = sorted(_places(rng, len(labels), height / width))
        side = math.sqrt(height * width)
        actors = []
        for number, (label, place) in enumerate(zip(labels, places, strict=True)):
            room = min(math.dist(place, other) for other in places if other is not place)
            size = min(log_uniform(rng, 0.25, 0.6) * side, 0.8 * height, 1.3 * room * width)
            # Neighbours in the list meet: they exchange places, and return.
            goal = places[number ^ 1 if number ^ 1 < len(places) else number - 1]
            share = rng.uniform(0.5, 0.8)
            # Golden-ratio steps give different hues to any number of objects.
            kind, own_hue = pick(rng, list(KINDS)), hue + 0.618 * (number + 1)
            start = (late or {}).get(label, 0.0)
            actor = Actor(
                kind,
                _picture(rng, kind, int(size), own_hue),
                label,
                start,
                place,
                goal=tuple(a + share * (b - a) for a, b in zip(place, goal, strict=True)),
                period=rng.uniform(1.8, 3) * min(max(span, 20), 40),
                drift=(Wander(rng, 0.015, rng.uniform(30, 60)), Wander(rng, 0.015, rng.uniform(30, 60))),
                angle=Wander(rng, rng.uniform(0.1, 0.6), rng.uniform(30, 80)),
                log_scale=Wander(rng, rng.uniform(0.05, 0.2), rng.uniform(30, 80)),
            )
            if start:
                actor.absences = [Absence(-1e9, start, pick(rng, [-1, 1]), min(18.0, 0.7 * start))]
            elif leave and label:
                actor.absences = _absences(rng, span, leave)
            actors.append(actor)
        # Objects that come late are in front, so that they are visible when they should be.
        self.actors = sorted(actors, key=lambda actor: actor.start)

    def frame(self, t: float) -> tuple[np.ndarray, np.ndarray]:
        """Draw the frame at time ``t``.

        Returns:
            The frame, uint8 BGR [H,W,3] for OpenCV, and its object ids, uint8 [H,W]. The id of a pixel is that of the
            nearest object that covers at least half of the pixel.
        """
        height, width = self.size
        zoom = math.exp(self._log_zoom(t))
        x, y = (width * pan(t) for pan in self._pan)
        view = translation(width / 2 + x, height / 2 + y) @ scaling(zoom, zoom) @ translation(-width / 2, -height / 2)
        rows, columns = self.background.shape[:2]
        shown = view @ translation((width - columns) / 2, (height - rows) / 2)
        frame = cv2.warpAffine(self.background, shown[:2], (width, height), borderMode=cv2.BORDER_REFLECT_101)
        ids = np.zeros(self.size, np.uint8)
        for actor in self.actors:
            layer = cv2.warpAffine(actor.picture, (view @ actor.matrix(t, width))[:2], (width, height))
            opacity = layer[..., 3]
            frame = cv2.add(cv2.multiply(frame, cv2.merge([255 - opacity] * 3), scale=1 / 255), layer[..., :3])
            ids[opacity >= 128] = actor.label
        return frame, ids


def _places(rng: np.random.Generator, count: int, height: float) -> list[tuple[float, float]]:
    """Return places (x, y) in frame widths that are far from each other and from the frame's edges."""
    places: list[tuple[float, float]] = []
    for _ in range(count):
        tries = [(rng.uniform(0.18, 0.82), rng.uniform(0.22, 0.78) * height) for _ in range(40)]
        places.append(max(tries, key=lambda place: min((math.dist(place, other) for other in places), default=0)))
    return places


def _absences(rng: np.random.Generator, span: float, leave: float) -> list[Absence]:
    """Return absences of ``leave`` frames or longer.

    Between absences the object is on its path for a half to three times ``leave`` frames, so that several objects leave
    at different times.
    """
    absences: list[Absence] = []
    ease, end = min(100.0, leave / 2), 0.0
    while True:
        start = end + rng.uniform(0.5, 3) * leave
        end = start + 2 * ease + rng.uniform(1, 1.5) * leave
        if end + leave / 2 > span:
            return absences
        absences.append(Absence(start, end, pick(rng, [-1, 1]), ease))


def _picture(rng: np.random.Generator, kind: str, size: int, hue: float) -> np.ndarray:
    """Return an object of ``size`` pixels with a mark of another hue in its middle, uint8 BGRA [S,S,4], see `Actor`."""
    side = size + 4
    radius = KINDS[kind] * size / 2
    outline = np.stack([np.cos(_TURN) * radius, np.sin(_TURN) * radius], 1)
    opacity, mark = np.zeros((2, side, side), np.uint8)
    for mask, part in ((opacity, outline), (mark, outline * (0.5, 0.35))):
        cv2.fillPoly(mask, [np.round((part + side / 2) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    colours = np.where(mark[..., None] > 0, texture(rng, side, side, hue + 0.5), texture(rng, side, side, hue))
    # The object is darker at its lower right, as if lit from the upper left.
    light = 1.15 - 0.5 * np.add.outer(np.linspace(0, 1, side), np.linspace(0, 1, side)) / 2
    covered = opacity[..., None] / 255
    return np.dstack([np.clip(colours * light[..., None], 0, 255) * covered, opacity]).round().astype(np.uint8)
