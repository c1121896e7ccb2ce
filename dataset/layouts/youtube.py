"""The layout of YouTube-VOS 2018 and 2019, as in the downloads."""

import functools
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataset.files.images import image_size
from dataset.files.video import Video, frame_order, list_frames, read_sized_mask
from dataset.layouts.folders import VideoFolders
from util.errors import InputError
from util.files import folders_near, is_plain_name

TRAIN = "train"  # the training split as downloaded
TRAIN_480P = "train_480p"  # smaller copies of it, made by scripts/resize_youtube.py


def split_folders(yv_root: Path, split: str = TRAIN_480P) -> VideoFolders:
    """Return the folders of a split, with every fifth frame and its mask. They need not exist.

    Args:
        yv_root: the folder that holds ``train/``, ``train_480p/`` and ``valid/``.
        split: `TRAIN_480P` for the copies that training reads, or `TRAIN` for the original files.
    """
    remedy = "make it with scripts/resize_youtube.py" if split == TRAIN_480P else "unpack YouTube-VOS again"
    return VideoFolders("YouTube-VOS", _images(yv_root, split), _masks(yv_root, split), remedy, annotation_step=5)


def meta_path(root: Path, split: str) -> Path:
    """Return the path of the file that lists the objects of a split. `read_meta` reads the file."""
    return root / split / "meta.json"


@dataclass(frozen=True)
class AskedObject:
    """An object whose masks the benchmark's server asks for.

    Attributes:
        id: the object's id in the given masks and in the results, 1 to 255.
        frames: the names of the frames in which the server asks for the object, in order. The mask of the first of
            these frames is given.
        category: what kind of object it is, or None if ``meta.json`` does not say.
    """

    id: int
    frames: list[str]
    category: str | None


@dataclass(frozen=True)
class YouTubeVOS:
    """One split of YouTube-VOS for evaluation.

    Args:
        root: the folder that holds ``valid/`` or ``test/``, which hold ``JPEGImages``, ``Annotations`` and
            ``meta.json``. It may also hold the download of all frames, ``all_frames/valid_all_frames`` or
            ``valid_all_frames``.
        split: ``valid`` or ``test``.
        output_all: whether the results contain the masks of all frames, not only of those that the server asks for.
    """

    root: Path
    split: str = "valid"
    output_all: bool = False

    @property
    def annotations(self) -> Path:
        """The folder of given masks, with one folder for each video."""
        return _masks(self.root, self.split)

    @functools.cached_property
    def images(self) -> Path:
        """The folder of frames: all frames if they were downloaded, otherwise every fifth frame, as in ``split``."""
        all_frames = f"{self.split}_all_frames"
        own = _images(self.root, self.split)
        candidates = (_images(self.root / "all_frames", all_frames), _images(self.root, all_frames), own)
        for folder in candidates:
            if folder.is_dir():
                return folder
        raise InputError(f"{candidates[0]} is missing, and so is {own}; point at the folder that holds {self.split}/")

    @property
    def has_all_frames(self) -> bool:
        """Whether ``images`` holds all frames, not only every fifth."""
        return self.images != _images(self.root, self.split)

    @functools.cached_property
    def asked(self) -> dict[str, list[AskedObject]]:
        """The objects that the server asks for, by the name of their video.

        Raises:
            InputError: `read_meta` cannot read the list, a video has no object, or an object has no frame.
        """
        path = meta_path(self.root, self.split)
        videos = read_meta(path)
        for name, objects in videos.items():
            if not objects or not all(asked.frames for asked in objects):
                raise InputError(f"{path} asks for no object or no frame of {name}; take that entry out of the file")
        return videos

    def videos(self) -> list[Video]:
        """Return the videos of the split with their given masks.

        From a given mask only those objects are taken that start in its frame. An object is left out if its mask
        has no pixel, because the mask does not say where the object is.

        Raises:
            InputError: the server asks for a frame that is missing; or a given mask is missing, cannot be read or has
            another size than the video's first frame.
        """
        return [self._video(name, objects) for name, objects in self.asked.items()]

    def _video(self, name: str, objects: list[AskedObject]) -> Video:
        frames = list_frames(self.images / name)
        numbers = {frame.stem: number for number, frame in enumerate(frames)}
        for frame in itertools.chain(*(asked.frames for asked in objects)):
            if frame not in numbers:
                raise InputError(
                    f"{self.images / name / frame}.jpg is missing, but {self.split}/meta.json asks for it; "
                    f"copy or download the frames again"
                )
        starting: dict[int, list[int]] = {}
        for asked in objects:
            starting.setdefault(numbers[asked.frames[0]], []).append(asked.id)
        masks, new_objects, size = {}, {}, image_size(frames[0])
        for number, ids in sorted(starting.items()):
            path = self.annotations / name / f"{frames[number].stem}.png"
            shown = np.intersect1d(read_sized_mask(path, size, name), ids).tolist()
            if shown:
                masks[number], new_objects[number] = path, shown
        wanted = None if self.output_all else frozenset(numbers[frame] for asked in objects for frame in asked.frames)
        return Video(name, frames, masks, new_objects=new_objects, wanted=wanted)


def read_meta(path: Path) -> dict[str, list[AskedObject]]:
    """Read the ``meta.json`` of a split.

    Returns:
        The objects of every video, by the name of the video. Names and objects are in order, objects by their id.

    Raises:
        InputError: the file is missing, has another format, or lists no video.
    """
    try:
        videos = {
            name: [
                _asked_object(number, listed)
                for number, listed in sorted(video["objects"].items(), key=lambda item: int(item[0]))
            ]
            for name, video in sorted(json.loads(path.read_text(encoding="utf-8"))["videos"].items())
        }
        for name in videos:
            if not is_plain_name(name):
                raise ValueError(f"{name!r} is not the name of a folder")
    except FileNotFoundError:
        for near in folders_near(path.parents[1], 1, (1,)):
            if meta_path(near, path.parent.name).is_file():
                raise InputError(f"{path} is missing; give {near}, which has it") from None
        raise InputError(
            f"{path} is missing; download YouTube-VOS with scripts/download.py youtube2019, or use "
            "scripts/eval_folder.py for MOSE and LVOS"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is not YouTube-VOS's list of objects ({error!r}); download it again") from None
    if not videos:
        raise InputError(f"{path} lists no video; copy or download it again")
    return videos


def _asked_object(number: str, listed: dict[str, Any]) -> AskedObject:
    """An object of ``meta.json``."""
    frames, category = listed["frames"], listed.get("category")
    if not 1 <= int(number) <= 255:
        raise ValueError(f"the id {number} is not from 1 to 255")
    if not isinstance(frames, list) or not isinstance(category, str | None):
        raise TypeError(f"the frames or the category of object {number} have another type")
    return AskedObject(int(number), sorted(map(str, frames), key=frame_order([*map(str, frames)])), category)


def _images(root: Path, split: str) -> Path:
    return root / split / "JPEGImages"


def _masks(root: Path, split: str) -> Path:
    return root / split / "Annotations"
