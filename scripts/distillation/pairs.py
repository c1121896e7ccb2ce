"""Pairs of images that show the same things: two frames of a video, or two crops of an image."""

import numpy as np
import torch

from dataset.augmentation import FrameTransform, recolour, static_transforms, video_transforms
from dataset.images import read_image
from pasting import Sources

_LONGEST_GAP = 20  # frames between the two of a video
_CROP_AREA = (0.15, 1.0)  # of a frame


class FramePairs:
    """A pair for every frame of the videos and for every image, each once in an epoch. Masks are not used.

    Args:
        sources: the videos and the images.
        crop_size: the side of the square crops, in pixels.
    """

    name = "pairs of frames and of crops"
    unit = "frames and images"

    def __init__(self, sources: Sources, *, crop_size: int) -> None:
        self.crop_size = crop_size
        self.frames = [(video, number) for video in sources.videos for number in range(len(video.frames))]
        self.stills = sources.images

    def __len__(self) -> int:
        return len(self.frames) + len(self.stills)

    def sample(self, index: int, rng: np.random.Generator, progress: float) -> dict[str, torch.Tensor | str]:
        """Make the pair of frame or image number ``index``.

        Args:
            index: the number of the frame, or after all frames that of the image.
            rng: makes all random choices.
            progress: ignored, because pairs do not change during training.

        Returns:
            A dictionary with ``images``, uint8 RGB [2,3,S,S], and ``name``.

        Raises:
            InputError: a file cannot be read.
        """
        if index < len(self.frames):
            video, first = self.frames[index]
            second = np.clip(first + rng.integers(-_LONGEST_GAP, _LONGEST_GAP + 1), 0, len(video.frames) - 1)
            paths = [video.frames[number].image for number in (first, second)]
        else:
            paths = [self.stills[index - len(self.frames)].image] * 2
        images = [read_image(path) for path in paths]
        transforms = self._transforms(rng, *images[0].shape[:2], still=paths[0] == paths[1])
        crops = [
            recolour(transform.warp.image(image), transform.colour).transpose(2, 0, 1)
            for image, transform in zip(images, transforms, strict=True)
        ]
        return {"images": torch.from_numpy(np.stack(crops)), "name": str(paths[0])}

    def _transforms(self, rng: np.random.Generator, height: int, width: int, *, still: bool) -> list[FrameTransform]:
        shape = {"size": self.crop_size, "frames": 2}
        if still:
            return static_transforms(rng, height, width, **shape)
        return video_transforms(rng, height, width, **shape, crop_area=_CROP_AREA)
