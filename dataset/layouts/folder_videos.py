"""Folders of videos without a list of their own: MOSE, LVOS, the long-time videos of AFB-URR, anybody's collection."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from dataset.files.images import PaintedMasks, image_size
from dataset.files.video import (
    FRAME_SUFFIXES,
    VIDEO_SUFFIXES,
    Video,
    check_mask_sizes,
    is_junk,
    list_frames,
    object_ids,
    read_sized_mask,
)
from dataset.layouts.folders import find_videos
from util.errors import InputError


@dataclass(frozen=True)
class FolderVideos:
    """The videos in two folders, ``images/<video>/<frame>.jpg`` (or .png, ...) and ``masks/<video>/<frame>.png``.

    Every folder in ``masks`` is a video. Every mask in this folder is given for the frame with its name.
    `dataset.files.masks` says what masks mean. Hidden files and folders, and ``__MACOSX``, are left out.

    Args:
        images: the folder of frames.
        masks: the folder of given masks. A mask may show new objects and known ones.
        truth: the folder of ground truth, ``<video>/<frame>.png``, or None. Videos and frames may be missing there.
        new_only: whether a mask gives only those objects that no earlier mask of the video shows. With it, ``masks``
            may be a folder of ground truth.
        every: the distance between the frames whose masks the results contain, from the first frame on.
        only_truth: whether the results contain only frames that have a mask in ``truth``.
    """

    images: Path
    masks: Path
    truth: Path | None = None
    new_only: bool = False
    every: int = 1
    only_truth: bool = False

    def videos(self, *, progress: bool = False) -> list[Video]:
        """Return the videos with their given masks, in the order of their names.

        Args:
            progress: show a progress bar on stderr.

        Raises:
            InputError: a folder cannot be read, ``masks`` holds no video, a video has no frames or no given mask, or a
                mask has no frame. With ``new_only`` also: a mask cannot be read or has another size than the frames.
                With ``only_truth`` also: a video has no ground truth.
        """
        names, missing = find_videos(self.images, self.masks)
        absent = set(missing)
        names = [name for name in names if self.masks / name not in absent]
        if not names:
            raise InputError(f"{self.masks} holds no folders; give each video a folder of masks, <video>/<frame>.png")
        for name in names:
            if self.images / name in absent:
                raise InputError(self._without_frames(name))
        hidden = None if progress else True  # None shows the bar only in terminals
        return [self._video(name) for name in tqdm(names, desc="listing", unit="video", disable=hidden)]

    def without_masks(self) -> list[str]:
        """Return the names of the folders in ``images`` that have no folder in ``masks``, in order.

        Raises:
            InputError: a folder cannot be read.
        """
        _, missing = find_videos(self.images, self.masks)
        return [folder.name for folder in missing if folder.parent == self.masks]

    def true_masks(self, video: str, frames: Sequence[Path]) -> dict[int, Path]:
        """Return the true masks of a video, by frame number, in order. Without ground truth there are none.

        Args:
            video: the name of the video.
            frames: the frames of the video.

        Raises:
            InputError: the folder of ground truth is missing, or a mask has no frame.
        """
        if self.truth is None:
            return {}
        if not self.truth.is_dir():
            raise InputError(f"{self.truth} is missing; give the folder of ground truth, or leave it out")
        if not (self.truth / video).is_dir() and (self.truth / "Annotations" / video).is_dir():
            raise InputError(f"{self.truth} holds its masks in Annotations; give {self.truth / 'Annotations'} as --gt")
        return _masks(self.truth / video, frames)

    def _video(self, name: str) -> Video:
        frames = list_frames(self.images / name)
        masks = _masks(self.masks / name, frames)
        if not masks:
            raise InputError(
                f"{self.masks / name} holds no mask; put the mask of a frame there, such as {frames[0].stem}.png"
            )
        wanted = None
        if self.only_truth:
            wanted = frozenset(self.true_masks(name, frames))
            if not wanted:
                raise InputError(f"{self.truth / name} holds no mask, so no frame is wanted; copy its masks there")
        elif self.every > 1:
            wanted = frozenset(range(0, len(frames), self.every))
        check_mask_sizes(masks.values(), image_size(frames[0]), name)
        video = Video(name, frames, masks, wanted=wanted, reader=PaintedMasks(masks.values()))
        if self.new_only:
            self._keep_new_objects(video)
        return video

    def _without_frames(self, name: str) -> str:
        """The message about a video that has masks, but no folder of frames."""
        files = sorted(
            path for path in self.images.glob(f"{glob.escape(name)}.*") if path.suffix.lower() in VIDEO_SUFFIXES
        )
        if files:
            return (
                f"{files[0]} is a video file, but this script reads folders of frames; unpack it, for example with "
                f"ffmpeg, or run segment_video.py on it"
            )
        return f"{self.images / name} is missing, but {self.masks / name} is there; copy the frames"

    def _keep_new_objects(self, video: Video) -> None:
        """Take the objects from the masks of a video that show known objects, and the masks that show nothing else."""
        known: set[int] = set()
        for number, path in sorted(video.masks.items()):
            new = sorted(set(object_ids(read_sized_mask(path, video.size, video.name, video.read_mask))) - known)
            known.update(new)
            if new:
                video.new_objects[number] = new
            else:
                del video.masks[number]
        if not known:
            raise InputError(f"{self.masks / video.name} holds no mask that shows an object; mark one in some mask")


def _masks(folder: Path, frames: Sequence[Path]) -> dict[int, Path]:
    """The masks in a folder by the number of the frame with the same name, in order; none if there is no folder.

    Raises:
        InputError: no frame has the name of a mask.
    """
    numbers = {frame.stem: number for number, frame in enumerate(frames)}
    masks: dict[int, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if is_junk(path.name) or path.suffix.lower() not in FRAME_SUFFIXES:
            continue
        if path.stem not in numbers:
            raise InputError(
                f"{path} is named like no frame in {frames[0].parent}; name each mask after its frame, such as "
                f"{frames[0].stem}.png"
            )
        number = numbers[path.stem]
        if number in masks:
            raise InputError(f"{masks[number]} and {path.name} are masks of one frame; leave one out")
        masks[number] = path
    return dict(sorted(masks.items()))
