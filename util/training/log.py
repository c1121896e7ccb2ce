"""What is written down of a training: scalars and panels for TensorBoard."""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from dataset.images import to_image
from util.distributed import Processes
from util.evaluation.pictures import overlay


class TrainingLog:
    """Averages scalars between two entries of the log, over iterations and processes, and draws panels.

    Values stay on the device until they are written, so that collecting them never waits for a GPU.
    """

    def __init__(self, folder: Path, processes: Processes, first_iteration: int) -> None:
        self._processes = processes
        # Entries beyond the checkpoint that training goes on from would otherwise appear twice.
        self._writer = SummaryWriter(folder, purge_step=first_iteration + 1) if processes.is_main else None
        self._sums: dict[str, Tensor] = {}  # of the sum and the count of each scalar, [2]
        self._samples = 0
        self._since = time.perf_counter()

    def collect(self, values: Mapping[str, Tensor], samples: int = 0) -> None:
        """Add the scalars of a pass over so many samples; those that are not finite are values that it does not have.

        Gradients overflow in fp16 where loss scaling tries too much; such a step is left out.
        """
        for name, value in values.items():
            pair = torch.stack([value.nan_to_num(0, 0, 0), value.isfinite().to(value)])
            self._sums[name] = self._sums.get(name, 0) + pair.detach()
        self._samples += samples

    def write(self, iteration: int, **others: float) -> dict[str, float]:
        """Write the means since the last entry, the samples per second, and ``others`` as they are; return the means.

        Args:
            iteration: how many iterations are done.
        """
        names = list(self._sums)
        sums = torch.stack([self._sums[name] for name in names])
        if self._processes.count > 1:
            torch.distributed.all_reduce(sums)
        scalars = {name: total / count for name, (total, count) in zip(names, sums.tolist(), strict=True) if count}
        now = time.perf_counter()
        others["samples per second"] = self._processes.count * self._samples / (now - self._since)
        self._sums, self._samples, self._since = {}, 0, now
        if self._writer:
            for name, value in (scalars | others).items():
                self._writer.add_scalar(name, value, iteration)
        return scalars

    def draw(self, iteration: int, frames: Tensor, true: Tensor, predicted: dict[int, Tensor]) -> None:
        """Draw the first clip of a batch: its frames with the predicted masks above those with the true ones.

        Args:
            iteration: how many iterations are done.
            frames: normalised [B,T,3,H,W].
            true: masks [B,T,K,H,W].
            predicted: masks [B,K,H,W] by frame; frame 0 has none.
        """
        if not self._writer:
            return
        rows = []
        for masks in (predicted, {t: true[:, t] for t in range(frames.shape[1])}):
            row = [to_image(frames[0, t].cpu()) for t in range(frames.shape[1])]
            for t, mask in masks.items():
                row[t] = overlay(row[t], label_map(mask[0]).cpu().numpy())
            rows.append(np.concatenate(row, axis=1))
        self._writer.add_image("predicted (above) and true masks", np.concatenate(rows), iteration, dataformats="HWC")

    def close(self) -> None:
        """Write what is left to disk."""
        if self._writer:
            self._writer.close()


def label_map(masks: Tensor) -> Tensor:
    """Soft masks [K,H,W] to uint8 ids [H,W]: 0 where no mask is above one half."""
    best, ids = masks.float().max(0)
    return torch.where(best > 0.5, ids + 1, 0).to(torch.uint8)


def object_ious(predicted: dict[int, Tensor], true: Tensor, selector: Tensor) -> dict[str, Tensor]:
    """Mean IoU of each object slot over the predicted frames of a batch.

    Args:
        predicted: soft masks [B,K,H,W] by frame.
        true: masks [B,T,K,H,W], 0 or 1.
        selector: [B,K], 1 where there is an object.

    Returns:
        scalars by name, ``IoU/object 1`` and so on, in 0..1; NaN where no clip of the batch fills the slot.
    """
    guess = torch.stack([predicted[t] for t in predicted], dim=1) > 0.5
    # Not indexed by a list, which would make a GPU wait for it.
    truth = torch.stack([true[:, t] for t in predicted], dim=1) > 0
    intersection = (guess & truth).sum((3, 4), dtype=torch.float32)
    union = (guess | truth).sum((3, 4), dtype=torch.float32)
    iou = torch.where(union > 0, intersection / union.clamp(min=1), 1).mean(1)
    mean = (iou * selector).sum(0) / selector.sum(0)
    return {f"IoU/object {k + 1}": value for k, value in enumerate(mean)}
