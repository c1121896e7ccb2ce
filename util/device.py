"""The device that computes, and its peak memory."""

import re
import sys
from pathlib import Path

import torch

from util.distributed import Processes
from util.errors import InputError


def choose_device(name: str) -> torch.device:
    """Return the device of a name, after a test that the device works; a GPU becomes the current device.

    Args:
        name: any device name of torch, or ``auto``: the GPU of this process where there is a GPU, otherwise the CPU.
            ``cuda`` is the GPU of this process, too: under ``torchrun`` each process of a machine has its own GPU.

    Raises:
        InputError: this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{Processes.local_rank()}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"device {name} cannot be used here ({reason}); try device cpu") from None
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def device_name(device: torch.device) -> str:
    """The name of a device for readers of figures: the GPU's model, or ``cpu``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def training_layout(device: torch.device, dtype: torch.dtype | None) -> torch.memory_format:
    """The memory format of tensors in training: channels last, except in fp32 on CPUs.

    Convolutions in 16 bits work in channels last, on GPUs and CPUs. Max pooling of bf16 is slow in any other format.
    Convolutions in fp32 on CPUs choose a format of their own, and there the conversion of large weights' gradients to
    channels last takes long.

    Args:
        device: the device that trains.
        dtype: the 16-bit type of autocast; None for fp32.
    """
    return torch.contiguous_format if device.type == "cpu" and dtype is None else torch.channels_last


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished its work, so that a clock that is read next includes this work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> int:
    """The peak memory so far in bytes: of the tensors on a GPU, or of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.is_file():
        # Linux lets a process inherit the peak of its parent process in getrusage, but not here.
        return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1])
    import resource  # imported here because Windows has no such module

    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return resident if sys.platform == "darwin" else resident * 1024


def half_precision(device: torch.device) -> torch.dtype:
    """The 16-bit type to compute in on a device: bf16, or fp16 on GPUs without bf16."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def inference_dtype(device: torch.device, amp: bool) -> torch.dtype:
    """The type to segment in on a device: fp32, or with ``amp`` the device's 16-bit type.

    A CPU that does not multiply 16-bit numbers stays with fp32. oneDNN refuses bf16 on some of these CPUs and takes
    forty times as long as in fp32 on others.
    """
    if not amp or (device.type == "cpu" and not _multiplies_bf16()):
        return torch.float32
    return half_precision(device)


def _multiplies_bf16() -> bool:
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
