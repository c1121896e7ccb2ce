"""Work in threads and in other processes."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import cv2

from util.device import enough_memory
from util.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_background(items: Iterable[Item], ahead: int = 4) -> Iterator[Item]:
    """Yield the items in order. A background thread computes them in advance, and this function raises its errors.

    Frames are decoded this way before the network needs them.

    Args:
        items: an iterator, which the thread advances.
        ahead: how many items may wait until they are used, so that memory is limited.
    """
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as pool:
        pending = deque(pool.submit(next, iterator, end) for _ in range(ahead))
        try:
            while (item := pending.popleft().result()) is not end:
                pending.append(pool.submit(next, iterator, end))
                yield item
        finally:
            for future in pending:
                future.cancel()


@contextlib.contextmanager
def background(work: Callable[[Item], object], ahead: int = 4) -> Iterator[Callable[[Item], None]]:
    """Yield a function that lets a background thread do ``work(item)`` for its argument, in order.

    Masks are written this way while the network goes on. All work is done at the end of the block. If ``work`` raises
    an error, a later call or the end of the block raises it.

    Args:
        ahead: how many items may wait, so that memory is limited.
    """
    with ThreadPoolExecutor(1) as pool:
        pending: deque[Future] = deque()

        def submit(item: Item) -> None:
            pending.append(pool.submit(work, item))
            if len(pending) > ahead:
                pending.popleft().result()

        try:
            yield submit
            while pending:
                pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield ``work(item)`` for each item, in order, computed in a thread for each core.

    Threads are faster than processes where the work decodes images and computes on arrays, which release Python's lock:
    a process needs about as long to import torch as all of DAVIS's val takes to score. More than eight threads wait for
    the lock.
    """
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        yield from pool.map(work, items)


def in_processes(work: Callable[[Item], Result], items: Sequence[Item], workers: int | None = None) -> Iterator[Result]:
    """Yield ``work(item)`` for each item, in order, computed in several processes.

    An exception in ``work`` is raised here, and cancels the jobs that have not started.

    Args:
        work: a picklable function.
        workers: the number of processes; by default one process for each core.
    """
    if not items:
        return
    count = min(workers or os.cpu_count() or 1, len(items))
    with ProcessPoolExecutor(count, mp_context=_context(), initializer=_start_worker) as pool:
        try:
            for future in [pool.submit(work, item) for item in items]:
                yield future.result()
        except BrokenProcessPool:
            raise InputError(
                "the system killed a worker process, most likely for lack of memory; free memory and run this again"
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def in_own_process(work: Callable[..., Result], *arguments: object, remedy: str) -> Result:
    """Return ``work(*arguments)``, computed in a new process, which has a peak memory of its own.

    Raises:
        InputError: as ``work``, or the memory ran out; the message then ends with the remedy.
    """
    with enough_memory(remedy):
        try:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=context, initializer=_end_with_parent) as pool:
                return pool.submit(work, *arguments).result()
        except BrokenProcessPool:
            raise MemoryError("the system killed the process") from None


def _context() -> multiprocessing.context.BaseContext:
    """Return the context that starts processes.

    A fork of this process would deadlock: it lacks the threads that OpenCV has started here. Instead, processes are
    forked from a server process that has done the slow imports and has started no threads.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cv2", "torch"])
    return context


def _end_with_parent() -> None:
    """End this process when the process that needs its results has ended without ending it, as after ``kill -9``."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _start_worker() -> None:
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles Ctrl-C
    cv2.setNumThreads(1)  # there is a process for each core already
