"""Pictures of random objects: toys of a few kinds, with textures and soft shading."""

from dataclasses import dataclass

import cv2
import numpy as np

from small_network.toy.textures import colour, noise, pick, texture

_TURN = np.linspace(0, 2 * np.pi, 180, endpoint=False)
_SIZE = 0.72  # the size of an object as a share of its picture; the rest is for its shadow and deformation


def _superellipse(power: float) -> np.ndarray:
    return (np.abs(np.cos(_TURN)) ** power + np.abs(np.sin(_TURN)) ** power) ** (-1 / power)


def _petals(count: int, depth: float) -> np.ndarray:
    return (1 + depth * np.cos(count * _TURN)) / (1 + depth)


def _polygon(corners: int) -> np.ndarray:
    return np.cos(np.pi / corners) / np.cos(_TURN % (2 * np.pi / corners) - np.pi / corners)


_ROUND, _BOX = _superellipse(2), _superellipse(7)
_TRIANGLE = _polygon(3)  # points to the right

# The parts of each kind of object, from the farthest to the nearest: material (0, 1, or 2 for dark), centre (x, y),
# width, height, and radius by direction. An object is about 2 wide and 2 high.
_Part = tuple[int, float, float, float, float, np.ndarray]
KINDS: dict[str, list[_Part]] = {
    "ball": [(0, 0, 0, 2, 2, _ROUND)],
    "cushion": [(0, 0, 0, 2, 1.6, _BOX), (1, 0, 0, 0.5, 0.4, _ROUND)],
    "star": [(0, 0, 0, 2, 2, _petals(5, 0.35)), (1, 0, 0, 0.8, 0.8, _ROUND)],
    "flower": [(0, 0, 0, 2, 2, _petals(8, 0.15)), (1, 0, 0, 0.9, 0.9, _ROUND)],
    "fish": [
        (1, 0.75, 0, -0.8, 1.3, _TRIANGLE), (1, 0.1, -0.5, 0.9, 0.7, _ROUND), (0, -0.15, 0, 1.7, 1.1, _ROUND),
        (2, -0.65, -0.12, 0.15, 0.15, _ROUND),
    ],
    "cat": [
        (1, -0.5, -0.65, 0.6, 0.8, _polygon(4)), (1, 0.5, -0.65, 0.6, 0.8, _polygon(4)), (0, 0, 0.1, 1.8, 1.6, _ROUND),
        (2, -0.35, -0.05, 0.18, 0.28, _ROUND), (2, 0.35, -0.05, 0.18, 0.28, _ROUND), (1, 0, 0.4, 0.6, 0.4, _ROUND),
    ],
    "car": [
        (1, 0.1, -0.4, 1.2, 0.9, _BOX), (0, 0, 0.1, 2, 0.8, _BOX), (2, -0.55, 0.5, 0.55, 0.55, _ROUND),
        (2, 0.55, 0.5, 0.55, 0.55, _ROUND),
    ],
    "mushroom": [(1, 0, 0.4, 0.6, 1.2, _BOX), (0, 0, -0.3, 2, 1.2, _superellipse(2.6))],
    "bird": [
        (1, 0.85, 0.2, 0.6, 0.5, _BOX), (2, -0.95, -0.4, -0.4, 0.25, _TRIANGLE), (0, 0.1, 0.15, 1.6, 1, _ROUND),
        (0, -0.6, -0.4, 0.8, 0.8, _ROUND), (1, 0.25, 0.05, 0.9, 0.55, _ROUND), (2, -0.7, -0.45, 0.13, 0.13, _ROUND),
    ],
    "beetle": [
        (2, 0, -0.6, 0.9, 0.7, _ROUND), (2, 0, 0.1, 2, 0.14, _BOX), (2, 0, 0.5, 1.7, 0.14, _BOX),
        (0, 0, 0.2, 1.4, 1.6, _ROUND), (1, 0, 0.2, 0.12, 1.5, _BOX),
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """An object as seen without rotation.

    Attributes:
        kind: what it is.
        colours: uint8 BGRA [S,S,4], the colours multiplied by the opacity.
        shadow: the darkness of the soft shadow that it casts, uint8 [S,S].
    """

    kind: str
    colours: np.ndarray
    shadow: np.ndarray


def random_object(rng: np.random.Generator, kind: str, size: float, hue: float) -> Picture:
    """Return an object of a kind of `KINDS`, about ``size`` pixels large. Its main colour has this hue, 0 to 1."""
    side = int(size / _SIZE) + 4
    dark = colour(hue, 0.5, 0.2)
    shades = [colour(hue + rng.normal(0, 0.03), rng.uniform(0.3, 0.85), rng.uniform(0.45, 1)) for _ in range(2)]
    accents = [colour(hue + pick(rng, [0.1, 0.5, 0.6]), rng.uniform(0.2, 0.7), rng.uniform(0.5, 1)) for _ in range(2)]
    opaque = np.full((side, side), 255, np.float32)
    skins = [np.dstack([texture(rng, side, side, *pair), opaque]) for pair in (shades, accents, (dark, 1.3 * dark))]
    stretch = rng.uniform(0.75, 1, 2) * (pick(rng, [-1, 1]), 1) * size / 2
    bumps = 1 + rng.uniform(0, 0.08) * noise(rng, 1, len(_TURN) // 2, 4, 0.4)[0]
    bumps = np.concatenate([bumps, bumps[::-1]])  # so that the outline closes
    picture = np.zeros((side, side, 4), np.float32)
    for material, x, y, width, height, radius in KINDS[kind]:
        outline = np.stack([x + np.cos(_TURN) * radius * bumps * width / 2, y + np.sin(_TURN) * radius * height / 2], 1)
        _add(picture, skins[material], outline * stretch + side / 2)
    opacity = picture[..., 3]
    shift = np.float32([[1, 0, 0.03 * side], [0, 1, 0.06 * side]])
    shadow = cv2.GaussianBlur(cv2.warpAffine(opacity, shift, (side, side)), (0, 0), 0.03 * side)
    return Picture(kind, picture.clip(0, 255).round().astype(np.uint8), (0.5 * shadow).astype(np.uint8))


def _add(picture: np.ndarray, skin: np.ndarray, outline: np.ndarray) -> None:
    """Draw a part of an object, shaded as if it were inflated and lit from the upper left, on a picture in place.

    Args:
        picture: float32 BGRA [S,S,4], 0 to 255.
        skin: the colours of the part, of the same kind.
        outline: the outline of the part in pixels, [N,2].
    """
    mask = np.zeros(picture.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    height = np.sqrt(cv2.distanceTransform(mask, cv2.DIST_L2, 3) / len(mask))
    height = cv2.GaussianBlur(height, (0, 0), 0.5 + len(mask) / 50) * len(mask) / 4
    slope = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=1 / 8) + 1.4 * cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=1 / 8)
    light = np.clip(0.95 + 0.5 * slope / np.sqrt(1 + slope * slope), 0.3, 1.4)[..., None]
    light = light * (1, 1, 1, 0) + (0, 0, 0, 1)  # the opacity stays
    weight = mask[..., None] / np.float32(255)
    picture += weight * (np.clip(skin * light, 0, 255) - picture)
