"""The folder of a training run, the state in its checkpoints, and requests to stop."""

import contextlib
import datetime
import json
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from model.checkpoint import not_finite, read_checkpoint, save_network
from model.network import RDE_VOS
from util.distributed import Processes
from util.errors import InputError
from util.files import ChangedSetting, check_settings, is_plain_name, read_json, write_text

CHECKPOINTS_KEPT = 3
_CHECKPOINT = re.compile(r"checkpoint_([0-9]{1,18})\.pth")
_STATE = ("iteration", "optimizer", "schedule", "scaler", "random_state")  # see `TrainingState.content`


@dataclass
class TrainingState:
    """Everything that an iteration changes; a run that restores this state continues as if it had never stopped."""

    network: RDE_VOS
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    iteration: int = 0  # the number of finished iterations
    # The exponential moving average (EMA) of the weights over the iterations; None for no average. ``decay`` is the
    # weight of the previous average, between 0 and 1, so the average covers about 1 / (1 - decay) iterations.
    average: RDE_VOS | None = None
    decay: float = 0.0
    dtype: torch.dtype | None = None  # the 16-bit type to compute in; None for fp32

    @property
    def result(self) -> RDE_VOS:
        """The network to evaluate and save: the average if there is one."""
        return self.average or self.network

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return self.schedule.get_last_lr()[0]

    def step(self) -> Tensor:
        """Finish an iteration after its backward pass.

        Returns:
            the gradient norm, a scalar on the network's device.
        """
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm([each.grad for each in self.parameters() if each.grad is not None])
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            # torch's AveragedModel counts on the device, and waits for the device to read the count.
            update = get_ema_multi_avg_fn(self.decay if self.iteration else 0.0)  # the first average is the weights
            update(list(self.average.parameters()), list(self.network.parameters()), None)
            for average, buffer in zip(self.average.buffers(), self.network.buffers(), strict=True):
                average.copy_(buffer)
        self.iteration += 1
        return norm

    def parameters(self) -> list[nn.Parameter]:
        """The parameters that the run trains."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def content(self) -> dict[str, Any]:
        """The state without the network, for a checkpoint."""
        average = {"average": self.average.state_dict()} if self.average else {}
        return average | {
            "iteration": self.iteration,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random_state": torch.get_rng_state(),
        }

    def restore(self, content: dict[str, Any]) -> None:
        """Restore the state, without the network, from the content of a checkpoint."""
        try:
            self.iteration = content["iteration"]
            self.optimizer.load_state_dict(content["optimizer"])
            self._lay_out_moments()
            self.schedule.load_state_dict(content["schedule"])
            if content["scaler"]:  # empty in checkpoints of a precision without loss scaling
                self.scaler.load_state_dict(content["scaler"])
            torch.set_rng_state(content["random_state"])
            if self.average:
                self.average.load_state_dict(content["average"])
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).split("\n")[0]
            raise InputError(
                f"the run's checkpoint does not fit the optimizer of this run ({reason}); delete the checkpoint, or "
                "choose another id"
            ) from None

    @torch.no_grad()
    def _lay_out_moments(self) -> None:
        """Give every loaded moment the memory layout of its parameter.

        The layout of a checkpoint is that of the device that wrote it (see `util.device.training_layout`). The fused
        Adam walks over the memory of parameter, gradient and moments in parallel, so all of them need one layout.
        """
        for parameter, moments in self.optimizer.state.items():
            for name, moment in moments.items():
                if moment.shape == parameter.shape:  # not the number of the step
                    moments[name] = torch.empty_like(parameter, dtype=moment.dtype).copy_(moment)


class RunFolder:
    """The folder ``<root>/<name>`` of a run.

    The folder contains ``config.json``, ``starts.json``, the last few ``checkpoint_<iteration>.pth``, ``network.pth``,
    the log and, with validation, ``best.pth`` and the masks of the last validation.
    """

    def __init__(self, root: Path, name: str) -> None:
        if not is_plain_name(name):
            raise InputError(f"{name!r} cannot be the id of a run; choose a name without slashes, such as s0")
        self.path = root / name

    def check_settings(self, config: dict[str, Any], resume: bool) -> None:
        """Write the configuration of a new run, or compare it with that of a run to resume.

        Args:
            config: everything that the trained weights depend on, as values that JSON can hold.
            resume: whether the folder may contain a run, with the same configuration.
        """
        note = self.path / "config.json"
        if note.is_file() and not resume:
            raise InputError(f"{self.path} holds a run already; add --resume to resume it, or choose another --id")
        if differences := check_settings(note, config):
            names = ", ".join(sorted(map(_described, differences)))
            raise InputError(f"{note} has another {names}; resume with the run's own settings, or choose another id")

    def read_latest(self) -> dict[str, Any] | None:
        """The content of the newest checkpoint; None where there is no checkpoint."""
        if not (paths := self._checkpoints()):
            return None
        try:
            content = read_checkpoint(paths[-1])
            if missing := {"config", "network", *_STATE} - content.keys():
                raise InputError(f"{paths[-1]} holds no {', '.join(sorted(missing))}")
        except InputError as error:
            raise InputError(f"{error}; if you delete it, the run resumes from the checkpoint before") from None
        return content

    def save(self, state: TrainingState) -> None:
        """Write the checkpoint of a state, and delete all checkpoints except the last few."""
        if broken := not_finite(state.network.state_dict()):
            raise InputError(
                f"{broken[0]} is no longer finite after iteration {state.iteration}; resume from the run's last "
                "checkpoint, or restart with a lower learning rate"
            )
        path = self.path / f"checkpoint_{state.iteration}.pth"
        save_network(state.network, path, **state.content())
        for old in self._checkpoints()[:-CHECKPOINTS_KEPT]:
            old.unlink()

    def record_start(self, iteration: int, noted: dict[str, Any]) -> None:
        """Add a start of the run to ``starts.json``: the date, the iteration, and ``noted``, values for JSON."""
        path = self.path / "starts.json"
        starts = read_json(path, "delete the file and start again").get("starts", []) if path.is_file() else []
        if not isinstance(starts, list):
            raise InputError(f"{path} lists no starts of a run; delete the file and start again")
        date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        content = {"starts": [*starts, {"date": date, "iteration": iteration, **noted}]}
        write_text(path, json.dumps(content, indent=1) + "\n")

    def save_best(self, network: RDE_VOS, iteration: int, scores: dict[str, float]) -> None:
        """Write ``best.pth`` unless an earlier validation had a higher J&F.

        Args:
            network: the network after ``iteration`` iterations.
            scores: the scores of the validation, with ``J&F``; the file contains them, too.
        """
        path, best = self.path / "best.pth", None
        if path.is_file():
            try:
                best = float(read_checkpoint(path)["validation"]["J&F"])
            except (KeyError, TypeError, ValueError):
                raise InputError(f"{path} holds no scores of a validation; move the file to another folder") from None
        if best is None or not best >= scores["J&F"]:  # also if the scores are NaN
            save_network(network, path, validation={"iteration": iteration, **scores})

    def _checkpoints(self) -> list[Path]:
        """The checkpoints in the folder, the newest last."""
        paths = (path for path in self.path.glob("checkpoint_*.pth") if _CHECKPOINT.fullmatch(path.name))
        return sorted(paths, key=_iteration)


def save_result(run: RunFolder, state: TrainingState, *, stopped: bool, trained: bool) -> None:
    """Save the trained weights at the end of training, or a checkpoint if training was stopped.

    Args:
        trained: whether this start has finished an iteration.
    """
    weights = run.path / "network.pth"
    if stopped:
        if trained:
            run.save(state)
        print(f"stopped after iteration {state.iteration}; resume with --resume")
        return
    # Evaluation identifies weights by the hash of their file, so a finished run does not rewrite the file.
    if trained or not weights.is_file():
        save_network(state.result, weights)
    print(f"trained weights are in {weights}")


def _described(difference: ChangedSetting) -> str:
    """A setting with its value in the run and its value now; of a group of settings those that differ."""
    name, found, wanted = difference
    if isinstance(found, dict) and isinstance(wanted, dict):
        inner = [ChangedSetting(each, found.get(each), wanted.get(each)) for each in {**found, **wanted}]
        return f"{name} ({', '.join(_described(each) for each in inner if each.found != each.wanted)})"
    return f"{name}: {found} in the run, {wanted} now"


def _iteration(path: Path) -> int:
    """The number of finished iterations in the name of a checkpoint."""
    return int(_CHECKPOINT.fullmatch(path.name)[1])


class StopRequest:
    """A request to stop training early: SIGTERM, Ctrl-C, or unreadable data, in any of the processes.

    A signal becomes a request that the training loop checks when it is ready to stop. A second Ctrl-C ends the process
    immediately. A second SIGTERM does not, because processes usually get two: one from the scheduler and one from
    torchrun.
    """

    _UNREADABLE = 1000  # stands for unreadable data; greater than all signal numbers

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._received = 0  # the signal that this process has received; 0 for no signal
        self._error: InputError | None = None  # of this process
        self._reason = 0  # agreed by all processes: a signal, _UNREADABLE, or 0 to continue
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    @contextlib.contextmanager
    def at_unreadable_data(self) -> Iterator[None]:
        """A context that turns an `InputError` into a request to stop."""
        try:
            yield
        except InputError as error:
            self._error = error

    def agreed(self) -> bool:
        """Whether to stop now, because any process requests it. Every process must call this method."""
        self._reason = self._processes.max(self._UNREADABLE if self._error else self._received)
        return self._reason != 0

    def exit(self) -> None:
        """End the program in the way that the reason to stop requires; without a reason do nothing.

        Raises:
            InputError: data is unreadable.
            SystemExit: a signal was received.
        """
        if self._reason == self._UNREADABLE:
            raise self._error or InputError(
                "another process cannot load a sample; see its message, repair the cause and use --resume"
            )
        if self._reason:
            sys.exit(128 + self._reason)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
