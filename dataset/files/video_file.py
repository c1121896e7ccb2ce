"""Reading and writing of video files, frame by frame."""

import contextlib
import functools
import math
import os
import sys
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from dataset.files.images import PaintedMasks
from dataset.files.video import FRAME_SUFFIXES, AnyVideo
from util.errors import InputError
from util.files import atomic_path

try:
    import av
except ModuleNotFoundError:  # it is in scripts/requirements/video.txt
    av = None

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
    """The frame rate of results, per second: the one of the video file, or `FOLDER_FPS` if that one is implausible."""
    return video.fps if isinstance(video, VideoFile) and 1 <= video.fps <= 240 else FOLDER_FPS


def encoder_note() -> str | None:
    """A sentence for users whose videos take long to write because the package PyAV is missing, otherwise None."""
    if av is not None:
        return None
    return (
        "the package av is missing, so OpenCV compresses videos slowly, as VP9, and mattes as FFV1, which browsers do "
        "not play; pip install -r scripts/requirements/video.txt"
    )


@contextlib.contextmanager
def video_writer(
    path: Path, size: tuple[int, int], fps: float, *, lossless: bool = False
) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield a function that appends a uint8 RGB frame [H,W,3] to an MP4 file, which browsers play.

    PyAV compresses it as H.264, and without losses as VP9: the lossless H.264 is a profile that many players lack.
    Where PyAV is missing, OpenCV compresses it as VP9, which takes about 15 times as long, and without losses as FFV1,
    which browsers do not play. The file appears at ``path`` when it is complete. It has no sound. Colours have half of
    the resolution, which allows only even sizes, so the last row or column of an odd size is left out.

    Args:
        path: the file to write.
        size: the height and width of the frames, in pixels.
        lossless: whether black and white pixels come back exactly, for mattes.
    """
    height, width = (side // 2 * 2 for side in size)
    refusal = InputError(
        f"{path} cannot be written as an MP4 video; free some space in {path.parent}, or write masks only"
    )
    compress = _opencv_writer if av is None else _pyav_writer
    written = 0

    def write(image: np.ndarray) -> None:
        nonlocal written
        append(np.ascontiguousarray(image[:height, :width]))
        written += 1

    refuse_name(path)
    with atomic_path(path) as temporary:
        with compress(temporary, (height, width), fps, lossless, refusal) as append:
            yield write
        # OpenCV's writer reports no errors, so count the frames in the file.
        if int(cv2.VideoCapture(str(temporary)).get(cv2.CAP_PROP_FRAME_COUNT)) != written:
            raise refusal


@contextlib.contextmanager
def _pyav_writer(
    path: Path, size: tuple[int, int], fps: float, lossless: bool, refusal: InputError
) -> Iterator[Callable[[np.ndarray], None]]:
    """As `video_writer`, for even sizes, with the error to raise."""
    # With mbtree, files of equal frames may differ: x264's decisions then depend on where the frames lie in memory.
    codec, options = "libx264", {"preset": "veryfast", "crf": "18", "mbtree": "0"}
    if lossless:
        codec, options = "libvpx-vp9", {"lossless": "1", "deadline": "realtime", "cpu-used": "8"}
    try:
        with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
            stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options)
            stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
            # How the frames are converted. Without it players take large frames for BT.709.
            stream.codec_context.colorspace = av.video.reformatter.Colorspace.ITU601

            yield lambda image: container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())  # the frames that the encoder holds back
    except av.FFmpegError:
        raise refusal from None


@contextlib.contextmanager
def _opencv_writer(
    path: Path, size: tuple[int, int], fps: float, lossless: bool, refusal: InputError
) -> Iterator[Callable[[np.ndarray], None]]:
    """As `_pyav_writer`."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*("FFV1" if lossless else "vp09")), fps, size[::-1])
    if not writer.isOpened():
        raise refusal
    try:
        yield lambda image: writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    finally:
        writer.release()


def refuse_name(path: Path) -> None:
    """Refuse the path of a video whose bytes are not UTF-8, because OpenCV ends the process there."""
    if os.fsencode(path) != str(path).encode(errors="replace"):
        raise InputError(f"{path} has a name that is not UTF-8, which OpenCV cannot open; rename it or its folder")


def _open(path: Path) -> cv2.VideoCapture:
    refuse_name(path)
    if not path.is_file():
        raise InputError(f"{path} is missing; give a video file or a folder of images")
    if path.suffix.lower() in FRAME_SUFFIXES:
        raise InputError(f"{path} is an image; give a video file, or the folder of its frames, {path.parent}")
    if zipfile.is_zipfile(path):
        raise InputError(f"{path} is an archive; unpack it, and give the folder of its frames")
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise InputError(f"{path} cannot be read as a video; convert it, for example with ffmpeg, or give its frames")
    return capture
