"""A synthetic video: objects in front of a background, and a camera. Frames can be drawn for any time, in any order."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from small_network.toy.motion import Camera, Track, Wander, translation
from small_network.toy.objects import KINDS, Picture, random_object
from small_network.toy.textures import colour, log_uniform, noise, pick, soft_step, texture

LEAST_AREA = 0.004  # smallest share of the frame that an object covers in its first annotated frame
LEAST_SPAN = 6  # length of a video in which objects leave and come back, in multiples of the shortest absence
_ROOM = 1.4  # the size of the background, in frames


@dataclass
class Actor:
    """An object and its path.

    Attributes:
        picture: the object.
        track: the path.
        label: the id in the masks, or 0 if the object is not annotated.
        wobble: the deformation: its size in pixels, and its rate and phase in radians.
    """

    picture: Picture
    track: Track
    label: int
    wobble: tuple[float, float, float]

    def draw(self, t: float, view: np.ndarray, frame: np.ndarray, ids: np.ndarray) -> None:
        """Draw the object at time ``t`` on a frame, uint8 BGR [H,W,3], and on its ids, uint8 [H,W], in place.

        The pixels that it covers by at least half get its label. ``view`` is that of the camera.
        """
        side = len(self.picture.shadow)
        matrix = view @ self.track.matrix(t, frame.shape[1]) @ translation(-side / 2, -side / 2)
        x, y = (matrix @ [[0, side, 0, side], [0, 0, side, side], [1, 1, 1, 1]])[:2]
        left, right = np.clip([x.min(), x.max() + 1], 0, frame.shape[1]).astype(int)
        top, bottom = np.clip([y.min(), y.max() + 1], 0, frame.shape[0]).astype(int)
        if left == right or top == bottom:
            return
        rows, columns = np.float32(np.arange(top, bottom))[:, None], np.float32(np.arange(left, right))
        u, v = (a * columns + b * rows + c for a, b, c in np.float32(np.linalg.inv(matrix)[:2]))
        size, rate, phase = np.float32(self.wobble)
        wave, time = np.float32(2 * np.pi / side), np.float32(t) * rate + phase
        u, v = u + size * np.sin(wave * v + time), v + size * np.sin(1.4 * wave * u - time)
        colours = cv2.remap(self.picture.colours, u, v, cv2.INTER_LINEAR)
        shadow = cv2.remap(self.picture.shadow, u, v, cv2.INTER_LINEAR)
        opacity = colours[..., 3]
        rest = cv2.multiply(255 - opacity, 255 - shadow, scale=1 / 255)
        part = frame[top:bottom, left:right]
        part[:] = cv2.add(cv2.multiply(part, cv2.merge([rest] * 3), scale=1 / 255), colours[..., :3])
        ids[top:bottom, left:right][opacity >= 128] = self.label


class Scene:
    """One video. Its frames are drawn on demand.

    Args:
        background: uint8 BGR, larger than the frame. The frame shows its middle.
        size: the height and width of the frames, in pixels.
        camera: the motion of the camera.
        actors: the objects, from the farthest to the nearest.
    """

    def __init__(self, background: np.ndarray, size: tuple[int, int], camera: Camera, actors: list[Actor]) -> None:
        self.size, self.camera, self.actors = size, camera, actors
        self.background = background
        y, x = (np.linspace(-1, 1, length, dtype=np.float32) for length in size)
        vignette = np.uint8(255 - 30 * (x * x + (y * y)[:, None]))
        self._vignette = cv2.merge([vignette] * 3)

    def frame(self, t: float) -> tuple[np.ndarray, np.ndarray]:
        """Draw the frame at time ``t``.

        Returns:
            The frame, uint8 BGR [H,W,3] for OpenCV, and its object ids, uint8 [H,W]. The id of a pixel is that of the
            nearest object that covers at least half of the pixel.
        """
        height, width = self.size
        view = self.camera.view(t, height, width)
        rows, columns = self.background.shape[:2]
        shown = view @ translation((width - columns) / 2, (height - rows) / 2)
        frame = cv2.warpAffine(self.background, shown[:2], (width, height), borderMode=cv2.BORDER_REFLECT_101)
        ids = np.zeros(self.size, np.uint8)
        for actor in self.actors:
            actor.draw(t, view, frame, ids)
        return cv2.multiply(frame, self._vignette, scale=1 / 255), ids


def random_scene(
    rng: np.random.Generator,
    height: int,
    width: int,
    span: float,
    labels: Sequence[int],
    late: dict[int, float] | None = None,
    leave: float = 0.0,
) -> Scene:
    """Return a random video.

    Args:
        rng: makes all random choices.
        height, width: the size of the frames, in pixels.
        span: the length of the video. The unit of time is that of all speeds, see `motion`.
        labels: the ids of the annotated objects.
        late: by id, the time at which an object is visible, for objects that are not visible at time 0.
        leave: if it is above 0, every annotated object leaves the picture again and again, for at least this time, and
            comes back at least once. ``span`` is at least `LEAST_SPAN` times as long.

    Returns:
        A scene. At time 0, or at its ``late`` time, an object covers at least the share `LEAST_AREA` of the frame, as
        long as there are at most 20 objects and the frame is not a narrow strip.
    """
    late = late or {}
    camera = Camera(rng)
    others = int(rng.integers(len(labels) == 1, 2))  # not annotated; a single object meets one of them
    labels = rng.permutation([*labels, *[0] * others]).tolist()
    places = sorted(_places(rng, len(labels), height, width))
    kinds, hue = rng.permutation(list(KINDS)).tolist(), rng.random()
    actors = []
    for number, label in enumerate(labels):
        room = min(math.dist(places[number], place) for place in places if place is not places[number])
        size = log_uniform(rng, 0.25, 0.75) * math.sqrt(height * width)
        size = min(size, 0.85 * height, 0.85 * width, 1.4 * room * width)
        start = late.get(label, 0.0)
        # Neighbours in the list meet: they change places, and come back.
        goal = places[number ^ 1 if number ^ 1 < len(places) else number - 1]
        share = rng.uniform(0.55, 0.9)
        track = Track(
            start=start,
            place=_in_scene(places[number], camera.view(start, height, width), width),
            goal=tuple(a + share * (b - a) for a, b in zip(places[number], goal, strict=True)),
            period=rng.uniform(1.8, 3) * min(max(span, 20), 40),
            drift=(Wander(rng, 0.015, rng.uniform(30, 60)), Wander(rng, 0.015, rng.uniform(30, 60))),
            log_scale=Wander(rng, rng.uniform(0.05, 0.25), rng.uniform(30, 80)),
            angle=Wander(rng, rng.uniform(0.1, 0.6), rng.uniform(30, 80)),
            facing=Wander(rng, rng.uniform(0, 0.9), rng.uniform(30, 90)),
        )
        if start:
            track.absences = [(-1e9, start, pick(rng, [-1, 1]), min(18.0, 0.7 * start))]
        elif leave and label:
            track.absences = _absences(rng, span, leave)
        elif rng.random() < 0.1:
            begin, ease = rng.uniform(0.2, 0.6) * span, rng.uniform(8, 18)
            track.absences = [(begin, begin + 2 * ease + rng.uniform(3, 20), pick(rng, [-1, 1]), ease)]
        # Golden-ratio steps give clearly different hues to any number of objects.
        picture = random_object(rng, kinds[number % len(kinds)], size, hue + 0.618 * number)
        actors.append(Actor(picture, track, label, (0.03 * size, rng.uniform(0.1, 0.4), rng.uniform(0, 6.28))))
    # Objects that come late are in front, so that they are visible when they should be.
    order = rng.permutation(len(actors))
    actors = sorted((actors[number] for number in order), key=lambda actor: actor.track.start)
    return Scene(_background(rng, int(_ROOM * height), int(_ROOM * width)), (height, width), camera, actors)


def _places(rng: np.random.Generator, count: int, height: int, width: int) -> list[tuple[float, float]]:
    """Return places (x, y) in frame widths that are far from each other and from the frame's edges."""
    places: list[tuple[float, float]] = []
    for _ in range(count):
        tries = [(rng.uniform(0.15, 0.85), rng.uniform(0.2, 0.8) * height / width) for _ in range(40)]
        places.append(max(tries, key=lambda place: min((math.dist(place, other) for other in places), default=0)))
    return places


def _in_scene(place: tuple[float, float], view: np.ndarray, width: int) -> tuple[float, float]:
    """Return where in the scene a place is that the camera's ``view`` shows at ``place`` in the frame."""
    x, y, _ = np.linalg.solve(view, (place[0] * width, place[1] * width, 1)) / width
    return x, y


def _absences(rng: np.random.Generator, span: float, leave: float) -> list[tuple[float, float, int, float]]:
    """Return absences of ``leave`` frames or longer.

    Between absences the object is on its path for a half to three times ``leave`` frames, so that several objects leave
    at different times.
    """
    absences: list[tuple[float, float, int, float]] = []
    ease, end = min(100.0, leave / 2), 0.0
    while True:
        start = end + rng.uniform(0.5, 3) * leave
        end = start + 2 * ease + rng.uniform(1, 1.5) * leave
        if end + leave / 2 > span:
            return absences
        absences.append((start, end, pick(rng, [-1, 1]), ease))


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return hills under a sky, or one surface near the camera, uint8 BGR [height,width,3]."""
    hue = rng.random()
    if rng.random() < 0.35:
        base, other = (
            colour(hue + rng.normal(0, 0.04), rng.uniform(0.1, 0.4), rng.uniform(0.35, 0.75)) for _ in range(2)
        )
        picture = texture(rng, height, width, base, other)
    else:
        down = np.linspace(0, 1, height, dtype=np.float32)[:, None]
        high, low = colour(rng.uniform(0.5, 0.65), 0.5, 0.8), colour(rng.uniform(0, 0.15), 0.2, 0.95)
        picture = high + (low - high) * np.repeat(down, width, 1)[..., None]
        clouds = soft_step(noise(rng, height, width, 5) - 0.6, 0.7)[..., None]
        picture += (245 - picture) * clouds
        hills = int(rng.integers(3, 6))
        for number in range(hills):
            near = (number + 1) / hills
            crest = 0.25 + 0.4 * near + 0.06 * noise(rng, 1, width, rng.uniform(2, 6), 0.45)
            base, other = (
                colour(rng.uniform(0.08, 0.38), rng.uniform(0.3, 0.5), rng.uniform(0.3, 0.6)) for _ in range(2)
            )
            land = texture(rng, height, width, base, other)
            land += (low - land) * (0.75 * (1 - near))  # haze
            picture += (land - picture) * soft_step(down - crest, height / 1.5)[..., None]
    light = 1 + 0.1 * noise(rng, height, width, 3, 0.4)
    return np.clip(picture * light[..., None], 0, 255).astype(np.uint8)
