"""The processes of a run: one process, or several processes under ``torchrun``."""

import contextlib
import datetime
import os
from collections.abc import Iterator
from typing import TypeVar

import torch

from util.errors import InputError

Value = TypeVar("Value")


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Processes:
    """The processes of a run, as ``torchrun`` describes them in the environment; without it, one process of rank 0.

    Args:
        backend: the backend of torch.distributed; ``gloo`` works on every machine, ``nccl`` reduces on GPUs.
        patience: how long a process waits for the others before it gives up. The default is for work that processes
            share without talking to each other: a process that has finished its share may wait for hours.

    Attributes:
        rank: the number of this process, from 0.
        count: the number of processes.
    """

    def __init__(self, backend: str = "gloo", patience: datetime.timedelta = datetime.timedelta(days=1)) -> None:
        self.rank = int(os.environ.get("RANK", 0))
        self.count = int(os.environ.get("WORLD_SIZE", 1))
        if self.count > 1 and "OMP_NUM_THREADS" not in os.environ:
            # Each process would take all cores of its machine, and wait for the others most of the time.
            beside = int(os.environ.get("LOCAL_WORLD_SIZE", self.count))
            torch.set_num_threads(max(1, available_cores() // beside))
        if self.count > 1 and not torch.distributed.is_initialized():
            torch.distributed.init_process_group(backend, timeout=patience)

    @staticmethod
    def local_rank() -> int:
        """The number of this process on its machine, which is also the number of its GPU.

        The environment gives this number, so no group of processes is needed.
        """
        return int(os.environ.get("LOCAL_RANK", 0))

    @property
    def is_main(self) -> bool:
        """Whether this process is the process that prints and writes for all processes."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until every process has called this method."""
        if self.count > 1:
            torch.distributed.barrier()

    def from_main(self, value: Value) -> Value:
        """The value that the main process gives to this method, in every process.

        Args:
            value: in the main process a value that can be pickled, with all tensors on the CPU; ignored elsewhere.
        """
        values = [value if self.is_main else None]
        if self.count > 1:
            torch.distributed.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def gather(self, value: Value) -> list[Value]:
        """The values of all processes, in the order of their ranks; see `from_main`."""
        values: list[Value] = [value] * self.count
        if self.count > 1:
            torch.distributed.all_gather_object(values, value)
        return values

    def greatest(self, number: int) -> int:
        """The greatest of the numbers of all processes."""
        if self.count == 1:
            return number
        greatest = torch.tensor(number)
        torch.distributed.all_reduce(greatest, torch.distributed.ReduceOp.MAX)
        return int(greatest)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A context for work that all processes do together.

        Raises:
            InputError: another process has ended, or has not answered for as long as the patience lasts.
        """
        try:
            yield
        except RuntimeError as error:
            lost = isinstance(error, torch.distributed.DistError) or any(
                words in str(error) for words in ("gloo", "Gloo", "NCCL")
            )
            if self.count == 1 or not lost:
                raise
            reason = str(error).strip().split("\n")[0]
            raise InputError(
                f"process {self.rank} lost another process ({reason}); read the messages of the other processes, then "
                "go on from the last checkpoint"
            ) from None

    def close(self) -> None:
        """Leave the group of processes."""
        if self.count > 1:
            torch.distributed.destroy_process_group()
