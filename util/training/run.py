"""The folder of a training run, the state that its checkpoints hold, and requests to stop the run."""

import datetime
import json
import signal
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from model.checkpoint import read_checkpoint, save_network
from model.network import RDE_VOS
from util.errors import InputError
from util.files import atomic_path, claim, read_json

CHECKPOINTS_KEPT = 3


@dataclass
class TrainingState:
    """Everything that an iteration changes; a run that restores this state goes on as if it had never stopped."""

    network: RDE_VOS
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    iteration: int = 0  # the number of finished iterations

    def step(self) -> None:
        """Finish an iteration whose gradients are computed."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.iteration += 1

    def parameters(self) -> list[nn.Parameter]:
        """The parameters that the run trains."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def content(self) -> dict[str, Any]:
        """The state without the network, for a checkpoint."""
        return {
            "iteration": self.iteration,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random_state": torch.get_rng_state(),
        }

    def restore(self, content: dict[str, Any]) -> None:
        """Take the state, without the network, from the content of a checkpoint."""
        self.iteration = content["iteration"]
        self.optimizer.load_state_dict(content["optimizer"])
        self.schedule.load_state_dict(content["schedule"])
        if content["scaler"]:  # empty in checkpoints of a precision without loss scaling
            self.scaler.load_state_dict(content["scaler"])
        torch.set_rng_state(content["random_state"])


class RunFolder:
    """The folder ``<root>/<name>`` of a run.

    The folder holds ``config.json``, ``starts.json``, the last few ``checkpoint_<iteration>.pth``, ``network.pth``, the
    log and, with validations, ``best.pth`` and the masks of the last validation.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.path = root / name
        self._best: float | None = None  # the highest J&F of the validations, once known

    def claim(self, config: dict[str, Any], resume: bool) -> None:
        """Make this the folder of a run with a configuration.

        Args:
            config: everything that the trained weights depend on, as values that JSON can hold.
            resume: the folder may hold a run already, with the same configuration.

        Raises:
            InputError: the folder holds a run and ``resume`` is false, the run has another configuration, or the
                configuration of the run cannot be read.
        """
        note = self.path / "config.json"
        if note.is_file() and not resume:
            raise InputError(f"{self.path} holds a run already; resume this run, or choose another id")
        if differences := claim(note, config):
            names = ", ".join(sorted(difference.name for difference in differences))
            raise InputError(f"{note} has another {names}; resume with the run's own settings, or choose another id")

    def latest(self) -> Path | None:
        """The newest checkpoint; None where there is no checkpoint."""
        return next(reversed(self._checkpoints()), None)

    def save(self, state: TrainingState) -> None:
        """Write the checkpoint of a state, and delete all checkpoints except the last few.

        Raises:
            InputError: a weight is infinite or no number; no checkpoint is written.
        """
        if broken := [name for name, tensor in state.network.state_dict().items() if not tensor.isfinite().all()]:
            raise InputError(
                f"{broken[0]} is no longer finite after iteration {state.iteration}; resume from the run's last "
                "checkpoint, or start again with a lower learning rate"
            )
        path = self.path / f"checkpoint_{state.iteration}.pth"
        save_network(state.network, path, **state.content())
        for old in self._checkpoints()[:-CHECKPOINTS_KEPT]:
            old.unlink()

    def note_start(self, iteration: int, noted: dict[str, Any]) -> None:
        """Add a start of the run to ``starts.json``: the date, the iteration, and ``noted``, values that JSON can hold.

        Raises:
            InputError: the file cannot be read.
        """
        path = self.path / "starts.json"
        starts = read_json(path, "delete the file and start again")["starts"] if path.is_file() else []
        date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with atomic_path(path) as temporary:
            content = {"starts": [*starts, {"date": date, "iteration": iteration, **noted}]}
            temporary.write_text(json.dumps(content, indent=1) + "\n")

    def keep_best(self, network: RDE_VOS, iteration: int, scores: dict[str, float]) -> None:
        """Write ``best.pth`` where no validation so far had a higher J&F.

        Args:
            network: the network after ``iteration`` iterations.
            scores: the scores of the validation, with ``J&F``; the file holds them beside the weights.

        Raises:
            InputError: the file of an earlier validation cannot be read.
        """
        path = self.path / "best.pth"
        if self._best is None and path.is_file():
            self._best = read_checkpoint(path)["validation"]["J&F"]
        if self._best is None or scores["J&F"] > self._best:
            self._best = scores["J&F"]
            save_network(network, path, validation={"iteration": iteration, **scores})

    def _checkpoints(self) -> list[Path]:
        """The checkpoints in the folder, the newest last."""
        paths = self.path.glob("checkpoint_[0-9]*.pth")
        return sorted(paths, key=lambda path: int(path.stem.removeprefix("checkpoint_")))


class StopRequest:
    """Turns SIGTERM and Ctrl-C into a request that the training loop reads when it is ready to stop.

    A second Ctrl-C ends the process at once. A second SIGTERM does not, because a process regularly gets two of them:
    a scheduler sends SIGTERM to every process, and torchrun sends another one to its processes.
    """

    def __init__(self) -> None:
        self.received = 0  # the signal that this process has received; 0 for no signal
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
