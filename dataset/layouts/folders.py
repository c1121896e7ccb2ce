"""Folders of annotated videos: the description of a layout on disk, and lists of its videos and frames."""

import os
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataset.files.images import read_image, read_mask
from dataset.files.masks import MOST_PLAIN_ID, is_void, refuse_shades
from dataset.files.video import FRAME_SUFFIXES, frame_order, is_junk, read_names
from util.errors import InputError


class Pair(NamedTuple):
    """An image and its mask."""

    image: Path
    mask: Path

    def read(self, read_ids: Callable[[Path], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return the image, uint8 RGB [H,W,3], and its mask, uint8 [H,W], as ``read_ids`` reads it.

        Raises:
            InputError: a file cannot be read, or the two differ in size.
        """
        image, ids = read_image(self.image), read_ids(self.mask)
        if image.shape[:2] != ids.shape:
            raise InputError(f"{self.image} and {self.mask} differ in size; make or copy both again at the same size")
        return image, ids


class Layout(NamedTuple):
    """Folders of frames and masks in a data set."""

    name: str
    images: Path
    masks: Path


# The folders of frames and of masks in the roots of data sets, or in a split.
_LAYOUTS = (
    ("DAVIS", "JPEGImages/480p", "Annotations/480p"),
    ("YouTube-VOS, MOSE or LVOS", "JPEGImages", "Annotations"),
    ("SA-V", "JPEGImages_24fps", "Annotations_6fps"),
    ("VIPSeg", "imgs", "panomasks"),
)


def annotated_folders(root: Path, splits: Sequence[str]) -> Layout | None:
    """Find the folders of frames and of masks in a data set; None without them.

    Args:
        root: the data set, or a folder that holds it.
        splits: the folders in it that come first.
    """
    inside = sorted(path for path in root.glob("*/") if not is_junk(path.name))
    for base in (root, *(root / split for split in splits), *inside):
        for name, images, masks in _LAYOUTS:
            if (base / images).is_dir() and (base / masks).is_dir():
                return Layout(name, base / images, base / masks)
    return None


@dataclass(frozen=True)
class VideoFolders:
    """The folders of a data set's annotated videos, and their use in training. The folders need not exist.

    Attributes:
        name: the name of the data set, for messages.
        images: the folder that holds the frames, ``<video>/<frame>.jpg`` (or .png, ...).
        masks: the folder that holds the object ids, ``<video>/<frame>.png``.
        remedy: what the user can do if a file is missing, for messages.
        split: a text file that lists the names of the videos. Without it, all videos in the folders are used.
        annotation_step: the distance between annotated frames, in frames of the original video. With 1 every frame
            must have a mask. With a larger number frames without a mask are not used. With None they are not used
            either, and the distance is derived from the frame names. With 0, as in test splits, only the first frame of
            a video has a mask.
        merge_objects: whether all objects of a video are merged, as in DAVIS 2016.
        void: the id of pixels that belong to no object, or None.
        repeats: the number of repetitions of each video per epoch.
        crop_area: the minimum fraction of a frame's area that a training crop covers, 0 to 1.
        min_area: the minimum fraction of a training crop, 0 to 1, that an object covers. With 0 one pixel is enough.
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
        """Return the names of the videos that ``split`` lists, or None without a split."""
        return None if self.split is None else read_names(self.split, self.remedy)

    def frames(self, video: str) -> tuple[list[Pair], list[Path]]:
        """Find the annotated frames of a video, as `find_frames` does."""
        return find_frames(self.images / video, self.masks / video, complete=self.annotation_step == 1)

    def read_ids(self, mask: Path) -> np.ndarray:
        """Read the mask of a frame: uint8 object ids [H,W]. Void is background, see `dataset.files.masks.is_void`.

        Raises:
            InputError: as `dataset.files.images.read_mask`, or the mask has soft edges or noise instead of ids.
        """
        ids = read_mask(mask)
        shown = np.flatnonzero(np.bincount(ids.reshape(-1)))
        if self.void is None and len(shown) > 2 and shown[-1] > MOST_PLAIN_ID:
            refuse_shades(ids.astype(np.int32), mask)
        void = is_void(ids) if self.void is None else ids == self.void
        ids = np.where(void, np.uint8(0), ids)
        return (ids > 0).astype(np.uint8) if self.merge_objects else ids


def find_videos(images: Path, masks: Path, videos: Sequence[str] | None = None) -> tuple[list[str], list[Path]]:
    """Find the folders of videos.

    Args:
        images: the folder that holds a folder of frames for each video.
        masks: the folder that holds a folder of masks for each video.
        videos: the names of the wanted videos; by default all videos with a folder in ``images`` or ``masks``.

    Returns:
        The names of the wanted videos in order, and the folders of these videos that are missing.
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
        complete: whether every frame must have a mask. A mask must always have a frame.

    Returns:
        The frames that have both an image and a mask, in order, and the files that are missing.
    """
    shown, annotated = files_by_frame(images), files_by_frame(masks, (".png",))
    missing = [images / f"{frame}.jpg" for frame in sorted(annotated.keys() - shown.keys())]
    if complete:
        missing += [masks / f"{frame}.png" for frame in sorted(shown.keys() - annotated.keys())]
    both = sorted(annotated.keys() & shown.keys(), key=frame_order(shown))
    return [Pair(shown[frame], annotated[frame]) for frame in both], missing


def files_by_frame(folder: Path, suffixes: Sequence[str] = FRAME_SUFFIXES) -> dict[str, Path]:
    """Return the files of a folder by their stems.

    Args:
        suffixes: those of the wanted files, case-insensitive.
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


def remedy_without_masks(folder: Path, remedy: str) -> str:
    """What to do about a folder without masks, by what it holds instead; otherwise ``remedy``."""
    if any(folder.glob("*/*.png")):
        return f"it has a folder for each object, so merge them with scripts/convert_mask.py {folder} --output NEW"
    if images := [path for path in folder.glob("*") if path.suffix.lower() in FRAME_SUFFIXES]:
        return f"it has {images[0].suffix} files, so make PNGs of them with scripts/convert_mask.py"
    return remedy


def step_in_names(frames: Sequence[Pair]) -> int:
    """Return the median distance of consecutive frames by the numbers at the ends of their names; 1 without numbers."""
    numbers = [int(found[0]) for frame in frames if (found := re.search(r"[0-9]+$", frame.image.stem))]
    distances = [later - earlier for earlier, later in pairwise(numbers)]
    return max(1, round(statistics.median(distances))) if distances else 1


def _folders(root: Path) -> set[str]:
    try:
        with os.scandir(root) as entries:
            return {entry.name for entry in entries if entry.is_dir() and not is_junk(entry.name)}
    except OSError:
        raise InputError(f"{root} is missing or cannot be read; check the data set's folder") from None
