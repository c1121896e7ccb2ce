"""Random errors in masks, for the self-correction strategy (the paper, Section 3.3)."""

import cv2
import numpy as np

MIN_IOU_TARGET = 0.85
_MAX_ROUNDS = 250
_RECTANGLES = 4  # in each round
_SEED_PROBABILITY = 0.1  # of setting a rectangle's centre pixel
_SHAPES = (cv2.MORPH_RECT, cv2.MORPH_ELLIPSE, cv2.MORPH_CROSS)


def perturb_mask(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Dilate and erode random parts of a mask until its IoU with the original is below a random target.

    The target is uniform between 0.85 and 1. Each round dilates or erodes the mask inside four random rectangles. So
    the object grows in some places and shrinks in others. With probability 0.1 the centre pixel of a rectangle first
    becomes 0 or 1 at random. Such a pixel can grow into a hole in the object or into an island outside the object.
    Perturbation ends after 250 rounds at the latest.

    The kernels have random shapes and sizes. The maximum size grows with the object, so that the IoU of a small object
    does not fall far below the target. The result always contains a pixel of the original object, because otherwise the
    memory would contain nothing of the object: a change that would remove the last such pixel is skipped.

    Args:
        mask: uint8 0/1 [H,W]. It is not modified.

    Returns:
        uint8 0/1 [H,W], empty if ``mask`` is empty.
    """
    perturbed = mask.copy()
    total = overlap = area = np.count_nonzero(mask)  # pixels of the original, of both masks, of the perturbed mask
    if total == 0:
        return perturbed
    target = rng.uniform(MIN_IOU_TARGET, 1)
    sizes = 2 + round(0.01 * total**0.5)
    for _ in range(_MAX_ROUNDS):
        for choices in rng.random((_RECTANGLES, 9)).tolist():
            window = _random_window(*choices[:4], mask.shape)
            before, original = perturbed[window], mask[window]
            after = _random_change(before, *choices[4:], sizes)
            common = [cv2.countNonZero(cv2.bitwise_and(part, original)) for part in (after, before)]
            remaining = overlap + common[0] - common[1]
            if remaining > 0:
                area += cv2.countNonZero(after) - cv2.countNonZero(before)
                overlap = remaining
                perturbed[window] = after
        if overlap / (total + area - overlap) < target:
            break
    return perturbed


def _random_window(
    row: float, other_row: float, column: float, other_column: float, shape: tuple[int, int]
) -> tuple[slice, slice]:
    """Return the rectangle between two corners as an index. The corners are given as fractions of ``shape``."""
    rows, columns = (
        sorted((int(a * side), int(b * side)))
        for a, b, side in ((row, other_row, shape[0]), (column, other_column, shape[1]))
    )
    return slice(rows[0], rows[1] + 1), slice(columns[0], columns[1] + 1)


def _random_change(
    part: np.ndarray, seed: float, operation: float, shape: float, width: float, height: float, sizes: int
) -> np.ndarray:
    """Return a changed copy of a part of a mask, uint8 0/1 [h,w]. The floats are random choices, 0 to 1.

    Each side of the kernel has one of ``sizes`` lengths: 1, 3, 5 and so on.
    """
    if seed < _SEED_PROBABILITY:
        part = part.copy()
        part[part.shape[0] // 2, part.shape[1] // 2] = seed < _SEED_PROBABILITY / 2
    # Even lengths would shift the object down and to the right, because their centre lies between pixels.
    size = 1 + 2 * int(width * sizes), 1 + 2 * int(height * sizes)
    kernel = cv2.getStructuringElement(_SHAPES[int(shape * len(_SHAPES))], size)
    return cv2.dilate(part, kernel) if operation < 0.5 else cv2.erode(part, kernel)
