"""The log of a training run: scalars and images for TensorBoard."""

import contextlib
import datetime
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from dataset.files.images import to_image
from model.clip_loss import ClipResult
from util.distributed import Processes
from util.evaluation.pictures import overlay
from util.progress import training_bar


class TrainingLog:
    """Writes scalars, averaged over processes and the iterations since the previous entry, and images of masks.

    Each entry is also a line on stdout. In terminals a bar shows the progress between the lines.

    Scalars stay on the device until they are written, so `collect` never synchronises a GPU.

    Args:
        first_iteration: the number of iterations that are already finished.
    """

    def __init__(self, folder: Path, processes: Processes, first_iteration: int, iterations: int) -> None:
        self._processes = processes
        self._written, self._iterations = first_iteration, iterations
        self._bar = training_bar(iterations, first_iteration) if processes.is_main else None
        # A resumed run repeats the iterations after its last checkpoint; their earlier entries are deleted.
        self._writer = SummaryWriter(folder, purge_step=first_iteration + 1) if processes.is_main else None
        self._sums: dict[str, Tensor] = {}  # by name: the sum and the number of the values, [2]
        self._samples = 0
        self._since = time.perf_counter()
        self._waited = 0.0  # seconds

    def collect_pass(self, inputs: Mapping[str, Tensor], result: ClipResult) -> None:
        """Add the losses and the IoUs of a training pass.

        Args:
            inputs: the batch: ``masks`` [B,T,K,H,W] and ``selector`` [B,K].
        """
        terms = {f"loss/{name}": term for name, term in result.terms.items()}
        ious = object_ious(result.masks, inputs["masks"], inputs["selector"])
        self.collect({"loss/total": result.loss, **terms, **ious}, samples=len(inputs["selector"]))

    def collect_step(self, norm: Tensor, iteration: int) -> None:
        """Add the gradient norm, a scalar, of the finished iteration number ``iteration``."""
        self.collect({"gradient norm": norm})
        if self._bar:
            self._bar.update(iteration)

    def collect(self, values: Mapping[str, Tensor], samples: int = 0) -> None:
        """Add the scalars of a pass; scalars that are not finite are ignored.

        A scalar is NaN if a pass has no such value. In fp16 gradients overflow if the loss scale is too large; the step
        is then skipped.

        Args:
            values: scalars by name, on any device.
        """
        for name, value in values.items():
            pair = torch.stack([value.nan_to_num(0, 0, 0), value.isfinite().to(value)])
            self._sums[name] = self._sums.get(name, 0) + pair.detach()
        self._samples += samples

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """A context in which this process waits for data."""
        started = time.perf_counter()
        yield
        self._waited += time.perf_counter() - started

    def write_scores(self, iteration: int, scores: Mapping[str, float]) -> None:
        """Write the scores of a validation, and print them in points.

        Args:
            scores: ``J&F``, ``J`` and ``F`` in 0..1, and others, by name.
        """
        if self._writer:
            for name, value in scores.items():
                self._writer.add_scalar(f"validation/{name}", value, iteration)
            points = "  ".join(f"{name} {100 * scores[name]:.1f}" for name in ("J&F", "J", "F"))
            print(f"iteration {iteration}/{self._iterations}  validation: {points}", flush=True)
        self._since, self._waited = time.perf_counter(), 0.0  # training speed excludes validation

    def write(self, iteration: int, rate: float, memory: int, hard_fraction: float) -> None:
        """Write an entry and print a line.

        An entry consists of the mean scalars since the previous entry, the samples per second, the fraction of time
        that the main process waited for data, and the arguments.

        Args:
            memory: the peak memory in bytes.
        """
        names = list(self._sums)
        sums = torch.stack([self._sums[name] for name in names])
        if self._processes.count > 1:
            torch.distributed.all_reduce(sums)
        scalars = {name: total / count for name, (total, count) in zip(names, sums.tolist(), strict=True) if count}
        seconds = time.perf_counter() - self._since
        speed = self._processes.count * self._samples / seconds
        left = (self._iterations - iteration) * seconds / (iteration - self._written)
        if self._writer:
            others = {"learning rate": rate, "samples per second": speed}
            others |= {
                "share of hard pixels": hard_fraction,
                "share of time waiting for data": self._waited / seconds,
                "peak memory (GiB)": memory / 2**30,
            }
            for name, value in (scalars | others).items():
                self._writer.add_scalar(name, value, iteration)
            print(
                f"iteration {iteration}/{self._iterations}  loss {scalars['loss/total']:.4f}  rate {rate:.3g}  "
                f"{speed:.2f} samples/s  {datetime.timedelta(seconds=round(left))} left",
                flush=True,
            )
        self._sums, self._samples, self._since, self._waited = {}, 0, time.perf_counter(), 0.0
        self._written = iteration

    def draw(self, iteration: int, frames: Tensor, true: Tensor, predicted: dict[int, Tensor]) -> None:
        """Draw the first clip of a batch: predicted masks above, ground truth below.

        Args:
            frames: normalised frames [B,T,3,H,W].
            true: ground-truth masks [B,T,K,H,W], 0 or 1.
            predicted: soft masks [B,K,H,W] by frame; frame 0 has none.
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

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, *error: object) -> None:
        """Write the remaining entries to disk."""
        if self._bar:
            self._bar.finish(dirty=True)
        if self._writer:
            self._writer.close()


def label_map(masks: Tensor) -> Tensor:
    """Convert soft masks [K,H,W] to uint8 ids [H,W]: the id of the maximum, and 0 where no mask exceeds 0.5."""
    best, ids = masks.float().max(0)
    return torch.where(best > 0.5, ids + 1, 0).to(torch.uint8)


def object_ious(predicted: dict[int, Tensor], true: Tensor, selector: Tensor) -> dict[str, Tensor]:
    """The mean IoU of each object over the predicted frames of a batch.

    Args:
        predicted: soft masks [B,K,H,W] by frame.
        true: ground-truth masks [B,T,K,H,W], 0 or 1.
        selector: [B,K], 1 where a clip has that object, otherwise 0.

    Returns:
        scalars by name, ``IoU/object 1`` and so on, in 0..1; NaN if no clip of the batch has that object.
    """
    guess = torch.stack([predicted[t] for t in predicted], dim=1) > 0.5
    # Indexing by a list would synchronise a GPU.
    truth = torch.stack([true[:, t] for t in predicted], dim=1) > 0
    intersection = (guess & truth).sum((3, 4), dtype=torch.float32)
    union = (guess | truth).sum((3, 4), dtype=torch.float32)
    iou = torch.where(union > 0, intersection / union.clamp(min=1), 1).mean(1)
    mean = (iou * selector).sum(0) / selector.sum(0)
    return {f"IoU/object {k + 1}": value for k, value in enumerate(mean)}
