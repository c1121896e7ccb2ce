"""The command ``gpu``: all figures of one GPU, in one table."""

import argparse
import contextlib
import copy
import gc
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import MEMORY_COLUMNS, Memory, MemoryMeter, draw, machine, make_network
from benchmarks.engine import repeat_clip
from benchmarks.training import Trainer, draw_batch
from model import RDE_VOS
from model.fast import fast_network
from util.device import choose_device, half_precision
from util.errors import InputError
from util.files import write_csv, write_text

HEADER = ("part", "what", "precision", "network", "per second", "ms", *MEMORY_COLUMNS, "note")
DTYPES = {"fp32": torch.float32, "TF32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
MEM_EVERY = 3
CLIP_FRAMES = 50
WARM_UP_STEPS, TIMED_STEPS = 3, 5  # of training


class Figures(NamedTuple):
    """The measurements of an engine or a training step."""

    per_second: float  # frames, or samples of training
    milliseconds: float  # for a frame, or for a step of training
    memory: Memory


class Measurement(NamedTuple):
    """A line of the table, and the function that measures it."""

    part: str
    what: str
    precision: str
    network: str
    measure: partial[Figures]


@contextlib.contextmanager
def precision_of_torch(precision: str) -> Iterator[None]:
    """A context for fp32 arithmetic: ``precision`` "fp32" disables TF32, "TF32" enables it everywhere.

    Other precisions keep torch's defaults.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    if precision in ("fp32", "TF32"):
        matmul.allow_tf32 = cudnn.allow_tf32 = precision == "TF32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def network_on(
    network: RDE_VOS, device: torch.device, precision: str, *, fast: bool, compiler: str | None = None
) -> RDE_VOS:
    """A copy of a network on a device, in a precision.

    Args:
        network: a plain network on the CPU, which is not modified.
        precision: one of `DTYPES`.
        fast: whether `model.fast.fast_network` makes the copy.
        compiler: see `model.fast.fast_network`, which alone compiles.
    """
    network = copy.deepcopy(network).to(device)
    return fast_network(network, DTYPES[precision], compiler=compiler) if fast else network.to(DTYPES[precision])


def measure_engine(
    network: RDE_VOS,
    device: torch.device,
    precision: str,
    frames: list[np.ndarray],
    mask: Tensor,
    *,
    fast: bool = True,
    compiler: str | None = None,
    bank: str = "2F+L+RDE",
    times: int = 1,
) -> Figures:
    """Segment frames, uint8 RGB [H,W,3], with a mask [H,W] of the first one, ``times`` times; see `repeat_clip`."""
    with precision_of_torch(precision):
        network = network_on(network, device, precision, fast=fast, compiler=compiler)
        count, seconds, memory = repeat_clip(network, frames, mask, times, bank=bank, mem_every=MEM_EVERY)
    return Figures(count / seconds, 1000 * seconds / count, memory)


def measure_step(arguments: argparse.Namespace, device: torch.device, batch_size: int) -> Figures:
    """Train on synthetic clips as in stage 2 of train.py, without data loading."""
    arguments = argparse.Namespace(**{**vars(arguments), "batch_size": batch_size})
    trainer = Trainer("plain", arguments, device, half_precision(device))
    batch = draw_batch(arguments, device)
    meter = MemoryMeter(device)
    for _ in range(WARM_UP_STEPS):
        trainer.step(batch)
    seconds = sum(trainer.step(batch)[0]["step"] for _ in range(TIMED_STEPS)) / TIMED_STEPS
    return Figures(batch_size / seconds, 1000 * seconds, meter.read())


def planned(arguments: argparse.Namespace, device: torch.device, compiler: str = "inductor") -> list[Measurement]:
    """All measurements, in the order in which a reader wants them.

    First the fast network in fp16; memory and speed over the length of a clip; a training step; ``torch.compile``; then
    the other precisions, and the plain network.

    Args:
        arguments: ``model`` (a checkpoint or None), ``size`` (height and width of the frames), ``objects`` and
            ``times`` (numbers), ``crop_size`` and ``batch_sizes`` of training.
        compiler: the backend of ``torch.compile``.
    """
    network = make_network(arguments, torch.device("cpu"))
    most = max(arguments.objects)
    frames = [draw(t, arguments.size, most)[0] for t in range(CLIP_FRAMES)]
    ids = torch.from_numpy(draw(0, arguments.size, most)[1])
    half = ["fp16", "bf16"] if half_precision(device) == torch.bfloat16 else ["fp16"]

    def engine(precision: str, objects: int, fast: bool, compiler: str | None = None) -> Measurement:
        name = ("fast" if fast else "plain") + (", torch.compile" if compiler else "")
        mask = ids * (ids <= objects)
        work = partial(measure_engine, network, device, precision, frames, mask, fast=fast, compiler=compiler)
        return Measurement("engine", f"{objects} object{'s' * (objects > 1)}", precision, name, work)

    def length(bank: str, times: int) -> Measurement:
        work = partial(measure_engine, network, device, "fp16", frames, ids * (ids == 1), bank=bank, times=times)
        return Measurement("length", f"{bank}, {times} × {CLIP_FRAMES} frames", "fp16", "fast", work)

    def step(batch_size: int) -> Measurement:
        work = partial(measure_step, arguments, device, batch_size)
        precision = f"{half[-1]} autocast"
        return Measurement("training step", f"batch of {batch_size}", precision, "plain", work)

    def engines(precisions: Iterable[str], networks: Iterable[bool], compiler: str | None = None) -> list[Measurement]:
        return [
            engine(precision, objects, fast, compiler)
            for precision in precisions
            for fast in networks
            for objects in arguments.objects
        ]

    return [
        *engines(["fp16"], [True]),
        *(length(bank, times) for times in arguments.times for bank in ("2F+L+RDE", "STM")),
        *(step(batch_size) for batch_size in arguments.batch_sizes),
        *engines(["fp16"], [True], compiler),
        *engines([*half[1:], "TF32", "fp32"], [True]),
        *engines([*half, "TF32", "fp32"], [False]),
    ]


def run(measurements: list[Measurement], device: torch.device, seconds: float) -> Iterator[list]:
    """Measure, and yield the lines of the table, also for measurements that fail or would begin too late.

    Args:
        measurements: as `planned` returns them.
        seconds: the time after which no measurement begins.
    """
    end = time.monotonic() + seconds
    for measurement in measurements:
        figures, note = None, ""
        if time.monotonic() >= end:
            note = "not measured, out of time"
        else:
            try:
                figures = measurement.measure()
            except torch.OutOfMemoryError:
                note = "out of memory"
            except Exception as error:  # torch.compile and its libraries raise almost any exception
                note = f"failed: {type(error).__name__} {str(error).strip()}".split("\n")[0]
            _clean_up(device, compiled="compile" in measurement.network)
        values = [*figures[:2], *figures.memory] if figures else [""] * (len(HEADER) - 5)
        yield [*measurement[:4], *values, note]


def _clean_up(device: torch.device, *, compiled: bool) -> None:
    """Free the memory of a measurement, so that the next one starts from the same state."""
    if compiled:
        torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def markdown(title: str, rows: list[list]) -> str:
    """The table in Markdown, below a line of text."""
    lines = [HEADER, ["---"] * len(HEADER), *([_shown(cell).replace("|", "/") for cell in row] for row in rows)]
    return "\n".join([title, "", *(f"| {' | '.join(line)} |" for line in lines)]) + "\n"


def _shown(cell: object) -> str:
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def write_tables(output: Path, title: str, rows: list[list]) -> None:
    """Write the table as CSV, and in Markdown beside it."""
    write_csv(output, [HEADER, *rows])
    write_text(output.with_suffix(".md"), markdown(title, rows))


def measure_gpu(arguments: argparse.Namespace) -> None:
    """The command ``gpu``."""
    if not torch.cuda.is_available():
        raise InputError("gpu needs an NVIDIA GPU, and torch finds none; engine, length and training use the CPU")
    device = choose_device("cuda")
    height, width = arguments.size
    title = f"{machine(device)}, PyTorch {torch.__version__}; frames of {width}×{height}, θ = {MEM_EVERY}; "
    title += f"clips of {arguments.crop_size}×{arguments.crop_size} in training"
    print(title)
    rows: list[list] = []
    write_tables(arguments.output, title, rows)  # so that an unwritable file is reported now
    measurements = planned(arguments, device)
    for number, row in enumerate(run(measurements, device, 60 * arguments.minutes), start=1):
        rows.append(row)
        write_tables(arguments.output, title, rows)
        per_second, milliseconds, peak = map(_shown, row[4:7])
        result = row[-1] or f"{per_second} per second, {milliseconds} ms, peak {peak} MiB"
        print(f"{number}/{len(measurements)} {', '.join(row[:4])}: {result}", flush=True)
    print(arguments.output, arguments.output.with_suffix(".md"))
