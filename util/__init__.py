"""Everything around the network. Importing it settles how a process uses its cores and memory, before torch does."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

# NNPACK has threads of its own; OpenMP's, which wait for work by spinning, would take the cores from them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def _map_from(size: int) -> None:
    """Let every block from so many bytes on be a mapping of its own, which goes back to the system when freed."""
    if _mallopt is not None:
        _mallopt(_M_MMAP_THRESHOLD, size)


# By default glibc returns the memory of large tensors to the system as soon as they are freed; getting it back, zeroed
# page by page, takes a quarter of an engine's time, with --amp more. Kept, it has holes.
_map_from(1 << 25)  # the most that it accepts
if _mallopt is not None:
    _mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def return_freed_memory() -> None:
    """Give the memory of freed tensors back to the system, where glibc keeps it at hand."""
    if _mallopt is not None:
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def lasting_memory() -> Iterator[None]:
    """Where weights are made: what is freed again returns to the system, and leaves no holes among what stays."""
    _map_from(1 << 20)
    try:
        yield
    finally:
        _map_from(1 << 25)
