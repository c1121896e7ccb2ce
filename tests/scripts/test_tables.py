"""The scripts that regenerate the paper's Tables 5 and 6 and Figure 3, on tiny clips, and those beside them."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import assert_refused, read_table, write_davis
from dataset.files.images import read_image, read_mask, to_tensor, write_mask
from dataset.layouts.davis import DAVIS
from model.inference import InferenceCore
from model.memory import BANKS
from tables.long_run import LongRun
from util import files
from util.evaluation.metrics import contour_accuracy, region_similarity

CLIPS = {"cows": 6, "other": 4}


@pytest.fixture(scope="module")
def davis(tmp_path_factory) -> Path:
    return write_davis(tmp_path_factory.mktemp("davis"), CLIPS)


@pytest.fixture
def arguments(davis, small_checkpoint, tmp_path):
    """The command line of a script for the small network on the clips."""

    def build(script: str, *flags: object, path: Path = davis) -> tuple:
        common = ("--model", small_checkpoint, "--davis_path", path, "--output", tmp_path, "--device", "cpu")
        return (f"scripts/tables/{script}", *common, *flags)

    return build


def test_table_5_of_every_bank_and_interval(arguments, inline, davis, tmp_path):
    inline(*arguments("ablate_banks.py")).checked()
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

    # What is finished is read; a lost mask is made again, and only in the run that lacks it, which is scored again.
    lost = tmp_path / "F+L-3/cows/00003.png"
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png") if path.name != "table5.png"}
    lost.unlink()
    (tmp_path / "F+L-3/global_results-val.csv").write_text("J&F-Mean,J-Mean,F-Mean\n0.1,0.1,0.1\n")
    (tmp_path / "table5.csv").unlink()
    assert inline(*arguments("ablate_banks.py")).returncode == 0
    assert {path.parent for path, time in kept.items() if path.stat().st_mtime_ns != time} == {lost.parent}
    assert [row["J&F"] for row in read_table(tmp_path / "table5.csv")] == [row["J&F"] for row in rows]

    inline(*arguments("ablate_banks.py", "--banks", "F", "--mem_every")).checked()
    assert len(read_table(tmp_path / "table5.csv")) == 1


def test_table_5_of_a_chosen_video_of_davis_2016_scores_the_merged_object(arguments, inline, davis, tmp_path):
    flags, one = ("--banks", "F", "--mem_every"), DAVIS(davis, 2016).videos()[-1].name
    inline(*arguments("ablate_banks.py", "--year", 2016, "--video_names", one, *flags)).checked()
    assert [row["Sequence"] for row in read_table(tmp_path / "F-3/per-sequence_results-val.csv")] == [f"{one}_1"]
    masks = list((tmp_path / "F-3").glob("*/*.png"))
    assert {path.parent.name for path in masks} == {one}
    assert {value for path in masks for value in np.unique(read_mask(path))} <= {0, 255}
    assert_refused(inline(*arguments("ablate_banks.py", "--video_names", one, *flags)), "another year")
    assert_refused(inline(*arguments("ablate_banks.py", "--year", 2016, *flags)), "another videos")


@pytest.mark.parametrize("script", ["ablate_banks.py", "long_video.py", "ablate_losses.py"])
def test_the_folder_of_a_running_table_is_refused(inline, davis, monkeypatch, tmp_path, script):
    monkeypatch.setattr(files, "_PATIENCE", 0.1)
    with files.lock_folder(tmp_path):
        result = inline(f"scripts/tables/{script}", "--davis_path", davis, "--output", tmp_path)
    assert_refused(result, "another process uses", tmp_path)


def test_a_clip_that_is_too_short_for_the_bank_of_stm(arguments, inline, tmp_path):
    result = inline(*arguments("long_video.py", "--year", 2016, "--banks", "STM", "--times", 1))
    assert result.returncode == 0 and "every 60th frame, adds 0 of the 12 frames" in result.stdout


def test_figure_3_of_a_clip_played_forward_and_backward(arguments, command, inline, davis, small_network, tmp_path):
    flags = ("--year", 2016, "--stm_mem_every", 3, "--times")
    result = command(*arguments("long_video.py", *flags, 2)).checked()
    assert "almost unchanged" in result.stdout and "note: STM" not in result.stdout
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
            core.step(images[t], torch.from_numpy(truth[0] > 0).int() if n == 0 else None)
            for n, t in enumerate(unit * 2)
        ]
        pairs = [(truth[t] > 0, p.argmax(0).numpy() == 1) for t, p in list(zip(unit * 2, predicted, strict=True))[1:-1]]
        assert float(row["J"]) == pytest.approx(100 * np.mean([region_similarity(*pair) for pair in pairs]), abs=0.1)
        assert float(row["F"]) == pytest.approx(100 * np.mean([contour_accuracy(*pair) for pair in pairs]), abs=0.1)
    assert read_image(tmp_path / "figure3.png").shape[1] > 1000

    # A finished run is not done again: its record is what the table shows.
    record = tmp_path / ".records/STM-3-2.json"
    finished = json.loads(record.read_text())
    record.write_text(json.dumps({**finished, "j": [[0.5]] * 22, "f": [[0.7]] * 22}))
    assert inline(*arguments("long_video.py", *flags, 2)).returncode == 0
    assert read_table(tmp_path / "figure3.csv")[1]["J&F"] == "60.000000"
    record.write_text(json.dumps({**finished, "j": "x"}))
    assert_refused(inline(*arguments("long_video.py", *flags, 2)), record, "delete")
    assert_refused(inline(*arguments("long_video.py", *flags, 2, "--top", 20)), tmp_path, "top_k")
    assert_refused(inline(*arguments("long_video.py", *flags, 2, "--confirm_updates")), tmp_path, "confirm_updates")
    assert_refused(inline(*arguments("long_video.py", *flags, 2, "--forward")), "--times", "--forward")


def test_a_long_video_whose_objects_leave_and_return(arguments, inline, small_network, tmp_path):
    """Drift, recovery and the rest by hand; object 2 is hidden for a moment, and then away for 30 frames."""
    frames, away = 100, {*range(5, 10), *range(30, 60)}
    base = write_davis(tmp_path / "davis", {"long": frames, "short": 2}) / "trainval"
    truth = []
    for t in range(frames):
        path = base / f"Annotations/480p/long/{t:05d}.png"
        ids = read_mask(path)
        if t in away:
            ids[ids == 2] = 0
            write_mask(path, ids)
        truth.append(ids)

    def measure(*flags: object, video: str = "long") -> subprocess.CompletedProcess:
        chosen = ("--video", video, "--forward", *flags)
        return inline(*arguments("long_video.py", *chosen, path=tmp_path / "davis"))

    measure("--banks", "F+L", "--mem_every", 5).checked()
    first = (tmp_path / ".records/F+L-5-forward.json").stat().st_mtime_ns
    # A bank that is added later is measured alone.
    measure("--banks", "F+L", "STM", "--mem_every", 5, "--stm_mem_every", 20).checked()
    assert (tmp_path / ".records/F+L-5-forward.json").stat().st_mtime_ns == first
    rows = read_table(tmp_path / "long.csv")
    described = [(row["Bank"], row["θ"], row["Times"], row["Frames"]) for row in rows]
    assert described == [("F+L", "5", "", "100"), ("STM", "20", "", "100")]

    for row in rows:
        core = InferenceCore(small_network, bank=row["Bank"], mem_every=int(row["θ"]))
        scores = {}
        for t in range(frames):
            image = to_tensor(read_image(base / f"JPEGImages/480p/long/{t:05d}.jpg"))
            ids = core.step(image, torch.from_numpy(truth[0]) if t == 0 else None).argmax(0).numpy()
            for i in (1, 2):
                pair = truth[t] == i, ids == i
                scores[t, i] = 50 * (region_similarity(*pair) + contour_accuracy(*pair))
        scored = range(1, frames - 1)
        gone = {(t, 2) for t in away}
        expected = {
            "J&F": [scores[t, i] for t in scored for i in (1, 2)],
            "J&F present": [scores[t, i] for t in scored for i in (1, 2) if (t, i) not in gone],
            "J&F absent": [scores[place] for place in gone],
            "Recovery": [scores[t, 2] for t in scored if t >= 60],
        }
        for name, values in expected.items():
            assert float(row[name]) == pytest.approx(np.mean(values), abs=0.1), name
        early, late = ([scores[t, i] for t in part for i in (1, 2)] for part in (range(1, 10), range(90, 99)))
        assert float(row["Drift"]) == pytest.approx(np.mean(late) - np.mean(early), abs=0.1)
    assert read_image(tmp_path / "long.png").shape[1] > 1000
    assert_refused(measure(video="short"), "nothing is left to score")


def test_recovery_is_the_first_fifty_frames_after_a_long_absence():
    shown = np.array([True] * 10 + [False] * 24 + [True] * 10 + [False] * 25 + [True] * 30 + [False] * 3 + [True] * 40)
    j = np.arange(len(shown), dtype=float)[:, None] / len(shown)
    run = LongRun(j, j, shown[:, None], np.ones(len(shown) + 2), np.ones(len(shown) + 2))
    assert run.recovery == pytest.approx(np.concatenate([j[69:99], j[102:122]]).mean())
    always = LongRun(j, j, np.ones_like(j, dtype=bool), run.seconds, run.memory)
    assert np.isnan(always.recovery) and np.isnan(always.while_absent)


@pytest.fixture
def fake_runs(monkeypatch, tmp_path):
    """Instead of training and segmenting, write what train.py and eval_davis.py leave; returns what was called."""
    calls = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess:
        calls.append(command[1:])
        if command[1].endswith("train.py"):
            folder = Path(command[command.index("--runs") + 1]) / command[command.index("--id") + 1]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "network.pth").touch()
            return subprocess.CompletedProcess(command, 0)
        output = Path(command[command.index("--output") + 1])
        output.mkdir(exist_ok=True)
        score = 0.5 - 0.1 * ("wo_L_MC" in str(output)) + 0.02 * str(output.parent).endswith("1")
        header = "J&F-Mean,J-Mean,J-Recall,J-Decay,F-Mean,F-Recall,F-Decay"
        (output / "global_results-val.csv").write_text(f"{header}\n{score},{score},0,0,{score},0,0\n")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_table_6_of_every_loss_and_seed(inline, fake_runs, davis, tmp_path):
    where = ("--davis_path", davis, "--output", tmp_path)
    command = ("scripts/tables/ablate_losses.py", *where, "--seeds", 0, 1, "--", "--stage", 3, "--mu", 5)
    inline(*command).checked()
    rows = read_table(tmp_path / "table6.csv")
    assert [row["Losses"] for row in rows] == ["w/o L_MC", "w/o L_UG", "w/o L_MC & L_UG", "L_Seg w/o STM", "full"]
    assert (rows[0]["J&F"], rows[0]["J&F, seed 1"], rows[-1]["J&F"]) == ("41.0", "42.0", "51.0")
    assert rows[-1]["Published J&F"] == "84.2"
    assert (tmp_path / "table6.png").stat().st_size > 10_000
    trained = [call for call in fake_runs if call[0].endswith("train.py")]
    assert len(trained) == 10 and all("--stage" in call and "--resume" in call for call in trained)
    assert [sum(flag in call for call in trained) for flag in ("--without_mc", "--without_ug", "--without_stm")] == [
        *(4, 4, 2)
    ]
    # A setting of a loss goes only to the runs that have this loss.
    assert all((flag in call) == ("--without_ug" not in call) for call in trained for flag in ("--mu", "5"))
    # Both scripts know themselves what is done, and whether it was done with these flags.
    fake_runs.clear()
    assert inline(*command).returncode == 0 and len(fake_runs) == 20
    absent = ("--davis_path", tmp_path / "absent", "--output", tmp_path)
    fake_runs.clear()
    assert_refused(inline("scripts/tables/ablate_losses.py", *absent), tmp_path / "absent")
    assert not fake_runs


def test_training_curves(inline, tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path / "s0/log") as log:
        for step in range(1, 60):
            log.add_scalar("loss/ce_1", 1 / step, step)
    picture = tmp_path / "curves.png"
    inline("scripts/plot_training.py", tmp_path / "s0", "--output", picture).checked()
    assert read_image(picture)[:, :600].std() > 1
    assert_refused(inline("scripts/plot_training.py", tmp_path, "--output", tmp_path / "no.png"), tmp_path, "train.py")
