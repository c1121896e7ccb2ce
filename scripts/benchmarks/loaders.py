"""The command ``loaders``."""

import argparse
import itertools
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import write_table
from dataset.batches import GlobalBatchSampler
from dataset.loading import training_batches
from dataset.stages import stage_dataset
from toy import ToySettings, make_toy_data

LOADER_BATCH = 4
LOADER_WORKERS = (1, 2)


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
