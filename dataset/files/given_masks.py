"""Given masks that people have painted: a file for each frame, or a binary file for each object of a frame.

Many tools write the objects of a frame as separate files of 0 and 255: ``object_1.png`` and ``object_2.png``,
``cat.png`` and ``dog.png``, ``00000_1.png`` and ``00000_2.png``, or ``1/00000.png`` and ``2/00000.png``. `read_given`
tells them from the masks of several frames by their names, and by their pixels where the names may mean both.
"""

import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset.files.images import PaintedMasks, read_image, read_mask_values
from dataset.files.masks import Kind, MaskValues, surrounds
from dataset.files.video import (
    FRAME_SUFFIXES,
    VIDEO_SUFFIXES,
    frame_order,
    is_junk,
    object_ids,
)
from util.errors import InputError
from util.files import folders_near

_FRAME_WORDS = "f|frame|frm|img|image"
_OBJECT = re.compile(r"(?<![a-z])(?:objects?|obj|instances?|inst|id)[ _.#-]*[0-9]+", re.IGNORECASE)
_SCORE = re.compile(r"(?<![0-9.])[01]\.[0-9]+(?![0-9.])")  # of a detection, as in person_0.91.png
_SAME = 0.5  # the IoU of two masks above which they seem to show one object
_MASK_COLOURS, _FRAME_COLOURS = 64, 256  # masks seldom have more colours, and frames seldom fewer


@dataclass(frozen=True)
class _Named:
    """What the name of a mask states.

    Attributes:
        path: the mask.
        frame: the number of the frame, or None.
        key: the rest of the name, which tells the objects of a frame apart.
        sure: whether the number can only be the one of a frame.
        plain: whether a single mask of this name is for this frame: its number is announced, padded or alone.
    """

    path: Path
    frame: int | None
    key: str
    sure: bool = True
    plain: bool = True


class ObjectMasks(PaintedMasks):
    """A reader for masks whose objects have a binary file each. Where objects overlap, the last is in front.

    The objects get the ids 1, 2, ... in the order of their names, or of the numbers in them if all differ.

    Args:
        objects: for each frame a path that stands for its mask, and the file of each object by its name.

    Raises:
        InputError: as `PaintedMasks`, a file shows several objects, or two files of a frame differ in size.
    """

    def __init__(self, objects: Mapping[Path, Mapping[str, Path]]) -> None:
        self._objects = dict(objects)
        names = _in_order({name for files in objects.values() for name in files})
        if len(names) > 255:
            raise InputError(f"{next(iter(objects))} and the other masks show {len(names)} objects; 255 is the maximum")
        self._numbers = {name: number for number, name in enumerate(names, start=1)}
        super().__init__(objects)
        if len(objects) == 1:
            (files,) = objects.values()
            shown = [files[name].name for name in names]
            names = shown if len(set(shown)) == len(shown) else names
        shown = [f"object {number} is {name}" for number, name in enumerate(names[:8], start=1)]
        rest = [f"{len(names) - 8} more"] if len(names) > 8 else []
        self.notes.insert(0, f"each mask file shows one object: {', '.join(shown + rest)}")

    def add_truth(self, truth: "ObjectMasks") -> None:
        """Read the masks of ``truth`` as well. An object of the same name has the same id."""
        self._objects |= truth._objects
        for name in truth._numbers:
            self._numbers.setdefault(name, len(self._numbers) + 1)

    def stated(self, path: Path) -> set[int]:
        """The ids of the objects that have a file in a mask, which may be empty."""
        return {self._numbers[name] for name in self._objects[path]}

    def files(self, path: Path) -> list[Path]:
        """The files of the objects of a mask."""
        return list(self._objects[path].values()) if path in self._objects else [path]

    def _mask_values(self, path: Path | str) -> MaskValues:
        if path not in self._objects:
            return super()._mask_values(path)
        files, values, notes, around = self._objects[path], np.zeros(0, np.int32), [], []
        for name, number in self._numbers.items():
            if name not in files:
                continue
            mask = read_mask_values(files[name])
            values = values if values.size else np.zeros_like(mask.values)
            if mask.values.shape != values.shape:
                raise InputError(
                    f"{files[name]} is {mask.values.shape[1]}×{mask.values.shape[0]}, but {path} is "
                    f"{values.shape[1]}×{values.shape[0]}; give the masks of all objects at the size of the frames"
                )
            if len(mask.shown()) > 1:
                raise InputError(
                    f"{files[name]} shows {len(mask.shown())} objects, but other files show objects of the same frame; "
                    "give one mask for each frame, or one for each object"
                )
            if mask.note:
                notes.append(f"{files[name]}: {mask.note}")
            shown = mask.values > 0
            around += [files[name]] if surrounds(mask.values) else []
            if len(around) > 1:
                raise InputError(
                    f"{around[0]} and {around[1]} show an object each that surrounds the rest of the frame, so they "
                    "seem to be inverted; convert all inverted ones with scripts/convert_mask.py --invert"
                )
            if both := np.count_nonzero(values[shown]):
                notes.append(f"{files[name]} covers {both} pixels of earlier objects, which go to object {number}")
            values = np.where(shown, number, values)
        return MaskValues(Kind.IDS, values, "; ".join(notes))


def read_given(
    given: Sequence[Path], video: str, names: Sequence[str] | None = None
) -> tuple[dict[int, Path], PaintedMasks]:
    """Find the frames of the given masks of a video, and a reader for them.

    Args:
        given: masks, and folders that hold masks or a folder of masks for each object.
        video: the name of the video, without suffix.
        names: the names of the frames, in order; None for a video file, whose frames are numbered from 0.

    Returns:
        a path for each frame with a mask, by the number of the frame, in order; and the reader, which knows the files
        of the objects where they are several. Its notes say what the files were taken for.

    Raises:
        InputError: a folder holds no mask, a mask cannot be read, has the name of no frame, or may be the mask of a
            frame as well as of an object; or masks are for the same frame and show several objects each.
    """
    objects = find_objects(given, video, names)
    if not objects:
        assigned = assign_masks(find_masks(given), video, names)
        return assigned, PaintedMasks(assigned.values())
    assigned = {frame: next(iter(files.values())) for frame, files in sorted(objects.items())}
    return assigned, ObjectMasks({path: objects[frame] for frame, path in assigned.items()})


def assign_masks(masks: Sequence[Path], video: str, names: Sequence[str] | None = None) -> dict[int, Path]:
    """Find the frame of each mask by its name, where each mask is for another frame.

    A mask belongs to the frame with its name, such as ``00003.png`` or ``frame_0003.png``; or to the frame whose name
    is a part of its name, such as ``00003_mask.png``; or to the frame with the number in its name. A single mask
    whose name states no number belongs to the first frame. The 2 of ``dog2`` and the 255 of ``mask_255`` state none.

    Args:
        video: the name of the video, without suffix: masks may start with it.
        names: the names of the frames, in order; None for a video file, whose frames are numbered from 0.

    Returns:
        the masks by the numbers of their frames, in order.

    Raises:
        InputError: a mask has the name of no frame, or two masks have the same frame.
    """
    named = [_parsed(mask, mask.stem, video, names) for mask in masks]
    frames = [mask.frame for mask in named]
    if len(masks) == 1 and not named[0].plain:
        frames = [0]
    elif len(masks) > 1 and (None in frames or len(set(frames)) < len(frames)):
        frames = [_last_number(mask.stem.removeprefix(video) or mask.stem, names) for mask in masks]
    assigned: dict[int, Path] = {}
    for mask, frame in zip(masks, frames, strict=True):
        if frame is None:
            raise _nameless(mask, video, names)
        if frame in assigned:
            raise InputError(f"{assigned[frame]} and {mask} are for the same frame; leave one out")
        assigned[frame] = mask
    return dict(sorted(assigned.items()))


def find_objects(given: Sequence[Path], video: str, names: Sequence[str] | None = None) -> dict[int, dict[str, Path]]:
    """The files of the objects, by frame and by the objects' names; nothing if each file is the mask of a frame.

    Args, Raises:
        as for `read_given`.
    """
    masks = find_masks(given)
    return _objects(masks, video, names, by_folder=_are_object_folders(given, masks, names)) if len(masks) > 1 else {}


def one_frame(given: Sequence[Path]) -> dict[int, dict[str, Path]]:
    """As `find_objects`, of masks that all belong to one frame, whatever numbers their names have.

    Nothing if there is one mask only, or if one shows several objects.
    """
    masks = find_masks(given)
    names = {mask.stem: mask for mask in masks}
    return {0: names} if 1 < len(names) == len(masks) and _are_binary(masks) else {}


def absences(masks: Mapping[int, Path], reader: PaintedMasks) -> tuple[dict[int, Path], dict[int, list[int]]]:
    """Take empty masks as statements that the objects are absent. A note says which of them state nothing.

    Args:
        masks: the masks of a video by the number of their frames, in order.

    Returns:
        the masks without those before the first that shows an object; and by frame number the ids of the objects that
        are absent. An empty mask of a frame states it of all objects so far, and an empty file of an object of this
        object. If all masks are empty, all are returned.
    """
    if len(reader.empty) == len(masks) or not (reader.empty or isinstance(reader, ObjectMasks)):
        return dict(masks), {}
    kept, absent, known = {}, {}, set()
    for number, path in masks.items():
        shown = set(object_ids(reader.read(path)))
        stated = reader.stated(path) if isinstance(reader, ObjectMasks) else known if not shown else set()
        if gone := sorted((known & stated) - shown):
            absent[number] = gone
        known |= shown
        if known:
            kept[number] = path
    if early := [path for number, path in masks.items() if number not in kept]:
        more = f" and {len(early) - 1} more" if len(early) > 1 else ""
        reader.notes.append(f"empty masks before the first object state nothing and are left out: {early[0]}{more}")
    if absent:
        example = ", ".join(map(str, absent[min(absent)]))
        frames = f"{len(absent)} frame{'s' * (len(absent) > 1)}"
        reader.notes.append(
            f"empty masks state that objects are absent from {frames}, first {example} in {masks[min(absent)]}"
        )
    return kept, absent


def find_masks(given: Sequence[Path]) -> list[Path]:
    """Replace folders by the masks in them, or else by those in their folders.

    Raises:
        InputError: a folder holds none. The message names a folder near it that does.
    """
    masks = []
    for path in given:
        found = [path]
        if path.is_dir():
            found = images_in(path) or [mask for folder in _folders_of_masks(path) for mask in images_in(folder)]
        if not found:
            others = sorted({entry.suffix for entry in path.iterdir() if entry.is_file() and not is_junk(entry.name)})
            has = f", but {', '.join(others[:4])} files" if others else ""
            remedy = "make masks of them with scripts/convert_mask.py" if ".json" in others else "give PNGs"
            near = folders_near(path, 1, (2, 3, 4))
            right = next((folder for folder in near if images_in(folder)), "a folder that holds them")
            if isinstance(right, Path) and right.parent != path:
                beside = [folder.name for folder in _folders_of_masks(right.parent)]
                if len(beside) > 1 and all(name.isdecimal() or _OBJECT.search(name) for name in beside):
                    right = right.parent  # the folders of objects or of frames
            raise InputError(f"{path} holds no masks{has}; {remedy}, or {right}")
        masks += found
    return masks


def _folders_of_masks(folder: Path) -> list[Path]:
    """The folders in a folder that hold images, in order."""
    return sorted(
        entry for entry in folder.iterdir() if entry.is_dir() and not is_junk(entry.name) and images_in(entry)
    )


def are_swapped(video: Path, mask: Path) -> bool:
    """Whether what is given as a video looks like masks, and what is given as its mask like a frame or a video.

    Masks have few colours, and frames have many.

    Args:
        video, mask: an image, a folder of images, or a video file.
    """
    if (colours := _colours(video)) is None or colours > _MASK_COLOURS:
        return False
    return mask.suffix.lower() in VIDEO_SUFFIXES or (_colours(mask) or 0) > _FRAME_COLOURS


def _colours(path: Path) -> int | None:
    """The number of colours in an image, or in the first one of a folder; None if there is no image."""
    try:
        image = read_image(images_in(path)[0] if path.is_dir() else path)
    except (InputError, IndexError, OSError):
        return None
    return len(np.unique(image.astype(int) @ (1 << 16, 1 << 8, 1)))


def images_in(folder: Path) -> list[Path]:
    """The images of a folder, in order."""
    return [
        path for path in sorted(folder.iterdir()) if path.suffix.lower() in FRAME_SUFFIXES and not is_junk(path.name)
    ]


def _are_object_folders(given: Sequence[Path], masks: Sequence[Path], names: Sequence[str] | None) -> bool:
    """Whether the names of the masks' folders belong to the names of the masks."""
    stems = [mask.stem for mask in masks]
    folders = {mask.parent for mask in masks}
    inner = not folders & {*given, *(path.parent for path in given if path.is_file())}
    if inner and len(folders) == 1:  # the folder of one frame or one object, or only around the masks
        (folder,) = folders
        number = max(re.findall(r"[0-9]+", folder.name), key=len, default="")
        if names is not None:
            return folder.name in names or set(stems) <= set(names)
        return len(number) > max(1, *(len(digits) for stem in stems for digits in re.findall(r"[0-9]+", stem)))
    return inner or len(set(stems)) < len(stems) == len({(mask.parent, mask.stem) for mask in masks})


def _objects(
    masks: Sequence[Path], video: str, names: Sequence[str] | None, *, by_folder: bool
) -> dict[int, dict[str, Path]]:
    """As `find_objects`. With ``by_folder`` the name of a mask's folder is a part of its name."""
    for folder in {mask.parent for mask in masks if by_folder}:
        if folder.name == video:
            raise InputError(f"{folder.parent} holds the masks of several videos; give {folder}")
    named = [
        _folder_name(mask, video, names) if by_folder else _parsed(mask, mask.stem, video, names) for mask in masks
    ]
    frames = [mask.frame for mask in named]
    if any(frame is None for frame in frames):
        if any(frame is not None for frame in frames):
            raise _nameless(next(mask.path for mask in named if mask.frame is None), video, names)
        if not _are_binary(masks):
            if all(_OBJECT.search(mask.path.stem) for mask in named):
                raise InputError(
                    f"{masks[0]} and the other masks are named after objects, but show several each; name masks of "
                    f"frames after the frames, such as {names[0] if names else '00000'}.png"
                )
            return {}
        _refuse_frames(named, names)
        named = [_Named(mask.path, 0, mask.key) for mask in named]
    elif not by_folder and len(set(frames)) == len(frames):
        if not all(mask.sure for mask in named) and _is_count(frames) and _are_binary(masks) and not _overlap(masks, 0):
            raise _unclear(masks, names)
        return {}
    elif not by_folder and not _are_binary(masks):  # `ObjectMasks` checks those in folders, of which there may be many
        return {}
    keys = [mask.key for mask in named]
    without = [_without_scores(key) for key in keys]  # the scores of an object differ between frames
    if len(set(zip(frames, without, strict=True))) == len(named):
        keys = without
    objects: dict[int, dict[str, Path]] = {}
    for mask, key in zip(named, keys, strict=True):
        files = objects.setdefault(mask.frame, {})
        if key in files:
            raise InputError(f"{files[key]} and {mask.path} show one object in the same frame; leave one out")
        files[key] = mask.path
    return objects


def _without_scores(name: str) -> str:
    """A name without the scores of detections in it, if anything else is left."""
    rest = _SCORE.sub("", name).strip(" _.#-")
    return rest if re.search(r"[^\W_]", rest) else name


def _in_order(objects: Collection[str]) -> list[str]:
    """The names of objects by their last numbers if all differ, otherwise by the whole names."""
    numbers = {name: re.findall(r"[0-9]+", _without_scores(name))[-1:] for name in objects}
    order = frame_order(objects)
    last = {name: int(found[0]) if found else -1 for name, found in numbers.items()}
    apart = len(set(last.values())) == len(last)
    return sorted(objects, key=lambda name: (last[name] if apart else 0, order(name)))


def _parsed(path: Path, name: str, video: str, names: Sequence[str] | None) -> _Named:
    """Read a name without suffix."""
    if names is not None and name in names:
        return _Named(path, names.index(name), "")
    name = name.removeprefix(video) or name
    found = _OBJECT.search(name)
    rest = name.replace(found[0], " ") if found else name
    # Seven digits are a date or a time, not the number of a frame of a video file.
    pattern = r"[0-9]+" if names else r"(?<![0-9])[0-9]{1,6}(?![0-9])"
    announced = re.search(rf"(?<![a-z])(?:{_frame_words(names)})[ _.#-]*({pattern})", rest, re.IGNORECASE)
    numbers = re.findall(pattern, _without_scores(rest))
    longest = max(numbers, key=len, default="")
    digits, sure = "", True
    if announced:
        digits = announced[1]
    elif names is not None and (frame := _named_frame(rest, names)) is not None:
        digits = names[frame]
        key = name.replace(digits, "", 1).strip(" _.#-")
        others = [number for number in numbers if number in names and len(number) == len(digits)]
        sure = len(others) < 2 and (len(numbers) > 1 or name.startswith(digits))  # 1_0 has two frames
        return _Named(path, frame, key, sure)
    elif len(numbers) > 1:
        digits = longest if sum(len(number) == len(longest) for number in numbers) == 1 else numbers[-1]
        sure = digits == longest
    elif numbers and not re.search(r"[^\W\d_]", rest):  # a number alone
        digits, sure = longest, names is None and _is_padded(longest)
    elif numbers and _is_padded(longest):
        digits, sure = longest, name.startswith(longest)
    if not digits:
        return _Named(path, None, path.stem, plain=False)
    number = int(digits) if names is None else _numbered_frame(rest, int(digits), names)
    if number is None and sure:
        raise _nameless(path, video, names)
    plain = bool(announced) or name == digits or _is_padded(digits)
    return _Named(path, number, name.replace(digits, "", 1).strip(" _.#-"), sure, plain)


def _is_padded(digits: str) -> bool:
    """Whether a number has leading zeros, as the numbers of frames have."""
    return len(digits) > 1 and digits[0] == "0"


def _folder_name(mask: Path, video: str, names: Sequence[str] | None) -> _Named:
    """Read a name in a folder for each object, ``1/00000.png``, or for each frame, ``00000/1.png``."""
    folder, stem = mask.parent.name, mask.stem
    for frame, key in ((stem, folder), (folder, stem)):
        if names is not None and frame in names:
            return _Named(mask, names.index(frame), key)
    number, other = (max(re.findall(r"[0-9]+", text), key=len, default="") for text in (stem, folder))
    if len(other) > max(1, len(number)):
        stem, folder, number = folder, stem, other
    if not number:
        return _Named(mask, None, folder)
    at = int(number) if names is None else _numbered_frame(stem, int(number), names)
    if at is None:
        raise _nameless(mask, video, names)
    return _Named(mask, at, folder)


def _named_frame(name: str, names: Sequence[str]) -> int | None:
    """The number of the frame with a mask's name, or else of the one whose name is a separate part of the mask's name.

    Of several such parts the longest counts, and the first if two are equally long.
    """
    if name in names:
        return names.index(name)
    parts = [frame for frame in names if frame in name and re.search(rf"(?<![^\W_]){re.escape(frame)}(?![^\W_])", name)]
    return names.index(max(parts, key=lambda part: (len(part), -name.index(part)))) if parts else None


def _numbered_frame(name: str, number: int, names: Sequence[str]) -> int | None:
    """The number of the frame with a mask's name, or else with its number."""
    named = _named_frame(name, names)
    if named is not None:
        return named
    numbers = [re.findall(r"[0-9]+", frame)[-1:] for frame in names]
    found = [at for at, digits in enumerate(numbers) if digits and int(digits[0]) == number]
    return found[0] if len(found) == 1 else None


def _last_number(name: str, names: Sequence[str] | None) -> int | None:
    """The number of the frame that the last number in a name states."""
    numbers = re.findall(r"[0-9]+", name)
    if not numbers:
        return None
    return int(numbers[-1]) if names is None else _numbered_frame(name, int(numbers[-1]), names)


def _nameless(mask: Path, video: str, names: Sequence[str] | None) -> InputError:
    """The error of a mask that has the name of no frame; see `assign_masks`."""
    return InputError(
        f"{mask} is named like no frame of {video}; name each mask after its frame, such as "
        f"{names[0] if names else '00000'}.png, and files of one object each in the first frame object_1.png, "
        "object_2.png"
    )


def _frame_words(names: Sequence[str] | None) -> str:
    """The words before the number of a frame: the usual ones, and the one in the names of the frames."""
    own = re.match(r"[^\W\d_]+", names[0]) if names else None
    return f"{_FRAME_WORDS}|{re.escape(own[0])}" if own else _FRAME_WORDS


def _refuse_frames(named: Sequence[_Named], names: Sequence[str] | None) -> None:
    """Refuse masks with numbers after one word that may be numbers of frames: ``mask_3.png`` and ``mask_40.png``."""
    stems = [mask.path.stem for mask in named]
    numbers = [int(number[-1]) for stem in stems if (number := re.findall(r"[0-9]+", _without_scores(stem)))]
    words = {re.sub(r"[0-9]+", "", _without_scores(stem)) for stem in stems}
    if len(words) > 1 or len(numbers) < len(named) or all(_OBJECT.search(stem) for stem in stems):
        return
    masks = [mask.path for mask in named]
    if not _is_count(numbers) or _overlap(masks, _SAME):
        raise _unclear(masks, names)


def _is_count(numbers: Sequence[int]) -> bool:
    """Whether numbers are 0, 1, 2, ... or 1, 2, 3, ..., in any order."""
    return sorted(numbers) in (list(range(len(numbers))), list(range(1, len(numbers) + 1)))


def _unclear(masks: Sequence[Path], names: Sequence[str] | None) -> InputError:
    one, other, *_ = masks
    return InputError(
        f"{one} and {other} show one object each, and may be masks of two frames or of two objects of one frame; name "
        f"masks of frames after the frames, such as {names[0] if names else '00000'}.png, and those of objects "
        f"object_1.png, object_2.png"
    )


def _are_binary(masks: Sequence[Path]) -> bool:
    """Whether each mask shows one object at most. Nothing is decoded after the first that shows more."""
    return all(len(read_mask_values(mask).shown()) < 2 for mask in masks)


def _overlap(masks: Sequence[Path], most: float) -> bool:
    """Whether the IoU of a mask and the one after it is above ``most``."""
    order = frame_order([mask.stem for mask in masks])
    decoded = (read_mask_values(mask).values > 0 for mask in sorted(masks, key=lambda mask: order(mask.stem)))
    for one, other in itertools.pairwise(decoded):
        if one.shape == other.shape and (union := (one | other).sum()) and (one & other).sum() / union > most:
            return True
    return False
