"""Reading, writing and resizing of frames (JPEG or PNG) and masks (8-bit palette PNG)."""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from util.errors import InputError
from util.files import atomic_path, refuse_pipe

# The mean and standard deviation of ImageNet's images (RGB, 0 to 1). All networks here expect frames normalised with
# them, because training starts from ImageNet weights.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


def read_image(path: Path | str, *, least_side: int | None = None) -> np.ndarray:
    """Read a frame as uint8 RGB [H,W,3].

    Args:
        path: the image file.
        least_side: if given, a large JPEG may be decoded at a half, a quarter or an eighth of its size, which is much
            faster. No side becomes smaller than ``least_side`` pixels.

    Raises:
        InputError: the file is missing, truncated or not an image, or has more than 8 bits per channel.
    """
    return np.array(_decode(path, "RGB", least_side))


def read_grey(path: Path | str) -> np.ndarray:
    """Read an image as uint8 grey values [H,W]. Images with 1 bit per pixel give 0 and 255.

    Raises:
        InputError: the file is missing, truncated or not an image, or has more than 8 bits per channel.
    """
    return np.array(_decode(path, "L"))


def image_size(path: Path | str) -> tuple[int, int]:
    """Return the height and width of an image in pixels, without decoding the image.

    Raises:
        InputError: the file is missing or not an image.
    """
    with _opened(path) as image:
        return image.height, image.width


def read_mask(path: Path | str) -> np.ndarray:
    """Read a mask as uint8 object ids [H,W]. 0 is the background.

    The ids are the indices of a palette PNG or the values of an 8-bit grey image. An image with 1 bit per pixel gives
    0 and 1.

    Raises:
        InputError: the file is missing, truncated or not an image, or has colours without a palette, which say
            nothing about ids.
    """
    image = _decode(path)
    if image.mode not in ("P", "L", "1"):
        raise InputError(
            f"{path} is a {image.mode} image; save the mask as a palette or 8-bit grey PNG, room for 255 objects"
        )
    return np.array(image).astype(np.uint8)


def write_mask(path: Path | str, ids: np.ndarray, palette: bytes | None = None, *, durable: bool = False) -> None:
    """Write object ids as a palette PNG. If writing fails, no file is left behind.

    Args:
        path: the file to write.
        ids: uint8 [H,W].
        palette: 256 RGB triples. By default it is the palette of DAVIS.
        durable: whether to wait until the disk holds the file.

    Raises:
        InputError: the file cannot be written.
        ValueError: ``ids`` has another type or shape.
    """
    if ids.dtype != np.uint8 or ids.ndim != 2:
        raise ValueError(f"a mask is a uint8 array [H,W], not {ids.dtype} {ids.shape}")
    image = Image.fromarray(ids)
    image.putpalette(davis_palette() if palette is None else palette)
    with atomic_path(path, durable=durable) as temporary:
        image.save(temporary)


def read_palette(path: Path | str) -> bytes | None:
    """Return the palette of a palette PNG as 256 RGB triples, or None for an image without a palette.

    If the palette is shorter, the colours of DAVIS fill the rest.

    Raises:
        InputError: the file is missing, truncated or not an image.
    """
    palette = _decode(path).getpalette()
    return None if palette is None else bytes(palette) + davis_palette()[len(palette) :]


@functools.cache
def davis_palette() -> bytes:
    """Return the palette of DAVIS, YouTube-VOS and PASCAL VOC masks as 256 RGB triples.

    The bits of an id are distributed over red, green and blue.
    """
    ids = np.arange(256)
    colours = np.zeros((256, 3), dtype=int)
    for bit in range(8):
        colours[:, bit % 3] |= ((ids >> bit) & 1) << (7 - bit // 3)
    return colours.astype(np.uint8).tobytes()


def short_side_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Return the height and width after scaling the short side to ``short_side`` pixels.

    The long side is rounded down, as torchvision's ``Resize`` does.

    Args:
        size: height and width before scaling, in pixels.
        short_side: the length of the short side after scaling, in pixels.
    """
    return tuple(short_side * side // min(size) for side in size)


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a uint8 RGB frame [H,W,3] to ``size`` (height, width), bicubic with antialiasing."""
    if image.shape[:2] == size:
        return image
    return np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))


def resize_mask(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 object ids [H,W] to ``size`` (height, width) by nearest neighbours.

    If a small object would disappear, one of its pixels is kept, so that the network can follow the object.
    """
    if ids.shape == size:
        return ids
    resized = np.array(Image.fromarray(ids).resize(size[::-1], Image.Resampling.NEAREST))
    for lost in np.setdiff1d(ids[ids > 0], resized):
        pixels = np.argwhere(ids == lost)
        y, x = pixels[len(pixels) // 2] * size // ids.shape
        resized[y, x] = lost
    return resized


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """Convert a uint8 RGB frame [H,W,3] to the network's input: float32 [3,H,W], normalised with ImageNet's mean."""
    return normalise(torch.from_numpy(image).permute(2, 0, 1))


def normalise(image: torch.Tensor) -> torch.Tensor:
    """Convert uint8 RGB frames [...,3,H,W] to float32, normalised with ImageNet's mean, on the same device."""
    mean, std = (torch.tensor(values).view(3, 1, 1).to(image.device) for values in (IMAGE_MEAN, IMAGE_STD))
    return image.float().div_(255).sub_(mean).div_(std)


def to_image(tensor: torch.Tensor) -> np.ndarray:
    """Convert a normalised frame, float32 [3,H,W] on the CPU, back to uint8 RGB [H,W,3]."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    return (tensor * std + mean).mul(255).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()


def _decode(path: Path | str, mode: str | None = None, least_side: int | None = None) -> Image.Image:
    with _opened(path) as image:
        if least_side:
            image.draft(None, (least_side, least_side))
        image.load()
        if mode and image.mode[0] in "IF":  # a conversion would clip all bright values
            raise InputError(f"{path} has more than 8 bits a channel ({image.mode}); save it with 8")
        return image.convert(mode) if mode else image


@contextlib.contextmanager
def _opened(path: Path | str) -> Iterator[Image.Image]:
    refuse_pipe(path)
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise InputError(f"{path} is missing; check the data set's folder") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be decoded ({error}); copy or download it again") from None
