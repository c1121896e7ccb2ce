"""The README's Python runs as printed, in a folder that is not the project's."""

import re
import subprocess
import sys

import numpy as np
from PIL import Image

from conftest import ROOT, draw_clip, write_video
from dataset.files.images import read_mask, write_mask
from util.evaluation.metrics import region_similarity


def test_the_python_of_the_readme_runs_from_another_folder(tmp_path):
    """It segments three frames, in the last of which object 2 enters, then a folder of six, where it enters in the
    fourth, then a video that stands in for the webcam."""
    frames, ids = draw_clip(6, 96, 160, 2)
    (tmp_path / "RDE-VOS").symlink_to(ROOT)
    (tmp_path / "frames").mkdir()
    for t, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "frames" / f"{t:05d}.jpg", quality=95)
        Image.fromarray(frame).save(tmp_path / f"{t:05d}.jpg", quality=95)
    for folder, entry in ((tmp_path, 2), (tmp_path / "given", 3)):
        write_mask(folder / "00000.png", ids[0] * (ids[0] == 1))
        write_mask(folder / f"{entry:05d}.png", ids[entry] * (ids[entry] == 2))
    (tmp_path / "model.py").write_text("raise ImportError('this module belongs to the program')\n")

    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.M)
    assert blocks and "cv2.VideoCapture(0)" in blocks[1]
    write_video(tmp_path / "webcam.mp4", frames)
    blocks[1] = blocks[1].replace("cv2.VideoCapture(0)", "cv2.VideoCapture('webcam.mp4')")
    shown = "print(core.object_ids, list(prob.shape))"
    program = "\n".join([blocks[0], shown, *blocks[1:], shown, "print(np.unique(ids), picture.shape)"])
    program = f"import numpy as np\n{program}"
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    result = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "[1, 2] [3, 96, 160]\n[1] [2, 96, 160]\n[0 1] (96, 160, 3)\n"

    masks = [read_mask(path) for path in sorted((tmp_path / "masks").iterdir())]
    assert [np.unique(mask).tolist() for mask in masks] == [[0, 1]] * 3 + [[0, 1, 2]] * 3
    for mask, truth in zip(masks, ids, strict=True):
        for each in np.unique(mask)[1:]:
            assert region_similarity(truth == each, mask == each) > 0.5
