"""The format of the YouTube-VOS server: a zip file of masks goes in, and J and F by kind of category come out."""

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
from dataset.video import Video, frame_order, read_sized_mask
from dataset.youtube import AskedObject
from util.errors import InputError
from util.evaluation.metrics import contour_accuracy, region_similarity
from util.files import atomic_path, write_csv

Asked = Mapping[str, Sequence[AskedObject]]  # by video


@dataclass(frozen=True)
class ObjectScore:
    """J and F of one object.

    Attributes:
        video: the name of the object's video.
        id: the id of the object in the masks.
        category: the category of the object.
        seen: whether training videos show this category.
        frames: the number of scored frames.
        j, f: the means of J and F over the scored frames, in 0..1; NaN without scored frames.
    """

    video: str
    id: int
    category: str
    seen: bool
    frames: int
    j: float
    f: float


def write_submission(output: Path, asked: Asked, path: Path) -> None:
    """Write the zip file for the server: the masks of all frames that the server asks for, and no other file.

    Args:
        output: the folder that holds ``Annotations/<video>/<frame>.png``.
        asked: the objects and frames that the server asks for.
        path: the zip file.

    Raises:
        InputError: a mask is missing, or the zip file differs from the written data when it is read again.
    """
    names = [f"Annotations/{video}/{frame}.png" for video in asked for frame in _frames(asked[video])]
    with atomic_path(path) as temporary:
        # PNG files are compressed already.
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for name in names:
                try:
                    archive.write(output / name, name)
                except FileNotFoundError:
                    raise InputError(f"{output / name} is missing; run the same command again to make it") from None
        with zipfile.ZipFile(temporary) as archive:
            if archive.namelist() != names or archive.testzip():
                raise InputError(f"{path} does not read back as it was written; check the disk and run again")


def check_scorable(asked: Asked, videos: Sequence[Video], truth_root: Path, *, progress: bool = False) -> None:
    """Check, before any video is segmented, that `score` has the ground truth and the categories that it needs.

    Args:
        asked: the objects and frames that the server asks for.
        videos: the videos of these objects.
        truth_root: the folder of ground truth, ``<video>/<frame>.png``.
        progress: show a progress bar on stderr.

    Raises:
        InputError: the ground truth of a frame is missing, cannot be read or has another size than the frames, or an
            object has no category.
    """
    for video, objects in asked.items():
        for item in objects:
            if item.category is None:
                raise InputError(
                    f"meta.json gives no category for object {item.id} of {video}, so seen and unseen objects "
                    "cannot be told apart; use a meta.json that has categories, or leave out the ground truth"
                )
    sizes = {video.name: video.size for video in videos}
    tasks = [(truth_root / video / f"{frame}.png", sizes[video], video) for video, frame, _ in _scored(asked)]
    for path, *_ in tasks:
        if not path.is_file():
            raise InputError(f"{path} is missing; give the ground truth of all videos, or leave out the ground truth")
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        hidden = None if progress else True  # None shows the bar only in terminals
        checked = pool.map(lambda task: read_sized_mask(*task), tasks)
        for _ in tqdm(checked, total=len(tasks), desc="checking", unit="mask", disable=hidden):
            pass


def score(
    asked: Asked,
    seen_categories: Collection[str],
    truth_root: Path,
    prediction_root: Path,
    *,
    progress: bool = False,
) -> list[ObjectScore]:
    """Score ``prediction_root/<video>/<frame>.png`` against ``truth_root/<video>/<frame>.png``.

    Every object is scored in the frames in which the server asks for it, except the first of them, where its mask is
    given. J and F are 1 in a frame that has the object in neither of the two masks. The score of an object is the mean
    over these frames.

    Args:
        asked: the objects and frames that the server asks for; see `check_scorable`.
        seen_categories: the categories of the training videos.
        truth_root, prediction_root: the folders of the videos.
        progress: show a progress bar on stderr.

    Returns:
        the scores of all objects, in the order of ``asked``.

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
        hidden = None if progress else True  # None shows the bar only in terminals
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
    """The figures of Table 4, in 0..1.

    Returns:
        "Overall", "J_seen", "F_seen", "J_unseen", "F_unseen": the means of J and F over the objects of seen and of
        unseen categories, and Overall, the mean of these four. A kind without objects is NaN and does not count in
        Overall.
    """
    figures = {}
    for kind in ("seen", "unseen"):
        rows = [(item.j, item.f) for item in scores if item.seen == (kind == "seen") and item.frames]
        figures[f"J_{kind}"], figures[f"F_{kind}"] = np.mean(rows, axis=0).tolist() if rows else (math.nan, math.nan)
    known = [figure for figure in figures.values() if not math.isnan(figure)]
    return {"Overall": float(np.mean(known)) if known else math.nan, **figures}


def write_scores(scores: Sequence[ObjectScore], output: Path, split: str) -> None:
    """Write ``global_results-<split>.csv``, the figures of Table 4, and ``per-object_results-<split>.csv``; in 0..1.

    Raises:
        InputError: the files cannot be written.
    """
    figures = summary(scores)
    write_csv(output / f"global_results-{split}.csv", [list(figures), list(figures.values())])
    rows = [[s.video, s.id, s.category, "seen" if s.seen else "unseen", s.frames, s.j, s.f] for s in scores]
    header = ["Video", "Object", "Category", "Kind", "Frames", "J", "F"]
    write_csv(output / f"per-object_results-{split}.csv", [header, *rows])


def _frames(objects: Sequence[AskedObject]) -> list[str]:
    """The names of the frames in which the server asks for any of the objects, in order."""
    return sorted({frame for item in objects for frame in item.frames}, key=frame_order)


def _scored(asked: Asked) -> Iterator[tuple[str, str, list[int]]]:
    """Yield every scored frame: the video, the name of the frame, and the ids of the objects to score."""
    for video, objects in asked.items():
        for frame in _frames(objects):
            ids = [item.id for item in objects if frame in item.frames[1:]]
            if ids:
                yield video, frame, ids
