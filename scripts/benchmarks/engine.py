"""The commands ``engine`` and ``length``."""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.common import (
    MEMORY_COLUMNS,
    MEMORY_REMEDY,
    Memory,
    MemoryMeter,
    draw,
    machine,
    make_network,
    median_ratio,
    prepare,
    write_table,
)
from dataset.files.images import resize_image, resize_mask, to_tensor
from dataset.files.video import Video, list_frames
from model import RDE_VOS
from model.fast import fast_network
from model.inference import InferenceCore
from util.device import autotuned_convolutions, inference_dtype, synchronize
from util.errors import InputError
from util.flags import refuse_without_effect
from util.parallel import in_own_process

ENGINES = ("plain", "fast", "fast --amp")
PARTS = ("key encoder", "reading", "decoder", "mask encoder", "SAM", "rest")


Moment = float | torch.cuda.Event


class TimedNetwork:
    """A network whose parts are timed while an engine calls them.

    On a GPU events take the times, so that calls are not synchronised.
    """

    def __init__(self, network: RDE_VOS) -> None:
        self.config, self.device, self.dtype = network.config, network.device, network.dtype
        self.similarity = network.similarity
        self.encode_key = self._timed("key encoder", network.encode_key)
        self.read = self._timed("reading", network.read)
        self.decode = self._timed("decoder", network.decode)
        self.encode_value = self._timed("mask encoder", network.encode_value)
        self.aggregate = self._timed("SAM", network.aggregate)
        self._calls: list[tuple[str, Moment, Moment]] = []

    def take_times(self) -> dict[str, float]:
        """Seconds by part since the last call of this method; a GPU must have finished its work."""
        total: dict[str, float] = {}
        for part, start, end in self._calls:
            seconds = end - start if isinstance(start, float) else start.elapsed_time(end) / 1000
            total[part] = total.get(part, 0.0) + seconds
        self._calls.clear()
        return total

    def _timed(self, part: str, function: Callable) -> Callable:
        def call(*arguments: object) -> object:
            start = self._now()
            result = function(*arguments)
            self._calls.append((part, start, self._now()))
            return result

        return call

    def _now(self) -> Moment:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


class TimedEngine:
    """An inference engine that measures its times.

    Args:
        network: a plain or a fast network.
        mask: object ids of the first frame [H,W].
        mem_every, bank: see `model.inference.InferenceCore`.
    """

    def __init__(self, network: RDE_VOS, mask: Tensor, *, mem_every: int, bank: str = "2F+L+RDE") -> None:
        self._device = network.device
        self._network = TimedNetwork(network)
        self._core = InferenceCore(self._network, bank=bank, mem_every=mem_every)
        self._mask: Tensor | None = mask
        self._seconds = 0.0

    def step(self, image: np.ndarray) -> Tensor:
        """Segment a frame, uint8 RGB [H,W,3], including its ids on the CPU; return the probabilities [K+1,H,W]."""
        pixels = to_tensor(image)
        synchronize(self._device)
        started = time.perf_counter()
        with autotuned_convolutions():
            probability = self._core.step(pixels, self._mask)
        probability.max(0).indices.to(torch.uint8).cpu()
        synchronize(self._device)
        self._seconds += time.perf_counter() - started
        self._mask = None
        return probability

    def take_times(self) -> dict[str, float]:
        """Seconds by part since the last call of this method, and the seconds of all parts as ``total``."""
        parts = dict.fromkeys(PARTS, 0.0) | self._network.take_times()
        parts["rest"] = self._seconds - sum(parts.values())
        parts["total"], self._seconds = self._seconds, 0.0
        return parts


def network_of(engine: str, network: RDE_VOS) -> RDE_VOS:
    """The network of one of `ENGINES`, from a plain network."""
    if engine == "plain":
        return network
    return fast_network(network, inference_dtype(network.device, amp=engine == "fast --amp"))


class Clip:
    """The video of the command line: the frames of a folder, in a loop, or synthetic frames.

    Args:
        objects: the number of objects that the video must have.

    Raises:
        InputError: the mask has fewer objects, or the frames or the mask cannot be read.
    """

    def __init__(self, arguments: argparse.Namespace, objects: int) -> None:
        self._size, self._objects, self._video = arguments.size, objects, None
        if (arguments.video is None) != (arguments.mask is None):
            raise InputError("--video needs --mask and vice versa; give both, or neither for a synthetic video")
        if arguments.video is None:
            self._first_ids = draw(0, self._size, objects)[1]
        else:
            self._video = Video(arguments.video.name, list_frames(arguments.video), {0: arguments.mask})
            self._first_ids = resize_mask(self._video.read_given_mask(0), self._size)
        self._ids = np.unique(self._first_ids[self._first_ids > 0])
        if len(self._ids) < objects:
            raise InputError(f"{arguments.mask} holds {len(self._ids)} objects; give at most as many --objects")

    @property
    def length(self) -> int | None:
        """The number of frames of a folder; None for synthetic frames, which never repeat."""
        return None if self._video is None else len(self._video.frames)

    def frames(self, start: int, stop: int) -> list[np.ndarray]:
        """Frames uint8 RGB [H,W,3]."""
        if self._video is None:
            return [draw(t, self._size, self._objects)[0] for t in range(start, stop)]
        return [resize_image(self._video.read_frame(t % self.length), self._size) for t in range(start, stop)]

    def mask(self, objects: int) -> Tensor:
        """The mask of the first frame, limited to a number of objects: uint8 [H,W]."""
        kept = np.isin(self._first_ids, self._ids[:objects])
        return torch.from_numpy(self._first_ids * kept)


def warm_up_length(mem_every: int) -> int:
    """The number of warm-up frames: the annotated frame, and two updates."""
    return 1 + 2 * mem_every


class Agreement:
    """The differences between the results of an engine and those of the plain engine."""

    def __init__(self) -> None:
        self.difference = 0.0
        self._same = self._pixels = 0

    def add(self, probability: Tensor, plain: Tensor) -> None:
        """Compare a frame's probabilities [K+1,H,W]."""
        self.difference = max(self.difference, float((probability - plain).abs().max()))
        same = probability.argmax(0) == plain.argmax(0)
        self._same += int(same.sum())
        self._pixels += same.numel()

    @property
    def same(self) -> float:
        """The fraction of pixels with the same id."""
        return self._same / self._pixels


def time_engines(
    network: RDE_VOS, clip: Clip, objects: int, arguments: argparse.Namespace
) -> tuple[dict[str, list[dict[str, float]]], dict[str, Agreement]]:
    """Let the engines segment the same video in turns.

    Returns:
        for each engine the milliseconds per frame by part, in each repetition; for each engine its agreement with the
        plain engine.
    """
    engines = {
        name: TimedEngine(network_of(name, network), clip.mask(objects), mem_every=arguments.mem_every)
        for name in ENGINES
    }
    agreement = {name: Agreement() for name in ENGINES}
    times: dict[str, list[dict[str, float]]] = {name: [] for name in ENGINES}
    warm_up = warm_up_length(arguments.mem_every)
    # Every repetition has the same number of updates, at the same places.
    starts = [0, *range(warm_up, warm_up + arguments.frames * arguments.repetitions, arguments.frames)]
    for start in tqdm(starts, desc=f"{objects} objects", unit="repetition", disable=None):
        frames = clip.frames(start, start + (arguments.frames if start else warm_up))
        plain: list[Tensor] = []
        for name, engine in engines.items():
            results = [engine.step(frame) for frame in frames]
            plain = plain or results
            for pair in zip(results, plain, strict=True):
                agreement[name].add(*pair)
            elapsed = engine.take_times()
            if start:
                times[name].append({part: 1000 * seconds / len(frames) for part, seconds in elapsed.items()})
    return times, agreement


def measure_engines(arguments: argparse.Namespace) -> None:
    """The command ``engine``."""
    if arguments.frames % arguments.mem_every:
        raise InputError(f"--frames {arguments.frames} is not a multiple of --mem_every {arguments.mem_every}")
    device = prepare(arguments)
    clip = Clip(arguments, max(arguments.objects))
    network = make_network(arguments, device)
    header = ["objects", "engine", *(f"{part} (ms)" for part in PARTS), "ms per frame", "FPS", "time / plain"]
    header += [*MEMORY_COLUMNS, "growth / plain", "largest difference", "same ids (%)"]
    rows = []
    for objects in arguments.objects:
        times, agreement = time_engines(network, clip, objects, arguments)
        length = warm_up_length(arguments.mem_every) + arguments.frames
        memories = {
            name: in_own_process(repeat_here, arguments, name, objects, length, remedy=MEMORY_REMEDY)[2]
            for name in ENGINES
        }
        totals = {name: [repetition["total"] for repetition in times[name]] for name in ENGINES}
        for name in ENGINES:
            parts = [statistics.median(repetition[part] for repetition in times[name]) for part in PARTS]
            total = statistics.median(totals[name])
            row = [objects, name, *parts, total, 1000 / total, median_ratio(totals[name], totals["plain"])]
            row += [*memories[name], memories[name].growth / memories["plain"].growth]
            # Six decimal places would hide how small it is.
            rows.append([*row, f"{agreement[name].difference:.2e}", 100 * agreement[name].same])
    height, width = arguments.size
    print(
        f"{machine(device)}; {width}×{height}, θ = {arguments.mem_every}, "
        f"{arguments.repetitions} repetitions of {arguments.frames} frames"
    )
    write_table(arguments, header, rows)


def repeat_clip(
    network: RDE_VOS, frames: list[np.ndarray], mask: Tensor, times: int = 1, *, bank: str = "2F+L+RDE", mem_every: int
) -> tuple[int, float, Memory]:
    """Segment frames, uint8 RGB [H,W,3], ``times`` times in a row; return the number of frames, seconds and memory."""
    settings = {"bank": bank, "mem_every": mem_every}
    warm_up = TimedEngine(network, mask, **settings)
    engine = TimedEngine(network, mask, **settings)
    # The measurement starts before the warm-up. Otherwise the run could reuse memory that the warm-up has freed.
    meter = MemoryMeter(network.device)
    for t in range(warm_up_length(mem_every)):
        warm_up.step(frames[t % len(frames)])
    del warm_up
    count = times * len(frames)
    for t in tqdm(range(count), desc=f"{bank} ×{times}", unit="frame", disable=None):
        engine.step(frames[t % len(frames)])
    return count, engine.take_times()["total"], meter.read()


def repeat_here(
    arguments: argparse.Namespace, engine: str, objects: int, length: int, times: int = 1, bank: str = "2F+L+RDE"
) -> tuple[int, float, Memory]:
    """Let one of `ENGINES` segment ``length`` frames of the command line's clip, in this process; see `repeat_clip`."""
    network = network_of(engine, make_network(arguments, prepare(arguments)))
    clip = Clip(arguments, objects)
    frames = clip.frames(0, length)
    return repeat_clip(network, frames, clip.mask(objects), times, bank=bank, mem_every=arguments.mem_every)


def measure_lengths(arguments: argparse.Namespace) -> None:
    """The command ``length``."""
    refuse_without_effect({"frames"} if arguments.frames else set(), [(arguments.video, ["frames"], "with --video")])
    device = prepare(arguments)
    # This checks the input, too, before the first process starts.
    length = Clip(arguments, arguments.objects).length or arguments.frames or 24
    rows = []
    for bank in ("2F+L+RDE", "STM"):
        for times in arguments.times:
            settings = (arguments, "fast", arguments.objects, length, times, bank)
            frames, seconds, memory = in_own_process(repeat_here, *settings, remedy=MEMORY_REMEDY)
            rows.append([bank, times, frames, 1000 * seconds / frames, frames / seconds, *memory])
    height, width = arguments.size
    print(f"{machine(device)}; {width}×{height}, θ = {arguments.mem_every}, objects: {arguments.objects}")
    write_table(arguments, ["bank", "times", "frames", "ms per frame", "FPS", *MEMORY_COLUMNS], rows)
