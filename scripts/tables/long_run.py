"""Accuracy, speed and memory in every frame of a long video."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from util.errors import InputError
from util.files import read_json, write_text

LEAST_ABSENCE = 25  # frames; after a shorter absence an object was occluded, and does not count as returned
RECOVERY = 50  # frames after a return that count as recovery

_REMEDY = "delete it and run this again"


@dataclass(frozen=True, eq=False)
class LongRun:
    """The measurements in every frame of a video. The first and the last frame are not scored, as on DAVIS.

    All accuracies lie in 0..1. Where an object is absent from the ground truth, J and F are 1 for an empty prediction,
    and 0 for a single false pixel.
    """

    j: np.ndarray  # region similarity [frames - 2, objects]
    f: np.ndarray  # contour accuracy [frames - 2, objects]
    present: np.ndarray  # whether the object is in the ground truth, bool [frames - 2, objects]
    seconds: np.ndarray  # the inference time [frames]
    memory: np.ndarray  # the peak memory so far, in bytes [frames]

    @property
    def accuracy(self) -> np.ndarray:
        """J&F, the mean of J and F [frames - 2, objects]."""
        return (self.j + self.f) / 2

    @property
    def drift(self) -> float:
        """The mean J&F of the last tenth of the scored frames minus the mean of the first tenth, in -1..1."""
        tenth = max(1, len(self.j) // 10)
        return float(self.accuracy[-tenth:].mean() - self.accuracy[:tenth].mean())

    @property
    def while_present(self) -> float:
        """The mean J&F of objects while they are present; NaN without such frames."""
        return self._mean(self.present)

    @property
    def while_absent(self) -> float:
        """The mean J&F of objects while they are absent: the fraction of frames without a false pixel; or NaN."""
        return self._mean(~self.present)

    @property
    def recovery(self) -> float:
        """The mean J&F of objects in the first `RECOVERY` frames after each return; NaN without returns.

        An object returns if it is present after at least `LEAST_ABSENCE` frames of absence.
        """
        return self._mean(np.stack([_after_returns(present) for present in self.present.T], axis=1))

    def write(self, path: Path) -> None:
        """Write everything to a JSON file."""
        write_text(path, json.dumps({name: values.tolist() for name, values in asdict(self).items()}))

    @staticmethod
    def read(path: Path) -> "LongRun":
        """Read a file of `write`."""
        record = read_json(path, _REMEDY)
        types = {"j": float, "f": float, "present": bool, "seconds": float, "memory": float}
        try:
            return LongRun(**{name: np.array(record[name], dtype) for name, dtype in types.items()})
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{path} is no record of a run; {_REMEDY}") from None

    def _mean(self, selected: np.ndarray) -> float:
        return float(self.accuracy[selected].mean()) if selected.any() else float("nan")


def _after_returns(present: np.ndarray) -> np.ndarray:
    """The frames of recovery after a return, bool [frames], from the frames in which the object is present."""
    recovering = np.zeros(len(present), bool)
    absent = remaining = 0
    for number in range(len(present)):
        if not present[number]:
            absent += 1
            continue
        if absent >= LEAST_ABSENCE:
            remaining = RECOVERY
        recovering[number] = remaining > 0
        absent, remaining = 0, remaining - 1
    return recovering
