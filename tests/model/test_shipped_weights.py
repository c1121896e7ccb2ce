"""The network that comes with the project, and the scripts that take it where nobody names another."""

import numpy as np
import pytest

from dataset.files.images import read_mask
from model import load_network
from model.checkpoint import SHIPPED_WEIGHTS
from synthetic import SyntheticSettings, make_synthetic
from util.evaluation.metrics import region_similarity
from util.evaluation.scoring import read_results

SAYS_SO = "using the small network shipped with the project"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Two synthetic clips that no training has seen, in DAVIS's layout."""
    root = tmp_path_factory.mktemp("toy")
    settings = SyntheticSettings(seed=11, height=192, width=320, frames=12, youtube_valid=1, davis_val=2)
    make_synthetic(root, settings)
    return root


def test_they_are_small_and_have_a_description():
    assert SHIPPED_WEIGHTS.stat().st_size < 20e6
    assert load_network().config.aggregation
    assert (SHIPPED_WEIGHTS.parent / "README.md").is_file()


def test_davis_is_segmented_better_than_by_copying(command, toy, tmp_path):
    davis = ("--davis_path", toy / "DAVIS" / "2017")
    assert SAYS_SO in command("eval_davis.py", *davis, "--output", tmp_path / "ours").checked().stdout
    copied = []  # the region similarity of the first mask with those of the later frames
    for folder in (toy / "DAVIS/2017/trainval/Annotations/480p").iterdir():
        first, *later = map(read_mask, sorted(folder.glob("*.png")))
        ids = np.unique(first)[1:]
        copied += [region_similarity(mask == i, first == i) for mask in later for i in ids]
    assert read_results(tmp_path / "ours")[1] > max(70, 100 * np.mean(copied) + 15)


def test_the_other_scripts_take_them_too(inline, toy, tmp_path):
    result = inline("eval_youtube.py", "--yv_path", toy / "YouTube", "--output", tmp_path / "youtube").checked()
    assert SAYS_SO in result.stdout
    video = toy / "DAVIS" / "2017" / "trainval" / "JPEGImages" / "480p" / "davis-val-00000"
    mask = toy / "DAVIS" / "2017" / "trainval" / "Annotations" / "480p" / "davis-val-00000" / "00000.png"
    result = inline("scripts/segment_video.py", video, "--mask", mask, "--output", tmp_path / "video").checked()
    assert SAYS_SO in result.stdout
