"""The processes that load training batches, and their signal handling."""

import atexit
import multiprocessing
import signal
import threading
import warnings
from collections.abc import Iterator

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from dataset.samples.batches import SampleKey
from dataset.samples.training_data import TrainingData
from util.errors import InputError


def training_batches(
    data: TrainingData, keys: Iterator[list[SampleKey]], *, workers: int, pin_memory: bool = False
) -> Iterator[dict[str, torch.Tensor | list[str]]]:
    """Load the micro-batches of this process in order.

    The loading processes start at the call, not at the first batch: after NCCL has started a fork may deadlock.

    Args:
        workers: the number of loading processes. With 0 this process loads the samples.
        pin_memory: whether to use page-locked memory, which is faster to copy to a GPU.

    Returns:
        an iterator over dictionaries like those of the samples: tensors are stacked along a new first dimension, names
        are in a list.

    Raises:
        InputError: (from the iterator) a sample cannot be loaded, and the message names the file; or the system ended a
            loading process.
    """
    atexit.register(_end_workers)
    with warnings.catch_warnings():
        # torch warns twice of more processes than cores, which somebody has chosen: the default follows the cores.
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        loader = DataLoader(
            _ErrorsAsSamples(data), batch_sampler=keys, collate_fn=_collate, num_workers=workers,
            pin_memory=pin_memory, worker_init_fn=_start_worker,
        )  # fmt: skip
        batches = iter(loader)
    if workers and hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        # torch would raise an error anywhere in an iteration as soon as a loading process ends.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return _without_errors(batches)


def _without_errors(batches: Iterator) -> Iterator[dict[str, torch.Tensor | list[str]]]:
    """The batches; the first error ends them."""
    while True:
        try:
            batch = next(batches, None)
        except (RuntimeError, ConnectionError, EOFError) as error:
            # A process that ends while it hands over a batch closes its connection.
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            raise InputError(
                "the system ended a process that loads samples, most likely for lack of memory; use fewer --workers, "
                "and resume with --resume"
            ) from None
        if batch is None:
            return
        if isinstance(batch, InputError):
            raise batch
        yield batch


class _ErrorsAsSamples(Dataset):
    """Returns a sample, or its `InputError`: to a raised one torch adds the traceback of the loading process."""

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
    for child in multiprocessing.active_children():
        child.kill()
