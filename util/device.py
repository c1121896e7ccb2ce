"""The compute device, its types and its peak memory."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from util.errors import InputError

# The messages of allocators other than torch's GPU allocator, and of CUDA's libraries if no memory is left for them.
_OUT_OF_MEMORY = re.compile(
    "DefaultCPUAllocator|not enough memory|out of memory|bad_alloc|CUBLAS_STATUS_ALLOC_FAILED|"
    "CUBLAS_STATUS_NOT_INITIALIZED|CUDNN_STATUS_ALLOC_FAILED|unable to find an engine",
    re.IGNORECASE,
)


def choose_device(name: str) -> torch.device:
    """Return a device by name, after a test that it works; a GPU becomes the current device.

    Args:
        name: any device name of torch, or ``auto``: this process's GPU if there is one, otherwise the CPU. ``cuda`` is
            this process's GPU, too: under ``torchrun`` each process of a machine has its own GPU. A launcher that shows
            each process only one GPU, by CUDA_VISIBLE_DEVICES, has made this choice already.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        only_one = "CUDA_VISIBLE_DEVICES" in os.environ and torch.cuda.device_count() == 1
        name = "cuda:0" if only_one else f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # the device meta has no values
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

    16-bit convolutions work in channels last, on GPUs and CPUs. Max pooling of bf16 is slow in any other format. fp32
    convolutions on CPUs choose their own format; converting the gradients of large weights to channels last is slow.

    Args:
        dtype: the 16-bit type of autocast; None or float32 for fp32.
    """
    fp32 = dtype in (None, torch.float32)
    return torch.contiguous_format if device.type == "cpu" and fp32 else torch.channels_last


def upload(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor to a device. A GPU copies it from pinned memory, so that this process does not wait for the GPU."""
    if device.type == "cuda" and not x.is_cuda:
        x = x.pin_memory()
    return x.to(device, non_blocking=device.type == "cuda")


@contextlib.contextmanager
def autotuned_convolutions() -> Iterator[None]:
    """A context for convolutions whose shapes repeat: a GPU measures which algorithm is the fastest for each shape."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished its work, so that timings include this work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> int:
    """The peak memory so far in bytes: of tensors on a GPU, or of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.is_file():
        # On Linux getrusage includes the inherited peak of the parent process; VmHWM does not.
        return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1])
    import resource  # imported here because Windows has no such module

    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return resident if sys.platform == "darwin" else resident * 1024


@contextlib.contextmanager
def enough_memory(remedy: str) -> Iterator[None]:
    """A context for work that may run out of memory, on a GPU or on the CPU.

    Args:
        remedy: what the user can do, for the message.

    Raises:
        InputError: the memory ran out.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and not _OUT_OF_MEMORY.search(reason):
            raise
        raise InputError(f"this machine has too little memory ({reason.split('. ')[0]}); {remedy}") from None


@contextlib.contextmanager
def working_compiler() -> Iterator[None]:
    """A context for work that ``torch.compile`` may compile.

    Raises:
        InputError: this machine cannot compile it.
    """
    try:
        yield
    except RuntimeError as error:
        # Without a compilation its module is not imported, which would take seconds.
        if "torch._dynamo" not in sys.modules or not isinstance(error, torch._dynamo.exc.TorchDynamoException):
            raise
        reason = " ".join(str(error).split("\n")[:2])  # the backend's name, and the error
        raise InputError(f"the network cannot be compiled here ({reason}); leave out --compile") from None


def half_precision(device: torch.device) -> torch.dtype:
    """The 16-bit type to compute in on a device: bf16, or fp16 on GPUs without bf16."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def inference_dtype(device: torch.device, amp: bool) -> torch.dtype:
    """The type of inference on a device: fp32, or with ``amp`` the device's 16-bit type.

    A CPU that lacks native bf16 arithmetic stays with fp32. On some of these CPUs oneDNN refuses bf16, on others it is
    forty times slower than fp32.
    """
    if not amp or (device.type == "cpu" and not _has_native_bf16()):
        return torch.float32
    return half_precision(device)


def _has_native_bf16() -> bool:
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
