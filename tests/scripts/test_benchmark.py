"""scripts/benchmark.py on tiny sizes: every command's table is complete and agrees with its CSV file and itself."""

import csv
import re
from pathlib import Path

import pytest

from conftest import assert_refused


@pytest.fixture
def benchmark(command, small_checkpoint, tmp_path):
    """Run a command; returns its rows as the CSV file has them, after comparing the printed table with them."""

    def run(name: str, *flags: object) -> list[dict[str, str]]:
        output = tmp_path / "made" / f"{name}.csv"
        result = command(
            "scripts/benchmark.py", name, "--output", output, "--model", small_checkpoint, "--device", "cpu", *flags
        )
        assert result.returncode == 0, result.stderr
        with open(output, newline="") as file:
            rows = list(csv.reader(file))
        _, *printed, path = result.stdout.splitlines()
        assert path == str(output) and [entry.name for entry in output.parent.iterdir()] == [output.name]
        assert len({len(line) for line in printed}) == 1, "the columns are aligned"
        cells = [re.split(r"  +", line.strip()) for line in printed]
        assert cells[0] == rows[0] and len(cells) == len(rows)
        for shown, row in zip(cells[1:], rows[1:], strict=True):
            for text, value in zip(shown, row, strict=True):
                assert text == value or float(text) == pytest.approx(float(value), rel=1e-3, abs=1e-6)
        return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]

    return run


def check(rows: list[dict[str, str]], samples: int) -> None:
    """Compare the columns of each row; ``samples`` are those of a frame or a step."""
    assert float(rows[0]["time / first"]) == 1
    for row in rows:
        numbers = {
            name: float(row[name]) for name in ("per second", "ms", "peak (MiB)", "growth (MiB)", "time / first")
        }
        assert numbers["per second"] == pytest.approx(1000 * samples / numbers["ms"], rel=1e-3)
        assert 50 < numbers["peak (MiB)"] < 4096 and 0 <= numbers["growth (MiB)"] < numbers["peak (MiB)"]
        assert numbers["time / first"] > 0


def test_engines(benchmark):
    rows = benchmark("engine", "--objects", 2, "--size", "64x48", "--frames", 4, "--repetitions", 1)
    variants = [("fp32", "plain"), ("fp32", "fast"), ("--amp", "fast")]
    assert [(row["what"], row["precision"], row["network"]) for row in rows] == [
        ("2 objects", *each) for each in variants
    ]
    check(rows, 1)


def test_training(benchmark):
    rows = benchmark("training", "--crop_size", 64, "--batch_size", 2, "--repetitions", 1)
    assert [(row["what"], row["network"]) for row in rows] == [("batch of 2", "plain"), ("batch of 2", "--recompute")]
    check(rows, 2)


def test_what_cannot_be_measured_is_refused(inline, tmp_path: Path):
    result = inline("scripts/benchmark.py", "training", "--output", tmp_path / "table.csv", "--crop_size", 50)
    assert_refused(result, "--crop_size 50", "16")
    assert not (tmp_path / "table.csv").exists()
