"""The losses of Section 3.3: L_Seg (Eq. 9), L_UG (Eq. 7) and L_MC (Eq. 8)."""

from torch import Tensor
from torch.nn import functional as F


def bootstrapped_cross_entropy(logits: Tensor, target: Tensor, share: float) -> Tensor:
    """Cross entropy over the hardest pixels of each clip, averaged over the clips.

    Args:
        logits: aggregated logits [B,C,H,W], background first; −inf where a clip lacks an object.
        target: class of each pixel [B,H,W], int64.
        share: share of the pixels that count, in (0, 1]; these are the pixels of the highest loss.

    Returns:
        a scalar.
    """
    loss = F.cross_entropy(logits, target, reduction="none").flatten(1)
    if share < 1:
        loss = loss.topk(int(share * loss.shape[1]), dim=1).values
    return loss.mean()


def channel_divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """Σ_objects KL(softmax(teacher) ‖ softmax(student)) over channels: L_UG for readouts, L_MC for values.

    The divergence of an object is the mean over all elements of its [B,Cv,h,w] tensor. Gradients flow into both sides.

    Args:
        teacher, student: [B,K,Cv,h,w].

    Returns:
        a scalar.
    """
    teacher, student = teacher.float(), student.float()
    divergence = F.kl_div(student.log_softmax(2), teacher.log_softmax(2), reduction="none", log_target=True)
    return divergence.mean() * teacher.shape[1]


def hard_pixel_share(iteration: int, warm_up: tuple[int, int], least: float = 0.15) -> float:
    """The share of pixels that `bootstrapped_cross_entropy` counts: first 1, then linearly less, down to ``least``.

    Args:
        iteration: number of the training iteration, from 0.
        warm_up: the iterations at which the share starts to fall, and at which the share reaches ``least``.
        least: the final share, in (0, 1].
    """
    start, end = warm_up
    if iteration >= end:  # first, because start and end may be equal
        return least
    return least + (1 - least) * min(1.0, (end - iteration) / (end - start))
