"""A box or scribbles that OpenCV's GrabCut turns into the mask of an object."""

import cv2
import numpy as np

from annotation.errors import Refused

INSIDE, OUTSIDE = 1, 2  # in scribbles; 0 says nothing
MOST_PIXELS = 500_000  # GrabCut takes about two seconds for them on one core
ITERATIONS = 5


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
    if right - left == width and lower - upper == height:
        raise Refused(400, "the box leaves no background; draw the box closely around the object")
    labels = np.full((height, width), cv2.GC_BGD, np.uint8)
    labels[upper:lower, left:right] = cv2.GC_PR_FGD
    # The surroundings of the box tell enough about the background.
    margin_x, margin_y = max(8, (right - left) // 2), max(8, (lower - upper) // 2)
    near = np.s_[max(0, upper - margin_y) : lower + margin_y, max(0, left - margin_x) : right + margin_x]
    mask = np.zeros((height, width), np.uint8)
    mask[near] = _cut(image[near], labels[near])
    return mask


def from_scribbles(image: np.ndarray, scribbles: np.ndarray) -> np.ndarray:
    """Find the object that scribbles mark.

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
    if not (scribbles != INSIDE).any():
        raise Refused(400, "the scribbles leave no background; draw them inside of the object only")
    labels = np.array([cv2.GC_PR_BGD, cv2.GC_FGD, cv2.GC_BGD], np.uint8)[scribbles]
    mask = _cut(image, labels)
    # At a smaller size thin scribbles may have got lost.
    mask[scribbles == INSIDE], mask[scribbles == OUTSIDE] = 1, 0
    return mask


def _cut(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Run GrabCut on an image and its labels (GC_BGD, ...), at a smaller size where the image is large."""
    size = labels.shape[1], labels.shape[0]
    scale = min(1.0, (MOST_PIXELS / labels.size) ** 0.5)
    if scale < 1:
        small = tuple(max(1, round(scale * side)) for side in size)
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        labels = cv2.resize(labels, small, interpolation=cv2.INTER_NEAREST)
    labels = np.ascontiguousarray(labels)
    is_object = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))
    if is_object.any() and not is_object.all():  # a small size may have lost one of the two
        cv2.setRNGSeed(0)  # the same strokes give the same mask
        model = np.zeros((2, 1, 65))
        cv2.grabCut(np.ascontiguousarray(image), labels, None, model[0], model[1], ITERATIONS, cv2.GC_INIT_WITH_MASK)
    mask = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)
    if scale < 1:
        mask = cv2.resize(mask, size, interpolation=cv2.INTER_LINEAR)
    return (mask > 0.5).astype(np.uint8)
