import json
import math
import re
import shutil
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import ROOT, read_table
from dataset.files.images import write_mask
from util.errors import InputError
from util.evaluation.metrics import contour_accuracy, region_similarity, statistics
from util.evaluation.scoring import VideoScore, global_results, object_results, score_videos, write_results

GOLDENS = ROOT / "tests" / "goldens" / "metrics"
TRUTH = GOLDENS / "davis" / "Annotations" / "480p"
PREDICTIONS = GOLDENS / "predictions"
SHAPES = [(1, 1), (1, 7), (7, 1), (2, 2), (2, 3), (16, 16), (31, 47), (64, 33), (121, 213)]


def plain_j(truth, prediction):
    union = (truth | prediction).sum()
    return (truth & prediction).sum() / union if union else 1.0


def plain_boundary(mask):
    boundary = np.zeros_like(mask)
    height, width = mask.shape
    for dy, dx in ((0, 1), (1, 0), (1, 1)):
        boundary[: height - dy, : width - dx] |= mask[: height - dy, : width - dx] ^ mask[dy:, dx:]
    return boundary


def plain_f(truth, prediction, tolerance=0.008):
    radius = math.ceil(tolerance * math.hypot(*truth.shape))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x**2 + y**2 <= radius**2).astype(np.uint8)
    gt, fg = plain_boundary(truth), plain_boundary(prediction)
    near_gt, near_fg = (cv2.dilate(boundary.astype(np.uint8), disk) > 0 for boundary in (gt, fg))
    n_gt, n_fg = gt.sum(), fg.sum()
    if n_fg == 0 and n_gt > 0:
        precision, recall = 1, 0
    elif n_fg > 0 and n_gt == 0:
        precision, recall = 0, 1
    elif n_fg == 0 and n_gt == 0:
        precision, recall = 1, 1
    else:
        precision, recall = (fg & near_gt).sum() / n_fg, (gt & near_fg).sum() / n_gt
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def random_masks(rng, shape):
    """Masks of many kinds: blobs (often over the border), noise, single pixels, empty and full ones."""
    height, width = shape
    blob = np.zeros(shape, np.uint8)
    centre = int(rng.integers(width)), int(rng.integers(height))
    axes = int(rng.integers(1, width // 2 + 2)), int(rng.integers(1, height // 2 + 2))
    cv2.ellipse(blob, centre, axes, int(rng.integers(180)), 0, 360, 1, -1)
    moved = cv2.warpAffine(
        blob, np.float32([[1, 0, rng.integers(-3, 4)], [0, 1, rng.integers(-3, 4)]]), (width, height)
    )
    pixel = np.zeros(shape, np.uint8)
    pixel[rng.integers(height), rng.integers(width)] = 1
    corner = np.zeros(shape, np.uint8)
    corner[-1, -1] = 1
    noise = rng.random(shape) < rng.random()
    masks = [blob, moved, pixel, corner, noise, np.zeros(shape), np.ones(shape)]
    return [mask.astype(bool) for mask in masks]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_plain_definition(shape):
    rng = np.random.default_rng(0)
    for _ in range(5):
        masks = random_masks(rng, shape)
        for truth in masks:
            for prediction in masks:
                assert region_similarity(truth, prediction) == plain_j(truth, prediction)
                for tolerance in (0.008, 0.0, 0.06):
                    assert contour_accuracy(truth, prediction, tolerance) == plain_f(truth, prediction, tolerance)


def test_stacks_of_masks():
    rng = np.random.default_rng(1)
    truth, prediction = (np.stack(random_masks(rng, (20, 30))) for _ in range(2))
    values = region_similarity(truth, prediction)
    assert values.tolist() == [region_similarity(*pair) for pair in zip(truth, prediction, strict=True)]


def test_statistics():
    mean, recall, decay = statistics([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    assert (mean, recall) == (pytest.approx(0.55), 0.5)
    # The quarters of 8 frames begin at frames 1, 2.75, 4.5 and 6.25, rounded, and include their last frame.
    assert decay == pytest.approx(np.mean([0.9, 0.8, 0.7]) - np.mean([0.4, 0.3, 0.2]))
    # Halves are rounded up: those of 3 frames begin at 1, 2, 2 and 3.
    assert statistics([0.9, 0.5, 0.1]).decay == pytest.approx(np.mean([0.9, 0.5]) - 0.1)


def test_decay_of_long_videos():
    """The quarters of 1000 frames are quarters of the video, though its indices exceed 8 bits."""
    assert statistics(np.repeat([0.9, 0.7, 0.5, 0.3], 250)).decay == pytest.approx(0.6, abs=0.005)


def test_statistics_of_few_frames():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert statistics([0.7]) == (0.7, 1.0, 0.0)
        assert statistics([0.5, 0.75]) == (0.625, 0.5, -0.25)
        assert np.isnan(statistics([])).all()
        assert statistics([math.nan, 1.0]).mean == 1.0


def test_goldens(tmp_path):
    expected = json.loads((GOLDENS / "expected.json").read_text())
    scores = score_videos(TRUTH, PREDICTIONS, ["drift", "swap"])
    assert global_results(scores) == pytest.approx(expected["global"], abs=1e-6)
    assert [score.j.shape for score in scores] == [score.f.shape for score in scores] == [(2, 12), (3, 12)]
    assert scores[0].frames == [f"{frame:05d}" for frame in range(1, 13)]

    write_results(scores, tmp_path / "new" / "folder")
    (row,) = read_table(tmp_path / "new" / "folder" / "global_results-val.csv")
    assert list(row) == list(expected["global"])
    assert {name: float(figure) for name, figure in row.items()} == pytest.approx(expected["global"], abs=1e-6)
    table = read_table(tmp_path / "new" / "folder" / "per-sequence_results-val.csv")
    rows = {row.pop("Sequence"): row for row in table}
    assert list(rows) == list(expected["per_object"])
    for name, row in rows.items():
        assert {key: float(figure) for key, figure in row.items()} == pytest.approx(
            expected["per_object"][name], abs=1e-6
        )


def score_video(truth: Path, prediction: Path, merge_objects: bool = False) -> VideoScore:
    return score_videos(truth.parent, prediction.parent, [truth.name], merge_objects=merge_objects)[0]


def make_video(folder, ids, size=(24, 32)):
    """A video whose frame t shows every id of ids[t] as a square of its own."""
    for frame, shown in enumerate(ids):
        mask = np.zeros(size, np.uint8)
        for i, object_id in enumerate(shown):
            mask[4 : 4 + 10, 10 * i : 10 * i + 8] = object_id
        write_mask(folder / f"{frame:05d}.png", mask)
    return folder


def test_objects_are_those_of_the_first_mask(tmp_path):
    """Ids run from 1 to the highest, also where some are not shown; void, and what appears later, is no object."""
    truth = make_video(tmp_path / "gt" / "v", [[3, 255, 1], [3, 255, 9], [3]])
    prediction = make_video(tmp_path / "pred" / "v", [[3, 0, 1], [3, 0, 0], [3]])
    score = score_video(truth, prediction)
    assert score.j.tolist() == score.f.tolist() == [[1.0], [1.0], [1.0]]
    assert list(object_results([score])) == ["v_1", "v_2", "v_3"]


@pytest.mark.parametrize("length", [1, 2])
def test_videos_too_short_to_score(tmp_path, length):
    roots = tmp_path / "gt", tmp_path / "pred"
    for root in roots:
        make_video(root / "short", [[1, 2]] * length)
        make_video(root / "long", [[1, 2]] * 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        short, long = score_videos(*roots, ["short", "long"])
        assert (short.frames, short.j.shape, short.f.shape) == ([], (2, 0), (2, 0))
        assert np.isnan(object_results([short])["short_1"]).all()
        assert global_results([short, long])["J&F-Mean"] == 1.0
        assert np.isnan(list(global_results([short]).values())).all()
        write_results([short], tmp_path)
    assert (tmp_path / "per-sequence_results-val.csv").read_text().splitlines()[1] == "short_1,nan,nan"


@pytest.mark.parametrize(
    ("place", "spoil", "message"),
    [
        ("gt/v", shutil.rmtree, "holds no PNG masks; check"),
        ("gt/v/00000.png", lambda path: write_mask(path, np.zeros((24, 32), np.uint8)), "shows no object; "),
        (
            *("pred/v/00002.png", lambda path: write_mask(path, np.zeros((32, 24), np.uint8))),
            "is 24x32, its ground truth 32x24; predict at",
        ),
        (
            *("pred/v/00002.png", lambda path: write_mask(path, np.full((24, 32), 3, np.uint8))),
            "holds id 3, but the video has 2 object(s); use",
        ),
        ("pred/v/00002.png", lambda path: path.write_bytes(path.read_bytes()[:60]), "cannot be decoded"),
    ],
)
def test_what_cannot_be_scored_is_refused(tmp_path, place, spoil, message):
    gt, pred = (make_video(tmp_path / root / "v", [[1, 2]] * 4) for root in ("gt", "pred"))
    score_video(gt, pred)
    spoil(tmp_path / place)
    with pytest.raises(InputError, match=re.escape(f"{place} {message}")):
        score_video(gt, pred)


def test_predictions_of_unscored_frames_and_other_files_do_not_matter(tmp_path):
    gt, pred = (make_video(tmp_path / root / "v", [[1, 2]] * 4) for root in ("gt", "pred"))
    (pred / "00000.png").unlink()
    (pred / "00003.png").unlink()
    (pred / "00009.png").touch()
    (gt / ".00002.1.tmp.png").touch()
    assert score_video(gt, pred).frames == ["00001", "00002"]
