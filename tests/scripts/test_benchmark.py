"""scripts/benchmark.py on tiny sizes: every command's table is complete and agrees with its CSV file and itself."""

import csv
import re
from pathlib import Path

import pytest

from conftest import assert_refused, write_davis

MACHINE = ("--device", "cpu", "--threads", 1)


@pytest.fixture
def benchmark(command, small_checkpoint, tmp_path):
    """Run a command; returns its rows as the CSV file has them, after comparing the printed table with them."""

    def run(name: str, *flags: object) -> list[dict[str, str]]:
        output = tmp_path / "made" / f"{name}.csv"
        result = command(
            "scripts/benchmark.py", name, "--output", output, "--model", small_checkpoint, *MACHINE, *flags
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


def number(row: dict[str, str], column: str) -> float:
    return float(row[column])


def check_memory(rows: list[dict[str, str]]) -> None:
    for row in rows:
        assert 50 < number(row, "peak (MiB)") < 4096 and 0 <= number(row, "growth (MiB)") < number(row, "peak (MiB)")


def check_against_plain(row: dict[str, str], plain: dict[str, str]) -> None:
    expected = number(row, "growth (MiB)") / number(plain, "growth (MiB)")
    assert number(row, "growth / plain") == pytest.approx(expected, abs=1e-3)
    assert number(row, "time / plain") > 0
    if row is plain:
        assert number(row, "time / plain") == 1


def test_engines_on_a_folder(benchmark, tmp_path):
    base = write_davis(tmp_path, {"clip": 3}, nested=False)  # shorter than the run, and of another size
    clip = ("--video", base / "JPEGImages/480p/clip", "--mask", base / "Annotations/480p/clip/00000.png")
    flags = ("--objects", 2, "--size", "64x48", "--mem_every", 2, "--frames", 4, "--repetitions", 2)
    rows = benchmark("engine", *flags, *clip)
    assert [(row["objects"], row["engine"]) for row in rows] == [("2", "plain"), ("2", "fast"), ("2", "fast --amp")]
    check_memory(rows)
    for row in rows:
        parts = [number(row, f"{part} (ms)") for part in ("key encoder", "reading", "decoder", "mask encoder", "SAM")]
        assert min(parts) > 0
        # The median of two repetitions is their mean, so that the parts add up.
        assert sum(parts) + number(row, "rest (ms)") == pytest.approx(number(row, "ms per frame"), abs=1e-4)
        assert number(row, "FPS") == pytest.approx(1000 / number(row, "ms per frame"), rel=1e-3)
        check_against_plain(row, rows[0])
    plain, fast, amp = (number(row, "largest difference") for row in rows)
    assert plain == 0 and fast < 1e-4 and fast <= amp < 0.5  # equal on processors without bf16
    assert number(rows[0], "same ids (%)") == 100 and all(number(row, "same ids (%)") > 0 for row in rows)


def test_lengths(benchmark):
    rows = benchmark("length", "--size", "64x48", "--frames", 4, "--times", 2)
    assert [(row["bank"], row["times"], row["frames"]) for row in rows] == [("2F+L+RDE", "2", "8"), ("STM", "2", "8")]
    check_memory(rows)
    for row in rows:
        assert number(row, "FPS") == pytest.approx(1000 / number(row, "ms per frame"), rel=1e-3)


def test_training(benchmark):
    rows = benchmark("training", "--crop_size", 64, "--batch_size", 1, "--repetitions", 1)
    assert [row["pass"] for row in rows] == ["plain", "--recompute"]
    check_memory(rows)
    for row in rows:
        assert number(row, "step (ms)") > number(row, "forward (ms)") + number(row, "backward (ms)") > 0
        check_against_plain(row, rows[0])
    assert number(rows[1], "first loss") == pytest.approx(number(rows[0], "first loss"), rel=1e-4)
    assert number(rows[1], "largest difference of a term") < 1e-4


def test_what_cannot_be_measured_is_refused(inline, small_checkpoint, tmp_path: Path):
    def refused(name: str, *flags: object) -> object:
        return inline("scripts/benchmark.py", name, "--output", tmp_path / "table.csv", *flags)

    engine = ("engine", "--model", small_checkpoint, *MACHINE, "--size", "64x48")
    assert_refused(refused(*engine, "--frames", 4), "--frames 4", "--mem_every 3")
    assert_refused(refused(*engine, "--video", tmp_path), "--video", "--mask")
    base = write_davis(tmp_path, {"clip": 2}, nested=False)
    clip = ("--video", base / "JPEGImages/480p/clip", "--mask", base / "Annotations/480p/clip/00000.png")
    assert_refused(refused(*engine, *clip), "00000.png holds 2 objects", "--objects")
    assert_refused(refused("training", "--crop_size", 50), "--crop_size 50", "16")
    assert not (tmp_path / "table.csv").exists()
