"""Random errors in masks, for the self-correction strategy (the paper, Section 3.3)."""

import cv2
import numpy as np

LOWEST_IOU_TARGET = 0.85
_MAX_STEPS = 50
_MORPHOLOGY = (cv2.dilate, cv2.erode)
_SHAPES = (cv2.MORPH_RECT, cv2.MORPH_ELLIPSE, cv2.MORPH_CROSS)


def perturb_mask(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Dilate and erode a mask at random until its IoU with the original is below a random target.

    The target is uniform between 0.85 and 1. The kernels have random shapes and sizes. The largest size grows with the
    object: a large object needs few steps, and a small object does not change much more than the target says. A step
    that would erase the object is left out.

    Args:
        mask: uint8 0/1 [H,W]. It is not changed.
        rng: makes all random choices.

    Returns:
        uint8 0/1 [H,W]. If ``mask`` is empty, this is empty, too.
    """
    area = np.count_nonzero(mask)
    if area == 0:
        return mask.copy()
    target = rng.uniform(LOWEST_IOU_TARGET, 1)
    largest = 2 + round(0.06 * area**0.5)

    # Most of the frame does not change. To save time, only the surroundings of the object are processed.
    x, y, width, height = cv2.boundingRect(mask)
    margin = 4 * largest
    window = (slice(max(0, y - margin), y + height + margin), slice(max(0, x - margin), x + width + margin))
    original = mask[window]
    current = original
    for _ in range(_MAX_STEPS):
        kernel = cv2.getStructuringElement(
            _SHAPES[rng.integers(len(_SHAPES))], (int(rng.integers(1, largest + 1)), int(rng.integers(1, largest + 1)))
        )
        changed = _MORPHOLOGY[rng.integers(2)](current, kernel)
        if changed.any():
            current = changed
        if mask_iou(original, current) < target:
            break

    perturbed = np.zeros_like(mask)
    perturbed[window] = current
    return perturbed


def mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Return the intersection over union (0 to 1) of two uint8 0/1 masks [H,W]. It is 1 if both masks are empty."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0
