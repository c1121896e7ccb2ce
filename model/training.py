"""The forward pass of training (Section 3, Figure 2a): one clip, both memory banks, every loss term."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.decoder import PreparedDecoding
from model.encoders import KeyFeatures
from model.losses import bootstrapped_cross_entropy, channel_divergence
from model.network import RDE_VOS, soft_aggregation
from model.reading import affinity, readout, similarity

Result = TypeVar("Result")
FrameWeights = Literal["equal", "halved"]
Guidance = Literal["readout", "decoder_input"]


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

    def total(
        self, cross_entropy: dict[int, Tensor], guidance: dict[int, Tensor], consistency: Tensor | None, frames: int
    ) -> Tensor:
        """The loss of clips, L_Seg + μ·L_UG + γ·L_MC (Eq. 10), from the terms that count.

        Args:
            cross_entropy: the scalars that L_Seg adds up (Eq. 9), by the number of the frame.
            guidance: L_UG (Eq. 7), by the number of the frame.
            consistency: L_MC (Eq. 8); None if it does not count.
            frames: the number of frames of a clip.
        """
        halved = self.frame_weights == "halved"
        loss = sum((0.5 ** (frames - t) if halved else 0.5) * term for t, term in cross_entropy.items())
        loss = loss + self.mu * sum(guidance.values())
        return loss if consistency is None else loss + self.gamma * consistency


class ClipResult(NamedTuple):
    """The result of the forward pass of a batch of clips."""

    loss: Tensor  # Eq. 10, to be minimised
    terms: dict[str, Tensor]  # ce_1 ... ce_4, ug_2, ug_4, mc; unweighted, detached
    masks: dict[int, Tensor]  # predictions [B,K,H,W] by frame number, detached


class _Memory(NamedTuple):
    """The memory of one or several frames by position: keys [B,Ck,M] and values [B,K,Cv,M] of M positions."""

    key: Tensor
    value: Tensor

    def append(self, other: "_Memory") -> "_Memory":
        return _Memory(torch.cat([self.key, other.key], dim=2), torch.cat([self.value, other.value], dim=3))


class ClipTrainer(nn.Module):
    """Runs clips through the network and through both memory banks of training.

    Clips of five frames train all parts (stages 1 to 3). The STM bank, which keeps every frame, segments frames 1 and
    3. The SAM bank, which is the RDE alone, segments frames 2 and 4. Longer clips go on in turns, so that SAM learns
    where more than three updates lead. Clips of three frames (stage 0) have the STM bank only, which segments frames 1
    and 2.

    With a ``rollout`` a clip is segmented as in inference instead: the bank is 2F+L+RDE, starts from the true masks of
    frame 0, and takes in every predicted frame. The first predicted frames get no gradients and no loss. So the network
    meets the errors that grow while its own masks return to it, and learns to undo these errors. Most frames cost a
    forward pass only. L_Seg is the only loss.

    The trainer is a module, so that data-parallel training can wrap the whole pass.

    Args:
        network: the network to train.
        terms: the terms of the loss; by default those of the paper.
        rollout: how many frames after frame 0 are segmented without gradients; 0 for the paper's training.
        recompute: whether encoders and decoder drop their activations and compute them again in the backward pass. The
            gradients are the same; the pass takes less memory and more time. Norms that learn then count each batch
            twice in their running averages.
    """

    def __init__(
        self, network: RDE_VOS, terms: LossTerms | None = None, *, rollout: int = 0, recompute: bool = False
    ) -> None:
        super().__init__()
        self.network = network
        self.terms = terms or LossTerms()
        self.rollout = rollout
        self.recompute = recompute

    def forward(self, frames: Tensor, masks: Tensor, perturbed: Tensor, selector: Tensor, share: float) -> ClipResult:
        """Segment a batch of clips and compute the losses.

        Args:
            frames: ImageNet-normalised [B,T,3,H,W]; T is 5 or a larger odd number, or 3 for static images.
            masks: true masks of K objects [B,T,K,H,W], 0 or 1, that do not overlap.
            perturbed: perturbed masks of frame 0 [B,K,H,W], 0 or 1, which the paper's memory banks start from.
            selector: [B,K], 1 where a clip has an object in the slot, 0 where the slot is empty.
            share: share of the pixels that L_Seg counts; see `model.losses.hard_pixel_share`.

        Raises:
            ValueError: the number of frames is even or less than 3, or leaves less than two frames after the rollout.
        """
        length = frames.shape[1]
        if length < 3 or length % 2 == 0:
            raise ValueError(f"clips have an odd number of frames from 3 on, not {length}")
        if self.rollout and length < self.rollout + 3:  # a frame that SAM learns to fold, and a frame to read the RDE
            raise ValueError(
                f"a rollout of {self.rollout} frames needs clips of {self.rollout + 3} frames, not {length}"
            )
        clip = _Clip(self, frames, masks, perturbed, selector, share)
        if self.rollout:
            clip.train_rollout()
        elif length == 3:
            clip.train_static()
        else:
            clip.train_video()
        loss = self.terms.total(clip.cross_entropy, clip.guidance, clip.consistency, length)
        terms = {f"ce_{t}": term.detach() for t, term in clip.cross_entropy.items()}
        terms |= {f"ug_{t}": term.detach() for t, term in clip.guidance.items()}
        if clip.consistency is not None:
            terms["mc"] = clip.consistency.detach()
        return ClipResult(loss, terms, clip.predicted)


class _Clip:
    """One forward pass: the features of the clips' frames, and the losses so far."""

    def __init__(
        self,
        trainer: ClipTrainer,
        frames: Tensor,
        masks: Tensor,
        perturbed: Tensor,
        selector: Tensor,
        share: float,
    ) -> None:
        self.network, self.terms, self.share = trainer.network, trainer.terms, share
        self.recompute = trainer.recompute
        self.frames, self.perturbed, self.selector = frames, perturbed.to(frames), selector.to(frames)
        self.first_masks = masks[:, 0].to(frames)
        # Class of each pixel: i where object i is, 0 where no object is.
        self.target = (masks * torch.arange(1, masks.shape[2] + 1, device=masks.device).view(-1, 1, 1)).sum(2).long()
        # The terms of the loss so far; those of frames by the number of the frame.
        self.cross_entropy: dict[int, Tensor] = {}
        self.guidance: dict[int, Tensor] = {}
        self.consistency: Tensor | None = None
        self.predicted: dict[int, Tensor] = {}

        self.length = frames.shape[1]
        self.rollout = range(1, 1 + trainer.rollout)
        # By the number of the frame: the features that do not depend on masks.
        self.keys: dict[int, Tensor] = {}
        self.query_values: dict[int, Tensor] = {}
        self.for_values: dict[int, tuple[Tensor, ...]] = {}
        self.for_masks: dict[int, PreparedDecoding] = {}
        self.compute_features([t for t in range(self.length) if t not in self.rollout])
        if self.rollout:
            with torch.no_grad():
                self.compute_features(list(self.rollout))

    def compute_features(self, numbers: list[int]) -> None:
        """Compute the features that do not depend on masks for the frames of some numbers, in one pass.

        No bank remembers the last frame, and no bank decodes the first one. The frames with the same number in their
        clips stay together.
        """
        remembered = [t for t in numbers if t < self.length - 1]
        decoded = [t for t in numbers if t > 0]
        batch = len(self.frames)
        features = self.run(self.network.encode_key, torch.cat([self.frames[:, t] for t in numbers]))
        for_values = self.run(self.network.prepare_encoding, features.f16[: batch * len(remembered)])
        of_decoded = KeyFeatures(*(part[-batch * len(decoded) :] for part in features))
        for_masks = self.run(self.network.prepare_decoding, of_decoded)
        self.keys |= zip(numbers, features.key.split(batch), strict=True)
        self.query_values |= zip(numbers, features.query_value.split(batch), strict=True)
        by_frame = zip(*(part.split(batch) for part in for_values), strict=True)
        self.for_values |= zip(remembered, by_frame, strict=True)
        by_frame = zip(*(part.split(batch) for part in for_masks), strict=True)
        self.for_masks |= zip(decoded, map(PreparedDecoding._make, by_frame), strict=True)

    def train_static(self) -> None:
        """Stage 0: three deformations of one image, and the STM bank alone."""
        value_0, true_value_0 = self.encode_first()
        self.consistency_loss(value_0, true_value_0)
        stm = self.memory(0, value_0)

        (logits_1,) = self.decode(1, self.read(stm, 1))
        self.segmentation_loss(1, logits_1)
        stm = stm.append(self.memory(1, self.encode(1, logits_1)))

        (logits_2,) = self.decode(2, self.read(stm, 2))
        self.segmentation_loss(2, logits_2)

    def train_video(self) -> None:
        """Section 3.3: the STM bank segments the frames of odd numbers, and the SAM bank those of even numbers."""
        value, true_value = self.encode_first()
        self.consistency_loss(value, true_value)
        stm, rde = self.memory(0, value), (self.keys[0], value)
        for t in range(1, self.length - 1):
            stm_readout = self.read(stm, t)
            if t % 2:
                (stm_logits,) = self.decode(t, stm_readout)
                self.stm_segmentation_loss(t, stm_logits)
            else:
                readout = self.read(self.by_position(rde), t)
                logits, stm_logits = self.decode(t, readout, stm_readout)
                self.segmentation_loss(t, logits)
                self.guidance_loss(t, readout, stm_readout)
            value = self.encode(t, stm_logits)
            stm = stm.append(self.memory(t, value))
            rde = self.network.aggregate(rde, (self.keys[t], value))

        # Nothing is segmented after the last frame, so the STM bank only guides there.
        t = self.length - 1
        readout = self.read(self.by_position(rde), t)
        (logits,) = self.decode(t, readout)
        self.segmentation_loss(t, logits)
        if self.terms.unbiased_guidance:
            self.guidance_loss(t, readout, self.read(stm, t))

    def train_rollout(self) -> None:
        """Segment all frames as the engine does with θ = 1; only the frames after the rollout have losses."""
        value = self.run(self.network.encode_value, self.frames[:, 0], self.for_values[0], self.first_masks)
        first = rde = (self.keys[0], value)
        bank = [first]
        for t in range(1, self.length):
            if t == self.rollout.stop:
                # Older PyTorch would use the rollout's casts of the weights again, which have no gradients.
                torch.clear_autocast_cache()
            with torch.set_grad_enabled(t not in self.rollout and torch.is_grad_enabled()):
                memory = reduce(_Memory.append, map(self.by_position, bank))
                (logits,) = self.decode(t, self.read(memory, t))
                if t not in self.rollout:
                    self.segmentation_loss(t, logits)
                if t < self.length - 1:
                    latest = (self.keys[t], self.encode(t, logits))
                    rde = self.network.aggregate(rde, latest)
                    bank = [first, first, latest, rde]

    def encode_first(self) -> tuple[Tensor, Tensor | None]:
        """The values [B,K,Cv,h,w] of frame 0 with the perturbed masks and, for L_MC, with the true masks.

        One pass encodes both. Without L_MC the second value is None.
        """
        image, prepared = self.frames[:, 0], self.for_values[0]
        if not self.terms.mask_consistency:
            return self.run(self.network.encode_value, image, prepared, self.perturbed), None
        image, *prepared = (part.repeat(2, 1, 1, 1) for part in (image, *prepared))
        masks = torch.cat([self.perturbed, self.first_masks])
        return self.run(self.network.encode_value, image, tuple(prepared), masks).chunk(2)

    def encode(self, t: int, logits: Tensor) -> Tensor:
        """The value of frame t with its predicted masks [B,K,Cv,h,w]."""
        masks = logits.softmax(1)[:, 1:]
        return self.run(self.network.encode_value, self.frames[:, t], self.for_values[t], masks)

    def memory(self, t: int, value: Tensor) -> _Memory:
        """The memory of frame t."""
        return self.by_position((self.keys[t], value))

    def by_position(self, embedding: tuple[Tensor, Tensor]) -> _Memory:
        """The memory of a key [B,Ck,h,w] and values [B,K,Cv,h,w]."""
        return _Memory(embedding[0].flatten(2), embedding[1].flatten(3))

    def read(self, memory: _Memory, t: int) -> Tensor:
        """The readout for frame t from all positions (Eq. 2 and 3): [B,K,Cv,h,w]."""
        key = self.keys[t]
        weights = affinity(similarity(memory.key, key.flatten(2)))
        return readout(weights, memory.value).unflatten(3, key.shape[2:])

    def decode(self, t: int, *readouts: Tensor) -> list[Tensor]:
        """Aggregated logits of frame t [B,K+1,H,W] for each readout; empty slots get no mask.

        All readouts pass the decoder together.
        """
        logits = self.run(self.network.decode, torch.cat(readouts, dim=1), self.for_masks[t])
        probabilities = (part.float().sigmoid() for part in logits.chunk(len(readouts), dim=1))
        return [soft_aggregation(part * self.selector[:, :, None, None]) for part in probabilities]

    def run(self, part: Callable[..., Result], *inputs: Tensor | tuple[Tensor, ...]) -> Result:
        """Run a part of the network; with ``recompute`` keep only the inputs for the backward pass."""
        return checkpoint(part, *inputs, use_reentrant=False) if self.recompute else part(*inputs)

    def segmentation_loss(self, t: int, logits: Tensor) -> None:
        """L_Seg: compare the prediction for frame t with the true masks (Eq. 9)."""
        self.predicted[t] = logits.detach().softmax(1)[:, 1:]
        # An empty slot is not a class. As a class it would take a share of the probability of every pixel.
        empty = torch.cat([self.selector.new_ones(len(logits), 1), self.selector], dim=1) == 0
        logits = logits.masked_fill(empty[:, :, None, None], float("-inf"))
        self.cross_entropy[t] = bootstrapped_cross_entropy(logits, self.target[:, t], self.share)

    def stm_segmentation_loss(self, t: int, logits: Tensor) -> None:
        """L_Seg of a frame that the STM bank segments; Table 6 can leave this loss out."""
        if self.terms.stm_segmentation:
            self.segmentation_loss(t, logits)
        else:
            self.predicted[t] = logits.detach().softmax(1)[:, 1:]

    def guidance_loss(self, t: int, readout: Tensor, stm_readout: Tensor) -> None:
        """L_UG: pull the SAM bank's readout for frame t to the STM bank's (Eq. 7)."""
        if not self.terms.unbiased_guidance:
            return
        if self.terms.guidance == "decoder_input":
            query_value = self.query_values[t][:, None].expand_as(readout)
            readout, stm_readout = (torch.cat([part, query_value], dim=2) for part in (readout, stm_readout))
        self.guidance[t] = channel_divergence(teacher=stm_readout, student=readout)

    def consistency_loss(self, value: Tensor, true_value: Tensor | None) -> None:
        """L_MC: pull the value with the perturbed masks to the value with the true masks (Eq. 8)."""
        if self.terms.mask_consistency:
            self.consistency = channel_divergence(teacher=true_value, student=value)
