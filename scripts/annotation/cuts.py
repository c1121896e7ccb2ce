"""Interactive segmentation of an object by boxes, clicks and scribbles.

The evidence for each pixel is a weighted sum: the geodesic distances to known foreground and background, the distances
to the strokes, the network's features, the colours, and the current mask. The smoothed sum gives the new mask.
"""

from typing import NamedTuple

import cv2
import numpy as np

from annotation.errors import Refused
from annotation.picture import FAR, Picture

# The bits of a pixel in `from_strokes`.
INSIDE, OUTSIDE, MASK, EARLIER_INSIDE, EARLIER_OUTSIDE, OTHER = (1 << bit for bit in range(6))

LEAST_SIDE = 3  # of a box, in pixels
ITERATIONS = 2  # of fitting colours to the mask and segmenting again
BORDER_START = 30.0  # the initial cost of a path at the border of the picture, where background is likely
CORE_START = 60.0  # the initial cost of a path in the mask away from its edge
CORE = 1 / 10  # of the short side: pixels this far from the edge of the mask are certain, unless a stroke is near
NEAR = 1 / 10  # of the short side: the mask is uncertain this near to a stroke
STROKE_WEIGHT = 50  # of a stroke's pixels in histograms of colours; other pixels have 1
FARTHEST = 0.6  # of the short side: the range of strokes
BOX_CORE = 1 / 40  # as CORE, in a box
REACH = 1 / 3  # of the short side: parts of the mask farther from the new strokes do not change
SMALL_PART = 0.1  # of the largest part of a mask: smaller parts in a box are dropped


class Weights(NamedTuple):
    """The weights of the evidence, tuned with simulated clicks on images outside the README's table."""

    bias: float = -0.1
    path: float = 2.7
    distance: float = 0.9
    coarse: float = 0.6
    fine: float = 0.5
    colour: float = 0.5
    mask: float = 1.0


WEIGHTS = Weights()


class BoxWeights(NamedTuple):
    """The weights of the evidence in a box."""

    coarse: float = 0.7
    fine: float = 0.7
    colour: float = 0.5
    middle: float = 1.0


BOX_WEIGHTS = BoxWeights()


def from_strokes(picture: Picture, marks: np.ndarray, weights: Weights = WEIGHTS) -> np.ndarray:
    """Correct a mask near new strokes.

    Args:
        picture: the frame.
        marks: uint8 [H,W], the sum of `INSIDE` and `OUTSIDE` (the new strokes), `MASK` (the current mask),
            `EARLIER_INSIDE` and `EARLIER_OUTSIDE` (the strokes of the current mask), and `OTHER` (other objects).
        weights: of the evidence.

    Returns:
        the new mask, uint8 [H,W], 1 for the object.

    Raises:
        Refused: a value is no such sum, or no pixel is marked.
    """
    if marks.max() >= 2 * OTHER:
        raise Refused(400, f"a mark is a sum of bits below {2 * OTHER}; load the page again")
    if not (marks & (INSIDE | OUTSIDE)).any():
        raise Refused(400, "no pixel is marked; click or draw inside or outside the object")
    new_inside, new_outside = (picture.shrink((marks & bit) > 0) for bit in (INSIDE, OUTSIDE))
    new = new_inside | new_outside
    inside = (picture.shrink((marks & (INSIDE | EARLIER_INSIDE)) > 0) & ~new_outside) | new_inside
    outside = picture.shrink((marks & (OUTSIDE | EARLIER_OUTSIDE | OTHER)) > 0) & ~inside
    mask = cv2.resize((marks & MASK) // MASK, picture.size[::-1], interpolation=cv2.INTER_AREA) > 0
    probability = _probability(picture, weights, new, inside, outside, mask)
    result = (picture.enlarge(probability) | ((marks & INSIDE) > 0)) & ((marks & OUTSIDE) == 0)
    return _changed_near(result, (marks & MASK) > 0, (marks & (INSIDE | OUTSIDE)) > 0).astype(np.uint8)


def _changed_near(result: np.ndarray, mask: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The mask with only those parts of the change that are near the new strokes."""
    if not mask.any():
        return result
    _, parts = cv2.connectedComponents(np.uint8(result != mask))
    near = _distance_to(new) < REACH * min(mask.shape)
    return np.where(np.isin(parts, np.unique(parts[near])), result, mask)


def _probability(
    picture: Picture, weights: Weights, new: np.ndarray, inside: np.ndarray, outside: np.ndarray, mask: np.ndarray
) -> np.ndarray:
    """The probability of the object; 0 in parts that are not connected to known foreground."""
    short_side = min(picture.size)
    border = _border(picture.size) & ~inside & ~mask
    starts_inside = np.where(inside, 0, FAR)
    starts_outside = np.where(outside, 0, np.where(border, BORDER_START, FAR))
    core = np.zeros_like(mask)
    if mask.any():
        depth, distance = (cv2.distanceTransform(np.uint8(part), cv2.DIST_L2, 3) for part in (mask, ~mask))
        near = _distance_to(new) < NEAR * short_side
        core = (depth > min(CORE * short_side, 0.6 * depth.max())) & ~outside
        surroundings = (distance > CORE * short_side) & ~inside
        # A stroke inside makes the surroundings near it uncertain, a stroke outside the mask.
        if (new & inside).any():
            surroundings &= ~near
        else:
            core &= ~near
        if not (core | inside).any():
            core = mask & ~outside
        starts_inside = np.where(core, np.minimum(starts_inside, CORE_START), starts_inside)
        starts_outside = np.where(surroundings, np.minimum(starts_outside, CORE_START), starts_outside)
    core |= inside

    to_inside, to_outside = picture.path_lengths(starts_inside), picture.path_lengths(starts_outside)
    reach = FARTHEST * short_side
    ratio = (np.minimum(_distance_to(outside), reach) + 0.05 * short_side) / (
        np.minimum(_distance_to(inside), reach) + 0.05 * short_side
    )
    evidence = (
        weights.bias
        + weights.path * (to_outside - to_inside) / (to_outside + to_inside + 1e-6)
        + weights.distance * np.log(ratio)
        + weights.coarse * picture.features("coarse", core, outside | border)
        + weights.fine * picture.features("fine", core, outside | border)
    )
    if mask.any():
        evidence += weights.mask * np.where(mask, 1, -1)
        current = (mask | inside) & ~outside
    else:
        current = evidence > 0
    probability = np.zeros(picture.size, np.float32)
    for _ in range(ITERATIONS):
        colours = picture.colours(current + STROKE_WEIGHT * inside, ~current + STROKE_WEIGHT * outside)
        probability = _sigmoid(evidence + weights.colour * colours)
        probability[inside], probability[outside] = 1, 0
        probability = picture.smooth(probability)
        current = ((probability > 0.5) | inside) & ~outside
        _, parts = cv2.connectedComponents(np.uint8(current))
        current &= np.isin(parts, np.unique(parts[core & current]))
    return probability * current


def from_box(picture: Picture, box: list[float], weights: BoxWeights = BOX_WEIGHTS) -> np.ndarray:
    """Segment the object in a box. Everything outside the box is background.

    Args:
        picture: the frame.
        box: the left, upper, right and lower edge in pixels of the frame.
        weights: of the evidence.

    Returns:
        the mask, uint8 [H,W], 1 for the object.

    Raises:
        Refused: the box is too small, or leaves no background.
    """
    height, width = picture.full_size
    (left, right), (upper, lower) = (
        np.clip(np.round(np.sort(edges)), 0, most).astype(int)
        for edges, most in ((box[::2], width), (box[1::2], height))
    )
    if right - left < LEAST_SIDE or lower - upper < LEAST_SIDE:
        raise Refused(400, "the box is too small; draw the box around the object")
    full = np.zeros((height, width), bool)
    full[upper:lower, left:right] = True
    if full.all():
        raise Refused(400, "the box leaves no background; draw the box closely around the object")
    inside = cv2.resize(np.uint8(full), picture.size[::-1], interpolation=cv2.INTER_AREA) > 0
    if inside.all():
        inside &= ~_border(picture.size)
    return (picture.enlarge(_probability_in_box(picture, weights, inside)) & full).astype(np.uint8)


def _probability_in_box(picture: Picture, weights: BoxWeights, inside: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    y, x = np.ogrid[: picture.size[0], : picture.size[1]]
    radius = np.hypot(
        (y - rows.mean()) / (len(rows) / 2), (x - columns.mean()) / (len(columns) / 2)
    )  # 1 on the largest ellipse in the box
    surroundings = ~inside & (_distance_to(inside) < max(8, len(rows) / 2, len(columns) / 2))
    current = radius < 0.8
    probability = np.zeros(picture.size, np.float32)
    for _ in range(ITERATIONS + 1):
        depth = cv2.distanceTransform(np.uint8(current), cv2.DIST_L2, 3)
        core = depth > min(BOX_CORE * min(picture.size), 0.6 * depth.max())
        evidence = (
            weights.middle * (1 - radius)
            + weights.coarse * picture.features("coarse", core, surroundings)
            + weights.fine * picture.features("fine", core, surroundings)
            + weights.colour * picture.colours(np.float32(current), np.float32(surroundings | (inside & ~current)))
        )
        probability = picture.smooth(_sigmoid(evidence) * inside) * inside
        if not (probability > 0.5).any():
            break
        _, parts, sizes, _ = cv2.connectedComponentsWithStats(np.uint8(probability > 0.5))
        areas = sizes[1:, cv2.CC_STAT_AREA]
        current = np.isin(parts, 1 + np.flatnonzero(areas >= SMALL_PART * areas.max()))
    return probability * current


def _distance_to(marked: np.ndarray) -> np.ndarray:
    """The distance to the nearest marked pixel; `FAR` if none is marked."""
    if not marked.any():
        return np.full(marked.shape, FAR, np.float32)
    return cv2.distanceTransform(np.uint8(~marked), cv2.DIST_L2, 3)


def _border(size: tuple[int, int]) -> np.ndarray:
    """The two outermost pixels on each side."""
    border = np.ones(size, bool)
    border[2:-2, 2:-2] = False
    return border


def _sigmoid(evidence: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-evidence.clip(-15, 15)))
