"""The losses of Section 3.3: L_UG (Eq. 7), L_MC (Eq. 8), L_Seg (Eq. 9), and their weights (Eq. 10)."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

FrameWeights = Literal["equal", "halved"]
Guidance = Literal["readout", "decoder_input"]


def bootstrapped_cross_entropy(logits: Tensor, target: Tensor, hard_fraction: float) -> Tensor:
    """Cross entropy over the hardest pixels of each clip, averaged over the clips: a term of Eq. 9.

    Args:
        logits: aggregated logits [B,C,H,W], background first; −inf where a clip lacks an object.
        target: class of each pixel [B,H,W], int64.
        hard_fraction: the fraction of the pixels that count, in (0, 1]; these are the pixels of the highest loss.

    Returns:
        a scalar.
    """
    loss = F.cross_entropy(logits, target, reduction="none").flatten(1)
    if hard_fraction < 1:
        loss = loss.topk(int(hard_fraction * loss.shape[1]), dim=1).values
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


def hard_fraction_at(iteration: int, warm_up: tuple[int, int], least: float = 0.15) -> float:
    """The fraction of pixels that `bootstrapped_cross_entropy` counts: first 1, then linearly less, down to ``least``.

    Args:
        iteration: number of the training iteration, from 0.
        warm_up: the iterations at which the fraction starts to fall, and at which it reaches ``least``.
        least: the final fraction, in (0, 1].
    """
    start, end = warm_up
    if iteration >= end:  # first, because start and end may be equal
        return least
    if iteration <= start:
        return 1.0
    return least + (1 - least) * (end - iteration) / (end - start)


@dataclass(frozen=True, kw_only=True)
class LossTerms:
    """Which terms of Eq. 10 count, and their weights; Table 6 switches each term off.

    With "equal" weights, the paper's, the cross entropy of each frame weighs ½ (Eq. 9). The authors' release halves the
    total of the cross entropies after each frame instead. So with "halved" weights they weigh 1/16, 1/8, 1/4 and 1/2 in
    clips of five frames, and 1/4 and 1/2 in clips of three. L_UG and L_MC always have their full weights μ and γ.

    A term that is switched off changes no other weight.
    """

    mask_consistency: bool = True  # L_MC
    unbiased_guidance: bool = True  # L_UG
    stm_segmentation: bool = True  # the STM pattern items of L_Seg
    mu: float = 10.0  # weight of L_UG
    gamma: float = 10.0  # weight of L_MC
    frame_weights: FrameWeights = "equal"
    # L_UG compares the readouts (Eq. 7), or, in the release, the decoder's inputs: each readout with the query value.
    guidance: Guidance = "readout"

    def frame_weight(self, t: int, frames: int) -> float:
        """The weight of the cross entropy of frame ``t`` of a clip of ``frames`` frames (Eq. 9)."""
        return 0.5 ** (frames - t) if self.frame_weights == "halved" else 0.5
