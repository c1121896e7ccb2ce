"""The folder of a training run: its configuration, its checkpoints, and the wish to stop it."""

import json
import signal
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from model.checkpoint import save_network
from model.network import RDE_VOS
from util.distributed import Processes
from util.errors import InputError
from util.files import atomic_path

CHECKPOINTS_KEPT = 3


@dataclass
class TrainingState:
    """What an iteration changes, and what has to be brought back to go on as if nothing had happened."""

    network: RDE_VOS
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    iteration: int = 0  # how many are done

    def step(self) -> None:
        """Finish an iteration whose gradients are there."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.iteration += 1

    def content(self) -> dict[str, Any]:
        """All but the network, for a checkpoint."""
        return {
            "iteration": self.iteration,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random_state": torch.get_rng_state(),
        }

    def restore(self, content: dict[str, Any]) -> None:
        """Take over all but the network from a checkpoint."""
        self.iteration = content["iteration"]
        self.optimizer.load_state_dict(content["optimizer"])
        self.schedule.load_state_dict(content["schedule"])
        if content["scaler"]:  # empty after iterations in another precision
            self.scaler.load_state_dict(content["scaler"])
        torch.set_rng_state(content["random_state"])


class RunFolder:
    """``<root>/<name>`` with ``config.json``, the last few ``checkpoint_<iteration>.pth``, ``network.pth`` and logs."""

    def __init__(self, root: Path, name: str) -> None:
        self.path = root / name

    def claim(self, config: dict[str, Any], resume: bool) -> None:
        """Make this the folder of a run with this configuration.

        Raises:
            InputError: there is a run of this name and it is not to be resumed, or it was started differently.
        """
        path = self.path / "config.json"
        config = json.loads(json.dumps(config))  # as it comes back: tuples are lists
        if not path.is_file():
            with atomic_path(path) as temporary:
                temporary.write_text(json.dumps(config, indent=1) + "\n")
            return
        if not resume:
            raise InputError(f"{self.path} holds a run already; go on with --resume, or choose another --id")
        kept = json.loads(path.read_text())
        different = sorted(name for name in config.keys() | kept.keys() if config.get(name) != kept.get(name))
        if different:
            raise InputError(
                f"{path} has another {', '.join(different)}; resume with the run's own settings, or choose another --id"
            )

    def latest(self) -> Path | None:
        """The newest checkpoint, where there is one."""
        return next(reversed(self._checkpoints()), None)

    def save(self, state: TrainingState) -> None:
        """Write the checkpoint of an iteration, and delete all but the last few.

        Raises:
            InputError: a weight is no number any more; nothing is written.
        """
        if broken := [name for name, tensor in state.network.state_dict().items() if not tensor.isfinite().all()]:
            raise InputError(
                f"{broken[0]} is no longer finite after iteration {state.iteration}; go on from the run's last "
                "checkpoint with --resume, or start again with a lower --lr"
            )
        path = self.path / f"checkpoint_{state.iteration}.pth"
        save_network(state.network, path, **state.content())
        for old in self._checkpoints()[:-CHECKPOINTS_KEPT]:
            old.unlink()

    def _checkpoints(self) -> list[Path]:
        """Those that are there, the newest last."""
        paths = self.path.glob("checkpoint_[0-9]*.pth")
        return sorted(paths, key=lambda path: int(path.stem.removeprefix("checkpoint_")))


class StopRequest:
    """Turns SIGTERM and Ctrl-C into a wish that the training loop grants when it is ready; a second Ctrl-C is final.

    A second SIGTERM is not: a scheduler's reaches every process, and torchrun passes its own one on.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._signal = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def received(self) -> int:
        """The signal that any process has received so far, the same answer in all of them; 0 for none."""
        if self._processes.count == 1:
            return self._signal
        signals = torch.tensor(self._signal)
        torch.distributed.all_reduce(signals, torch.distributed.ReduceOp.MAX)
        return int(signals)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
