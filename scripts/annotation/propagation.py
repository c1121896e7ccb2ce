"""Propagation of masks through the video, from one frame on."""

import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import numpy as np

from annotation.errors import Refused
from annotation.jobs import Job
from annotation.project import Project
from dataset.files.video import Video, object_ids
from model.network import RDE_VOS
from util.errors import InputError
from util.evaluation.segmentation import EngineSettings, Segmented, segment
from util.parallel import background

DIRECTIONS = {"forward": ("forward",), "backward": ("backward",), "both": ("forward", "backward")}
LIMITS = ("end", "annotation")  # the next annotated frame


@dataclass(frozen=True, kw_only=True)
class LiveVideo(Video):
    """The frames of a propagation, with the current masks of the project.

    The mask of a frame is looked up when the frame is decoded, and not earlier, because the user may change masks
    during the propagation.

    Attributes:
        given: returns the given mask of a frame and the objects that are absent from it, or None.
        known: the ids of the objects in the masks so far.
    """

    given: Callable[[int], tuple[np.ndarray, set[int]] | None]
    known: set[int] = field(default_factory=set)

    def read(self, number: int) -> tuple[np.ndarray, np.ndarray | None, Collection[int]]:
        """As `Video.read`, with the mask that the frame has now."""
        ids, absent = self.given(number) or (None, ())
        shown = [] if ids is None else object_ids(ids)
        # An empty mask that states no known object to be absent says nothing.
        if not shown and self.known.isdisjoint(absent):
            ids, absent = None, ()
        self.known.update(shown)
        return self.read_frame(number), ids, absent


class Propagation:
    """A propagation of the mask of a frame; ``direction`` is one of `DIRECTIONS`, and ``until`` of `LIMITS`."""

    def __init__(self, project: Project, frame: int, direction: str, until: str) -> None:
        self._project, self._frame = project, frame
        self._stops = until == "annotation"
        if not project.read(frame).ids.any():
            raise Refused(400, f"frame {frame} shows no object; mark an object in it first")
        targets = {each: self._targets(each) for each in DIRECTIONS[direction]}
        self._numbers = {each: numbers for each, numbers in targets.items() if numbers}
        if not self._numbers:
            raise Refused(400, f"there is no frame to propagate to from frame {frame}; choose another frame")
        self.total = sum(map(len, self._numbers.values()))  # frames to segment

    def run(self, network: RDE_VOS, settings: EngineSettings, job: Job) -> None:
        """Propagate until the end, or until the job is stopped."""
        for direction, numbers in self._numbers.items():
            if not job.stopped:
                job.direction = direction
                self._propagate([self._frame, *numbers], network, settings, job)

    def _targets(self, direction: str) -> range:
        """The numbers of the frames to segment, in order."""
        count = len(self._project)
        numbers = range(self._frame + 1, count) if direction == "forward" else range(self._frame - 1, -1, -1)
        if self._stops:
            annotated = (step for step, number in enumerate(numbers) if self._project.is_annotated(number))
            numbers = numbers[: next(annotated, len(numbers))]
        return numbers

    def _propagate(self, numbers: list[int], network: RDE_VOS, settings: EngineSettings, job: Job) -> None:
        frames = self._project.frames.video

        def given(step: int) -> tuple[np.ndarray, set[int]] | None:
            if step or self._project.is_annotated(self._frame):
                return self._project.annotation(numbers[step])
            return self._project.read(self._frame).ids, set()

        video = LiveVideo(frames.name, [frames.frames[number] for number in numbers], given=given)

        def save(result: Segmented) -> None:
            self._project.propagate(numbers[result.number], result.ids, result.uncertainty)
            job.passed(numbers[result.number])

        core = settings.core(network)
        results = segment(core, video, settings.size, confidence=True)
        with contextlib.closing(results), background(save) as write:
            for result in results:
                if not video.known:
                    raise InputError(f"frame {self._frame} shows no object any more; mark an object in it first")
                # A new annotation stops a propagation until the next annotation, too.
                if job.stopped or (
                    self._stops and result.number and self._project.is_annotated(numbers[result.number])
                ):
                    break
                if result.number:
                    write(result)
