"""The folders of annotated videos: what a layout on disk states, and how to list the videos and frames in it."""

import os
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataset.images import read_mask
from dataset.video import FRAME_SUFFIXES, frame_order, read_names
from util.errors import InputError


class Pair(NamedTuple):
    """An image and its mask."""

    image: Path
    mask: Path


@dataclass(frozen=True)
class VideoFolders:
    """Where the annotated videos of a data set lie, and how training uses them. The folders need not exist.

    Attributes:
        name: the name of the data set, for messages.
        images: the folder that holds the frames, ``<video>/<frame>.jpg`` (or .png, ...).
        masks: the folder that holds the object ids, ``<video>/<frame>.png``.
        remedy: what the user can do if a file is missing, for messages.
        split: a text file that lists the names of the videos. Without it, all videos in the folders are meant.
        annotation_step: the distance between annotated frames, in frames of the original video. If it is 1, every
            frame must have a mask. If it is larger, frames without a mask are not used. If it is None, frames without
            a mask are not used either, and the names of the others tell the distance. If it is 0, only the first frame
            of a video has a mask; that is so in test splits.
        merge_objects: whether all objects of a video count as one, as in DAVIS 2016.
        void: the id of pixels that belong to no object, or None.
        repeats: how often each video counts in an epoch of training.
        crop_area: the smallest share of a frame's area that a training crop covers, 0 to 1.
        min_area: the share of a training crop, 0 to 1, that an object must cover to be used. With 0 one pixel is
            enough.
    """

    name: str
    images: Path
    masks: Path
    remedy: str
    split: Path | None = None
    annotation_step: int | None = 1
    merge_objects: bool = False
    void: int | None = None
    repeats: int = 1
    crop_area: float = 0.36
    min_area: float = 0.0

    def listed(self) -> list[str] | None:
        """Return the names of the videos that ``split`` lists, or None without a split.

        Raises:
            InputError: the split cannot be read.
        """
        return None if self.split is None else read_names(self.split, self.remedy)

    def frames(self, video: str) -> tuple[list[Pair], list[Path]]:
        """Find the annotated frames of a video, as `find_frames` does."""
        return find_frames(self.images / video, self.masks / video, complete=self.annotation_step == 1)

    def read_ids(self, mask: Path) -> np.ndarray:
        """Read the mask of a frame: uint8 object ids [H,W].

        Raises:
            InputError: as `dataset.images.read_mask`.
        """
        ids = read_mask(mask)
        if self.void is not None:
            ids = np.where(ids == self.void, np.uint8(0), ids)
        return (ids > 0).astype(np.uint8) if self.merge_objects else ids


def find_videos(images: Path, masks: Path, videos: Sequence[str] | None = None) -> tuple[list[str], list[Path]]:
    """Find the folders of videos.

    Args:
        images: the folder that holds a folder of frames for each video.
        masks: the folder that holds a folder of masks for each video.
        videos: the names of the wanted videos. By default these are all videos with a folder in ``images`` or
            ``masks``.

    Returns:
        The names of the wanted videos in order, and the folders of these videos that are missing.

    Raises:
        InputError: ``images`` or ``masks`` cannot be read.
    """
    with_images, with_masks = _folders(images), _folders(masks)
    videos = sorted(with_images | with_masks if videos is None else videos)
    missing = [images / video for video in videos if video not in with_images]
    return videos, missing + [masks / video for video in videos if video not in with_masks]


def find_frames(images: Path, masks: Path, *, complete: bool) -> tuple[list[Pair], list[Path]]:
    """Find the annotated frames of one video.

    Args:
        images: the folder of the video's frames, ``<frame>.jpg`` or another suffix of `FRAME_SUFFIXES`, in any case.
        masks: the folder of the video's masks, ``<frame>.png``.
        complete: whether a frame without a mask counts as missing its mask. A mask without a frame always misses it.

    Returns:
        The frames that have both an image and a mask, in order, and the files that are missing.

    Raises:
        InputError: a folder cannot be read, or two images of it are one frame.
    """
    shown, annotated = files_by_frame(images), files_by_frame(masks, (".png",))
    missing = [images / f"{frame}.jpg" for frame in sorted(annotated.keys() - shown.keys())]
    if complete:
        missing += [masks / f"{frame}.png" for frame in sorted(shown.keys() - annotated.keys())]
    both = sorted(annotated.keys() & shown.keys(), key=frame_order)
    return [Pair(shown[frame], annotated[frame]) for frame in both], missing


def files_by_frame(folder: Path, suffixes: Sequence[str] = FRAME_SUFFIXES) -> dict[str, Path]:
    """Return the files of a folder by their names without suffix.

    Args:
        folder: the folder of a video's frames or masks.
        suffixes: those of the wanted files; upper and lower case make no difference.

    Raises:
        InputError: the folder cannot be read, or two files have the name of one frame.
    """
    try:
        names = os.listdir(folder)
    except OSError:
        raise InputError(f"{folder} is missing or cannot be read; check the data set's folder") from None
    files: dict[str, Path] = {}
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() not in suffixes or is_junk(name):
            continue
        if stem in files:
            raise InputError(f"{files[stem]} and {name} would be one frame; keep masks in a folder of their own")
        files[stem] = folder / name
    return files


def step_in_names(frames: Sequence[Pair]) -> int:
    """Return the usual distance between neighbouring frames by the numbers that end their names; without them 1."""
    numbers = [int(found[0]) for frame in frames if (found := re.search(r"[0-9]+$", frame.image.stem))]
    distances = [later - earlier for earlier, later in pairwise(numbers)]
    return max(1, round(statistics.median(distances))) if distances else 1


def is_junk(name: str) -> bool:
    """Whether a file or folder of this name is no data: a hidden one, or what macOS adds to archives."""
    return name.startswith(".") or name == "__MACOSX"


def _folders(root: Path) -> set[str]:
    try:
        with os.scandir(root) as entries:
            return {entry.name for entry in entries if entry.is_dir() and not is_junk(entry.name)}
    except OSError:
        raise InputError(f"{root} is missing or cannot be read; check the data set's folder") from None
