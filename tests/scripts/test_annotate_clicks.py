"""scripts/benchmark.py clicks: how the annotation page is measured, on synthetic objects."""

import numpy as np
from PIL import Image

from conftest import assert_refused, draw_clip, read_table


def test_clicks_are_measured(inline, tmp_path):
    frames, ids = draw_clip(1, 96, 160, 2)
    for number in (1, 2):
        Image.fromarray(frames[0]).save(tmp_path / f"disc{number}.jpg", quality=95)
        Image.fromarray(np.uint8(255 * (ids[0] == number))).save(tmp_path / f"disc{number}.png")
    output = tmp_path / "clicks.csv"
    arguments = ("--pairs", tmp_path, "--device", "cpu", "--threads", 1, "--output", output)
    result = inline("scripts/benchmark.py", "clicks", *arguments)
    assert result.returncode == 0, result.stderr
    rows = read_table(output)
    assert [row["evidence"] for row in rows] == ["without the network", "with the network"]
    for row in rows:
        assert row["objects"] == "2" and row["failed"] == "0"
        assert 1 <= float(row["mean"]) <= 10 and float(row["IoU of a box"]) > 0.8

    (tmp_path / "empty").mkdir()
    result = inline("scripts/benchmark.py", "clicks", "--pairs", tmp_path / "empty", "--output", output)
    assert_refused(result, tmp_path / "empty", "holds no pairs")
