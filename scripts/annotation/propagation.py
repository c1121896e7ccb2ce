"""Masks carried through the video by the engine, from one frame on."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from annotation.errors import Refused
from annotation.jobs import Job
from annotation.project import ANNOTATED, Project
from dataset.video import Video, object_ids
from model.network import RDE_VOS
from util.errors import InputError
from util.evaluation.stream import EngineSettings, Segmented, segment
from util.parallel import in_background

DIRECTIONS = {"forward": ("forward",), "backward": ("backward",), "both": ("forward", "backward")}
LIMITS = ("end", "annotation")


@dataclass(frozen=True, kw_only=True)
class Passage(Video):
    """The frames on the way of a propagation, with the masks that the project has when the engine comes by.

    `segment` decodes a frame before it looks for the mask of the frame. The mask is looked up at this moment, and not
    before, because a person may change masks while the engine is on its way.

    Attributes:
        given: returns the given mask of a frame and the objects that are absent from it, or None.
        known: the ids of the objects that the masks so far have shown.
        taken: the given masks of the few decoded frames that the engine has not yet come to.
    """

    given: Callable[[int], tuple[np.ndarray, set[int]] | None]
    known: set[int] = field(default_factory=set)
    taken: dict[int, np.ndarray] = field(default_factory=dict)

    def read_frame(self, number: int) -> np.ndarray:
        """Decode a frame as `Video.read_frame` does, and look up its given mask."""
        if found := self.given(number):
            ids, absent = found
            shown = object_ids(ids)
            # A mask that says nothing about the known objects is no mask for the engine.
            if shown or absent & self.known:
                self.known.update(shown)
                self.taken[number] = ids
                self.absent[number] = absent
                self.masks[number] = self.frames[number]  # says that there is a mask; nobody reads it from there
        return super().read_frame(number)

    def read_given_mask(self, number: int) -> np.ndarray:
        """The mask that `read_frame` has found; it is asked for once."""
        return self.taken.pop(number)


class Propagation:
    """The wish to carry the mask of a frame through the video.

    Args:
        project: the masks.
        frame: the number of the frame whose mask is carried.
        direction: "forward", "backward" or "both".
        until: "end", or "annotation" to stop before the next annotated frame.

    Raises:
        Refused: the frame has no mask, or no frame lies on the way.
    """

    def __init__(self, project: Project, frame: int, direction: str, until: str) -> None:
        self._project = project
        self._frame = frame
        self._stops = until == "annotation"
        if not project.read(frame).ids.any():
            raise Refused(400, f"frame {frame} shows no object; mark an object in it first")
        ways = {each: self._way(each) for each in DIRECTIONS[direction]}
        self._ways = {each: way for each, way in ways.items() if way}
        if not self._ways:
            raise Refused(400, f"no frame lies on the way {direction} from frame {frame}; choose another frame")

    @property
    def total(self) -> int:
        """The number of frames on the way."""
        return sum(map(len, self._ways.values()))

    def run(self, network: RDE_VOS, settings: EngineSettings, job: Job) -> None:
        """Carry the masks, until the end or until the job is stopped.

        Raises:
            InputError: a frame or a mask cannot be read, or a mask cannot be written.
        """
        for direction, way in self._ways.items():
            if not job.stopped:
                job.direction = direction
                self._pass(way, network, settings, job)

    def _way(self, direction: str) -> range:
        """The numbers of the frames on the way."""
        count = len(self._project)
        way = range(self._frame + 1, count) if direction == "forward" else range(self._frame - 1, -1, -1)
        if self._stops:
            steps = (step for step, number in enumerate(way) if self._project.kind(number) == ANNOTATED)
            way = way[: next(steps, len(way))]
        return way

    def _pass(self, way: range, network: RDE_VOS, settings: EngineSettings, job: Job) -> None:
        frames = self._project.frames.video
        numbers = [self._frame, *way]

        def given(step: int) -> tuple[np.ndarray, set[int]] | None:
            if step or self._project.kind(self._frame) == ANNOTATED:
                return self._project.annotation(numbers[step])
            return self._project.read(self._frame).ids, set()

        passage = Passage(frames.name, [frames.frames[number] for number in numbers], given=given)

        def results() -> Iterator[Segmented]:
            with contextlib.closing(segment(network, passage, settings, uncertainty=True)) as stream:
                for result in stream:
                    if not passage.known:
                        raise InputError(f"frame {self._frame} shows no object any more; mark an object in it first")
                    # A new annotation ends the way, if the propagation goes up to the next one.
                    if job.stopped or (self._stops and result.number and self._is_annotated(numbers[result.number])):
                        return
                    yield result

        def write(result: Segmented) -> None:
            if result.number:
                self._project.propagate(numbers[result.number], result.ids, result.uncertainty)
                job.passed(numbers[result.number])

        # A thread writes, so that the engine need not wait for the disk.
        for _ in in_background(results(), write):
            pass

    def _is_annotated(self, number: int) -> bool:
        return self._project.kind(number) == ANNOTATED
