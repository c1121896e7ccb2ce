"""The scripts that regenerate the paper's Table 5 and Figure 3, on tiny clips."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import assert_refused, write_davis

from dataset.davis import DAVIS
from dataset.images import read_image, read_mask, to_tensor
from model.inference import InferenceCore
from model.memory import BANKS
from util.metrics import contour_accuracy, region_similarity

CLIPS = {"cows": 6, "other": 4}


@pytest.fixture(scope="module")
def davis(tmp_path_factory) -> Path:
    return write_davis(tmp_path_factory.mktemp("davis"), CLIPS)


@pytest.fixture
def arguments(davis, small_checkpoint, tmp_path):
    """The command line of a script for the small network on the clips."""

    def build(script: str, *flags: object, model: Path = small_checkpoint, path: Path = davis) -> tuple:
        return (
            f"scripts/{script}",
            "--model",
            model,
            "--davis_path",
            path,
            "--output",
            tmp_path,
            "--device",
            "cpu",
            *flags,
        )

    return build


def read_table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_table_5_of_every_bank_and_interval(arguments, inline, davis, tmp_path):
    result = inline(*arguments("ablate_banks.py"))
    assert result.returncode == 0, result.stderr
    rows = read_table(tmp_path / "table5.csv")
    # θ = 3 of the second half is the default bank of the first.
    intervals = [("2F+L+RDE", theta) for theta in ("2", "4", "5")]
    assert [(row["Bank"], row["θ"]) for row in rows] == [(bank, "3") for bank in BANKS] + intervals
    published = {(row["Bank"], row["θ"]): row["Published J&F"] for row in rows}
    assert published["RDE", "3"] == "81.8" and published["2F+L+RDE", "5"] == "84.2" and published["STM", "3"] == ""
    for row in rows:
        (figures,) = read_table(tmp_path / f"{row['Bank']}-{row['θ']}" / "global_results-val.csv")
        assert row["J&F"] == f"{100 * float(figures['J&F-Mean']):.1f}" and float(row["FPS"]) > 0
    assert read_image(tmp_path / "table5.png").shape[1] > 1000

    # What is finished is read; a lost mask is made again, and only in the run that lacks it.
    lost = tmp_path / "F+L-3/cows/00003.png"
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png") if path.name != "table5.png"}
    lost.unlink()
    (tmp_path / "table5.csv").unlink()
    assert inline(*arguments("ablate_banks.py")).returncode == 0
    assert {path.parent for path, time in kept.items() if path.stat().st_mtime_ns != time} == {lost.parent}
    assert [row["J&F"] for row in read_table(tmp_path / "table5.csv")] == [row["J&F"] for row in rows]

    result = inline(*arguments("ablate_banks.py", "--banks", "F", "--mem_every"))
    assert result.returncode == 0 and len(read_table(tmp_path / "table5.csv")) == 1


def test_table_5_refuses_what_cannot_work(arguments, inline, published_state, tmp_path):
    stcn = {name: tensor for name, tensor in published_state.items() if not name.startswith("mem_compress.")}
    torch.save(stcn, tmp_path / "stcn.pth")
    assert_refused(inline(*arguments("ablate_banks.py", model=tmp_path / "stcn.pth")), "no SAM")
    assert_refused(inline(*arguments("ablate_banks.py", "--banks", "--mem_every")), "--banks", "--mem_every")
    assert_refused(inline(*arguments("ablate_banks.py", "--mem_every", 0)), "mem_every")
    assert_refused(inline(*arguments("ablate_banks.py", path=tmp_path)), "val.txt", "missing")
    assert not list(tmp_path.glob("*-*"))


def test_figure_3_of_a_clip_played_forward_and_backward(arguments, command, inline, davis, small_network, tmp_path):
    flags = ("--stm_mem_every", 3, "--times")
    result = command(*arguments("long_video.py", *flags, 2))
    assert result.returncode == 0, result.stderr
    assert "almost unchanged" in result.stdout
    rows = read_table(tmp_path / "figure3.csv")
    assert [(row["Bank"], row["θ"], row["Times"], row["Frames"]) for row in rows] == [
        ("2F+L+RDE", "3", "2", "24"),
        ("STM", "3", "2", "24"),
    ]
    assert all(float(row["FPS"]) > 0 and 0.1 < float(row["Peak memory (GiB)"]) < 4 for row in rows)

    # The scores by hand: every frame but the first and the last, against the mask of the clip's frame.
    base = davis / "trainval"
    unit = [*range(6), *reversed(range(6))]
    truth = [read_mask(base / f"Annotations/480p/cows/{t:05d}.png") for t in range(6)]
    images = [to_tensor(read_image(base / f"JPEGImages/480p/cows/{t:05d}.jpg")) for t in range(6)]
    for row in rows:
        core = InferenceCore(small_network, bank=row["Bank"])
        predicted = [
            core.step(images[t], torch.from_numpy(truth[0]) if n == 0 else None) for n, t in enumerate(unit * 2)
        ]
        pairs = [
            (truth[t] == i, p.argmax(0).numpy() == i)
            for t, p in list(zip(unit * 2, predicted, strict=True))[1:-1]
            for i in (1, 2)
        ]
        assert float(row["J"]) == pytest.approx(100 * np.mean([region_similarity(*pair) for pair in pairs]), abs=0.1)
        assert float(row["F"]) == pytest.approx(100 * np.mean([contour_accuracy(*pair) for pair in pairs]), abs=0.1)
    assert read_image(tmp_path / "figure3.png").shape[1] > 1000

    # A finished run is not done again: its record is what the table shows.
    record = tmp_path / ".records/STM-2.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "j": 0.5, "f": 0.7}))
    assert inline(*arguments("long_video.py", *flags, 2)).returncode == 0
    assert read_table(tmp_path / "figure3.csv")[1]["J&F"] == "60.000000"
    assert_refused(inline(*arguments("long_video.py", "--times", 2)), tmp_path, "STM")
    assert_refused(inline(*arguments("long_video.py", *flags, 0)), "--times 0")
    assert_refused(inline(*arguments("long_video.py", *flags, 2, "--video", "absent")), "absent", "missing")


def test_a_clip_need_not_be_listed(tmp_path):
    root = write_davis(tmp_path, {"listed": 2, "other": 2})
    (root / "trainval/ImageSets/2017/val.txt").write_text("listed\n")
    assert len(DAVIS(root).video("other").frames) == 2
