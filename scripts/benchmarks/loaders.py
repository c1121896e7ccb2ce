"""The command ``loaders``."""

import argparse
import itertools
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import write_table
from dataset.samples.batches import GlobalBatchSampler
from dataset.samples.loading import training_batches
from dataset.samples.stages import stage_dataset, stage_flags
from small_network.toy import ToySettings, make_toy_data

LOADER_BATCH = 4
LOADER_WORKERS = (1, 2)


def stage_data(arguments: argparse.Namespace, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The stages to measure, with the given data or synthetic data in ``folder``; stages 2 and 3 have the same data."""
    given = vars(arguments)
    if not any(given.get(flag) for stage in range(4) for flag in stage_flags(stage)):
        height, width = arguments.size
        # 20 images are the minimum for all folders of stage 0 and a complete class.
        settings = ToySettings(
            height=height, width=width, frames=10, static=20, bl=2, youtube_train=2, davis_train=2, youtube_valid=0,
            davis_val=0, davis_test=0,
        )  # fmt: skip
        make_toy_data(folder, settings)
        given = {"static_root": folder / "static", "bl_root": folder / "BL30K"}
        given |= {"davis_root": folder / "DAVIS" / "2017", "yv_root": folder / "YouTube"}
    for name, stage in (("0", 0), ("1", 1), ("2 and 3", 2)):
        if any(given.get(flag) for flag in stage_flags(stage)):
            yield name, given


def time_loader(stage: int, given: dict[str, Any], workers: int, arguments: argparse.Namespace) -> tuple[int, float]:
    """Load batches of a stage, and return the number of samples and the seconds."""
    counted = math.ceil(arguments.samples / LOADER_BATCH)
    waiting = 2 * workers  # prefetched batches, which would distort the timing
    iterations = waiting + counted + waiting  # loading continues until the clock has stopped
    data = stage_dataset(stage, given, iterations=iterations, crop_size=arguments.crop_size)
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
        for stage, given in stage_data(arguments, Path(folder)):
            for workers in LOADER_WORKERS:
                samples, seconds = time_loader(int(stage[0]), given, workers, arguments)
                rows.append([stage, workers, samples, samples / seconds, samples / seconds / workers])
    print(f"crops of {arguments.crop_size}×{arguments.crop_size}")
    write_table(arguments, ["stage", "workers", "samples", "samples per second", "per second and core"], rows)
