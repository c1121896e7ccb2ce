"""Training clips from annotated videos: BL30K, YouTube-VOS, DAVIS and the user's own (the paper, Section 4.2)."""

from collections.abc import Sequence

import numpy as np
import torch

from dataset.layouts.folders import Pair, VideoFolders, find_videos, remedy_without_masks, step_in_names
from dataset.samples.augmentation import FrameTransform, transforms_around_object, video_transforms
from dataset.samples.sample import MAX_TRIES, make_sample, visible_objects
from util.errors import InputError

MAX_OBJECTS = 2


class VideoClips:
    """Clips with up to 2 objects. Each video yields one clip per epoch.

    Args:
        crop_size: the side of the square crops, in pixels.
        last_change: see `largest_gap`.
    """

    unit = "videos"

    def __init__(self, folders: VideoFolders, *, crop_size: int, frames: int = 5, last_change: float = 0.9) -> None:
        self.name, self.folders = folders.name, folders
        listed = folders.listed()
        for root in (folders.images, folders.masks):
            if not root.is_dir():
                raise InputError(f"{root} is missing; {folders.remedy}")
        self.videos, missing = find_videos(folders.images, folders.masks, listed)
        if not self.videos:
            raise InputError(f"{folders.masks} holds no videos; check how {folders.name} was unpacked")
        if missing:
            raise InputError(f"{missing[0]} is missing ({len(missing)} such folders); copy {folders.name} again")
        self.crop_size = crop_size
        self.frames = frames
        self.last_change = last_change

    def __len__(self) -> int:
        return len(self.videos)

    def sample(self, index: int, rng: np.random.Generator, progress: float) -> dict[str, torch.Tensor | str]:
        """Make a clip with ``frames`` frames and 2 object slots from a video, see `SampleSource`.

        All objects of the clip are visible in its first frame and cover at least ``min_area`` of its crop. If there
        are more than two such objects, two of them are chosen at random. If random crops show no such object, the
        first frame shows an object of any size.
        """
        video = self.videos[index]
        annotated = self._annotated(video)
        step = self.folders.annotation_step or step_in_names(annotated)
        max_gap = largest_gap(progress, last_change=self.last_change, annotation_step=step)
        clip, transforms, visible = self._choose(video, annotated, max_gap, rng)
        objects = rng.permutation(visible)[:MAX_OBJECTS]
        frames = [annotated[place] for place in clip]
        name = f"{self.name}: {video} {' '.join(frame.image.stem for frame in frames)}"
        read = (frame.read(self.folders.read_ids) for frame in frames)
        return make_sample(read, transforms, objects, slots=MAX_OBJECTS, rng=rng, name=name)

    def _choose(
        self, video: str, annotated: Sequence[Pair], max_gap: int, rng: np.random.Generator
    ) -> tuple[Sequence[int], list[FrameTransform], np.ndarray]:
        """Choose a clip at random.

        Returns:
            The places of the clip's frames in ``annotated``, the augmentation of each frame, and the ids of the objects
            that are visible in the first frame.
        """
        shape = {"size": self.crop_size, "frames": self.frames}
        for _ in range(MAX_TRIES):
            clip = choose_clip(rng, len(annotated), frames=self.frames, max_gap=max_gap)
            ids = self.folders.read_ids(annotated[clip[0]].mask)
            transforms = video_transforms(rng, *ids.shape, **shape, crop_area=(self.folders.crop_area, 1.0))
            visible = visible_objects(transforms[0].warp.mask(ids), self.folders.min_area)
            if len(visible):
                return clip, transforms, visible
        # The objects of this video are small, rare or near the border. Search for a frame that shows an object. Use
        # this frame and the following ones, cropped around the object and without augmentation.
        for first in rng.permutation(len(annotated)):
            ids = self.folders.read_ids(annotated[first].mask)
            if ids.any():
                transforms = transforms_around_object(rng, ids, **shape)
                visible = visible_objects(transforms[0].warp.mask(ids))
                return _bounce(first + np.arange(self.frames), len(annotated)), transforms, visible
        raise InputError(
            f"{self.folders.masks / video} shows no object in any frame; remove the video from both folders"
        )

    def _annotated(self, video: str) -> list[Pair]:
        """Return the video's annotated frames in order.

        They are listed on demand, because BL30K has five million frames.
        """
        frames, missing = self.folders.frames(video)
        if missing:
            raise InputError(f"{missing[0]} is missing; copy {self.name} again")
        if not frames:
            remedy = remedy_without_masks(self.folders.masks / video, f"copy {self.name} again")
            raise InputError(f"{self.folders.masks / video} holds no masks (<frame>.png); {remedy}")
        return frames


def largest_gap(progress: float, *, last_change: float = 0.9, annotation_step: int = 1) -> int:
    """Return the largest gap between consecutive frames of a clip, in annotated frames.

    The paper does not state it; this is the schedule of the release. If every frame has a mask, the gap starts at 6 and
    grows to 26, so that clips become harder. At the end it is 6 again, because the frames of test videos are close to
    each other. On YouTube-VOS, with a mask for every fifth frame, these are 2, 6 and 2 annotated frames.

    Args:
        progress: the finished fraction of training, 0 to 1.
        last_change: the fraction of training after which the gap is small again.
        annotation_step: the distance between annotated frames, in frames of the original video.
    """
    growth = 0 if progress >= last_change else sum(progress >= change for change in (0.1, 0.2, 0.3, 0.4))
    return 5 * (1 + growth) // annotation_step + 1


def choose_clip(rng: np.random.Generator, length: int, *, frames: int, max_gap: int) -> Sequence[int]:
    """Choose the frames of a clip at random.

    Half of all clips run backwards. In a short video the gaps are smaller. If the video has fewer frames than the
    clip, the clip steps through every frame and reverses at both ends of the video.

    Args:
        max_gap: the largest distance between consecutive frames of the clip. The smallest distance is 1.

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
    """Map places 0, 1, 2, ... to frames of a video that is played forwards and backwards repeatedly."""
    places = places % max(1, 2 * (length - 1))
    return np.minimum(places, 2 * (length - 1) - places)
