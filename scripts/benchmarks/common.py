"""What the measurements of scripts/benchmark.py share: the network, the clip, the meter of memory, and the tables."""

import gc
import math
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from model import RDE_VOS, NetworkConfig, load_network
from util.device import inference_dtype, peak_memory
from util.errors import InputError
from util.files import write_csv
from util.parallel import in_own_process


class Figures(NamedTuple):
    """What is measured of an engine or a training step."""

    per_second: float  # frames, or samples of training
    milliseconds: float  # for a frame, or for a step of training
    peak: float  # the peak memory, MiB
    growth: float  # the peak minus the memory before the first frame or step, MiB


HEADER = ("part", "what", "precision", "network", "per second", "ms", "peak (MiB)", "growth (MiB)")


class Measurement(NamedTuple):
    """A line of a table, and the function that measures it."""

    part: str
    what: str
    precision: str
    network: str
    measure: partial[Figures]


def make_network(model: Path | None) -> RDE_VOS:
    """The network of a checkpoint, or one of fixed random weights in the published architecture; on the CPU."""
    if model is None:
        torch.manual_seed(0)
        return RDE_VOS(NetworkConfig(mask_backbone="resnet18")).eval()
    network = load_network(model)
    if not network.config.aggregation:
        raise InputError(f"{model} has no SAM, which this script measures; use weights of RDE-VOS")
    return network


class MemoryMeter:
    """Measures the peak memory since its construction."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        gc.collect()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            # Loading has its own peak. Linux can reset it; on other systems the growth is relative to this peak.
            reset = Path("/proc/self/clear_refs")
            if reset.exists():
                reset.write_text("5")
        self._start = peak_memory(device)

    def read(self) -> tuple[float, float]:
        """The peak and its growth since the construction, in MiB."""
        # Linux counts pages in batches, so a run that takes no memory may seem to end some pages below its start.
        peak = max(self._start, peak_memory(self._device))
        return peak / 2**20, (peak - self._start) / 2**20


def draw(t: int, size: tuple[int, int], objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Discs that circle over a noisy gradient, at time t: uint8 RGB [H,W,3] and uint8 ids [H,W]."""
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


def measure_in_turns(measurements: Sequence[Measurement], repetitions: int, output: Path) -> None:
    """Measure everything ``repetitions`` times in turns, each in a process of its own, and write the medians.

    A ratio is the median of the repetitions' ratios to the time of the first measurement of the same kind.
    """
    measured: list[list[Figures]] = [[] for _ in measurements]
    for _ in tqdm(range(repetitions), unit="repetition", disable=None):
        for measurement, figures in zip(measurements, measured, strict=True):
            figures.append(in_own_process(measurement.measure, remedy="use a smaller size or fewer objects"))
    rows, references = [], {}
    for measurement, figures in zip(measurements, measured, strict=True):
        reference = references.setdefault(measurement.what, figures)
        ratios = (each.milliseconds / other.milliseconds for each, other in zip(figures, reference, strict=True))
        rows.append([*measurement[:4], *map(statistics.median, zip(*figures, strict=True)), statistics.median(ratios)])
    write_table(output, [*HEADER, "time / first"], rows)


def write_table(output: Path, header: Sequence[str], rows: Sequence[Sequence]) -> None:
    """Print a table with aligned columns and write it as CSV."""
    lines = [list(header), *(list(map(shown, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    write_csv(output, [header, *rows])
    print(output)


def shown(cell: object) -> str:
    """A cell of a table, for readers."""
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def machine(device: torch.device) -> str:
    """The name of the device; of a CPU the instructions that decide its speed, and the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    bf16 = "with" if inference_dtype(device, amp=True) == torch.bfloat16 else "without"
    return f"cpu, {torch.backends.cpu.get_cpu_capability()} {bf16} bf16, threads: {torch.get_num_threads()}"
