"""Worse masks from good ones, for the self-correction strategy (the paper, Section 3.3)."""

import cv2
import numpy as np

LOWEST_IOU_TARGET = 0.85
_MAX_STEPS = 50
_MORPHOLOGY = (cv2.dilate, cv2.erode)
_SHAPES = (cv2.MORPH_RECT, cv2.MORPH_ELLIPSE, cv2.MORPH_CROSS)


def perturb_mask(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Dilate and erode a mask at random until its IoU with the original falls below a target from U[0.85, 1].

    Kernels have random shapes and random sizes up to a small share of the object's own size, so that large objects
    get there in a few steps and small ones do not overshoot by far. An object never vanishes: a step that would
    erase it is not taken.

    Args:
        mask: uint8 0/1 [H,W]; not changed. An empty one stays empty.
        rng: draws the target and the kernels.

    Returns:
        uint8 0/1 [H,W].
    """
    area = np.count_nonzero(mask)
    if area == 0:
        return mask.copy()
    target = rng.uniform(LOWEST_IOU_TARGET, 1)
    largest = 2 + round(0.06 * area**0.5)

    # The object stays far from most of a frame: only its surroundings take part.
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
    """Intersection over union of two uint8 0/1 masks [H,W]; 1 where both are empty."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0
