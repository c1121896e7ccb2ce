"""The command ``engine``, and how all commands measure an inference engine."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.common import Figures, Measurement, MemoryMeter, draw, machine, make_network, measure_in_turns
from dataset.files.images import to_tensor
from model.fast import fast_network
from model.inference import InferenceCore
from util.device import autotuned_convolutions, choose_device, inference_dtype, synchronize

DTYPES = {"fp32": torch.float32, "TF32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
MEM_EVERY = 3
WARM_UP = 1 + 2 * MEM_EVERY  # frames: the annotated frame, and two updates


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


def measure_engine(
    model: Path | None,
    device: str,
    size: tuple[int, int],
    frames: int,
    objects: int,
    precision: str,
    *,
    fast: bool = True,
    compiler: str | None = None,
    bank: str = "2F+L+RDE",
    times: int = 1,
) -> Figures:
    """Segment a synthetic clip ``times`` times in a row, after `WARM_UP` frames, including the ids on the CPU.

    Args:
        model: the checkpoint; None for random weights.
        size: height and width of the frames, in pixels.
        precision: one of `DTYPES`, or "--amp" for the device's half precision.
        compiler: see `model.fast.fast_network`, which alone compiles.
    """
    chosen = choose_device(device)
    dtype = inference_dtype(chosen, amp=True) if precision == "--amp" else DTYPES[precision]
    pixels = [to_tensor(draw(t, size, objects)[0]) for t in range(frames)]
    mask = torch.from_numpy(draw(0, size, objects)[1])
    with precision_of_torch(precision), autotuned_convolutions():
        network = make_network(model).to(chosen)
        network = fast_network(network, dtype, compiler=compiler) if fast else network.to(dtype)
        core = InferenceCore(network, bank=bank, mem_every=MEM_EVERY)
        meter = MemoryMeter(chosen)
        count = times * frames
        for t in tqdm(range(WARM_UP + count), desc=f"{bank} ×{times}", unit="frame", disable=None, leave=False):
            if t == WARM_UP:
                synchronize(chosen)
                started = time.perf_counter()
            probability = core.step(pixels[t % frames], mask if t == 0 else None)
            probability.max(0).indices.to(torch.uint8).cpu()
        synchronize(chosen)
        seconds = time.perf_counter() - started
    return Figures(count / seconds, 1000 * seconds / count, *meter.read())


def measure_engines(
    model: Path | None,
    device: str,
    size: tuple[int, int],
    frames: int,
    objects: Sequence[int],
    repetitions: int,
    output: Path,
) -> None:
    """The command ``engine``: the plain network, the fast one, and the fast one with --amp, in turns."""
    print(f"{machine(choose_device(device))}; {size[1]}×{size[0]}, θ = {MEM_EVERY}")
    measurements = [
        Measurement(
            "engine",
            f"{count} object{'s' * (count > 1)}",
            precision,
            "fast" if fast else "plain",
            partial(measure_engine, model, device, size, frames, count, precision, fast=fast),
        )
        for count in objects
        for precision, fast in (("fp32", False), ("fp32", True), ("--amp", True))
    ]
    measure_in_turns(measurements, repetitions, output)
