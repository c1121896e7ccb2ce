"""The mask of a stream's first frame, from boxes and clicks on its live page."""

import time
from collections import deque
from typing import Any, NamedTuple

import numpy as np

from annotation.errors import Refused
from annotation.evidence import Picture
from annotation.local_server import INVALID, numbers
from annotation.marks import Marks
from dataset.files.colours import colour_of, colour_table
from dataset.files.stream import POLL, Stream
from dataset.files.video_file import EndOfVideo, playback_fps
from model.network import RDE_VOS
from segmenting.first_mask import MOST_OBJECTS
from segmenting.page import SEGMENTED, STARTED, LivePage
from util.errors import InputError
from util.evaluation.pictures import overlay

KEPT = 4  # pictures that have been shown: a request names the one that the browser shows
MOST_STEPS = 30  # that can be undone


def mark_first_frame(stream: Stream, page: LivePage, network: RDE_VOS, network_side: int | None) -> np.ndarray:
    """Show a stream on a page, until the user has marked objects in a frame and pressed Start. It becomes frame 0.

    No frame of the stream after the first has been read. For ``network`` and ``network_side`` see
    `annotation.evidence.Picture`. Return the mask of the frame, uint8 object ids [H,W], with a pixel of each object.
    """
    marking = _Marking(stream, page, network, network_side)
    try:
        while not marking.is_started:
            if stream.has_ended:
                raise EndOfVideo
            if not page.answer(marking.handle, POLL, or_awaited=marking.is_live) and marking.is_live:
                marking.show_next()
        while page.answer(marking.handle, 0):
            pass  # other browsers have asked before they could know of the start
    except EndOfVideo:
        reason = f"because {stream.problem}" if stream.problem else "before Start was pressed"
        raise InputError(f"{stream.name} ended {reason}; nothing was written; run the command again") from None
    except KeyboardInterrupt:
        raise InputError("the command was interrupted before Start was pressed; nothing was written") from None
    return marking.ids


class _Step(NamedTuple):
    """What the marks of a frame have given so far."""

    marks: Marks
    objects: int  # their number; the ids are 1, 2, ...


class _Marking:
    """The state of the page: live, or the marks of a frame. All methods are called by one thread.

    Attributes:
        is_started: whether the user has pressed Start.
    """

    def __init__(self, stream: Stream, page: LivePage, network: RDE_VOS, network_side: int | None) -> None:
        self.is_started = False
        self._stream, self._page = stream, page
        self._network, self._network_side = network, network_side
        self._recent: deque[tuple[int, np.ndarray]] = deque(maxlen=KEPT)
        self._frame: np.ndarray | None = None  # the one that is marked
        self._steps: deque[_Step] = deque(maxlen=MOST_STEPS + 1)
        self._due = 0.0  # when the next frame of a file is shown, in seconds

    @property
    def is_live(self) -> bool:
        """Whether no frame is being marked."""
        return self._frame is None

    @property
    def ids(self) -> np.ndarray:
        """The mask so far, uint8 object ids [H,W]."""
        return self._steps[-1].marks.ids

    def show_next(self) -> None:
        """Show the next frame of the stream, if a browser waits for it.

        Raises:
            EndOfVideo: there is none.
        """
        if not self._page.is_awaited:
            return
        if not self._stream.is_live:
            time.sleep(max(0.0, self._due - time.monotonic()))
            self._due = time.monotonic() + 1 / playback_fps(self._stream)
        self._show_live(self._stream.preview())

    def _show_live(self, image: np.ndarray) -> None:
        self._recent.append((self._page.show(image, {"stage": "live"}), image))

    def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer a request of the page: nothing, or a ``note`` for the user."""
        kind = request.get("kind")
        if self.is_started:
            raise Refused(409, SEGMENTED)
        if kind == "freeze":
            self._freeze(request.get("number"))
        elif kind == "newer":
            self._go_on()
        elif self._frame is None:
            raise Refused(409, "the stream is live again, and the marks are gone; mark a newer frame")
        elif kind == "box":
            return self._box(numbers(request.get("box"), 4))
        elif kind == "click":
            x, y = map(int, numbers([request.get("x"), request.get("y")], 2))
            self._click(request.get("object"), x, y, is_inside=request.get("isInside") is True)
        elif kind == "undo":
            self._undo()
        elif kind == "start":
            self._start()
        else:
            raise Refused(400, INVALID)
        return {}

    def _freeze(self, chosen: object) -> None:
        """Freeze the frame that the browser shows, for marks."""
        if self._frame is not None:
            return
        kept = [number for number, _ in self._recent]
        if chosen not in kept:
            raise Refused(409, "this frame is not kept any more; mark a newer one")
        frames = [image for _, image in self._recent][kept.index(chosen) :]
        self._stream.begin(frames)
        self._recent.clear()
        self._frame = frames[0]
        self._steps.clear()
        self._page.show(self._frame, {"stage": "frozen", "objects": [], "steps": 0})
        self._steps.append(_Step(Marks(Picture(self._frame, self._network, self._network_side)), 0))

    def _go_on(self) -> None:
        """Go on with the stream, without the marks."""
        if self._frame is not None:
            self._frame = None
            self._show_live(self._stream.read_frame(0))

    def _box(self, box: list[float]) -> dict[str, Any]:
        marks, number = self._steps[-1].marks.copy(), self._steps[-1].objects + 1
        if number > MOST_OBJECTS:
            raise Refused(400, f"a mask holds {MOST_OBJECTS} objects at most; press Start")
        marks.draw_box(number, box)
        if not (marks.ids == number).any():
            raise Refused(400, "no new object was found there; draw a larger box, or click inside the object")
        self._take(marks, number)
        if not marks.fills(number, box):
            return {}
        return {
            "note": "the mask fills its box, so the outline is probably wrong; undo it and click inside the object, or "
            "draw a box that fits more closely"
        }

    def _click(self, number: object, x: int, y: int, *, is_inside: bool) -> None:
        marks, objects = self._steps[-1].marks.copy(), self._steps[-1].objects
        height, width = marks.ids.shape
        if not objects and not is_inside:
            raise Refused(400, "there is no object yet; drag a box around one, or click inside it")
        objects = max(objects, 1)
        if not (0 <= x < width and 0 <= y < height) or number not in range(1, objects + 1):
            raise Refused(400, INVALID)
        marks.click(number, x, y, is_inside=is_inside)
        if not (marks.ids == number).any():
            raise Refused(400, f"no pixel would be left for object {number}; click elsewhere, or undo its box")
        self._take(marks, objects)

    def _undo(self) -> None:
        if len(self._steps) == 1:
            raise Refused(409, "there is nothing to undo")
        self._steps.pop()
        self._show_marks()

    def _start(self) -> None:
        objects = self._steps[-1].objects
        if not objects:
            raise Refused(400, "no object is marked; drag a box around one")
        for number in range(1, objects + 1):
            if not (self.ids == number).any():
                raise Refused(400, f"no pixel is left for object {number}; click inside it, or undo")
        self._stream.begin([self._frame])
        self._page.show(overlay(self._frame, self.ids, colour_table()), STARTED)
        self.is_started = True

    def _take(self, marks: Marks, objects: int) -> None:
        self._steps.append(_Step(marks, objects))
        self._show_marks()

    def _show_marks(self) -> None:
        colours = [colour_of(number) for number in range(1, self._steps[-1].objects + 1)]
        state = {"stage": "frozen", "objects": colours, "steps": len(self._steps) - 1}
        self._page.show(overlay(self._frame, self.ids, colour_table()), state)
