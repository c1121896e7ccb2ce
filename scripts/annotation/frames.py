"""The frames of the video as image files, and as JPEGs for the page. Decoded frames are not cached."""

import functools
import io
import shutil
from collections.abc import Callable, Iterator
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

THUMBNAIL_HEIGHT = 72  # pixels
CACHED_THUMBNAILS = 512  # of about 3 kB each
UNPACKED_QUALITY = 95  # of the JPEGs of a video file's frames
SHOWN_QUALITY = 90  # of JPEGs for the page only
UNPACKING = ".unpacking"  # this file is in the folder of the frames until all are unpacked


class Frames:
    """The frames of one video.

    Attributes:
        video: the frames for the engine, without masks.
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
        if is_jpeg(path):
            return path.read_bytes()
        return _encode(Image.fromarray(self.video.read_frame(number)))

    def _thumbnail(self, number: int) -> bytes:
        """Return a small JPEG of a frame."""
        height, width = self.video.size
        size = (max(1, round(width * THUMBNAIL_HEIGHT / height)), THUMBNAIL_HEIGHT)
        image = read_image(self.video.frames[number], least_side=min(size))
        return _encode(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=2))


def is_jpeg(path: Path) -> bool:
    """Whether a file is a JPEG whose pixels are stored as they are shown."""
    try:
        with Image.open(path, formats=("JPEG",)) as image:
            return image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    except OSError:
        return False  # decoding the file will raise an error


def open_folder(path: Path) -> Frames:
    """Return the images of a folder as a video."""
    return Frames(path.name, list_frames(path), FOLDER_FPS)


Unpack = Callable[[Job], int | None]  # returns the number of frames, or None if the job was stopped


def open_file(video: VideoFile, folder: Path, known: int | None) -> tuple[Frames, Unpack | None]:
    """Return the frames of a video file as images in a folder, because video files have no random access.

    Args:
        video: the video file, newly opened.
        folder: the folder for ``00000.jpg``, ``00001.jpg``, ...
        known: the number of frames, if the video has been opened before.

    Returns:
        the frames, as many as the file announces, and what unpacks all but the first; None if all frames are there.
    """
    source = {"video": str(video.path), "bytes": video.path.stat().st_size}
    if check_settings(folder / ".video.json", source):
        raise InputError(f"{folder} holds the frames of another video; choose another --output or delete this folder")
    there = sum(1 for _ in folder.glob("[0-9]*.jpg"))
    fps = playback_fps(video)
    if known == there and not (folder / UNPACKING).exists():
        return Frames(video.path.stem, list_frames(folder), fps), None
    total = known or video.announced or 1
    frames = Frames(video.path.stem, [folder / f"{number:05d}.jpg" for number in range(total)], fps)
    frames.ready = next((number for number, path in enumerate(frames.video.frames) if not path.is_file()), total)
    write_text(folder / UNPACKING, "")
    _write_frame(frames, folder, 0, video.read_frame(0))
    needed = frames.video.frames[0].stat().st_size * (total - frames.ready)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"the frames of {video.path} need about {needed / 1e9:.1f} GB more in {folder}, where {free / 1e9:.1f} GB "
            "are free; free some space there, or choose another --output"
        )
    return frames, functools.partial(_unpack, video, frames, folder)


def _unpack(video: VideoFile, frames: Frames, folder: Path, job: Job) -> int | None:
    def decoded() -> Iterator[tuple[int, np.ndarray]]:
        while not job.stopped:
            number = video.decoded
            try:
                yield number, video.read_frame(number)
            except EndOfVideo:
                return

    for number, image in in_background(decoded()):
        _write_frame(frames, folder, number, image)
        job.passed(number)
    if job.stopped:
        return None
    (folder / UNPACKING).unlink()
    return video.decoded


def _write_frame(frames: Frames, folder: Path, number: int, image: np.ndarray) -> None:
    path = folder / f"{number:05d}.jpg"
    if not path.is_file():
        with atomic_path(path, durable=True) as temporary:
            Image.fromarray(image).save(temporary, quality=UNPACKED_QUALITY)
    frames.ready = max(frames.ready, number + 1)


def _encode(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=SHOWN_QUALITY)
    return file.getvalue()
