"""The command ``training``."""

import argparse
import statistics
import time
from typing import NamedTuple

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
from dataset.files.images import to_tensor
from model.inference import STRIDE
from model.training import ClipLoss
from util.device import autotuned_convolutions, synchronize, training_layout
from util.errors import InputError
from util.parallel import in_own_process

PASSES = ("plain", "--recompute")
PASS_PARTS = ("forward", "backward", "step")
SLOTS = 2  # objects of a training clip, as in the real data


class Losses(NamedTuple):
    """The results of a training pass."""

    loss: float
    terms: dict[str, float]


class Trainer:
    """A new network with its optimiser, and a forward pass, one of `PASSES`, in fp32 or in a 16-bit type."""

    def __init__(
        self, name: str, arguments: argparse.Namespace, device: torch.device, dtype: torch.dtype | None = None
    ) -> None:
        self._device, self._dtype = device, dtype
        network = make_network(arguments, device).to(memory_format=training_layout(device, dtype)).train()
        self._loss = ClipLoss(network, recompute=name == "--recompute")
        self._optimizer = torch.optim.Adam(self._loss.parameters(), lr=1e-5, weight_decay=1e-7, fused=True)
        self._scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    def step(self, batch: tuple[Tensor, ...]) -> tuple[dict[str, float], Losses]:
        """Train on a batch, and return seconds by part, and the losses."""
        clock = [self._now()]
        self._optimizer.zero_grad()
        with autotuned_convolutions():
            with torch.autocast(self._device.type, self._dtype, enabled=self._dtype is not None):
                loss, terms, _ = self._loss(*batch, hard_fraction=1.0)
            clock.append(self._now())
            self._scaler.scale(loss).backward()
            clock.append(self._now())
        self._scaler.step(self._optimizer)
        self._scaler.update()
        clock.append(self._now())
        seconds = clock[1] - clock[0], clock[2] - clock[1], clock[3] - clock[0]
        losses = Losses(float(loss.detach()), {name: float(term.detach()) for name, term in terms.items()})
        return dict(zip(PASS_PARTS, seconds, strict=True)), losses

    def _now(self) -> float:
        synchronize(self._device)
        return time.perf_counter()


def draw_batch(arguments: argparse.Namespace, device: torch.device) -> tuple[Tensor, ...]:
    """Synthetic clips of five frames in the format of `ClipLoss`."""
    frames, masks = [], []
    for t in range(5 * arguments.batch_size):
        image, ids = draw(t, (arguments.crop_size, arguments.crop_size), SLOTS)
        frames.append(to_tensor(image))
        masks.append(torch.from_numpy(np.stack([ids == number for number in range(1, SLOTS + 1)])).to(torch.uint8))
    frames, masks = (torch.stack(each).unflatten(0, (arguments.batch_size, 5)).to(device) for each in (frames, masks))
    perturbed = masks[:, 0].roll(arguments.crop_size // 32, dims=-1)
    return frames, masks, perturbed, torch.ones(arguments.batch_size, SLOTS, device=device)


def training_memory(arguments: argparse.Namespace, name: str) -> Memory:
    """The memory of training steps in this process, including the optimiser's."""
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
        raise InputError(f"--crop_size {arguments.crop_size} is not a multiple of {STRIDE}; choose one, such as 192")
    device = prepare(arguments)
    trainers = {name: Trainer(name, arguments, device) for name in PASSES}
    batch = draw_batch(arguments, device)
    # The first step warms up. In this step both networks have the same weights, so their losses are comparable.
    losses = {name: trainer.step(batch)[1] for name, trainer in trainers.items()}
    times: dict[str, list[dict[str, float]]] = {name: [] for name in PASSES}
    for _ in tqdm(range(arguments.repetitions), unit="repetition", disable=None):
        for name, trainer in trainers.items():
            times[name].append(trainer.step(batch)[0])
    trainers.clear()
    memories = {name: in_own_process(training_memory, arguments, name, remedy=MEMORY_REMEDY) for name in PASSES}

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
