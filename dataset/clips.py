"""Clips from annotated videos: BL30K, YouTube-VOS and DAVIS."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dataset.augmentation import FrameTransform, plain_transforms, video_transforms
from dataset.images import read_image, read_mask
from dataset.sample import MAX_TRIES, make_sample, visible_objects
from dataset.video import frame_order, read_names
from util.errors import InputError

FRAMES = 5
MAX_OBJECTS = 2


@dataclass(frozen=True)
class VideoFolders:
    """Where the videos of a training stage lie, whether or not they are there.

    Attributes:
        name: of the data set, for messages.
        images, masks, annotation_step: as in `VideoClips`.
        remedy: what to do where something is missing.
        split: lists the videos' names; without one, all are meant.
        repeats: how often a video counts in an epoch.
    """

    name: str
    images: Path
    masks: Path
    remedy: str
    split: Path | None = None
    annotation_step: int = 1
    repeats: int = 1

    def listed(self) -> list[str] | None:
        """The videos that the split names, or None without a split.

        Raises:
            InputError: the split cannot be read.
        """
        return None if self.split is None else read_names(self.split, self.remedy)


class VideoClips:
    """Clips of 5 frames and up to 2 objects; one from each video in an epoch.

    Args:
        name: of the data set, for messages.
        images: holds ``<video>/<frame>.jpg``.
        masks: holds ``<video>/<frame>.png``, object ids.
        videos: the videos' names; all in ``masks`` by default.
        crop_size: side of the crops in pixels.
        crop_area: the least share of a frame's area that a crop covers.
        annotation_step: how many frames of the video lie between annotations. Only annotated frames are used; where
            it is 1, every frame must be.
        last_change: the training progress at which the curriculum of gaps goes back to its start.

    Raises:
        InputError: a folder is missing or there are no videos.
    """

    def __init__(
        self,
        name: str,
        images: Path,
        masks: Path,
        videos: Sequence[str] | None = None,
        *,
        crop_size: int,
        crop_area: float = 0.36,
        annotation_step: int = 1,
        last_change: float = 0.9,
    ) -> None:
        self.name = name
        self.image_root, self.mask_root = images, masks
        self.videos, missing = find_videos(images, masks, videos)
        if not self.videos:
            raise InputError(f"{masks} holds no videos; check how {name} was unpacked")
        if missing:
            raise InputError(f"{missing[0]} is missing ({len(missing)} such folders); copy {name} again")
        self.crop_size = crop_size
        self.crop_area = (crop_area, 1.0)
        self.annotation_step = annotation_step
        self.last_change = last_change

    def __len__(self) -> int:
        return len(self.videos)

    def sample(self, index: int, rng: np.random.Generator, progress: float) -> dict[str, torch.Tensor | str]:
        """A clip of 5 frames and 2 object slots (`make_sample` has the format) at this share of training (0 to 1).

        Its first frame shows every object that it has. Objects of a reasonable size are preferred; of more than two,
        two are drawn.

        Raises:
            InputError: a file cannot be read, a frame and its mask differ in size, a frame lacks its mask, or the
                video has no object.
        """
        video = self.videos[index]
        stems = self._annotated(video)
        max_gap = max(1, largest_gap(progress, self.last_change) // self.annotation_step)
        clip, transforms, visible = self._draw(video, stems, max_gap, rng)
        objects = rng.permutation(visible)[:MAX_OBJECTS]
        frames = [stems[place] for place in clip]
        pairs = (self._read(video, frame) for frame in frames)
        name = f"{self.name}: {video} {' '.join(frames)}"
        return make_sample(pairs, transforms, objects, slots=MAX_OBJECTS, rng=rng, name=name)

    def _draw(
        self, video: str, stems: Sequence[str], max_gap: int, rng: np.random.Generator
    ) -> tuple[Sequence[int], list[FrameTransform], np.ndarray]:
        """A clip (places in ``stems``), its augmentation, and the objects seen in its first frame."""
        shape = {"size": self.crop_size, "frames": FRAMES}
        for _ in range(MAX_TRIES):
            clip = draw_clip(rng, len(stems), frames=FRAMES, max_gap=max_gap)
            ids = read_mask(self.mask_root / video / f"{stems[clip[0]]}.png")
            transforms = video_transforms(rng, *ids.shape, **shape, crop_area=self.crop_area)
            visible = visible_objects(transforms[0].warp.mask(ids))
            if len(visible):
                return clip, transforms, visible
        # Objects that are small, rare or near the border: the whole of any frame that shows one, and what follows it.
        for first in rng.permutation(len(stems)):
            ids = read_mask(self.mask_root / video / f"{stems[first]}.png")
            transforms = plain_transforms(*ids.shape, **shape)
            visible = visible_objects(transforms[0].warp.mask(ids), any_size=True)
            if len(visible):
                return _bounce(first + np.arange(FRAMES), len(stems)), transforms, visible
        raise InputError(f"{self.mask_root / video} shows no object in any frame; remove the video from both folders")

    def _read(self, video: str, frame: str) -> tuple[np.ndarray, np.ndarray]:
        image_path, mask_path = self.image_root / video / f"{frame}.jpg", self.mask_root / video / f"{frame}.png"
        image, ids = read_image(image_path), read_mask(mask_path)
        if image.shape[:2] != ids.shape:
            raise InputError(f"{image_path} and {mask_path} differ in size; make or copy both again at the same size")
        return image, ids

    def _annotated(self, video: str) -> list[str]:
        """The names of the video's annotated frames in order, listed when needed: BL30K has five million."""
        frames, missing = find_frames(
            self.image_root / video, self.mask_root / video, annotation_step=self.annotation_step
        )
        if missing:
            raise InputError(f"{missing[0]} is missing; copy {self.name} again")
        if not frames:
            raise InputError(f"{self.mask_root / video} holds no masks (<frame>.png); copy {self.name} again")
        return frames


def find_videos(images: Path, masks: Path, videos: Sequence[str] | None = None) -> tuple[list[str], list[Path]]:
    """These videos (by default all that have a folder in either root), and which of their folders are missing.

    Raises:
        InputError: a root is missing.
    """
    with_images, with_masks = _folders(images), _folders(masks)
    videos = sorted(with_images | with_masks if videos is None else videos)
    missing = [images / video for video in videos if video not in with_images]
    return videos, missing + [masks / video for video in videos if video not in with_masks]


def find_frames(images: Path, masks: Path, *, annotation_step: int = 1) -> tuple[list[str], list[Path]]:
    """The names of a video's frames that have image and mask, in order, and the files that lack a counterpart.

    Args:
        images: the video's frames, ``<frame>.jpg``.
        masks: the video's masks, ``<frame>.png``.
        annotation_step: images need a mask where it is 1; masks always need their image.

    Raises:
        InputError: a folder cannot be read.
    """
    shown, annotated = _stems(images, ".jpg"), _stems(masks, ".png")
    missing = [images / f"{frame}.jpg" for frame in sorted(annotated - shown)]
    if annotation_step == 1:
        missing += [masks / f"{frame}.png" for frame in sorted(shown - annotated)]
    return sorted(annotated & shown, key=frame_order), missing


def largest_gap(progress: float, last_change: float = 0.9) -> int:
    """The largest gap between neighbouring frames of a clip after this share of training (0 to 1).

    5, growing to 25 while training still learns, and 5 again at the end, where clips should be like test videos.
    """
    if progress >= last_change:
        return 5
    return 5 + 5 * sum(progress >= change for change in (0.1, 0.2, 0.3, 0.4))


def draw_clip(rng: np.random.Generator, length: int, *, frames: int, max_gap: int) -> Sequence[int]:
    """Draw ``frames`` places in a video of ``length``, neighbours 1 to ``max_gap`` apart; backwards half of the time.

    Where the video is too short for its gaps they shrink; with fewer than ``frames`` frames, the clip goes from one
    frame to the next and turns round at the ends.
    """
    if length < frames:
        clip = _bounce(rng.integers(length) + np.arange(frames), length)
    else:
        room = length - 1
        gaps = []
        for gaps_left in range(frames - 2, -1, -1):
            gaps.append(rng.integers(1, min(max_gap, room - gaps_left), endpoint=True))
            room -= gaps[-1]
        rng.shuffle(gaps)  # in a short video the first drawn are the largest
        clip = rng.integers(room, endpoint=True) + np.cumsum([0, *gaps])
    return clip[::-1] if rng.random() < 0.5 else clip


def _bounce(places: np.ndarray, length: int) -> np.ndarray:
    """Fold places 0, 1, 2, ... into a video that is played forwards and backwards over and over."""
    places = places % max(1, 2 * (length - 1))
    return np.minimum(places, 2 * (length - 1) - places)


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
