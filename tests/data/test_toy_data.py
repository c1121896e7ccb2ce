import copy
import dataclasses
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT, assert_refused
from dataset.files.images import davis_palette, read_image, read_mask, read_palette
from small_network.toy import ToySettings, make_toy_data
from small_network.toy.scene import LEAST_AREA, Scene, random_scene
from util.errors import InputError

TINY = {
    "height": 64, "width": 96, "frames": 11, "static": 12, "bl": 2, "youtube_train": 1, "youtube_valid": 2,
    "davis_train": 2, "davis_val": 1, "davis_test": 1,
}  # fmt: skip
SMALL = [str(word) for name, value in TINY.items() for word in (f"--{name}", value)]


def run(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "scripts/small_network/make_toy_data.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("toy") / "set"
    done = run("--output", root, *SMALL, "--workers", "2", "--preview")
    assert done.returncode == 0, done.stderr
    return root


def ids_of(path: Path) -> set[int]:
    return set(np.unique(read_mask(path)).tolist()) - {0}


def check_pairs(images: Path, masks: Path, count: int) -> None:
    frames, annotated = sorted(images.glob("*.jpg")), sorted(masks.glob("*.png"))
    assert len(frames) == count and [path.stem for path in frames] == [path.stem for path in annotated]
    for frame, mask in zip(frames, annotated, strict=True):
        assert read_image(frame).shape == (64, 96, 3) and read_mask(mask).shape == (64, 96)
        assert read_palette(mask)[:30] == davis_palette()[:30]


def test_static_has_both_folder_styles_and_grey_masks(toy):
    assert {path.name for path in (toy / "static").iterdir()} == {"fss", "DUTS-TR", "DUTS-TE", "ECSSD", "BIG", "HRSOD"}
    images = sorted((toy / "static").rglob("*.jpg"))
    assert len(images) == 12
    for image in images:
        assert len(image.relative_to(toy / "static").parts) == (3 if "fss" in image.parts else 2)
        mask = Image.open(image.with_suffix(".png"))
        assert mask.mode == "L" and set(np.unique(np.array(mask)).tolist()) == {0, 255}


def test_bl30k_is_annotated_densely(toy):
    videos = sorted((toy / "BL30K" / "JPEGImages").iterdir())
    assert len(videos) == 2
    for video in videos:
        check_pairs(video, toy / "BL30K" / "Annotations" / video.name, 11)


@pytest.mark.parametrize("folder", ["train", "train_480p"])
def test_youtube_train_has_every_fifth_frame_and_true_meta(toy, folder):
    base = toy / "YouTube" / folder
    videos = json.loads((base / "meta.json").read_text())["videos"]
    assert set(videos) == {path.name for path in (base / "JPEGImages").iterdir()} and len(videos) == 1
    for name, video in videos.items():
        masks = base / "Annotations" / name
        check_pairs(base / "JPEGImages" / name, masks, 11)
        assert sorted(path.stem for path in masks.iterdir()) == [f"{t:05d}" for t in range(0, 55, 5)]
        for label, entry in video["objects"].items():
            shown = [path.stem for path in sorted(masks.iterdir()) if int(label) in ids_of(path)]
            assert entry["frames"] == shown and entry["category"]


def test_youtube_valid_introduces_objects_where_they_first_appear(toy):
    base = toy / "YouTube"
    videos = json.loads((base / "valid" / "meta.json").read_text())["videos"]
    starts, gaps = [], 0
    for name, video in videos.items():
        frames = [path.stem for path in sorted((base / "valid" / "JPEGImages" / name).iterdir())]
        assert frames == ["00000", "00005", "00010"]
        every = base / "all_frames" / "valid_all_frames" / "JPEGImages" / name
        assert len(list(every.iterdir())) == 11
        assert (every / "00005.jpg").read_bytes() == (base / "valid" / "JPEGImages" / name / "00005.jpg").read_bytes()
        introduced: dict[str, set[int]] = {}
        for label, entry in video["objects"].items():
            introduced.setdefault(entry["frames"][0], set()).add(int(label))
            assert entry["frames"] == [frame for frame in frames if frame >= entry["frames"][0]]
        given = {path.stem: ids_of(path) for path in (base / "valid" / "Annotations" / name).iterdir()}
        assert given == introduced
        known: set[int] = set()
        for frame in frames:
            known |= introduced.get(frame, set())
            truth = base / "valid_gt" / "Annotations" / name / f"{frame}.png"
            assert truth.is_file() == bool(known)
            if known:
                assert ids_of(truth) <= known and introduced.get(frame, set()) <= ids_of(truth)
        starts.append(sorted(introduced))
        labels = sorted(map(int, video["objects"]))
        gaps += labels != list(range(1, len(labels) + 1))
    assert any(len(frames) > 1 for frames in starts), "no object comes late"
    assert any(frames[0] != "00000" for frames in starts), "every video starts at its first frame"
    assert gaps, "all ids are contiguous"


def test_davis_lists_and_first_frames(toy):
    base = toy / "DAVIS" / "2017"
    sets = base / "trainval" / "ImageSets"
    for split, count in (("train", 2), ("val", 1)):
        names = (sets / "2017" / f"{split}.txt").read_text().split()
        assert len(names) == count and set((sets / "2016" / f"{split}.txt").read_text().split()) <= set(names)
        for name in names:
            masks = base / "trainval" / "Annotations" / "480p" / name
            check_pairs(base / "trainval" / "JPEGImages" / "480p" / name, masks, 11)
            first = read_mask(masks / "00000.png")
            labels = set().union(*(ids_of(path) for path in masks.iterdir()))
            assert labels == set(range(1, len(labels) + 1))
            assert all((first == label).mean() >= 0.003 for label in labels)
    (name,) = (base / "test-dev" / "ImageSets" / "2017" / "test-dev.txt").read_text().split()
    assert len(list((base / "test-dev" / "JPEGImages" / "480p" / name).iterdir())) == 11
    assert [path.name for path in (base / "test-dev" / "Annotations" / "480p" / name).iterdir()] == ["00000.png"]


def test_same_bytes_from_one_process_and_after_losing_a_video(toy, tmp_path):
    before = contents(toy)
    assert "preview.jpg" in before
    copy = tmp_path / "copy"
    shutil.copytree(toy, copy)
    shutil.rmtree(copy / "BL30K" / "JPEGImages" / "bl-00001")
    next((copy / "static" / "BIG").glob("*.png")).unlink()
    kept = copy / "BL30K" / "JPEGImages" / "bl-00000" / "00000.jpg"
    changed = kept.stat().st_mtime_ns
    make_toy_data(copy, ToySettings(**TINY))
    assert contents(copy) == before
    assert kept.stat().st_mtime_ns == changed, "a finished video was drawn again"

    alone = tmp_path / "alone"
    make_toy_data(alone, ToySettings(**TINY))
    del before["preview.jpg"]
    assert contents(alone) == before


def test_splits_and_seeds_differ(toy):
    first = [path / "00000.jpg" for path in (toy / "DAVIS/2017/trainval/JPEGImages/480p").iterdir()]
    first += [path / "00000.jpg" for path in (toy / "BL30K/JPEGImages").iterdir()]
    assert len({path.read_bytes() for path in first}) == len(first)


def test_refuses_other_settings_in_the_same_folder(inline, toy):
    for name in ("seed", "leave"):
        assert_refused(
            inline("scripts/small_network/make_toy_data.py", "--output", toy, *SMALL, f"--{name}", "1"), name
        )


def test_refuses_impossible_settings_and_foreign_folders(inline, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    for changes, hint in (
        ({"frames": 2}, "--frames"), ({"height": 0}, "--height"), ({"bl": -1}, "--bl"), ({"leave": 5}, "--frames"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=hint):
            make_toy_data(tmp_path / "new", ToySettings(**changes))
    assert not (tmp_path / "new").exists()
    assert_refused(inline("scripts/small_network/make_toy_data.py", "--output", tmp_path, *SMALL), "new folder")
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_objects_leave_a_long_video_and_come_back(tmp_path):
    leave, length = 20, 120
    counts = dict.fromkeys(("static", "bl", "youtube_train", "youtube_valid", "davis_train", "davis_test"), 0)
    settings = ToySettings(height=48, width=64, frames=length, max_objects=3, leave=leave, davis_val=2, **counts)
    make_toy_data(tmp_path / "one", settings)
    several = 0
    for video in sorted((tmp_path / "one/DAVIS/2017/trainval/Annotations/480p").iterdir()):
        ids = [ids_of(path) for path in sorted(video.iterdir())]
        assert len(ids) == length and ids[0] and ids[0] == set().union(*ids)
        several += len(ids[0]) > 1
        for label in ids[0]:
            # One letter a frame, so that absences between two stays are easy to find.
            shown = "".join("x" if label in frame else "." for frame in ids)
            absences = [len(gap) for gap in shown.strip(".").split("x") if gap]
            assert max(absences) >= leave, shown
            assert shown.endswith("x"), "the object is away at the end"
    assert several, "no video has several objects"
    make_toy_data(tmp_path / "other", settings)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


def shown_alone(scene: Scene, label: int, t: float) -> np.ndarray:
    """Return where an object would be seen if there were no others, bool [H,W]."""
    alone = copy.copy(scene)
    alone.actors = [actor for actor in scene.actors if actor.label == label]
    return alone.frame(t)[1] == label


@pytest.mark.parametrize("seed", range(4))
def test_a_scene_has_what_makes_segmentation_a_task(seed):
    labels = [2, 5, 9]
    scene = random_scene(np.random.default_rng(seed), 96, 160, 30, labels)
    frames, ids = zip(*(scene.frame(t) for t in range(30)), strict=True)
    assert all(frame.shape == (96, 160, 3) and frame.dtype == np.uint8 for frame in frames)
    assert all(set(np.unique(each).tolist()) <= {0, *labels} for each in ids)
    colours = [frames[0][ids[0] == label].mean(0) for label in labels]
    assert min(np.abs(first - second).max() for first, second in itertools.combinations(colours, 2)) > 25

    hidden = 0.0
    for label in labels:
        assert (ids[0] == label).mean() >= LEAST_AREA
        alone = [shown_alone(scene, label, t) for t in range(30)]
        hidden = max(
            hidden,
            *((seen & (each != label)).sum() / seen.sum() for seen, each in zip(alone, ids, strict=True) if seen.any()),
        )
        # Half a frame later an object is nearly in the same place; at the end of the video it is not.
        soon = shown_alone(scene, label, 0.5)
        assert (soon & alone[0]).sum() > 0.8 * (soon | alone[0]).sum()
        assert (alone[-1] & alone[0]).sum() < 0.8 * (alone[-1] | alone[0]).sum()
    assert hidden > 0.3, "no object passes in front of another"
    nothing = (ids[0] == 0) & (ids[-1] == 0)
    assert np.abs(frames[0][nothing].astype(int) - frames[-1][nothing]).mean() > 3, "the camera stands still"


def test_masks_are_exact():
    """Where the object is white and all else black, a mask and its frame agree, and edges are antialiased."""
    scene = random_scene(np.random.default_rng(3), 96, 160, 30, [1])
    _, expected = scene.frame(12)
    for actor in scene.actors:
        opacity = actor.picture.colours[..., 3:]
        white = np.concatenate([np.repeat(opacity * (actor.label > 0), 3, 2), opacity], 2)
        actor.picture = dataclasses.replace(actor.picture, colours=white, shadow=0 * actor.picture.shadow)
    scene.background[:] = 0
    brightness = scene.frame(12)[0][..., 0]
    assert (brightness[expected > 0] > 90).all() and (brightness[expected == 0] < 130).all()
    assert 0 < ((brightness > 20) & (brightness < 200)).mean() < 0.1


def test_objects_of_youtube_may_appear_late(tmp_path):
    counts = dict.fromkeys(("static", "bl", "youtube_valid", "davis_train", "davis_val", "davis_test"), 0)
    make_toy_data(tmp_path, ToySettings(height=48, width=64, frames=8, youtube_train=4, **counts))
    videos = json.loads((tmp_path / "YouTube/train/meta.json").read_text())["videos"]
    starts = [entry["frames"][0] for video in videos.values() for entry in video["objects"].values()]
    assert "00000" in starts and max(starts) > "00000"
