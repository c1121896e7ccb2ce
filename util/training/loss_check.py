"""The check that the losses of a training stay finite."""

from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor

from util.errors import InputError


class _Pending(NamedTuple):
    loss: Tensor  # a copy on the CPU, which may be on its way
    copied: torch.cuda.Event | None  # when the copy is complete; None on a CPU
    names: list[str]  # of the samples


class LossCheck:
    """Checks every loss one pass later, so that a GPU always has work while this process waits for a loss.

    A loss is copied to the CPU as soon as the GPU has computed the loss. The check of a loss waits for the copy alone,
    and not for the work that was given to the GPU later.

    Args:
        patience: how many losses in a row may be infinite or no number. In fp16 the loss scaling skips such steps and
            tries a smaller scale; only a row of them is an error.
    """

    def __init__(self, patience: int = 0) -> None:
        self._patience = patience
        self._in_a_row = 0
        self._pending: deque[_Pending] = deque()

    def add(self, loss: Tensor, names: list[str]) -> None:
        """Take the loss of a pass over the samples of these names, and check the loss before.

        Raises:
            InputError: too many losses in a row are infinite or no number; the message names the samples.
        """
        copy, copied = loss.detach(), None
        if loss.is_cuda:
            copy = torch.empty((), dtype=loss.dtype, pin_memory=True).copy_(copy, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        self._pending.append(_Pending(copy, copied, names))
        if len(self._pending) > 1:
            self._check(self._pending.popleft())

    def finish(self) -> None:
        """Check all losses so far.

        Raises:
            InputError: as `add`.
        """
        while self._pending:
            self._check(self._pending.popleft())

    def _check(self, pending: _Pending) -> None:
        if pending.copied:
            pending.copied.synchronize()
        self._in_a_row = 0 if pending.loss.isfinite() else self._in_a_row + 1
        if self._in_a_row > self._patience:
            raise InputError(
                f"the loss became {pending.loss.item()} on the batch of {'; '.join(pending.names)}; look at these "
                "samples, or start again from the last checkpoint with a lower learning rate"
            )
