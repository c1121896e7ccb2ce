"""Training clips from annotated videos: BL30K, YouTube-VOS and DAVIS (the paper, Section 4.2)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from dataset.augmentation import FrameTransform, transforms_around_object, video_transforms
from dataset.folders import find_frames, find_videos
from dataset.images import read_image, read_mask
from dataset.sample import MAX_TRIES, make_sample, visible_objects
from util.errors import InputError

MAX_OBJECTS = 2


class VideoClips:
    """Clips of some frames and up to 2 objects. Each video gives one clip in an epoch.

    Args:
        name: the name of the data set, for messages.
        images: the folder that holds the frames, ``<video>/<frame>.jpg``.
        masks: the folder that holds the object ids, ``<video>/<frame>.png``.
        videos: the names of the videos. By default these are all videos in ``masks``.
        crop_size: the side of the square crops, in pixels.
        frames: the number of frames in a clip.
        crop_area: the smallest share of a frame's area that a crop covers, 0 to 1.
        least_area: the share of a crop, 0 to 1, that an object must cover to be used. With 0 one pixel is enough.
        annotation_step: the distance between annotated frames, in frames of the original video. Only annotated frames
            are used. If the step is 1, every frame must have a mask.
        last_change: the share of training (0 to 1) after which the gaps between frames are small again, see
            `largest_gap`.

    Raises:
        InputError: a folder is missing, or there are no videos.
    """

    def __init__(
        self,
        name: str,
        images: Path,
        masks: Path,
        videos: Sequence[str] | None = None,
        *,
        crop_size: int,
        frames: int = 5,
        crop_area: float = 0.36,
        least_area: float = 0.0,
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
        self.frames = frames
        self.crop_area = (crop_area, 1.0)
        self.least_area = least_area
        self.annotation_step = annotation_step
        self.last_change = last_change

    def __len__(self) -> int:
        return len(self.videos)

    def sample(self, index: int, rng: np.random.Generator, progress: float) -> dict[str, torch.Tensor | str]:
        """Make a clip from video number ``index``.

        All objects of the clip are visible in its first frame and cover at least ``least_area`` of its crop. If there
        are more than two such objects, two of them are chosen at random. If random crops show no such object, the
        first frame shows an object of any size.

        Args:
            index: the number of the video, from 0.
            rng: makes all random choices.
            progress: the share of training that is over, 0 to 1.

        Returns:
            A sample with ``frames`` frames and 2 object slots, as `make_sample` describes it.

        Raises:
            InputError: a file cannot be read, a frame and its mask differ in size, a frame has no mask, or the video
                has no object.
        """
        video = self.videos[index]
        stems = self._annotated(video)
        max_gap = largest_gap(progress, last_change=self.last_change, annotation_step=self.annotation_step)
        clip, transforms, visible = self._choose(video, stems, max_gap, rng)
        objects = rng.permutation(visible)[:MAX_OBJECTS]
        frames = [stems[place] for place in clip]
        pairs = (self._read(video, frame) for frame in frames)
        name = f"{self.name}: {video} {' '.join(frames)}"
        return make_sample(pairs, transforms, objects, slots=MAX_OBJECTS, rng=rng, name=name)

    def _choose(
        self, video: str, stems: Sequence[str], max_gap: int, rng: np.random.Generator
    ) -> tuple[Sequence[int], list[FrameTransform], np.ndarray]:
        """Choose a clip at random.

        Returns:
            The places of the clip's frames in ``stems``, the augmentation of each frame, and the ids of the objects
            that are visible in the first frame.
        """
        shape = {"size": self.crop_size, "frames": self.frames}
        for _ in range(MAX_TRIES):
            clip = choose_clip(rng, len(stems), frames=self.frames, max_gap=max_gap)
            ids = read_mask(self.mask_root / video / f"{stems[clip[0]]}.png")
            transforms = video_transforms(rng, *ids.shape, **shape, crop_area=self.crop_area)
            visible = visible_objects(transforms[0].warp.mask(ids), self.least_area)
            if len(visible):
                return clip, transforms, visible
        # The objects of this video are small, rare or near the border. Look for any frame that shows one, and use
        # this frame and those after it, around the object and without augmentation.
        for first in rng.permutation(len(stems)):
            ids = read_mask(self.mask_root / video / f"{stems[first]}.png")
            if ids.any():
                transforms = transforms_around_object(rng, ids, **shape)
                visible = visible_objects(transforms[0].warp.mask(ids))
                return _bounce(first + np.arange(self.frames), len(stems)), transforms, visible
        raise InputError(f"{self.mask_root / video} shows no object in any frame; remove the video from both folders")

    def _read(self, video: str, frame: str) -> tuple[np.ndarray, np.ndarray]:
        """Return a frame, uint8 RGB [H,W,3], and its object ids, uint8 [H,W]."""
        image_path, mask_path = self.image_root / video / f"{frame}.jpg", self.mask_root / video / f"{frame}.png"
        image, ids = read_image(image_path), read_mask(mask_path)
        if image.shape[:2] != ids.shape:
            raise InputError(f"{image_path} and {mask_path} differ in size; make or copy both again at the same size")
        return image, ids

    def _annotated(self, video: str) -> list[str]:
        """Return the names of the video's annotated frames in order.

        The frames are listed only when they are needed, because BL30K has five million.
        """
        frames, missing = find_frames(
            self.image_root / video, self.mask_root / video, annotation_step=self.annotation_step
        )
        if missing:
            raise InputError(f"{missing[0]} is missing; copy {self.name} again")
        if not frames:
            raise InputError(f"{self.mask_root / video} holds no masks (<frame>.png); copy {self.name} again")
        return frames


def largest_gap(progress: float, *, last_change: float = 0.9, annotation_step: int = 1) -> int:
    """Return the largest gap between neighbouring frames of a clip, in annotated frames (the paper, Section 4.2).

    In a video with a mask for every frame, the gap starts at 6 and grows to 26, so that clips become harder. At the
    end it is 6 again, because the frames of test videos are close to each other. For YouTube-VOS, with a mask for
    every fifth frame, these are 2, 6 and 2 annotated frames.

    Args:
        progress: the share of training that is over, 0 to 1.
        last_change: the share of training after which the gap is small again.
        annotation_step: the distance between annotated frames, in frames of the original video.
    """
    growth = 0 if progress >= last_change else sum(progress >= change for change in (0.1, 0.2, 0.3, 0.4))
    return 5 * (1 + growth) // annotation_step + 1


def choose_clip(rng: np.random.Generator, length: int, *, frames: int, max_gap: int) -> Sequence[int]:
    """Choose the frames of a clip at random.

    Half of all clips run backwards. In a short video the gaps are smaller. If the video has fewer frames than the
    clip, the clip takes every frame in turn, and changes direction at both ends of the video.

    Args:
        rng: makes all random choices.
        length: the number of frames in the video.
        frames: the number of frames in the clip.
        max_gap: the largest distance between neighbouring frames of the clip. The smallest distance is 1.

    Returns:
        The places of the clip's frames in the video, 0 to ``length`` - 1.
    """
    if length < frames:
        clip = _bounce(rng.integers(length) + np.arange(frames), length)
    else:
        room = length - 1
        gaps = []
        for gaps_left in range(frames - 2, -1, -1):
            gaps.append(rng.integers(1, min(max_gap, room - gaps_left), endpoint=True))
            room -= gaps[-1]
        rng.shuffle(gaps)  # in a short video the gaps chosen first tend to be the largest
        clip = rng.integers(room, endpoint=True) + np.cumsum([0, *gaps])
    return clip[::-1] if rng.random() < 0.5 else clip


def _bounce(places: np.ndarray, length: int) -> np.ndarray:
    """Map places 0, 1, 2, ... to frames of a video that is played forwards and backwards again and again."""
    places = places % max(1, 2 * (length - 1))
    return np.minimum(places, 2 * (length - 1) - places)
