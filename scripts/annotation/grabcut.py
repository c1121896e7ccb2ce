"""A box or scribbles that OpenCV's GrabCut turns into the mask of an object."""

import cv2
import numpy as np

from annotation.errors import Refused

INSIDE, OUTSIDE = 1, 2  # in scribbles; 0 says nothing
MOST_PIXELS = 500_000  # larger pictures are cut at a smaller size, so that a person need not wait for long
BOX_ITERATIONS = 3


def from_box(image: np.ndarray, box: list[float]) -> np.ndarray:
    """Find the object in a box. Everything outside of the box is background.

    Args:
        image: uint8 RGB [H,W,3].
        box: the left, upper, right and lower edge in pixels.

    Returns:
        uint8 [H,W], 1 for the object.

    Raises:
        Refused: the box is too small, or leaves no background.
    """
    height, width = image.shape[:2]
    (left, right), (upper, lower) = (
        np.clip(np.round(np.sort(edges)), 0, most).astype(int)
        for edges, most in ((box[::2], width), (box[1::2], height))
    )
    if right - left < 3 or lower - upper < 3:
        raise Refused(400, "the box is too small; draw the box around the object")
    labels = np.full((height, width), cv2.GC_BGD, np.uint8)
    labels[upper:lower, left:right] = cv2.GC_PR_FGD
    # The surroundings of the box tell enough about the background.
    margin_x, margin_y = max(8, (right - left) // 2), max(8, (lower - upper) // 2)
    near = np.s_[max(0, upper - margin_y) : lower + margin_y, max(0, left - margin_x) : right + margin_x]
    small, small_labels = _shrink(image[near], labels[near])
    if _is_object(small_labels).all():
        raise Refused(400, "the box leaves no background; draw the box closely around the object")
    models = np.zeros((2, 1, 65))
    cv2.setRNGSeed(0)  # the same box gives the same mask
    cv2.grabCut(small, small_labels, None, models[0], models[1], BOX_ITERATIONS, cv2.GC_INIT_WITH_MASK)
    mask = np.zeros((height, width), np.uint8)
    mask[near] = _enlarge(_is_object(small_labels), labels[near].shape)
    return mask


def from_scribbles(image: np.ndarray, scribbles: np.ndarray) -> np.ndarray:
    """Find the object that scribbles mark: all parts of it that a scribble inside of the object touches.

    The colours of object and background are learnt from the scribbles alone, and are not adapted to the result: this
    gave better masks than further rounds of GrabCut, in a fraction of the time. Without a scribble outside, everything
    without a scribble tells the colours of the background.

    Args:
        image: uint8 RGB [H,W,3].
        scribbles: uint8 [H,W]: 0 unknown, 1 surely object, 2 surely not.

    Returns:
        uint8 [H,W], 1 for the object.

    Raises:
        Refused: a value is none of the three, or no scribble lies inside of the object.
    """
    if scribbles.max() > OUTSIDE:
        raise Refused(400, "scribbles hold 0, 1 and 2 only")
    if not (scribbles == INSIDE).any():
        raise Refused(400, "no scribble lies inside of the object; draw one there")
    if (scribbles == INSIDE).all():
        raise Refused(400, "the scribbles leave no background; draw them inside of the object only")
    small, marks = _shrink(image, scribbles)
    labels = np.array([cv2.GC_PR_BGD, cv2.GC_FGD, cv2.GC_BGD], np.uint8)[marks]
    told = marks > 0 if (marks == OUTSIDE).any() else np.ones(marks.shape, bool)
    models = np.zeros((2, 1, 65))
    if (marks == INSIDE).any() and (marks[told] != INSIDE).any():  # a smaller size may have lost thin scribbles
        cv2.setRNGSeed(0)  # the same scribbles give the same mask
        pixels, pixel_labels = small[told][None], labels[told][None]
        cv2.grabCut(pixels, pixel_labels, None, models[0], models[1], 1, cv2.GC_INIT_WITH_MASK)
        cv2.grabCut(small, labels, None, models[0], models[1], 1, cv2.GC_EVAL_FREEZE_MODEL)
    _, parts = cv2.connectedComponents(_is_object(labels))
    touched = np.isin(parts, parts[marks == INSIDE])
    mask = _enlarge(touched.astype(np.uint8), scribbles.shape)
    mask[scribbles == INSIDE], mask[scribbles == OUTSIDE] = 1, 0
    return mask


def _shrink(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return an image and its labels with at most `MOST_PIXELS` pixels."""
    scale = (MOST_PIXELS / labels.size) ** 0.5
    if scale >= 1:
        return np.ascontiguousarray(image), labels.copy()
    size = tuple(max(1, int(scale * side)) for side in labels.shape[::-1])
    return (
        cv2.resize(image, size, interpolation=cv2.INTER_AREA),
        cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST),
    )


def _enlarge(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a uint8 mask of 0 and 1 to ``size`` (height, width), with smooth edges."""
    if mask.shape == size:
        return mask
    return (cv2.resize(mask.astype(np.float32), size[::-1]) > 0.5).astype(np.uint8)


def _is_object(labels: np.ndarray) -> np.ndarray:
    """Return 1 where a label of GrabCut says object, otherwise 0."""
    return np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
