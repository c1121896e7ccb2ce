"""The forward pass of training (Section 3, Figure 2a): one clip, both memory banks, every loss term."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.decoder import DecoderFrame
from model.encoders import KeyFeatures
from model.losses import bootstrapped_cross_entropy, channel_divergence
from model.network import RDE_VOS, soft_aggregation
from model.reading import affinity, readout, similarity

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class LossTerms:
    """Which terms of Eq. 10 count, and how much; Table 6 switches each off."""

    mask_consistency: bool = True  # L_MC
    unbiased_guidance: bool = True  # L_UG
    stm_segmentation: bool = True  # the STM pattern items of L_Seg
    mu: float = 10.0  # weight of L_UG
    gamma: float = 10.0  # weight of L_MC


class ClipResult(NamedTuple):
    """What the forward pass of a batch of clips returns."""

    loss: Tensor  # Eq. 10, to be minimised
    terms: dict[str, Tensor]  # ce_1 ... ce_4, ug_2, ug_4, mc; unweighted, detached
    masks: dict[int, Tensor]  # predictions [B,K,H,W] by frame number, detached


class _Memory(NamedTuple):
    """A frame, or several behind each other: keys [B,Ck,M] and values [B,K,Cv,M] of M positions."""

    key: Tensor
    value: Tensor

    def append(self, other: "_Memory") -> "_Memory":
        return _Memory(torch.cat([self.key, other.key], dim=2), torch.cat([self.value, other.value], dim=3))


class ClipTrainer(nn.Module):
    """Runs clips through the network and both of training's memory banks.

    Clips of five frames train everything (stages 1 to 3): the STM bank, which keeps every frame, segments frames 1 and
    3; the SAM bank, which is the RDE alone, segments frames 2 and 4. Clips of three frames (stage 0) train the STM bank
    on frames 1 and 2. It is a module so that data-parallel training can wrap the whole pass.

    With ``recompute``, encoders and decoder forget their activations and compute them again on the way back: the same
    gradients for less memory and more time. Norms that learn then count each batch twice in their running averages.
    """

    def __init__(self, network: RDE_VOS, terms: LossTerms | None = None, *, recompute: bool = False) -> None:
        super().__init__()
        self.network = network
        self.terms = terms or LossTerms()
        self.recompute = recompute

    def forward(self, frames: Tensor, masks: Tensor, perturbed: Tensor, selector: Tensor, share: float) -> ClipResult:
        """Segment a batch of clips and compare.

        Args:
            frames: ImageNet-normalised [B,T,3,H,W], T being 5, or 3 for static images.
            masks: true masks of K objects [B,T,K,H,W], 0 or 1, that do not overlap.
            perturbed: frame 0's masks as the memory gets to see them [B,K,H,W], 0 or 1.
            selector: [B,K], 1 where a clip has an object in the slot, 0 where it has none.
            share: of the pixels that L_Seg counts; see `model.losses.hard_pixel_share`.
        """
        clip = _Clip(self, frames, masks, perturbed, selector, share)
        if frames.shape[1] == 3:
            clip.train_static()
        else:
            clip.train_video()
        return ClipResult(clip.loss, clip.loss_terms, clip.predicted)


class _Clip:
    """One forward pass: the features of the clips' frames, and the losses as they come together."""

    def __init__(
        self,
        trainer: ClipTrainer,
        frames: Tensor,
        masks: Tensor,
        perturbed: Tensor,
        selector: Tensor,
        share: float,
    ) -> None:
        self.network, self.settings, self.share = trainer.network, trainer.terms, share
        self.recompute = trainer.recompute
        self.frames, self.perturbed, self.selector = frames, perturbed.to(frames), selector.to(frames)
        self.first_masks = masks[:, 0].to(frames)
        # Class of each pixel: 0 where no object is, i where object i is.
        self.target = (masks * torch.arange(1, masks.shape[2] + 1, device=masks.device).view(-1, 1, 1)).sum(2).long()
        self.loss = frames.new_zeros(())
        self.loss_terms: dict[str, Tensor] = {}
        self.predicted: dict[int, Tensor] = {}

        # One pass for what does not depend on any mask, in all frames that need it: none decodes the first one or
        # remembers the last one. A frame's batch stays together.
        batch, length = frames.shape[:2]
        features = self.run(self.network.encode_key, frames.transpose(0, 1).flatten(0, 1))
        self.keys = features.key.chunk(length)
        for_values = self.run(self.network.prepare_encoding, features.f16[:-batch])
        self.for_values = list(zip(*(part.chunk(length - 1) for part in for_values), strict=True))
        for_masks = self.run(self.network.prepare_decoding, KeyFeatures(*(part[batch:] for part in features)))
        by_frame = zip(*(part.chunk(length - 1) for part in for_masks), strict=True)
        self.for_masks = dict(enumerate(map(DecoderFrame._make, by_frame), start=1))

    def train_video(self) -> None:
        """Section 3.3 with five frames; the numbers are the frames', from 0."""
        value_0 = self.remember_first()
        stm = self.memory(0, value_0)

        (logits_1,) = self.decode(1, self.read(stm, 1))
        self.segment(1, logits_1, counts=self.settings.stm_segmentation)
        value_1 = self.encode(1, logits_1)
        stm = stm.append(self.memory(1, value_1))

        rde = self.network.aggregate((self.keys[0], value_0), (self.keys[1], value_1))
        read_2, guide_2 = self.read(self.flat(rde), 2), self.read(stm, 2)
        logits_2, stm_logits_2 = self.decode(2, read_2, guide_2)
        self.segment(2, logits_2)
        self.guide(2, guide_2, read_2)
        value_2 = self.encode(2, stm_logits_2)
        stm = stm.append(self.memory(2, value_2))

        (logits_3,) = self.decode(3, self.read(stm, 3))
        self.segment(3, logits_3, counts=self.settings.stm_segmentation)
        value_3 = self.encode(3, logits_3)

        rde = self.network.aggregate(rde, (self.keys[2], value_2))
        rde = self.network.aggregate(rde, (self.keys[3], value_3))
        read_4 = self.read(self.flat(rde), 4)
        self.segment(4, *self.decode(4, read_4))
        if self.settings.unbiased_guidance:
            self.guide(4, self.read(stm.append(self.memory(3, value_3)), 4), read_4)

    def train_static(self) -> None:
        """Stage 0: three deformations of one image, and the STM bank alone."""
        stm = self.memory(0, self.remember_first())
        (logits_1,) = self.decode(1, self.read(stm, 1))
        self.segment(1, logits_1)
        stm = stm.append(self.memory(1, self.encode(1, logits_1)))
        self.segment(2, *self.decode(2, self.read(stm, 2)))

    def remember_first(self) -> Tensor:
        """The value of frame 0 with its perturbed masks; L_MC draws it to that of the true masks (Eq. 8)."""
        image, frame = self.frames[:, 0], self.for_values[0]
        if not self.settings.mask_consistency:
            return self.run(self.network.encode_value, image, frame, self.perturbed)
        image, *frame = (part.repeat(2, 1, 1, 1) for part in (image, *frame))
        both = torch.cat([self.perturbed, self.first_masks])
        values = self.run(self.network.encode_value, image, tuple(frame), both)
        perturbed, true = values.chunk(2)
        divergence = channel_divergence(teacher=true, student=perturbed)
        self.add("mc", divergence, self.settings.gamma)
        return perturbed

    def memory(self, t: int, value: Tensor) -> _Memory:
        """Frame t as memory."""
        return self.flat((self.keys[t], value))

    def flat(self, embedding: tuple[Tensor, Tensor]) -> _Memory:
        """A key [B,Ck,h,w] and value [B,K,Cv,h,w] by position."""
        return _Memory(embedding[0].flatten(2), embedding[1].flatten(3))

    def read(self, memory: _Memory, t: int) -> Tensor:
        """The readout for frame t, from all positions (Eq. 2 and 3): [B,K,Cv,h,w]."""
        key = self.keys[t]
        weights = affinity(similarity(memory.key, key.flatten(2)))
        return readout(weights, memory.value).unflatten(3, key.shape[2:])

    def decode(self, t: int, *reads: Tensor) -> list[Tensor]:
        """Aggregated logits of frame t [B,K+1,H,W] for each readout; slots without an object stay empty.

        The readouts pass the decoder together.
        """
        logits = self.run(self.network.decode, torch.cat(reads, dim=1), self.for_masks[t])
        probabilities = (part.float().sigmoid() for part in logits.chunk(len(reads), dim=1))
        return [soft_aggregation(part * self.selector[:, :, None, None]) for part in probabilities]

    def encode(self, t: int, logits: Tensor) -> Tensor:
        """The value of frame t with its predicted masks [B,K,Cv,h,w]."""
        masks = logits.softmax(1)[:, 1:]
        return self.run(self.network.encode_value, self.frames[:, t], self.for_values[t], masks)

    def run(self, part: Callable[..., Result], *inputs: Tensor | tuple[Tensor, ...]) -> Result:
        """Run a part of the network, and keep what the way back needs, or only the inputs."""
        return checkpoint(part, *inputs, use_reentrant=False) if self.recompute else part(*inputs)

    def segment(self, t: int, logits: Tensor, counts: bool = True) -> None:
        """Compare the prediction for frame t with the truth (Eq. 9)."""
        self.predicted[t] = logits.detach().softmax(1)[:, 1:]
        if counts:
            # An empty slot is no class: without this, it would take a share of every pixel's probability.
            empty = torch.cat([self.selector.new_ones(len(logits), 1), self.selector], dim=1) == 0
            logits = logits.masked_fill(empty[:, :, None, None], float("-inf"))
            loss = bootstrapped_cross_entropy(logits, self.target[:, t], self.share)
            self.add(f"ce_{t}", loss, 0.5)

    def guide(self, t: int, guide: Tensor, read: Tensor) -> None:
        """Draw the SAM bank's readout for frame t to the STM bank's (Eq. 7)."""
        if self.settings.unbiased_guidance:
            self.add(f"ug_{t}", channel_divergence(teacher=guide, student=read), self.settings.mu)

    def add(self, name: str, term: Tensor, weight: float) -> None:
        """Count a loss term (Eq. 10)."""
        self.loss_terms[name] = term.detach()
        self.loss = self.loss + weight * term
