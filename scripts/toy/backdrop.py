"""The scenery behind and in front of the objects: sky, hills, houses, trees, walls, ground and posts."""

from dataclasses import dataclass

import cv2
import numpy as np

from toy.figures import crop, draw, dress, measure, over
from toy.motion import Camera, scaling, translation
from toy.plans import random_plan
from toy.shapes import blob, box, polygon
from toy.textures import colour, log_uniform, mix, noise, paint, pick, ramp, soft_step, texture

_REACH = 2.0  # width of a canvas in frame widths; beyond its edges a canvas is mirrored


@dataclass
class Layer:
    """A flat picture that moves with the camera.

    Attributes:
        picture: premultiplied RGBA, uint8 [h,w,4].
        detail: the number of the picture's pixels for each pixel of the frame.
        top: the distance from the frame's upper edge down to the picture's upper edge, in frame heights.
        depth: the parallax, 0 for the horizon and 1 for near things. A layer of depth 0 is opaque.
    """

    picture: np.ndarray
    detail: float
    top: float
    depth: float

    def draw(self, frame: np.ndarray, t: float, camera: Camera) -> None:
        """Draw the layer at time ``t`` on a frame, uint8 RGBA [H,W,4], in place."""
        height, width = frame.shape[:2]
        x = (camera.pan[0](t) + self.depth * camera.move(t) - (_REACH - 1) / 2) * width
        y = self.top * height + camera.pan[1](t) * width
        place = camera.view(t, height, width) @ translation(x, y) @ scaling(1 / self.detail, 1 / self.detail)
        rows = self.picture.shape[0]
        edge = (place @ np.array([[0, self.picture.shape[1]] * 2, [0, 0, rows, rows], [1] * 4]))[1]
        # The canvas is continued by its mirror image. A rolling camera raises or lowers the outer ends of its edges.
        slack = abs(place[1, 0] / place[0, 0]) * width
        low, high = max(0, int(edge.min() - slack)), min(height, int(edge.max() + slack) + 1)
        opaque = self.depth == 0
        if opaque:
            low, high = 0, height
        if high - low < 1:
            return
        inverse = np.linalg.inv(translation(0, -low) @ place)[:2]
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        size = (width, high - low)
        drawn = cv2.warpAffine(self.picture, inverse, size, flags=flags, borderMode=cv2.BORDER_REFLECT)
        if opaque:
            frame[:] = drawn
            return
        mask = np.zeros(drawn.shape[:2], np.uint8)
        band = np.array([[-9 * width, 9 * width, 9 * width, -9 * width], [0, 0, rows, rows], [1] * 4])
        corners = np.round((translation(0, -low) @ place @ band)[:2].T * 16).astype(np.int32)
        cv2.fillConvexPoly(mask, corners, 255, cv2.LINE_8, 4)
        over(frame[low:high], cv2.bitwise_and(drawn, drawn, mask=mask))


@dataclass
class Ground:
    """A plane from the frame's lower edge to a place below the horizon.

    Attributes:
        picture: uint8 RGBA [h,w,4], opaque. It is mirrored beyond its edges.
        horizon: the height at which an endless plane would end, in frame heights from the top.
        edge: the height at which this plane ends, in frame heights from the top.
        stretch: the factor of the distances in the direction of view. With a larger factor the plane looks flatter.
    """

    picture: np.ndarray
    horizon: float
    edge: float
    stretch: float

    def draw(self, frame: np.ndarray, t: float, camera: Camera) -> None:
        """Draw the plane at time ``t`` on a frame, uint8 RGBA [H,W,4], in place."""
        height, width = frame.shape[:2]
        pan_x, pan_y = camera.pan[0](t) * width, camera.pan[1](t) * width
        horizon, centre = self.horizon * height + pan_y, width / 2 + pan_x
        near = height * (1 - self.horizon)
        x = self.picture.shape[1] / 2 - camera.move(t) * width
        y = -camera.forward(t) * width
        plane = np.array([[near, x, -near * centre - x * horizon], [0, y, near * near * self.stretch - y * horizon]])
        plane = np.vstack([plane, [0, 1, -horizon]])
        view = camera.view(t, height, width)
        far = self.edge * height + pan_y
        corners = view @ np.array([[-width, 2 * width, 2 * width, -width], [far, far, 4 * height, 4 * height], [1] * 4])
        low = max(0, int(corners[1].min()))
        if low >= height:
            return
        mask = np.zeros((height - low, width), np.uint8)
        cv2.fillConvexPoly(mask, np.round((corners[:2] - [[0], [low]]).T * 16).astype(np.int32), 255, cv2.LINE_8, 4)
        inverse = plane @ np.linalg.inv(view) @ translation(0, low)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        drawn = cv2.warpPerspective(
            self.picture, inverse, (width, height - low), flags=flags, borderMode=cv2.BORDER_REFLECT
        )
        cv2.copyTo(drawn, mask, frame[low:])


@dataclass
class Backdrop:
    """All scenery of a video.

    Attributes:
        far: the layers behind the ground.
        ground: the ground, or None.
        near: the layers on the ground.
        front: the layers in front of the objects.
        colours: mean colours of the scenery, float RGB [3] from 0 to 255. Objects may have the same colours.
    """

    far: list[Layer]
    ground: Ground | None
    near: list[Layer]
    front: list[Layer]
    colours: list[np.ndarray]

    @property
    def floor(self) -> float | None:
        """The height of the ground's far edge in frame heights from the top, or None if there is no ground."""
        return self.ground.edge if self.ground else None

    def draw(self, frame: np.ndarray, t: float, camera: Camera) -> None:
        """Draw all scenery behind the objects at time ``t`` on a frame, uint8 RGBA [H,W,4], in place."""
        for layer in self.far:
            layer.draw(frame, t, camera)
        if self.ground:
            self.ground.draw(frame, t, camera)
        for layer in self.near:
            layer.draw(frame, t, camera)


def random_backdrop(rng: np.random.Generator, height: int, width: int) -> Backdrop:
    """Return random scenery: a landscape, a street, a room, or one surface near the camera.

    Args:
        rng: makes all random choices.
        height, width: the size of the frames, in pixels.
    """
    kind = pick(rng, ["land", "land", "land", "street", "street", "room", "close", "close"])
    if kind == "close":
        picture, colours = _surface(rng, height, width)
        return Backdrop([picture], None, [], _front(rng, height, width), colours)
    edge = rng.uniform(0.3, 0.75)
    gap = rng.uniform(0.08, 0.25)
    if kind == "room":
        wall, colours = _surface(rng, height, width, rng.uniform(0.1, 0.4))
        far, near = [wall], []
    else:
        far, colours = [_sky(rng, height, width)], []
        kinds = [_hills, _trees, _trees, _houses] if kind == "land" else [_houses, _houses, _trees]
        for step in range(int(rng.integers(1, 3))):
            far.append(pick(rng, kinds)(rng, height, width, edge, 0.1 + 0.2 * step))
        near = [pick(rng, [_trees, _fence, _houses])(rng, height, width, edge + 0.02, 0.45)] * (rng.random() < 0.5)
        near += [_bystanders(rng, height, width, edge + rng.uniform(0.02, 0.15), 0.5)] * (rng.random() < 0.5)
    base = colour(rng, 0.05)
    ground = _ground(rng, height, base)
    plane = Ground(ground, edge - gap, edge, rng.uniform(0.8, 2.5))
    return Backdrop(far, plane, near, _front(rng, height, width), [*colours, base])


def _rgba(picture: np.ndarray, alpha: np.ndarray | None = None) -> np.ndarray:
    """Return premultiplied RGBA from RGB, uint8 [h,w,3], and opacity, float32 [h,w] from 0 to 1 (None is opaque)."""
    if alpha is None:
        return cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA)
    opacity = cv2.convertScaleAbs(alpha, alpha=255)
    return cv2.merge([*(cv2.multiply(channel, opacity, scale=1 / 255) for channel in cv2.split(picture)), opacity])


def _sky(rng: np.random.Generator, height: int, width: int) -> Layer:
    detail = 0.4
    rows, columns = int(1.6 * height * detail), int(_REACH * width * detail)
    top, bottom = pick(
        rng,
        [
            ([92, 138, 196], [196, 212, 226]), ([170, 176, 184], [212, 214, 216]), ([70, 86, 116], [214, 166, 126]),
            ([58, 104, 176], [150, 190, 224]), ([40, 46, 62], [86, 92, 104]), ([120, 128, 134], [170, 170, 164]),
        ],
    )  # fmt: skip
    share = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None]
    sky = np.float32(top) * (1 - share) + np.float32(bottom) * share + rng.normal(0, 8, 3).astype(np.float32)
    sky = np.repeat(np.clip(sky, 0, 255).astype(np.uint8), columns, axis=1)
    clouds = noise(rng, rows, columns, log_uniform(rng, 3, 8), 0.6, rng.uniform(1, 3))
    light = paint(clouds, ramp(rng, np.full(3, rng.uniform(150, 225), np.float32), 0.12))
    weight = soft_step(clouds + np.float32(rng.uniform(-1.5, 0.7)), log_uniform(rng, 0.4, 2)) * np.float32(0.9)
    return Layer(_rgba(mix(sky, light, weight)), detail, -0.3, 0)


def _surface(rng: np.random.Generator, height: int, width: int, things: float = 1) -> tuple[Layer, list[np.ndarray]]:
    """Return a wall or floor that fills the frame, with flat shapes on it, sharp or blurred, and its mean colours."""
    blur = rng.random() < 0.3
    detail = 0.4 if blur else 0.75
    rows, columns = int(1.6 * height * detail), int(_REACH * width * detail)
    base = colour(rng, 0.1)
    picture = texture(rng, rows, columns, base)
    colours = [base]
    materials = []
    for _ in range(int(rng.integers(1, 5))):
        colours.append(colour(rng, 0.15))
        materials.append(texture(rng, rows // 3, columns // 3, colours[-1]))
    for _ in range(int(log_uniform(rng, 1, 60) * things)):
        _sticker(rng, picture, pick(rng, materials), height * detail)
    light = noise(rng, 8, 8, 2)
    light = cv2.resize(light, (columns, rows), interpolation=cv2.INTER_CUBIC) * np.float32(rng.uniform(5, 30)) + 128
    picture = cv2.multiply(picture, cv2.merge([cv2.convertScaleAbs(light)] * 3), scale=1 / 128)
    if blur:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.7, 5) * height / 480)
    return Layer(_rgba(picture), detail, -0.3, 0), colours


def _sticker(rng: np.random.Generator, picture: np.ndarray, material: np.ndarray, unit: float) -> None:
    """Draw one flat shape of a material and its soft shadow on a picture, in place."""
    side = unit * log_uniform(rng, 0.03, 0.6)
    shape = pick(
        rng,
        [
            lambda: blob(rng, side, side * rng.uniform(0.4, 1.5), rng.uniform(0.1, 0.6)),
            lambda: box(side, side * log_uniform(rng, 0.3, 3), rng.uniform(0, 0.6)),
            lambda: polygon(rng, side, int(rng.integers(3, 8)), pick(rng, [0, 0.4])),
            lambda: box(side * 0.15, side * 3, 0.1),
        ],
    )()
    low = shape.min(0) - 2
    width, height = (int(extent) + 6 for extent in np.ptp(shape, axis=0))
    rows, columns = picture.shape[:2]
    height, width = min(height, rows, material.shape[0]), min(width, columns, material.shape[1])
    top, left = int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1))
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.round((shape - low) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    y, x = (int(rng.integers(full - part + 1)) for full, part in zip(material.shape, (height, width), strict=False))
    weight = mask.astype(np.float32) / 255
    target = picture[top : top + height, left : left + width]
    dark = cv2.GaussianBlur(mask, (0, 0), 1 + unit / 80)
    dark = cv2.merge([cv2.convertScaleAbs(dark, alpha=-0.4 * rng.random(), beta=255)] * 3)
    target[:] = mix(cv2.multiply(target, dark, scale=1 / 255), material[y : y + height, x : x + width].copy(), weight)


def _stand(
    rng: np.random.Generator, picture: np.ndarray, alpha: np.ndarray, height: int, width: int, foot: float, depth: float
) -> Layer:
    """Return a layer whose lower edge is ``foot`` frame heights from the top. Haze makes far layers grey."""
    haze = rng.uniform(120, 210) + rng.normal(0, 8, 3)
    share = np.clip(rng.uniform(0, 0.8) * (1 - 2 * depth), 0, 0.7)
    table = np.clip(np.arange(256)[:, None] * (1 - share) + haze * share, 0, 255).astype(np.uint8)
    alpha[:2], alpha[-2:] = 0, 0  # the picture is mirrored beyond its edges, so they must be transparent
    detail = picture.shape[1] / (_REACH * width)
    top = foot - picture.shape[0] / detail / height
    return Layer(_rgba(cv2.LUT(picture, table[None]), alpha), detail, top, depth)


def _canvas(height: int, width: int, share: float, detail: float) -> tuple[int, int, np.ndarray]:
    """Return the rows and columns of a canvas ``share`` frame heights high, and each row's height above its foot."""
    rows, columns = max(12, int(height * share * detail)), int(_REACH * width * detail)
    return rows, columns, np.linspace(share, 0, rows, dtype=np.float32)[:, None]


def _hills(rng: np.random.Generator, height: int, width: int, foot: float, depth: float) -> Layer:
    rows, columns, above = _canvas(height, width, rng.uniform(0.2, 0.6), 0.5)
    profile = noise(rng, 8, columns, rng.uniform(2, 6), rng.uniform(0.3, 0.6))[4]
    crest = above[0, 0] * np.float32(rng.uniform(0.3, 0.6)) * (1 + np.float32(0.3) * profile)
    alpha = soft_step(crest[None] + np.float32(0.12) - above, height * 0.4)
    return _stand(rng, texture(rng, rows, columns), alpha, height, width, foot + 0.12, depth)


def _houses(rng: np.random.Generator, height: int, width: int, foot: float, depth: float) -> Layer:
    share = rng.uniform(0.3, 0.9)
    rows, columns, _ = _canvas(height, width, share, 0.8)
    picture, alpha = texture(rng, rows, columns), np.zeros((rows, columns), np.float32)
    unit, x = rows / share, 0
    while x < columns:
        wide, high = int(unit * log_uniform(rng, 0.1, 0.7)), int(rows * rng.uniform(0.3, 1))
        end, top = min(columns, x + wide), rows - high
        if rng.random() < 0.85 and end - x > 4:
            wall = picture[top:, x:end]
            tint = np.full((1, 1, 3), colour(rng, 0.05), np.float32)
            wall[:] = cv2.addWeighted(wall, 0.35, np.broadcast_to(tint, wall.shape).astype(np.uint8), 0.65, 0)
            alpha[top:, x:end] = 1
            _windows(rng, wall, unit * log_uniform(rng, 0.03, 0.12))
        x = end + int(unit * rng.uniform(0, 0.06))
    return _stand(rng, picture, alpha, height, width, foot + 0.03, depth)


def _windows(rng: np.random.Generator, wall: np.ndarray, pitch: float) -> None:
    """Draw rows of windows on the wall of a house, uint8 [h,w,3], in place."""
    pane, sill = colour(rng, 0) * 0.7, colour(rng, 0.1)
    wide, high = pitch * rng.uniform(0.3, 0.8), pitch * rng.uniform(0.4, 0.8)
    for y in np.arange(pitch * 0.4, wall.shape[0] - high, pitch * rng.uniform(1, 1.5)):
        for x in np.arange(pitch * 0.3, wall.shape[1] - wide, pitch):
            shade = (pane * rng.uniform(0.6, 1.3)).clip(0, 255).tolist()
            corner, end = (int(x), int(y)), (int(x + wide), int(y + high))
            cv2.rectangle(wall, corner, end, shade, -1)
            cv2.rectangle(wall, corner, end, sill.tolist(), 1)


def _trees(rng: np.random.Generator, height: int, width: int, foot: float, depth: float) -> Layer:
    rows, columns, above = _canvas(height, width, rng.uniform(0.15, 0.8), 0.7)
    share = above[0, 0]
    profile = noise(rng, 8, columns, rng.uniform(4, 14), 0.6)[4]
    crest = share * np.float32(rng.uniform(0.4, 0.75)) * (1 + np.float32(0.35) * profile)
    ragged = noise(rng, rows, columns, columns / rows * rng.uniform(4, 12), 0.9) * share * np.float32(0.12)
    alpha = soft_step(crest[None] + ragged - above, height * 0.25)
    alpha *= soft_step(above + ragged * np.float32(0.4) - np.float32(0.02), height * 0.25)
    green = np.float32([rng.uniform(30, 130), rng.uniform(60, 140), rng.uniform(20, 80)]) * log_uniform(rng, 0.5, 1.2)
    gaps = soft_step(noise(rng, rows, columns, columns / rows * 8, 0.95) - np.float32(rng.uniform(-0.5, 1)), 2)
    picture = mix(texture(rng, rows, columns, green), texture(rng, rows, columns, green * 0.3), gaps)
    return _stand(rng, picture, alpha, height, width, foot + 0.03, depth)


def _fence(rng: np.random.Generator, height: int, width: int, foot: float, depth: float) -> Layer:
    rows, columns, above = _canvas(height, width, rng.uniform(0.08, 0.45), 1.0)
    pitch, bar = height * log_uniform(rng, 0.02, 0.3), rng.uniform(0.1, 0.5)
    across = np.arange(columns, dtype=np.float32)[None] / np.float32(pitch) % 1
    posts = soft_step(np.float32(bar / 2) - np.abs(across - np.float32(0.5)), pitch)
    rails = np.zeros((rows, 1), np.float32)
    for rail in rng.uniform(0.05, 0.95, int(rng.integers(1, 4))):
        rails[int(rail * rows) : int(rail * rows + max(1, height * 0.012))] = 1
    alpha = np.maximum(np.broadcast_to(posts, (rows, columns)), rails) * soft_step(above - np.float32(0.01), height)
    return _stand(rng, texture(rng, rows, columns), alpha, height, width, foot + 0.03, depth)


def _bystanders(rng: np.random.Generator, height: int, width: int, foot: float, depth: float) -> Layer:
    """Return a layer of figures like the annotated ones. They stand still, far from the camera."""
    rows, columns = int(0.4 * height), int(_REACH * width)
    canvas = np.zeros((rows, columns, 4), np.uint8)
    for _ in range(int(rng.integers(2, 8))):
        parts, _ = random_plan(rng, unseen=False)
        outline = measure(parts)
        size = height * log_uniform(rng, 0.06, 0.3) / max(outline.height, 0.6 * outline.width)
        figure = dress(rng, parts, size, 0)
        x, y = rng.uniform(0.02, 0.98) * columns, rows - 3 - size * outline.height / 2
        drawn = draw(figure, rng.uniform(0, 50), translation(x, y) @ scaling(size, size), rows, columns)
        if drawn:
            down, across, seen = crop(drawn, rows, columns)
            over(canvas[down, across], seen)
    red, green, blue, opacity = cv2.split(canvas)
    picture = cv2.merge([cv2.divide(channel, opacity, scale=255) for channel in (red, green, blue)])
    return _stand(rng, picture, opacity.astype(np.float32) / 255, height, width, foot, depth)


def _ground(rng: np.random.Generator, height: int, base: np.ndarray) -> np.ndarray:
    """Return a square picture of soil, grass, water, floor or road, with patches and lines: opaque uint8 RGBA."""
    side = int(height * 1.5)
    picture = texture(rng, side, side, base)
    if rng.random() < 0.5:
        patches = noise(rng, side, side, log_uniform(rng, 2, 8), 0.6) + np.float32(rng.uniform(-1, 0.5))
        other = base * log_uniform(rng, 0.5, 1.8) if rng.random() < 0.6 else colour(rng, 0.05)
        picture = mix(picture, texture(rng, side, side, other), soft_step(patches, log_uniform(rng, 0.7, 8)))
    for _ in range(int(rng.integers(0, 4)) if rng.random() < 0.5 else 0):
        place, thick, along = int(rng.uniform(0, side)), max(1, int(side * log_uniform(rng, 0.004, 0.06))), rng.random()
        start, end = ((place, 0), (place, side)) if along < 0.5 else ((0, place), (side, place))
        cv2.line(picture, start, end, (np.ones(3) * rng.uniform(60, 235)).tolist(), thick, cv2.LINE_AA)
    return _rgba(picture)


def _front(rng: np.random.Generator, height: int, width: int) -> list[Layer]:
    """Return in some cases a layer in front of the objects: posts, or leaves at the frame's lower edge."""
    if rng.random() > 0.22:
        return []
    depth = rng.uniform(1, 1.6)
    if rng.random() < 0.5:
        layer = _trees(rng, height, width, 1.0 + rng.uniform(-0.05, 0.2), depth)
    else:
        rows, columns = int(1.5 * height), int(_REACH * width)
        alpha = np.zeros((rows, columns), np.float32)
        for _ in range(int(rng.integers(1, 6))):
            x, lean, thick = rng.uniform(0, columns), rng.normal(0, 0.08) * rows, width * log_uniform(rng, 0.006, 0.06)
            ends = [(int(x), 0), (int(x + lean), rows)]
            cv2.line(alpha, *ends, 1, max(1, int(thick)))
        alpha = cv2.GaussianBlur(alpha, (0, 0), max(0.6, height / 480 * rng.uniform(0.6, 2)))
        layer = _stand(rng, texture(rng, rows, columns), alpha, height, width, 1.25, depth)
    return [layer]
