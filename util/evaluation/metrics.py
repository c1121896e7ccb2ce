"""J and F as the DAVIS 2017 semi-supervised evaluation defines them.

J, region similarity, is the intersection over union of two masks. F, contour accuracy, is the F-measure of the masks'
boundaries, matched within a tolerance. Both, and their mean, recall and decay, are defined in Perazzi et al., "A
Benchmark Dataset and Evaluation Methodology for Video Object Segmentation" (CVPR 2016); the several-object benchmark in
Pont-Tuset et al., "The 2017 DAVIS Challenge on Video Object Segmentation" (arXiv:1704.00675).

All figures lie in 0..1 (decay in -1..1).
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

CONTOUR_TOLERANCE = 0.008  # of the image diagonal


class Statistics(NamedTuple):
    """The three figures that DAVIS reports for J or F of an object."""

    mean: float
    recall: float  # the fraction of frames above 0.5
    decay: float  # the mean of the first quarter of the frames minus the mean of the last quarter


def region_similarity(truth: np.ndarray, prediction: np.ndarray) -> float | np.ndarray:
    """Region similarity J, the intersection over union; 1 where both masks are empty.

    Args:
        truth, prediction: boolean masks [H,W] or [N,H,W].

    Returns:
        A float for [H,W], float64 [N] for [N,H,W], in 0..1.

    Raises:
        ValueError: the arrays are not boolean masks of one shape.
    """
    return _per_mask(jaccard, truth, prediction)


def contour_accuracy(
    truth: np.ndarray, prediction: np.ndarray, tolerance: float = CONTOUR_TOLERANCE
) -> float | np.ndarray:
    """Contour accuracy F, the F-measure 2PR/(P+R) of the boundaries.

    A pixel lies on a mask's boundary if it differs from its right, lower or lower-right neighbour. Precision P is the
    fraction of predicted boundary pixels within ceil(tolerance · diagonal) pixels of a true boundary pixel. Recall R is
    the fraction of true boundary pixels within this distance of a predicted boundary pixel. The fraction is 1 where a
    mask has no boundary pixel, so two masks without boundary score 1.

    Args:
        truth, prediction: boolean masks [H,W] or [N,H,W].
        tolerance: largest distance of matching pixels, as a fraction of the image diagonal.

    Returns:
        A float for [H,W], float64 [N] for [N,H,W], in 0..1.

    Raises:
        ValueError: the arrays are not boolean masks of one shape.
    """
    radius = tolerance_radius(truth.shape, tolerance)
    return _per_mask(functools.partial(boundary_f_measure, radius=radius), truth, prediction)


def statistics(values: np.ndarray) -> Statistics:
    """Mean, recall and decay of J or F of one object.

    NaN values do not count in mean and decay. In recall they count as frames that are not above 0.5. A single frame has
    decay 0. Without frames (in a video of one or two frames) all three figures are NaN.

    Args:
        values: J or F in every scored frame [frames].
    """
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0:
        return Statistics(math.nan, math.nan, math.nan)
    # Neighbouring quarters share a frame. DAVIS's code stores these indices in 8 bits, which overflow in videos of more
    # than 256 scored frames; here they do not overflow.
    ids = np.round(np.linspace(1, values.size, 5) + 1e-10).astype(int) - 1
    first, last = values[ids[0] : ids[1] + 1], values[ids[3] : ids[4] + 1]
    return Statistics(nanmean(values), float(np.mean(values > 0.5)), nanmean(first) - nanmean(last))


def _per_mask(
    measure: Callable[[np.ndarray, np.ndarray], float], truth: np.ndarray, prediction: np.ndarray
) -> float | np.ndarray:
    if truth.dtype != bool or prediction.dtype != bool or truth.shape != prediction.shape or truth.ndim not in (2, 3):
        raise ValueError(
            "masks are two boolean arrays of one shape, [H,W] or [N,H,W], "
            f"not {truth.dtype} {truth.shape} and {prediction.dtype} {prediction.shape}"
        )
    truth, prediction = truth.view(np.uint8), prediction.view(np.uint8)
    if truth.ndim == 2:
        return measure(truth, prediction)
    return np.array([measure(*pair) for pair in zip(truth, prediction, strict=True)], dtype=np.float64)


# The functions below take masks as OpenCV does: uint8 [H,W] of 0 and 1.


def jaccard(truth: np.ndarray, prediction: np.ndarray) -> float:
    """J of one mask, uint8 0/1 [H,W]: the intersection over union; 1 where both masks are empty."""
    union = cv2.countNonZero(truth | prediction)
    return cv2.countNonZero(truth & prediction) / union if union else 1.0


def boundary_f_measure(truth: np.ndarray, prediction: np.ndarray, radius: int) -> float:
    """F of one mask, uint8 0/1 [H,W], with boundaries matched within ``radius`` pixels; 1 if both are empty."""
    # One map holds both masks, the truth in bit 0 and the prediction in bit 1, so that every operation serves both.
    masks = truth | prediction << 1
    boundaries = _boundaries(masks[bounding_box(masks)])
    near = _dilate(boundaries, radius)
    true, predicted = boundaries & 1, boundaries >> 1
    precision = _fraction(predicted & near, predicted)
    recall = _fraction(true & near >> 1, true)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def bounding_box(mask: np.ndarray) -> tuple[slice, slice]:
    """The box around a mask with a margin of one pixel, because the boundary lies partly outside the mask."""
    x, y, width, height = cv2.boundingRect(mask)
    return slice(max(y - 1, 0), y + height + 1), slice(max(x - 1, 0), x + width + 1)


def _boundaries(masks: np.ndarray) -> np.ndarray:
    boundaries = np.zeros_like(masks)
    boundaries[:, :-1] = masks[:, :-1] ^ masks[:, 1:]
    boundaries[:-1] |= masks[:-1] ^ masks[1:]
    boundaries[:-1, :-1] |= masks[:-1, :-1] ^ masks[1:, 1:]
    return boundaries


def _dilate(bits: np.ndarray, radius: int) -> np.ndarray:
    """Dilate every bit of a uint8 map [H,W] with the disk dx² + dy² <= radius².

    The disk consists of one horizontal run in each row. The map is dilated step by step to the length of each run,
    shifted to the row of the run, and added to the result. This takes O(radius) passes over the map; a plain dilation
    takes O(radius²).
    """
    height, width = bits.shape
    # A margin on the right lets one line hold all rows: pixels that leave a row end in a margin.
    rows = cv2.copyMakeBorder(bits, radius, radius, 0, radius, cv2.BORDER_CONSTANT)
    line = rows.reshape(-1)
    dilated = np.zeros_like(rows[:height])
    reach = 0
    for dy in sorted(range(-radius, radius + 1), key=abs, reverse=True):  # the shortest runs first
        while reach < math.isqrt(radius**2 - dy**2):
            line[1:] |= line[:-1]
            line[:-1] |= line[1:]
            reach += 1
        dilated |= rows[radius + dy : radius + dy + height]
    return dilated[:, :width]


def _fraction(part: np.ndarray, whole: np.ndarray) -> float:
    count = cv2.countNonZero(whole)
    return cv2.countNonZero(part) / count if count else 1.0


def tolerance_radius(shape: tuple[int, ...], tolerance: float) -> int:
    """The radius in pixels within which boundaries match, from a fraction of the diagonal of a mask [...,H,W]."""
    return math.ceil(tolerance * np.linalg.norm(shape[-2:]))


def nanmean(values: np.ndarray) -> float:
    """`numpy.nanmean` without its warning for empty arrays."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else math.nan
