"""The data of each training stage (the paper, Section 4.2) and the stream of batches from it."""

import bisect
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from dataset.clips import VideoClips
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
    if stage == 0:
        parts = _static_parts(_required(static_root, "--static_root", stage), crop_size)
    elif stage == 1:
        root = _required(bl_root, "--bl_root", stage)
        bl30k = VideoClips(
            "BL30K",
            root / "JPEGImages",
            root / "Annotations",
            crop_size=crop_size,
            crop_area=0.25,
            last_change=0.8,
        )
        parts = [(bl30k, 1)]
    elif stage in (2, 3):
        davis = _davis(_required(davis_root, "--davis_root", stage), crop_size)
        yv = _required(yv_root, "--yv_root", stage) / "train_480p"
        youtube = VideoClips(
            "YouTube-VOS", yv / "JPEGImages", yv / "Annotations", crop_size=crop_size, annotation_step=5
        )
        parts = [(davis, _DAVIS_REPEATS), (youtube, 1)]
    else:
        raise ValueError(f"stages are 0 to 3, not {stage}")
    return TrainingData(parts, iterations=iterations, seed=seed)


def training_batches(
    data: TrainingData, sampler: GlobalBatchSampler, *, workers: int, pin_memory: bool = False
) -> Iterator[dict[str, torch.Tensor | list[str]]]:
    """Load this process's micro-batches in order: the samples' tensors stacked, their names listed.

    Raises:
        InputError: a sample cannot be made; the message names its file.
    """
    loader = DataLoader(
        data, batch_sampler=sampler, num_workers=workers, pin_memory=pin_memory, worker_init_fn=_use_one_thread
    )
    try:
        yield from loader
    except InputError as error:
        # A worker's error arrives with its traceback around it; the message is the last line.
        message = str(error).strip().splitlines()[-1]
        raise InputError(message.removeprefix(f"{InputError.__module__}.{InputError.__name__}: ")) from None


def _use_one_thread(worker: int) -> None:
    cv2.setNumThreads(0)  # there is a worker for each core already


def _required(root: Path | str | None, flag: str, stage: int) -> Path:
    if root is None:
        raise InputError(f"stage {stage} needs {flag}, the folder of its data set")
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root} is no folder; check {flag}")
    return root


def _static_parts(root: Path, crop_size: int) -> list[tuple[StaticImages, int]]:
    folders = {entry.name.lower(): entry for entry in root.iterdir() if entry.is_dir()}
    parts = []
    for names, repeats in _STATIC_FOLDERS:
        found = next((folders[name.lower()] for name in names if name.lower() in folders), None)
        if found is None:
            raise InputError(f"{root} has no folder {' or '.join(names)}; add it, or check --static_root")
        parts.append((StaticImages(found, crop_size=crop_size, nested=names == ("fss",)), repeats))
    return parts


def _davis(root: Path, crop_size: int) -> VideoClips:
    if (root / "trainval").is_dir():
        root = root / "trainval"
    split = root / "ImageSets" / "2017" / "train.txt"
    try:
        videos = split.read_text().split()
    except OSError:
        raise InputError(f"{split} is missing; check --davis_root") from None
    return VideoClips(
        "DAVIS 2017", root / "JPEGImages" / "480p", root / "Annotations" / "480p", videos, crop_size=crop_size
    )
