"""YouTube-VOS 2018 and 2019 as their downloads lay them out."""

import functools
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset.images import read_mask
from dataset.video import Video, frame_order, list_frames
from util.errors import InputError


@dataclass(frozen=True)
class AskedObject:
    """An object that the server asks for.

    Attributes:
        id: in the given masks and in the results.
        frames: names of the frames in which it is asked for, in order; its mask is given for the first of them.
        category: what it is, where the download says so.
    """

    id: int
    frames: list[str]
    category: str | None


@dataclass(frozen=True)
class YouTubeVOS:
    """One split of YouTube-VOS.

    Args:
        root: the folder that holds ``valid/`` or ``test/``, with ``JPEGImages``, ``Annotations`` and ``meta.json``,
            and the download of all frames, ``all_frames/valid_all_frames`` or ``valid_all_frames``.
        split: ``valid`` or ``test``.
        output_all: ask for the masks of all frames, not only for those that the server asks for.
    """

    root: Path
    split: str = "valid"
    output_all: bool = False

    @property
    def annotations(self) -> Path:
        """The folder of given masks, one folder a video."""
        return self.root / self.split / "Annotations"

    @functools.cached_property
    def images(self) -> Path:
        """The folder of frames: all of them where they are at hand, else the split's own, which are every fifth."""
        folder = f"{self.split}_all_frames"
        for base in (self.root / "all_frames" / folder, self.root / folder, self.root / self.split):
            if (base / "JPEGImages").is_dir():
                return base / "JPEGImages"
        raise InputError(
            f"{self.root / 'all_frames' / folder / 'JPEGImages'} is missing, and so is "
            f"{self.root / self.split / 'JPEGImages'}; point at the folder that holds {self.split}/"
        )

    @property
    def has_all_frames(self) -> bool:
        """Whether ``images`` holds all frames, not only every fifth."""
        return self.images.parent != self.root / self.split

    @functools.cached_property
    def asked(self) -> dict[str, list[AskedObject]]:
        """What the server asks for in every video.

        Raises:
            InputError: as `read_meta`, or a video has no object, or an object no frame.
        """
        path = self.root / self.split / "meta.json"
        videos = read_meta(path)
        for name, objects in videos.items():
            if not objects or not all(asked.frames for asked in objects):
                raise InputError(f"{path} asks for no object or no frame of {name}; take that entry out of the file")
        return videos

    def videos(self) -> list[Video]:
        """The videos of the split, each with its given masks, limited to the objects that start there.

        An object whose mask shows no pixel of it is left out of ``new_objects``: nobody can tell where it is.

        Raises:
            InputError: a frame that is asked for, or a given mask, is missing or cannot be read.
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
        masks, new_objects = {}, {}
        for number, ids in sorted(starting.items()):
            path = self.annotations / name / f"{frames[number].stem}.png"
            shown = np.intersect1d(read_mask(path), ids).tolist()
            if shown:
                masks[number], new_objects[number] = path, shown
        wanted = None if self.output_all else frozenset(numbers[frame] for asked in objects for frame in asked.frames)
        return Video(name, frames, masks, new_objects=new_objects, wanted=wanted)


def read_meta(path: Path) -> dict[str, list[AskedObject]]:
    """Read a split's ``meta.json``: the objects of every video, by the video's name, each list by id.

    Raises:
        InputError: the file is missing, no such list, or names no video.
    """
    try:
        videos = {
            name: [
                AskedObject(int(number), sorted(map(str, listed["frames"]), key=frame_order), listed.get("category"))
                for number, listed in sorted(video["objects"].items(), key=lambda item: int(item[0]))
            ]
            for name, video in sorted(json.loads(path.read_text())["videos"].items())
        }
    except FileNotFoundError:
        raise InputError(f"{path} is missing; copy or download it again") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not YouTube-VOS's list of objects ({error!r}); download it again") from None
    if not videos:
        raise InputError(f"{path} lists no video; copy or download it again")
    return videos
