"""The frames of the video as image files, and as JPEGs for the page. Decoded frames are not cached."""

import functools
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from dataset.files.images import read_image
from dataset.files.video import Video, list_frames
from dataset.files.video_file import FOLDER_FPS, EndOfVideo, VideoFile, playback_fps
from util.errors import InputError
from util.files import atomic_path, check_settings
from util.parallel import in_background

THUMBNAIL_HEIGHT = 72  # pixels
CACHED_THUMBNAILS = 512  # of about 3 kB each
UNPACKED_QUALITY = 95  # of the JPEGs of a video file's frames
SHOWN_QUALITY = 90  # of JPEGs for the page only
_ORIENTATION = 0x0112  # EXIF tag


class Frames:
    """The frames of one video.

    Args:
        name: the name of the video, without a suffix.
        paths: the image files, in order.
        fps: the number of frames per second.

    Attributes:
        video: the frames for the engine, without masks.
        fps: the number of frames per second.
    """

    def __init__(self, name: str, paths: list[Path], fps: float) -> None:
        self.video = Video(name, paths)
        self.fps = fps
        self.thumbnail = functools.lru_cache(CACHED_THUMBNAILS)(self._thumbnail)

    def __len__(self) -> int:
        return len(self.video.frames)

    def jpeg(self, number: int) -> bytes:
        """Return a frame as a JPEG; the content of a JPEG file is returned unchanged.

        Raises:
            InputError: the frame cannot be decoded, or has another size than the first frame.
        """
        path = self.video.frames[number]
        if is_jpeg(path, upright=True):
            return path.read_bytes()
        return _encode(Image.fromarray(self.video.read_frame(number)))

    def _thumbnail(self, number: int) -> bytes:
        """Return a small JPEG of a frame.

        Raises:
            InputError: the frame cannot be decoded.
        """
        height, width = self.video.size
        size = (max(1, round(width * THUMBNAIL_HEIGHT / height)), THUMBNAIL_HEIGHT)
        image = read_image(self.video.frames[number], least_side=min(size))
        return _encode(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=2))


def is_jpeg(path: Path, *, upright: bool = False) -> bool:
    """Whether a file is a JPEG; with ``upright``, whether its pixels are stored as they are shown."""
    try:
        with Image.open(path) as image:
            return image.format == "JPEG" and not (upright and image.getexif().get(_ORIENTATION, 1) != 1)
    except OSError:
        return False  # decoding the file will raise an error


def open_folder(path: Path) -> Frames:
    """Return the images of a folder as a video.

    Raises:
        InputError: as `dataset.files.video.list_frames`.
    """
    return Frames(path.name, list_frames(path), FOLDER_FPS)


def open_file(video: VideoFile, folder: Path, known: int | None) -> Frames:
    """Return the frames of a video file, unpacked into a folder, because video files have no random access.

    Unpacking resumes after an interruption.

    Args:
        video: the video file, newly opened.
        folder: the folder for ``00000.jpg``, ``00001.jpg``, ...
        known: the number of frames, if the video has been unpacked before.

    Raises:
        InputError: the folder holds the frames of another video; or a frame cannot be decoded or written.
    """
    source = {"video": str(video.path), "bytes": video.path.stat().st_size}
    if check_settings(folder / ".video.json", source):
        raise InputError(f"{folder} holds the frames of another video; choose another --output or delete this folder")
    if known is None or sum(1 for _ in folder.glob("[0-9]*.jpg")) != known:
        _unpack(video, folder)
    return Frames(video.path.stem, list_frames(folder), playback_fps(video))


def _unpack(video: VideoFile, folder: Path) -> None:
    def decoded() -> Iterator[tuple[Path, np.ndarray]]:
        while True:
            number = video.decoded
            try:
                yield folder / f"{video.frame_name(number)}.jpg", video.read_frame(number)
            except EndOfVideo:
                return

    def write(item: tuple[Path, np.ndarray]) -> None:
        path, image = item
        if not path.is_file():
            with atomic_path(path, durable=True) as temporary:
                Image.fromarray(image).save(temporary, quality=UNPACKED_QUALITY)

    with tqdm(total=video.announced or None, desc=f"unpacking {video.name}", unit="frame", disable=None) as progress:
        for _ in in_background(decoded(), write):
            progress.update()


def _encode(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=SHOWN_QUALITY)
    return file.getvalue()
