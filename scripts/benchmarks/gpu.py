"""The command ``gpu``: all figures of one GPU, in one table."""

import gc
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.common import HEADER, Figures, Measurement, machine, shown
from benchmarks.engine import MEM_EVERY, measure_engine
from benchmarks.training import measure_step
from util.device import choose_device, half_precision
from util.errors import InputError
from util.files import write_csv, write_text

SIZE, CLIP_FRAMES, OBJECTS, TIMES = (480, 854), 50, (1, 2, 5), (1, 20)  # of the engine
CROP_SIZE, BATCH_SIZES, STEPS = 384, (4, 16), {"warm_up": 3, "steps": 5}  # of training
COLUMNS = (*HEADER, "note")


def planned(model: Path | None, device: torch.device, compiler: str = "inductor") -> list[Measurement]:
    """All measurements, in order: what readers want first, then other precisions, and the plain network.

    Args:
        model: a checkpoint; None for random weights.
        compiler: the backend of ``torch.compile``.
    """
    half = ["fp16", "bf16"] if half_precision(device) == torch.bfloat16 else ["fp16"]

    def engines(precisions: Iterable[str], network: str, **settings: object) -> list[Measurement]:
        return [
            Measurement(
                "engine",
                f"{objects} object{'s' * (objects > 1)}",
                precision,
                network,
                partial(measure_engine, model, str(device), SIZE, CLIP_FRAMES, objects, precision, **settings),
            )
            for precision in precisions
            for objects in OBJECTS
        ]

    lengths = [
        Measurement(
            "length",
            f"{bank}, {times} × {CLIP_FRAMES} frames",
            "fp16",
            "fast",
            partial(measure_engine, model, str(device), SIZE, CLIP_FRAMES, 1, "fp16", bank=bank, times=times),
        )
        for times in TIMES
        for bank in ("2F+L+RDE", "STM")
    ]
    steps = [
        Measurement(
            "training step",
            f"batch of {batch_size}",
            f"{half[-1]} autocast",
            "plain",
            partial(measure_step, model, str(device), CROP_SIZE, batch_size, half_precision(device), **STEPS),
        )
        for batch_size in BATCH_SIZES
    ]
    return [
        *engines(["fp16"], "fast"),
        *lengths,
        *steps,
        *engines(["fp16"], "fast, torch.compile", compiler=compiler),
        *engines([*half[1:], "TF32", "fp32"], "fast"),
        *engines([*half, "TF32", "fp32"], "plain", fast=False),
    ]


def run(measurements: Sequence[Measurement], seconds: float) -> Iterator[list]:
    """Measure, and yield the lines of the table, also for measurements that fail or would begin too late."""
    end = time.monotonic() + seconds
    for measurement in measurements:
        figures, note = Figures(*[math.nan] * len(Figures._fields)), ""
        if time.monotonic() >= end:
            note = "not measured, out of time"
        else:
            try:
                figures = measurement.measure()
            except torch.OutOfMemoryError:
                note = "out of memory"
            except Exception as error:  # torch.compile and its libraries raise almost any exception
                note = f"failed: {type(error).__name__} {str(error).strip()}".split("\n")[0]
            if "compile" in measurement.network:
                torch.compiler.reset()
            gc.collect()  # so that the next one starts from the same state
            torch.cuda.empty_cache()
        yield [*measurement[:4], *("" if math.isnan(figure) else figure for figure in figures), note]


def write_tables(output: Path, title: str, rows: list[list]) -> None:
    """Write the table as CSV, and in Markdown beside it, below a line of text."""
    write_csv(output, [COLUMNS, *rows])
    lines = [COLUMNS, ["---"] * len(COLUMNS), *([shown(cell).replace("|", "/") for cell in row] for row in rows)]
    write_text(output.with_suffix(".md"), "\n".join([title, "", *(f"| {' | '.join(line)} |" for line in lines)]) + "\n")


def measure_gpu(model: Path | None, minutes: int, output: Path) -> None:
    """The command ``gpu``."""
    if not torch.cuda.is_available():
        raise InputError("gpu needs an NVIDIA GPU, and torch finds none; engine and training use the CPU")
    device = choose_device("cuda")
    title = f"{machine(device)}, PyTorch {torch.__version__}; frames of {SIZE[1]}×{SIZE[0]}, θ = {MEM_EVERY}; "
    title += f"clips of {CROP_SIZE}×{CROP_SIZE} in training"
    print(title)
    rows: list[list] = []
    write_tables(output, title, rows)  # so that an unwritable file is reported now
    measurements = planned(model, device)
    for number, row in enumerate(run(measurements, 60 * minutes), start=1):
        rows.append(row)
        write_tables(output, title, rows)
        per_second, milliseconds, peak = map(shown, row[4:7])
        result = row[-1] or f"{per_second} per second, {milliseconds} ms, peak {peak} MiB"
        print(f"{number}/{len(measurements)} {', '.join(row[:4])}: {result}", flush=True)
    print(output, output.with_suffix(".md"))
