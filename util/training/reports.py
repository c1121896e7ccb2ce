"""What a run writes between its iterations: the log, checkpoints and validations."""

from dataclasses import dataclass

from torch import Tensor

from util.device import peak_memory
from util.distributed import Processes
from util.training.arguments import Intervals
from util.training.log import TrainingLog
from util.training.loss_check import LossCheck
from util.training.run import RunFolder, TrainingState
from util.training.validation import Validation


@dataclass(frozen=True)
class Reports:
    """The places that a run writes to, and the intervals; ``validation`` may be None."""

    every: Intervals
    log: TrainingLog
    run: RunFolder
    validation: Validation | None
    processes: Processes

    def before_training(self, state: TrainingState) -> None:
        """Validate the resumed state if the run was killed between its checkpoint and its validation."""
        validated = self.processes.broadcast(self.run.validated_iteration() if self.processes.is_main else None)
        if state.iteration and self.every.due(state.iteration).validate and validated < state.iteration:
            self.validate(state)

    def after_iteration(
        self, state: TrainingState, check: LossCheck, hard_fraction: float, shown: tuple[Tensor, Tensor, dict]
    ) -> None:
        """Do everything that is due after an iteration.

        Args:
            check: the losses so far; they are checked before anything is written.
            hard_fraction: the fraction of the pixels that L_Seg counted.
            shown: frames, masks and predictions for the panel; see `TrainingLog.draw`.

        Raises:
            InputError: a loss is infinite or NaN, or a file cannot be written.
        """
        due = self.every.due(state.iteration)
        if due.log or due.save or due.validate:
            check.finish()
        if due.log:
            self.log.write(state.iteration, state.rate, peak_memory(state.network.device), hard_fraction)
        if due.draw:
            self.log.draw(state.iteration, *shown)
        if due.save and self.processes.is_main:
            self.run.save(state)
        if due.validate:
            self.validate(state)

    def validate(self, state: TrainingState) -> None:
        """Validate the weights, and keep the best; without a validation do nothing."""
        if self.validation:
            scores = self.validation.run(state.result)
            self.log.write_scores(state.iteration, scores)
            if self.processes.is_main:
                self.run.save_best(state.result, state.iteration, scores)
