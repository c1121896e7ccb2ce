"""A synthetic video: figures in front of a backdrop, and a camera. Frames can be drawn for any time, in any order."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from toy.backdrop import Backdrop, random_backdrop
from toy.figures import Figure, crop, draw, over, smear
from toy.motion import Camera, Track, Wander, random_camera, wander_at_speed
from toy.objects import random_object
from toy.textures import log_uniform, noise, pick

LEAST_AREA = 0.004  # smallest fraction of the frame that an object covers in its first annotated frame
LEAST_SPAN = 6  # length of a video in which objects leave and return, in multiples of the shortest absence
_OUT_OF_SIGHT = 3.0  # frame widths from its path at which every object is outside the frame


@dataclass
class Actor:
    """A figure and its path.

    Attributes:
        figure: the figure.
        track: the path.
        label: the id in the masks, or 0 if the figure is not annotated.
        category: the kind of object.
        area: the fraction of the frame that the figure covers at its usual size, without occlusion.
        height: the height in object units.
        clock: the phase of the figure's own motion, in frames, so that equal figures do not move in step.
    """

    figure: Figure
    track: Track
    label: int
    category: str
    area: float
    height: float
    clock: float


@dataclass
class Light:
    """The light of a video, and the properties of the camera's pictures.

    Attributes:
        exposure: the logarithm of the brightness over time.
        warmth: the white balance over time. It makes red brighter and blue darker.
        tone: the mean and standard deviation of brightness (0 to 255) that the camera's exposure aims at.
        shade: a pattern of light and shade, uint8 [h,w], or None. 128 changes nothing.
        drift: the motion (x, y) of the pattern, in its pixels per frame.
        grain: noise around 128, uint8 [h,w,4], or None. It is larger than the frame.
        blur: the standard deviation of the blur, in pixels. Up to 0.3 there is no blur.
        sun: the direction of shadows, or None for no shadows: the sideways and the upward length of a shadow, divided
            by the height of the object.
        shadow: the darkness of shadows, 0 to 1.
        shutter: the fraction of the time between two frames in which the shutter is open.
    """

    exposure: Wander
    warmth: Wander
    tone: tuple[float, float]
    shade: np.ndarray | None
    drift: tuple[float, float]
    grain: np.ndarray | None
    blur: float
    sun: tuple[float, float] | None
    shadow: float
    shutter: float


class Scene:
    """One video. Its frames are drawn on demand.

    Args:
        height, width: the size of the frames, in pixels.
        backdrop: the scenery.
        camera: the motion of the camera.
        actors: the figures, from the farthest to the nearest.
        light: the light.
    """

    def __init__(
        self, height: int, width: int, backdrop: Backdrop, camera: Camera, actors: list[Actor], light: Light
    ) -> None:
        self.height, self.width = height, width
        self.actors = actors
        self.camera, self.backdrop, self._light = camera, backdrop, light
        self._measured: tuple[float, float] | None = None  # see _exposure

    def frame(self, t: float) -> tuple[np.ndarray, np.ndarray]:
        """Draw the frame at time ``t``.

        Returns:
            The frame, uint8 BGR [H,W,3] for OpenCV, and its object ids, uint8 [H,W]. The id of a pixel is that of the
            nearest thing that covers at least half of the pixel.
        """
        frame = np.empty((self.height, self.width, 4), np.uint8)
        self.backdrop.draw(frame, t, self.camera)
        before, after = self._centre(t - 0.5), self._centre(t + 0.5)
        way = [(end - start) * self._light.shutter for start, end in zip(before, after, strict=True)]
        if math.hypot(*way) > 2:
            frame = smear(frame, *way)
        ids = self._actors(t, frame)
        frame = self._light_up(frame, t)
        return cv2.cvtColor(frame, cv2.COLOR_RGBA2BGR), ids

    def ids(self, t: float) -> np.ndarray:
        """Return only the object ids of the frame at time ``t``, uint8 [H,W]."""
        return self._actors(t, None)

    def _exposure(self) -> tuple[float, float]:
        """Return the mean and deviation of the backdrop's brightness at time 0, which set the camera's exposure."""
        if self._measured is None:
            frame = np.empty((self.height, self.width, 4), np.uint8)
            self.backdrop.draw(frame, 0, self.camera)
            mean, deviation = cv2.meanStdDev(cv2.cvtColor(frame[::4, ::4], cv2.COLOR_RGBA2GRAY))
            self._measured = float(mean[0, 0]), float(deviation[0, 0]) + 4
        return self._measured

    def _centre(self, t: float) -> tuple[float, float]:
        """Return the place (x, y), in pixels, to which the camera's motion moves a far thing at the frame's centre."""
        x, y = self.camera.pan[0](t) * self.width, self.camera.pan[1](t) * self.width
        x += 0.3 * self.camera.move(t) * self.width
        moved = self.camera.view(t, self.height, self.width) @ (x + self.width / 2, y + self.height / 2, 1)
        return moved[0], moved[1]

    def _actors(self, t: float, frame: np.ndarray | None) -> np.ndarray:
        """Draw the actors and the front layers on ``frame`` in place, if it is not None. Returns the object ids."""
        ids = np.zeros((self.height, self.width), np.uint8)
        views = [(time, self.camera.view(time, self.height, self.width)) for time in (t, t - 0.5, t + 0.5)]
        for actor in self.actors:
            drawn = self._draw(actor, t, views)
            if drawn is None:
                continue
            if frame is not None and self._light.sun is not None:
                self._cast_shadow(frame, *drawn)
            rows, columns, seen = crop(drawn, self.height, self.width)
            if not seen.size:
                continue
            if frame is not None:
                over(frame[rows, columns], seen)
            ids[rows, columns][seen[..., 3] >= 128] = actor.label
        for layer in self.backdrop.front:
            cover = np.zeros((self.height, self.width, 4), np.uint8)
            layer.draw(cover, t, self.camera)
            ids[cover[..., 3] >= 128] = 0
            if frame is not None:
                over(frame, cover)
        return ids

    def _draw(
        self, actor: Actor, t: float, views: list[tuple[float, np.ndarray]]
    ) -> tuple[int, int, np.ndarray] | None:
        """Draw an actor with motion blur. The result is that of `figures.draw`.

        ``views`` are three times with the camera's view: the time of the frame, and half a frame before and after it.
        """
        matrices = [view @ actor.track.matrix(time, self.camera, self.height, self.width) for time, view in views]
        drawn = draw(actor.figure, t + actor.clock, matrices[0], self.height, self.width)
        if drawn is None:
            return None
        x, y = (matrices[2] - matrices[1])[:2, 2] * self._light.shutter
        length = math.hypot(x, y)
        if length < 2:
            return drawn
        longest = 0.08 * self.width
        if length > longest:
            x, y = x * longest / length, y * longest / length
        top, left, picture = drawn
        margin_y, margin_x = int(abs(y) / 2) + 2, int(abs(x) / 2) + 2
        picture = cv2.copyMakeBorder(picture, margin_y, margin_y, margin_x, margin_x, cv2.BORDER_CONSTANT)
        return top - margin_y, left - margin_x, smear(picture, x, y)

    def _cast_shadow(self, frame: np.ndarray, top: int, left: int, picture: np.ndarray) -> None:
        """Draw a figure's soft shadow on ``frame`` in place. It is computed at a quarter of the size to save time."""
        lean, flat = self._light.sun
        rows, columns = picture.shape[:2]
        covered = np.flatnonzero(picture[..., 3].max(1) >= 128)
        if not len(covered):
            return
        foot = float(covered[-1])
        # The shadow of a point at height h above the foot falls lean·h sideways and flat·h up.
        corners_x = [lean * (foot - y) + x for x in (0, columns) for y in (0, foot)]
        low_x, high_x = left + min(corners_x) - 16, left + max(corners_x) + 16
        low_y, high_y = top + foot - max(flat, 0) * foot - 16, top + foot - min(flat, 0) * foot + 16
        x0, y0, x1, y1 = max(0, low_x), max(0, low_y), min(self.width, high_x), min(self.height, high_y)
        x0, y0, x1, y1 = (int(edge) // 4 * 4 for edge in (x0, y0, x1, y1))
        if x1 - x0 < 8 or y1 - y0 < 8:
            return
        small = cv2.resize(picture[..., 3], (max(1, columns // 4), max(1, rows // 4)), interpolation=cv2.INTER_AREA)
        # The map from the pixels of the shadow to the pixels of the picture, both at a quarter of the size.
        base = (top + foot - y0) / 4
        back = np.array([[1, lean / flat, (x0 - left) / 4 - lean / flat * base], [0, 1 / flat, foot / 4 - base / flat]])
        size = ((x1 - x0) // 4, (y1 - y0) // 4)
        shadow = cv2.warpAffine(small, back, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        shadow = cv2.GaussianBlur(shadow, (5, 5), 0)
        rest = cv2.convertScaleAbs(shadow, alpha=-self._light.shadow, beta=255)
        rest = cv2.resize(rest, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
        target = frame[y0:y1, x0:x1]
        cv2.multiply(target, cv2.merge([rest, rest, rest, np.full_like(rest, 255)]), dst=target, scale=1 / 255)

    def _light_up(self, frame: np.ndarray, t: float) -> np.ndarray:
        """Return a frame, uint8 RGBA [H,W,4], with the light, blur and noise of time ``t``."""
        light = self._light
        if light.shade is not None:
            shift = [[1, 0, light.drift[0] * t], [0, 1, light.drift[1] * t]]
            size = light.shade.shape[::-1]
            shade = cv2.warpAffine(light.shade, np.float32(shift), size, borderMode=cv2.BORDER_REFLECT)
            shade = cv2.resize(shade, (self.width, self.height), interpolation=cv2.INTER_LINEAR)
            frame = cv2.multiply(frame, cv2.merge([shade] * 4), scale=1 / 128)
        if light.blur > 0.3:
            frame = cv2.GaussianBlur(frame, (5, 5), light.blur)
        brightness, deviation = self._exposure()
        values = (np.arange(256)[:, None] - brightness) * np.clip(light.tone[1] / deviation, 0.6, 2) + light.tone[0]
        warmth = light.warmth(t)
        gain = math.exp(light.exposure(t)) * np.array([1 + warmth, 1, 1 - warmth, 1])
        # Very bright and very dark values saturate softly, as on film.
        curve = np.tanh(1.1 * (values * gain / 127.5 - 1))
        frame = cv2.LUT(frame, (curve * 127 + 127.5).astype(np.uint8)[None])
        if light.grain is not None:
            # All frames use one picture of noise, each from another place in it.
            rows, columns = light.grain.shape[0] - self.height, light.grain.shape[1] - self.width
            y, x = int(t * 7919) % rows, int(t * 104729) % columns
            grain = light.grain[y : y + self.height, x : x + self.width]
            frame = cv2.addWeighted(frame, 1, grain, 1, -128)
        return frame


def random_light(rng: np.random.Generator, height: int, width: int) -> Light:
    """Return random light for frames of height×width pixels."""
    shade = None
    if rng.random() < 0.6:
        field = noise(rng, 64, 96, log_uniform(rng, 1.5, 14), rng.uniform(0.3, 0.7))
        shade = cv2.convertScaleAbs(np.clip(field, -2, 2), alpha=log_uniform(rng, 6, 28), beta=126)
    grain = None
    if rng.random() < 0.7:
        size = (height + 61, width + 83, 4)
        noisy = rng.standard_normal(size, dtype=np.float32) * np.float32(log_uniform(rng, 1, 7))
        if rng.random() < 0.5:  # many cameras smooth their noise
            noisy = cv2.GaussianBlur(noisy, (3, 3), 0.8) * np.float32(1.6)
        grain = np.clip(noisy + 128, 0, 255).astype(np.uint8)
    flat = rng.uniform(0.15, 0.6) * pick(rng, [-1, 1, 1])
    return Light(
        exposure=Wander(rng, log_uniform(rng, 0.01, 0.3), rng.uniform(20, 150)),
        warmth=Wander(rng, rng.uniform(0, 0.08), rng.uniform(40, 200)),
        tone=(rng.uniform(75, 150), rng.uniform(30, 72)),
        shade=shade,
        drift=tuple(rng.normal(0, 0.4, 2)),
        grain=grain,
        blur=rng.uniform(-0.8, 0.8) * height / 480,
        sun=(rng.uniform(-1.2, 1.2), flat) if rng.random() < 0.7 else None,
        shadow=rng.uniform(0.2, 0.65),
        shutter=pick(rng, [0, 0.2, 0.5, 0.8]),
    )


def random_track(
    rng: np.random.Generator,
    height: int,
    width: int,
    size: float,
    tall: float,
    span: float,
    camera: Camera,
    floor: float | None,
    annotated: bool,
) -> Track:
    """Return a random path for an object.

    Args:
        rng: makes all random choices.
        height, width: the size of the frames, in pixels.
        size: the usual size of the object, in pixels per object unit.
        tall: the height of the object, in object units.
        span: the length of the video, in frames.
        camera: the motion of the camera.
        floor: the height of the ground's far edge in frame heights from the top, or None without ground. Most objects
            stand on the ground.
        annotated: whether the object is annotated. Most annotated objects move with a moving camera. Others stand
            still or cross the frame.
    """
    aspect = height / width
    grounded = floor is not None and rng.random() < 0.7
    if grounded:
        foot = rng.uniform(floor + 0.03, max(floor + 0.1, 1.05))
        centre_y = foot * aspect - size * tall / 2 / width
    else:
        centre_y = rng.uniform(0.2, 0.85) * aspect
    speed = log_uniform(rng, 0.0004, 0.015) if rng.random() < 0.85 else log_uniform(rng, 0.015, 0.08)
    reach = min(log_uniform(rng, 0.01, 0.5), 12 * speed * pick(rng, [1, 3, 10]))
    anchors = [0, 1, 1] if not annotated else [0] if camera.speed else [0, 0.5, 1]
    grows = pick(rng, [0.03, 0.15, 0.5])
    tumbles = pick(rng, [0.03, 0.06, 0.15] if grounded else [0.05, 0.2, 0.6])
    climb = 0.15 if grounded else rng.uniform(0.2, 0.8)
    absences = []
    if rng.random() < 0.15:
        start = rng.uniform(0.2, 0.7) * span
        gone, direction = rng.uniform(20, 50), pick(rng, [0.0, math.pi]) + rng.normal(0, 0.3)
        absences.append((start, start + gone, direction, min(18, gone / 2)))
    slant = 0.12 / max(size / 100, 1)
    return Track(
        centre=(rng.uniform(0.12, 0.88), centre_y),
        drift=(wander_at_speed(rng, reach, speed), wander_at_speed(rng, reach * aspect * climb, speed * climb)),
        scale=size,
        log_scale=Wander(rng, grows, rng.uniform(25, 150)),
        angle=Wander(rng, tumbles, rng.uniform(15, 90)),
        yaw=Wander(rng, pick(rng, [0, 0.4, 0.9, 0.9, 2.2]), rng.uniform(30, 120)),
        keystone=(Wander(rng, slant, rng.uniform(20, 80)), Wander(rng, slant, rng.uniform(20, 80))),
        anchor=pick(rng, anchors),
        depth=rng.uniform(0.5, 1.1),
        wrap=0.0 if annotated else 2.2,
        spin=rng.normal(0, 0.15) if rng.random() < 0.08 else 0.0,
        bounce=log_uniform(rng, 0.003, 0.08) if rng.random() < 0.3 else 0.0,
        bounce_rate=log_uniform(rng, 0.08, 0.6),
        absences=absences,
    )


def random_scene(
    rng: np.random.Generator,
    height: int,
    width: int,
    span: float,
    labels: Sequence[int],
    late: dict[int, float] | None = None,
    unseen: bool = False,
    leave: float = 0.0,
) -> Scene:
    """Return a random video.

    Args:
        rng: makes all random choices.
        height, width: the size of the frames, in pixels.
        span: the length of the video. The unit of time is that of all speeds, see `toy.motion`.
        labels: the ids of the annotated objects.
        late: by id, the time at which an object is visible, for objects that are not visible at time 0.
        unseen: whether the video may show categories that no training video shows.
        leave: if it is above 0, every annotated object leaves the frame repeatedly, for at least this time, and returns
            at least once. ``span`` is at least `LEAST_SPAN` times as long.

    Returns:
        A scene. At time 0, or at its ``late`` time, an object covers at least `LEAST_AREA` of the frame. In rare cases
        no such path is found.
    """
    late = late or {}
    camera = random_camera(rng)
    if leave:
        camera.speed = camera.ahead = 0.0  # the scenery would be too short for so long a journey
    backdrop = random_backdrop(rng, height, width)
    light = random_light(rng, height, width)
    actors: list[Actor] = []
    largest = 0.5 / len(labels) ** 0.5
    others = int(rng.choice(5, p=[0.3, 0.3, 0.2, 0.1, 0.1]))
    for label in [*labels, *[0] * others]:
        twins = [actor for actor in actors if actor.label]
        area = log_uniform(rng, 0.015, largest) if label else log_uniform(rng, 0.004, 0.12)
        if twins and rng.random() < (0.2 if label else 0.35):  # the object looks the same as another one
            twin = pick(rng, twins)
            figure, category, area, tall = twin.figure, twin.category, twin.area * rng.uniform(0.6, 1), twin.height
            size = twin.track.scale * math.sqrt(area / twin.area)
        else:
            figure, outline, category, size = random_object(
                rng, area * height * width, (height, width), backdrop.colours, unseen
            )
            tall = outline.height
        track = random_track(rng, height, width, size, tall, span, camera, backdrop.floor, bool(label))
        actors.append(Actor(figure, track, label, category, area, tall, rng.uniform(0, 100)))
    # An object whose lower end is lower in the frame is nearer.
    actors.sort(key=lambda actor: actor.track.centre[1] * width + actor.track.scale * actor.height / 2)
    scene = Scene(height, width, backdrop, camera, actors, light)
    _bring_into_sight(rng, scene, span, late)
    if leave:
        for actor in scene.actors:
            if actor.label:
                _plan_absences(rng, actor.track, span, leave)
    return scene


def _plan_absences(rng: np.random.Generator, track: Track, span: float, leave: float) -> None:
    """Let an object leave the picture, each time for ``leave`` frames or longer, and come back on the same side.

    Between absences the object is on its path for a half to three times ``leave`` frames, so that several objects leave
    at different times.
    """
    track.absences, track.distance = [], _OUT_OF_SIGHT
    ease = min(100.0, leave / 2)
    end = 0.0
    while True:
        start = end + rng.uniform(0.5, 3) * leave
        end = start + 2 * ease + rng.uniform(1, 1.5) * leave
        if end + leave / 2 > span:
            return
        track.absences.append((start, end, pick(rng, [0.0, math.pi]) + rng.normal(0, 0.2), ease))


def _bring_into_sight(rng: np.random.Generator, scene: Scene, span: float, late: dict[int, float]) -> None:
    """Choose new random paths for objects that are not visible when they should be.

    After some attempts these objects become the nearest ones.
    """
    for attempt in range(14):
        missing = []
        for actor in scene.actors:
            if not actor.label:
                continue
            start = late.get(actor.label, 0.0)
            if start:
                direction = pick(rng, [0.0, math.pi]) + rng.normal(0, 0.3)
                actor.track.absences = [(-1e9, start, direction, min(18.0, 0.7 * start))]
            if (scene.ids(start) == actor.label).mean() < LEAST_AREA:
                missing.append(actor)
        for actor in missing:
            size, tall, floor = actor.track.scale, actor.height, scene.backdrop.floor
            actor.track = random_track(
                rng, scene.height, scene.width, size, tall, span, scene.camera, floor, annotated=True
            )
            if attempt > 6:  # near the middle, nearly still, in front of the others, and larger with each attempt
                actor.track.scale *= 1.2
                actor.track.drift = (Wander(rng, 0.02, 60), Wander(rng, 0.02, 60))
                actor.track.centre = (rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.7) * scene.height / scene.width)
                actor.track.anchor, actor.track.absences, actor.track.bounce = 0.0, [], 0.0
                scene.actors.remove(actor)
                scene.actors.append(actor)
        if not missing:
            return
