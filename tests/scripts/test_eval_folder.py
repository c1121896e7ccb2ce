"""eval_folder.py on synthetic clips: late objects, masks of known objects, selected frames, gaps in the truth."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_metrics import plain_f, plain_j

import plain
from conftest import assert_refused, read_table, write_collection
from dataset.files.images import read_image, read_mask, to_tensor, write_mask

# By video: its frames; by object: the numbers of the frames in which it is scored (see `write_collection`).
FRAMES = {
    "again": [f"shot{number}" for number in range(8, 14)],
    "late": [f"{number:05d}" for number in range(8)],
    "untold": ["00000", "00001", "00002"],
}
SCORED = {
    # Frame 2 gives both objects, so neither is scored there.
    "again": {1: [3, 5], 2: [3, 5]},
    # Frame 3 gives object 7 alone, so object 3 is scored there.
    "late": {3: [1, 2, 3, 4, 5, 6, 7], 7: [4, 5, 6, 7]},
}


@pytest.fixture(scope="module")
def collection(tmp_path_factory) -> Path:
    return write_collection(tmp_path_factory.mktemp("collection"))


@pytest.fixture
def arguments(collection, small_checkpoint, tmp_path):
    """The command line for the small network on the synthetic clips."""

    def build(*flags: object, root: Path = collection, output: Path = tmp_path / "output") -> tuple:
        model = ("--model", small_checkpoint, "--device", "cpu", "--size", 48)
        data = ("--images", root / "images", "--masks", root / "masks", "--output", output)
        return ("scripts/eval_folder.py", *model, *data, *flags)

    return build


@pytest.fixture(scope="module")
def expected(collection, small_network) -> dict[str, list[np.ndarray]]:
    """Every frame's ids by the plain formulas."""
    results = {}
    for name, frames in FRAMES.items():
        images = [to_tensor(read_image(collection / "images" / name / f"{frame}.png")) for frame in frames]
        paths = {t: collection / "masks" / name / f"{frame}.png" for t, frame in enumerate(frames)}
        masks = {t: torch.from_numpy(read_mask(path)) for t, path in paths.items() if path.is_file()}
        ids = np.array([0, *dict.fromkeys(i for mask in masks.values() for i in mask.unique().tolist() if i)], np.uint8)
        probabilities = plain.segment(small_network, images, masks, "2F+L+RDE", 3, 40)
        results[name] = [ids[probability.argmax(0).numpy()] for probability in probabilities]
    return results


def written(output: Path) -> dict[str, np.ndarray]:
    return {f"{p.parent.name}/{p.stem}": read_mask(p) for p in (output / "masks").glob("*/*.png")}


def assert_scores(output: Path, truth: Path, scored: dict[str, dict[int, list[int]]]) -> None:
    """The files of figures hold what the masks give by hand, for the objects and frames in ``scored``."""
    rows = read_table(output / "per-object_results.csv")
    assert [(row["Video"], int(row["Object"])) for row in rows] == [(name, i) for name in scored for i in scored[name]]
    means, recalls = [], []
    for row in rows:
        name, object_id = row["Video"], int(row["Object"])
        pairs = []
        for t in scored[name][object_id]:
            paths = [root / name / f"{FRAMES[name][t]}.png" for root in (truth, output / "masks")]
            pairs.append([read_mask(path) == object_id for path in paths])
        j, f = ([measure(*pair) for pair in pairs] for measure in (plain_j, plain_f))
        means.append([np.mean(j), np.mean(f)])
        recalls.append([np.mean(np.array(j) > 0.5), np.mean(np.array(f) > 0.5)])
        assert int(row["Frames"]) == len(pairs)
        assert [float(row["J-Mean"]), float(row["F-Mean"])] == pytest.approx(means[-1], abs=1e-6)
    (overall,) = read_table(output / "global_results.csv")
    j, f = np.mean(means, axis=0)
    figures = [float(overall[name]) for name in ("J&F-Mean", "J-Mean", "F-Mean", "J-Recall", "F-Recall")]
    assert figures == pytest.approx([(j + f) / 2, j, f, *np.mean(recalls, axis=0)], abs=1e-6)


def test_masks_scores_and_pictures(arguments, inline, collection, expected, tmp_path):
    result = inline(*arguments("--gt", collection / "truth", "--overlay")).checked()
    output = tmp_path / "output"
    masks = written(output)
    assert sorted(masks) == sorted(f"{name}/{frame}" for name, frames in FRAMES.items() for frame in frames)
    for name, frames in FRAMES.items():
        for t, frame in enumerate(frames):
            assert (masks[f"{name}/{frame}"] != expected[name][t]).mean() < 1e-3  # rounding may decide a pixel
    # A given mask counts as true, and known objects that it does not show stay in the other pixels.
    for name, frame in (("again", "shot10"), ("late", "00003")):
        given = read_mask(collection / "masks" / name / f"{frame}.png")
        assert (masks[f"{name}/{frame}"][given > 0] == given[given > 0]).all()
    assert {3, 7} <= set(np.unique(masks["late/00003"])) and 7 not in masks["late/00002"]

    assert_scores(output, collection / "truth", SCORED)
    notes = [line for line in result.stdout.splitlines() if line.startswith("note: ")]
    assert len(notes) == 2 and "unmasked" in notes[0] and "untold" in notes[1]
    assert "17 frames" in result.stdout and "late_7" in result.stdout
    assert read_image(output / "overlay/again/shot13.jpg").shape == (48, 80, 3)
    assert all((output / f"overlay/{name}.jpg").is_file() for name in FRAMES)

    # The output says where images, masks and ground truth lie.
    inline("scripts/report.py", output).checked()
    assert "object 7, from frame 00003" in (output / "report.html").read_text()
    assert "without ground truth" not in (output / "report.html").read_text()


def test_the_confidence_of_an_interrupted_evaluation(arguments, inline, monkeypatch, tmp_path):
    """Equals that of an undisturbed one."""
    expected, output = tmp_path / "expected", tmp_path / "output"
    assert inline(*arguments(output=expected)).returncode == 0
    with monkeypatch.context() as patch:
        patch.setattr("util.evaluation.output.write_text", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert inline(*arguments()).returncode == 130  # before the first video is recorded
    assert not (output / "confidence.csv").exists() and len(list((output / "masks").iterdir())) == 1
    assert inline(*arguments()).returncode == 0
    assert (output / "confidence.csv").read_bytes() == (expected / "confidence.csv").read_bytes()
    rows, masks = read_table(output / "confidence.csv"), written(output)
    assert list(rows[0]) == ["video", "frame", "object", "confidence", "area"]
    for row in rows:
        assert int(row["area"]) == (masks[f"{row['video']}/{row['frame']}"] == int(row["object"])).sum()
        assert 0 <= float(row["confidence"]) <= 1
    late = [(row["frame"], row["object"]) for row in rows if row["video"] == "late"]
    assert late == [(f"{t:05d}", number) for t in range(8) for number in (("3",) if t < 3 else ("3", "7"))]

    record = output / ".records/late.confidence"
    record.unlink()
    assert_refused(inline(*arguments()), record, "is missing")


def test_every_third_frame_by_two_processes(arguments, command, collection, expected, tmp_path):
    result = command(*arguments("--every", 3, "--gt", collection / "truth"), processes=2).checked()
    assert result.stdout.count("FPS") == 1
    masks = written(tmp_path / "output")
    assert sorted(masks) == sorted(f"{name}/{frame}" for name in FRAMES for frame in FRAMES[name][::3])
    for name, frames in FRAMES.items():
        for t in range(0, len(frames), 3):
            assert (masks[f"{name}/{frames[t]}"] != expected[name][t]).mean() < 1e-3
    third = {name: {i: [t for t in at if t % 3 == 0] for i, at in SCORED[name].items()} for name in SCORED}
    assert_scores(tmp_path / "output", collection / "truth", third)


def test_given_masks_that_are_the_ground_truth(arguments, inline, collection, tmp_path):
    root = shutil.copytree(collection, tmp_path / "collection")
    shutil.rmtree(root / "masks")
    truth = (root / "truth").rename(root / "masks")
    write_mask(truth / "again/shot8.png", np.zeros((48, 80), np.uint8))  # shows nothing, so all objects enter later
    assert_refused(inline(*arguments("--gt", truth, root=root)), truth, "--new_only")

    inline(*arguments("--gt", truth, "--new_only", "--only_gt", root=root)).checked()
    masks = written(tmp_path / "output")
    again = ["again/shot8", "again/shot10", "again/shot11", "again/shot13"]
    assert sorted(masks) == sorted([*again, *(f"late/{frame}" for frame in FRAMES["late"])])
    assert not masks["again/shot8"].any() and set(np.unique(masks["again/shot10"])) == {0, 1, 2}
    every = {3: list(range(1, 8)), 7: list(range(1, 8))}  # both objects of "late" are in the truth of frame 0
    assert_scores(tmp_path / "output", truth, {"again": SCORED["again"], "late": every})


def test_a_new_mask_is_not_overlooked_and_other_settings_are_not_mixed(arguments, inline, collection, tmp_path):
    root = shutil.copytree(collection, tmp_path / "collection", ignore=shutil.ignore_patterns("late"))
    assert inline(*arguments(root=root)).returncode == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "output/masks").glob("*/*.png")}
    write_mask(root / "masks/untold/00001.png", np.full((48, 80), 4, np.uint8))
    assert inline(*arguments(root=root)).returncode == 0
    assert {path.parent.name for path in before if path.stat().st_mtime_ns != before[path]} == {"untold"}
    assert (read_mask(tmp_path / "output/masks/untold/00001.png") == 4).all()
    for flags in (("--every", 2), ("--new_only",), ("--only_gt", "--gt", root / "truth")):
        shutil.rmtree(root / "masks/untold", ignore_errors=True)  # --only_gt would refuse the video without truth
        assert_refused(inline(*arguments(*flags, root=root)), tmp_path / "output", flags[0].strip("-"))
    # Ground truth that only scores changes no mask, and may come later.
    inline(*arguments("--gt", root / "truth", root=root)).checked()
    assert (tmp_path / "output/global_results.csv").is_file()


def test_objects_that_only_the_truth_shows_are_named(arguments, inline, collection, tmp_path):
    root = shutil.copytree(collection, tmp_path / "collection")
    (root / "masks/late/00003.png").unlink()
    result = inline(*arguments("--gt", root / "truth", root=root)).checked()
    assert f"note: {root / 'truth/late'} shows object 7, which no given mask shows; it is not scored" in result.stdout
    assert_scores(tmp_path / "output", root / "truth", {"again": SCORED["again"], "late": {3: list(range(1, 8))}})


def test_a_name_of_a_video_that_is_not_utf8(arguments, inline, collection, tmp_path):
    root, name = tmp_path / "collection", os.fsdecode(b"late\xff")
    for kind in ("images", "masks", "truth"):
        shutil.copytree(collection / kind / "late", root / kind / name)
    result = inline(*arguments("--gt", root / "truth", root=root))
    assert result.returncode == 0 and "late\\udcff_3" in result.stdout, result.stderr
    assert "late\\udcff,3," in (tmp_path / "output/per-object_results.csv").read_text()
    assert len(list((tmp_path / "output/masks" / name).iterdir())) == len(FRAMES["late"])


def _soften(path: Path) -> None:
    Image.fromarray(read_mask(path) * 50).resize((160, 96)).resize((80, 48), Image.Resampling.BICUBIC).save(path)


def _rename_truth(folder: Path) -> None:
    for name in ("again", "late"):
        (folder / name).rename(folder / f"other {name}")


SMALL_MASK = np.full((20, 30), 7, np.uint8)
# What is damaged of a fresh collection, how, and what the refusal mentions beside it.
DAMAGES = {
    "no folder of images": ("images", shutil.rmtree, "missing"),
    "no video": ("masks", lambda path: [shutil.rmtree(path / name) for name in FRAMES], "holds no folders"),
    "no mask": ("masks/untold", lambda path: (path / "00000.png").unlink(), "holds no mask", "00000.png"),
    "a mask without a frame": ("masks/late/00012.png", lambda path: path.with_stem("00003").rename(path), "no frame"),
    "truth without a frame": ("truth/late/00012.png", lambda path: path.with_stem("00003").rename(path), "no frame"),
    "a mask of another size": ("masks/late/00003.png", lambda path: write_mask(path, SMALL_MASK), "30×20", "80×48"),
    "truth of another size": ("truth/late/00005.png", lambda path: write_mask(path, SMALL_MASK), "30×20", "80×48"),
    "a soft mask": ("masks/late/00000.png", _soften, "soft edges", "convert_mask.py"),
    "an empty mask": (
        "masks/untold/00000.png", lambda path: write_mask(path, np.zeros((48, 80), np.uint8)), "no object"
    ),
    "two frames in one": (
        "images/late/00000.jpg", lambda path: shutil.copy(path.with_suffix(".png"), path), "00000.png", "one frame"
    ),
    "no truth": ("truth", shutil.rmtree, "missing"),
    "only other truth": ("truth", _rename_truth, "no folder of any video"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_collection_is_refused(arguments, inline, collection, tmp_path, damage):
    root = shutil.copytree(collection, tmp_path / "collection")
    place, change, *mentioned = DAMAGES[damage]
    change(root / place)
    assert_refused(inline(*arguments("--gt", root / "truth", root=root)), root / place, *mentioned)
    assert not (tmp_path / "output/masks").exists()


def test_wrong_flags_are_refused(arguments, inline, collection):
    truth = collection / "truth"
    assert_refused(inline(*arguments("--only_gt")), "--only_gt", "--gt")
    assert_refused(inline(*arguments("--only_gt", "--gt", truth)), truth / "untold", "no frame is wanted")
    assert_refused(inline(*arguments("--only_gt", "--gt", truth, "--every", 2)), "--every", "not allowed with")


def test_masks_of_other_names_formats_and_folders(arguments, inline, collection, expected, tmp_path):
    """Upper case, 0 and 255, colours, __MACOSX and hidden files; the truth is read in the same way."""
    root = shutil.copytree(collection, tmp_path / "collection", ignore=shutil.ignore_patterns("again", "late"))
    ids = read_mask(root / "masks/untold/00000.png")
    (root / "masks/untold/00000.png").unlink()
    Image.fromarray(ids * np.uint8(255)).save(root / "masks/untold/00000.PNG")
    (root / "truth/untold").mkdir(parents=True)
    Image.fromarray(np.dstack([ids * np.uint8(255), 0 * ids, 0 * ids])).save(root / "truth/untold/00002.bmp")
    for kind in ("images", "masks"):
        (root / kind / "__MACOSX").mkdir()
        (root / kind / "untold/._00000.png").write_bytes(b"x")
    result = inline(*arguments("--gt", root / "truth", root=root)).checked()
    assert "mask untold/00000.PNG: 1 object, 1 (" in result.stdout and "__MACOSX" not in result.stdout
    for t, frame in enumerate(FRAMES["untold"]):
        assert (read_mask(tmp_path / f"output/masks/untold/{frame}.png") != expected["untold"][t]).mean() < 1e-3
    rows = read_table(tmp_path / "output/per-object_results.csv")
    assert [(row["Video"], row["Object"], row["Frames"]) for row in rows] == [("untold", "1", "1")]


def test_frames_and_masks_that_are_swapped(arguments, inline, collection, tmp_path):
    for kind, name in (("images", "masks"), ("masks", "images")):
        shutil.copytree(collection / kind, tmp_path / name)
    assert_refused(inline(*arguments(root=tmp_path)), tmp_path / "images", "swap --images and --masks")


def test_video_files_and_folders_above_are_named(arguments, inline, collection, tmp_path):
    root = shutil.copytree(collection, tmp_path / "collection")
    shutil.rmtree(root / "images/late")
    (root / "images/late.MP4").write_bytes(b"x")
    assert_refused(inline(*arguments(root=root)), "late.MP4", "video file", "segment_video.py")
    above = tmp_path / "valid_gt"
    shutil.copytree(collection / "truth", above / "Annotations")
    assert_refused(inline(*arguments("--gt", above)), above / "Annotations", "--gt")
    assert_refused(inline(*arguments("--gt", above / "Annotations/again")), f"--gt {above}/Annotations")
    assert_refused(inline(*arguments("--gt", collection / "images/again")), "no folder", f"--gt {collection}/images")
    shutil.rmtree(above / "Annotations")
    assert_refused(inline(*arguments("--gt", above)), above, "no folder of any video")
    (root / "images/late.MP4").unlink()
    for inner, named in (("val/late", f"--images {root}/images/val"), ("late/frames", "holds folders instead")):
        shutil.copytree(collection / "images/late", root / "images" / inner)
        (root / "images/late").mkdir(exist_ok=True)
        assert_refused(inline(*arguments(root=root)), root / "images/late", named)
        shutil.rmtree(root / "images" / inner.split("/")[0])
