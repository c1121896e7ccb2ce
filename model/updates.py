"""The update rule: which frames of a video update the memory (Section 3.3; Section 4.5 discusses other rules)."""

from torch import Tensor


class FixedInterval:
    """The paper's rule: an update every θ frames after the last update or annotation.

    A rule of your own has the same attributes and methods; assign it to `model.inference.InferenceCore.rule` before the
    first frame. A rule that decides by the probabilities of the frame sets `looks`.

    Args:
        mem_every: θ.

    Attributes:
        due: whether the next frame updates the memory if it has no mask.
    """

    looks = False  # whether `tick` needs the probabilities; such a rule must see every frame, so none can be skipped

    def __init__(self, mem_every: int) -> None:
        self.mem_every = mem_every
        self.reset()

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
        self.due = self._elapsed is not None and self._elapsed + 1 >= self.mem_every
        return update

    def reset(self) -> None:
        """Return to the state before the first mask."""
        self._elapsed: int | None = None  # frames since the last update or annotation; None before the first one
        self.due = False


def confirmed(probability: Tensor, first: Tensor) -> Tensor:
    """The masks to memorise: those that the bank predicts, but an object counts as absent if F alone does not find it.

    Otherwise an update memorises the prediction as it is. False positives of an absent object are memorised, too, and
    spread to later frames. The first frame has a true mask and never changes. So where F alone predicts no pixel of an
    object, the smaller probability of both is memorised at each pixel. This is not in the paper.

    Args:
        probability: the probabilities that the bank predicts [1,K+1,H,W], background first.
        first: those that F alone predicts [1,K+1,H,W].

    Returns:
        the masks of the objects [1,K,H,W].
    """
    objects, alone = probability[:, 1:], first[:, 1:]
    # max is much faster than argmax on a CPU; nothing here makes the host wait for a GPU.
    found = (alone >= first.amax(1, keepdim=True)).flatten(2).any(2)
    return objects.where(found[..., None, None], objects.minimum(alone))
