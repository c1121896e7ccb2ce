"""Clips made of single images by synthetic deformation: the first training stage."""

import math
from pathlib import Path

import cv2
import numpy as np
import torch

from dataset.augmentation import plain_transforms, static_transforms
from dataset.images import image_size, read_grey, read_image
from dataset.sample import MAX_TRIES, make_sample, visible_objects
from util.errors import InputError

FRAMES = 3
OBJECT_FROM = 128  # the grey value from which a mask's pixel belongs to the object
# The augmentation enlarges by at most 1.5 × 1.1: a short side of that many crops has all the detail that can be seen.
_MOST_DETAIL = 1.5 * 1.1


class StaticImages:
    """Images ``<name>.jpg`` of one object each, with masks ``<name>.png`` (grey, object from 128 up) beside them.

    Args:
        folder: holds the files, or with ``nested`` one folder of them for each class.
        crop_size: side of the crops in pixels.

    Raises:
        InputError: an image or a mask has no counterpart, or there are none at all.
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
        """A clip of 3 frames and 1 object slot (`make_sample` has the format), the same in all of training.

        Raises:
            InputError: a file cannot be read, image and mask differ in size, or the mask is empty.
        """
        path = self.images[index]
        image, mask = self._read(path)
        for _ in range(MAX_TRIES):
            transforms = static_transforms(rng, *mask.shape, size=self.crop_size, frames=FRAMES)
            if len(visible_objects(transforms[0].warp.mask(mask))):
                break
        else:
            transforms = plain_transforms(*mask.shape, size=self.crop_size, frames=FRAMES)
            if not len(visible_objects(transforms[0].warp.mask(mask), any_size=True)):
                raise InputError(
                    f"{path.with_suffix('.png')} shows no object (no value of {OBJECT_FROM} or more); "
                    "remove it and its image"
                )
        name = f"{self.name}: {path.stem}"
        return make_sample([(image, mask)] * FRAMES, transforms, [1], slots=1, rng=rng, name=name)

    def _read(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        mask_path = path.with_suffix(".png")
        mask = read_grey(mask_path)
        if image_size(path) != mask.shape:
            raise InputError(f"{path} and {mask_path.name} differ in size; copy or download the pair again")
        # High-resolution photographs: three warps of one cost far more than making it smaller once.
        short = math.ceil(_MOST_DETAIL * self.crop_size)
        image = read_image(path, least_side=short)
        if min(mask.shape) > short:
            height, width = (round(side * short / min(mask.shape)) for side in mask.shape)
            image, mask = (cv2.resize(array, (width, height), interpolation=cv2.INTER_AREA) for array in (image, mask))
        return image, (mask >= OBJECT_FROM).astype(np.uint8)


def find_images(folder: Path, *, nested: bool = False) -> tuple[list[Path], list[Path]]:
    """The images ``<name>.jpg`` with a mask ``<name>.png``, and the files that are missing beside one of the two.

    With ``nested`` they lie in folders of ``folder``.
    """
    pattern = "*/[!.]*" if nested else "[!.]*"
    images, masks = (set(folder.glob(f"{pattern}{suffix}")) for suffix in (".jpg", ".png"))
    expected = {mask.with_suffix(".jpg") for mask in masks}
    missing = sorted([*(expected - images), *(image.with_suffix(".png") for image in images - expected)])
    return sorted(images & expected), missing
