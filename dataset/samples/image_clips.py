"""Training clips from static images with synthetic motion, for stage 0 (the paper, Section 4.2)."""

import math

import cv2
import numpy as np
import torch

from dataset.files.images import image_size, read_image, resize_mask
from dataset.layouts.folders import Pair
from dataset.layouts.static import ImageFolder, find_images, read_object
from dataset.samples.augmentation import static_transforms, transforms_around_object
from dataset.samples.sample import MAX_TRIES, make_sample
from util.errors import InputError

FRAMES = 3
# The augmentation enlarges an image by a factor of at most 1.5 × 1.1. If an image's short side exceeds the crop size by
# more than this factor, it has details that no crop shows.
_MOST_DETAIL = 1.5 * 1.1


class ImageClips:
    """Clips of 3 frames and 1 object. Each image of a data set yields one clip per epoch.

    An image shows one object, which its mask marks; see `dataset.layouts.static.find_images` and `read_object`.

    Args:
        crop_size: the side of the square crops, in pixels.
    """

    unit = "images"

    def __init__(self, folder: ImageFolder, *, crop_size: int) -> None:
        self.name = folder.name
        self.crop_size = crop_size
        self.pairs, missing = find_images(folder.path)
        if missing:
            raise InputError(
                f"{missing[0]} is missing ({len(missing)} such files in {folder.path}); copy it again, or remove its "
                "other half"
            )
        if not self.pairs:
            raise InputError(
                f"{folder.path} holds no images with masks; put <name>.png beside <name>.jpg, or into a folder masks "
                "beside the folder images"
            )

    def __len__(self) -> int:
        return len(self.pairs)

    def sample(self, index: int, rng: np.random.Generator, progress: float) -> dict[str, torch.Tensor | str]:
        """Make a clip of 3 frames and 1 object slot from an image, see `SampleSource`; ``progress`` does not matter."""
        pair = self.pairs[index]
        image, mask = self._read(pair)
        for _ in range(MAX_TRIES):
            transforms = static_transforms(rng, *mask.shape, size=self.crop_size, frames=FRAMES)
            if transforms[0].warp.mask(mask).any():
                break
        else:
            transforms = transforms_around_object(rng, mask, size=self.crop_size, frames=FRAMES)
        name = f"{self.name}: {pair.image.stem}"
        return make_sample([(image, mask)] * FRAMES, transforms, [1], slots=1, rng=rng, name=name)

    def _read(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        """Return an image, uint8 RGB [H,W,3], and its mask, uint8 0/1 [H,W].

        Large images are downscaled. The mask shows an object, even if the object is very small.
        """
        mask = read_object(pair.mask)
        if image_size(pair.image) != mask.shape:
            raise InputError(f"{pair.image} and {pair.mask} differ in size; copy or download the pair again")
        if not mask.any():
            raise InputError(f"{pair.mask} shows no object; remove it and its image")
        # Some images are high-resolution photographs. Downscaling one once is far faster than warping it three times.
        short = math.ceil(_MOST_DETAIL * self.crop_size)
        image = read_image(pair.image, least_side=short)
        if min(mask.shape) > short:
            height, width = (round(side * short / min(mask.shape)) for side in mask.shape)
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            mask = resize_mask(mask, (height, width))
        return image, mask
