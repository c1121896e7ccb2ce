"""The frame-by-frame engine: a video is a loop over `InferenceCore.step`."""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.fast import fast_network
from model.memory import BankSpec, MemoryBank
from model.network import RDE_VOS, soft_aggregation
from util import return_freed_memory

STRIDE = 16  # of the embeddings: frames are padded to multiples of it


class UpdateClock:
    """Says which frames of a video update the memory: every ``mem_every`` frames after the last update or annotation.

    It needs no frame to do so, which lets a reader plan ahead.
    """

    def __init__(self, mem_every: int) -> None:
        self.mem_every = mem_every
        self._elapsed: int | None = None  # frames since the last update or annotation; None before the first one

    @property
    def due(self) -> bool:
        """Whether the next frame updates the memory if it comes without a mask."""
        return self._elapsed is not None and self._elapsed + 1 >= self.mem_every

    def tick(self, annotated: bool = False) -> bool:
        """Pass to the next frame, and return whether it updates the memory."""
        update = annotated or self.due
        if update:
            self._elapsed = 0
        elif self._elapsed is not None:
            self._elapsed += 1
        return update


class InferenceCore:
    """Segments a video frame by frame, in memory that does not grow with it (Figure 1b).

    The engine keeps its memory bank and nothing else: no frame and no result. Every ``mem_every`` frames after the
    last update or annotation, the frame it has just segmented updates the bank.

    Args:
        network: in eval mode; the engine computes where its weights are.
        bank: what the memory holds, in Table 5's notation (`model.memory.BANKS`).
        mem_every: θ, the number of frames between updates.
        top_k: how many memory positions each position of a frame reads.
        amp: compute in half precision (bf16 on CPUs that have it; on GPUs bf16 where they do and fp16 elsewhere).

    Raises:
        ValueError: the bank is unknown, or reads RDE while the network has no SAM; θ or k is not positive.
    """

    def __init__(
        self,
        network: RDE_VOS,
        *,
        bank: str = "2F+L+RDE",
        mem_every: int = 3,
        top_k: int = 40,
        amp: bool = False,
    ) -> None:
        spec = BankSpec.parse(bank)
        if spec.recurrent and not network.config.aggregation:
            raise ValueError(f"bank {bank} reads RDE, but these weights have no SAM; use F, L, F+L, 2F+L, F+2L or STM")
        if mem_every < 1 or top_k < 1:
            raise ValueError(f"mem_every and top_k are at least 1, not {mem_every} and {top_k}")
        device = next(network.parameters()).device
        self.dtype = engine_dtype(device, amp)
        self.network = fast_network(network, self.dtype)
        self.top_k = top_k
        self.object_ids: list[int] = []  # in the order of the probabilities' channels
        self._clock = UpdateClock(mem_every)
        self._memory = MemoryBank(spec, self.network.aggregate)
        self._size: tuple[int, int] | None = None
        self._kinds_seen: set[tuple[bool, bool]] = set()  # of frames: with a mask or not, updating the memory or not

    @property
    def update_due(self) -> bool:
        """Whether the next frame would update the memory. If not, and no one wants its masks, it may be skipped."""
        return self._clock.due

    def skip(self) -> None:
        """Pass over a frame without looking at it.

        Raises:
            ValueError: the frame is due to update the memory.
        """
        if self.update_due:
            raise ValueError("this frame updates the memory and cannot be skipped; give it to step()")
        self._clock.tick()

    @torch.inference_mode()
    def step(self, image: Tensor, mask: Tensor | None = None, *, last: bool = False) -> Tensor:
        """Segment the next frame, and learn the objects of ``mask`` where one is given.

        At a frame with a mask the known objects are segmented first; then every object in the mask takes its place
        there, and the others give way to it. New objects are remembered by this frame from now on.

        Args:
            image: the frame [3,H,W], float, ImageNet-normalised; every frame of a video has the same size.
            mask: integer object ids [H,W], 0 for the background; any ids, known or new.
            last: nothing follows, so the memory needs no update.

        Returns:
            probabilities [K+1,H,W], background first, then the objects in the order of ``object_ids``; all background
            before the first mask.

        Raises:
            ValueError: the image or the mask has the wrong shape, or the mask holds no object.
        """
        self._check(image, mask)
        self._size = (image.shape[1], image.shape[2])
        device = next(self.network.parameters()).device
        if mask is None and not self.object_ids:
            return torch.ones(1, *self._size, device=device)

        update = self._clock.tick(annotated=mask is not None)
        image, padding = pad_to_stride(image[None].to(device))
        probability = image.new_ones(1, 1, *image.shape[2:])
        # An annotated frame with nothing after it is its own answer, without the network.
        if self.object_ids or not last:
            features = self.network.encode_key(image.to(self.dtype))
            key, f16 = features.key, features.f16
            if self.object_ids:
                frame = self.network.prepare_decoding(features)
                del features  # the largest ones have served
                logit = self.network.decode(self._memory.read(key, self.top_k).to(self.dtype), frame)
                del frame
                probability = soft_aggregation(logit.float().sigmoid()).softmax(dim=1)
        if mask is not None:
            probability = self._annotate(probability, pad_to_stride(mask[None, None].to(device))[0])
        if update and not last and (mask is not None or self._memory.spec.changes):
            frame = self.network.prepare_encoding(f16)
            value = self.network.encode_value(image.to(self.dtype), frame, probability[:, 1:].to(self.dtype))
            self._memory.update(key, value)
        if (kind := (mask is not None, update)) not in self._kinds_seen:
            # The first one of a kind lays weights out as its convolutions want them, which leaves holes.
            self._kinds_seen.add(kind)
            return_freed_memory()
        return unpad(probability, padding)[0]

    def _annotate(self, probability: Tensor, mask: Tensor) -> Tensor:
        """Let the objects of a padded mask [1,1,H,W] replace what was predicted [1,K+1,H,W]; aggregate anew."""
        annotated = [int(i) for i in mask.unique() if i != 0]
        self.object_ids += [i for i in annotated if i not in self.object_ids]
        objects = probability.new_zeros(1, len(self.object_ids), *probability.shape[2:])
        objects[:, : probability.shape[1] - 1] = probability[:, 1:] * (mask == 0)
        for i in annotated:
            objects[:, self.object_ids.index(i)] = (mask[:, 0] == i).to(objects)
        return soft_aggregation(objects).softmax(dim=1)

    def _check(self, image: Tensor, mask: Tensor | None) -> None:
        if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
            raise ValueError(f"a frame is a float tensor [3,H,W], not {image.dtype} {list(image.shape)}")
        if self._size not in (None, tuple(image.shape[1:])):
            raise ValueError(f"this frame is {list(image.shape[1:])}, but those before it are {list(self._size)}")
        if mask is None:
            return
        if mask.is_floating_point() or mask.shape != image.shape[1:]:
            raise ValueError(
                f"the mask is {mask.dtype} {list(mask.shape)}, but must be integer ids of the frame's size "
                f"{list(image.shape[1:])}"
            )
        if not mask.any():
            raise ValueError("the mask holds no object; give at least one pixel an id other than 0")


def pad_to_stride(x: Tensor) -> tuple[Tensor, tuple[int, int, int, int]]:
    """Pad [...,H,W] with zeros, centred, to multiples of 16; also return the padding (left, right, top, bottom)."""
    height, width = -x.shape[-2] % STRIDE, -x.shape[-1] % STRIDE
    padding = (width // 2, width - width // 2, height // 2, height - height // 2)
    return F.pad(x, padding), padding


def unpad(x: Tensor, padding: tuple[int, int, int, int]) -> Tensor:
    """Undo `pad_to_stride`."""
    left, right, top, bottom = padding
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


def engine_dtype(device: torch.device, amp: bool) -> torch.dtype:
    """What the engine computes in on a device; CPUs that cannot multiply in 16 bits stay with fp32."""
    if not amp or (device.type == "cpu" and not _has_16_bit_convolutions()):
        return torch.float32
    return half_precision(device)


def _has_16_bit_convolutions() -> bool:
    """Whether oneDNN takes bf16 on this CPU: others refuse it, or take forty times as long as in fp32."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def half_precision(device: torch.device) -> torch.dtype:
    """The 16-bit type to compute in on a device: bf16, or fp16 on GPUs without it."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16
