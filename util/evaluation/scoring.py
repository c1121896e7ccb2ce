"""Scoring of videos with `util.evaluation.metrics`, and the tables of figures in the layout of DAVIS's code."""

import csv
import glob
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from dataset.files.images import read_mask
from dataset.files.video import Video, frame_order, is_junk, object_ids, read_sized_mask
from dataset.layouts.davis import VOID
from util.errors import InputError
from util.evaluation.metrics import Statistics, contour_accuracy, nanmean, region_similarity, statistics
from util.files import write_csv
from util.parallel import in_threads
from util.progress import hidden


class ObjectFigures(NamedTuple):
    """J and F of an object over the frames in which the object is scored."""

    id: int
    frames: int  # in which the object is scored
    j: Statistics
    f: Statistics


@dataclass(frozen=True)
class ScoringPlan:
    """What is scored of a video."""

    truth: Path  # the folder of the true masks, ``<frame>.png``; the last part of the path names the video
    ids: Sequence[int]  # of the objects, in order; a prediction must not hold a higher id
    frames: Mapping[str, Sequence[int]]  # the ids that are scored in a frame, by its name without suffix; in order
    merge_objects: bool = False  # as in DAVIS 2016: every id except 0 is object 1, in ground truth and predictions
    # The file of the true mask of a frame, by the name of the frame, where it is not ``<frame>.png``.
    masks: Mapping[str, Path] = field(default_factory=dict)
    read: Callable[[Path], np.ndarray] = read_mask  # reads a true mask; the predictions state their ids

    def mask(self, frame: str) -> Path:
        """The file of the true mask of a frame."""
        return self.masks.get(frame) or self.truth / f"{frame}.png"


@dataclass(frozen=True, eq=False)
class VideoScore:
    """J and F of every object of a video in every scored frame; a video of one or two frames may have none."""

    name: str  # of the video's folder
    ids: Sequence[int]
    frames: list[str]  # the names, without suffix, of the scored frames
    j: np.ndarray  # region similarity [objects, frames], float64; NaN where an object is not scored in a frame
    f: np.ndarray  # contour accuracy [objects, frames], float64; NaN where ``j`` is NaN

    @property
    def objects(self) -> list[ObjectFigures]:
        """The figures of the objects, in the order of ``ids``."""
        figures = []
        for object_id, j, f in zip(self.ids, self.j, self.f, strict=True):
            scored = ~np.isnan(j)
            count = int(scored.sum())
            figures.append(ObjectFigures(object_id, count, statistics(j[scored]), statistics(f[scored])))
        return figures

    @property
    def frame_means(self) -> dict[str, float]:
        """The mean of J and F over the objects that are scored in a frame, by the name of the frame."""
        return dict(zip(self.frames, map(nanmean, ((self.j + self.f) / 2).T), strict=True))

    @property
    def mean(self) -> float:
        """The mean J&F of the objects; NaN where no object is scored."""
        return nanmean(np.array([(figures.j.mean + figures.f.mean) / 2 for figures in self.objects]))


def score_videos(
    truth_root: Path | str,
    prediction_root: Path | str,
    videos: Iterable[str],
    *,
    merge_objects: bool = False,
    progress: bool = False,
) -> list[VideoScore]:
    """Score the predicted masks of videos by DAVIS's rules, see `davis_plans` and `score_plans`."""
    plans = davis_plans(Path(truth_root), videos, merge_objects)
    for plan in plans:
        _refuse_shifted(plan.truth, Path(prediction_root) / plan.truth.name)
    return score_plans(plans, Path(prediction_root), progress=progress)


def _refuse_shifted(truth: Path, prediction: Path) -> None:
    """Refuse predictions whose frames have other names, or lie before or after those of the ground truth.

    Such predictions lack the first true frame and have one more at the end, or the reverse. Single other files do not
    matter.
    """
    names = [{path.stem for path in folder.glob("*.png") if not is_junk(path.name)} for folder in (truth, prediction)]
    true, predicted = (sorted(stems, key=frame_order(stems)) for stems in names)
    order = frame_order(names[0] | names[1])
    extra = [order(name) for name in predicted if name not in names[0]]
    ends = [end in predicted for end in (true[0], true[-1])]
    is_shifted = (
        bool(extra)
        and (any(ends) or len(true) == len(predicted))
        and ((not ends[0] and min(extra) > order(true[-1])) or (not ends[1] and max(extra) < order(true[0])))
    )
    if len(true) > 2 and (is_shifted or len(extra) == len(predicted) > 0):
        raise InputError(
            f"{prediction} has the frames {predicted[0]} to {predicted[-1]}, but its ground truth has {true[0]} to "
            f"{true[-1]}; number the predictions as the ground truth is numbered"
        )


_LATER = "scripts/eval_folder.py --gt scores objects that enter later"


def davis_plans(truth_root: Path, videos: Iterable[str], merge_objects: bool = False) -> list[ScoringPlan]:
    """What DAVIS scores of videos: every object in every frame but the first and the last.

    The objects are 1 to the highest id of the first ground-truth mask (255 is void).

    Args:
        truth_root: the folder of ground truth, 8-bit id masks ``<video>/<frame>.png``.
        merge_objects: as in DAVIS 2016, every id except 0 (also 255) is object 1, in ground truth and predictions.
    """
    plans = [_davis_plan(truth_root / video, merge_objects) for video in videos]
    if plans and not any(plan.frames for plan in plans):
        raise InputError(
            f"{truth_root} has one or two masks of each video, and the first and the last are not scored, so nothing "
            "is left to score; scripts/eval_folder.py --gt scores the ground truth of few frames"
        )
    return plans


def _davis_plan(truth_folder: Path, merge_objects: bool) -> ScoringPlan:
    names = {path.stem for path in truth_folder.glob("*.png") if not is_junk(path.name)}
    frames = sorted(names, key=frame_order(names))
    if not frames:
        raise InputError(f"{truth_folder} holds no PNG masks; check the ground truth's folder and the video's name")
    first_path = truth_folder / f"{frames[0]}.png"
    first = read_mask(first_path)
    objects = int(first.any()) if merge_objects else int(first[first != VOID].max(initial=0))
    if not objects:
        remedy = f"DAVIS's first masks show all objects; {_LATER}"
        if first.any():
            remedy = f"{VOID} marks pixels of no object in DAVIS 2017, so for masks of 0 and {VOID} add --merge_objects"
        raise InputError(f"{first_path} shows no object; {remedy}")
    ids = range(1, objects + 1)
    return ScoringPlan(truth_folder, ids, {frame: ids for frame in frames[1:-1]}, merge_objects)


def score_plans(plans: Sequence[ScoringPlan], prediction_root: Path, *, progress: bool = False) -> list[VideoScore]:
    """Score what the plans name, ``<prediction_root>/<video>/<frame>.png`` each, on all cores.

    The files of all videos are checked before the first video is scored, so that a missing file is reported at once.

    Returns:
        the scores, in the order of the plans.
    """
    videos = [(plan, prediction_root / plan.truth.name) for plan in plans]
    for plan, folder in videos:
        for frame in plan.frames:
            if not (folder / f"{frame}.png").is_file():
                others = [path.name for path in folder.glob(f"{glob.escape(frame)}.*")]
                remedy = "predict every frame of the video, or list the videos to score (--video_list)"
                if others:
                    is_png = others[0].lower() == f"{frame}.png".lower()
                    remedy = f"rename {others[0]}" if is_png else f"save {others[0]} as a PNG of ids"
                elif any(folder.glob(f"*/{glob.escape(frame)}.png")):
                    remedy = f"{folder} has a folder for each object, so merge them with scripts/convert_mask.py"
                raise InputError(f"{folder / frame}.png is missing; {remedy}")
    tasks = [(plan, folder, frame) for plan, folder in videos for frame in plan.frames]
    scored = in_threads(lambda task: _score_frame(*task), tasks)
    figures = iter(list(tqdm(scored, total=len(tasks), desc="scoring", unit="frame", disable=hidden(progress))))
    scores = []
    for plan, _ in videos:
        j, f = table = np.full((2, len(plan.ids), len(plan.frames)), np.nan)
        for number, ids in enumerate(plan.frames.values()):
            table[:, [plan.ids.index(object_id) for object_id in ids], number] = next(figures)
        scores.append(VideoScore(plan.truth.name, plan.ids, list(plan.frames), j, f))
    return scores


def check_given_masks(videos: Sequence[Video]) -> None:
    """Check the given masks, before any video is segmented."""
    for video in videos:
        for number in video.masks:
            video.read_given_mask(number)


def check_plans(
    videos: Sequence[Video], plans: Sequence[ScoringPlan], *, progress: bool = False
) -> dict[str, set[int]]:
    """Check the true masks of the plans, before any video is segmented.

    Returns:
        the ids in the true masks, by the name of the video.
    """
    sizes = {video.name: video.size for video in videos}
    tasks = [(plan, frame) for plan in plans for frame in plan.frames]

    def check(task: tuple[ScoringPlan, str]) -> list[int]:
        plan, frame = task
        name = plan.truth.name
        return object_ids(read_sized_mask(plan.mask(frame), sizes[name], name, plan.read))

    shown: dict[str, set[int]] = {plan.truth.name: set() for plan in plans}
    checked = tqdm(in_threads(check, tasks), total=len(tasks), desc="checking", unit="mask", disable=hidden(progress))
    for (plan, _), ids in zip(tasks, checked, strict=True):
        shown[plan.truth.name].update(ids)
    return shown


def global_results(scores: Sequence[VideoScore]) -> dict[str, float]:
    """DAVIS's global figures: each is the mean over all objects of all videos.

    Objects of videos without scored frames do not count. Where no object counts, the figures are NaN.

    Returns:
        "J&F-Mean" (the mean of the two means), then "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay".
    """
    results = {"J&F-Mean": math.nan}
    for measure in ("j", "f"):
        objects = [getattr(figures, measure) for score in scores for figures in score.objects]
        for name in Statistics._fields:
            figures = np.array([getattr(figure, name) for figure in objects])
            results[f"{measure.upper()}-{name.capitalize()}"] = nanmean(figures)
    results["J&F-Mean"] = (results["J-Mean"] + results["F-Mean"]) / 2
    return results


def object_results(scores: Sequence[VideoScore]) -> dict[str, tuple[float, float]]:
    """J-Mean and F-Mean of every object by DAVIS's name, ``<video>_<id>``; NaN without scored frames."""
    return {
        f"{score.name}_{figures.id}": (figures.j.mean, figures.f.mean) for score in scores for figures in score.objects
    }


def format_results(scores: Sequence[VideoScore]) -> str:
    """The table of objects and the global figures, for a terminal; in percent, as papers write them."""
    objects = object_results(scores)
    width = max(map(len, [*objects, "Sequence"]))
    lines = [f"{'Sequence':{width}}  J-Mean  F-Mean"]
    lines += [f"{name:{width}}  {100 * j:6.1f}  {100 * f:6.1f}" for name, (j, f) in objects.items()]
    overall = global_results(scores)
    lines += ["", "  ".join(f"{name:>8}" for name in overall)]
    lines += ["  ".join(f"{100 * figure:8.1f}" for figure in overall.values())]
    return "\n".join(lines)


def write_results(scores: Sequence[VideoScore], output: Path | str) -> None:
    """Write global_results-val.csv and per-sequence_results-val.csv, in the layout of DAVIS's code.

    Figures have six decimals; DAVIS's code writes three. Each file is complete or absent. Existing files are replaced.
    """
    overall = global_results(scores)
    rows = [[name, *figures] for name, figures in object_results(scores).items()]
    write_csv(Path(output) / "global_results-val.csv", [list(overall), list(overall.values())])
    write_csv(Path(output) / "per-sequence_results-val.csv", [["Sequence", "J-Mean", "F-Mean"], *rows])


def read_results(output: Path) -> tuple[float, float, float]:
    """The means of J&F, J and F in percent, from a file of `write_results`."""
    with open(output / "global_results-val.csv", newline="") as file:
        (figures,) = csv.DictReader(file)
    return tuple(100 * float(figures[name]) for name in ("J&F-Mean", "J-Mean", "F-Mean"))


def _score_frame(plan: ScoringPlan, prediction_folder: Path, frame: str) -> np.ndarray:
    """J and F of every object that is scored in a frame, float64 [2, objects]."""
    prediction_path = prediction_folder / f"{frame}.png"
    truth, prediction = plan.read(plan.mask(frame)), read_mask(prediction_path)
    if prediction.shape != truth.shape:
        (height, width), (true_height, true_width) = prediction.shape, truth.shape
        raise InputError(
            f"{prediction_path} is {width}x{height}, its ground truth {true_width}x{true_height}; "
            "predict at the ground truth's size"
        )
    if plan.merge_objects:
        truth, prediction = np.uint8(truth != 0), np.uint8(prediction != 0)
    if prediction.max() > max(plan.ids):
        raise InputError(
            f"{prediction_path} holds id {prediction.max()}, but the video has {len(plan.ids)} object(s); "
            f"use the ids of the first ground-truth mask, or merge all objects with scripts/score.py --merge_objects; "
            f"{_LATER}"
        )
    masks = [(truth == object_id, prediction == object_id) for object_id in plan.frames[frame]]
    return np.array([[measure(*pair) for pair in masks] for measure in (region_similarity, contour_accuracy)])
