"""Cameras and network streams, read frame by frame as they come."""

import re
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np

from dataset.files.images import PaintedMasks
from dataset.files.video_file import EndOfVideo, VideoFile
from util.errors import InputError

TIMEOUT = 15_000  # ms that an address may take to answer
POLL = 0.1  # seconds between looks at whether the stream was stopped


def is_stream(text: str) -> bool:
    """Whether a text is the number of a camera, or an address such as ``rtsp://...``, and not a path."""
    return bool(re.match(r"[a-z][a-z0-9+.-]+://", text, re.IGNORECASE)) or (
        text.isascii() and text.isdigit() and not Path(text).exists()
    )


class Stream(VideoFile):
    """A camera or a stream, whose frames can be read once, in order. Memory holds a few frames at most.

    A live stream does not wait for its reader: of the frames that come between two calls of `read_frame`, only the
    newest is kept. A stream that states its number of frames is a file, of which all frames are read.

    Args:
        source: the number of a camera, or an address.

    Attributes:
        size: the height and width of the frames in pixels.
        is_live: whether frames are dropped while their reader is busy.
        arrived: the number of frames that have come so far.
        dropped: the number of frames that were dropped.
        steps: for each frame that was read, by its number, the frames of the stream since the previous one: 1 and those
            that were dropped. The reader deletes entries that it does not need any more.
        problem: why a stream ended that was not stopped, if that is known; otherwise empty.

    Raises:
        InputError: the stream cannot be opened or has no frame.
    """

    def __init__(self, source: str) -> None:
        # Without a password.
        self.name = f"camera {source}" if source.isdigit() else re.sub(r"//[^/]*@", "//", source)
        self.masks: dict[int, Path] = {}
        self.reader: PaintedMasks | None = None
        self.absent: Mapping[int, list[int]] = {}
        self.wanted = range(sys.maxsize)
        self.dropped, self.problem = 0, ""
        self._capture = self._open(source)
        found, image = self._capture.read()
        if not found:
            raise InputError(f"{self.name} has no frame that can be decoded; look at it in another program")
        self.size = image.shape[:2]
        self.is_live = not self.announced
        self._fps = super().fps  # before another thread reads
        self._first: np.ndarray | None = None
        self._newest = image if self.is_live else None  # the frame that is read next, BGR
        self._waiting = deque([] if self.is_live else [image])  # decoded frames of a file that are read next, BGR
        self.arrived, self._taken = 1, 0
        self.steps: dict[int, int] = {}
        self._stopped = self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._receive, daemon=True)
        if self.is_live:
            self._thread.start()

    def _open(self, source: str) -> cv2.VideoCapture:
        if source.isdigit():
            capture, remedy = cv2.VideoCapture(int(source)), "connect it, close other programs that use it"
        else:
            address = unquote(source[7:]) if source.lower().startswith("file://") else source
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, TIMEOUT, cv2.CAP_PROP_READ_TIMEOUT_MSEC, TIMEOUT]
            capture, remedy = cv2.VideoCapture(address, cv2.CAP_FFMPEG, limits), "check the address"
        if not capture.isOpened():
            raise InputError(f"{self.name} cannot be opened; {remedy}, or give a video file")
        return capture

    @property
    def fps(self) -> float:
        """The number of frames per second, or NaN if the stream does not state it."""
        return self._fps

    def stop(self) -> None:
        """Let the stream end: `read_frame` returns no more frames after the first. Any thread may call this."""
        self._stopped = True

    def close(self) -> None:
        """Stop, and wait for the thread that reads: OpenCV aborts a process that ends meanwhile."""
        self.stop()
        if self.is_live:
            self._thread.join(TIMEOUT / 1000)

    def read_frame(self, number: int) -> np.ndarray:
        """Wait for the next frame: uint8 RGB [H,W,3].

        Args:
            number: the number of the frame, without those that were dropped. Frames can only be read in order, and the
                first one again.

        Raises:
            EndOfVideo: the stream has ended, was stopped or has changed its size.
        """
        if number == 0 and self._first is not None:
            return self._first
        if number and self._stopped:
            raise EndOfVideo
        image, arrived = self._take() if self.is_live else self._decode()
        self.steps[number] = arrived - self._taken if number else 1  # those before the first do not count
        self._taken = arrived
        self.dropped += self.steps[number] - 1
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        self._first = image if number == 0 else self._first
        return image

    def preview(self) -> np.ndarray:
        """Wait for the next frame, and make it frame 0, before later ones are read: uint8 RGB [H,W,3]."""
        self._first = None
        return self.read_frame(0)

    def begin(self, previewed: Sequence[np.ndarray]) -> None:
        """Make the first of these frames frame 0. They are the last ones that `preview` has given, in order.

        A live stream goes on with the next frame that comes, and those that came before count neither as frames nor as
        dropped. Any other stream goes on with the frame after frame 0.
        """
        self._first, *later = previewed
        if not self.is_live:
            self._waiting.extendleft(cv2.cvtColor(image, cv2.COLOR_RGB2BGR) for image in reversed(later))
            self._taken -= len(later)
            return
        with self._changed:
            self._newest, self._taken = None, self.arrived

    @property
    def has_ended(self) -> bool:
        """Whether the last frame of a live stream has come."""
        return self._ended

    def _decode(self) -> tuple[np.ndarray, int]:
        """The next frame of a file, BGR, and its number from 1."""
        if not self._waiting:
            image = self._read()
            if image is None:
                raise EndOfVideo
            self.arrived += 1
            self._waiting.append(image)
        return self._waiting.popleft(), self.arrived - len(self._waiting)

    def _read(self) -> np.ndarray | None:
        """Wait for the next frame that comes, BGR; None at the end."""
        found, image = self._capture.read()
        if found and image.shape[:2] != self.size:
            (height, width), size = self.size, image.shape
            self.problem = f"its frames changed from {width}×{height} to {size[1]}×{size[0]}"
            return None
        return image if found else None

    def _take(self) -> tuple[np.ndarray, int]:
        """The newest frame of a live stream, BGR, and the number of frames so far."""
        with self._changed:
            while self._newest is None:
                if self._ended or self._stopped:
                    raise EndOfVideo
                self._changed.wait(POLL)
            image, self._newest = self._newest, None
            return image, self.arrived

    def _receive(self) -> None:
        """Keep the newest frame of a live stream, in a thread."""
        while not self._stopped:
            image = self._read()
            with self._changed:
                self._ended = image is None
                if not self._ended:
                    self._newest = image
                    self.arrived += 1
                self._changed.notify()
            if self._ended:
                return
