"""The command ``training``, and how all commands measure a training step."""

import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import Figures, Measurement, MemoryMeter, draw, machine, make_network, measure_in_turns
from dataset.files.images import to_tensor
from model.clip_loss import ClipLoss
from model.inference import STRIDE
from util.device import autotuned_convolutions, choose_device, synchronize, training_layout
from util.errors import InputError

SLOTS = 2  # objects of a training clip, as in the real data


def draw_batch(batch_size: int, crop_size: int, device: torch.device) -> tuple[Tensor, ...]:
    """Synthetic clips of five frames in the format of `ClipLoss`."""
    frames, masks = [], []
    for t in range(5 * batch_size):
        image, ids = draw(t, (crop_size, crop_size), SLOTS)
        frames.append(to_tensor(image))
        masks.append(torch.from_numpy(np.stack([ids == number for number in range(1, SLOTS + 1)])).to(torch.uint8))
    frames, masks = (torch.stack(each).unflatten(0, (batch_size, 5)).to(device) for each in (frames, masks))
    perturbed = masks[:, 0].roll(crop_size // 32, dims=-1)
    return frames, masks, perturbed, torch.ones(batch_size, SLOTS, device=device)


def measure_step(
    model: Path | None,
    device: str,
    crop_size: int,
    batch_size: int,
    dtype: torch.dtype | None = None,
    *,
    recompute: bool = False,
    warm_up: int = 1,
    steps: int = 1,
) -> Figures:
    """Train on synthetic clips as in stage 2 of train.py, without data loading, and with the optimiser.

    Args:
        crop_size: the side of the clips, in pixels.
        dtype: the 16-bit type of autocast; None for fp32.
        warm_up, steps: the number of steps before the timed ones, and of these.
    """
    chosen = choose_device(device)
    network = make_network(model).to(chosen, memory_format=training_layout(chosen, dtype)).train()
    loss = ClipLoss(network, recompute=recompute)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-5, weight_decay=1e-7, fused=True)
    scaler = torch.amp.GradScaler(chosen.type, enabled=dtype == torch.float16)
    batch = draw_batch(batch_size, crop_size, chosen)
    meter = MemoryMeter(chosen)
    for number in range(warm_up + steps):
        if number == warm_up:
            synchronize(chosen)
            started = time.perf_counter()
        optimizer.zero_grad()
        with autotuned_convolutions():
            with torch.autocast(chosen.type, dtype, enabled=dtype is not None):
                result = loss(*batch, hard_fraction=1.0)
            scaler.scale(result.loss).backward()
        scaler.step(optimizer)
        scaler.update()
    synchronize(chosen)
    seconds = (time.perf_counter() - started) / steps
    return Figures(batch_size / seconds, 1000 * seconds, *meter.read())


def measure_training(
    model: Path | None, device: str, crop_size: int, batch_size: int, repetitions: int, output: Path
) -> None:
    """The command ``training``: a step with and without --recompute, in turns."""
    if crop_size % STRIDE:
        raise InputError(f"--crop_size {crop_size} is not a multiple of {STRIDE}; choose one, such as 192")
    print(f"{machine(choose_device(device))}; clips of {crop_size}×{crop_size}")
    measurements = [
        Measurement(
            "training step",
            f"batch of {batch_size}",
            "fp32",
            "--recompute" if recompute else "plain",
            partial(measure_step, model, device, crop_size, batch_size, recompute=recompute),
        )
        for recompute in (False, True)
    ]
    measure_in_turns(measurements, repetitions, output)
