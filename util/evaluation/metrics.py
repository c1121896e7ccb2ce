"""J and F as the DAVIS 2017 semi-supervised evaluation defines them.

J, region similarity, is the intersection over union of two masks. F, contour accuracy, is the F-measure of the masks'
boundaries, matched within a tolerance. Both, and their mean, recall and decay, are defined in Perazzi et al., "A
Benchmark Dataset and Evaluation Methodology for Video Object Segmentation" (CVPR 2016); the several-object benchmark in
Pont-Tuset et al., "The 2017 DAVIS Challenge on Video Object Segmentation" (arXiv:1704.00675).

All figures lie in 0..1 (decay in -1..1).
"""

import math
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
        truth, prediction: boolean masks [...,H,W].

    Returns:
        float64 [...] in 0..1.
    """
    common, union = ((truth & prediction).sum((-2, -1)), (truth | prediction).sum((-2, -1)))
    return np.where(union > 0, common / np.maximum(union, 1), 1.0)[()]


def contour_accuracy(truth: np.ndarray, prediction: np.ndarray, tolerance: float = CONTOUR_TOLERANCE) -> float:
    """Contour accuracy F, the F-measure 2PR/(P+R) of the boundaries, in 0..1.

    A pixel lies on a mask's boundary if it differs from its right, lower or lower-right neighbour. Precision P is the
    fraction of predicted boundary pixels within ceil(tolerance · diagonal) pixels of a true boundary pixel. Recall R is
    the fraction of true boundary pixels within this distance of a predicted boundary pixel. P is 1 without a
    predicted boundary pixel, and R without a true one, so two masks without boundary score 1.

    Args:
        truth, prediction: boolean masks [H,W].
        tolerance: largest distance of matching pixels, as a fraction of the image diagonal.
    """
    radius = math.ceil(tolerance * np.linalg.norm(truth.shape))
    # Only the box around both masks counts, with a margin because the boundary lies partly outside the mask.
    x, y, width, height = cv2.boundingRect((truth | prediction).view(np.uint8))
    box = slice(max(y - 1, 0), y + height + 1), slice(max(x - 1, 0), x + width + 1)
    true, predicted = (_boundary(mask[box]).view(np.uint8) for mask in (truth, prediction))
    dy, dx = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (dx**2 + dy**2 <= radius**2).view(np.uint8)
    precision = _fraction(predicted & cv2.dilate(true, disk), predicted)
    recall = _fraction(true & cv2.dilate(predicted, disk), true)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


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


def _boundary(mask: np.ndarray) -> np.ndarray:
    boundary = np.zeros_like(mask)
    boundary[:, :-1] = mask[:, :-1] ^ mask[:, 1:]
    boundary[:-1] |= mask[:-1] ^ mask[1:]
    boundary[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return boundary


def _fraction(part: np.ndarray, whole: np.ndarray) -> float:
    count = cv2.countNonZero(whole)
    return cv2.countNonZero(part) / count if count else 1.0


def nanmean(values: np.ndarray) -> float:
    """`numpy.nanmean` without its warning for empty arrays."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else math.nan
