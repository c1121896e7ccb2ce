"""Everything around the network. Importing it settles how a process uses its cores and memory, before torch does."""

import ctypes
import os
import sys

# NNPACK has threads of its own; OpenMP's, which wait for work by spinning, would take the cores from them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# By default glibc returns the memory of large tensors to the system as soon as they are freed; getting it back, zeroed
# page by page, takes a quarter of an engine's time, with --amp more. Kept, it has holes: up to 220 MiB at 480p.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
if sys.platform == "linux" and (_mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
    _mallopt(_M_MMAP_THRESHOLD, 1 << 25)  # the most that it accepts
    _mallopt(_M_TRIM_THRESHOLD, 1 << 30)
