"""Everything around the network. Importing it settles how a process uses its cores and memory, before torch does."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

# NNPACK has threads of its own; OpenMP's, which wait for work by spinning, would take the cores from them. Some 0.2 ms
# of it are short for NNPACK, though, and spare most waking of threads between operations, a tenth of the time of an
# engine with --amp on a virtual machine.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")

_mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_MOST = 1 << 25  # that glibc accepts for the latter


def _tune(option: int, size: int) -> None:
    """Set one of glibc's options, in bytes; other systems have none."""
    if _mallopt is not None:
        _mallopt(option, size)


# By default glibc returns the memory of large tensors to the system as soon as they are freed; getting it back, zeroed
# page by page, takes a quarter of an engine's time, with --amp more. Kept, it has holes.
_tune(_M_MMAP_THRESHOLD, _MOST)
_tune(_M_TRIM_THRESHOLD, 1 << 30)


def return_freed_memory() -> None:
    """Give the memory of freed tensors back to the system, where glibc keeps it at hand."""
    if _mallopt is not None:
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def lasting_memory() -> Iterator[None]:
    """Where weights are made: what is freed again returns to the system, and leaves no holes among what stays."""
    _tune(_M_MMAP_THRESHOLD, 1 << 20)  # blocks from here on are mappings of their own, which go back when freed
    try:
        yield
    finally:
        _tune(_M_MMAP_THRESHOLD, _MOST)
