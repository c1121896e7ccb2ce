"""The order of frames by their names."""

import random

import pytest

from dataset.files.video import frame_order


@pytest.mark.parametrize(
    "names",
    [
        ["frame1", "frame2", "frame10"],
        ["17.0", "17.05", "17.1", "17.15", "17.4", "17.45", "17.5", "18.0"],
        ["t_0.25", "t_0.5", "t_1", "t_1.125", "t_10.0"],
        ["-10", "-4", "-1", "0", "3", "12"],
        ["t_-1.5", "t_-1.25", "t_0.5"],
        ["2023-12-31T23:59:59", "2024-01-05T10:00:00.25", "2024-01-05T10:00:00.5", "2024-02-01T00:00:00"],
        ["2024-01-05_10-00-09", "2024-01-05_10-00-10", "2024-10-05_00-00-00"],
        ["2024.01.05", "2024.01.10", "2024.02.01"],
        ["−2", "−1", "0"],
        ["comp_v2.2", "comp_v2.9", "comp_v2.10", "comp_v2.11"],
        ["comp_v02.0009", "comp_v02.0010"],
        ["2024-01-05_12-00-00-01", "2024-01-05_12-00-00-30", "2024-01-05_12-00-01-02"],
    ],
)
def test_order(names):
    shuffled = list(names)
    random.Random(0).shuffle(shuffled)
    assert sorted(shuffled, key=frame_order(names)) == names
