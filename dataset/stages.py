"""The data of each training stage (the paper, Section 4.2) and the stream of batches from it."""

import atexit
import bisect
import itertools
import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from dataset.clips import VideoClips, VideoFolders
from dataset.sampling import GlobalBatchSampler, SampleKey, sample_rng
from dataset.static import StaticImages
from util.errors import InputError

# Names a folder may go by (in any case), and how often its images count in an epoch.
_STATIC_FOLDERS = (
    (("fss",), 1),
    (("DUTS-TR",), 1),
    (("DUTS-TE",), 1),
    (("ecssd",), 1),
    (("BIG_small", "BIG"), 5),
    (("HRSOD_small", "HRSOD"), 5),
)
_DAVIS_REPEATS = 5


class Source(Protocol):
    """What a training data set is made of."""

    def __len__(self) -> int: ...

    def sample(self, index: int, rng: np.random.Generator, progress: float) -> dict[str, torch.Tensor | str]:
        """Sample ``index``, with what is random drawn from ``rng``, at this share of training (0 to 1)."""


class TrainingData(Dataset):
    """Sources end to end, each as often as asked for; indexed by `SampleKey`, samples as in `make_sample`.

    A sample depends on the seed and its key alone: neither worker nor process nor what was read before matters.
    The copies of a repeated source are augmented independently.

    Args:
        parts: sources, each with its number of repeats.
        iterations: of the whole training, which the curriculum of gaps follows.
        seed: of everything random in the samples.
    """

    def __init__(self, parts: Sequence[tuple[Source, int]], *, iterations: int, seed: int) -> None:
        self.sources = [source for source, repeats in parts for _ in range(repeats)]
        self.ends = list(itertools.accumulate(len(source) for source in self.sources))
        self.iterations = iterations
        self.seed = seed

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, key: SampleKey) -> dict[str, torch.Tensor | str]:
        place = bisect.bisect_right(self.ends, key.index)
        source = self.sources[place]
        index = key.index - (self.ends[place] - len(source))
        return source.sample(index, sample_rng(self.seed, key), key.iteration / self.iterations)


def stage_dataset(
    stage: int,
    *,
    static_root: Path | str | None = None,
    bl_root: Path | str | None = None,
    yv_root: Path | str | None = None,
    davis_root: Path | str | None = None,
    iterations: int,
    crop_size: int = 384,
    seed: int = 0,
) -> TrainingData:
    """The data of stage 0 (static images), 1 (BL30K), or 2 and 3 (DAVIS 2017 and YouTube-VOS).

    Args:
        stage: 0 to 3; it needs only its own folders.
        static_root: holds ``fss/<class>/``, ``DUTS-TR/``, ``DUTS-TE/``, ``ecssd/``, ``BIG_small/``, ``HRSOD_small/``.
        bl_root: holds ``JPEGImages/<video>`` and ``Annotations/<video>``.
        yv_root: holds ``train_480p/JPEGImages/<video>`` and ``train_480p/Annotations/<video>``.
        davis_root: holds ``JPEGImages/480p``, ``Annotations/480p`` and ``ImageSets/2017/train.txt``, or a
            ``trainval`` folder that does.
        iterations: of the whole stage.
        crop_size: side of the square crops in pixels.
        seed: of everything random in the samples.

    Raises:
        InputError: a folder that the stage needs is not given, missing or incomplete.
    """
    parts: list[tuple[Source, int]] = []
    if stage == 0:
        for folder in static_folders(static_root):
            if folder.path is None:
                raise InputError(f"{static_root} has no folder {folder.names}; add it, or check --static_root")
            parts.append((StaticImages(folder.path, crop_size=crop_size, nested=folder.nested), folder.repeats))
    else:
        settings = {"crop_area": 0.25, "last_change": 0.8} if stage == 1 else {}
        for folders in video_folders(stage, bl_root=bl_root, yv_root=yv_root, davis_root=davis_root):
            listed = folders.listed()
            for root in (folders.images, folders.masks):
                if not root.is_dir():
                    raise InputError(f"{root} is missing; {folders.remedy}")
            clips = VideoClips(
                folders.name,
                folders.images,
                folders.masks,
                listed,
                crop_size=crop_size,
                annotation_step=folders.annotation_step,
                **settings,
            )
            parts.append((clips, folders.repeats))
    return TrainingData(parts, iterations=iterations, seed=seed)


class StaticFolder(NamedTuple):
    """A folder of stage 0.

    Attributes:
        names: that it may go by, for messages.
        path: None where it is missing.
        nested: as in `StaticImages`.
        repeats: how often an image counts in an epoch.
    """

    names: str
    path: Path | None
    nested: bool
    repeats: int


def static_folders(root: Path | str | None) -> list[StaticFolder]:
    """The data sets of stage 0 in ``root``, found or not.

    Raises:
        InputError: ``root`` is not given or no folder.
    """
    root = _required(root, "--static_root", 0)
    present = {entry.name.lower(): entry for entry in root.iterdir() if entry.is_dir()}
    folders = []
    for names, repeats in _STATIC_FOLDERS:
        found = next((present[name.lower()] for name in names if name.lower() in present), None)
        folders.append(StaticFolder(" or ".join(names), found, names == ("fss",), repeats))
    return folders


def video_folders(
    stage: int,
    *,
    bl_root: Path | str | None = None,
    yv_root: Path | str | None = None,
    davis_root: Path | str | None = None,
) -> list[VideoFolders]:
    """The data sets of stages 1 to 3; whether their folders are there is not looked at.

    Raises:
        InputError: a root that the stage needs is not given or no folder.
    """
    if stage == 1:
        root = _required(bl_root, "--bl_root", stage)
        return [VideoFolders("BL30K", root / "JPEGImages", root / "Annotations", "copy it again, or check --bl_root")]
    if stage not in (2, 3):
        raise ValueError(f"stages are 0 to 3, not {stage}")
    davis = _required(davis_root, "--davis_root", stage)
    if (davis / "trainval").is_dir():
        davis = davis / "trainval"
    youtube = _required(yv_root, "--yv_root", stage) / "train_480p"
    return [
        VideoFolders(
            "DAVIS 2017",
            davis / "JPEGImages" / "480p",
            davis / "Annotations" / "480p",
            "check --davis_root, or copy it again",
            split=davis / "ImageSets" / "2017" / "train.txt",
            repeats=_DAVIS_REPEATS,
        ),
        VideoFolders(
            "YouTube-VOS",
            youtube / "JPEGImages",
            youtube / "Annotations",
            "make it with scripts/resize_youtube.py",
            annotation_step=5,
        ),
    ]


def training_batches(
    data: TrainingData, sampler: GlobalBatchSampler, *, workers: int, pin_memory: bool = False
) -> Iterator[dict[str, torch.Tensor | list[str]]]:
    """Load this process's micro-batches in order: the samples' tensors stacked, their names listed.

    Raises:
        InputError: a sample cannot be made; the message names its file.
    """
    atexit.register(_end_workers)
    loader = DataLoader(
        data, batch_sampler=sampler, num_workers=workers, pin_memory=pin_memory, worker_init_fn=_start_worker
    )
    try:
        yield from loader
    except InputError as error:
        # A worker's error arrives with its traceback around it; the message is the last line.
        message = str(error).strip().splitlines()[-1]
        raise InputError(message.removeprefix(f"{InputError.__module__}.{InputError.__name__}: ")) from None


def _start_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # there is a worker for each core already
    # Terminals and job schedulers signal every process of a job; it is the training loop that decides when to stop.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _end_workers() -> None:
    """End the loading processes with this one, after an error, too.

    Python would ask them to by the signal that they ignore, and wait.
    """
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch takes their deaths for failures
    for child in multiprocessing.active_children():
        child.kill()


def _required(root: Path | str | None, flag: str, stage: int) -> Path:
    if root is None:
        raise InputError(f"stage {stage} needs {flag}, the folder of its data set")
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root} is no folder; check {flag}")
    return root
