"""Interactive segmentation of an object by boxes, clicks and scribbles.

The evidence for each pixel is a weighted sum: the geodesic distances to known foreground and background, the distances
to the strokes, the network's features, the colours, and the current mask. The smoothed sum gives a rough mask, which
the network refines. Two cases need no such evidence: the network refines the box itself of a new object, and the mask
where a stroke takes a part from an object in its box.
"""

import cv2
import numpy as np

from annotation.errors import Refused
from annotation.evidence import FAR, Picture
from annotation.refinement import refine

# The bits of a pixel in `from_strokes`.
INSIDE, OUTSIDE, MASK, EARLIER_INSIDE, EARLIER_OUTSIDE, OTHER, BEYOND = (1 << bit for bit in range(7))

LEAST_SIDE = 3  # of a box, in pixels
ITERATIONS = 2  # of fitting colours to the mask and segmenting again
BORDER_START = 30.0  # the initial cost of a path at the border of the picture, where background is likely
CORE_START = 60.0  # the initial cost of a path in the mask away from its edge
CORE = 1 / 10  # of the short side: pixels this far from the edge of the mask are certain, unless a stroke is near
NEAR = 1 / 10  # of the short side: the mask is uncertain this near to a stroke
STROKE_WEIGHT = 50  # of a stroke's pixels in histograms of colours; other pixels have 1
FARTHEST = 0.6  # of the short side: the range of strokes
REACH = 1 / 3  # of the short side: parts of the mask farther from the new strokes do not change
SMALL_PART = 0.1  # of the largest part of a mask: smaller parts in a box are dropped
BOX_NEIGHBOURS = (1, 1, 1, 0)  # of the rounds of `refine` in a box, and after strokes outside in its mask
NEIGHBOURS = (1, 0)  # after strokes
AGREEMENT = 0.5  # IoU with the rough or the current mask: the refined mask is dropped below


# The weights of the evidence, tuned with simulated clicks on images outside the README's table.
BIAS, PATH, DISTANCE, COARSE, FINE, COLOUR, CURRENT = -0.1, 2.7, 0.9, 0.6, 0.5, 0.5, 1.0


def from_strokes(picture: Picture, marks: np.ndarray) -> np.ndarray:
    """Correct a mask near new strokes.

    In an object's box, strokes inside only add the part that they touch, and strokes outside only remove it.

    Args:
        marks: uint8 [H,W], the sum of `INSIDE` and `OUTSIDE` (the new strokes), `MASK` (the current mask),
            `EARLIER_INSIDE` and `EARLIER_OUTSIDE` (the strokes of the current mask), `OTHER` (other objects), and
            `BEYOND` (pixels outside of the object's box, which only strokes make part of the object).

    Returns:
        the new mask, uint8 [H,W], 1 for the object.
    """
    if marks.max() >= 2 * BEYOND:
        raise Refused(400, f"a mark is a sum of bits below {2 * BEYOND}; load the page again")
    if not (marks & (INSIDE | OUTSIDE)).any():
        raise Refused(400, "no pixel is marked; click or draw inside or outside the object")
    current, new_inside, new_outside = ((marks & bit) > 0 for bit in (MASK, INSIDE, OUTSIDE))
    certain = (marks & (INSIDE | EARLIER_INSIDE)) > 0
    never = (marks & (OUTSIDE | EARLIER_OUTSIDE | OTHER | BEYOND)) > 0
    # The new strokes have priority.
    certain, never = certain & ~new_outside, never & ~new_inside
    # A box shows most objects well, so that a stroke corrects a detail. Without a box large parts may be wrong.
    is_detail = current.any() and (marks & BEYOND).any()
    if is_detail and not new_inside.any():
        # The other evidence would often take too much of the object away.
        rough, neighbours = _without_parts(current, new_outside, certain), BOX_NEIGHBOURS
    else:
        rough, neighbours = picture.enlarge(_probability(picture, marks)), NEIGHBOURS
    result = (rough | certain) & ~never
    if result.any():
        refined = refine(picture.image, picture.network, result, certain, never, neighbours) > 0.5
        # A network that has not recognised the object finds something else.
        if max(_overlap(refined, result), _overlap(refined, current)) > AGREEMENT:
            result = refined
    if is_detail:
        added, removed = _touching(result & ~current, new_inside), _touching(current & ~result, new_outside)
        result = (current | added) & ~removed
    elif current.any():
        near = _distance_to(new_inside | new_outside) < REACH * min(current.shape)
        result = np.where(_touching(result != current, near), result, current)
    return result.astype(np.uint8)


def _overlap(mask: np.ndarray, other: np.ndarray) -> float:
    """The IoU of two masks, bool [H,W]; 0 if both are empty."""
    return (mask & other).sum() / max(1, (mask | other).sum())


def _touching(mask: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """The connected parts of a mask that hold some of these pixels, all bool [H,W]."""
    _, parts = cv2.connectedComponents(np.uint8(mask))
    return mask & np.isin(parts, np.unique(parts[mask & pixels]))


def _without_parts(mask: np.ndarray, stroke: np.ndarray, certain: np.ndarray) -> np.ndarray:
    """The mask without the connected parts that a stroke outside touches, unless they seem to be the object itself.

    The object is where certain pixels are; without such, its larger part.
    """
    parts = _touching(mask, stroke)
    rest = mask & ~parts
    is_object = (parts & certain).any() or not ((rest & certain).any() or rest.sum() > parts.sum())
    return mask if is_object else rest


def _probability(picture: Picture, marks: np.ndarray) -> np.ndarray:
    """The probability of the object at the size of the picture; 0 in parts without a connection to known foreground."""
    new_inside, new_outside = (picture.shrink((marks & bit) > 0) for bit in (INSIDE, OUTSIDE))
    inside = (picture.shrink((marks & (INSIDE | EARLIER_INSIDE)) > 0) & ~new_outside) | new_inside
    outside = picture.shrink((marks & (OUTSIDE | EARLIER_OUTSIDE | OTHER)) > 0) & ~inside
    mask = cv2.resize((marks & MASK) // MASK, picture.size[::-1], interpolation=cv2.INTER_AREA) > 0
    short_side = min(picture.size)
    border = ~inside & ~mask
    border[2:-2, 2:-2] = False  # only the two outermost pixels on each side
    starts_inside = np.where(inside, 0, FAR)
    starts_outside = np.where(outside, 0, np.where(border, BORDER_START, FAR))
    core = np.zeros_like(mask)
    if mask.any():
        depth, distance = (cv2.distanceTransform(np.uint8(part), cv2.DIST_L2, 3) for part in (mask, ~mask))
        core = (depth > min(CORE * short_side, 0.6 * depth.max())) & ~outside
        near = _distance_to(new_inside | new_outside) < NEAR * short_side
        surroundings = (distance > CORE * short_side) & ~inside
        # A stroke inside makes the surroundings near it uncertain, a stroke outside the mask.
        if new_inside.any():
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
        BIAS
        + PATH * (to_outside - to_inside) / (to_outside + to_inside + 1e-6)
        + DISTANCE * np.log(ratio)
        + COARSE * picture.features("coarse", core, outside | border)
        + FINE * picture.features("fine", core, outside | border)
    )
    if mask.any():
        evidence += CURRENT * np.where(mask, 1, -1)
        current = (mask | inside) & ~outside
    else:
        current = evidence > 0
    probability = np.zeros(picture.size, np.float32)
    for _ in range(ITERATIONS):
        colours = picture.colours(current + STROKE_WEIGHT * inside, ~current + STROKE_WEIGHT * outside)
        probability = 1 / (1 + np.exp(-(evidence + COLOUR * colours).clip(-15, 15)))
        probability[inside], probability[outside] = 1, 0
        probability = picture.smooth(probability)
        current = _touching(((probability > 0.5) | inside) & ~outside, core)
    return probability * current


def from_box(picture: Picture, box: list[float]) -> np.ndarray:
    """Segment the object in a box: uint8 [H,W], 1 for the object. Everything outside the box is background.

    The box is its left, upper, right and lower edge in pixels of the frame.
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
    found = refine(picture.image, picture.network, full, np.zeros_like(full), ~full, BOX_NEIGHBOURS) > 0.5
    _, parts, sizes, _ = cv2.connectedComponentsWithStats(np.uint8(found))
    areas = sizes[:, cv2.CC_STAT_AREA]
    areas[0] = 0  # the background
    return (areas >= max(1, SMALL_PART * areas.max()))[parts].astype(np.uint8)


def _distance_to(marked: np.ndarray) -> np.ndarray:
    """The distance to the nearest marked pixel; `FAR` if none is marked."""
    if not marked.any():
        return np.full(marked.shape, FAR, np.float32)
    return cv2.distanceTransform(np.uint8(~marked), cv2.DIST_L2, 3)
