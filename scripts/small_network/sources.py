"""The sources of backgrounds and pasted objects: annotated videos, and images with masks."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from dataset.layouts import own_videos
from dataset.layouts.davis import split_folders
from dataset.layouts.folders import Pair, VideoFolders, find_videos
from dataset.layouts.static import find_images, image_folders
from util.errors import InputError

LEAST_FRAMES = 10  # of a background; shorter videos have too much motion between frames
_LEAST_SIDE = 24  # pixels of a pasted object's bounding box
_MARGIN = 3  # pixels of background around a cutout, for a soft edge


class SourceVideo(NamedTuple):
    """An annotated video: its folders, and its frames with their masks in order."""

    folders: VideoFolders
    frames: tuple[Pair, ...]

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a frame, uint8 RGB [H,W,3], and its object ids, uint8 [H,W]."""
        return self.frames[index].read(self.folders.read_ids)


class Cutout(NamedTuple):
    """An object and its surroundings: uint8 RGB [H,W,3], and the object's mask, uint8 0/1 [H,W]."""

    image: np.ndarray
    mask: np.ndarray


class Sources(NamedTuple):
    """The sources of pasted videos."""

    videos: tuple[SourceVideo, ...]  # with at least `LEAST_FRAMES` frames
    images: tuple[Pair, ...]  # with one object each, and their masks

    def summary(self) -> dict[str, int]:
        """The numbers of videos, frames and images, to detect changes."""
        frames = sum(len(video.frames) for video in self.videos)
        return {"videos": len(self.videos), "video_frames": frames, "images": len(self.images)}


def add_source_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags ``--videos``, ``--images`` and ``--davis_root``, for the arguments of `find_sources`."""
    add = parser.add_argument
    add(
        "--videos", type=Path, action="append", default=[], metavar="FOLDER",
        help="as --videos of train.py: holds JPEGImages/VIDEO and Annotations/VIDEO; may be given several times",
    )  # fmt: skip
    add(
        "--images", type=Path, action="append", default=[], metavar="FOLDER",
        help="as --static_root of train.py: images <name>.jpg with masks <name>.png; may be given several times",
    )  # fmt: skip
    add("--davis_root", type=Path, metavar="FOLDER", help="DAVIS 2016, of which only train is used")


def find_sources(videos: Sequence[Path], images: Sequence[Path], davis_root: Path | None = None) -> Sources:
    """List annotated videos and images in the folders of `add_source_flags`."""
    folders = [each for root in videos for each in own_videos.training_folders(root)]
    if davis_root:
        folders.append(split_folders(davis_root, 2016, "train"))
    pictures: list[Pair] = []
    for root in images:
        for folder in image_folders(root):
            pairs, missing = find_images(folder.path)
            if missing:
                raise InputError(f"{missing[0]} is missing ({len(missing)} such files); copy {folder.path} again")
            pictures += pairs
    found = [video for each in folders for video in _videos(each) if len(video.frames) >= LEAST_FRAMES]
    if not found:
        raise InputError(f"no video has {LEAST_FRAMES} frames or more; give longer ones with --videos or --davis_root")
    return Sources(tuple(found), tuple(pictures))


def _videos(folders: VideoFolders) -> Iterator[SourceVideo]:
    names, missing = find_videos(folders.images, folders.masks, folders.listed())
    for name in names:
        frames, of_this = folders.frames(name) if not missing else ([], missing)
        if of_this:
            raise InputError(f"{of_this[0]} is missing; {folders.remedy}")
        yield SourceVideo(folders, tuple(frames))


def cut_out(image: np.ndarray, mask: np.ndarray) -> Cutout | None:
    """Return the largest connected component of a mask, with the image around it, or None if it cannot be pasted.

    It cannot be pasted if its bounding box is small, if it fills most of the image, or if the border of the image
    truncates it: a straight edge would move through the video.

    Args:
        image: uint8 RGB [H,W,3].
        mask: bool or uint8 [H,W].
    """
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count == 1:
        return None
    largest = 1 + int(boxes[1:, cv2.CC_STAT_AREA].argmax())
    left, top, width, height, area = boxes[largest]
    if min(width, height) < _LEAST_SIDE or area > 0.6 * mask.size:
        return None
    object_mask = labels == largest
    border = sum(int(edge.sum()) for edge in (object_mask[0], object_mask[-1], object_mask[:, 0], object_mask[:, -1]))
    if border > 0.05 * 2 * (width + height):
        return None
    rows = slice(max(0, top - _MARGIN), top + height + _MARGIN)
    columns = slice(max(0, left - _MARGIN), left + width + _MARGIN)
    return Cutout(image[rows, columns], object_mask[rows, columns].astype(np.uint8))
