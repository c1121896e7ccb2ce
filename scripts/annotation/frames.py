"""The frames of the video as image files, and as JPEGs for the page. Decoded frames are not cached."""

import functools
import io
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from annotation.jobs import Job
from dataset.files.images import read_image
from dataset.files.video import Video, list_frames
from dataset.files.video_file import FOLDER_FPS, EndOfVideo, VideoFile, playback_fps
from util.errors import InputError
from util.files import atomic_path, check_settings, write_text
from util.parallel import in_background
from util.progress import LINE_EVERY

THUMBNAIL_HEIGHT = 72  # pixels
CACHED_THUMBNAILS = 512  # of about 3 kB each
UNPACKED_QUALITY = 95  # of the JPEGs of a video file's frames
SHOWN_QUALITY = 90  # of JPEGs for the page only
UNPACKING = ".unpacking"  # this file is in the folder of the frames until all are unpacked
SPACE_EVERY = 256  # frames between two looks at the free space


class Frames:
    """The frames of one video.

    Args:
        name: the name of the video, without a suffix.
        paths: the image files, in order.
        fps: the number of frames per second.

    Attributes:
        video: the frames for the engine, without masks.
        fps: the number of frames per second.
        ready: how many frames there are, from the first one on. The others are still being unpacked.
    """

    def __init__(self, name: str, paths: list[Path], fps: float) -> None:
        self.video = Video(name, paths)
        self.fps = fps
        self.ready = len(paths)
        self.thumbnail = functools.lru_cache(CACHED_THUMBNAILS)(self._thumbnail)

    def __len__(self) -> int:
        return len(self.video.frames)

    def jpeg(self, number: int) -> bytes:
        """Return a frame as a JPEG; the content of a JPEG file is returned unchanged."""
        path = self.video.frames[number]
        if is_jpeg(path, upright=True):
            return path.read_bytes()
        return _encode(Image.fromarray(self.video.read_frame(number)))

    def _thumbnail(self, number: int) -> bytes:
        """Return a small JPEG of a frame."""
        height, width = self.video.size
        size = (max(1, round(width * THUMBNAIL_HEIGHT / height)), THUMBNAIL_HEIGHT)
        image = read_image(self.video.frames[number], least_side=min(size))
        return _encode(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=2))


def is_jpeg(path: Path, *, upright: bool = False) -> bool:
    """Whether a file is a JPEG; with ``upright``, whether its pixels are stored as they are shown."""
    try:
        with Image.open(path, formats=("JPEG",)) as image:
            return image.format == "JPEG" and not (upright and image.getexif().get(ExifTags.Base.Orientation, 1) != 1)
    except OSError:
        return False  # decoding the file will raise an error


def open_folder(path: Path) -> Frames:
    """Return the images of a folder as a video."""
    return Frames(path.name, list_frames(path), FOLDER_FPS)


def open_file(video: VideoFile, folder: Path, known: int | None) -> tuple[Frames, "Unpacking | None"]:
    """Return the frames of a video file as images in a folder, because video files have no random access.

    Args:
        video: the video file, newly opened.
        folder: the folder for ``00000.jpg``, ``00001.jpg``, ...
        known: the number of frames, if the video has been opened before.

    Returns:
        the frames, as many as the file announces, and what unpacks them; None if all frames are there.
    """
    source = {"video": str(video.path), "bytes": video.path.stat().st_size}
    if check_settings(folder / ".video.json", source):
        raise InputError(f"{folder} holds the frames of another video; choose another --output or delete this folder")
    there = sum(1 for _ in folder.glob("[0-9]*.jpg"))
    fps = playback_fps(video)
    if known == there and not (folder / UNPACKING).exists():
        return Frames(video.path.stem, list_frames(folder), fps), None
    total = known or video.announced or 1
    frames = Frames(video.path.stem, [folder / f"{video.frame_name(number)}.jpg" for number in range(total)], fps)
    return frames, Unpacking(video, folder, frames)


class Unpacking:
    """The unpacking of a video file, which goes on where it was interrupted. The first frame is unpacked at once.

    Args:
        video: the video file, newly opened.
        frames: the frames; ``ready`` counts those that are unpacked.
    """

    def __init__(self, video: VideoFile, folder: Path, frames: Frames) -> None:
        self._video, self._folder, self._frames = video, folder, frames
        self._bytes = self._done = 0
        paths = frames.video.frames
        frames.ready = next((number for number, path in enumerate(paths) if not path.is_file()), len(paths))
        write_text(folder / UNPACKING, "")
        self._write((0, video.read_frame(0)))
        self._check_space()

    def run(self, job: Job) -> int | None:
        """Unpack the other frames. A line on stderr tells the progress now and then.

        Returns:
            the number of frames, which the file may have announced wrongly; None if the job was stopped.
        """
        told = time.monotonic()
        for number in in_background(self._decoded(job), self._write):
            job.passed(number)
            if time.monotonic() - told >= LINE_EVERY:
                told = time.monotonic()
                print(f"unpacked {number + 1} of {len(self._frames)} frames", file=sys.stderr, flush=True)
            if number % SPACE_EVERY == 0:
                self._check_space()
        if job.stopped:
            return None
        (self._folder / UNPACKING).unlink()
        return self._video.decoded

    def _decoded(self, job: Job) -> Iterator[tuple[int, np.ndarray]]:
        while not job.stopped:
            number = self._video.decoded
            try:
                yield number, self._video.read_frame(number)
            except EndOfVideo:
                return

    def _write(self, item: tuple[int, np.ndarray]) -> int:
        number, image = item
        path = self._folder / f"{self._video.frame_name(number)}.jpg"
        if not path.is_file():
            with atomic_path(path, durable=True) as temporary:
                Image.fromarray(image).save(temporary, quality=UNPACKED_QUALITY)
        self._bytes += path.stat().st_size
        self._done = number + 1
        self._frames.ready = max(self._frames.ready, self._done)
        return number

    def _check_space(self) -> None:
        """Refuse to fill the disk: the frames so far tell how large the others will be."""
        free = shutil.disk_usage(self._folder).free
        needed = round(self._bytes / self._done * (len(self._frames) - self._frames.ready))
        if needed > free:
            raise InputError(
                f"the frames of {self._video.path} need {needed / 1e9:.1f} GB more in {self._folder}, where "
                f"{free / 1e9:.1f} GB are free; free some space there, or choose another --output"
            )


def _encode(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=SHOWN_QUALITY)
    return file.getvalue()
