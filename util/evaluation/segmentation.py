"""Inference on a video, as a stream of results."""

import contextlib
import copy
import itertools
import math
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from dataset.files.images import resize_image, resize_mask, short_side_size
from dataset.files.video import AnyVideo
from dataset.files.video_file import EndOfVideo
from model.checkpoint import load_network
from model.fast import fast_network
from model.inference import InferenceCore, checked_bank
from model.network import RDE_VOS
from model.updates import FixedInterval
from util.device import autotuned_convolutions, device_name, inference_dtype
from util.errors import InputError
from util.evaluation.confidence import object_confidence
from util.parallel import in_background

MOST_PIXELS = 2**25  # of the network's input where frames are scaled: those of 8K


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """The settings of the inference engine.

    Attributes:
        bank, mem_every, top_k, confirm_updates: see `model.inference.InferenceCore`.
        size: the short side of the network's input, in pixels; None for the size of the frames.
    """

    bank: str = "2F+L+RDE"
    mem_every: int = 3
    top_k: int = 40
    confirm_updates: bool = False
    size: int | None = None

    def check(self, network: RDE_VOS) -> None:
        """Check the settings before any video is read.

        Raises:
            InputError: ``size`` is not positive, or as `model.inference.checked_bank`.
        """
        if self.size is not None and self.size < 1:
            raise InputError(f"size must be at least 1 pixel, not {self.size}; the usual size is 480")
        try:
            checked_bank(network, self.bank, self.mem_every, self.top_k)
        except ValueError as error:
            raise InputError(str(error)) from None

    def core(self, network: RDE_VOS) -> InferenceCore:
        """A new engine with these settings."""
        self.check(network)
        return InferenceCore(
            network, bank=self.bank, mem_every=self.mem_every, top_k=self.top_k, confirm_updates=self.confirm_updates
        )


class Input(NamedTuple):
    """What the engine gets for one frame."""

    number: int  # of the frame in the video
    image: np.ndarray  # the frame, uint8 RGB [H,W,3]
    pixels: torch.Tensor  # the frame at the network's size, uint8 RGB [3,h,w]
    mask: torch.Tensor | None  # the given mask at the network's size: uint8 object ids [h,w]
    given: np.ndarray | None  # the given mask at the size of the frame: uint8 object ids [H,W]
    absent: Collection[int]  # ids of objects that are absent according to the mask
    wanted: bool  # whether the results contain this frame
    last: bool  # whether it is the last frame


class Segmented(NamedTuple):
    """The result for one frame."""

    number: int  # of the frame in the video
    image: np.ndarray  # the frame, uint8 RGB [H,W,3]
    ids: np.ndarray  # uint8 object ids [H,W]
    seconds: float  # inference time since the previous result
    frames: int = 1  # processed since the previous result, including this one
    confidence: Mapping[int, float] | None = None  # by id, see `object_confidence`; None if not requested

    @property
    def uncertainty(self) -> float:
        """The uncertainty of the least certain object, 0 to 1 bits, see `object_confidence`; NaN without any."""
        return 1 - min(self.confidence.values()) if self.confidence else math.nan


class Throughput(NamedTuple):
    """The number of processed frames, and the inference time."""

    frames: int
    seconds: float  # without reading and writing files

    @property
    def fps(self) -> float:
        """Frames per second as the paper counts them: all frames over the processing time; NaN without frames."""
        return self.frames / self.seconds if self.seconds else float("nan")

    def text(self, device: torch.device) -> str:
        """The speed for a terminal."""
        return f"{self.fps:.3g} ({self.frames} frames in {self.seconds:.1f} s, {device_name(device)})"


def engine_network(path: Path | str | None, device: torch.device, amp: bool, *, compiled: bool = False) -> RDE_VOS:
    """Load a checkpoint and optimise the network for inference.

    Args:
        path: the checkpoint; None is the small network that comes with the project.
        amp: half precision, if the device supports it.
    """
    return for_inference(load_network(path, device), inference_dtype(device, amp), compiled=compiled)


def for_inference(network: RDE_VOS, dtype: torch.dtype, *, compiled: bool = False) -> RDE_VOS:
    """A fast copy of a network in a dtype, compiled by ``torch.compile`` if ``compiled``.

    Nothing else in evaluation or training imports `model.fast`, so the folder can be removed.
    """
    return fast_network(network, dtype, compiler="inductor" if compiled else None)


def input_size(video: AnyVideo, short_side: int | None) -> tuple[int, int]:
    """The height and width of the network's input for the frames of a video, in pixels.

    Args:
        short_side: the short side to which frames are scaled; None for the size of the frames.

    Raises:
        InputError: the first frame cannot be read, or scaling would give more than `MOST_PIXELS`.
    """
    if short_side is None:
        return video.size
    height, width = short_side_size(video.size, short_side)
    if height * width > MOST_PIXELS:
        raise InputError(
            f"the frames of {video.name} are {video.size[1]}×{video.size[0]}, and --size {short_side} would make them "
            f"{width}×{height}; choose a smaller --size, or crop the frames"
        )
    return height, width


def read_inputs(video: AnyVideo, rule: FixedInterval, size: int | None = None) -> Iterator[Input]:
    """Read those frames of a video that are wanted or update the memory, up to the last wanted frame.

    Args:
        video, size: as for `segment`.
        rule: the engine's update rule before the first frame. A copy of it tells which frames update the memory.
    """
    size, rule = input_size(video, size), copy.copy(rule)
    for number in itertools.count() if video.last is None else range(video.last + 1):
        update = rule.looks or rule.tick(annotated=number in video.masks)
        wanted = video.wanted is None or number in video.wanted
        if not (update or wanted):
            continue
        try:
            image, given, absent = video.read(number)
        except EndOfVideo:
            return
        pixels = torch.from_numpy(resize_image(image, size)).permute(2, 0, 1)
        mask = None if given is None else torch.from_numpy(resize_mask(given, size))
        yield Input(number, image, pixels, mask, given, absent, wanted, number == video.last)


def segment(
    core: InferenceCore, video: AnyVideo, size: int | None = None, *,
    confidence: bool = False, autotune: bool = True, ahead: int = 4,
) -> Iterator[Segmented]:  # fmt: skip
    """Segment a video as a stream: no frame and no result is kept.

    Where the network's input is smaller than the frames, the probabilities are resized to the size of the frame before
    the argmax.

    Args:
        core: a new engine.
        size: the short side of the network's input, in pixels; None for the size of the frames.
        confidence: whether to compute `Segmented.confidence`, of the probabilities at the size of the network's input.
        autotune: whether a GPU measures which convolutions are the fastest. It takes time for each new size and number
            of objects.
        ahead: the number of frames that a thread decodes in advance; 0 where frames are read as they come.

    Yields:
        the results of the wanted frames, in order.

    Raises:
        InputError: a frame or mask is missing, corrupt or of the wrong size, or as `input_size`.
    """
    inputs = read_inputs(video, core.rule, size)
    passed, frames, seconds = 0, 0, 0.0
    for frame in in_background(inputs, ahead) if ahead else inputs:
        started = time.perf_counter()
        for _ in range(passed, frame.number):
            core.skip()
        passed = frame.number + 1
        absent = [i for i in frame.absent if i in core.object_ids]
        with autotuned_convolutions() if autotune else contextlib.nullcontext():
            probability = core.step(frame.pixels, frame.mask, absent=absent, last=frame.last)
        frames += 1
        if frame.wanted:
            full_size = frame.image.shape[:2]
            sure = object_confidence(probability) if confidence else None
            if probability.shape[1:] != full_size:
                probability = F.interpolate(probability[None], full_size, mode="bilinear", align_corners=False)[0]
            # argmax takes 20 times as long as max on a CPU.
            ids = core.labels.byte()[probability.max(0).indices]
            ids, sure = _download(ids, sure)
            if frame.given is not None and frame.pixels.shape[1:] != full_size:
                ids = _with_given(ids, frame.given)
        seconds += time.perf_counter() - started
        if frame.wanted:
            known = dict(zip(core.object_ids, sure.tolist(), strict=True)) if confidence else None
            yield Segmented(frame.number, frame.image, ids, seconds, frames, known)
            frames, seconds = 0, 0.0


def _with_given(ids: np.ndarray, given: np.ndarray) -> np.ndarray:
    """The ids of a frame, uint8 [H,W], with the objects of its given mask exactly as given.

    The network may have seen a smaller copy of the mask, which loses details.
    """
    annotated = np.unique(given)
    rest = np.where(np.isin(ids, annotated[annotated > 0]), np.uint8(0), ids)
    return np.where(given > 0, given, rest)


def _download(ids: torch.Tensor, confidence: torch.Tensor | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Copy ids, uint8 [H,W], and confidences, float32 [K] or None. This one copy of both is the only wait for a GPU."""
    if confidence is None:
        return ids.cpu().numpy(), None
    values = torch.cat([confidence.view(torch.uint8), ids.flatten()]).cpu().numpy()
    end = 4 * len(confidence)
    return values[end:].reshape(ids.shape), values[:end].view(np.float32)
