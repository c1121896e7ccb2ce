"""One process, or many under ``torchrun``."""

import datetime
import os

import torch


class Processes:
    """The processes of a run, as ``torchrun`` describes them in the environment; alone, rank 0 of 1.

    Args:
        backend: of torch.distributed; ``gloo`` works on every machine, ``nccl`` reduces on GPUs.
    """

    def __init__(self, backend: str = "gloo") -> None:
        self.rank = int(os.environ.get("RANK", 0))
        self.count = int(os.environ.get("WORLD_SIZE", 1))
        if self.count > 1 and not torch.distributed.is_initialized():
            # A process that has finished its share waits here for the others', which may take hours.
            torch.distributed.init_process_group(backend, timeout=datetime.timedelta(days=1))

    @staticmethod
    def local_rank() -> int:
        """This process's number on its machine, which says which GPU is its own; known before any group is formed."""
        return int(os.environ.get("LOCAL_RANK", 0))

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that prints and writes for all."""
        return self.rank == 0

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.count > 1:
            torch.distributed.barrier()

    def close(self) -> None:
        """Leave the group of processes."""
        if self.count > 1:
            torch.distributed.destroy_process_group()
