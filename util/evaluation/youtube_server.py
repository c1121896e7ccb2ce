"""The YouTube-VOS server's formats: the zip file of masks, and J and F of seen and unseen categories."""

import math
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataset.files.video import frame_order
from dataset.layouts.youtube import AskedObject
from util.errors import InputError
from util.evaluation.scoring import ObjectFigures, ScoringPlan, VideoScore
from util.files import atomic_path, write_csv

Asked = Mapping[str, Sequence[AskedObject]]  # by video


class ObjectScore(NamedTuple):
    """An object of a video, and its J and F over the scored frames."""

    video: str
    category: str
    seen: bool  # whether training videos show this category
    figures: ObjectFigures


def write_submission(output: Path, asked: Asked, path: Path) -> None:
    """Write the zip file for the server: the masks of all frames that the server asks for, and nothing else.

    Args:
        output: the folder that holds ``Annotations/<video>/<frame>.png``.
        asked: the objects and frames that the server asks for.

    Raises:
        InputError: a mask is missing, or the written zip file is damaged.
    """
    names = [f"Annotations/{video}/{frame}.png" for video in asked for frame in _frames(asked[video])]
    with atomic_path(path) as temporary:
        # PNG files are compressed already.
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for name in names:
                try:
                    archive.write(output / name, name)
                except FileNotFoundError:
                    raise InputError(f"{output / name} is missing; run the same command again") from None
        with zipfile.ZipFile(temporary) as archive:
            if archive.namelist() != names or archive.testzip():
                raise InputError(f"{path} was damaged while it was written; check the disk and run again")


def plans(asked: Asked, truth_root: Path) -> list[ScoringPlan]:
    """What the server scores: every object in the frames in which it asks for the object, except the first of them.

    The mask of this first frame is given.

    Args:
        asked: the objects and frames that the server asks for.
        truth_root: the folder of ground truth, ``<video>/<frame>.png``.

    Returns:
        a plan for each video, in the order of ``asked``.

    Raises:
        InputError: the ground truth of a frame is missing, or an object has no category.
    """
    made = []
    for video, objects in asked.items():
        for item in objects:
            if item.category is None:
                raise InputError(
                    f"meta.json has no category for object {item.id} of {video}, so it is unknown whether the object "
                    "is seen or unseen; use a meta.json with categories, or leave out the ground truth"
                )
        frames = {frame: [item.id for item in objects if frame in item.frames[1:]] for frame in _frames(objects)}
        frames = {frame: ids for frame, ids in frames.items() if ids}
        for frame in frames:
            path = truth_root / video / f"{frame}.png"
            if not path.is_file():
                remedy = "give the ground truth of all videos, or leave out the ground truth"
                if (truth_root / "Annotations" / video).is_dir():
                    remedy = f"give {truth_root / 'Annotations'} as --gt"
                raise InputError(f"{path} is missing; {remedy}")
        made.append(ScoringPlan(truth_root / video, [item.id for item in objects], frames))
    return made


def object_scores(asked: Asked, seen_categories: Collection[str], scores: Sequence[VideoScore]) -> list[ObjectScore]:
    """The scores of all objects of the scored videos.

    Args:
        seen_categories: the categories of the training videos.
        scores: the scores of `plans`.
    """
    return [
        ObjectScore(score.name, item.category, item.category in seen_categories, figures)
        for score in scores
        for item, figures in zip(asked[score.name], score.objects, strict=True)
    ]


def summary(scores: Sequence[ObjectScore]) -> dict[str, float]:
    """The figures of Table 4, in 0..1.

    Returns:
        "Overall", "J_seen", "F_seen", "J_unseen", "F_unseen": the means of J and F over the objects of seen and of
        unseen categories, and Overall, the mean of these four. Figures without objects are NaN, and left out of
        Overall.
    """
    figures = {}
    for kind in ("seen", "unseen"):
        chosen = [item.figures for item in scores if item.seen == (kind == "seen") and item.figures.frames]
        rows = [(each.j.mean, each.f.mean) for each in chosen]
        figures[f"J_{kind}"], figures[f"F_{kind}"] = np.mean(rows, axis=0).tolist() if rows else (math.nan, math.nan)
    known = [figure for figure in figures.values() if not math.isnan(figure)]
    return {"Overall": float(np.mean(known)) if known else math.nan, **figures}


def write_scores(scores: Sequence[ObjectScore], output: Path, split: str) -> None:
    """Write ``global_results-<split>.csv``, the figures of Table 4, and ``per-object_results-<split>.csv``; in 0..1."""
    overall = summary(scores)
    write_csv(output / f"global_results-{split}.csv", [list(overall), list(overall.values())])
    rows = [
        [video, figures.id, category, "seen" if seen else "unseen", figures.frames, figures.j.mean, figures.f.mean]
        for video, category, seen, figures in scores
    ]
    header = ["Video", "Object", "Category", "Kind", "Frames", "J", "F"]
    write_csv(output / f"per-object_results-{split}.csv", [header, *rows])


def _frames(objects: Sequence[AskedObject]) -> list[str]:
    """The names of the frames in which the server asks for any of the objects, in order."""
    frames = {frame for item in objects for frame in item.frames}
    return sorted(frames, key=frame_order(frames))
