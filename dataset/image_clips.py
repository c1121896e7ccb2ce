"""Training clips made from static images by synthetic motion, for stage 0 (the paper, Section 4.2)."""

import math
from pathlib import Path

import cv2
import numpy as np
import torch

from dataset.augmentation import static_transforms, transforms_around_object
from dataset.images import image_size, read_grey, read_image, resize_mask
from dataset.sample import MAX_TRIES, make_sample
from dataset.static import OBJECT_FROM, find_images
from util.errors import InputError

FRAMES = 3
# The augmentation enlarges an image at most 1.5 × 1.1 times. A larger image than this many crop sizes on its short side
# has details that no crop shows.
_MOST_DETAIL = 1.5 * 1.1


class ImageClips:
    """Clips of 3 frames and 1 object. Each image of a folder gives one clip in an epoch.

    An image ``<name>.jpg`` shows one object. Its mask ``<name>.png`` lies beside it. The mask is grey, and values from
    128 up are the object.

    Args:
        folder: the folder that holds the images and masks.
        crop_size: the side of the square crops, in pixels.
        nested: whether the files lie in subfolders of ``folder``, one for each class of objects.

    Raises:
        InputError: an image has no mask, a mask has no image, or there are no images.
    """

    def __init__(self, folder: Path, *, crop_size: int, nested: bool = False) -> None:
        self.name = folder.name
        self.crop_size = crop_size
        self.images, missing = find_images(folder, nested=nested)
        if missing:
            present = missing[0].with_suffix(".png" if missing[0].suffix == ".jpg" else ".jpg")
            raise InputError(
                f"{missing[0]} is missing, {present.name} needs it ({len(missing)} such files in {folder})"
            )
        if not self.images:
            raise InputError(f"{folder} holds no images (<name>.jpg); check how the data set was unpacked")

    def __len__(self) -> int:
        return len(self.images)

    def sample(self, index: int, rng: np.random.Generator, progress: float) -> dict[str, torch.Tensor | str]:
        """Make a clip from image number ``index``.

        Args:
            index: the number of the image, from 0.
            rng: makes all random choices.
            progress: has no effect, because these clips are alike in all of training.

        Returns:
            A sample with 3 frames and 1 object slot, as `make_sample` describes it.

        Raises:
            InputError: a file cannot be read, image and mask differ in size, or the mask shows no object.
        """
        path = self.images[index]
        image, mask = self._read(path)
        for _ in range(MAX_TRIES):
            transforms = static_transforms(rng, *mask.shape, size=self.crop_size, frames=FRAMES)
            if transforms[0].warp.mask(mask).any():
                break
        else:
            transforms = transforms_around_object(rng, mask, size=self.crop_size, frames=FRAMES)
        name = f"{self.name}: {path.stem}"
        return make_sample([(image, mask)] * FRAMES, transforms, [1], slots=1, rng=rng, name=name)

    def _read(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Return an image, uint8 RGB [H,W,3], and its mask, uint8 0/1 [H,W].

        Large images are made smaller. The mask shows an object, also if the object is very small.
        """
        mask_path = path.with_suffix(".png")
        mask = read_grey(mask_path)
        if image_size(path) != mask.shape:
            raise InputError(f"{path} and {mask_path.name} differ in size; copy or download the pair again")
        mask = (mask >= OBJECT_FROM).astype(np.uint8)
        if not mask.any():
            raise InputError(
                f"{mask_path} shows no object (no value of {OBJECT_FROM} or more); remove it and its image"
            )
        # Some images are high-resolution photographs. To make one smaller once takes far less time than to warp the
        # large image three times.
        short = math.ceil(_MOST_DETAIL * self.crop_size)
        image = read_image(path, least_side=short)
        if min(mask.shape) > short:
            height, width = (round(side * short / min(mask.shape)) for side in mask.shape)
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            mask = resize_mask(mask, (height, width))
        return image, mask
