"""Videos that lie on disk as image files. A frame is decoded shortly before it is needed, and is not kept."""

import functools
import itertools
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType

import numpy as np

from dataset.files.images import PaintedMasks, image_size, read_image, read_mask, read_palette
from util.errors import InputError
from util.files import folders_near, is_plain_name

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".3gp", ".mts")

_MASK_FOLDER = re.compile("annotation|mask|instance|segment|label|(^|/)gt", re.IGNORECASE)
# A number in a name: with a fraction if it has one point, and with a sign at the start or after another separator.
_DIGITS = r"(?:(?<![0-9.])[0-9]+\.[0-9]+(?![0-9]|\.[0-9])|[0-9]+)"
_NUMBER = re.compile(rf"((?:(?<![^\W_])-)?{_DIGITS})")
_SIGNED_NUMBER = re.compile(rf"(-?{_DIGITS})")
_WHOLE_NUMBER = re.compile(r"([0-9]+)")


class AnyVideo:
    """A video of any kind, with masks that are given for some of its frames."""

    name: str
    masks: dict[int, Path]  # by frame number
    size: tuple[int, int]  # height and width of the frames
    wanted: Collection[int] | None  # the numbers of the frames whose masks the results contain; None for all
    last: int | None  # the number of the last of them; None if it is not known
    void: int | None = None  # the id of pixels of given masks that belong to no object
    reader: PaintedMasks | None = None  # of masks that people have painted; otherwise the files state the ids
    # By frame number: the ids of objects that a given mask shows to be absent. Such a mask may hold no object.
    absent: Mapping[int, Collection[int]] = MappingProxyType({})

    def frame_name(self, number: int) -> str:
        """Return the file name of a frame's result, without suffix."""
        raise NotImplementedError

    def mask_name(self, number: int) -> str:
        """Return the name of the file with the mask of a frame."""
        return f"{self.frame_name(number)}.png"

    def read_mask(self, path: Path) -> np.ndarray:
        """Decode a given mask, or a true one: uint8 object ids [H,W] of any size. See `dataset.files.masks`."""
        return self.reader.read(path) if self.reader else read_mask(path)

    def mask_files(self, number: int) -> list[Path]:
        """The files of the mask that is given for frame ``number``: mostly one; several where each shows one object."""
        return self.reader.files(self.masks[number]) if self.reader else [self.masks[number]]

    def read_given_mask(self, number: int) -> np.ndarray:
        """Decode the mask that is given for frame ``number``: uint8 object ids [H,W].

        Raises:
            InputError: the file is missing, corrupt or without any object, or has another size than the frames.
        """
        path = self.masks[number]
        mask = read_sized_mask(path, self.size, self.name, self.read_mask)
        if self.void is not None:
            void = mask == self.void
            if void.any() and not mask[~void].any():
                raise InputError(
                    f"{path} holds no object, because {self.void} marks pixels of no object; give the objects other "
                    f"ids, or add --year 2016 for masks of DAVIS 2016"
                )
            mask = np.where(void, np.uint8(0), mask)
        if not mask.any() and not self.absent.get(number):
            raise InputError(f"{path} holds no object; mark at least one pixel, or leave the file out")
        return mask

    def read_frame(self, number: int) -> np.ndarray:
        """Decode a frame: uint8 RGB [H,W,3]."""
        raise NotImplementedError

    def read(self, number: int) -> tuple[np.ndarray, np.ndarray | None, Collection[int]]:
        """Decode a frame, its given mask or None, and the ids of the objects that the mask shows to be absent."""
        image = self.read_frame(number)
        mask = self.read_given_mask(number) if number in self.masks else None
        return image, mask, self.absent.get(number, ())

    @functools.cached_property
    def given_ids(self) -> dict[int, list[int]]:
        """The ids of the objects that each given mask holds, by frame number; both in order."""
        return {number: object_ids(self.read_given_mask(number)) for number in sorted(self.masks)}

    @functools.cached_property
    def entries(self) -> dict[int, int]:
        """The number of the frame in which each object enters: the first whose given mask holds the object; by id."""
        entries: dict[int, int] = {}
        for number, ids in self.given_ids.items():
            for object_id in ids:
                entries.setdefault(object_id, number)
        return entries

    @functools.cached_property
    def palette(self) -> bytes | None:
        """The palette of the first given mask, 256 RGB triples, or None. The files of results get the same one."""
        if self.reader:
            return self.reader.palette
        return read_palette(self.masks[min(self.masks)]) if self.masks else None


@dataclass(frozen=True)
class Video(AnyVideo):
    """A video whose frames are image files, and the masks that are given for it.

    Attributes:
        name: the name of the video.
        frames: the image files, in order.
        masks: the files of the given masks, by frame number.
        merge_objects: whether all objects of a mask become one object with the id 255, which is white in DAVIS 2016.
        new_objects: the ids that are taken from a given mask, by frame number. If a frame is not listed, all ids of
            its mask are taken.
        wanted: the numbers of the frames whose masks the results contain, or None for all frames.
        void: the id of pixels of given masks that belong to no object, or None.
        absent: the ids of objects that a given mask shows to be absent, by frame number. An object that the mask only
            leaves out is not absent: the network goes on to segment the object in that frame.
        reader: the reader of masks that people have painted, or None where the files state the ids.
    """

    name: str
    frames: list[Path]
    masks: dict[int, Path] = field(default_factory=dict)
    merge_objects: bool = False
    new_objects: dict[int, list[int]] = field(default_factory=dict)
    wanted: frozenset[int] | None = None
    void: int | None = None
    absent: Mapping[int, Collection[int]] = field(default_factory=dict)
    reader: PaintedMasks | None = None

    @functools.cached_property
    def results(self) -> list[int]:
        """The numbers of the frames whose masks the results contain, in order."""
        return list(range(len(self.frames))) if self.wanted is None else sorted(self.wanted)

    @functools.cached_property
    def last(self) -> int:
        """The number of the last frame in the results. Later frames need not be processed."""
        return self.results[-1]

    def frame_name(self, number: int) -> str:
        """Return the file name of a frame's result, without suffix."""
        return self.frames[number].stem

    def read_frame(self, number: int) -> np.ndarray:
        """Decode a frame: uint8 RGB [H,W,3].

        Raises:
            InputError: the file is missing or corrupt, or has another size than the video's first frame.
        """
        image = read_image(self.frames[number])
        if image.shape[:2] != self.size:
            raise self._other_size(number, image.shape)
        return image

    def check_frames(self) -> None:
        """Read the headers of all frames, which takes far less time than to decode them.

        Raises:
            InputError: a frame is missing, not an image or of another size than the first frame.
        """
        for number, frame in enumerate(self.frames):
            if (size := image_size(frame)) != self.size:
                raise self._other_size(number, size)

    def read_given_mask(self, number: int) -> np.ndarray:
        """Decode a given mask as `AnyVideo.read_given_mask` does, and apply ``merge_objects`` and ``new_objects``."""
        mask = super().read_given_mask(number)
        if self.merge_objects:
            return np.where(mask > 0, np.uint8(255), np.uint8(0))
        if number in self.new_objects:
            return np.where(np.isin(mask, self.new_objects[number]), mask, np.uint8(0))
        return mask

    @functools.cached_property
    def size(self) -> tuple[int, int]:
        """The height and width of the frames in pixels. They are read from the header of the first frame."""
        return image_size(self.frames[0])

    def _other_size(self, number: int, size: tuple[int, ...]) -> InputError:
        height, width = self.size
        return InputError(
            f"{self.frames[number]} is {size[1]}×{size[0]}, but the first frame is {width}×{height}; "
            f"give all frames of a video one size"
        )


def read_sized_mask(
    path: Path, size: tuple[int, int], video: str, read: Callable[[Path], np.ndarray] = read_mask
) -> np.ndarray:
    """Read the mask of a frame: uint8 object ids [H,W].

    Args:
        path: the mask.
        size: the height and width of the frames of the video, in pixels.
        video: the name of the video, for messages.
        read: reads the file; `dataset.files.images.read_mask`, or `AnyVideo.read_mask` of the video.

    Raises:
        InputError: the file is missing, corrupt or no mask, or has another size than the frames.
    """
    check_mask_sizes([path], size, video)
    mask = read(path)
    if mask.shape != size:
        raise _wrong_size(path, mask.shape, size, video)
    return mask


def check_mask_sizes(paths: Iterable[Path], size: tuple[int, int], video: str) -> None:
    """Read the headers of masks, before huge ones are decoded.

    Args:
        size, video: see `read_sized_mask`.
    """
    for path in paths:
        found = image_size(path)
        if found not in (size, size[::-1]):  # a PNG may say after its pixels that it lies
            raise _wrong_size(path, found, size, video)


def _wrong_size(path: Path, found: tuple[int, ...], size: tuple[int, int], video: str) -> InputError:
    remedy = "turn the mask as the frames are" if found == size[::-1] else "give the mask at their size"
    return InputError(f"{path} is {found[1]}×{found[0]}, but the frames of {video} are {size[1]}×{size[0]}; {remedy}")


def object_ids(mask: np.ndarray) -> list[int]:
    """Return the ids of the objects in a mask (uint8 object ids [H,W]), in order."""
    return np.unique(mask[mask > 0]).tolist()


def list_frames(folder: Path, without: Collection[Path] = ()) -> list[Path]:
    """Return the images of a folder in the order of their names. Numbers in names need no leading zeros.

    Args:
        folder: the folder of the frames. Hidden files and files of other kinds are left out.
        without: files that are no frames, such as given masks.

    Raises:
        InputError: the folder is missing, holds no image, or holds two images whose names differ only in the suffix.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is missing; check the data set's folder")
    left_out = {os.path.realpath(path) for path in without}
    files = [path for path in folder.iterdir() if not is_junk(path.name)]
    frames = [path for path in files if path.suffix.lower() in FRAME_SUFFIXES]
    if left_out:
        frames = [path for path in frames if os.path.realpath(path) not in left_out]
    if not frames:
        raise InputError(f"{folder} holds no images; {_remedy_without_frames(folder, files)}")
    order = frame_order({path.stem for path in frames})
    frames.sort(key=lambda path: (order(path.stem), path.name))
    for one, other in itertools.pairwise(frames):
        if one.stem == other.stem:
            raise InputError(f"{one} and {other.name} would be one frame; keep masks in a folder of their own")
    return frames


def is_junk(name: str) -> bool:
    """Whether a file or folder of this name is not data: hidden, or added to archives by macOS."""
    return name.startswith(".") or name == "__MACOSX"


def _remedy_without_frames(folder: Path, files: Collection[Path]) -> str:
    """What to do about a folder without frames, by what it holds instead."""
    inner = _frames_inside(folder)
    videos = sorted(path.name for path in files if path.suffix.lower() in VIDEO_SUFFIXES)
    others = sorted({path.suffix.lower() for path in files if path.is_file() and path.suffix})
    if videos:
        return f"give one of its video files, such as {folder / videos[0]}, or a folder of frames"
    if inner:
        return f"give a folder of frames, such as {inner}"
    if others:
        return f"it has {', '.join(others[:4])} files; convert its frames to {', '.join(FRAME_SUFFIXES)}"
    return "check the path"


def _frames_inside(folder: Path) -> Path | None:
    """The first folder with images in a folder, up to four levels down; one of masks only if there is no other."""
    masks = None
    for inner in folders_near(folder, 0, (1, 2, 3, 4)):
        if _has_frames(inner):
            if not _MASK_FOLDER.search(str(inner.relative_to(folder))):
                return inner
            masks = masks or inner
    return masks


def videos_inside(folder: Path, video: str) -> Path | None:
    """The first folder in a folder, up to three levels down, in which a folder of the video's name holds frames."""
    for inner in folders_near(folder, 0, (1, 2, 3)):
        frames = inner / video
        if frames.is_dir() and _has_frames(frames) and not _MASK_FOLDER.search(str(frames.relative_to(folder))):
            return inner
    return None


def _has_frames(folder: Path) -> bool:
    return any(path.suffix.lower() in FRAME_SUFFIXES and not is_junk(path.name) for path in folder.iterdir())


def read_names(path: Path, remedy: str) -> list[str]:
    """Read the names of videos from a text file, one a line. The file may start with a byte order mark.

    Args:
        remedy: what the user can do if the file cannot be read, for messages.

    Raises:
        InputError: the file cannot be read, a name is a path to another folder, or the file lists a name twice.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path} is missing; {remedy}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} cannot be read as UTF-8; save the text in this encoding") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}); {remedy}") from None
    names = [line.strip() for line in lines if line.strip()]
    for name in names:
        if not is_plain_name(name):
            raise InputError(f"{path} lists {name!r}, which is not the name of a folder; {remedy}")
        if names.count(name) > 1:
            raise InputError(f"{path} lists {name} twice; delete one of the lines")
    return names


def frame_order(names: Collection[str]) -> Callable[[str], list[str | Decimal]]:
    """Return the sort key for the names of a video's frames, by the numbers in them.

    frame9 comes before frame10, 1.05 before 1.4, and -4 before -1. These are whole numbers without a sign: the parts of
    2024-01-05 and 2024.01.05, the 4 of frame-4 unless another name is frame0, the 9 of v2.9 if another name is v2.10.
    """
    numbers = _NUMBER
    shapes = {re.sub("[0-9.]+", "0", name.replace("−", "-")) for name in names}
    if any(shape.replace("-0", "0", 1) in shapes - {shape} for shape in shapes):
        numbers = _SIGNED_NUMBER
    fractions = {number.partition(".")[2] for name in names for number in _NUMBER.split(name)[1::2] if "." in number}
    if len(set(map(len, fractions))) > 1 and any(len(digits) > 1 and digits[-1] == "0" for digits in fractions):
        numbers = _WHOLE_NUMBER

    def key(name: str) -> list[str | Decimal]:
        parts = numbers.split(name.replace("−", "-"))
        return [Decimal(part) if number % 2 else part for number, part in enumerate(parts)]

    return key
