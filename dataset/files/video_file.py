"""Reading and writing of video files, frame by frame."""

import contextlib
import functools
import math
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np

from dataset.files.images import PaintedMasks
from dataset.files.video import FRAME_SUFFIXES, AnyVideo
from util.errors import InputError
from util.files import atomic_path

FOLDER_FPS = 24  # of a folder of images, which states no pace


class EndOfVideo(Exception):
    """A video file has no more frames."""


class VideoFile(AnyVideo):
    """A video file and the masks that are given for some of its frames. The names of the frames are their numbers.

    The length of the file is known only at its end, so ``last`` is None.

    Args:
        path: a file in a format that OpenCV can read.
        masks: the files of the given masks, by frame number.
        reader: the reader of masks that people have painted, or None where the files state the ids.
        start: the number of the first frame whose mask the results contain. They contain all later ones.
        absent: the ids of objects that a given mask shows to be absent, by frame number.

    Raises:
        InputError: the file is missing or not a video.
    """

    last = None

    def __init__(
        self,
        path: Path,
        masks: Mapping[int, Path] | None = None,
        reader: PaintedMasks | None = None,
        start: int = 0,
        absent: Mapping[int, Collection[int]] | None = None,
    ) -> None:
        self.name = path.name
        self.path = path
        self.masks = dict(masks or {})
        self.reader = reader
        self.absent = absent or {}
        self.wanted = range(start, sys.maxsize)
        self.decoded = 0  # number of frames that have been decoded
        self._capture = _open(path)

    @functools.cached_property
    def size(self) -> tuple[int, int]:
        """The height and width of the frames in pixels.

        The first frame is decoded for this, because the header of a file may state the size before a rotation.

        Raises:
            InputError: the first frame cannot be decoded.
        """
        found, image = _open(self.path).read()
        if not found:
            raise InputError(f"{self.path} holds no frame that can be decoded; convert it, for example with ffmpeg")
        return image.shape[:2]

    @property
    def announced(self) -> int:
        """The number of frames that the header of the file states, or 0. The number may be wrong."""
        return max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    @property
    def fps(self) -> float:
        """The number of frames per second, or NaN if the file does not state it."""
        return self._capture.get(cv2.CAP_PROP_FPS) or math.nan

    def frame_name(self, number: int) -> str:
        """Return the file name of a frame's result, without suffix."""
        return f"{number:05d}"

    def read_frame(self, number: int) -> np.ndarray:
        """Decode the next frame, or a later one: uint8 RGB [H,W,3].

        Args:
            number: the number of the frame. Frames can only be read in order.

        Raises:
            EndOfVideo: there are no more frames.
            InputError: the frame has another size than the first frame.
            ValueError: the frame has been passed.
        """
        if number < self.decoded:
            raise ValueError(f"frame {self.decoded} of {self.path} comes next, not {number}")
        while self.decoded < number and self._capture.grab():
            self.decoded += 1
        found, image = self._capture.read()
        if not found and number == 0:
            raise InputError(f"{self.path} holds no frame that can be decoded; convert it, for example with ffmpeg")
        if not found:
            raise EndOfVideo
        if image.shape[:2] != self.size:
            height, width = self.size
            raise InputError(
                f"frame {number} of {self.path} is {image.shape[1]}×{image.shape[0]}, but the first is "
                f"{width}×{height}; convert the video to one size"
            )
        self.decoded += 1
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def playback_fps(video: AnyVideo) -> float:
    """The number of frames per second at which results are shown: as a video file states it, if that can be true."""
    return video.fps if isinstance(video, VideoFile) and 1 <= video.fps <= 240 else FOLDER_FPS


@contextlib.contextmanager
def video_writer(path: Path, size: tuple[int, int], fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield a function that appends a uint8 RGB frame [H,W,3] to an MP4 file, compressed as VP9, which browsers play.

    The file appears at ``path`` when it is complete. It has no sound. The writer allows only even sizes, so the last
    row or column of an odd size is left out.

    Args:
        path: the file to write.
        size: the height and width of the frames, in pixels.
        fps: the number of frames per second.

    Raises:
        InputError: the file cannot be written.
    """
    height, width = (side // 2 * 2 for side in size)
    refusal = InputError(
        f"{path} cannot be written as an MP4 video; free some space in {path.parent}, or write masks only"
    )
    written = 0

    def write(image: np.ndarray) -> None:
        nonlocal written
        writer.write(cv2.cvtColor(image[:height, :width], cv2.COLOR_RGB2BGR))
        written += 1

    refuse_name(path)
    with atomic_path(path) as temporary:
        writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter_fourcc(*"vp09"), fps, (width, height))
        if not writer.isOpened():
            raise refusal
        try:
            yield write
        finally:
            writer.release()
        # OpenCV's writer reports no errors, so count the frames in the file.
        if int(cv2.VideoCapture(str(temporary)).get(cv2.CAP_PROP_FRAME_COUNT)) != written:
            raise refusal


def refuse_name(path: Path) -> None:
    """Refuse the path of a video whose bytes are not UTF-8, because OpenCV ends the process there.

    Raises:
        InputError: the path is not UTF-8.
    """
    if os.fsencode(path) != str(path).encode(errors="replace"):
        raise InputError(f"{path} has a name that is not UTF-8, which OpenCV cannot open; rename it or its folder")


def _open(path: Path) -> cv2.VideoCapture:
    refuse_name(path)
    if not path.is_file():
        raise InputError(f"{path} is missing; give a video file or a folder of images")
    if path.suffix.lower() in FRAME_SUFFIXES:
        raise InputError(f"{path} is an image; give a video file, or the folder of its frames, {path.parent}")
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise InputError(f"{path} cannot be read as a video; convert it, for example with ffmpeg, or give its frames")
    return capture
