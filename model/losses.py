"""The losses of Section 3.3: L_Seg (Eq. 9), L_UG (Eq. 7) and L_MC (Eq. 8)."""

from torch import Tensor
from torch.nn import functional as F


def bootstrapped_cross_entropy(logits: Tensor, target: Tensor, share: float) -> Tensor:
    """Cross entropy over the hardest pixels of each clip, averaged over the clips.

    Args:
        logits: aggregated logits [B,C,H,W], background first; −inf where a clip lacks an object.
        target: class of each pixel [B,H,W], int64.
        share: how many of the pixels count, the hardest first, in (0, 1].

    Returns:
        a scalar.
    """
    loss = F.cross_entropy(logits, target, reduction="none").flatten(1)
    if share < 1:
        loss = loss.topk(int(share * loss.shape[1]), dim=1).values
    return loss.mean()


def channel_divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """Σ_objects KL(softmax(teacher) ‖ softmax(student)) over channels: L_UG of readouts and L_MC of values.

    Each object's divergence is a mean over every element of its [B,Cv,h,w] tensor. Gradients flow into both sides.

    Args:
        teacher, student: [B,K,Cv,h,w].

    Returns:
        a scalar.
    """
    teacher, student = teacher.float(), student.float()
    divergence = F.kl_div(student.log_softmax(2), teacher.log_softmax(2), reduction="none", log_target=True)
    return divergence.mean() * teacher.shape[1]


def hard_pixel_share(iteration: int, warm_up: tuple[int, int], least: float = 0.15) -> float:
    """How many pixels `bootstrapped_cross_entropy` counts: all at first, then linearly fewer, down to ``least``.

    Args:
        iteration: of the training, from 0.
        warm_up: the iterations at which the share starts to fall and reaches ``least``.
    """
    start, end = warm_up
    if iteration >= end:  # also where the two are one
        return least
    return least + (1 - least) * min(1.0, (end - iteration) / (end - start))
