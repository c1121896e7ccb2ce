"""The forward pass of training (Section 3, Figure 2a): one clip, both memory banks, all loss terms."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.decoder import soft_aggregation
from model.encoders import KeyFeatures
from model.losses import LossTerms, bootstrapped_cross_entropy, channel_divergence
from model.network import RDE_VOS
from model.reading import Embedding, read

Result = TypeVar("Result")


class LossTerm(NamedTuple):
    """A term of Eq. 10."""

    name: str  # ce_1 ... ce_4 (L_Seg), ug_2, ug_4 (L_UG) or mc (L_MC); the number is that of the frame
    value: Tensor  # a scalar, unweighted
    weight: float


class ClipResult(NamedTuple):
    """The result of the forward pass of a batch of clips."""

    loss: Tensor  # Eq. 10, to be minimised
    terms: dict[str, Tensor]  # the terms by name; unweighted, detached
    masks: dict[int, Tensor]  # predictions [B,K,H,W] by frame number, detached


class ClipLoss(nn.Module):
    """The loss of clips, which run through the network and through both memory banks of training.

    Clips of five frames train all parts (stages 1 to 3). The STM bank, which keeps every frame, segments frames 1 and
    3. The SAM bank, which is the RDE alone, segments frames 2 and 4. Longer clips continue to alternate, so that SAM is
    trained on more than three updates. Clips of three frames (stage 0) have the STM bank only, which segments frames 1
    and 2.

    It is a module, so that DistributedDataParallel can wrap the whole pass.

    Args:
        terms: the terms of the loss; by default those of the paper.
        recompute: whether encoders and decoder use activation checkpointing. The gradients are the same; the pass
            takes less memory and more time. Batch norms that are trained then count each batch twice in their running
            averages.
    """

    def __init__(self, network: RDE_VOS, terms: LossTerms | None = None, *, recompute: bool = False) -> None:
        super().__init__()
        self.network = network
        self.terms = terms or LossTerms()
        self.recompute = recompute

    def forward(
        self, frames: Tensor, masks: Tensor, perturbed: Tensor, selector: Tensor, hard_fraction: float
    ) -> ClipResult:
        """Segment a batch of clips and compute the losses.

        Args:
            frames: ImageNet-normalised [B,T,3,H,W]; T is 5 or a larger odd number, or 3 for static images.
            masks: ground-truth masks of K objects [B,T,K,H,W], 0 or 1, that do not overlap.
            perturbed: perturbed masks of frame 0 [B,K,H,W], 0 or 1, which initialise both banks.
            selector: [B,K], 1 where a clip has an object in the slot, 0 where the slot is empty.
            hard_fraction: the fraction of the pixels that L_Seg counts; see `model.losses.hard_fraction_at`.

        Raises:
            ValueError: the number of frames is even or less than 3.
        """
        length = frames.shape[1]
        if length < 3 or length % 2 == 0:
            raise ValueError(f"the number of frames of a clip is odd and >= 3, not {length}")
        clip = _Clip(self, frames, masks, perturbed, selector, hard_fraction)
        if length == 3:
            clip.segment_static()
        else:
            clip.segment_video()
        loss = sum(term.weight * term.value for term in clip.losses)
        return ClipResult(loss, {term.name: term.value.detach() for term in clip.losses}, clip.predicted)


class _Clip:
    """One forward pass: the features of the clips' frames, and the losses so far."""

    def __init__(
        self,
        loss: ClipLoss,
        frames: Tensor,
        masks: Tensor,
        perturbed: Tensor,
        selector: Tensor,
        hard_fraction: float,
    ) -> None:
        self.network, self.terms, self.hard_fraction = loss.network, loss.terms, hard_fraction
        self.recompute = loss.recompute
        self.frames, self.perturbed, self.selector = frames, perturbed.to(frames), selector.to(frames)
        self.first_masks = masks[:, 0].to(frames)
        # The class of each pixel: i for object i, 0 for the background.
        self.target = (masks * torch.arange(1, masks.shape[2] + 1, device=masks.device).view(-1, 1, 1)).sum(2).long()
        self.losses: list[LossTerm] = []  # so far
        self.predicted: dict[int, Tensor] = {}
        # All frames are encoded in one pass, grouped by frame number.
        features = self.run(self.network.encode_key, frames.transpose(0, 1).flatten(0, 1))
        by_frame = zip(*(part.split(len(frames)) for part in features), strict=True)
        self.features = [KeyFeatures(*parts) for parts in by_frame]

    def segment_static(self) -> None:
        """Stage 0: three deformations of one image, with the STM bank alone."""
        value_0, true_value_0 = self.encode_first()
        self.consistency_loss(value_0, true_value_0)
        stm = [self.embedding(0, value_0)]

        (logits_1,) = self.decode(1, self.read(stm, 1))
        self.segmentation_loss(1, logits_1)
        stm.append(self.embedding(1, self.encode(1, logits_1)))

        (logits_2,) = self.decode(2, self.read(stm, 2))
        self.segmentation_loss(2, logits_2)

    def segment_video(self) -> None:
        """The STM bank segments the odd frames, and the SAM bank the even frames (Section 3.3).

        The paper counts frames from 1. L_UG is computed where the SAM bank segments: the indicator of Eq. 10. Both
        banks get the masks of the STM bank.
        """
        value, true_value = self.encode_first()
        self.consistency_loss(value, true_value)
        first = self.embedding(0, value)
        stm, rde = [first], first
        last = len(self.features) - 1
        for t in range(1, last):
            stm_readout = self.read(stm, t)
            if t % 2:
                (stm_logits,) = self.decode(t, stm_readout)
                self.segmentation_loss(t, stm_logits, counts=self.terms.stm_segmentation)  # Table 6 switches it off
            else:
                readout = self.read([rde], t)
                logits, stm_logits = self.decode(t, readout, stm_readout)
                self.segmentation_loss(t, logits)
                self.guidance_loss(t, readout, stm_readout)
            latest = self.embedding(t, self.encode(t, stm_logits))
            stm.append(latest)
            rde = self.network.aggregate(rde, latest)

        # No frame follows the last one, so there the STM bank serves L_UG only.
        readout = self.read([rde], last)
        (logits,) = self.decode(last, readout)
        self.segmentation_loss(last, logits)
        if self.terms.unbiased_guidance:
            self.guidance_loss(last, readout, self.read(stm, last))

    def encode_first(self) -> tuple[Tensor, Tensor | None]:
        """The values [B,K,Cv,h,w] of frame 0 with the perturbed masks and, for L_MC, with the ground-truth masks.

        One pass encodes both. Without L_MC the second value is None.
        """
        image, f16 = self.frames[:, 0], self.features[0].f16
        if not self.terms.mask_consistency:
            return self.run(self.network.encode_value, image, f16, self.perturbed), None
        image, f16 = (part.repeat(2, 1, 1, 1) for part in (image, f16))
        masks = torch.cat([self.perturbed, self.first_masks])
        return self.run(self.network.encode_value, image, f16, masks).chunk(2)

    def encode(self, t: int, logits: Tensor) -> Tensor:
        """The value of frame t with its predicted masks [B,K,Cv,h,w]."""
        masks = logits.softmax(1)[:, 1:]
        return self.run(self.network.encode_value, self.frames[:, t], self.features[t].f16, masks)

    def embedding(self, t: int, value: Tensor) -> Embedding:
        """The embedding of frame t with the values of its objects."""
        return Embedding(self.features[t].key, value)

    def read(self, memory: list[Embedding], t: int) -> Tensor:
        """The readout for frame t (Eq. 2 and 3): [B,K,Cv,h,w]."""
        return read(memory, self.features[t].key, self.network.similarity)

    def decode(self, t: int, *readouts: Tensor) -> list[Tensor]:
        """Aggregated logits of frame t [B,K+1,H,W] for each readout; empty slots get no mask.

        All readouts pass the decoder together.
        """
        logits = self.run(self.network.decode, torch.cat(readouts, dim=1), self.features[t])
        probabilities = (part.float().sigmoid() for part in logits.chunk(len(readouts), dim=1))
        return [soft_aggregation(part * self.selector[:, :, None, None]) for part in probabilities]

    def run(self, part: Callable[..., Result], *inputs: Tensor | KeyFeatures) -> Result:
        """Run a part of the network, with activation checkpointing if ``recompute``."""
        return checkpoint(part, *inputs, use_reentrant=False) if self.recompute else part(*inputs)

    def segmentation_loss(self, t: int, logits: Tensor, *, counts: bool = True) -> None:
        """L_Seg: compare the prediction for frame t with the ground truth (Eq. 9), if it ``counts``."""
        self.predicted[t] = logits.detach().softmax(1)[:, 1:]
        if counts:
            loss = bootstrapped_cross_entropy(logits, self.target[:, t], self.hard_fraction)
            self.losses.append(LossTerm(f"ce_{t}", loss, self.terms.frame_weight(t, len(self.features))))

    def guidance_loss(self, t: int, readout: Tensor, stm_readout: Tensor) -> None:
        """L_UG: pull the SAM bank's readout for frame t to the STM bank's (Eq. 7)."""
        if not self.terms.unbiased_guidance:
            return
        if self.terms.guidance == "decoder_input":
            query_value = self.features[t].query_value[:, None].expand_as(readout)
            readout, stm_readout = (torch.cat([part, query_value], dim=2) for part in (readout, stm_readout))
        loss = channel_divergence(teacher=stm_readout, student=readout)
        self.losses.append(LossTerm(f"ug_{t}", loss, self.terms.mu))

    def consistency_loss(self, value: Tensor, true_value: Tensor | None) -> None:
        """L_MC: pull ``value``, the paper's v̌ with the perturbed masks, to ``true_value``, its v (Eq. 8)."""
        if self.terms.mask_consistency:
            loss = channel_divergence(teacher=true_value, student=value)
            self.losses.append(LossTerm("mc", loss, self.terms.gamma))
