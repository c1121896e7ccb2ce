"""eval_youtube.py on clips in YouTube-VOS's layout: late objects, gaps, odd starts, and only what is asked for."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_metrics import plain_j
from torch.nn import functional as F

import plain
from conftest import assert_refused, draw_clip, read_table
from dataset.files.images import read_image, read_mask, resize_mask, to_tensor, write_mask
from util.evaluation.metrics import contour_accuracy

SIZE = (60, 100)  # of the frames
SMALL_SIZE = (48, 80)  # at which they are segmented
EVERY_FIFTH = ["00000", "00005", "00010"]
# By video: its length; the category of each object, and the frames that it is asked for in.
VIDEOS = {
    "late": (12, {3: ("dog", EVERY_FIFTH), 7: ("crab", EVERY_FIFTH[1:])}),
    "gaps": (11, {2: ("dog", ["00003", "00010"]), 9: ("cat", ["00003", "00008", "00010"])}),
    "covered": (9, {1: ("crab", ["00000", "00008"]), 2: ("dog", ["00004", "00008"])}),
    "speck": (6, {1: ("dog", ["00000", "00005"]), 4: ("dog", ["00000", "00005"])}),
    "single": (1, {5: ("crab", ["00000"])}),
}


def draw_ids(name: str, ids: np.ndarray) -> np.ndarray:
    """The ground truth of a video from the discs of a synthetic one."""
    if name == "covered":  # from frame 4 on the second object is everywhere
        truth = (ids == 1).astype(np.uint8)
        truth[4:] = 2
        return truth
    if name == "speck":
        truth = (ids == 1).astype(np.uint8)
        truth[:, 2, 2] = 4  # nearest neighbours miss it at the small size
        return truth
    return np.array([0, *VIDEOS[name][1], *[0] * 3], np.uint8)[ids]


@pytest.fixture(scope="module")
def youtube(tmp_path_factory) -> Path:
    """`VIDEOS`, drawn; frames that nothing needs are no images."""
    root = tmp_path_factory.mktemp("youtube")
    for name, (length, objects) in VIDEOS.items():
        frames, ids = draw_clip(length, *SIZE, 2)
        truth = draw_ids(name, ids)
        asked = {int(frame) for _, listed in objects.values() for frame in listed}
        given = {int(listed[0]) for _, listed in objects.values()}
        for t in range(length):
            for folder in ("all_frames/valid_all_frames", *(["valid"] if t in asked else [])):
                path = root / folder / "JPEGImages" / name / f"{t:05d}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(frames[t]).save(path, quality=95)
            if t in given:  # known objects are in it, too, and must be left alone
                write_mask(root / "valid/Annotations" / name / f"{t:05d}.png", truth[t])
            write_mask(root / "gt" / name / f"{t:05d}.png", truth[t])
    write_meta(root / "valid", {name: objects for name, (_, objects) in VIDEOS.items()})
    write_meta(root / "train", {"training": {1: ("dog", ["00000"]), 2: ("cat", [])}})
    return root


def write_meta(folder: Path, videos: dict) -> None:
    listed = {
        name: {"objects": {str(i): {"category": what, "frames": frames} for i, (what, frames) in objects.items()}}
        for name, objects in videos.items()
    }
    folder.mkdir(exist_ok=True)
    (folder / "meta.json").write_text(json.dumps({"videos": listed}))


@pytest.fixture
def arguments(youtube, small_checkpoint, tmp_path):
    """The command line for the small network on the synthetic videos."""

    def build(*flags: object, path: Path = youtube, output: Path = tmp_path / "output") -> tuple:
        model = ("--model", small_checkpoint, "--device", "cpu", "--size", min(SMALL_SIZE))
        return ("eval_youtube.py", *model, "--yv_path", path, "--output", output, *flags)

    return build


def expected_masks(network, root: Path, name: str) -> dict[int, np.ndarray]:
    """Every frame's ids by the plain formulas, with the resizing that YouTube-VOS wants around them."""
    length, objects = VIDEOS[name]
    images, masks, given = [], {}, {}
    for t in range(length):
        image = Image.fromarray(read_image(root / f"all_frames/valid_all_frames/JPEGImages/{name}/{t:05d}.jpg"))
        images.append(to_tensor(np.array(image.resize(SMALL_SIZE[::-1], Image.Resampling.BICUBIC))))
    order = []
    for t in sorted({int(frames[0]) for _, frames in objects.values()}):
        new = [i for i, (_, frames) in objects.items() if int(frames[0]) == t]
        mask = read_mask(root / f"valid/Annotations/{name}/{t:05d}.png")
        mask = np.where(np.isin(mask, new), mask, np.uint8(0))
        given[t], masks[t] = mask, torch.from_numpy(resize_mask(mask, SMALL_SIZE))
        order += new
    results = {}
    for t, probability in enumerate(plain.segment(network, images, masks, "2F+L+RDE", 4, 40)):
        full = F.interpolate(probability[None], SIZE, mode="bilinear", align_corners=False)[0]
        results[t] = np.array([0, *order], np.uint8)[full.argmax(0)]
        if t in given:  # its objects come back exactly, whatever the size of the network's input
            others = np.where(np.isin(results[t], np.unique(given[t])), 0, results[t])
            results[t] = np.where(given[t] > 0, given[t], others)
    return results


def test_the_zip_holds_what_meta_json_asks_for(arguments, command, inline, youtube, small_network, tmp_path):
    expected = {name: expected_masks(small_network, youtube, name) for name in VIDEOS}
    # What is neither asked for nor updates the memory is not even decoded, nor is anything after the last.
    root = shutil.copytree(youtube, tmp_path / "youtube")
    for frame in ("00001", "00003", "00006", "00008", "00011"):
        (root / f"all_frames/valid_all_frames/JPEGImages/late/{frame}.jpg").write_text("no image")
    result = command(*arguments("--gt", root / "gt", "--overlay", path=root)).checked()
    assert "note" not in result.stdout and " frames in " in result.stdout

    meta = json.loads((root / "valid/meta.json").read_text())["videos"]
    asked = {
        f"Annotations/{name}/{frame}.png"
        for name, video in meta.items()
        for listed in video["objects"].values()
        for frame in listed["frames"]
    }
    with zipfile.ZipFile(tmp_path / "output.zip") as archive:
        assert sorted(archive.namelist()) == sorted(asked) and len(asked) == 12
        archive.extractall(tmp_path / "unzipped")
    output = tmp_path / "output"
    assert {str(path.relative_to(output)) for path in output.rglob("*.png")} == asked
    drawn = {str(path.relative_to(output)) for path in (output / "overlay").glob("*/*.jpg")}
    assert drawn == {name.replace("Annotations", "overlay").replace(".png", ".jpg") for name in asked}
    assert all((output / f"overlay/{name}.jpg").is_file() for name in VIDEOS)
    for name in VIDEOS:
        for path in (tmp_path / "unzipped/Annotations" / name).iterdir():
            with Image.open(path) as image, Image.open(root / "valid/Annotations/late/00000.png") as given:
                assert image.mode == "P" and image.size == SIZE[::-1] and image.getpalette() == given.getpalette()
            difference = read_mask(path) != expected[name][int(path.stem)]
            assert difference.mean() < 1e-3, f"{name} {path.name}"  # rounding may decide a pixel
    # The cases that the videos are there for do occur.
    assert 7 not in expected["late"][4] and 7 in expected["late"][5]
    assert set(np.unique(expected["covered"][4])) <= {0, 2}
    speck = read_mask(root / "valid/Annotations/speck/00000.png")
    assert 4 not in np.array(Image.fromarray(speck).resize(SMALL_SIZE[::-1], Image.Resampling.NEAREST))
    assert 4 in resize_mask(speck, SMALL_SIZE)

    # The scores, worked out again from the masks.
    rows = read_table(output / "per-object_results-valid.csv")
    assert [(row["Video"], row["Object"]) for row in rows] == [
        (name, str(i)) for name in sorted(VIDEOS) for i in VIDEOS[name][1]
    ]
    figures = {"seen": [], "unseen": []}
    for row in rows:
        category, frames = VIDEOS[row["Video"]][1][int(row["Object"])]
        assert row["Kind"] == ("unseen" if category == "crab" else "seen") and row["Frames"] == str(len(frames) - 1)
        pairs = []
        for frame in frames[1:]:
            paths = (root / "gt" / row["Video"], output / "Annotations" / row["Video"])
            pairs.append([read_mask(path / f"{frame}.png") == int(row["Object"]) for path in paths])
        if not pairs:
            assert row["J"] == "nan"
            continue
        j, f = (np.mean([measure(*pair) for pair in pairs]) for measure in (plain_j, contour_accuracy))
        assert float(row["J"]) == pytest.approx(j, abs=1e-5) and float(row["F"]) == pytest.approx(f, abs=1e-5)
        figures[row["Kind"]].append((j, f))
    (overall,) = read_table(output / "global_results-valid.csv")
    seen, unseen = np.mean(figures["seen"], axis=0), np.mean(figures["unseen"], axis=0)
    assert list(overall) == ["Overall", "J_seen", "F_seen", "J_unseen", "F_unseen"]
    expected_row = [np.mean([seen, unseen]), *seen, *unseen]
    assert [float(value) for value in overall.values()] == pytest.approx(expected_row, abs=1e-5)

    # The output says where the data and the ground truth lie.
    inline("scripts/report.py", output).checked()
    assert "crab, unseen" in (output / "report.html").read_text()


def test_all_masks_two_processes_and_a_rerun(arguments, command, inline, youtube, small_network, tmp_path):
    left = [tmp_path / name for name in ("output/.records", "output/overlay/late", "")]
    for folder in left:  # as after kill -9; no process has this number
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f".output.{9**9}.tmp.zip").touch()
    result = command(*arguments("--output_all"), processes=2)
    assert not any(list(folder.glob(".output.*")) for folder in left)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("FPS") == 1 and " frames in " in result.stdout
    folder = tmp_path / "output/Annotations"
    for name, (length, _) in VIDEOS.items():
        expected = expected_masks(small_network, youtube, name)
        assert sorted(path.name for path in (folder / name).iterdir()) == [f"{t:05d}.png" for t in range(length)]
        for t in range(length):
            assert (read_mask(folder / name / f"{t:05d}.png") != expected[t]).mean() < 1e-3, f"{name} {t}"
    assert not read_mask(folder / "gaps/00002.png").any()  # before the first object
    with zipfile.ZipFile(tmp_path / "output.zip") as archive:
        assert len(archive.namelist()) == 12

    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    (folder / "gaps/00004.png").unlink()
    (tmp_path / "output.zip").unlink()
    assert inline(*arguments("--output_all")).returncode == 0
    changed = {path.parent.name for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert changed == {"gaps"} and (tmp_path / "output.zip").is_file()
    assert_refused(inline(*arguments()), tmp_path / "output", "output_all")


def test_without_all_frames_and_with_a_lost_object(arguments, inline, youtube, tmp_path):
    root = shutil.copytree(youtube, tmp_path / "youtube", ignore=shutil.ignore_patterns("all_frames"))
    write_mask(root / "valid/Annotations/single/00000.png", np.zeros(SIZE, np.uint8))
    result = inline(*arguments(path=root)).checked()
    notes = [line for line in result.stdout.splitlines() if line.startswith("note")]
    assert len(notes) == 2
    assert str(root / "valid/JPEGImages") in notes[0] and str(root / "valid/Annotations/single/00000.png") in notes[1]
    assert not read_mask(tmp_path / "output/Annotations/single/00000.png").any()
    with zipfile.ZipFile(tmp_path / "output.zip") as archive:
        assert len(archive.namelist()) == 12

    # The other place for all frames; the results of every fifth are not mixed with those of all.
    shutil.copytree(youtube / "all_frames/valid_all_frames", root / "valid_all_frames")
    assert_refused(inline(*arguments(path=root)), tmp_path / "output", "all_frames")
    assert inline(*arguments(path=root, output=tmp_path / "other")).checked().stdout.count("note") == 1


FRAMES, META = "all_frames/valid_all_frames/JPEGImages", "valid/meta.json"
MASK = "valid/Annotations/late/00005.png"
# What is damaged of a fresh data set, how, and what the refusal mentions beside it.
DAMAGES = {
    "no list": (META, Path.unlink, "missing"),
    "a broken list": (META, lambda path: path.write_text('{"videos": [1]}'), "download"),
    "no frames asked for": (META, lambda path: write_meta(path.parent, {"late": {1: ("dog", [])}}), "late"),
    "no images": (FRAMES, lambda path: [shutil.rmtree(path), shutil.rmtree(path.parents[2] / "valid/JPEGImages")],
                  "valid/JPEGImages", "missing"),
    "no frame": (f"{FRAMES}/late/00010.jpg", Path.unlink, "meta.json"),
    "no ground truth": ("gt/late/00010.png", Path.unlink, "leave out the ground truth"),
    "no training list": ("train/meta.json", Path.unlink, "missing"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_data_set_is_refused(arguments, inline, youtube, tmp_path, damage):
    root = shutil.copytree(youtube, tmp_path / "youtube")
    place, change, *mentioned = DAMAGES[damage]
    change(root / place)
    assert_refused(inline(*arguments("--gt", root / "gt", path=root)), root / place, *mentioned)
    assert not (tmp_path / "output.zip").exists()


def test_ground_truth_needs_categories(arguments, inline, youtube, tmp_path):
    root = shutil.copytree(youtube, tmp_path / "youtube")
    (root / META).write_text((root / META).read_text().replace('"category"', '"kind"'))
    assert_refused(inline(*arguments("--gt", root / "gt", path=root)), "category", "covered", "leave out")
