"""What the YouTube-VOS server takes, a zip of masks, and what it gives back, J and F by kind of category."""

import math
import os
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dataset.images import read_mask
from dataset.video import frame_order
from dataset.youtube import AskedObject
from util.errors import InputError
from util.evaluation.metrics import contour_accuracy, region_similarity
from util.files import atomic_path, write_csv

Asked = Mapping[str, Sequence[AskedObject]]  # by video


@dataclass(frozen=True)
class ObjectScore:
    """J and F of one object.

    Attributes:
        video, id, category: of the object.
        seen: whether training videos show its category.
        frames: how many were scored.
        j, f: their means; NaN where there was none.
    """

    video: str
    id: int
    category: str
    seen: bool
    frames: int
    j: float
    f: float


def write_submission(output: Path, asked: Asked, path: Path) -> None:
    """Zip ``output/Annotations/<video>/<frame>.png`` for every frame that is asked for, and nothing else.

    Raises:
        InputError: a mask is missing, or the zip does not read back as it should.
    """
    names = [f"Annotations/{video}/{frame}.png" for video in asked for frame in _frames(asked[video])]
    with atomic_path(path) as temporary:
        # PNGs are compressed already.
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for name in names:
                try:
                    archive.write(output / name, name)
                except FileNotFoundError:
                    raise InputError(f"{output / name} is missing; run the same command again to make it") from None
        with zipfile.ZipFile(temporary) as archive:
            if archive.namelist() != names or archive.testzip():
                raise InputError(f"{path} does not read back as it was written; check the disk and run again")


def check_scorable(asked: Asked, truth_root: Path) -> None:
    """Check, before anything is segmented, that all is at hand that `score` needs.

    Raises:
        InputError: a frame's ground truth is missing, or an object has no category.
    """
    for video, objects in asked.items():
        for item in objects:
            if item.category is None:
                raise InputError(
                    f"meta.json gives no category for object {item.id} of {video}, so seen and unseen ones cannot be "
                    f"told apart; use a meta.json that has categories, or leave out --gt"
                )
    for video, frame, _ in _scored(asked):
        path = truth_root / video / f"{frame}.png"
        if not path.is_file():
            raise InputError(f"{path} is missing; point --gt at the ground truth of all videos, or leave it out")


def score(
    asked: Asked,
    seen_categories: Collection[str],
    truth_root: Path,
    prediction_root: Path,
    *,
    progress: bool = False,
) -> list[ObjectScore]:
    """Score ``prediction_root/<video>/<frame>.png`` against ``truth_root/<video>/<frame>.png``.

    Every object is scored in every frame in which it is asked for, but for its first, where it is given. Where it is
    neither there nor predicted, J and F are 1. Its score is the mean over those frames.

    Args:
        asked: what the server asks for; see `check_scorable`.
        seen_categories: those of the training videos.
        progress: show a progress bar on stderr.

    Raises:
        InputError: a mask is missing, cannot be read, or differs in size from the ground truth.
    """
    tasks = list(_scored(asked))

    def measure(task: tuple[str, str, list[int]]) -> np.ndarray:
        video, frame, ids = task
        paths = [root / video / f"{frame}.png" for root in (truth_root, prediction_root)]
        truth, prediction = (read_mask(path) for path in paths)
        if truth.shape != prediction.shape:
            raise InputError(
                f"{paths[0]} is {truth.shape[1]}×{truth.shape[0]}, its prediction {prediction.shape[1]}×"
                f"{prediction.shape[0]}; give the ground truth at the size of the frames"
            )
        pairs = [(truth == i, prediction == i) for i in ids]
        return np.array([[region_similarity(*pair), contour_accuracy(*pair)] for pair in pairs])

    values: dict[tuple[str, int], list[np.ndarray]] = {}
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        hidden = None if progress else True  # None shows the bar in terminals only
        measured = tqdm(pool.map(measure, tasks), total=len(tasks), desc="scoring", unit="frame", disable=hidden)
        for (video, _, ids), rows in zip(tasks, measured, strict=True):
            for i, row in zip(ids, rows, strict=True):
                values.setdefault((video, i), []).append(row)
    scores = []
    for video, objects in asked.items():
        for item in objects:
            rows = values.get((video, item.id), [])
            j, f = np.mean(rows, axis=0).tolist() if rows else (math.nan, math.nan)
            scores.append(ObjectScore(video, item.id, item.category, item.category in seen_categories, len(rows), j, f))
    return scores


def summary(scores: Sequence[ObjectScore]) -> dict[str, float]:
    """The figures of Table 4: the means over the objects of seen and of unseen categories, and their mean, Overall.

    A kind of which there is no object is NaN and does not count in Overall.
    """
    figures = {}
    for kind in ("seen", "unseen"):
        rows = [(item.j, item.f) for item in scores if item.seen == (kind == "seen") and item.frames]
        figures[f"J_{kind}"], figures[f"F_{kind}"] = np.mean(rows, axis=0).tolist() if rows else (math.nan, math.nan)
    known = [figure for figure in figures.values() if not math.isnan(figure)]
    return {"Overall": float(np.mean(known)) if known else math.nan, **figures}


def write_scores(scores: Sequence[ObjectScore], output: Path, split: str) -> None:
    """Write ``global_results-<split>.csv``, Table 4's figures, and ``per-object_results-<split>.csv``; all in 0..1.

    Raises:
        InputError: the files cannot be written.
    """
    figures = summary(scores)
    write_csv(output / f"global_results-{split}.csv", [list(figures), list(figures.values())])
    rows = [[s.video, s.id, s.category, "seen" if s.seen else "unseen", s.frames, s.j, s.f] for s in scores]
    header = ["Video", "Object", "Category", "Kind", "Frames", "J", "F"]
    write_csv(output / f"per-object_results-{split}.csv", [header, *rows])


def _frames(objects: Sequence[AskedObject]) -> list[str]:
    return sorted({frame for item in objects for frame in item.frames}, key=frame_order)


def _scored(asked: Asked) -> Iterator[tuple[str, str, list[int]]]:
    """Video, frame and the objects to score there."""
    for video, objects in asked.items():
        for frame in _frames(objects):
            ids = [item.id for item in objects if frame in item.frames[1:]]
            if ids:
                yield video, frame, ids
