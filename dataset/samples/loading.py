"""The processes that load training batches, and their signal handling."""

import atexit
import multiprocessing
import signal
from collections.abc import Iterator

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from dataset.samples.batches import GlobalBatchSampler, SampleKey
from dataset.samples.training_data import TrainingData
from util.errors import InputError


def training_batches(
    data: TrainingData, sampler: GlobalBatchSampler, *, workers: int, pin_memory: bool = False
) -> Iterator[dict[str, torch.Tensor | list[str]]]:
    """Load the micro-batches of this process in order.

    Args:
        data: the samples.
        sampler: the keys of the samples in each micro-batch.
        workers: the number of loading processes. With 0 this process loads the samples.
        pin_memory: whether to use page-locked memory, which is faster to copy to a GPU.

    Yields:
        Dictionaries like those of the samples: tensors are stacked along a new first dimension, names are in a list.

    Raises:
        InputError: a sample cannot be loaded. The message names the file.
    """
    atexit.register(_end_workers)
    loader = DataLoader(
        _ErrorsAsSamples(data), batch_sampler=sampler, collate_fn=_collate, num_workers=workers, pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # the loader draws a number when it starts, but not from the run's generator
    )  # fmt: skip
    batches = iter(loader)
    _keep_failures_quiet()
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise InputError(
                "the system ended a process that loads data, most likely for lack of memory; use fewer --workers and "
                "--resume"
            ) from None
        if isinstance(batch, InputError):
            raise batch
        yield batch


class _ErrorsAsSamples(Dataset):
    """Samples, or the errors in their places: torch would put a loading process's traceback into a raised one."""

    def __init__(self, data: TrainingData) -> None:
        self.data = data

    def __getitem__(self, key: SampleKey) -> dict[str, torch.Tensor | str] | InputError:
        try:
            return self.data[key]
        except InputError as error:
            return error


def _collate(
    samples: list[dict[str, torch.Tensor | str] | InputError],
) -> dict[str, torch.Tensor | list[str]] | InputError:
    errors = (sample for sample in samples if isinstance(sample, InputError))
    return next(errors, None) or default_collate(samples)


def _start_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # there is a loading process for each core already
    # Terminals and job schedulers signal all processes of a job. Only the training loop decides when to stop.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _end_workers() -> None:
    """Kill the loading processes when this process exits, also after an error.

    Otherwise Python would send SIGTERM, which they ignore, and wait for them.
    """
    _keep_failures_quiet()
    for child in multiprocessing.active_children():
        child.kill()


def _keep_failures_quiet() -> None:
    """Stop torch from raising an error wherever this process is when a loading process ends; the next batch raises."""
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
