"""Random geometry and colour of training clips (the paper, Section 4.2).

The geometry of a frame is one map from each pixel of the crop to a position in the source image. A frame and its mask
share this map. All affine parts are multiplied into one matrix, and the thin-plate warp is added to the same map, so
that each frame is resampled only once. Coordinates are continuous: pixel i covers [i, i+1).
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from util.imagenet import IMAGE_MEAN

# The colour outside an image: the mean colour of ImageNet, which is about 0 after normalisation.
_FILL = tuple(round(255 * value) for value in IMAGE_MEAN)
# The weights of red, green and blue in a grey value (ITU-R 601), as in torchvision and PIL.
_LUMA = np.array([0.299, 0.587, 0.114])

# A change of colour: its kind ("brightness", "contrast", "saturation" or "hue") and its factor as in torchvision.
ColourStep = tuple[str, float]


@dataclass(frozen=True, eq=False)
class Warp:
    """A map from a source image to a square crop."""

    matrix: np.ndarray  # [3,3], maps source coordinates to crop coordinates
    size: int  # the side of the crop, in pixels
    # float32 [size,size,2] in pixels, added to the (x, y) of a crop pixel before the matrix maps it to the source.
    displacement: np.ndarray | None = None

    @functools.cached_property
    def grid(self) -> np.ndarray:
        """The source position (x, y) of each crop pixel, float32 [size,size,2]. Pixel centres are whole numbers."""
        centres = np.arange(self.size, dtype=np.float32) + 0.5
        x, y = centres[None], centres[:, None]
        if self.displacement is not None:
            x, y = x + self.displacement[..., 0], y + self.displacement[..., 1]
        inverse = np.linalg.inv(self.matrix).astype(np.float32)
        return np.stack([a * x + (b * y + (c - np.float32(0.5))) for a, b, c in inverse[:2]], axis=-1)

    def image(self, image: np.ndarray) -> np.ndarray:
        """Resample a uint8 RGB image [H,W,3] bicubically to [size,size,3]. An image that shrinks is blurred first."""
        shrink_x, shrink_y = 1 / np.linalg.norm(self.matrix[:2, :2], axis=0)
        # The blur that downscaling by `shrink` needs against aliasing. OpenCV's sigma must not be 0.
        sigma_x, sigma_y = (max(1e-3, 0.5 * max(0.0, s * s - 1) ** 0.5) for s in (shrink_x, shrink_y))
        image = cv2.GaussianBlur(image, (0, 0), sigmaX=sigma_x, sigmaY=sigma_y)
        return cv2.remap(image, self.grid, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT, borderValue=_FILL)

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """Resample uint8 object ids [H,W] to [size,size] by nearest neighbours."""
        return cv2.remap(mask, self.grid, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)


@dataclass(frozen=True)
class FrameTransform:
    """The augmentation of one frame: first its geometry, then its colour steps in order."""

    warp: Warp
    colour: Sequence[ColourStep] = ()


def static_transforms(
    rng: np.random.Generator, height: int, width: int, *, size: int, frames: int
) -> list[FrameTransform]:
    """Choose random synthetic motion that makes a clip from one image (Section 4.2).

    Args:
        height, width: the size of the image, in pixels.
        size: the side of the crops, in pixels.
    """
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
    """Choose the random augmentation of a video clip (Section 4.2).

    Args:
        height, width: the size of the frames, in pixels.
        size: the side of the crops, in pixels.
        crop_area: the smallest and the largest share of a frame's area that the crop covers, 0 to 1.
    """
    crop = _random_resized_crop(rng, height, width, size, crop_area) @ _random_flip(rng, width)
    colour = [*_jitter(rng, brightness=0.1, contrast=0.03, saturation=0.03), *_random_greyscale(rng)]
    transforms = []
    for _ in range(frames):
        move = affine(size, size, degrees=rng.uniform(-15, 15), shear=rng.uniform(-10, 10))
        jitter = _jitter(rng, brightness=0.01, contrast=0.01, saturation=0.01)
        transforms.append(FrameTransform(Warp(move @ crop, size), [*colour, *jitter]))
    return transforms


def transforms_around_object(
    rng: np.random.Generator, ids: np.ndarray, *, size: int, frames: int
) -> list[FrameTransform]:
    """Return transforms without augmentation, all with the same crop around a random pixel of an object.

    The crop does not downscale the image, so it shows every pixel, even an object of one pixel.

    Args:
        ids: object ids, uint8 [H,W]. At least one is not 0.
        size: the side of the crops, in pixels. The crop covers ``size`` pixels of the image along each side, or the
            whole side if that is shorter.
    """
    pixel = rng.choice(np.argwhere(ids))
    covered = np.minimum(size, ids.shape)
    top, left = np.clip(pixel - covered // 2, 0, ids.shape - covered)
    scale_y, scale_x = size / covered
    matrix = np.array([[scale_x, 0, -left * scale_x], [0, scale_y, -top * scale_y], [0, 0, 1]])
    return [FrameTransform(Warp(matrix, size))] * frames


def affine(height: int, width: int, *, degrees: float = 0, scale: float = 1, shear: float = 0) -> np.ndarray:
    """Return the matrix [3,3] that shears along x, scales and rotates about the centre of an image [height,width].

    Args:
        height, width: the size of the image, in pixels.
        shear: the angle of the shear, in degrees.
    """
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
    """Choose a random thin-plate-spline warp of a square.

    Some points of the square move, and the spline interpolates the displacement elsewhere.

    Args:
        size: the side of the square, in pixels.
        points: the number of points that move. They are uniformly distributed.
        sigma: the standard deviation of their displacement, as a fraction of ``size``.
        spacing: the distance between evaluations of the spline, in pixels. The spline is smooth, so other values are
            interpolated.

    Returns:
        float32 displacements [size,size,2] in pixels.
    """
    controls = rng.uniform(size=(points, 2))
    moves = rng.normal(scale=sigma, size=(points, 2))

    def basis(places: np.ndarray) -> np.ndarray:
        squared = ((places[:, None] - controls) ** 2).sum(-1)
        return np.hstack([squared * np.log(np.maximum(squared, 1e-12)), np.ones((len(places), 1)), places])

    at_controls = basis(controls)
    system = np.vstack([at_controls, np.hstack([at_controls[:, points:].T, np.zeros((3, 3))])])
    weights = np.linalg.solve(system, np.vstack([moves, np.zeros((3, 2))]))

    # Nodes are the centres of blocks of pixels. Cubic interpolation at the edges needs two more nodes on every side.
    nodes = -(-size // spacing) + 4
    centres = (np.arange(nodes) - 1.5) * spacing / size
    places = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
    coarse = (size * basis(places) @ weights).astype(np.float32).reshape(nodes, nodes, 2)
    fine = cv2.resize(coarse, None, fx=spacing, fy=spacing, interpolation=cv2.INTER_CUBIC)
    inside = slice(2 * spacing, 2 * spacing + size)
    return fine[inside, inside]


def recolour(image: np.ndarray, steps: Sequence[ColourStep]) -> np.ndarray:
    """Apply colour steps to a uint8 RGB image [H,W,3]. The factors are defined as in torchvision.

    All steps except hue are linear in the colours. Consecutive linear steps are multiplied into one matrix, so values
    are rounded and clipped only once.
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
        else:  # hue
            hsv = cv2.cvtColor(cv2.transform(image, matrix), cv2.COLOR_RGB2HSV_FULL)
            hsv[..., 0] += np.uint8(round(256 * factor) % 256)  # hues wrap around at 256, as uint8 does
            image, matrix = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL), np.eye(3, 4)
    return cv2.transform(image, matrix)


def _jitter(
    rng: np.random.Generator, *, brightness: float, contrast: float, saturation: float, hue: float = 0
) -> list[ColourStep]:
    """Choose colour steps like torchvision's ColorJitter: factors 1 ± limit (hue: ± limit), in random order."""
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
    """Choose a crop like torchvision's RandomResizedCrop: aspect ratio 3:4 to 4:3, stretched to a square."""
    for _ in range(10):
        share = rng.uniform(*area) * height * width
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        crop_width, crop_height = (share * ratio) ** 0.5, (share / ratio) ** 0.5
        if crop_width <= width and crop_height <= height:
            break
    else:  # no crop fits into this elongated image: take the largest one with an allowed aspect ratio
        crop_width, crop_height = min(width, height * 4 / 3), min(height, width * 4 / 3)
    left, top = rng.uniform(0, width - crop_width), rng.uniform(0, height - crop_height)
    scale_x, scale_y = size / crop_width, size / crop_height
    return np.array([[scale_x, 0, -left * scale_x], [0, scale_y, -top * scale_y], [0, 0, 1]])
