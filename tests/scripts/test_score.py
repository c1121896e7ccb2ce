import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from conftest import ROOT, assert_refused
from dataset.files.images import read_mask, write_mask

GOLDENS = ROOT / "tests" / "goldens" / "metrics"
TRUTH = GOLDENS / "davis" / "Annotations" / "480p"
PREDICTIONS = GOLDENS / "predictions"
CSV_FILES = ["global_results-val.csv", "per-sequence_results-val.csv"]


def score(*arguments):
    command = [sys.executable, "scripts/score.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_prints_and_writes_both_tables(tmp_path):
    truth = tmp_path / "truth"
    shutil.copytree(TRUTH, truth)
    (truth / "__MACOSX").mkdir()  # junk of an archive is no video
    result = score("--gt", truth, "--pred", PREDICTIONS, "--output", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    expected = json.loads((GOLDENS / "expected.json").read_text())
    lines = [line.split() for line in result.stdout.splitlines()]
    for name, figures in expected["per_object"].items():
        assert [name, *(f"{100 * figure:.1f}" for figure in figures.values())] in lines
    assert lines[-2:] == [list(expected["global"]), [f"{100 * figure:.1f}" for figure in expected["global"].values()]]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == CSV_FILES


def test_a_list_of_videos_and_merged_objects(tmp_path):
    (tmp_path / "val.txt").write_text("swap\n")
    shutil.copytree(PREDICTIONS / "swap", tmp_path / "pred" / "swap")  # drift is not predicted
    result = score(
        *("--gt", TRUTH, "--pred", tmp_path / "pred", "--output", tmp_path / "out"),
        *("--video_list", tmp_path / "val.txt", "--merge_objects"),
    )
    assert result.returncode == 0, result.stderr
    rows = (tmp_path / "out" / CSV_FILES[1]).read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["Sequence", "swap_1"]


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        ("gt", "nowhere cannot be read"),
        ("pred", "drift is missing; predict this video, or list the videos to score (--video_list)"),
        ("frame", "00007.png is missing; predict every frame of the video"),
        ("videos", "val.txt names no video"),
        ("output", "cannot be written"),
    ],
)
def test_bad_input_ends_with_one_sentence_and_no_output(inline, tmp_path, spoiled, message):
    gt, pred, output = TRUTH, tmp_path / "pred", tmp_path / "out"
    extra = []
    shutil.copytree(PREDICTIONS, pred)
    match spoiled:
        case "gt":
            gt = tmp_path / "nowhere"
        case "pred":
            shutil.rmtree(pred / "drift")
        case "frame":
            (pred / "swap" / "00007.png").unlink()
        case "videos":
            (tmp_path / "val.txt").touch()
            extra = ["--video_list", tmp_path / "val.txt"]
        case "output":
            output.touch()
    assert_refused(inline("scripts/score.py", "--gt", gt, "--pred", pred, "--output", output, *extra), message)
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
def test_a_folder_too_deep_or_too_shallow_names_the_right_one(inline, tmp_path, gt, pred, named, listed):
    shutil.copytree(TRUTH, tmp_path / "gt")
    shutil.copytree(TRUTH, tmp_path / "davis/Annotations/480p")
    shutil.copytree(PREDICTIONS, tmp_path / "out/masks")
    (tmp_path / "val.txt").write_text("swap\n")
    flags = ("--gt", tmp_path / gt, "--pred", tmp_path / pred, "--output", tmp_path / "figures")
    flags += ("--video_list", tmp_path / "val.txt") if listed else ()
    assert_refused(inline("scripts/score.py", *flags), named.format(tmp_path))


def test_truth_with_a_folder_for_each_object_names_what_merges_it(inline, tmp_path):
    for number in ("000", "001"):
        shutil.copytree(TRUTH / "swap", tmp_path / "gt/swap" / number)
    flags = ("--gt", tmp_path / "gt", "--pred", PREDICTIONS, "--output", tmp_path / "out")
    assert_refused(inline("scripts/score.py", *flags), tmp_path / "gt/swap", "each object", "convert_mask.py")


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
def test_predictions_in_another_form_name_the_remedy(inline, tmp_path, made, mentioned):
    shutil.copytree(PREDICTIONS / "swap", tmp_path / "pred/swap")
    (tmp_path / "val.txt").write_text("swap\n")
    made(tmp_path / "pred/swap")
    flags = ("--gt", TRUTH, "--pred", tmp_path / "pred", "--video_list", tmp_path / "val.txt")
    assert_refused(inline("scripts/score.py", *flags, "--output", tmp_path / "out"), mentioned)


def test_predictions_as_jpeg_are_refused(inline, tmp_path):
    shutil.copytree(PREDICTIONS, tmp_path / "pred")
    (tmp_path / "pred/swap/00003.png").rename(tmp_path / "pred/swap/00003.jpg")
    flags = ("--gt", TRUTH, "--pred", tmp_path / "pred", "--output", tmp_path / "out")
    assert_refused(inline("scripts/score.py", *flags), "save 00003.jpg as a PNG")


@pytest.mark.parametrize("kept", [1, 2])
def test_truth_of_the_first_and_the_last_frame_is_nothing_to_score(inline, tmp_path, kept):
    for video in ("swap", "drift"):
        frames = sorted((TRUTH / video).glob("*.png"))
        (tmp_path / "gt" / video).mkdir(parents=True)
        for path in (frames[0], frames[-1])[:kept]:
            shutil.copy(path, tmp_path / "gt" / video)
    flags = ("--pred", PREDICTIONS, "--output", tmp_path / "out")
    assert_refused(inline("scripts/score.py", "--gt", tmp_path / "gt", *flags), "nothing", "eval_folder.py --gt")
    assert not (tmp_path / "out").exists()
    shutil.rmtree(tmp_path / "gt/swap")
    shutil.copytree(TRUTH / "swap", tmp_path / "gt/swap")
    result = inline("scripts/score.py", "--gt", tmp_path / "gt", *flags)
    assert result.returncode == 0 and "note: no frame of drift is scored" in result.stdout


@pytest.mark.parametrize(("shift", "more"), [(1, 0), (-1, 0), (100, 0), (100, -1), (1, 2)])
def test_frames_numbered_from_another_number_are_refused(inline, tmp_path, shift, more):
    """The predictions have ``more`` frames than the ground truth."""
    shutil.copytree(TRUTH / "swap", tmp_path / "gt/swap")
    frames = sorted((tmp_path / "gt/swap").glob("*.png"))
    for kind, step in (("gt", 5), ("pred", 5 + shift)):
        for number, path in enumerate((frames + frames)[: len(frames) + (more if kind == "pred" else 0)]):
            target = tmp_path / "shifted" / kind / "swap" / f"{number + step:05d}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    roots = ("--gt", tmp_path / "shifted/gt", "--pred", tmp_path / "shifted/pred")
    result = inline("scripts/score.py", *roots, "--output", tmp_path / "out")
    assert_refused(result, f"has the frames {5 + shift:05d} to", "number the predictions")


def test_a_name_that_is_listed_twice_is_refused(inline, tmp_path):
    (tmp_path / "val.txt").write_text("swap\ndrift\nswap\n")
    flags = ("--gt", TRUTH, "--pred", PREDICTIONS, "--video_list", tmp_path / "val.txt", "--output", tmp_path / "out")
    assert_refused(inline("scripts/score.py", *flags), "val.txt lists swap twice")


def test_truth_of_0_and_255_names_the_flag(inline, tmp_path):
    for kind in ("gt", "pred"):
        for path in sorted((TRUTH / "swap").glob("*.png")):
            write_mask(tmp_path / kind / "swap" / path.name, np.where(read_mask(path) > 0, 255, 0).astype(np.uint8))
    flags = ("--gt", tmp_path / "gt", "--pred", tmp_path / "pred", "--output", tmp_path / "out")
    assert_refused(inline("scripts/score.py", *flags), "shows no object", "--merge_objects")
    result = inline("scripts/score.py", *flags, "--merge_objects")
    assert result.returncode == 0 and "100.0" in result.stdout


def test_a_name_of_a_video_may_have_a_space(inline, tmp_path):
    for kind, source in (("gt", TRUTH), ("pred", PREDICTIONS)):
        shutil.copytree(source / "swap", tmp_path / kind / "my swap")
    (tmp_path / "val.txt").write_text("my swap\n\n")
    flags = ("--gt", tmp_path / "gt", "--pred", tmp_path / "pred", "--video_list", tmp_path / "val.txt")
    result = inline("scripts/score.py", *flags, "--output", tmp_path / "out")
    assert result.returncode == 0 and "my swap_1" in result.stdout
