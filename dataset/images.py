"""Frames and masks on disk: JPEG or PNG frames in, 8-bit palette PNG masks in and out."""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from util.errors import InputError
from util.files import atomic_path

# Every network here starts from ImageNet weights and sees frames normalised with ImageNet's statistics (RGB, 0..1).
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


def read_image(path: Path | str, *, least_side: int | None = None) -> np.ndarray:
    """Read a frame as uint8 RGB [H,W,3].

    With ``least_side``, a JPEG whose sides are at least twice that may come at a half, a quarter or an eighth of its
    size (no side below ``least_side``), which is much faster than to decode all of it.

    Raises:
        InputError: the file is missing, truncated or no image.
    """
    return np.array(_decode(path, "RGB", least_side))


def read_grey(path: Path | str) -> np.ndarray:
    """Read an image of any mode as uint8 luminance [H,W]; 1-bit ones give 0 and 255.

    Raises:
        InputError: the file is missing, truncated or no image.
    """
    return np.array(_decode(path, "L"))


def image_size(path: Path | str) -> tuple[int, int]:
    """Height and width of an image, without decoding it.

    Raises:
        InputError: the file is missing or no image.
    """
    with _opened(path) as image:
        return image.height, image.width


def read_mask(path: Path | str) -> np.ndarray:
    """Read a mask as uint8 object ids [H,W]; 0 is the background.

    Palette PNGs give their indices, 8-bit grey ones their values, 1-bit ones 0 and 1.

    Raises:
        InputError: the file is missing, truncated, no image, or coloured (ids cannot be told from colours).
    """
    image = _decode(path)
    if image.mode not in ("P", "L", "1"):
        raise InputError(
            f"{path} is a {image.mode} image; save the mask as a palette or 8-bit grey PNG, room for 255 objects"
        )
    return np.array(image).astype(np.uint8)


def write_mask(path: Path | str, ids: np.ndarray, palette: bytes | None = None) -> None:
    """Write uint8 object ids [H,W] as a palette PNG, complete or not at all; the default palette is DAVIS's."""
    if ids.dtype != np.uint8 or ids.ndim != 2:
        raise ValueError(f"a mask is a uint8 array [H,W], not {ids.dtype} {ids.shape}")
    image = Image.fromarray(ids)
    image.putpalette(davis_palette() if palette is None else palette)
    with atomic_path(path) as temporary:
        image.save(temporary)


def read_palette(path: Path | str) -> bytes | None:
    """The palette (256 RGB triples) of a palette PNG, or None where the image has none.

    A shorter one goes on in DAVIS's colours.

    Raises:
        InputError: the file is missing or no image.
    """
    palette = _decode(path).getpalette()
    return None if palette is None else bytes(palette) + davis_palette()[len(palette) :]


@functools.cache
def davis_palette() -> bytes:
    """The 256-colour palette of DAVIS, YouTube-VOS and PASCAL VOC masks: the bits of an id, spread over R, G and B."""
    ids = np.arange(256)
    colours = np.zeros((256, 3), dtype=int)
    for bit in range(8):
        colours[:, bit % 3] |= ((ids >> bit) & 1) << (7 - bit // 3)
    return colours.astype(np.uint8).tobytes()


def short_side_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Height and width after scaling to a short side, as torchvision's ``Resize`` rounds the long one."""
    return tuple(short_side * side // min(size) for side in size)


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a uint8 RGB frame [H,W,3] to a height and width, bicubic with antialiasing."""
    if image.shape[:2] == size:
        return image
    return np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))


def resize_mask(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 object ids [H,W] to a height and width by nearest neighbours.

    An object too small to be hit by any of them keeps one pixel: it could not be followed otherwise.
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
    """Turn a uint8 RGB frame [H,W,3] into the network's input: float32 [3,H,W], ImageNet-normalised."""
    image = torch.from_numpy(image).permute(2, 0, 1).float().div_(255)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    return image.sub_(mean).div_(std)


def to_image(tensor: torch.Tensor) -> np.ndarray:
    """Undo `to_tensor`: [3,H,W] on the CPU to a uint8 RGB frame [H,W,3]."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    return (tensor * std + mean).mul(255).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()


def _decode(path: Path | str, mode: str | None = None, least_side: int | None = None) -> Image.Image:
    with _opened(path) as image:
        if least_side:
            image.draft(None, (least_side, least_side))
        image.load()
        if mode and image.mode[0] in "IF":  # converting would cut all bright values off
            raise InputError(f"{path} has more than 8 bits a channel ({image.mode}); save it with 8")
        return image.convert(mode) if mode else image


@contextlib.contextmanager
def _opened(path: Path | str) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise InputError(f"{path} is missing; check the data set's folder") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be decoded ({error}); copy or download it again") from None
