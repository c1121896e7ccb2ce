"""The processes of a run: one process, or several processes under ``torchrun``."""

import datetime
import os

import torch


class Processes:
    """The processes of a run, as ``torchrun`` describes them in the environment; without it, one process of rank 0.

    Args:
        backend: the backend of torch.distributed; ``gloo`` works on every machine, ``nccl`` reduces on GPUs.

    Attributes:
        rank: the number of this process, from 0.
        count: the number of processes.
    """

    def __init__(self, backend: str = "gloo") -> None:
        self.rank = int(os.environ.get("RANK", 0))
        self.count = int(os.environ.get("WORLD_SIZE", 1))
        if self.count > 1 and not torch.distributed.is_initialized():
            # A process that has finished its share of the work waits for the other processes, perhaps for hours.
            torch.distributed.init_process_group(backend, timeout=datetime.timedelta(days=1))

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

    def close(self) -> None:
        """Leave the group of processes."""
        if self.count > 1:
            torch.distributed.destroy_process_group()
