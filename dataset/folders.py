"""The folders of annotated videos: what a layout on disk states, and how to list the videos and frames in it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset.video import frame_order, read_names
from util.errors import InputError


@dataclass(frozen=True)
class VideoFolders:
    """Where the annotated videos of a data set lie. The folders need not exist.

    Attributes:
        name: the name of the data set, for messages.
        images: the folder that holds the frames, ``<video>/<frame>.jpg``.
        masks: the folder that holds the object ids, ``<video>/<frame>.png``.
        remedy: what the user can do if a file is missing, for messages.
        split: a text file that lists the names of the videos. Without it, all videos in the folders are meant.
        annotation_step: the distance between annotated frames, in frames of the original video. If it is 1, every
            frame must have a mask. If it is larger, frames without a mask are not used. If it is 0, only the first
            frame of a video has a mask; that is so in test splits.
    """

    name: str
    images: Path
    masks: Path
    remedy: str
    split: Path | None = None
    annotation_step: int = 1

    def listed(self) -> list[str] | None:
        """Return the names of the videos that ``split`` lists, or None without a split.

        Raises:
            InputError: the split cannot be read.
        """
        return None if self.split is None else read_names(self.split, self.remedy)


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


def find_frames(images: Path, masks: Path, *, annotation_step: int = 1) -> tuple[list[str], list[Path]]:
    """Find the annotated frames of one video.

    Args:
        images: the folder of the video's frames, ``<frame>.jpg``.
        masks: the folder of the video's masks, ``<frame>.png``.
        annotation_step: if it is 1, a frame without a mask counts as an error. A mask without a frame always does.

    Returns:
        The names of the frames that have both an image and a mask, in order, and the files that are missing.

    Raises:
        InputError: a folder cannot be read.
    """
    shown, annotated = _stems(images, ".jpg"), _stems(masks, ".png")
    missing = [images / f"{frame}.jpg" for frame in sorted(annotated - shown)]
    if annotation_step == 1:
        missing += [masks / f"{frame}.png" for frame in sorted(shown - annotated)]
    return sorted(annotated & shown, key=frame_order), missing


def _folders(root: Path) -> set[str]:
    try:
        with os.scandir(root) as entries:
            return {entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")}
    except OSError:
        raise InputError(f"{root} is missing or cannot be read; check the data set's folder") from None


def _stems(folder: Path, suffix: str) -> set[str]:
    try:
        names = os.listdir(folder)
    except OSError:
        raise InputError(f"{folder} is missing or cannot be read; check the data set's folder") from None
    return {name.removesuffix(suffix) for name in names if name.endswith(suffix) and not name.startswith(".")}
