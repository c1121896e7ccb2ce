"""The frame-by-frame inference engine: a video is a loop over `InferenceCore.step`."""

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.decoder import soft_aggregation
from model.memory import BankSpec, MemoryBank
from model.network import RDE_VOS
from model.reading import Embedding
from model.updates import FixedInterval, confirmed
from util.device import upload
from util.imagenet import normalise

STRIDE = 16  # pixels between neighbouring positions of an embedding; frames are padded to multiples of STRIDE
MIN_SIDE = 2 * STRIDE  # frames are padded to at least MIN_SIDE, because SAM halves the embeddings
FIRST = BankSpec(first=1)  # bank F
MOST_NORMALISED = 20  # a normalised frame goes up to 2.7; one of 0 to 255 is not normalised


def checked_bank(network: RDE_VOS, bank: str, mem_every: int, top_k: int) -> BankSpec:
    """The memory bank of an engine.

    Raises:
        ValueError: the bank is unknown or reads RDE without a SAM, or a number is below 1.
    """
    spec = BankSpec.parse(bank)
    if spec.recurrent and not network.config.aggregation:
        raise ValueError(f"bank {bank} reads RDE, but these weights have no SAM; use F, L, F+L, 2F+L, F+2L or STM")
    if mem_every < 1 or top_k < 1:
        raise ValueError(f"mem_every and top_k are at least 1, not {mem_every} and {top_k}")
    return spec


class InferenceCore:
    """Segments a video frame by frame, with memory that does not grow with the video (Figure 1b).

    The engine keeps a memory bank, but no results, and no frames except the last one. Every ``mem_every`` frames after
    the last update or annotation, the segmented frame updates the bank. The update runs at the start of the next step,
    so the result of the frame is returned earlier.

    Args:
        network: in eval mode. The engine computes on the device and in the precision of the network's weights.
        bank: the memory bank, in Table 5's notation (`model.memory.BANKS`).
        mem_every: θ, the number of frames between updates.
        top_k: the number of memory positions per query position.
        confirm_updates: whether an object is memorised as absent where the first frame alone does not find it; see
            `model.updates.confirmed`. Each update then reads and decodes a second time.

    Attributes:
        object_ids: the ids of the objects in the order of the probabilities' channels.
        labels: 0 and then ``object_ids``, int64 [K+1] on the network's device: the id of each channel.
        rule: decides which frames update the memory; see `model.updates`.
        memory: what the engine remembers; see `model.memory.MemoryBank`. Before the first frame another object may take
            its place, with the same methods and ``reads_updates``.

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
        confirm_updates: bool = False,
    ) -> None:
        spec = checked_bank(network, bank, mem_every, top_k)
        self.network = network
        self.top_k = top_k
        self.confirm_updates = confirm_updates
        self.object_ids: list[int] = []
        self.labels = torch.zeros(1, dtype=torch.int64, device=network.device)
        self._dtype = network.dtype
        self.rule = FixedInterval(mem_every)
        self.memory = MemoryBank(spec, network)
        self._size: torch.Size | None = None  # [H,W] of all frames
        self._normalised = False  # whether an earlier float frame had values outside 0..1
        # The last frame if it is to update the memory: the image, its embedding's key, f16, and the masks of objects.
        self._pending: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    @property
    def update_due(self) -> bool:
        """Whether the next frame updates the memory, or may do so. Other frames may be skipped."""
        return self.rule.looks or self.rule.due

    def skip(self) -> None:
        """Skip a frame without segmenting it.

        Raises:
            ValueError: the frame is due to update the memory.
        """
        if self.update_due:
            raise ValueError("this frame updates the memory and cannot be skipped; give the frame to step()")
        self.rule.tick()

    @torch.inference_mode()
    def remove(self, object_id: int) -> None:
        """Forget an object: its channel of the probabilities, and its part of the memory.

        The objects after it in ``object_ids`` move up by one channel. A later mask with the id adds a new object.
        Without any object left, frames are background until the next mask, as before the first one.

        Raises:
            ValueError: the engine does not track the object.
        """
        if object_id not in self.object_ids:
            raise ValueError(f"object {object_id} is not tracked; the objects are {self.object_ids}")
        channel = self.object_ids.index(object_id)
        self._update_memory()
        self.memory.remove(channel)
        del self.object_ids[channel]
        self._relabel()
        if not self.object_ids:
            self.rule.reset()

    @torch.inference_mode()
    def step(
        self,
        image: Tensor,
        mask: Tensor | np.ndarray | None = None,
        *,
        absent: Collection[int] = (),
        last: bool = False,
    ) -> Tensor:
        """Segment the next frame, and start to track the objects of ``mask``.

        At a frame with a mask the known objects are segmented first. Then the mask overrides the prediction at all its
        object pixels. For new objects this frame is F, the first frame. Known objects without a pixel in the mask keep
        their prediction elsewhere, unless they are ``absent``.

        Args:
            image: the frame [3,H,W], uint8 RGB, or float and ImageNet-normalised; all frames of a video have the same
                size.
            mask: integer object ids [H,W], 0 for the background, of torch or NumPy; any ids, known or new.
            absent: the ids of known objects that are absent from this frame according to the mask. They get no pixel.
            last: whether this is the last frame, which needs no memory update.

        Returns:
            probabilities [K+1,H,W], background first, then the objects in the order of ``object_ids``; all background
            before the first mask.

        Raises:
            ValueError: the image or the mask has the wrong type or shape, an image is not normalised, an absent object
                is unknown or has pixels, or the mask holds no object while no object is absent.
        """
        self._check(image)
        if mask is not None:
            mask, annotated = self._checked_mask(mask, image.shape[1:], absent)
        elif absent:
            raise ValueError("only a mask can show that an object is absent; give the mask of the frame")
        self._size = image.shape[1:]
        device, dtype = self.labels.device, self._dtype
        if mask is None and not self.object_ids:
            return torch.ones(1, *self._size, device=device)

        self._update_memory()
        image = upload(image, device)
        image, padding = pad_to_stride((image if image.is_floating_point() else normalise(image))[None])
        probability = image.new_ones(1, 1, *image.shape[2:])
        image = image.to(dtype)
        # If the first mask belongs to the last frame, the mask itself is the result.
        if self.object_ids or not last:
            features = self.network.encode_key(image)
            key, f16 = features.key, features.f16
            if self.object_ids:
                logit = self.network.decode(self.memory.read(key, self.top_k).to(dtype), features)
                if not self.confirm_updates:
                    del features  # frees f4 and f8, the largest features
                probability = soft_aggregation(logit.float().sigmoid()).softmax(dim=1)
        if mask is not None:
            mask = pad_to_stride(upload(mask, device)[None, None])[0]
            probability = self._annotate(probability, mask, annotated, absent)
        update = self.rule.tick(annotated=mask is not None, probability=probability)
        if update and not last and (mask is not None or self.memory.reads_updates):
            masks = probability[:, 1:]
            if self.confirm_updates and mask is None:
                logit = self.network.decode(self.memory.read(key, self.top_k, FIRST).to(dtype), features)
                masks = confirmed(probability, soft_aggregation(logit.float().sigmoid()).softmax(dim=1))
            # A copy, because the caller may change the result.
            self._pending = image, key, f16, masks.to(dtype, copy=True)
        return unpad(probability, padding)[0]

    def _update_memory(self) -> None:
        """If the previous frame is pending, encode its masks and update the memory bank."""
        if self._pending:
            image, key, f16, masks = self._pending
            self._pending = None
            self.memory.update(Embedding(key, self.network.encode_value(image, f16, masks)))

    def _relabel(self) -> None:
        self.labels = upload(torch.tensor([0, *self.object_ids]), self.network.device)

    def _annotate(
        self, probability: Tensor, mask: Tensor, annotated: Collection[int], absent: Collection[int]
    ) -> Tensor:
        """Let a padded mask [1,1,H,W] override the predicted probabilities [1,K+1,H,W], and aggregate again."""
        self.object_ids += [i for i in annotated if i not in self.object_ids]
        self._relabel()
        objects = probability.new_zeros(1, len(self.object_ids), *probability.shape[2:])
        objects[:, : probability.shape[1] - 1] = probability[:, 1:] * (mask == 0)
        for i in annotated:
            objects[:, self.object_ids.index(i)] = (mask[:, 0] == i).to(objects)
        for i in absent:
            objects[:, self.object_ids.index(i)] = 0
        return soft_aggregation(objects).softmax(dim=1)

    def _check(self, image: Tensor) -> None:
        if not isinstance(image, Tensor):
            kind = type(image).__name__
            raise ValueError(
                f"a frame is a uint8 or float tensor [3,H,W], not {kind}; dataset.images.to_tensor makes it"
            )
        if image.ndim != 3 or image.shape[0] != 3 or not (image.is_floating_point() or image.dtype == torch.uint8):
            raise ValueError(f"a frame is a uint8 or float tensor [3,H,W], not {image.dtype} {list(image.shape)}")
        if self._size not in (None, image.shape[1:]):
            raise ValueError(f"this frame is {list(image.shape[1:])}, but the frames before are {list(self._size)}")
        if image.dtype == torch.uint8 or (self._normalised and image.is_cuda):  # reading values of a GPU takes time
            return
        least, most = (float(value) for value in image.detach().aminmax())
        if not most <= MOST_NORMALISED:
            raise ValueError(
                f"the frame has values up to {most:.0f}, but must be normalised with ImageNet's mean; "
                "dataset.images.to_tensor does that"
            )
        # Later frames may be of one grey, whose normalised values are in this range, too.
        if not self._normalised and least >= 0 and 0 < most <= 1:
            raise ValueError(
                "all values of the frame are from 0 to 1, but a frame must be normalised with ImageNet's mean; "
                "dataset.images.to_tensor does that"
            )
        self._normalised |= least < 0 or most > 1

    def _checked_mask(
        self, mask: Tensor | np.ndarray, size: torch.Size, absent: Collection[int]
    ) -> tuple[Tensor, list[int]]:
        """The mask of a frame as a tensor, checked, and the ids of the objects in it; see `step`."""
        if isinstance(mask, np.ndarray) and mask.dtype.kind in "biuf":
            mask = torch.from_numpy(np.ascontiguousarray(mask, mask.dtype.newbyteorder("=")))
        if not isinstance(mask, Tensor):
            kind = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
            raise ValueError(f"a mask is integer ids [H,W] of torch or NumPy, not {kind}; convert it")
        if mask.is_floating_point() or mask.shape != size:
            raise ValueError(
                f"the mask is {mask.dtype} {list(mask.shape)}, but must be integer ids of the frame's size {list(size)}"
            )
        if unknown := set(absent).difference(self.object_ids):
            raise ValueError(f"no mask so far has held the absent object {min(unknown)}")
        ids = [int(i) for i in mask.unique().tolist()]
        if ids[0] < 0:
            raise ValueError(f"the mask holds the id {ids[0]}; ids are 0 for the background or positive")
        if contradicted := set(absent).intersection(ids):
            raise ValueError(f"object {min(contradicted)} is absent, but has pixels in the mask")
        if ids == [0] and not absent:
            raise ValueError("the mask holds no object; give at least one pixel an id other than 0")
        return mask, [i for i in ids if i]


def pad_to_stride(x: Tensor) -> tuple[Tensor, tuple[int, int, int, int]]:
    """Pad [...,H,W] with zeros on all sides to multiples of 16 that are at least 32.

    Returns:
        the padded tensor, and the padding (left, right, top, bottom).
    """
    height, width = (max(side + -side % STRIDE, MIN_SIDE) - side for side in x.shape[-2:])
    padding = (width // 2, width - width // 2, height // 2, height - height // 2)
    return F.pad(x, padding), padding


def unpad(x: Tensor, padding: tuple[int, int, int, int]) -> Tensor:
    """Undo `pad_to_stride`."""
    left, right, top, bottom = padding
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]
