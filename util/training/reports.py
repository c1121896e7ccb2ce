"""What a run writes between its iterations: the log, checkpoints and validations."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from util.device import peak_memory
from util.distributed import Processes
from util.training.log import TrainingLog
from util.training.loss_check import LossCheck
from util.training.run import RunFolder, TrainingState
from util.training.validation import Validation


class Intervals(NamedTuple):
    """Iterations between log entries, panels, checkpoints and validations; ``end`` is the last iteration."""

    log: int
    draw: int
    save: int
    validate: int | None
    end: int


@dataclass(frozen=True)
class Reports:
    """Writes log entries, checkpoints and validations of a run at their intervals; ``validation`` may be None."""

    every: Intervals
    log: TrainingLog
    run: RunFolder
    validation: Validation | None
    processes: Processes

    def after_iteration(
        self, state: TrainingState, losses: LossCheck, hard_fraction: float, shown: tuple[Tensor, Tensor, dict]
    ) -> None:
        """Do everything that is due after an iteration. The first is always logged; after the last, all is due.

        Args:
            losses: the losses so far; they are checked before anything is written.
            hard_fraction: the fraction of the pixels that L_Seg counted.
            shown: frames, masks and predictions for the panel; see `TrainingLog.draw`.
        """
        done, every = state.iteration, self.every
        last = done == every.end
        logs, saves = (last or done % interval == 0 for interval in (every.log, every.save))
        validates = self.validation is not None and (last or done % every.validate == 0)
        if logs or saves or validates or done == 1:
            losses.check()
        if logs or done == 1:
            self.log.write(done, state.rate, peak_memory(state.network.device), hard_fraction)
        if done % every.draw == 0:
            self.log.draw(done, *shown)
        # Before the checkpoint: a run that is killed between the two validates again after it has resumed.
        if validates:
            scores = self.validation.run(state.result)
            self.log.write_scores(done, scores)
            if self.processes.is_main:
                self.run.save_best(state.result, done, scores)
        if saves and self.processes.is_main:
            self.run.save(state)
