"""Training in several processes: their start, and the exchange of gradients."""

import contextlib
import datetime
import inspect

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from util.distributed import Processes

_TIMEOUT = datetime.timedelta(minutes=30)  # a process that hangs must not block all GPUs for longer


def training_processes(device: torch.device) -> Processes:
    """The processes of a training run on ``device``."""
    return Processes("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", _TIMEOUT)


def data_parallel(module: nn.Module, device: torch.device, processes: Processes, *, equal_buffers: bool) -> nn.Module:
    """The module, wrapped by DistributedDataParallel if there are several processes.

    Args:
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
