"""The update rule: which frames of a video update the memory (Section 3.3; Section 4.5 discusses other rules)."""

from torch import Tensor

LEAST_AGREEMENT = 0.1  # the IoU of an object's two masks below which `confirmed` doubts it


class FixedInterval:
    """The paper's rule: an update every θ frames after the last update or annotation.

    A rule of your own has the same attributes and methods; assign it to `model.inference.InferenceCore.rule` before the
    first frame. A rule that decides by the probabilities of the frame sets `looks`.

    Args:
        mem_every: θ.
    """

    looks = False  # whether `tick` needs the probabilities; such a rule must see every frame, so none can be skipped

    def __init__(self, mem_every: int) -> None:
        self.mem_every = mem_every
        self._elapsed: int | None = None  # frames since the last update or annotation; None before the first one

    @property
    def due(self) -> bool:
        """Whether the next frame updates the memory if it has no mask."""
        return self._elapsed is not None and self._elapsed + 1 >= self.mem_every

    def tick(self, annotated: bool = False, probability: Tensor | None = None) -> bool:
        """Advance to the next frame, and return whether it updates the memory.

        Args:
            annotated: whether the frame has a mask.
            probability: the probabilities of the frame [1,K+1,H,W]; None for a frame that is not segmented.
        """
        update = annotated or self.due
        if update:
            self._elapsed = 0
        elif self._elapsed is not None:
            self._elapsed += 1
        return update

    def reset(self) -> None:
        """Return to the state before the first mask."""
        self._elapsed = None


def confirmed(probability: Tensor, first: Tensor) -> Tensor:
    """The masks to memorise: those of the bank, except where the first frame alone contradicts them.

    An update memorises what the network predicts, false pixels of an absent object included, and later frames follow
    them. The first frame has a true mask and never changes. So an object whose mask has an IoU below `LEAST_AGREEMENT`
    with the mask that F alone predicts gets the smaller probability of both at each pixel: mostly it is memorised as
    absent. Objects without a pixel in either mask agree. This is not in the paper.

    Args:
        probability: the probabilities that the bank predicts [1,K+1,H,W], background first.
        first: those that F alone predicts [1,K+1,H,W].

    Returns:
        the masks of the objects [1,K,H,W].
    """
    objects, alone = probability[:, 1:], first[:, 1:]
    # max is much faster than argmax on a CPU; of equal probabilities both classes count.
    seen = objects >= probability.amax(1, keepdim=True)
    found = alone >= first.amax(1, keepdim=True)
    common, union = (seen & found).sum((2, 3)), (seen | found).sum((2, 3))
    doubtful = common < LEAST_AGREEMENT * union  # [1,K]; no host waits for it
    return objects.minimum(alone.where(doubtful[..., None, None], objects))
