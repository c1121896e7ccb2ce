"""The processes of a run: one, or several under ``torchrun``."""

import contextlib
import datetime
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TypeVar

import torch

from util.errors import InputError
from util.files import lock_folder

Value = TypeVar("Value")
_PARENT = "RDE_VOS_PARENT"  # the variable with the process id of `run_script`'s caller
_SECONDS_TO_END = 60  # for a process that has lost another process


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores_per_process() -> int:
    """The number of cores for each of this run's processes on this machine, at least 1."""
    beside = os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", 1))
    return max(1, available_cores() // int(beside))


class Processes:
    """The processes of a run, as ``torchrun`` sets them in the environment; without it, one process of rank 0.

    Args:
        backend: the backend of torch.distributed; ``gloo`` works on every machine, ``nccl`` reduces on GPUs.
        timeout: how long a process waits for the others before it fails. The default suits work that processes share
            without communication: a process that has finished its share may wait for hours.

    Attributes:
        rank: the number of this process, from 0.
        count: the number of processes.
    """

    def __init__(self, backend: str = "gloo", timeout: datetime.timedelta = datetime.timedelta(days=1)) -> None:
        self.rank = int(os.environ.get("RANK", 0))
        self.count = int(os.environ.get("WORLD_SIZE", 1))
        if self.count > 1 and "OMP_NUM_THREADS" not in os.environ:
            # By default each process would use all cores of its machine, so the processes would slow each other down.
            torch.set_num_threads(cores_per_process())
        if self.count > 1 and not torch.distributed.is_initialized():
            torch.distributed.init_process_group(backend, timeout=timeout)
        if "TORCHELASTIC_RUN_ID" in os.environ or _PARENT in os.environ:
            parent = int(os.environ.pop(_PARENT, os.getppid()))
            threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()

    @property
    def is_main(self) -> bool:
        """Whether this is the process that prints and writes for all."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all processes have called this method."""
        if self.count > 1:
            torch.distributed.barrier()

    def broadcast(self, value: Value) -> Value:
        """Send a value of the main process to every process.

        Args:
            value: in the main process a picklable value with all tensors on the CPU; ignored in other processes.
        """
        values = [value if self.is_main else None]
        if self.count > 1:
            torch.distributed.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def gather(self, value: Value) -> list[Value]:
        """The values of all processes, in the order of their ranks; see `broadcast`."""
        values: list[Value] = [value] * self.count
        if self.count > 1:
            torch.distributed.all_gather_object(values, value)
        return values

    def max(self, number: int) -> int:
        """The maximum of the numbers of all processes."""
        if self.count == 1:
            return number
        maximum = torch.tensor(number)
        torch.distributed.all_reduce(maximum, torch.distributed.ReduceOp.MAX)
        return int(maximum)

    @contextlib.contextmanager
    def lock(self, folder: Path, *inside: str) -> Iterator[None]:
        """A context in which these processes alone use a folder; see `lock_folder`. The main process holds the lock.

        Raises:
            InputError: other processes use the folder; every process raises it.
        """
        with contextlib.ExitStack() as held:
            refusal = None
            if self.is_main:
                try:
                    held.enter_context(lock_folder(folder, *inside))
                except InputError as error:
                    refusal = error
            if refusal := self.broadcast(refusal):
                self.wait()
                self.close()  # a process that ends inside the group may be aborted when the others have ended
                raise refusal
            yield

    @contextlib.contextmanager
    def collective(self) -> Iterator[None]:
        """A context for collective work, in which all processes take part.

        Raises:
            InputError: another process has ended, or has not answered within the timeout.
        """
        try:
            yield
        except BaseException as error:
            if self.count > 1:
                # NCCL may wait for the lost process while Python ends. The system then ends this process.
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(_SECONDS_TO_END)
            lost = isinstance(error, torch.distributed.DistError) or any(
                words in str(error) for words in ("gloo", "Gloo", "NCCL")
            )
            if self.count == 1 or not lost or not isinstance(error, RuntimeError):
                raise
            reason = str(error).strip().split("\n")[0]
            raise InputError(
                f"process {self.rank} lost another process ({reason}); read the messages of the other processes, then "
                "resume from the last checkpoint"
            ) from None

    def close(self) -> None:
        """Leave the process group."""
        if self.count > 1:
            torch.distributed.destroy_process_group()


def run_script(script: Path, arguments: Sequence[str], output: IO[str] | None = None) -> int:
    """Run a script of the project that uses `Processes`. It ends when this process ends, also killed.

    Args:
        output: the file for its stdout and stderr; by default it shares those of this process.

    Returns:
        the exit code.
    """
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        stdout=output,
        stderr=subprocess.STDOUT if output else None,
        env={**os.environ, _PARENT: str(os.getpid())},
        check=False,
    ).returncode


def _end_with_parent(parent: int) -> None:
    """End this process when torchrun or a script, its parent, has ended without ending it, as after ``kill -9``.

    Otherwise it would go on beside a run that resumes it.
    """
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
