"""The data sets of training, and the stages that use them (the paper, Section 4.2)."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dataset.layouts import bl30k, davis, own_videos, youtube
from dataset.layouts.folders import VideoFolders
from dataset.layouts.own_videos import data_set_layout, known_layout
from dataset.layouts.static import ImageFolder, image_folders
from dataset.samples.image_clips import ImageClips
from dataset.samples.training_data import TrainingData
from dataset.samples.video_clips import VideoClips
from util.errors import InputError
from util.files import folders_near

Folders = ImageFolder | VideoFolders
VIDEOS = "videos"  # the flag for folders of the user's own videos, which may be given several times


class DataSet(NamedTuple):
    """A flag of train.py that gives data."""

    flag: str  # its name, without ``--``
    stages: tuple[int, ...]  # that train on it
    layout: str  # the content of the folder, for help and messages
    find: Callable[[Path, Mapping[str, Any]], list[Folders]]  # the data sets in a folder, from it and all arguments


def _davis(root: Path, given: Mapping[str, Any]) -> list[Folders]:
    return [davis.split_folders(root, given.get("davis_year") or 2017, "train")]


# A new data set is a line here. Its repetitions and its crops are attributes of its folders.
DATA_SETS = (
    DataSet(
        "static_root", (0,), "folders of images <name>.jpg with masks <name>.png", lambda root, _: image_folders(root)
    ),
    DataSet("bl_root", (1,), "JPEGImages and Annotations of BL30K", lambda root, _: [bl30k.training_folders(root)]),
    DataSet("davis_root", (2, 3), "trainval, or is trainval itself", _davis),
    DataSet("yv_root", (2, 3), "train_480p of YouTube-VOS", lambda root, _: [youtube.split_folders(root)]),
)


def stage_folders(stage: int, given: Mapping[str, Any]) -> list[Folders]:
    """Return the folders of the data sets that a stage trains on. They need not be complete.

    Args:
        stage: 0 for static images, 1 for BL30K, 2 or 3 for DAVIS and YouTube-VOS; 1 to 3 also for any videos.
        given: the values of train.py's data flags, by name: the folder of each data set of `DATA_SETS`, or None;
            ``videos``, pairs of a folder and the repetitions of each of its videos; ``davis_year``, 2016 or 2017.
    """
    folders: list[Folders] = []
    flags = stage_flags(stage)
    for data_set in DATA_SETS:
        if data_set.flag in flags and (root := given.get(data_set.flag)):
            found = data_set.find(_existing(root, data_set.flag), given)
            _refuse_other_layout(found, Path(root), data_set.flag)
            folders += found
    if VIDEOS in flags:
        for root, repeats in given.get(VIDEOS) or ():
            folders += own_videos.training_folders(_existing(root, VIDEOS), repeats)
    if not folders:
        raise InputError(f"stage {stage} needs data; give {' or '.join(f'--{flag}' for flag in flags)}")
    return folders


def stage_flags(stage: int) -> list[str]:
    """Return the flags of train.py that give data to a stage, without ``--``."""
    return [data_set.flag for data_set in DATA_SETS if stage in data_set.stages] + [VIDEOS] * (stage > 0)


def stage_dataset(
    stage: int, given: Mapping[str, Any], *, iterations: int, crop_size: int = 384, frames: int = 5, seed: int = 0
) -> TrainingData:
    """Return the training data of a stage.

    Args:
        stage, given: as for `stage_folders`.
        crop_size: the side of the square crops, in pixels.
        frames: the number of frames in a clip of stages 1 to 3.
    """
    parts = []
    for folders in stage_folders(stage, given):
        if isinstance(folders, ImageFolder):
            source = ImageClips(folders, crop_size=crop_size)
        else:
            # The gaps are small again after 90% of training, and after 80% on BL30K.
            last_change = 0.8 if stage == 1 else 0.9
            source = VideoClips(folders, crop_size=crop_size, frames=frames, last_change=last_change)
        parts.append((source, folders.repeats))
    return TrainingData(parts, iterations=iterations, seed=seed)


def _existing(root: Path | str, flag: str) -> Path:
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; check --{flag}, or download data with scripts/download.py")
    return root


def _refuse_other_layout(found: list[Folders], root: Path, flag: str) -> None:
    """Refuse a folder that lacks the data set's files, if a folder near it has them, or it suits another flag."""
    for folders in found:
        wanted = (folders.split, folders.images) if isinstance(folders, VideoFolders) else ()
        missing = next((path for path in wanted if path and not path.exists()), None)
        is_incomplete = f"--{flag}" in (data_set_layout(root) or "")
        for near in folders_near(root, 3, (1,)) if missing and not is_incomplete else ():
            if (layout := data_set_layout(near)) and f"--{flag}" in layout:
                raise InputError(f"{missing} is missing; {near} is {layout}")
        if missing and (layout := known_layout(root)) and f"--{flag}" not in layout:
            raise InputError(f"{missing} is missing; {root} is {layout}")
