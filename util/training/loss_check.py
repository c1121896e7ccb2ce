"""The check that the losses of training are finite."""

from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor

from util.errors import InputError


class _Pending(NamedTuple):
    loss: Tensor  # a copy on the CPU, possibly still in progress
    copied: torch.cuda.Event | None  # the end of the copy; None on a CPU
    names: list[str]  # of the samples


class LossCheck:
    """Checks every loss when it has been computed, so that this process never waits for a GPU.

    A loss is copied to the CPU as soon as it is computed. The check comes at a later pass, when the copy has ended, or
    in `finish`, which waits.

    Args:
        patience: the number of consecutive losses that may be infinite or NaN. In fp16 the loss scaling skips such
            steps and reduces the scale; only a longer sequence is an error.
    """

    def __init__(self, patience: int = 0) -> None:
        self._patience = patience
        self._in_a_row = 0
        self._pending: deque[_Pending] = deque()

    def add(self, loss: Tensor, names: list[str]) -> None:
        """Add the loss of a pass over the named samples, and check the earlier losses that have been computed.

        Raises:
            InputError: too many consecutive losses are infinite or NaN; the message names the samples.
        """
        copy, copied = loss.detach(), None
        if loss.is_cuda:
            copy = torch.empty((), dtype=loss.dtype, pin_memory=True).copy_(copy, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        self._pending.append(_Pending(copy, copied, names))
        while len(self._pending) > 1 and (self._pending[0].copied is None or self._pending[0].copied.query()):
            self._check(self._pending.popleft())

    def finish(self) -> None:
        """Check all losses so far."""
        while self._pending:
            self._check(self._pending.popleft())

    def _check(self, pending: _Pending) -> None:
        if pending.copied:
            pending.copied.synchronize()
        self._in_a_row = 0 if pending.loss.isfinite() else self._in_a_row + 1
        if self._in_a_row > self._patience:
            raise InputError(
                f"the loss became {pending.loss.item()} on the batch of {'; '.join(pending.names)}; check these "
                "samples, or restart from the last checkpoint with a lower learning rate"
            )
