"""Random geometry and colour of training clips (the paper, Section 4.2).

Geometry is one map from an output pixel to a place in the source, applied alike to a frame and to its mask: all
affine parts are multiplied into one matrix and the thin-plate warp is added to the same map, so each frame is
resampled once. Coordinates are continuous: pixel i covers [i, i+1).
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from dataset.images import IMAGE_MEAN

# Outside of an image lies its mean colour, about 0 once normalised, and background.
_FILL = tuple(round(255 * value) for value in IMAGE_MEAN)
# ITU-R 601 luma, the weights of torchvision's (and PIL's) greyscale.
_LUMA = np.array([0.299, 0.587, 0.114])

ColourStep = tuple[str, float]  # ("brightness" | "contrast" | "saturation" | "hue", factor as in torchvision)


@dataclass(frozen=True, eq=False)
class Warp:
    """A map from a source image to a square crop.

    Attributes:
        matrix: [3,3], source coordinates to crop coordinates.
        size: side of the crop in pixels.
        displacement: float32 [size,size,2], added to a crop pixel's (x, y) before it is looked up; None for none.
    """

    matrix: np.ndarray
    size: int
    displacement: np.ndarray | None = None

    @functools.cached_property
    def grid(self) -> np.ndarray:
        """float32 [size,size,2]: the (x, y) source position of each crop pixel, in pixel-centre coordinates."""
        centres = np.arange(self.size, dtype=np.float32) + 0.5
        x, y = centres[None], centres[:, None]
        if self.displacement is not None:
            x, y = x + self.displacement[..., 0], y + self.displacement[..., 1]
        inverse = np.linalg.inv(self.matrix).astype(np.float32)
        return np.stack([a * x + (b * y + (c - np.float32(0.5))) for a, b, c in inverse[:2]], axis=-1)

    def image(self, image: np.ndarray) -> np.ndarray:
        """Resample a uint8 RGB image [H,W,3] bicubically to [size,size,3], low-pass filtered where it shrinks."""
        shrink_x, shrink_y = 1 / np.linalg.norm(self.matrix[:2, :2], axis=0)
        # The blur that a pixel `shrink` times as large has on top of the source's own. OpenCV's sigma may not be 0.
        sigma_x, sigma_y = (max(1e-3, 0.5 * max(0.0, s * s - 1) ** 0.5) for s in (shrink_x, shrink_y))
        image = cv2.GaussianBlur(image, (0, 0), sigmaX=sigma_x, sigmaY=sigma_y)
        return cv2.remap(image, self.grid, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT, borderValue=_FILL)

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """Resample uint8 object ids [H,W] to the nearest neighbour's, [size,size]."""
        return cv2.remap(mask, self.grid, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)


@dataclass(frozen=True)
class FrameTransform:
    """What happens to one frame of a clip: its geometry, then its colour steps in order."""

    warp: Warp
    colour: Sequence[ColourStep] = ()


def static_transforms(
    rng: np.random.Generator, height: int, width: int, *, size: int, frames: int
) -> list[FrameTransform]:
    """Draw the synthetic motion that makes a clip of one image [height,width]."""
    zoom = affine(height, width, scale=rng.uniform(0.8, 1.5)) @ _random_flip(rng, width)
    colour = [*_jitter(rng, brightness=0.1, contrast=0.05, saturation=0.05, hue=0.05), *_random_greyscale(rng)]
    resize = size / min(height, width)
    transforms = []
    for _ in range(frames):
        move = affine(
            height, width, degrees=rng.uniform(-20, 20), scale=rng.uniform(0.9, 1.1), shear=rng.uniform(-10, 10)
        )
        left, top = (rng.uniform(0, max(0, side * resize - size)) for side in (width, height))
        crop = np.array([[resize, 0, -left], [0, resize, -top], [0, 0, 1]])
        displacement = thin_plate_displacement(rng, size) if rng.random() < 1 / 3 else None
        warp = Warp(crop @ move @ zoom, size, displacement)
        transforms.append(
            FrameTransform(warp, [*colour, *_jitter(rng, brightness=0.1, contrast=0.05, saturation=0.05)])
        )
    return transforms


def video_transforms(
    rng: np.random.Generator, height: int, width: int, *, size: int, frames: int, crop_area: tuple[float, float]
) -> list[FrameTransform]:
    """Draw the augmentation of a video clip [height,width]; ``crop_area`` is the range of the crop's share of it."""
    crop = _random_resized_crop(rng, height, width, size, crop_area) @ _random_flip(rng, width)
    colour = [*_jitter(rng, brightness=0.1, contrast=0.03, saturation=0.03), *_random_greyscale(rng)]
    transforms = []
    for _ in range(frames):
        move = affine(size, size, degrees=rng.uniform(-15, 15), shear=rng.uniform(-10, 10))
        jitter = _jitter(rng, brightness=0.01, contrast=0.01, saturation=0.01)
        transforms.append(FrameTransform(Warp(move @ crop, size), [*colour, *jitter]))
    return transforms


def plain_transforms(height: int, width: int, *, size: int, frames: int) -> list[FrameTransform]:
    """No augmentation: the whole image [height,width], stretched to the square."""
    return [FrameTransform(Warp(np.diag([size / width, size / height, 1.0]), size))] * frames


def affine(height: int, width: int, *, degrees: float = 0, scale: float = 1, shear: float = 0) -> np.ndarray:
    """Shear along x, scale and rotate (degrees) about the centre of an image [height,width]: a matrix [3,3]."""
    angle, slant = np.deg2rad(degrees), np.tan(np.deg2rad(shear))
    rotate = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.eye(3)
    matrix[:2, :2] = scale * rotate @ np.array([[1, -slant], [0, 1]])
    centre = np.array([width / 2, height / 2])
    matrix[:2, 2] = centre - matrix[:2, :2] @ centre
    return matrix


def thin_plate_displacement(
    rng: np.random.Generator, size: int, *, points: int = 12, sigma: float = 0.02, spacing: int = 8
) -> np.ndarray:
    """Draw a thin-plate-spline warp of a square: float32 displacements [size,size,2] in pixels.

    ``points`` places, uniform in the square, move by N(0, ``sigma``) of its side; the spline carries the rest along.
    It is smooth, so it is evaluated every ``spacing`` pixels only and interpolated in between.
    """
    controls = rng.uniform(size=(points, 2))
    moves = rng.normal(scale=sigma, size=(points, 2))

    def basis(places: np.ndarray) -> np.ndarray:
        squared = ((places[:, None] - controls) ** 2).sum(-1)
        return np.hstack([squared * np.log(np.maximum(squared, 1e-12)), np.ones((len(places), 1)), places])

    at_controls = basis(controls)
    system = np.vstack([at_controls, np.hstack([at_controls[:, points:].T, np.zeros((3, 3))])])
    weights = np.linalg.solve(system, np.vstack([moves, np.zeros((3, 2))]))

    # Nodes are the centres of blocks of pixels, and two more on every side that cubic interpolation at the edge needs.
    nodes = -(-size // spacing) + 4
    centres = (np.arange(nodes) - 1.5) * spacing / size
    places = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
    coarse = (size * basis(places) @ weights).astype(np.float32).reshape(nodes, nodes, 2)
    fine = cv2.resize(coarse, None, fx=spacing, fy=spacing, interpolation=cv2.INTER_CUBIC)
    inside = slice(2 * spacing, 2 * spacing + size)
    return fine[inside, inside]


def recolour(image: np.ndarray, steps: Sequence[ColourStep]) -> np.ndarray:
    """Apply colour steps to a uint8 RGB image [H,W,3]; factors mean what they mean in torchvision.

    Every step but hue is linear in the colours, so runs of them are one matrix and values are rounded and clipped
    once at the end of the run.
    """
    matrix = np.eye(3, 4)
    for kind, factor in steps:
        grey = _LUMA @ matrix
        if kind == "brightness":
            matrix = factor * matrix
        elif kind == "contrast":
            mean_grey = grey @ [*cv2.mean(image)[:3], 1]
            matrix = factor * matrix
            matrix[:, 3] += (1 - factor) * mean_grey
        elif kind == "saturation":
            matrix = factor * matrix + (1 - factor) * grey
        elif kind == "hue":
            hsv = cv2.cvtColor(cv2.transform(image, matrix), cv2.COLOR_RGB2HSV_FULL)
            hsv[..., 0] += np.uint8(round(256 * factor) % 256)  # 256 steps are the full circle, so overflow is right
            image, matrix = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL), np.eye(3, 4)
        else:
            raise ValueError(f"no colour step is called {kind!r}")
    return cv2.transform(image, matrix)


def _jitter(
    rng: np.random.Generator, *, brightness: float, contrast: float, saturation: float, hue: float = 0
) -> list[ColourStep]:
    """torchvision's ColorJitter: factors within 1 ± the limit (hue: ± the limit), in random order."""
    steps = [
        (kind, rng.uniform(1 - limit, 1 + limit))
        for kind, limit in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation))
    ]
    if hue:
        steps.append(("hue", rng.uniform(-hue, hue)))
    return [steps[place] for place in rng.permutation(len(steps))]


def _random_greyscale(rng: np.random.Generator) -> list[ColourStep]:
    return [("saturation", 0.0)] if rng.random() < 0.05 else []


def _random_flip(rng: np.random.Generator, width: int) -> np.ndarray:
    return np.array([[-1, 0, width], [0, 1, 0], [0, 0, 1]]) if rng.random() < 0.5 else np.eye(3)


def _random_resized_crop(
    rng: np.random.Generator, height: int, width: int, size: int, area: tuple[float, float]
) -> np.ndarray:
    """torchvision's RandomResizedCrop: a share of the area, at an aspect ratio of 3:4 to 4:3, stretched to a square."""
    for _ in range(10):
        share = rng.uniform(*area) * height * width
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        crop_width, crop_height = (share * ratio) ** 0.5, (share / ratio) ** 0.5
        if crop_width <= width and crop_height <= height:
            break
    else:  # so elongated an image that nothing fits: as much of it as the aspect ratio allows
        crop_width, crop_height = min(width, height * 4 / 3), min(height, width * 4 / 3)
    left, top = rng.uniform(0, width - crop_width), rng.uniform(0, height - crop_height)
    scale_x, scale_y = size / crop_width, size / crop_height
    return np.array([[scale_x, 0, -left * scale_x], [0, scale_y, -top * scale_y], [0, 0, 1]])
