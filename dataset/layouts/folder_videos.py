"""Folders of videos without a list of their own: MOSE, LVOS, the long-time videos of AFB-URR, anybody's collection."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from dataset.files.given_masks import ObjectMasks, absences, are_swapped, find_masks, images_in, read_given
from dataset.files.images import PaintedMasks, image_size
from dataset.files.video import (
    VIDEO_SUFFIXES,
    Video,
    check_mask_sizes,
    list_frames,
    object_ids,
    read_sized_mask,
    videos_inside,
)
from dataset.layouts.folders import annotated_folders, find_videos
from util.errors import InputError
from util.files import folders_near
from util.progress import hidden


@dataclass(frozen=True)
class FolderVideos:
    """The videos in two folders, ``images/<video>/<frame>.jpg`` (or .png, ...) and ``masks/<video>/<frame>.png``.

    Every folder in ``masks`` is a video. Every mask in this folder is given for the frame with its name; or each file
    is the binary mask of one object, as `dataset.files.given_masks.read_given` finds.
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

        Raises:
            InputError: a folder cannot be read, ``masks`` holds no video, a video has no frames or no given mask, or a
                mask has no frame; ``images`` and ``masks`` are swapped, or one is the root of a data set. With
                ``new_only`` also: a mask cannot be read or has another size than the frames; without it: every frame
                has a mask. With ``only_truth`` also: a video has no ground truth.
        """
        self._refuse_roots()
        names, missing = find_videos(self.images, self.masks)
        absent = set(missing)
        both = next((name for name in names if not absent & {self.images / name, self.masks / name}), None)
        if both and are_swapped(self.images / both, self.masks / both):
            raise InputError(f"{self.images} holds masks, and {self.masks} holds frames; swap --images and --masks")
        names = [name for name in names if self.masks / name not in absent]
        if not names:
            raise InputError(f"{self.masks} holds no folders; give each video a folder of masks, <video>/<frame>.png")
        for name in names:
            if self.images / name in absent:
                raise InputError(self._without_frames(name))
        self._refuse_other_truth(names)
        videos = [self._video(name) for name in tqdm(names, desc="listing", unit="video", disable=hidden(progress))]
        long = [video for video in videos if len(video.frames) > 1]
        if long and not self.new_only and all(_is_complete(video) for video in long):
            raise InputError(
                f"{self.masks} has a mask of every frame, so nothing is left to segment; add --new_only, which uses "
                "only the first mask of each object"
            )
        return videos

    def _refuse_roots(self) -> None:
        """Refuse the root of a data set, and name its folders of frames and masks."""
        splits = ("valid", "val", "test", "trainval", "train")
        for root in (self.images, self.masks):
            if found := annotated_folders(root, splits):
                raise InputError(
                    f"{root} is the root of a data set; give --images {found.images} --masks {found.masks}"
                )
        if self.truth and (found := annotated_folders(self.truth, splits)):
            raise InputError(f"{self.truth} is the root of a data set; give --gt {found.masks}")

    def _refuse_other_truth(self, names: Sequence[str]) -> None:
        """Refuse ground truth without a folder of any video, and name one near it that has."""
        if not self.truth or not self.truth.is_dir() or any((self.truth / name).is_dir() for name in names):
            return
        for near in folders_near(self.truth, 1, (1, 2, 3)):
            if any((near / name).is_dir() for name in names):
                raise InputError(f"{self.truth} holds no folder {names[0]}; give the folder of the videos, --gt {near}")
        raise InputError(f"{self.truth} holds no folder of any video; put the true masks into {self.truth / names[0]}")

    def without_masks(self) -> list[str]:
        """Return the names of the folders in ``images`` that have no folder in ``masks``, in order."""
        _, missing = find_videos(self.images, self.masks)
        return [folder.name for folder in missing if folder.parent == self.masks]

    def true_masks(self, video: str, frames: Sequence[Path]) -> dict[int, Path]:
        """Return the true masks of a video, by frame number, in order. Without ground truth there are none.

        Raises:
            InputError: the folder of ground truth is missing, or a mask has no frame.
        """
        if self.truth is None:
            return {}
        if not self.truth.is_dir():
            raise InputError(f"{self.truth} is missing; give the folder of ground truth, or leave it out")
        return _find_masks(self.truth / video, frames)[0]

    def _video(self, name: str) -> Video:
        try:
            frames = list_frames(self.images / name)
        except InputError:
            if right := videos_inside(self.images, name):
                raise InputError(f"{self.images / name} holds no images; give --images {right}") from None
            if any((self.images / name).glob("*/")):
                raise InputError(
                    f"{self.images / name} holds folders instead of images; put the frames of each video into a folder "
                    f"of {self.images}, <video>/<frame>.jpg"
                ) from None
            raise
        masks, objects = _find_masks(self.masks / name, frames)
        if not masks:
            raise InputError(
                f"{self.masks / name} holds no mask; put the mask of a frame there, such as {frames[0].stem}.png"
            )
        self._add_truth(name, frames, objects)
        wanted = None
        if self.only_truth:
            wanted = frozenset(self.true_masks(name, frames))
            if not wanted:
                raise InputError(f"{self.truth / name} holds no mask, so no frame is wanted; copy its masks there")
        elif self.every > 1:
            wanted = frozenset(range(0, len(frames), self.every))
        check_mask_sizes(masks.values(), image_size(frames[0]), name)
        reader = objects or PaintedMasks(masks.values())
        absent = {}
        if not self.new_only:
            masks, absent = absences(masks, reader)
        video = Video(name, frames, masks, wanted=wanted, absent=absent, reader=reader)
        if self.new_only:
            self._keep_new_objects(video)
        return video

    def _add_truth(self, name: str, frames: Sequence[Path], objects: ObjectMasks | None) -> None:
        """Let the reader of the given masks read the true ones where both have a file for each object."""
        truth = _find_masks(self.truth / name, frames)[1] if self.truth else None
        if truth and not objects:
            raise InputError(
                f"{self.truth / name} has a file for each object, but {self.masks / name} has not, so it is unclear "
                "which objects are the same; give both in one form"
            )
        if truth:
            objects.add_truth(truth)

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
        """Keep only the new objects of each mask of a video. Remove masks without a new object."""
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


def _is_complete(video: Video) -> bool:
    """Whether each frame has a given mask."""
    return len(video.reader.empty.union(video.masks.values())) == len(video.frames)


def _find_masks(folder: Path, frames: Sequence[Path]) -> tuple[dict[int, Path], ObjectMasks | None]:
    """The masks in a folder by the number of their frames, in order, and their reader if each object has a file."""
    names = {frame.stem for frame in frames}
    stems = {path.stem for path in images_in(folder)} if folder.is_dir() else set()
    if stems - names or (not stems and any(any(images_in(path)) for path in folder.glob("[!._]*/"))):
        check_mask_sizes(find_masks([folder]), image_size(frames[0]), folder.name)
        masks, reader = read_given([folder], folder.name, [frame.stem for frame in frames])
        if isinstance(reader, ObjectMasks):
            return masks, reader
    return _masks(folder, frames), None


def _masks(folder: Path, frames: Sequence[Path]) -> dict[int, Path]:
    """The masks in a folder by the number of the frame with the same name, in order; none if there is no folder."""
    numbers = {frame.stem: number for number, frame in enumerate(frames)}
    masks: dict[int, Path] = {}
    for path in images_in(folder) if folder.is_dir() else ():
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
