"""Where backgrounds and pasted objects come from: annotated videos, and images with masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from dataset.davis import split_folders
from dataset.folders import find_frames, find_videos
from dataset.images import read_grey, read_image, read_mask
from dataset.static import OBJECT_FROM, find_images
from util.errors import InputError

LEAST_FRAMES = 10  # videos with fewer frames have too much motion from frame to frame to be backgrounds
_LEAST_SIDE = 24  # in pixels, of the box of an object that is worth pasting
_MARGIN = 3  # pixels of background around a cutout, so that its edge can be soft


class SourceVideo(NamedTuple):
    """An annotated video: the folders of its frames and masks, and the names of its frames in order."""

    images: Path
    masks: Path
    frames: tuple[str, ...]

    def read(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a frame, uint8 RGB [H,W,3], and its object ids, uint8 [H,W].

        Raises:
            InputError: a file cannot be read, or the two differ in size.
        """
        image = read_image(self.images / f"{self.frames[place]}.jpg")
        ids = read_mask(self.masks / f"{self.frames[place]}.png")
        if image.shape[:2] != ids.shape:
            raise InputError(f"{self.images / self.frames[place]}.jpg and its mask differ in size; copy both again")
        return image, ids


class Cutout(NamedTuple):
    """An object and its surroundings: uint8 RGB [H,W,3], and the object's mask, uint8 0/1 [H,W]."""

    image: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class Sources:
    """Everything that videos can be made of.

    Attributes:
        videos: the annotated videos.
        images: images ``<name>.jpg`` with masks ``<name>.png`` beside them.
    """

    videos: tuple[SourceVideo, ...]
    images: tuple[Path, ...]

    @property
    def backgrounds(self) -> list[SourceVideo]:
        """The videos with at least `LEAST_FRAMES` frames."""
        return [video for video in self.videos if len(video.frames) >= LEAST_FRAMES]

    def summary(self) -> dict[str, int]:
        """The numbers of videos, frames and images, to tell whether the sources have changed."""
        frames = sum(len(video.frames) for video in self.videos)
        return {"videos": len(self.videos), "video_frames": frames, "images": len(self.images)}


def find_sources(videos: Sequence[Path], images: Sequence[Path], davis_root: Path | None = None) -> Sources:
    """List annotated videos and images.

    Args:
        videos: folders that hold ``JPEGImages/<video>`` and ``Annotations/<video>``.
        images: folders of images ``<name>.jpg`` and masks ``<name>.png``, also one folder down.
        davis_root: the folder of DAVIS 2016. Only its training split is used.

    Raises:
        InputError: a folder cannot be read, a file is missing, or there is no background or no object.
    """
    found = [clip for root in videos for clip in _videos(root / "JPEGImages", root / "Annotations")]
    if davis_root:
        folders = split_folders(davis_root, 2016, "train")
        found += _videos(folders.images, folders.masks, folders.listed())
    pictures: list[Path] = []
    for folder in images:
        flat, missing_here = find_images(folder)
        nested, missing_below = find_images(folder, nested=True)
        listed, missing = flat + nested, missing_here + missing_below
        if missing:
            raise InputError(f"{missing[0]} is missing ({len(missing)} such files); copy {folder} again")
        if not listed:
            raise InputError(f"{folder} holds no images <name>.jpg with masks <name>.png; check --images")
        pictures += listed
    sources = Sources(tuple(found), tuple(pictures))
    if not sources.backgrounds:
        raise InputError(f"no video has {LEAST_FRAMES} frames or more; give longer ones with --videos or --davis_root")
    return sources


def _videos(images: Path, masks: Path, listed: list[str] | None = None) -> list[SourceVideo]:
    names, missing = find_videos(images, masks, listed)
    clips = []
    for name in names if not missing else ():
        frames, missing = find_frames(images / name, masks / name)
        if missing:
            break
        clips.append(SourceVideo(images / name, masks / name, tuple(frames)))
    if missing:
        raise InputError(f"{missing[0]} is missing; copy the video again")
    return clips


def read_cutout(path: Path) -> Cutout | None:
    """Return the largest connected object of an image, or None if it is too small or fills the image.

    Raises:
        InputError: a file cannot be read, or the image and its mask differ in size.
    """
    image, mask = read_image(path), read_grey(path.with_suffix(".png")) >= OBJECT_FROM
    if image.shape[:2] != mask.shape:
        raise InputError(f"{path} and its mask differ in size; copy both again")
    return cut_out(image, mask)


def cut_out(image: np.ndarray, mask: np.ndarray) -> Cutout | None:
    """Return the largest connected part of a mask, with the image around it, or None if it cannot be pasted.

    It cannot be pasted if its box is small, if it fills most of the image, or if the border of the image cuts it: a
    straight edge would move through the video.

    Args:
        image: uint8 RGB [H,W,3].
        mask: bool [H,W].
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
