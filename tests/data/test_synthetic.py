"""scripts/make_synthetic.py: layouts, exact masks, settings, and what makes segmentation a task."""

import copy
import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from conftest import assert_refused, contents
from dataset.files.images import read_mask
from synthetic import SyntheticSettings, make_synthetic
from synthetic.scene import LEAST_AREA, Scene
from util.errors import InputError

TINY = {
    "height": 64, "width": 96, "frames": 11, "static": 12, "bl": 2, "youtube_train": 1, "youtube_valid": 2,
    "davis_train": 2, "davis_val": 1,
}  # fmt: skip
FLAGS = [str(word) for name, value in TINY.items() for word in (f"--{name}", value)]


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("clips") / "set"
    make_synthetic(root, SyntheticSettings(**TINY))
    return root


def ids_of(path: Path) -> set[int]:
    return set(np.unique(read_mask(path)).tolist()) - {0}


def test_the_command_gives_the_same_bytes_and_keeps_what_is_there(inline, clips, tmp_path):
    for _ in range(2):
        result = inline("scripts/make_synthetic.py", "--output", tmp_path / "new", *FLAGS)
        assert result.returncode == 0 and contents(tmp_path / "new") == contents(clips)
        frame = tmp_path / "new/BL30K/JPEGImages/bl-00000/00001.jpg"
        os.utime(frame, (1, 1))
    assert frame.stat().st_mtime == 1, "a finished frame was written again"
    assert {path.name for path in tmp_path.iterdir()} == {"new"}


def test_other_settings_impossible_ones_and_other_folders_are_refused(inline, clips, tmp_path):
    for name in ("seed", "leave"):
        assert_refused(inline("scripts/make_synthetic.py", "--output", clips, *FLAGS, f"--{name}", "1"), name)
    (tmp_path / "precious.txt").write_text("mine")
    for changes, hint in (
        ({"frames": 2, "bl": 1}, "--frames"), ({"height": 0}, "--height"), ({"max_objects": 0}, "--max_objects"),
        ({"leave": 5, "davis_val": 1}, "--frames"), ({}, "--davis_val"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=hint):
            make_synthetic(tmp_path / "new", SyntheticSettings(**changes))
    assert not (tmp_path / "new").exists()
    assert_refused(inline("scripts/make_synthetic.py", "--output", tmp_path, *FLAGS), "new folder")
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_objects_leave_a_long_video_and_come_back(tmp_path):
    leave, length = 20, 120
    make_synthetic(
        tmp_path, SyntheticSettings(height=48, width=64, frames=length, max_objects=3, leave=leave, davis_val=3)
    )
    several = 0
    for video in sorted((tmp_path / "DAVIS/2017/trainval/Annotations/480p").iterdir()):
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


def shown_alone(scene: Scene, label: int, t: float) -> np.ndarray:
    """Return where an object would be seen if there were no others, bool [H,W]."""
    alone = copy.copy(scene)
    alone.actors = [actor for actor in scene.actors if actor.label == label]
    return alone.frame(t)[1] == label


@pytest.mark.parametrize("seed", range(4))
def test_a_scene_has_what_makes_segmentation_a_task(seed):
    labels = [2, 5, 9]
    scene = Scene(np.random.default_rng(seed), 96, 160, 30, labels)
    frames, ids = zip(*(scene.frame(t) for t in range(30)), strict=True)
    assert all(frame.shape == (96, 160, 3) and frame.dtype == np.uint8 for frame in frames)
    assert all(set(np.unique(each).tolist()) <= {0, *labels} for each in ids)
    colours = [frames[0][ids[0] == label].mean(0) for label in labels]
    assert min(np.abs(first - second).max() for first, second in itertools.combinations(colours, 2)) > 20

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
    scene = Scene(np.random.default_rng(3), 96, 160, 30, [1])
    _, expected = scene.frame(12)
    for actor in scene.actors:
        actor.picture[..., :3] = actor.picture[..., 3:] * (actor.label > 0)
    scene.background[:] = 0
    brightness = scene.frame(12)[0][..., 0]
    assert (brightness[expected > 0] >= 128).all() and (brightness[expected == 0] < 128).all()
    assert 0 < ((brightness > 20) & (brightness < 235)).mean() < 0.1
