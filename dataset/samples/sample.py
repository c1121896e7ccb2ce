"""A training sample from the frames and masks of a clip."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from dataset.samples.augmentation import FrameTransform, recolour
from dataset.samples.perturbation import perturb_mask

# The number of random augmentations to try until the first frame's crop shows an object.
MAX_TRIES = 10


def visible_objects(ids: np.ndarray, min_area: float = 0.0) -> np.ndarray:
    """Return the objects in a crop that are large enough for training, in the order of their ids.

    Args:
        ids: the crop's object ids, uint8 [S,S].
        min_area: the minimum fraction of the crop, 0 to 1, that an object covers. With 0 one pixel is enough.
    """
    areas = np.bincount(ids.ravel(), minlength=256)
    areas[0] = 0
    return np.flatnonzero(areas >= max(1, min_area * ids.size))


def make_sample(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]],
    transforms: Sequence[FrameTransform],
    objects: Sequence[int],
    *,
    slots: int,
    rng: np.random.Generator,
    name: str,
) -> dict[str, torch.Tensor | str]:
    """Augment a clip of T frames and assign its objects to O slots.

    Args:
        pairs: T images, uint8 RGB [H,W,3], each with its object ids, uint8 [H,W].
        transforms: the augmentation of each of the T frames, with crops of S×S pixels.
        objects: the ids of at most O objects, for the first slots. All other objects become background.
        slots: O, the number of slots.

    Returns:
        A dictionary with these entries:

        - ``frames``: uint8 RGB [T,3,S,S]. `util.imagenet.normalise` prepares them for the network.
        - ``masks``: uint8 0/1 [T,O,S,S]. Empty slots are 0.
        - ``perturbed``: uint8 0/1 [O,S,S], the masks of the first frame with random errors (Section 3.3).
        - ``selector``: float32 [O], 1 for slots with an object and 0 for empty slots.
        - ``name``: as given.
    """
    size = transforms[0].warp.size
    frames = np.empty((len(transforms), 3, size, size), np.uint8)
    masks = np.zeros((len(transforms), slots, size, size), np.uint8)
    for time, ((image, ids), transform) in enumerate(zip(pairs, transforms, strict=True)):
        image = recolour(transform.warp.image(image), transform.colour)
        frames[time] = image.transpose(2, 0, 1)
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
