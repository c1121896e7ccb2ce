"""Boxes and clicks on the objects of one frame, one after the other, with the effect that they have on the page."""

import cv2
import numpy as np

from annotation import cuts
from annotation.evidence import Picture

CLICK_RADIUS = 1 / 60  # of the short side, as the page has it
MARGIN = 0.05  # of the longer side of a box, as the page has it: clicks may extend the object by it beyond its box
FULL = 0.92  # of a box, as the page has it: a mask that takes more of it has mostly not found its object


class Marks:
    """The mask of a frame whose objects are marked.

    Attributes:
        ids: the mask, uint8 object ids [H,W].
    """

    def __init__(self, picture: Picture) -> None:
        self.ids = np.zeros(picture.full_size, np.uint8)
        self._picture = picture
        self._clicks: dict[int, np.ndarray] = {}  # by object: the bits of the clicked pixels
        self._beyond: dict[int, np.ndarray] = {}  # by object: the pixels outside of its box, bool [H,W]

    def copy(self) -> "Marks":
        """The same marks, which can be changed apart from these."""
        other = Marks(self._picture)
        # The maps of an object are shared: `click` and `draw_box` replace them.
        other.ids, other._clicks, other._beyond = self.ids.copy(), dict(self._clicks), dict(self._beyond)
        return other

    def draw_box(self, object_id: int, box: list[float]) -> bool:
        """Replace the mask of an object by what a box shows; return whether it shows anything.

        Pixels of other objects stay theirs. The box is as for `cuts.from_box`.
        """
        found = cuts.from_box(self._picture, box) > 0
        (left, right), (upper, lower) = sorted(box[::2]), sorted(box[1::2])
        margin = MARGIN * max(right - left, lower - upper)
        y, x = np.ogrid[: found.shape[0], : found.shape[1]]
        inside = (x >= left - margin) & (x < right + margin) & (y >= upper - margin) & (y < lower + margin)
        self._beyond[object_id] = ~inside
        self._apply(object_id, found, self.ids == 0)
        return bool(found.any())

    def click(self, object_id: int, x: int, y: int, *, is_inside: bool) -> None:
        """Correct the mask of an object by a click on a pixel, inside or outside of the object.

        The object does not leave its box, until a click inside of the object is outside of the box.
        """
        mask = self.ids == object_id
        clicked = np.zeros(mask.shape, np.uint8)
        cv2.circle(clicked, (x, y), max(1, round(CLICK_RADIUS * min(mask.shape))), 1, -1)
        earlier = self._clicks.get(object_id, np.zeros(mask.shape, np.uint8))
        # Earlier clicks count where the mask still agrees with them.
        agrees = np.where(mask, earlier == cuts.EARLIER_INSIDE, earlier == cuts.EARLIER_OUTSIDE)
        marks = earlier * agrees + cuts.MASK * mask + cuts.OTHER * ((self.ids > 0) & ~mask)
        if object_id in self._beyond:
            if is_inside and self._beyond[object_id][y, x]:
                del self._beyond[object_id]
            else:
                marks += cuts.BEYOND * self._beyond[object_id]
        marks += (cuts.INSIDE if is_inside else cuts.OUTSIDE) * clicked
        found = cuts.from_strokes(self._picture, marks.astype(np.uint8)) > 0
        bit = cuts.EARLIER_INSIDE if is_inside else cuts.EARLIER_OUTSIDE
        self._clicks[object_id] = np.where(clicked > 0, np.uint8(bit), earlier)
        self._apply(object_id, found, (self.ids == 0) | ((clicked > 0) & is_inside))

    def _apply(self, object_id: int, found: np.ndarray, free: np.ndarray) -> None:
        """Give an object the pixels where it was found, of those that are ``free`` or its own; both bool [H,W]."""
        own = self.ids == object_id
        self.ids[own & ~found] = 0
        self.ids[found & (free | own)] = object_id

    def fills(self, object_id: int, box: list[float]) -> bool:
        """Whether an object fills a box, so that its outline is probably wrong."""
        (left, right), (upper, lower) = sorted(box[::2]), sorted(box[1::2])
        return bool((self.ids == object_id).sum() > FULL * (right - left) * (lower - upper))
