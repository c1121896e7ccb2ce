"""scripts/animate.py, as a real command."""

import numpy as np
import pytest
from PIL import Image

from conftest import assert_refused


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(6):
        Image.fromarray(np.full((60, 100, 3), 40 * number, np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_a_folder_of_pictures_becomes_a_moving_picture(command, pictures, tmp_path, suffix):
    output = tmp_path / f"moving{suffix}"
    done = command("scripts/animate.py", pictures, "--output", output, "--width", 50, "--every", 2, "--fps", 10)
    assert done.returncode == 0, done.stderr
    with Image.open(output) as moving:
        assert moving.n_frames == 3 and moving.size == (50, 30)
        for number in range(3):
            moving.seek(number)
            shown = np.asarray(moving.convert("RGB")).astype(int)
            assert abs(shown - 80 * number).max() <= 8
            assert moving.info["duration"] == 100


def test_other_suffixes_and_empty_folders_are_refused(command, pictures, tmp_path):
    output = tmp_path / "moving.mp4"
    assert_refused(command("scripts/animate.py", pictures, "--output", output), "moving.mp4", ".webp")
    output = tmp_path / "moving.webp"
    assert_refused(command("scripts/animate.py", tmp_path / "none", "--output", output), "none")
    assert not output.exists()
