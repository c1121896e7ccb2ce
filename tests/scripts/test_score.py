import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT, assert_refused
from dataset.files.images import read_mask, write_mask

GOLDENS = ROOT / "tests" / "goldens" / "metrics"
TRUTH = GOLDENS / "davis" / "Annotations" / "480p"
PREDICTIONS = GOLDENS / "predictions"
CSV_FILES = ["global_results-val.csv", "per-sequence_results-val.csv"]


@pytest.fixture
def score(inline, tmp_path):
    """Run scripts/score.py; what is not given is the golden one."""

    def run(*flags: object, gt=TRUTH, pred=PREDICTIONS, output=tmp_path / "out"):
        return inline("scripts/score.py", "--gt", gt, "--pred", pred, "--output", output, *flags)

    return run


def test_prints_and_writes_both_tables(command, tmp_path):
    truth = shutil.copytree(TRUTH, tmp_path / "truth")
    (truth / "__MACOSX").mkdir()  # junk of an archive is no video
    result = command("scripts/score.py", "--gt", truth, "--pred", PREDICTIONS, "--output", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    expected = json.loads((GOLDENS / "expected.json").read_text())
    lines = [line.split() for line in result.stdout.splitlines()]
    for name, figures in expected["per_object"].items():
        assert [name, *(f"{100 * figure:.1f}" for figure in figures.values())] in lines
    assert lines[-2:] == [list(expected["global"]), [f"{100 * figure:.1f}" for figure in expected["global"].values()]]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == CSV_FILES


def test_a_list_of_videos_and_merged_objects(score, tmp_path):
    """A name may have a space."""
    (tmp_path / "val.txt").write_text("my swap\n\n")
    gt = shutil.copytree(TRUTH, tmp_path / "gt")
    (gt / "swap").rename(gt / "my swap")
    shutil.copytree(PREDICTIONS / "swap", tmp_path / "pred" / "my swap")  # drift is not predicted
    result = score("--video_list", tmp_path / "val.txt", "--merge_objects", gt=gt, pred=tmp_path / "pred")
    assert result.returncode == 0, result.stderr
    rows = (tmp_path / "out" / CSV_FILES[1]).read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["Sequence", "my swap_1"]


@pytest.mark.parametrize(
    ("place", "spoil", "message"),
    [
        ("gt", shutil.rmtree, "gt cannot be read"),
        ("pred/drift", shutil.rmtree, "is missing; predict every frame of the video, or list the"),
        ("pred/swap/00007.png", Path.unlink, "is missing; predict every frame of the video"),
        ("pred/swap/00003.png", lambda path: path.rename(path.with_suffix(".jpg")), "save 00003.jpg as a PNG"),
        ("val.txt", lambda path: path.write_text("\n"), "names no video"),
        ("val.txt", lambda path: path.write_text("swap\ndrift\nswap\n"), "lists swap twice"),
        ("out", Path.touch, "cannot be written"),
    ],
)
def test_bad_input_ends_with_one_sentence_and_no_output(score, tmp_path, place, spoil, message):
    gt, pred, videos = (tmp_path / name for name in ("gt", "pred", "val.txt"))
    shutil.copytree(TRUTH, gt)
    shutil.copytree(PREDICTIONS, pred)
    spoil(tmp_path / place)
    flags = ("--video_list", videos) if videos.exists() else ()
    assert_refused(score(*flags, gt=gt, pred=pred), tmp_path / place, message)
    assert not list(tmp_path.rglob("*.csv"))


@pytest.mark.parametrize(
    ("gt", "pred", "named"),
    [
        ("gt", "out", "--pred {}/out/masks"),  # of eval_folder.py
        ("gt", "out/masks/swap", "--pred {}/out/masks"),
        ("gt/swap", "out/masks", "--gt {}/gt"),
        ("davis", "out/masks", "--gt {}/davis/Annotations/480p"),
        ("davis/Annotations", "out/masks", "--gt {}/davis/Annotations/480p"),
        ("davis/Annotations", "davis/Annotations", "--gt {}/davis/Annotations/480p"),
    ],
)
@pytest.mark.parametrize("listed", [True, False])
def test_a_folder_too_deep_or_too_shallow_names_the_right_one(score, tmp_path, gt, pred, named, listed):
    shutil.copytree(TRUTH, tmp_path / "gt")
    shutil.copytree(TRUTH, tmp_path / "davis/Annotations/480p")
    shutil.copytree(PREDICTIONS, tmp_path / "out/masks")
    (tmp_path / "val.txt").write_text("swap\n")
    flags = ("--video_list", tmp_path / "val.txt") if listed else ()
    result = score(*flags, gt=tmp_path / gt, pred=tmp_path / pred, output=tmp_path / "figures")
    assert_refused(result, named.format(tmp_path))


def test_truth_with_a_folder_for_each_object_names_what_merges_it(score, tmp_path):
    for number in ("000", "001"):
        shutil.copytree(TRUTH / "swap", tmp_path / "gt/swap" / number)
    assert_refused(score(gt=tmp_path / "gt"), tmp_path / "gt/swap", "each object", "convert_mask.py")


@pytest.mark.parametrize(
    ("made", "mentioned"),
    [
        (lambda pred: (pred / "00003.png").rename(pred / "00003.PNG"), "rename 00003.PNG"),
        (lambda pred: shutil.copytree(pred, pred / "1") and (pred / "00003.png").unlink(), "for each object, so merge"),
        (lambda pred: [path.rename(pred / f"f_{path.name}") for path in pred.iterdir()][3:], "has the frames f_00000"),
        (lambda pred: shutil.rmtree(pred.parent) or pred.parent.write_bytes(b"PK"), "pred is a file"),
        (lambda pred: (pred.parents[1] / "val.txt").write_text("swap\n", "utf-16"), "save the text in this encoding"),
    ],
)
def test_predictions_in_another_form_name_the_remedy(score, tmp_path, made, mentioned):
    shutil.copytree(PREDICTIONS / "swap", tmp_path / "pred/swap")
    (tmp_path / "val.txt").write_text("swap\n")
    made(tmp_path / "pred/swap")
    result = score("--video_list", tmp_path / "val.txt", pred=tmp_path / "pred")
    assert_refused(result, mentioned)


@pytest.mark.parametrize("kept", [1, 2])
def test_truth_of_the_first_and_the_last_frame_is_nothing_to_score(score, tmp_path, kept):
    for video in ("swap", "drift"):
        frames = sorted((TRUTH / video).glob("*.png"))
        (tmp_path / "gt" / video).mkdir(parents=True)
        for path in (frames[0], frames[-1])[:kept]:
            shutil.copy(path, tmp_path / "gt" / video)
    assert_refused(score(gt=tmp_path / "gt"), "nothing", "eval_folder.py --gt")
    assert not (tmp_path / "out").exists()
    shutil.rmtree(tmp_path / "gt/swap")
    shutil.copytree(TRUTH / "swap", tmp_path / "gt/swap")
    result = score(gt=tmp_path / "gt")
    assert result.returncode == 0 and "note: no frame of drift is scored" in result.stdout


@pytest.mark.parametrize(("shift", "more"), [(1, 0), (-1, 0), (100, 0), (100, -1), (1, 2)])
def test_frames_numbered_from_another_number_are_refused(score, tmp_path, shift, more):
    """The predictions have ``more`` frames than the ground truth."""
    frames = sorted((TRUTH / "swap").glob("*.png"))
    for kind, step in (("gt", 5), ("pred", 5 + shift)):
        for number, path in enumerate((frames + frames)[: len(frames) + (more if kind == "pred" else 0)]):
            target = tmp_path / kind / "swap" / f"{number + step:05d}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    result = score(gt=tmp_path / "gt", pred=tmp_path / "pred")
    assert_refused(result, f"has the frames {5 + shift:05d} to", "number the predictions")


def test_truth_of_0_and_255_names_the_flag(score, tmp_path):
    for kind in ("gt", "pred"):
        for path in sorted((TRUTH / "swap").glob("*.png")):
            write_mask(tmp_path / kind / "swap" / path.name, np.where(read_mask(path) > 0, 255, 0).astype(np.uint8))
    roots = {"gt": tmp_path / "gt", "pred": tmp_path / "pred"}
    assert_refused(score(**roots), "shows no object", "--merge_objects")
    result = score("--merge_objects", **roots)
    assert result.returncode == 0 and "100.0" in result.stdout
