"""scripts/benchmark.py gpu: its measurements on a CPU and in tiny sizes, its table, and what it does without a GPU."""

import csv
from functools import partial

import pytest
import torch

from benchmarks import engine, gpu
from benchmarks.common import Figures, Measurement
from conftest import assert_refused

CPU = torch.device("cpu")
FIGURES = Figures(20.0, 50.0, 900.5, 100.25)


def fail(error: Exception) -> Figures:
    raise error


def measured(work: partial) -> Measurement:
    return Measurement("engine", "1 object", "fp32", "plain", work)


@pytest.fixture
def plan(small_checkpoint, monkeypatch) -> list[Measurement]:
    """The measurements of the command, with a small network, small frames and few of them."""
    tiny = {"SIZE": (48, 64), "CLIP_FRAMES": 4, "OBJECTS": (1, 2), "TIMES": (1, 2), "CROP_SIZE": 32}
    for name, value in {**tiny, "BATCH_SIZES": (1, 2), "STEPS": {}}.items():
        monkeypatch.setattr(gpu, name, value)
    return gpu.planned(small_checkpoint, CPU, compiler="eager")


def test_every_kind_of_measurement_runs(plan, monkeypatch):
    monkeypatch.setitem(engine.DTYPES, "fp16", torch.float32)  # few CPUs have convolutions in fp16
    chosen = [
        ("1 object", "fp32", "plain"),
        ("2 objects", "TF32", "fast"),
        ("1 object", "bf16", "plain"),
        ("2 objects", "fp16", "fast, torch.compile"),
        ("2F+L+RDE, 2 × 4 frames", "fp16", "fast"),
        ("STM, 2 × 4 frames", "fp16", "fast"),
        ("batch of 2", "bf16 autocast", "plain"),
    ]
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    rows = list(gpu.run([measurement for measurement in plan if measurement[1:4] in chosen], 600))
    after = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    assert after == before
    assert sorted(tuple(row[1:4]) for row in rows) == sorted(chosen)
    for part, what, _, _, per_second, milliseconds, peak, growth, note in rows:
        assert note == "" and 0 <= growth < peak
        per_step = int(what.split()[-1]) if part == "training step" else 1
        assert per_second == pytest.approx(1000 * per_step / milliseconds) and per_second > 0


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", False), ("TF32", True)])
def test_precisions_set_and_restore_tf32(precision, tf32):
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with pytest.raises(ZeroDivisionError), engine.precision_of_torch(precision):
        assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (tf32, tf32)
        raise ZeroDivisionError
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


def test_failures_are_lines_of_the_table(tmp_path):
    errors = [torch.OutOfMemoryError("CUDA out of memory. Tried"), RuntimeError("the compiler | failed\nin line 3")]
    rows = list(gpu.run([measured(partial(fail, error)) for error in errors], 600))
    assert [row[4:] for row in rows] == [
        ["", "", "", "", "out of memory"],
        ["", "", "", "", "failed: RuntimeError the compiler | failed"],
    ]
    gpu.write_tables(tmp_path / "gpu.csv", "a GPU", rows)
    table = (tmp_path / "gpu.md").read_text().splitlines()
    assert len({line.count("|") for line in table[2:]}) == 1, "no text adds a column"


def test_nothing_begins_after_the_time():
    (row,) = gpu.run([measured(partial(fail, AssertionError("has begun")))], 0)
    assert row[4:] == ["", "", "", "", "not measured, out of time"]


def test_without_a_gpu_one_sentence_says_so(inline, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = inline("scripts/benchmark.py", "gpu", "--output", tmp_path / "gpu.csv")
    assert_refused(result, "NVIDIA GPU")
    assert result.stdout == "" and list(tmp_path.iterdir()) == []


def test_the_command_prints_a_line_for_each_measurement_and_writes_both_tables(inline, monkeypatch, tmp_path):
    works = [partial(Figures, *FIGURES), partial(fail, torch.OutOfMemoryError("CUDA out of memory"))]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "choose_device", {"cuda": CPU}.get)
    monkeypatch.setattr(gpu, "planned", lambda model, device: list(map(measured, works)))
    result = inline("scripts/benchmark.py", "gpu", "--output", tmp_path / "gpu.csv")
    assert result.returncode == 0, result.stderr
    machine, first, second, paths = result.stdout.splitlines()
    assert "854×480" in machine and "384×384" in machine
    assert first == "1/2 engine, 1 object, fp32, plain: 20 per second, 50 ms, peak 900.5 MiB"
    assert second == "2/2 engine, 1 object, fp32, plain: out of memory"
    assert paths.split() == [str(tmp_path / "gpu.csv"), str(tmp_path / "gpu.md")]
    title, _, header, _, *lines = (tmp_path / "gpu.md").read_text().splitlines()
    assert title == machine and header == f"| {' | '.join(gpu.COLUMNS)} |"
    assert lines == [
        "| engine | 1 object | fp32 | plain | 20 | 50 | 900.5 | 100.2 |  |",
        "| engine | 1 object | fp32 | plain |  |  |  |  | out of memory |",
    ]
    with open(tmp_path / "gpu.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == list(gpu.COLUMNS) and rows[1][4] == "20.000000" and rows[2][-1] == "out of memory"
