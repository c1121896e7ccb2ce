"""A video on disk, read lazily: frames are decoded when they are about to be needed, and forgotten."""

import functools
import itertools
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from dataset.images import image_size, read_image, read_mask, read_palette
from util.errors import InputError

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")

Item = TypeVar("Item")
Result = TypeVar("Result")


class GivenMasks:
    """What every video has in common: masks that are given for some of its frames."""

    name: str
    masks: dict[int, Path]  # by frame number
    size: tuple[int, int]  # height and width of the frames

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
                f"{path} is {mask.shape[1]}×{mask.shape[0]}, but the frames of {self.name} are {width}×{height}; "
                f"give the mask at the size of the frame"
            )
        if not mask.any():
            raise InputError(f"{path} holds no object; mark at least one pixel, or leave the file out")
        return mask

    @functools.cached_property
    def palette(self) -> bytes | None:
        """The palette of the first given mask, so that results come in its colours; None where there is none."""
        return read_palette(self.masks[min(self.masks)]) if self.masks else None


@dataclass(frozen=True)
class Video(GivenMasks):
    """The frames of a video, an image file each, and the masks that are given for it.

    Attributes:
        name: of the video.
        frames: image files, in order.
        masks: annotation files by frame number.
        merge_objects: all objects of a mask are one, with id 255, the white of DAVIS 2016's masks.
        new_objects: by frame number, the ids to take from the given mask; all of them where a mask is not listed.
        wanted: the numbers of the frames whose masks are asked for; None for all.
    """

    name: str
    frames: list[Path]
    masks: dict[int, Path] = field(default_factory=dict)
    merge_objects: bool = False
    new_objects: dict[int, list[int]] = field(default_factory=dict)
    wanted: frozenset[int] | None = None

    @functools.cached_property
    def results(self) -> list[int]:
        """The numbers of the frames whose masks are asked for, in order."""
        return list(range(len(self.frames))) if self.wanted is None else sorted(self.wanted)

    @property
    def last(self) -> int:
        """The number of the last frame whose mask is asked for; no later one needs to be looked at."""
        return self.results[-1]

    def frame_name(self, number: int) -> str:
        """What a frame's result is called, without suffix."""
        return self.frames[number].stem

    def frame_number(self, name: str) -> int | None:
        """The frame that a mask of this name belongs to; None where there is none."""
        return next((number for number, frame in enumerate(self.frames) if frame.stem == name), None)

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
        """As `GivenMasks.read_given_mask`, with ``merge_objects`` and ``new_objects`` applied."""
        mask = super().read_given_mask(number)
        if self.merge_objects:
            return np.where(mask > 0, np.uint8(255), np.uint8(0))
        if number in self.new_objects:
            return np.where(np.isin(mask, self.new_objects[number]), mask, np.uint8(0))
        return mask

    @functools.cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames, from the first one's header.

        Raises:
            InputError: the first frame is missing or no image.
        """
        return image_size(self.frames[0])


def list_frames(folder: Path) -> list[Path]:
    """The images of a folder in the order of their names, the numbers in which need no leading zeros.

    Raises:
        InputError: the folder is missing, holds no image, or two that differ in their suffix only.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is missing; check the data set's folder")
    frames = [path for path in folder.iterdir() if path.suffix.lower() in FRAME_SUFFIXES and path.name[0] != "."]
    if not frames:
        raise InputError(f"{folder} holds no images; check the data set's folder")
    frames.sort(key=lambda path: (frame_order(path.stem), path.name))
    for one, other in itertools.pairwise(frames):
        if one.stem == other.stem:
            raise InputError(f"{one} and {other.name} would be one frame; keep masks in a folder of their own")
    return frames


def read_names(path: Path, remedy: str) -> list[str]:
    """The names of videos that a text file lists; editors may have put a byte order mark before them.

    Raises:
        InputError: the file cannot be read; the message ends with the remedy.
    """
    try:
        return path.read_text("utf-8-sig").split()
    except FileNotFoundError:
        raise InputError(f"{path} is missing; {remedy}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); {remedy}") from None


def frame_order(name: str) -> list[str | int]:
    """A sort key for the names of frames, by which frame9 comes before frame10."""
    return [int(part) if number % 2 else part for number, part in enumerate(re.split(r"([0-9]+)", name))]


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
