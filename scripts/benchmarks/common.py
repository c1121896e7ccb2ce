"""Common code of all measurements of scripts/benchmark.py."""

import argparse
import gc
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from model import RDE_VOS, NetworkConfig, load_network
from util.device import choose_device, inference_dtype, peak_memory
from util.errors import InputError
from util.files import write_csv

MEMORY_COLUMNS = ("peak (MiB)", "growth (MiB)")
MEMORY_REMEDY = "use a smaller size, fewer objects or fewer times"


class Memory(NamedTuple):
    """The peak memory in MiB, and its growth: the peak minus the memory before the measurement."""

    peak: float
    growth: float


def make_network(arguments: argparse.Namespace, device: torch.device) -> RDE_VOS:
    """The network of the command line, or a network of fixed random weights.

    Raises:
        InputError: the checkpoint cannot be used, or has no SAM.
    """
    if arguments.model is None:
        torch.manual_seed(0)
        return RDE_VOS(NetworkConfig(mask_backbone="resnet18")).eval().to(device)
    network = load_network(arguments.model, device)
    if not network.config.aggregation:
        raise InputError(f"{arguments.model} has no SAM, which this script measures; use weights of RDE-VOS")
    return network


def prepare(arguments: argparse.Namespace) -> torch.device:
    """Set the number of threads of this process, and return the device."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    return choose_device(arguments.device)


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

    def read(self) -> Memory:
        # Linux counts pages in batches, so a run that takes no memory may seem to end some pages below its start.
        peak = max(self._start, peak_memory(self._device))
        return Memory(peak / 2**20, (peak - self._start) / 2**20)


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


def median_ratio(values: Iterable[float], references: Iterable[float]) -> float:
    """The median of the ratios of all repetitions."""
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
    """The name of the device; of a CPU the instructions that decide its speed, and the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    bf16 = "with" if inference_dtype(device, amp=True) == torch.bfloat16 else "without"
    return f"cpu, {torch.backends.cpu.get_cpu_capability()} {bf16} bf16, threads: {torch.get_num_threads()}"
