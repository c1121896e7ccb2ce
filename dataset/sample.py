"""One training sample, from the source frames and masks of a clip."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import torch

from dataset.augmentation import FrameTransform, recolour
from dataset.images import to_tensor
from dataset.perturbation import perturb_mask

# How often an augmentation is drawn again because no object is in the first frame's crop.
MAX_TRIES = 10
# An object smaller than this share of the crop gives the memory too little to go by.
_LEAST_AREA = 1e-3

# float32 [3,256]: what `to_tensor` makes of each 8-bit value in each channel.
_NORMALISED = to_tensor(np.arange(256, dtype=np.uint8)[:, None, None].repeat(3, axis=2))[..., 0].numpy()


def visible_objects(ids: np.ndarray, *, any_size: bool = False) -> np.ndarray:
    """The object ids in a crop of ids [S,S] that cover a reasonable area of it, or any area at all."""
    areas = np.bincount(ids.ravel(), minlength=256)
    areas[0] = 0
    return np.flatnonzero(areas >= (1 if any_size else max(1, _LEAST_AREA * ids.size)))


def make_sample(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]],
    transforms: Sequence[FrameTransform],
    objects: Sequence[int],
    *,
    slots: int,
    rng: np.random.Generator,
    name: str,
) -> dict[str, torch.Tensor | str]:
    """Transform a clip of T frames and lay its objects out in slots.

    Args:
        pairs: T images, uint8 RGB [H,W,3], each with its object ids, uint8 [H,W].
        transforms: T of them, to crops of S×S.
        objects: the ids that fill the first slots; all others become background.
        slots: O, the number of objects a sample has room for.
        rng: draws the perturbation of the first masks.
        name: what messages call this sample.

    Returns:
        ``frames`` float32 [T,3,S,S], ImageNet-normalised; ``masks`` uint8 0/1 [T,O,S,S], zero in empty slots;
        ``perturbed`` uint8 0/1 [O,S,S], the first frame's masks made worse; ``selector`` float32 [O], 1 where a slot
        holds an object; ``name``.
    """
    size = transforms[0].warp.size
    frames = np.empty((len(transforms), 3, size, size), np.float32)
    masks = np.zeros((len(transforms), slots, size, size), np.uint8)
    for time, ((image, ids), transform) in enumerate(zip(pairs, transforms, strict=True)):
        image = recolour(transform.warp.image(image), transform.colour)
        for channel, values in enumerate(cv2.split(image)):
            frames[time, channel] = cv2.LUT(values, _NORMALISED[channel])
        ids = transform.warp.mask(ids)
        for slot, object_id in enumerate(objects):
            masks[time, slot] = ids == object_id
    return {
        "frames": torch.from_numpy(frames),
        "masks": torch.from_numpy(masks),
        "perturbed": torch.from_numpy(np.stack([perturb_mask(mask, rng) for mask in masks[0]])),
        "selector": (torch.arange(slots) < len(objects)).float(),
        "name": name,
    }
