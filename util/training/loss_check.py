"""The check that the losses of training are finite."""

import torch
from torch import Tensor

from util.errors import InputError


class LossCheck:
    """Checks the losses since the last `check` at once, so that this process does not wait for a GPU at every pass.

    Args:
        patience: the number of consecutive losses that may be infinite or NaN. In fp16 the loss scaling skips such
            steps and reduces the scale; only a longer sequence is an error.
    """

    def __init__(self, patience: int = 0) -> None:
        self._patience = patience
        self._in_a_row = 0
        self._pending: list[tuple[Tensor, list[str]]] = []

    def add(self, loss: Tensor, names: list[str]) -> None:
        """Add the loss of a pass over the named samples."""
        self._pending.append((loss.detach(), names))

    def check(self) -> None:
        """Check all losses that were added.

        Raises:
            InputError: too many consecutive losses are infinite or NaN; the message names the samples.
        """
        losses = torch.stack([loss for loss, _ in self._pending]) if self._pending else torch.empty(0)
        for loss, (_, names) in zip(losses.cpu(), self._pending, strict=True):
            self._in_a_row = 0 if loss.isfinite() else self._in_a_row + 1
            if self._in_a_row > self._patience:
                raise InputError(
                    f"the loss became {loss.item()} on the batch of {'; '.join(names)}; check these samples, or "
                    "restart from the last checkpoint with a lower learning rate"
                )
        self._pending.clear()
