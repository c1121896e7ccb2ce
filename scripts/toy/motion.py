"""Motion: smooth functions of time, and the paths and cameras made of them."""

import math
from dataclasses import dataclass, field

import numpy as np

from toy.textures import log_uniform, pick


def translation(x: float, y: float) -> np.ndarray:
    """Homogeneous [3,3] shift by (x, y)."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], float)


def rotation(angle: float) -> np.ndarray:
    """Homogeneous [3,3] turn by ``angle`` radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], float)


def scaling(x: float, y: float) -> np.ndarray:
    """Homogeneous [3,3] scale."""
    return np.diag([x, y, 1.0])


class Wander:
    """A smooth aimless function of time within ±amplitude: three sines whose periods have no common multiple."""

    def __init__(self, rng: np.random.Generator, amplitude: float, period: float) -> None:
        weights = rng.dirichlet([6, 3, 1])
        periods = period * np.array([1, 0.57, 0.31]) * rng.uniform(0.85, 1.15, 3)
        self._terms = list(
            zip((amplitude * weights).tolist(), (2 * np.pi / periods).tolist(), rng.uniform(0, 6.28, 3), strict=True)
        )

    def __call__(self, t: float) -> float:
        return sum(size * math.sin(rate * t + phase) for size, rate, phase in self._terms)


def wander_at_speed(rng: np.random.Generator, amplitude: float, speed: float) -> Wander:
    """A `Wander` whose top speed is about ``speed`` per unit of time."""
    return Wander(rng, amplitude, max(10.0, 2 * np.pi * amplitude / speed))


@dataclass
class Camera:
    """Where the camera looks, as functions of time in shares of the frame's width.

    ``pan`` (two functions) shifts everything alike; ``move`` is the sideways way it has gone, which shifts near things
    more than far ones; ``forward`` the way it has gone ahead; ``log_zoom`` and ``roll`` act about the frame's centre.
    """

    pan: tuple[Wander, Wander]
    shake: tuple[Wander, Wander]
    log_zoom: Wander
    roll: Wander
    sway: Wander
    speed: float
    ahead: float

    def move(self, t: float) -> float:
        return self.sway(t) + self.speed * t

    def forward(self, t: float) -> float:
        return self.ahead * t

    def view(self, t: float, height: int, width: int) -> np.ndarray:
        """[3,3] that zooms, rolls and shakes a frame that is ready otherwise."""
        zoom = math.exp(self.log_zoom(t))
        centre = translation(width / 2 + self.shake[0](t) * width, height / 2 + self.shake[1](t) * width)
        return centre @ rotation(self.roll(t)) @ scaling(zoom, zoom) @ translation(-width / 2, -height / 2)


def random_camera(rng: np.random.Generator) -> Camera:
    """A camera on a tripod, in a hand, panning, or travelling along with the action."""
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
    """The path of one object: where it is, how large, and how it is turned, over time.

    Lengths are shares of the frame's width; ``scale`` is in pixels per object unit.
    """

    centre: tuple[float, float]
    drift: tuple[Wander, Wander]
    scale: float
    log_scale: Wander
    angle: Wander
    yaw: Wander  # turn about the vertical: foreshortens the object and, past a quarter turn, shows it mirrored
    keystone: tuple[Wander, Wander]
    anchor: float  # share of the camera's motion that the object's place in the frame takes part in
    depth: float  # parallax: 0 moves like the horizon, 1 like things that are close
    wrap: float = 0.0  # > 0: after leaving on one side the object comes back on the other, that many widths later
    spin: float = 0.0
    bounce: float = 0.0
    bounce_rate: float = 0.3
    absences: list[tuple[float, float, float, float]] = field(default_factory=list)
    """(from, to, direction of leaving, time that it takes to leave and to come back) each"""

    def away(self, t: float) -> tuple[float, float]:
        """How far an absence has carried the object off its path, in frame widths."""
        x = y = 0.0
        for start, end, direction, ease in self.absences:
            share = min(1.0, max(0.0, min((t - start) / ease, (end - t) / ease)))
            share = share * share * (3 - 2 * share)
            x, y = x + share * 1.3 * math.cos(direction), y + share * 1.3 * math.sin(direction)
        return x, y

    def matrix(self, t: float, camera: Camera, height: int, width: int) -> np.ndarray:
        """[3,3] from object units to the pixels of a frame that the camera's `view` has yet to act on."""
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
        facing = math.copysign(max(abs(facing), 0.3), facing)  # no object is as thin as the flat ones drawn here
        turn = rotation(self.angle(t) + self.spin * t) @ scaling(size * facing, size)
        return translation(x * width, y * width) @ turn @ slant
