"""J and F as the DAVIS 2017 semi-supervised evaluation defines them, and its files of results.

J, region similarity, is the intersection over union of two masks. F, contour accuracy, is the F-measure of the masks'
boundaries, matched within a tolerance. Both, and their mean, recall and decay, are defined in Perazzi et al., "A
Benchmark Dataset and Evaluation Methodology for Video Object Segmentation" (CVPR 2016); the several-object protocol in
Pont-Tuset et al., "The 2017 DAVIS Challenge on Video Object Segmentation" (arXiv:1704.00675).

All figures lie in 0..1 (decay in -1..1).
"""

import csv
import functools
import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from dataset.davis import VOID
from dataset.images import read_mask
from dataset.video import Video, frame_order, read_sized_mask
from util.errors import InputError
from util.files import write_csv

CONTOUR_TOLERANCE = 0.008  # of the image diagonal


class Statistics(NamedTuple):
    """The three figures that DAVIS reports for J or F of an object."""

    mean: float
    recall: float  # the share of frames above 0.5
    decay: float  # the mean of the first quarter of the frames minus the mean of the last quarter


@dataclass(frozen=True, eq=False)
class VideoScore:
    """J and F of every object of a video in every scored frame.

    Attributes:
        name: the video's folder name.
        frames: names, without suffix, of the scored frames; the first and the last frame of a video are not scored.
        j: region similarity [objects, frames], float64; row i belongs to object id i + 1.
        f: contour accuracy [objects, frames], float64.
    """

    name: str
    frames: list[str]
    j: np.ndarray
    f: np.ndarray


def region_similarity(truth: np.ndarray, prediction: np.ndarray) -> float | np.ndarray:
    """Region similarity J, the intersection over union; 1 where both masks are empty.

    Args:
        truth, prediction: boolean masks [H,W] or [N,H,W].

    Returns:
        A float for [H,W], float64 [N] for [N,H,W], in 0..1.

    Raises:
        ValueError: the arrays are not boolean masks of one shape.
    """
    return _per_mask(_region_similarity, truth, prediction)


def contour_accuracy(
    truth: np.ndarray, prediction: np.ndarray, tolerance: float = CONTOUR_TOLERANCE
) -> float | np.ndarray:
    """Contour accuracy F, the F-measure 2PR/(P+R) of the boundaries.

    A pixel lies on a mask's boundary if it differs from its right, lower or lower-right neighbour. Precision P is the
    share of predicted boundary pixels within ceil(tolerance · diagonal) pixels of a true boundary pixel. Recall R is
    the share of true boundary pixels within this distance of a predicted boundary pixel. The share is 1 where a mask
    has no boundary pixel, so two masks without boundary score 1.

    Args:
        truth, prediction: boolean masks [H,W] or [N,H,W].
        tolerance: largest distance of matching pixels, as a share of the image diagonal.

    Returns:
        A float for [H,W], float64 [N] for [N,H,W], in 0..1.

    Raises:
        ValueError: the arrays are not boolean masks of one shape.
    """
    radius = _radius(truth.shape, tolerance)
    return _per_mask(functools.partial(_contour_accuracy, radius=radius), truth, prediction)


def statistics(values: np.ndarray) -> Statistics:
    """Mean, recall and decay of J or F of one object.

    NaN values do not count in mean and decay. In recall they count as frames that are not above 0.5. A single frame has
    decay 0. Without frames (in a video of one or two frames) all three figures are NaN.

    Args:
        values: J or F in every scored frame [frames].
    """
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0:
        return Statistics(math.nan, math.nan, math.nan)
    # Neighbouring quarters share a frame. DAVIS's code stores these indices in 8 bits, which overflow in videos of more
    # than 256 scored frames; here they do not overflow.
    ids = np.round(np.linspace(1, values.size, 5) + 1e-10).astype(int) - 1
    first, last = values[ids[0] : ids[1] + 1], values[ids[3] : ids[4] + 1]
    return Statistics(_nanmean(values), float(np.mean(values > 0.5)), _nanmean(first) - _nanmean(last))


def score_video(truth_folder: Path | str, prediction_folder: Path | str, merge_objects: bool = False) -> VideoScore:
    """Score the predicted masks of one video, <prediction_folder>/<frame>.png against <truth_folder>/<frame>.png.

    The objects are 1 to the highest id of the first ground-truth mask (255 is void). Videos of one or two frames have
    no scored frame: their j and f are [objects, 0]. Frames that are not scored need no prediction.

    Args:
        truth_folder, prediction_folder: folders of 8-bit id masks; the last part of truth_folder names the video.
        merge_objects: as in DAVIS 2016, every id except 0 (also 255) is object 1, in ground truth and predictions.

    Raises:
        InputError: a mask is missing, cannot be read, differs in size from the ground truth or holds an id that the
            first ground-truth mask does not allow; or the first ground-truth mask holds no object.
    """
    truth_folder = Path(truth_folder)
    return _score([(truth_folder, Path(prediction_folder))], merge_objects, progress=False)[0]


def score_videos(
    truth_root: Path | str,
    prediction_root: Path | str,
    videos: Iterable[str],
    *,
    merge_objects: bool = False,
    progress: bool = False,
) -> list[VideoScore]:
    """Score several videos, <root>/<video>/<frame>.png each, on all cores; see `score_video`.

    The files of all videos are checked before the first video is scored, so that a missing file is reported at once.

    Args:
        truth_root, prediction_root: folders with a subfolder for each video.
        videos: names of the videos, in the order of the result.
        merge_objects: as in `score_video`.
        progress: show a progress bar on stderr.

    Raises:
        InputError: as in `score_video`.
    """
    folders = [(Path(truth_root) / video, Path(prediction_root) / video) for video in videos]
    return _score(folders, merge_objects, progress)


def check_scorable(videos: Sequence[Video], truth_root: Path | None, *, progress: bool = False) -> None:
    """Check, before any video is segmented, the given masks and everything that `score_videos` will ask of the truth.

    Args:
        videos: the videos that will be segmented.
        truth_root: the folder of ground truth, ``<video>/<frame>.png``; None where there is none.
        progress: show a progress bar on stderr.

    Raises:
        InputError: a given mask cannot be used; or a mask of the ground truth is missing, cannot be read or has another
            size than the frames; or the first mask of a video shows no object.
    """
    for video in videos:
        for number in video.masks:
            video.read_given_mask(number)
    if truth_root is None:
        return
    tasks = [
        (truth_root / video.name / frame, video.size, video.name)
        for video in videos
        for frame in _list_truth(truth_root / video.name, video.merge_objects)[1]
    ]
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        hidden = None if progress else True  # None shows the bar only in terminals
        checked = pool.map(lambda task: read_sized_mask(*task), tasks)
        for _ in tqdm(checked, total=len(tasks), desc="checking", unit="mask", disable=hidden):
            pass


def global_results(scores: Sequence[VideoScore]) -> dict[str, float]:
    """DAVIS's global figures: each is the mean over all objects of all videos.

    Objects of videos without scored frames do not count. Where no object counts, the figures are NaN.

    Returns:
        "J&F-Mean" (the mean of the two means), then "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay".
    """
    results = {"J&F-Mean": math.nan}
    for measure in ("j", "f"):
        objects = [statistics(values) for score in scores for values in getattr(score, measure)]
        for name in Statistics._fields:
            figures = np.array([getattr(figure, name) for figure in objects])
            results[f"{measure.upper()}-{name.capitalize()}"] = _nanmean(figures)
    results["J&F-Mean"] = (results["J-Mean"] + results["F-Mean"]) / 2
    return results


def object_results(scores: Sequence[VideoScore]) -> dict[str, tuple[float, float]]:
    """J-Mean and F-Mean of every object by DAVIS's name, ``<video>_<id>``; NaN without scored frames."""
    return {
        f"{score.name}_{object_id}": (statistics(j).mean, statistics(f).mean)
        for score in scores
        for object_id, (j, f) in enumerate(zip(score.j, score.f, strict=True), 1)
    }


def format_results(scores: Sequence[VideoScore]) -> str:
    """The table of objects and the global figures, for a terminal."""
    objects = object_results(scores)
    width = max(map(len, [*objects, "Sequence"]))
    lines = [f"{'Sequence':{width}}  J-Mean  F-Mean"]
    lines += [f"{name:{width}}  {j:6.4f}  {f:6.4f}" for name, (j, f) in objects.items()]
    overall = global_results(scores)
    lines += ["", "  ".join(f"{name:>8}" for name in overall)]
    lines += ["  ".join(f"{figure:8.4f}" for figure in overall.values())]
    return "\n".join(lines)


def write_results(scores: Sequence[VideoScore], output_folder: Path | str, split: str = "val") -> None:
    """Write global_results-<split>.csv and per-sequence_results-<split>.csv, in the layout of DAVIS's code.

    Figures have six decimals; DAVIS's code writes three. Each file is complete or absent. Existing files are replaced.

    Raises:
        InputError: the folder cannot be written to.
    """
    overall = global_results(scores)
    rows = [[name, *figures] for name, figures in object_results(scores).items()]
    write_csv(Path(output_folder) / f"global_results-{split}.csv", [list(overall), list(overall.values())])
    write_csv(Path(output_folder) / f"per-sequence_results-{split}.csv", [["Sequence", "J-Mean", "F-Mean"], *rows])


def read_results(output_folder: Path | str, split: str = "val") -> tuple[float, float, float]:
    """The means of J&F, J and F in percent, from the global results that `write_results` wrote."""
    with open(Path(output_folder) / f"global_results-{split}.csv", newline="") as file:
        (figures,) = csv.DictReader(file)
    return tuple(100 * float(figures[name]) for name in ("J&F-Mean", "J-Mean", "F-Mean"))


def _score(folders: list[tuple[Path, Path]], merge_objects: bool, progress: bool) -> list[VideoScore]:
    videos = [(*_list_frames(*pair, merge_objects), *pair) for pair in folders]
    tasks = [(truth / frame, prediction / frame, n) for n, frames, truth, prediction in videos for frame in frames]
    # Threads are faster than processes here: the import of torch takes a process about as long as all of DAVIS's val
    # takes to score. Decoding and array operations release the interpreter lock. More than eight threads wait for it.
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        scored = pool.map(lambda task: _score_frame(*task, merge_objects), tasks)
        hidden = None if progress else True  # None shows the bar only in terminals
        scored = iter(list(tqdm(scored, total=len(tasks), desc="scoring", unit="frame", disable=hidden)))
    scores = []
    for objects, frames, truth, _ in videos:
        j, f = np.array([next(scored) for _ in frames]).reshape(-1, 2, objects).transpose(1, 2, 0)
        scores.append(VideoScore(truth.name, [Path(frame).stem for frame in frames], j, f))
    return scores


def _list_frames(truth_folder: Path, prediction_folder: Path, merge_objects: bool) -> tuple[int, list[str]]:
    """The number of objects and the file names of the frames to score, all of which are predicted."""
    objects, frames = _list_truth(truth_folder, merge_objects)
    if not prediction_folder.is_dir():
        raise InputError(f"{prediction_folder} is missing; predict this video, or leave it out of those to score")
    for frame in frames:
        if not (prediction_folder / frame).is_file():
            raise InputError(f"{prediction_folder / frame} is missing; predict every frame of the video")
    return objects, frames


def _list_truth(truth_folder: Path, merge_objects: bool) -> tuple[int, list[str]]:
    """The number of objects and the file names of the frames to score."""
    names = (path.name for path in truth_folder.glob("*.png") if not path.name.startswith("."))
    frames = sorted(names, key=frame_order)
    if not frames:
        raise InputError(f"{truth_folder} holds no PNG masks; check the ground truth's folder and the video's name")
    first = read_mask(truth_folder / frames[0])
    objects = int(first.any()) if merge_objects else int(first[first != VOID].max(initial=0))
    if not objects:
        raise InputError(f"{truth_folder / frames[0]} shows no object; a video's first mask must show all to be scored")
    return objects, frames[1:-1]


def _score_frame(truth_path: Path, prediction_path: Path, objects: int, merge_objects: bool) -> np.ndarray:
    """J and F of every object in one frame, float64 [2, objects]."""
    truth, prediction = read_mask(truth_path), read_mask(prediction_path)
    if prediction.shape != truth.shape:
        (height, width), (true_height, true_width) = prediction.shape, truth.shape
        raise InputError(
            f"{prediction_path} is {width}x{height}, its ground truth {true_width}x{true_height}; "
            "predict at the ground truth's size"
        )
    if merge_objects:
        truth, prediction = (truth != 0).view(np.uint8), (prediction != 0).view(np.uint8)
    if prediction.max() > objects:
        raise InputError(
            f"{prediction_path} holds id {prediction.max()}, but the video has {objects} object(s); "
            "use the ids of the first ground-truth mask, or merge the objects for DAVIS 2016"
        )
    radius = _radius(truth.shape, CONTOUR_TOLERANCE)
    box = _box(truth | prediction)
    truth, prediction = truth[box], prediction[box]
    masks = [((truth == i).view(np.uint8), (prediction == i).view(np.uint8)) for i in range(1, objects + 1)]
    return np.array(
        [[_region_similarity(*pair) for pair in masks], [_contour_accuracy(*pair, radius) for pair in masks]]
    )


def _per_mask(
    measure: Callable[[np.ndarray, np.ndarray], float], truth: np.ndarray, prediction: np.ndarray
) -> float | np.ndarray:
    if truth.dtype != bool or prediction.dtype != bool or truth.shape != prediction.shape or truth.ndim not in (2, 3):
        raise ValueError(
            "masks are two boolean arrays of one shape, [H,W] or [N,H,W], "
            f"not {truth.dtype} {truth.shape} and {prediction.dtype} {prediction.shape}"
        )
    truth, prediction = truth.view(np.uint8), prediction.view(np.uint8)
    if truth.ndim == 2:
        return measure(truth, prediction)
    return np.array([measure(*pair) for pair in zip(truth, prediction, strict=True)], dtype=np.float64)


# The functions below take masks as OpenCV does: uint8 [H,W] of 0 and 1.


def _region_similarity(truth: np.ndarray, prediction: np.ndarray) -> float:
    union = cv2.countNonZero(truth | prediction)
    return cv2.countNonZero(truth & prediction) / union if union else 1.0


def _contour_accuracy(truth: np.ndarray, prediction: np.ndarray, radius: int) -> float:
    # One map holds both masks, the truth in bit 0 and the prediction in bit 1, so that every operation serves both.
    masks = truth | prediction << 1
    boundaries = _boundaries(masks[_box(masks)])
    near = _dilate(boundaries, radius)
    true, predicted = boundaries & 1, boundaries >> 1
    precision = _share(predicted & near, predicted)
    recall = _share(true & near >> 1, true)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _box(mask: np.ndarray) -> tuple[slice, slice]:
    """The box around a mask with a margin of one pixel, because the boundary lies partly outside the mask."""
    x, y, width, height = cv2.boundingRect(mask)
    return slice(max(y - 1, 0), y + height + 1), slice(max(x - 1, 0), x + width + 1)


def _boundaries(masks: np.ndarray) -> np.ndarray:
    boundaries = np.zeros_like(masks)
    boundaries[:, :-1] = masks[:, :-1] ^ masks[:, 1:]
    boundaries[:-1] |= masks[:-1] ^ masks[1:]
    boundaries[:-1, :-1] |= masks[:-1, :-1] ^ masks[1:, 1:]
    return boundaries


def _dilate(bits: np.ndarray, radius: int) -> np.ndarray:
    """Dilate every bit of a uint8 map [H,W] with the disk dx² + dy² <= radius².

    The disk consists of one horizontal run in each row. The map is widened step by step to the length of each run,
    moved to the row of the run, and added to the result. This takes O(radius) passes over the map; a plain dilation
    takes O(radius²).
    """
    height, width = bits.shape
    # With a margin on the right all rows are widened as one line: pixels that leave a row end in a margin.
    rows = cv2.copyMakeBorder(bits, radius, radius, 0, radius, cv2.BORDER_CONSTANT)
    line = rows.reshape(-1)
    dilated = np.zeros_like(rows[:height])
    reach = 0
    for dy in sorted(range(-radius, radius + 1), key=abs, reverse=True):  # the shortest runs first
        while reach < math.isqrt(radius**2 - dy**2):
            line[1:] |= line[:-1]
            line[:-1] |= line[1:]
            reach += 1
        dilated |= rows[radius + dy : radius + dy + height]
    return dilated[:, :width]


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    count = cv2.countNonZero(whole)
    return cv2.countNonZero(part) / count if count else 1.0


def _radius(shape: tuple[int, ...], tolerance: float) -> int:
    return math.ceil(tolerance * np.linalg.norm(shape[-2:]))


def _nanmean(values: np.ndarray) -> float:
    """`numpy.nanmean` without its warning where there is no value."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else math.nan
