"""scripts/benchmark.py clicks: how the annotation page is measured, on synthetic objects."""

import numpy as np
import torch
from PIL import Image

from annotation import cuts
from annotation.evidence import Picture
from annotation.marks import Marks
from conftest import assert_refused, draw_clip, read_table
from util.evaluation.segmentation import engine_network


def test_clicks_are_measured(inline, tmp_path):
    frames, ids = draw_clip(1, 96, 160, 2)
    for number in (1, 2):
        Image.fromarray(frames[0]).save(tmp_path / f"disc{number}.jpg", quality=95)
        Image.fromarray(np.uint8(255 * (ids[0] == number))).save(tmp_path / f"disc{number}.png")
    output = tmp_path / "clicks.csv"
    arguments = ("--pairs", tmp_path, "--device", "cpu", "--output", output)
    inline("scripts/benchmark.py", "clicks", *arguments).checked()
    (row,) = read_table(output)
    assert row["objects"] == "2" and row["failed"] == "0"
    assert 1 <= float(row["mean"]) <= 10
    assert float(row["IoU of a box"]) > 0.8 and float(row["and two clicks"]) > 0.8

    (tmp_path / "empty").mkdir()
    result = inline("scripts/benchmark.py", "clicks", "--pairs", tmp_path / "empty", "--output", output)
    assert_refused(result, tmp_path / "empty", "holds no pairs")


def test_an_object_stays_in_its_box_and_clicks_are_obeyed():
    """Until a click inside of the object is outside of its box."""
    frames, ids = draw_clip(1, 96, 160, 2)
    (row, column), (rows, columns) = ((np.int64(edge) for edge in np.nonzero(ids[0] == i)) for i in (1, 2))
    marks = Marks(Picture(frames[0], engine_network(None, torch.device("cpu"), amp=False), 96))
    left, upper, right, lower = box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert marks.draw_box(1, box)
    x, y = round(columns.mean()), round(rows.mean())
    for click in ((x, y, True), (left + 1, upper + 1, False), (x, upper + 2, True), (right - 2, y, True)):
        marks.click(1, *click[:2], is_inside=click[2])
        assert marks.ids[click[1], click[0]] == click[2]
        outside = marks.ids > 0
        outside[max(0, upper - 3) : lower + 3, max(0, left - 3) : right + 3] = False
        assert not outside.any()
    other = round(column.mean()), round(row.mean())
    marks.click(1, *other, is_inside=True)
    assert marks.ids[other[::-1]] == 1 and marks.ids[y, x] == 1


def test_a_click_in_a_box_changes_only_what_it_touches():
    """Half of the object is missing, and a piece elsewhere is wrong."""
    frames, ids = draw_clip(1, 96, 160, 2)
    truth = ids[0] == 1
    rows, columns = np.nonzero(truth)
    y, x = round(rows.mean()), round(columns.mean())
    missing, wrong, beyond = truth.copy(), np.zeros_like(truth), np.ones_like(truth)
    missing[:, :x] = False
    wrong[2:10, 4:16] = True
    beyond[: rows.max() + 4, : columns.max() + 4] = False
    mask = (truth & ~missing) | wrong
    picture = Picture(frames[0], engine_network(None, torch.device("cpu"), amp=False), 96)

    def click(row: int, column: int, bit: int) -> np.ndarray:
        marks = np.uint8(cuts.MASK * mask + cuts.BEYOND * beyond)
        marks[row - 1 : row + 2, column - 1 : column + 2] |= bit
        return cuts.from_strokes(picture, marks) > 0

    result = click(y, x + 8, cuts.INSIDE)
    assert result[mask].all() and result[missing].mean() > 0.8 and (result & ~truth & ~wrong).sum() < 0.2 * truth.sum()
    assert np.array_equal(click(6, 10, cuts.OUTSIDE), mask & ~wrong)
    result = click(y, x - 6, cuts.OUTSIDE)  # in the object, which stays for the most part
    assert not result[y - 1 : y + 2, x - 7 : x - 4].any() and not (result & ~mask).any()
    assert result[truth & mask].mean() > 0.5
