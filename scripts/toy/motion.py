"""Smooth motion over time: the motion of the camera and the paths of objects. The unit of time is a frame of DAVIS."""

import math
from dataclasses import dataclass, field

import numpy as np

from toy.textures import log_uniform, pick


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


def wander_at_speed(rng: np.random.Generator, amplitude: float, speed: float) -> Wander:
    """Return a `Wander` with this amplitude. Its largest change per frame is about ``speed``."""
    return Wander(rng, amplitude, max(10.0, 2 * np.pi * amplitude / speed))


@dataclass
class Camera:
    """The motion of the camera. All lengths are fractions of the frame's width.

    Attributes:
        pan: the shift (x, y) of the whole scene, near and far things alike.
        shake: the fast shift (x, y) of a camera in a hand.
        log_zoom: the logarithm of the zoom about the centre of the frame.
        roll: the rotation about the centre of the frame, in radians.
        sway: the part of the sideways motion that goes back and forth. Near things move more than far ones.
        speed: the part of the sideways motion that is steady, per frame.
        ahead: the forward motion per frame.
    """

    pan: tuple[Wander, Wander]
    shake: tuple[Wander, Wander]
    log_zoom: Wander
    roll: Wander
    sway: Wander
    speed: float
    ahead: float

    def move(self, t: float) -> float:
        """Return the sideways distance that the camera has moved until time ``t``."""
        return self.sway(t) + self.speed * t

    def forward(self, t: float) -> float:
        """Return the forward distance that the camera has moved until time ``t``."""
        return self.ahead * t

    def view(self, t: float, height: int, width: int) -> np.ndarray:
        """Return the matrix [3,3] that zooms, rotates and shakes a frame of height×width pixels. It is applied last."""
        zoom = math.exp(self.log_zoom(t))
        centre = translation(width / 2 + self.shake[0](t) * width, height / 2 + self.shake[1](t) * width)
        return centre @ rotation(self.roll(t)) @ scaling(zoom, zoom) @ translation(-width / 2, -height / 2)


def random_camera(rng: np.random.Generator) -> Camera:
    """Return a random camera: on a tripod, in a hand, panning, or moving with the objects."""
    kind = pick(rng, ["tripod", "hand", "hand", "pan", "travel", "travel"])
    shake = 0.0 if kind == "tripod" else log_uniform(rng, 0.001, 0.012)
    pan = log_uniform(rng, 0.08, 0.35) if kind == "pan" else 0.0 if kind == "tripod" else log_uniform(rng, 0.01, 0.08)
    speed = log_uniform(rng, 0.002, 0.04) * pick(rng, [-1, 1]) if kind == "travel" else 0.0
    zoom = 0.0 if kind == "tripod" else log_uniform(rng, 0.01, 0.35)
    roll = 0.0 if kind == "tripod" else log_uniform(rng, 0.005, 0.12)
    pan_speed = log_uniform(rng, 0.001, 0.03)
    return Camera(
        pan=(wander_at_speed(rng, pan, pan_speed), wander_at_speed(rng, pan * 0.3, pan_speed * 0.4)),
        shake=(Wander(rng, shake, rng.uniform(6, 25)), Wander(rng, shake, rng.uniform(6, 25))),
        log_zoom=Wander(rng, zoom, rng.uniform(40, 200)),
        roll=Wander(rng, roll, rng.uniform(25, 150)),
        sway=wander_at_speed(rng, pan, pan_speed),
        speed=speed,
        ahead=log_uniform(rng, 0.002, 0.03) if kind == "travel" and rng.random() < 0.5 else 0.0,
    )


@dataclass
class Track:
    """The path of one object: its place, size and orientation over time.

    Lengths are fractions of the frame's width, and angles are in radians.

    Attributes:
        centre: the mean place (x, y) of the object.
        drift: the motion (x, y) around the mean place.
        scale: the usual size, in pixels per object unit.
        log_scale: the logarithm of the factor by which the size changes.
        angle: the rotation in the plane of the frame.
        yaw: the rotation about the vertical axis. It makes the object narrower. After a quarter turn the object is
            mirrored.
        keystone: the perspective (x, y), the change of size over the object.
        anchor: the fraction of the camera's motion that moves the object in the frame, 0 to 1.
        depth: the parallax. At 0 the object moves like the horizon, and at 1 like near things.
        wrap: if it is above 0, an object that leaves on one side returns on the other side. The value is the width of
            the space that the object crosses.
        spin: the steady rotation in the plane of the frame, per frame.
        bounce: the height of jumps.
        bounce_rate: the speed of jumps, in radians of a sine per frame.
        absences: the times when the object is absent. Each has a start, an end, the direction in which the object
            leaves, and the number of frames that it takes to leave or to return.
        distance: the distance by which an absence moves the object.
    """

    centre: tuple[float, float]
    drift: tuple[Wander, Wander]
    scale: float
    log_scale: Wander
    angle: Wander
    yaw: Wander
    keystone: tuple[Wander, Wander]
    anchor: float
    depth: float
    wrap: float = 0.0
    spin: float = 0.0
    bounce: float = 0.0
    bounce_rate: float = 0.3
    absences: list[tuple[float, float, float, float]] = field(default_factory=list)
    distance: float = 1.3

    def away(self, t: float) -> tuple[float, float]:
        """Return the offset (x, y) of the object from its path, due to absences, at time ``t``."""
        x = y = 0.0
        for start, end, direction, ease in self.absences:
            progress = min(1.0, max(0.0, min((t - start) / ease, (end - t) / ease)))
            away = progress * progress * (3 - 2 * progress) * self.distance
            x, y = x + away * math.cos(direction), y + away * math.sin(direction)
        return x, y

    def matrix(self, t: float, camera: Camera, height: int, width: int) -> np.ndarray:
        """Return the matrix [3,3] from object units to pixels at time ``t``. The camera's `view` is not applied yet."""
        away = self.away(t)
        moved = self.anchor * (camera.pan[0](t) + self.depth * camera.move(t))
        x = self.centre[0] + self.drift[0](t) + moved + away[0]
        if self.wrap:
            edge = (self.wrap - 1) / 2
            x = (x + edge) % self.wrap - edge
        y = self.centre[1] + self.drift[1](t) + self.anchor * camera.pan[1](t) + away[1]
        y -= self.bounce * abs(math.sin(self.bounce_rate * t))
        size = self.scale * math.exp(self.log_scale(t))
        slant = np.eye(3)
        slant[2, :2] = self.keystone[0](t), self.keystone[1](t)
        facing = math.cos(self.yaw(t))
        # The synthetic objects are flat. Real objects never become thinner than this.
        facing = math.copysign(max(abs(facing), 0.3), facing)
        turn = rotation(self.angle(t) + self.spin * t) @ scaling(size * facing, size)
        return translation(x * width, y * width) @ turn @ slant
