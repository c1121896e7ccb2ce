"""Many independent pieces of work on all cores."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import cv2

from util.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(work: Callable[[Item], Result], items: Sequence[Item], workers: int | None = None) -> Iterator[Result]:
    """Yield ``work(item)`` for each item in order, from ``workers`` processes (by default one for each core).

    An error in ``work`` comes out here; what has not begun by then is left undone.

    Raises:
        InputError: the system ended a process.
    """
    if not items:
        return
    with ProcessPoolExecutor(min(workers or os.cpu_count() or 1, len(items)), initializer=_start_worker) as pool:
        try:
            for future in [pool.submit(work, item) for item in items]:
                yield future.result()
        except BrokenProcessPool:
            raise InputError(
                "a worker process was ended from outside, most likely for lack of memory; free some and run this again"
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    cv2.setNumThreads(1)  # there is a process for each core already
