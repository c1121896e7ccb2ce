"""The data of each training stage (the paper, Section 4.2)."""

from pathlib import Path

from dataset import bl30k, davis, youtube
from dataset.folders import VideoFolders
from dataset.image_clips import ImageClips
from dataset.static import StaticFolder, static_folders
from dataset.training_data import Source, TrainingData
from dataset.video_clips import VideoClips
from util.errors import InputError

# How often the samples of a data set count in an epoch. The others count once.
_REPEATS = {"BIG": 5, "HRSOD": 5, "DAVIS 2017": 5}
# The settings of `VideoClips` that are different for BL30K. Small objects are left out here and nowhere else.
_BL30K = {"crop_area": 0.25, "least_area": 1e-3, "last_change": 0.8}


def stage_dataset(
    stage: int,
    *,
    static_root: Path | str | None = None,
    bl_root: Path | str | None = None,
    yv_root: Path | str | None = None,
    davis_root: Path | str | None = None,
    iterations: int,
    crop_size: int = 384,
    frames: int = 5,
    seed: int = 0,
) -> TrainingData:
    """Return the training data of a stage.

    Args:
        stage: 0 for static images, 1 for BL30K, 2 or 3 for DAVIS 2017 and YouTube-VOS.
        static_root: the folder of stage 0. It holds ``fss/<class>/``, ``DUTS-TR/``, ``DUTS-TE/``, ``ecssd/``,
            ``BIG_small/`` and ``HRSOD_small/``.
        bl_root: the folder of stage 1. It holds ``JPEGImages/<video>`` and ``Annotations/<video>``.
        yv_root: a folder of stages 2 and 3. It holds ``train_480p/JPEGImages/<video>`` and
            ``train_480p/Annotations/<video>``.
        davis_root: a folder of stages 2 and 3. It holds ``JPEGImages/480p``, ``Annotations/480p`` and
            ``ImageSets/2017/train.txt``, or a folder ``trainval`` that holds these.
        iterations: the number of iterations in the whole stage.
        crop_size: the side of the square crops, in pixels.
        frames: the number of frames in a clip of stages 1 to 3.
        seed: determines everything random in the samples.

    Raises:
        InputError: a folder of the stage is not given, is missing or is incomplete.
        ValueError: there is no such stage.
    """
    roots = {"static_root": static_root, "bl_root": bl_root, "yv_root": yv_root, "davis_root": davis_root}
    parts: list[tuple[Source, int]] = []
    for folders in stage_folders(stage, **roots):
        if isinstance(folders, StaticFolder):
            if folders.path is None:
                raise InputError(f"{static_root} has no folder {folders.folder_names}; add it, or check static_root")
            source = ImageClips(folders.path, crop_size=crop_size, nested=folders.nested)
        else:
            source = _video_clips(stage, folders, crop_size, frames)
        parts.append((source, _REPEATS.get(folders.name, 1)))
    return TrainingData(parts, iterations=iterations, seed=seed)


def stage_folders(
    stage: int,
    *,
    static_root: Path | str | None = None,
    bl_root: Path | str | None = None,
    yv_root: Path | str | None = None,
    davis_root: Path | str | None = None,
) -> list[StaticFolder] | list[VideoFolders]:
    """Return the folders of a stage's data sets. The folders need not exist inside the roots.

    Args:
        stage, static_root, bl_root, yv_root, davis_root: as for `stage_dataset`.

    Raises:
        InputError: a root of the stage is not given or is not a folder.
        ValueError: there is no such stage.
    """
    if stage == 0:
        return static_folders(_required(static_root, "static_root", stage))
    if stage == 1:
        return [bl30k.training_folders(_required(bl_root, "bl_root", stage))]
    if stage not in (2, 3):
        raise ValueError(f"stages are 0 to 3, not {stage}")
    return [
        davis.training_folders(_required(davis_root, "davis_root", stage)),
        youtube.training_folders(_required(yv_root, "yv_root", stage)),
    ]


def _video_clips(stage: int, folders: VideoFolders, crop_size: int, frames: int) -> VideoClips:
    listed = folders.listed()
    for root in (folders.images, folders.masks):
        if not root.is_dir():
            raise InputError(f"{root} is missing; {folders.remedy}")
    return VideoClips(
        folders.name,
        folders.images,
        folders.masks,
        listed,
        crop_size=crop_size,
        frames=frames,
        annotation_step=folders.annotation_step,
        **(_BL30K if stage == 1 else {}),
    )


def _required(root: Path | str | None, name: str, stage: int) -> Path:
    if root is None:
        raise InputError(f"stage {stage} needs {name}, the folder of its data set")
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root} is no folder; check {name}")
    return root
