"""Training in several processes: their start, their batches, and the exchange of gradients."""

import contextlib
import datetime
import inspect
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dataset.samples.batches import GlobalBatchSampler
from dataset.samples.loading import training_batches
from dataset.samples.training_data import TrainingData
from util.distributed import Processes
from util.parallel import require_temporary_folder

_TIMEOUT = datetime.timedelta(minutes=30)  # a process that hangs must not block all GPUs for longer


def training_processes(device: torch.device) -> Processes:
    """The processes of a training run on ``device``."""
    return Processes("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", _TIMEOUT)


def load_batches(
    data: TrainingData,
    device: torch.device,
    processes: Processes,
    *,
    batch_size: int,
    iterations: int,
    start: int,
    workers: int,
    seed: int,
    accumulation: int = 1,
) -> Iterator[list[dict[str, torch.Tensor | list[str]]]]:
    """This process's share of the batches, each in ``accumulation`` parts, starting at iteration ``start``.

    The samples of a batch depend only on the seed and the iteration, not on the split of the work.

    Args:
        processes: the processes that share each batch.
        batch_size: the samples of an iteration, over all processes and accumulation steps.
        iterations: the length of the whole training.
        start: the number of finished iterations.
        workers: the loading processes of this process.
        seed: determines the samples.
        accumulation: the number of parts of this process's share of an iteration.

    Raises:
        InputError: the batch cannot be split evenly, or as `util.parallel.require_temporary_folder`.
    """
    if workers:
        require_temporary_folder()
    sampler = GlobalBatchSampler(
        len(data),
        batch_size=batch_size,
        iterations=iterations,
        start_iteration=start,
        rank=processes.rank,
        world_size=processes.count,
        accumulation=accumulation,
        seed=seed,
    )
    parts = training_batches(data, sampler, workers=workers, pin_memory=device.type == "cuda")
    return map(list, zip(*[parts] * accumulation, strict=True))


def data_parallel(module: nn.Module, device: torch.device, processes: Processes, *, equal_buffers: bool) -> nn.Module:
    """The module, wrapped by DistributedDataParallel if there are several processes.

    Args:
        module: computes the loss.
        processes: the processes that exchange gradients.
        equal_buffers: whether the buffers, such as the statistics of norms, are equal in all processes anyway. If not,
            each forward pass takes those of the main process.
    """
    if processes.count == 1:
        return module
    # PyTorch 2.14 renamed the setting.
    settings = inspect.signature(DistributedDataParallel).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in settings else "broadcast_buffers"
    return DistributedDataParallel(
        module,
        device_ids=[device.index] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,  # saves a copy of all gradients
        **{buffers: not equal_buffers},
    )


def exchange(model: nn.Module, last: bool) -> contextlib.AbstractContextManager:
    """A context for a backward pass. The processes exchange gradients only in the last pass of an iteration."""
    if last or not isinstance(model, DistributedDataParallel):
        return contextlib.nullcontext()
    return model.no_sync()
