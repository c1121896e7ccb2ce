"""A video on disk, read lazily: frames are decoded when they are about to be needed, and forgotten."""

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from dataset.images import read_image, read_mask, read_palette
from util.errors import InputError

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Video:
    """The frames of a video and the masks that are given for it.

    ``masks`` maps frame numbers to annotation files. ``merge_objects`` makes all objects of a mask one object with
    id 255, the white of DAVIS 2016's masks.
    """

    name: str
    frames: list[Path]
    masks: dict[int, Path] = field(default_factory=dict)
    merge_objects: bool = False

    def read_frame(self, number: int) -> np.ndarray:
        """Decode a frame: uint8 RGB [H,W,3].

        Raises:
            InputError: the file is missing, corrupt, or of another size than the video's first frame.
        """
        image = read_image(self.frames[number])
        if image.shape[:2] != self.size:
            height, width = self.size
            raise InputError(
                f"{self.frames[number]} is {image.shape[1]}×{image.shape[0]}, but the first frame is {width}×{height}; "
                f"give all frames of a video one size"
            )
        return image

    def read_given_mask(self, number: int) -> np.ndarray:
        """Decode the mask given for a frame: uint8 object ids [H,W].

        Raises:
            InputError: the file is missing, corrupt, of another size than the frames, or without any object.
        """
        path = self.masks[number]
        mask = read_mask(path)
        if mask.shape != self.size:
            height, width = self.size
            raise InputError(
                f"{path} is {mask.shape[1]}×{mask.shape[0]}, but {self.frames[number]} is {width}×{height}; "
                f"give the mask at the size of the frame"
            )
        if not mask.any():
            raise InputError(f"{path} holds no object; mark at least one pixel, or leave the file out")
        return np.where(mask > 0, np.uint8(255), np.uint8(0)) if self.merge_objects else mask

    @functools.cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames, from the first one's header.

        Raises:
            InputError: the first frame is missing or no image.
        """
        try:
            with Image.open(self.frames[0]) as image:
                return image.height, image.width
        except OSError as error:
            raise InputError(f"{self.frames[0]} cannot be read ({error}); copy or download it again") from None

    @functools.cached_property
    def palette(self) -> bytes | None:
        """The palette of the first given mask, so that results come in the data set's colours."""
        return read_palette(self.masks[min(self.masks)])


def list_frames(folder: Path) -> list[Path]:
    """The images of a folder in the order of their names.

    Raises:
        InputError: the folder is missing or holds no image.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is missing; check the data set's folder")
    frames = sorted(path for path in folder.iterdir() if path.suffix.lower() in FRAME_SUFFIXES and path.name[0] != ".")
    if not frames:
        raise InputError(f"{folder} holds no images; check the data set's folder")
    return frames


def in_background(items: Iterable[Item], work: Callable[[Item], Result], ahead: int = 4) -> Iterator[Result]:
    """Yield ``work(item)`` for each item in order, from a background thread that runs up to ``ahead`` items ahead.

    Serves both ends of the network: frames are decoded before they are asked for, and masks written after they are
    known, with a bound on how many wait. Errors in ``work`` come out here.
    """
    with ThreadPoolExecutor(1) as pool:
        pending: deque[Future[Result]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
