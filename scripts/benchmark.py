"""Measure speed and memory: of the engine, over the length of a video, of a training step, and of the data loaders.

    python scripts/benchmark.py engine --output engine.csv --objects 1 2 5 --size 854x480
    python scripts/benchmark.py length --output length.csv --times 1 10 20
    python scripts/benchmark.py training --output training.csv --crop_size 192 --batch_size 2
    python scripts/benchmark.py loaders --output loaders.csv

"plain" is the engine, or the training pass, as one would first write it (tests/plain.py). What is compared in time
takes turns in one process: each repetition runs every variant once. Times are medians over the repetitions, and ratios
are medians of the repetitions' ratios. What is compared in memory runs in processes of its own: the peak is that of
the process (on a GPU, of its tensors) from the first frame or step on, the growth what it is above the memory right
before that. Weights in every form that a variant holds are part of the peak, not of the growth.

Without --model the probabilities of the objects are close to each other everywhere, so that the share of pixels with
the same id says little; with trained weights it does.

Each command prints a table and writes it as a CSV file.
"""

import argparse
import contextlib
import ctypes
import gc
import itertools
import math
import multiprocessing
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# The plain formulas live in the tests, so that the product carries no second engine.
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
import torch
from plain import PlainCore, PlainNetwork, train_pass
from torch import Tensor
from tqdm import tqdm

from dataset.images import resize_image, resize_mask, to_tensor
from dataset.sampling import GlobalBatchSampler
from dataset.stages import stage_dataset, training_batches
from dataset.toy import ToySettings, make_toy_data
from dataset.video import Video, list_frames
from model import RDE_VOS, NetworkConfig, load_network
from model.inference import STRIDE, InferenceCore
from model.training import ClipTrainer
from util.device import choose_device, peak_memory, synchronize
from util.errors import InputError, command_line
from util.files import write_csv

Result = TypeVar("Result")

ENGINES = {"plain": (PlainCore, False), "fast": (InferenceCore, False), "fast --amp": (InferenceCore, True)}
PARTS = ("key encoder", "reading", "decoder", "mask encoder", "SAM", "rest")
PASSES = ("plain", "ours", "ours --recompute")
PASS_PARTS = ("forward", "backward", "step")
SLOTS = 2  # objects of a training clip, as in the real data
LOADER_BATCH = 4
LOADER_WORKERS = (1, 2)
MEMORY_COLUMNS = ("peak (MiB)", "growth (MiB)")


class Memory(NamedTuple):
    """Peak memory in MiB, and how much of it had not been there before."""

    peak: float
    growth: float


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser("engine", help="time by part, FPS, memory and agreement of plain, fast and --amp")
    command.set_defaults(run=measure_engines)
    _add_video_arguments(command)
    command.add_argument("--objects", type=positive, nargs="+", default=[1, 2, 5], help="default 1 2 5")
    command.add_argument("--frames", type=positive, default=12, help="of a repetition, a multiple of θ; default 12")
    command.add_argument("--repetitions", type=positive, default=5, help="default 5")

    command = commands.add_parser("length", help="time and memory of 2F+L+RDE and STM over the length of a video")
    command.set_defaults(run=measure_lengths)
    _add_video_arguments(command)
    command.add_argument("--objects", type=positive, default=1, help="default 1")
    command.add_argument("--frames", type=positive, default=24, help="of the drawn video; a folder's are all played")
    command.add_argument("--times", type=positive, nargs="+", default=[1, 10, 20], help="default 1 10 20")

    command = commands.add_parser("training", help="time and memory of a training step, plain and ours")
    command.set_defaults(run=measure_training)
    _add_network_arguments(command)
    command.add_argument("--crop_size", type=positive, default=192, help="side of the drawn clips; default 192")
    command.add_argument("--batch_size", type=positive, default=2, help="default 2")
    command.add_argument("--repetitions", type=positive, default=5, help="default 5")

    command = commands.add_parser("loaders", help="samples per second and core of each stage's data set")
    command.set_defaults(run=measure_loaders)
    for flag, data in (("static", "stage 0"), ("bl", "stage 1"), ("davis", "stages 2, 3"), ("yv", "stages 2, 3")):
        command.add_argument(f"--{flag}_root", type=Path, help=f"{data}, as for train.py; drawn where no root is given")
    command.add_argument("--size", type=frame_size, default=(480, 854), help="of the drawn data; default 854x480")
    command.add_argument("--crop_size", type=positive, default=384, help="default 384")
    command.add_argument("--samples", type=positive, default=64, help="to time; default 64")

    for command in commands.choices.values():
        command.add_argument("--output", type=Path, required=True, metavar="FILE.csv", help="the table as CSV")
    return parser.parse_args()


def _add_network_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", type=Path, metavar="W", help="checkpoint; default: a new network in the published ones' layout"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads; default: as many as torch takes")


def _add_video_arguments(parser: argparse.ArgumentParser) -> None:
    _add_network_arguments(parser)
    parser.add_argument("--size", type=frame_size, default=(480, 854), help="width x height; default 854x480")
    parser.add_argument("--mem_every", type=positive, default=3, metavar="θ", help="frames between updates; default 3")
    parser.add_argument("--video", type=Path, metavar="FOLDER", help="frames; default: drawn, moving discs")
    parser.add_argument("--mask", type=Path, metavar="PNG", help="of the first frame of --video")


def positive(text: str) -> int:
    """A number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def frame_size(text: str) -> tuple[int, int]:
    """Height and width from ``854x480``."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match or min(int(match[1]), int(match[2])) < STRIDE:
        raise argparse.ArgumentTypeError(f"{text} is no size like 854x480, each side at least {STRIDE}")
    return int(match[2]), int(match[1])


# What every measurement is made of.


def make_network(arguments: argparse.Namespace, device: torch.device) -> RDE_VOS:
    """The network of the command line; a new one has the same weights every time.

    Raises:
        InputError: the checkpoint cannot be used, or has no SAM.
    """
    if arguments.model is None:
        torch.manual_seed(0)
        return RDE_VOS(NetworkConfig(mask_backbone="resnet18")).eval().to(device)
    network = load_network(arguments.model, device)
    if not network.config.aggregation:
        raise InputError(f"{arguments.model} has no SAM, which is measured here; give weights of RDE-VOS")
    return network


def prepare(arguments: argparse.Namespace) -> torch.device:
    """Set this process up as the command line wants it; returns where to compute."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    return choose_device(arguments.device)


def in_own_process(work: Callable[..., Result], *arguments: object) -> Result:
    """Call a function of this file in a new process, so that its peak memory is its own.

    Raises:
        InputError: as ``work`` does, or the system ended the process.
    """
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(work, *arguments).result()
    except (BrokenProcessPool, torch.OutOfMemoryError):
        raise InputError("the memory does not suffice; choose a smaller size, fewer objects or fewer times") from None


class MemoryMeter:
    """Peak memory from now on."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        gc.collect()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            # What loading has freed goes back to the system; kept at hand, it would hide as much of the growth.
            with contextlib.suppress(AttributeError, OSError):  # glibc's alone
                ctypes.CDLL(None).malloc_trim(0)
            # Linux forgets the peak so far, which came from loading; elsewhere it stays, and growth begins at it.
            reset = Path("/proc/self/clear_refs")
            if reset.exists():
                reset.write_text("5")
        self._start = peak_memory(device)

    def read(self) -> Memory:
        peak = peak_memory(self._device)
        return Memory(peak / 2**20, (peak - self._start) / 2**20)


class PartTimes:
    """Times calls from outside, without waiting for a GPU: its events note when it comes by."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._calls: list[tuple[str, float | torch.cuda.Event, float | torch.cuda.Event]] = []

    def timed(self, part: str, function: Callable[..., Result]) -> Callable[..., Result]:
        """The function, with its calls counted as time of a part."""

        def call(*arguments: object) -> Result:
            start = self._now()
            result = function(*arguments)
            self._calls.append((part, start, self._now()))
            return result

        return call

    def take(self) -> dict[str, float]:
        """Seconds by part since this was last asked; a GPU must have finished."""
        total: dict[str, float] = {}
        for part, start, end in self._calls:
            seconds = end - start if isinstance(start, float) else start.elapsed_time(end) / 1000
            total[part] = total.get(part, 0.0) + seconds
        self._calls.clear()
        return total

    def _now(self) -> float | torch.cuda.Event:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


class Player:
    """An engine that is timed while it plays a video whose first frame has a mask.

    Args:
        engine: one of `ENGINES`.
    """

    def __init__(self, engine: str, network: RDE_VOS, mask: Tensor, *, mem_every: int, bank: str = "2F+L+RDE") -> None:
        core_class, amp = ENGINES[engine]
        self._core = core = core_class(network, bank=bank, mem_every=mem_every, amp=amp)
        self._device = next(network.parameters()).device
        self._mask: Tensor | None = mask
        self._seconds = 0.0
        self._parts = PartTimes(self._device)
        timed, inner = self._parts.timed, core.network
        core.network = SimpleNamespace(
            parameters=inner.parameters,
            encode_key=timed("key encoder", inner.encode_key),
            decode=timed("decoder", inner.decode),
            encode_value=timed("mask encoder", inner.encode_value),
        )
        core._memory.read = timed("reading", core._memory.read)
        core._memory._aggregate = timed("SAM", core._memory._aggregate)

    def step(self, image: np.ndarray) -> Tensor:
        """Play a frame, uint8 RGB [H,W,3], to its ids on the CPU; returns the probabilities."""
        pixels = to_tensor(image)
        synchronize(self._device)
        started = time.perf_counter()
        probability = self._core.step(pixels, self._mask)
        probability.argmax(0).to(torch.uint8).cpu()
        synchronize(self._device)
        self._seconds += time.perf_counter() - started
        self._mask = None
        return probability

    def take_times(self) -> dict[str, float]:
        """Seconds by part since this was last asked, and those of everything as ``total``."""
        parts = dict.fromkeys(PARTS, 0.0) | self._parts.take()
        parts["rest"] = self._seconds - sum(parts.values())
        parts["total"], self._seconds = self._seconds, 0.0
        return parts


class Clip:
    """The video of the command line: a folder's frames, over and over, or drawn ones.

    Args:
        objects: how many it must have.

    Raises:
        InputError: the mask has fewer objects, or what is given cannot be read.
    """

    def __init__(self, arguments: argparse.Namespace, objects: int) -> None:
        self._size, self._objects, self._video = arguments.size, objects, None
        if (arguments.video is None) != (arguments.mask is None):
            raise InputError("--video and --mask go together; give both, or none to draw a video")
        if arguments.video is None:
            self._first_ids = draw(0, self._size, objects)[1]
        else:
            self._video = Video(arguments.video.name, list_frames(arguments.video), {0: arguments.mask})
            self._first_ids = resize_mask(self._video.read_given_mask(0), self._size)
        self._ids = np.unique(self._first_ids[self._first_ids > 0])
        if len(self._ids) < objects:
            raise InputError(f"{arguments.mask} holds {len(self._ids)} objects; choose --objects up to that")

    @property
    def length(self) -> int | None:
        """The number of different frames of a folder."""
        return None if self._video is None else len(self._video.frames)

    def frames(self, start: int, stop: int) -> list[np.ndarray]:
        """Frames uint8 RGB [H,W,3]."""
        if self._video is None:
            return [draw(t, self._size, self._objects)[0] for t in range(start, stop)]
        return [resize_image(self._video.read_frame(t % self.length), self._size) for t in range(start, stop)]

    def mask(self, objects: int) -> Tensor:
        """The first frame's mask with its first so many objects: uint8 [H,W]."""
        kept = np.isin(self._first_ids, self._ids[:objects])
        return torch.from_numpy(self._first_ids * kept)


def draw(t: int, size: tuple[int, int], objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Discs that circle over a noisy gradient, at time t: uint8 RGB [H,W,3] and ids uint8 [H,W]."""
    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    image = np.stack([255 * x / width, 255 * y / height, np.full_like(x, 90)], axis=2)
    ids = np.zeros(size, np.uint8)
    for number in range(1, objects + 1):
        angle = 2 * math.pi * number / objects + t / 20
        centre_x, centre_y = width * (0.5 + 0.3 * math.cos(angle)), height * (0.5 + 0.3 * math.sin(angle))
        inside = (x - centre_x) ** 2 + (y - centre_y) ** 2 < (min(size) / 8) ** 2
        image[inside] = (47 * number % 256, 255 - 83 * number % 256, 60)
        ids[inside] = number
    image += np.random.default_rng(t).normal(0, 8, (height, width, 1))
    return image.clip(0, 255).astype(np.uint8), ids


def warm_up_length(mem_every: int) -> int:
    """Frames until an engine has been through everything that it does: the annotated one, and two updates."""
    return 1 + 2 * mem_every


def median_ratio(values: Iterable[float], references: Iterable[float]) -> float:
    """The median of the ratios, taken repetition by repetition."""
    return statistics.median(value / reference for value, reference in zip(values, references, strict=True))


def write_table(arguments: argparse.Namespace, header: Sequence[str], rows: list[list]) -> None:
    """Print a table with aligned columns and write it as CSV."""
    shown = [list(header)] + [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for line in shown:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    write_csv(arguments.output, [header, *rows])
    print(arguments.output)


def machine(device: torch.device) -> str:
    """What is measured, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, threads: {torch.get_num_threads()}"


# engine


class Agreement:
    """How far the results of an engine are from those of the plain one."""

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
        """The share of pixels with the same id."""
        return self._same / self._pixels


def time_engines(
    network: RDE_VOS, clip: Clip, objects: int, arguments: argparse.Namespace
) -> tuple[dict[str, list[dict[str, float]]], dict[str, Agreement]]:
    """Let the engines play the same video in turns.

    Returns:
        for each engine the milliseconds per frame by part, in each repetition; and how well it agrees with plain.
    """
    players = {name: Player(name, network, clip.mask(objects), mem_every=arguments.mem_every) for name in ENGINES}
    agreement = {name: Agreement() for name in ENGINES}
    times: dict[str, list[dict[str, float]]] = {name: [] for name in ENGINES}
    warm_up = warm_up_length(arguments.mem_every)
    # Every repetition has the same number of updates, at the same places.
    starts = [0, *range(warm_up, warm_up + arguments.frames * arguments.repetitions, arguments.frames)]
    for start in tqdm(starts, desc=f"{objects} objects", unit="repetition", disable=None):
        frames = clip.frames(start, start + (arguments.frames if start else warm_up))
        plain: list[Tensor] = []
        for name, player in players.items():
            results = [player.step(frame) for frame in frames]
            plain = plain or results
            for pair in zip(results, plain, strict=True):
                agreement[name].add(*pair)
            taken = player.take_times()
            if start:
                times[name].append({part: 1000 * seconds / len(frames) for part, seconds in taken.items()})
    return times, agreement


def engine_memory(arguments: argparse.Namespace, engine: str, objects: int) -> Memory:
    """The memory that an engine takes, in this process."""
    device = prepare(arguments)
    clip = Clip(arguments, max(arguments.objects))
    player = Player(engine, make_network(arguments, device), clip.mask(objects), mem_every=arguments.mem_every)
    frames = clip.frames(0, warm_up_length(arguments.mem_every) + arguments.frames)
    meter = MemoryMeter(device)
    for frame in frames:
        player.step(frame)
    return meter.read()


def measure_engines(arguments: argparse.Namespace) -> None:
    """The command ``engine``."""
    if arguments.frames % arguments.mem_every:
        raise InputError(f"--frames {arguments.frames} is no multiple of --mem_every {arguments.mem_every}")
    device = prepare(arguments)
    clip = Clip(arguments, max(arguments.objects))
    network = make_network(arguments, device)
    header = ["objects", "engine", *(f"{part} (ms)" for part in PARTS), "ms per frame", "FPS", "time / plain"]
    header += [*MEMORY_COLUMNS, "growth / plain", "largest difference", "same ids (%)"]
    rows = []
    for objects in arguments.objects:
        times, agreement = time_engines(network, clip, objects, arguments)
        memories = {name: in_own_process(engine_memory, arguments, name, objects) for name in ENGINES}
        totals = {name: [repetition["total"] for repetition in times[name]] for name in ENGINES}
        for name in ENGINES:
            parts = [statistics.median(repetition[part] for repetition in times[name]) for part in PARTS]
            total = statistics.median(totals[name])
            row = [objects, name, *parts, total, 1000 / total, median_ratio(totals[name], totals["plain"])]
            row += [*memories[name], memories[name].growth / memories["plain"].growth]
            # Six digits after the point would hide how small it is.
            rows.append([*row, f"{agreement[name].difference:.2e}", 100 * agreement[name].same])
    height, width = arguments.size
    print(
        f"{machine(device)}; {width}×{height}, θ = {arguments.mem_every}, "
        f"{arguments.repetitions} repetitions of {arguments.frames} frames"
    )
    write_table(arguments, header, rows)


# length


def play(arguments: argparse.Namespace, bank: str, times: int) -> tuple[int, float, Memory]:
    """Play the video so many times over, in this process; returns the frames, the seconds and the memory."""
    device = prepare(arguments)
    clip = Clip(arguments, arguments.objects)
    network, mask = make_network(arguments, device), clip.mask(arguments.objects)
    frames = clip.frames(0, clip.length or arguments.frames)
    settings = {"bank": bank, "mem_every": arguments.mem_every}
    warm_up = Player("fast", network, mask, **settings)
    player = Player("fast", network, mask, **settings)
    # Before the warm-up, whose memory the first frames of the run would otherwise find at hand.
    meter = MemoryMeter(device)
    for t in range(warm_up_length(arguments.mem_every)):
        warm_up.step(frames[t % len(frames)])
    del warm_up
    count = times * len(frames)
    for t in tqdm(range(count), desc=f"{bank} ×{times}", unit="frame", disable=None):
        player.step(frames[t % len(frames)])
    return count, player.take_times()["total"], meter.read()


def measure_lengths(arguments: argparse.Namespace) -> None:
    """The command ``length``."""
    device = prepare(arguments)
    Clip(arguments, arguments.objects)  # refuses what cannot be used
    rows = []
    for bank in ("2F+L+RDE", "STM"):
        for times in arguments.times:
            frames, seconds, memory = in_own_process(play, arguments, bank, times)
            rows.append([bank, times, frames, 1000 * seconds / frames, frames / seconds, *memory])
    height, width = arguments.size
    print(f"{machine(device)}; {width}×{height}, θ = {arguments.mem_every}, objects: {arguments.objects}")
    write_table(arguments, ["bank", "times", "frames", "ms per frame", "FPS", *MEMORY_COLUMNS], rows)


# training


class Losses(NamedTuple):
    """What a training pass computed."""

    loss: float
    terms: dict[str, float]


class Trainer:
    """A new network with its optimiser, and a forward pass, one of `PASSES`."""

    def __init__(self, name: str, arguments: argparse.Namespace, device: torch.device) -> None:
        self._device = device
        network = make_network(arguments, device).train()
        if name == "plain":
            self._pass = PlainNetwork(network).train()
        else:
            network.to(memory_format=torch.channels_last)  # as train.py does
            self._pass = ClipTrainer(network, recompute=name.endswith("--recompute"))
        self._optimizer = torch.optim.Adam(self._pass.parameters(), lr=1e-5, weight_decay=1e-7)

    def step(self, batch: tuple[Tensor, ...]) -> tuple[dict[str, float], Losses]:
        """Train on a batch; returns seconds by part, and the losses."""
        clock = [self._now()]
        self._optimizer.zero_grad()
        if isinstance(self._pass, PlainNetwork):
            loss, terms = train_pass(self._pass, *batch)
        else:
            loss, terms, _ = self._pass(*batch, share=1.0)
        clock.append(self._now())
        loss.backward()
        clock.append(self._now())
        self._optimizer.step()
        clock.append(self._now())
        seconds = clock[1] - clock[0], clock[2] - clock[1], clock[3] - clock[0]
        losses = Losses(float(loss.detach()), {name: float(term.detach()) for name, term in terms.items()})
        return dict(zip(PASS_PARTS, seconds, strict=True)), losses

    def _now(self) -> float:
        synchronize(self._device)
        return time.perf_counter()


def draw_batch(arguments: argparse.Namespace, device: torch.device) -> tuple[Tensor, ...]:
    """Clips of five frames as `ClipTrainer` takes them."""
    frames, masks = [], []
    for t in range(5 * arguments.batch_size):
        image, ids = draw(t, (arguments.crop_size, arguments.crop_size), SLOTS)
        frames.append(to_tensor(image))
        masks.append(torch.from_numpy(np.stack([ids == number for number in range(1, SLOTS + 1)])).to(torch.uint8))
    frames, masks = (torch.stack(each).unflatten(0, (arguments.batch_size, 5)).to(device) for each in (frames, masks))
    perturbed = masks[:, 0].roll(arguments.crop_size // 32, dims=-1)
    return frames, masks, perturbed, torch.ones(arguments.batch_size, SLOTS, device=device)


def training_memory(arguments: argparse.Namespace, name: str) -> Memory:
    """The memory that training steps take, in this process; the optimiser's own is part of it."""
    device = prepare(arguments)
    trainer = Trainer(name, arguments, device)
    batch = draw_batch(arguments, device)
    meter = MemoryMeter(device)
    for _ in range(2):
        trainer.step(batch)
    return meter.read()


def measure_training(arguments: argparse.Namespace) -> None:
    """The command ``training``."""
    if arguments.crop_size % STRIDE:
        raise InputError(f"--crop_size {arguments.crop_size} is no multiple of {STRIDE}; choose one, such as 192")
    device = prepare(arguments)
    trainers = {name: Trainer(name, arguments, device) for name in PASSES}
    batch = draw_batch(arguments, device)
    # The first step warms up; it is also the one in which both networks have the same weights.
    losses = {name: trainer.step(batch)[1] for name, trainer in trainers.items()}
    times: dict[str, list[dict[str, float]]] = {name: [] for name in PASSES}
    for _ in tqdm(range(arguments.repetitions), unit="repetition", disable=None):
        for name, trainer in trainers.items():
            times[name].append(trainer.step(batch)[0])
    trainers.clear()
    memories = {name: in_own_process(training_memory, arguments, name) for name in PASSES}

    rows = []
    for name in PASSES:
        parts = [1000 * statistics.median(step[part] for step in times[name]) for part in PASS_PARTS]
        ratio = median_ratio(*([step["step"] for step in times[each]] for each in (name, "plain")))
        terms, plain = losses[name].terms, losses["plain"].terms
        difference = max(abs(terms[term] - plain[term]) for term in plain.keys() | terms.keys())
        growth = memories[name].growth / memories["plain"].growth
        rows.append([name, *parts, ratio, *memories[name], growth, losses[name].loss, f"{difference:.2e}"])
    header = ["pass", *(f"{part} (ms)" for part in PASS_PARTS), "time / plain", *MEMORY_COLUMNS, "growth / plain"]
    print(
        f"{machine(device)}; clips of {arguments.crop_size}×{arguments.crop_size}, batch of {arguments.batch_size}, "
        f"{arguments.repetitions} repetitions"
    )
    write_table(arguments, [*header, "first loss", "largest difference of a term"], rows)


# loaders


def stage_roots(arguments: argparse.Namespace, folder: Path) -> Iterator[tuple[str, dict[str, Path]]]:
    """The stages to measure with their folders: those given, or toy data drawn in ``folder``; 2 and 3 share theirs."""
    stages = {"0": ("static_root",), "1": ("bl_root",), "2 and 3": ("davis_root", "yv_root")}
    roots = {name: getattr(arguments, name) for names in stages.values() for name in names}
    if not any(roots.values()):
        height, width = arguments.size
        # 20 images are the fewest that fill every folder of stage 0 and draw a whole class.
        settings = ToySettings(
            height=height, width=width, frames=10, static=20, bl=2, youtube_train=2, davis_train=2, youtube_valid=0,
            davis_val=0, davis_test=0,
        )  # fmt: skip
        make_toy_data(folder, settings)
        roots = {"static_root": folder / "static", "bl_root": folder / "BL30K"}
        roots |= {"davis_root": folder / "DAVIS" / "2017", "yv_root": folder / "YouTube"}
    for stage, names in stages.items():
        if any(roots[name] for name in names):
            yield stage, {name: roots[name] for name in names}


def time_loader(stage: int, roots: dict[str, Path], workers: int, arguments: argparse.Namespace) -> tuple[int, float]:
    """Load batches of a stage; returns how many samples took how many seconds."""
    counted = math.ceil(arguments.samples / LOADER_BATCH)
    waiting = 2 * workers  # batches that the loader keeps ahead: they come out of step with the work
    iterations = waiting + counted + waiting  # the work goes on until the clock has stopped
    data = stage_dataset(stage, **roots, iterations=iterations, crop_size=arguments.crop_size)
    sampler = GlobalBatchSampler(len(data), batch_size=LOADER_BATCH, iterations=iterations)
    batches = training_batches(data, sampler, workers=workers)
    for _ in range(waiting):
        next(batches)
    started = time.perf_counter()
    for _ in itertools.islice(batches, counted):
        pass
    return counted * LOADER_BATCH, time.perf_counter() - started


def measure_loaders(arguments: argparse.Namespace) -> None:
    """The command ``loaders``."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for stage, roots in stage_roots(arguments, Path(folder)):
            for workers in LOADER_WORKERS:
                samples, seconds = time_loader(int(stage[0]), roots, workers, arguments)
                rows.append([stage, workers, samples, samples / seconds, samples / seconds / workers])
    print(f"crops of {arguments.crop_size}×{arguments.crop_size}")
    write_table(arguments, ["stage", "workers", "samples", "samples per second", "per second and core"], rows)


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
