"""Reading, writing and resizing of frames (JPEG, PNG, ...) and masks (see `dataset.files.masks`).

Torch is imported by the functions that make tensors, so that `scripts/onnx_example.py` reads files without it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from dataset.files.colours import davis_palette
from dataset.files.masks import MaskValues, VideoIds, interpret, stated_ids
from util.errors import InputError
from util.files import GIT_LFS, atomic_path
from util.imagenet import normalise, statistics

if TYPE_CHECKING:
    import torch

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")  # Pillow reads others with less tested code
_GREY = 16  # levels by which the channels of a pixel may differ that has no colour


def read_image(path: Path | str, *, least_side: int | None = None) -> np.ndarray:
    """Read a frame as uint8 RGB [H,W,3], upright: the orientation that a camera has noted in the file is applied.

    Args:
        least_side: if given, a large JPEG may be decoded at a half, a quarter or an eighth of its size, which is much
            faster. No side becomes smaller than ``least_side`` pixels.

    Raises:
        InputError: the file is missing, truncated or not an image, or has more than 8 bits per channel.
    """
    image = _decode(path, least_side)
    if image.mode[0] in "IF":  # a conversion would clip all bright values
        raise InputError(f"{path} has more than 8 bits a channel ({image.mode}); save it with 8")
    return np.array(image.convert("RGB"))


def read_grey(path: Path | str) -> np.ndarray | None:
    """Read an image as grey values, uint8 [H,W], 0 where it is transparent; None if it has colours."""
    with _opened(path) as image:
        if image.mode == "L" and "transparency" not in image.info:
            return np.array(_decode(path))
    pixels = read_pixels(path).astype(int)
    darkest, brightest = pixels[:, :, :3].min(2), pixels[:, :, :3].max(2)
    if (((brightest - darkest) * pixels[:, :, 3]) > _GREY * 255).any():
        return None
    return (brightest * pixels[:, :, 3] // 255).astype(np.uint8)


def read_pixels(path: Path | str) -> np.ndarray:
    """Read any image as uint8 RGBA [H,W,4]. Channels of more than 8 bits are scaled to 8 bits."""
    image = _decode(path)
    if image.mode[0] in "IF":
        values = np.array(image, np.float64)
        span = 65535 if image.mode.startswith("I") and values.max() > 255 else max(values.max(), 1e-9)
        image = Image.fromarray((255 * values.clip(0) / span).round().astype(np.uint8))
    return np.array(image.convert("RGBA"))


def read_wide_grey(path: Path | str) -> np.ndarray | None:
    """Read a grey image of more than 8 bits a pixel as int64 [H,W]; None for any other image."""
    with _opened(path) as image:
        if image.mode[0] != "I":
            return None
    return np.array(_decode(path)).astype(np.int64)


def image_size(path: Path | str) -> tuple[int, int]:
    """Return the height and width of an image in pixels, upright, without decoding the image."""
    with _opened(path) as image:
        # The method of PngImageFile would decode the whole image.
        # Pillow states the size of a TIFF upright.
        lies = image.format != "TIFF" and Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        return (image.width, image.height) if lies else (image.height, image.width)


def read_mask(path: Path | str) -> np.ndarray:
    """Read a mask of a data set, or one that this project has written, as uint8 object ids [H,W].

    The ids are those of the file, see `dataset.files.masks.stated_ids`. 0 is the background. `PaintedMasks` reads
    masks that people have painted.

    Raises:
        InputError: the file is missing, truncated or not an image, or does not state ids.
    """
    return stated_ids(_decode(path), path)


def read_mask_values(path: Path | str) -> MaskValues:
    """Read what a mask shows, whatever program painted it, see `dataset.files.masks.interpret`.

    Raises:
        InputError: the file is missing, truncated, not an image or of several images, or is no mask.
    """
    with _opened(path) as image:
        count = getattr(image, "n_frames", 1)
    if count > 1:
        raise InputError(f"{path} holds {count} images; save the mask as a file of one image")
    return interpret(_decode(path), path)


class PaintedMasks:
    """A reader for the masks of one video that people have painted. A colour is the same object in all of them.

    Args:
        paths: all given masks of the video, in the order of their frames.

    Attributes:
        palette: the palette of the first given mask that has one whose indices are ids, 256 RGB triples, or None.
        notes: sentences about the given masks that a user should read.
        empty: the given masks that show no object.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self.palette: bytes | None = None
        self.notes: list[str] = []
        self.empty: set[Path] = set()
        self._ids = VideoIds(self._given(paths))

    def read(self, path: Path | str) -> np.ndarray:
        """Read a mask, a given or another one, as uint8 object ids [H,W].

        Raises:
            InputError: the mask is missing, corrupt, no mask or has ids above 255.
        """
        return self._ids.of(self._mask_values(path), path)

    def files(self, path: Path) -> list[Path]:
        """The files whose contents make the given mask of this path."""
        return [path]

    def _mask_values(self, path: Path | str) -> MaskValues:
        return read_mask_values(path)

    def _given(self, paths: Iterable[Path]) -> Iterator[MaskValues]:
        for path in paths:
            mask = self._mask_values(path)
            self.palette = self.palette or mask.palette
            if not mask.values.any():
                self.empty.add(path)
            if mask.note:
                self.notes.append(f"{path}: {mask.note}")
            yield mask


def write_mask(path: Path | str, ids: np.ndarray, palette: bytes | None = None, *, durable: bool = False) -> None:
    """Write object ids as a palette PNG. If writing fails, no file is left behind.

    Args:
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
    """
    palette = _decode(path).getpalette()
    return None if palette is None else bytes(palette) + davis_palette()[len(palette) :]


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
    """Convert a uint8 RGB frame [H,W,3] to the network's input: float32 [3,H,W], normalised with ImageNet's mean.

    Raises:
        ValueError: the frame has another type or shape, such as a PIL image, floats of 0 to 1, or one or four channels.
    """
    import torch

    if not isinstance(image, np.ndarray):
        raise ValueError(f"a frame is a NumPy array, uint8 RGB [H,W,3], not {type(image).__name__}; convert it")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"a frame is uint8 RGB [H,W,3], 0 to 255, not {image.dtype} {list(image.shape)}; convert it")
    return normalise(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1))


def to_image(tensor: torch.Tensor) -> np.ndarray:
    """Convert a normalised frame, float32 [3,H,W] on the CPU, back to uint8 RGB [H,W,3]."""
    mean, std = statistics(tensor.device)
    return (tensor * std + mean).mul(255).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()


def _decode(path: Path | str, least_side: int | None = None) -> Image.Image:
    with _opened(path) as image:
        if least_side:
            image.draft(None, (least_side, least_side))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return image


@contextlib.contextmanager
def _opened(path: Path | str) -> Iterator[Image.Image]:
    try:
        with Image.open(path, formats=_FORMATS) as image:
            yield image
    except FileNotFoundError:
        raise InputError(f"{path} is missing; check the path") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if other := _other_kind(path):
            raise InputError(f"{path} cannot be decoded, because it is {other}") from None
        raise InputError(f"{path} cannot be decoded ({error}); copy or download it again") from None


def _other_kind(path: Path | str) -> str:
    """What a file is that is no image, and the remedy; empty if unknown."""
    try:
        with open(path, "rb") as file:
            start = file.read(4096)
    except OSError:
        return ""
    if not start:
        return "empty; copy or download it again"
    if start.startswith((b"\x93NUMPY", b"PK\x03\x04")):
        return "a NumPy array or an archive; save masks as PNGs, for example with PIL.Image.fromarray(ids).save"
    if start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"avif"):
        return "an image in HEIF or AVIF; save it as a PNG"
    if start[4:8] == b"ftyp" or start.startswith(b"\x1aE\xdf\xa3") or start[8:12] == b"AVI ":
        return "a video; give an image, such as the mask of one frame as a PNG"
    if start.startswith(GIT_LFS):
        return "a pointer of Git LFS; get the file itself with git lfs pull"
    if start.lstrip().startswith((b"{", b"[")):
        return "a JSON file; scripts/convert_mask.py makes masks of the polygons of LabelMe and COCO"
    if all(byte >= 32 or byte in b"\t\n\r" for byte in start):
        return "a text file; give an image, or download it again"
    return ""
