"""Faults of the machine and of files from outside: each ends with one sentence, or is worked around."""

import argparse
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import plain
from conftest import ROOT, assert_refused, draw_clip, full_disk, tensors, write_davis
from dataset.files.images import read_image, read_mask, write_mask
from dataset.layouts.youtube import read_meta
from model import save_network
from model.inference import InferenceCore
from util import argument_types
from util.errors import InputError
from util.files import atomic_path, write_csv
from util.training.run import RunFolder, TrainingState


@pytest.fixture(scope="module")
def davis(tmp_path_factory) -> Path:
    return write_davis(tmp_path_factory.mktemp("davis"), {"clip": 4})


@pytest.fixture
def evaluate(inline, davis, small_checkpoint, tmp_path):
    """Run eval_davis.py; what is not given is the small network on one clip."""

    def run(*flags: object, model=small_checkpoint, path=davis, output=tmp_path / "output"):
        return inline("eval_davis.py", "--model", model, "--davis_path", path, "--output", output, *CPU, *flags)

    return run


CPU = ("--device", "cpu")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# The disk is full.
def _write_zip(path: Path) -> None:
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.write(ROOT / "README.md", "README.md")


def _save_figure(path: Path) -> None:
    with atomic_path(path) as temporary:
        Figure().savefig(temporary)


WRITERS = {
    "mask.png": lambda path: write_mask(path, np.random.default_rng(0).integers(0, 9, (64, 64), dtype=np.uint8)),
    "table.csv": lambda path: write_csv(path, [["cell"] * 1000]),
    "a.zip": _write_zip,
    "report.png": _save_figure,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_no_part_of_a_file(name, tmp_path):
    path = tmp_path / "folder" / name
    with full_disk(400), pytest.raises(InputError) as error:
        WRITERS[name](path)
    for text in (path, f"free some space in {path.parent}"):
        assert str(text) in str(error.value)
    assert files(tmp_path) == []
    WRITERS[name](path)
    assert files(tmp_path) == [f"folder/{name}"]


def test_an_evaluation_goes_on_after_the_disk_was_full(evaluate, tmp_path):
    output = tmp_path / "output"
    assert evaluate("--bank", "F").returncode == 0
    complete = files(output)
    shutil.rmtree(output)
    with full_disk(500):  # room for the settings, not for a mask
        assert_refused(evaluate("--bank", "F"), "free some space in")
    assert files(output) == [".records/settings.json"]
    assert evaluate("--bank", "F").returncode == 0
    assert files(output) == complete


def test_segment_video_on_a_full_disk(inline, davis, small_checkpoint, tmp_path):
    clip = davis / "trainval/JPEGImages/480p/clip"
    mask = davis / "trainval/Annotations/480p/clip/00000.png"
    command = ("scripts/segment_video.py", clip, "--mask", mask, "--model", small_checkpoint, "--size", 48, *CPU)
    for kind in ("masks", "overlay"):
        with full_disk(100):
            result = inline(*command, "--format", kind, "--output", tmp_path / "output")
        assert_refused(result, f"free some space in {tmp_path / 'output'}")
        assert files(tmp_path) == []
    assert inline(*command, "--output", tmp_path / "output").returncode == 0


# Weights that are no argument_types.
def test_weights_that_are_no_numbers_are_refused(small_network, evaluate, tmp_path):
    save_network(small_network, tmp_path / "bad.pth")
    content = torch.load(tmp_path / "bad.pth", weights_only=True)
    content["network"]["decoder.predict.weight"].view(-1)[3] = float("nan")
    torch.save(content, tmp_path / "bad.pth")
    assert_refused(evaluate(model=tmp_path / "bad.pth"), tmp_path / "bad.pth", "decoder.predict.weight")
    assert not (tmp_path / "output").exists()


# Small and long frames.
@pytest.mark.parametrize("size", [(16, 16), (1, 40), (8, 200), (200, 8), (16, 33)])
def test_small_frames_are_segmented_as_the_paper_says(size, small_network):
    frames, _ = draw_clip(5, 208, 208, 1)
    images = [image[:, : size[0], : size[1]] for image in tensors(frames)]
    mask = torch.zeros(size, dtype=torch.uint8)
    mask[:, : size[1] // 2] = 1
    core = InferenceCore(small_network, mem_every=1)
    expected = plain.segment(small_network, images, {0: mask}, "2F+L+RDE", 1, 40)
    for t, image in enumerate(images):
        probability = core.step(image, mask if t == 0 else None)
        assert probability.shape == (2, *size)
        torch.testing.assert_close(probability, expected[t], atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(8, 8), (2000, 8)])
def test_small_and_long_frames_are_evaluated_and_drawn(size, evaluate, tmp_path):
    root = write_davis(tmp_path / "davis", {"clip": 3}, size=size, objects=1)
    result = evaluate("--overlay", path=root)
    assert result.returncode == 0, result.stderr
    assert read_mask(tmp_path / "output/clip/00002.png").shape == size
    assert read_image(tmp_path / "output/overlay/clip.jpg").shape[0] < 2000


# Ground truth that cannot be scored.
def test_255_is_no_object_of_davis_2017(evaluate, tmp_path):
    root = write_davis(tmp_path / "davis", {"clip": 4}, objects=1)
    for path in (root / "trainval/Annotations/480p/clip").iterdir():
        mask = read_mask(path)
        mask[:4] = 255
        write_mask(path, mask)
    assert evaluate(path=root).returncode == 0
    for t in range(4):
        assert set(np.unique(read_mask(tmp_path / f"output/clip/{t:05d}.png"))) <= {0, 1}
    rows = (tmp_path / "output/per-sequence_results-val.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["Sequence", "clip_1"]


# The folder of a training run.
def state_after(network, iteration: int) -> TrainingState:
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1])
    return TrainingState(network, optimizer, schedule, torch.amp.GradScaler("cpu", enabled=False), iteration)


def save_run(network, folder: Path, iterations: int) -> RunFolder:
    run = RunFolder(folder, "run")
    for iteration in range(1, iterations + 1):
        run.save(state_after(network, iteration))
    return run


def test_a_damaged_checkpoint_says_that_the_one_before_can_be_used(small_network, tmp_path):
    run = RunFolder(tmp_path, "run")
    assert run.read_latest() is None
    save_run(small_network, tmp_path, 3)
    shutil.copy(run.path / "checkpoint_3.pth", run.path / "checkpoint_9a.pth")
    assert run.read_latest()["iteration"] == 3
    newest, before = (run.path / f"checkpoint_{iteration}.pth" for iteration in (3, 2))
    newest.write_bytes(newest.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"checkpoint_3\.pth is not.*if you delete it"):
        run.read_latest()
    newest.unlink()
    assert run.read_latest()["iteration"] == 2
    save_network(small_network, before)
    with pytest.raises(InputError, match=r"checkpoint_2\.pth holds no iteration.*if you delete it"):
        run.read_latest()


def test_a_checkpoint_that_cannot_be_written_leaves_the_older_ones(small_network, tmp_path):
    run = save_run(small_network, tmp_path, 3)
    before = files(tmp_path)
    state = state_after(small_network, 4)
    with full_disk(10_000), pytest.raises(InputError, match=f"free some space in {run.path}"):
        run.save(state)
    assert files(tmp_path) == before
    with pytest.raises(InputError, match="does not fit"):
        state.restore({"iteration": 1})


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "", "/tmp/x"])
def test_the_name_of_a_run_is_no_path(name, tmp_path):
    with pytest.raises(InputError, match="cannot be the id of a run"):
        RunFolder(tmp_path, name)


# Files from outside.


@pytest.mark.parametrize(
    "objects", ["[" * 100_000, '{"videos": {"a": {"objects": {"0": {"frames": ["0"]}}}}}',
                '{"videos": {"a": {"objects": {"1": {"frames": "0"}}}}}',
                '{"videos": {"../a": {"objects": {"1": {"frames": ["0"]}}}}}'],
)  # fmt: skip
def test_a_list_of_objects_of_another_shape_is_refused(objects, tmp_path):
    (tmp_path / "meta.json").write_text(objects)
    with pytest.raises(InputError, match=r"meta\.json is not YouTube-VOS's list of objects"):
        read_meta(tmp_path / "meta.json")


def test_a_record_of_another_shape_is_refused(evaluate, tmp_path):
    assert evaluate("--bank", "F").returncode == 0
    record = tmp_path / "output/.records/clip.json"
    record.write_text(record.read_text().replace('"frames": 4', '"frames": "4"'))
    assert_refused(evaluate("--bank", "F"), record, "delete it")


# The command line.
@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (argument_types.positive, "1", ("0", "-1", "1.5", "x", str(2**31), "9" * 5000)),
        (argument_types.non_negative, "0", ("-1", "nan")),
        (argument_types.seed, "7", ("-1", str(2**63))),
        (argument_types.positive_float, "1e-5", ("0", "-1", "nan", "inf", "x")),
    ],
)
def test_numbers_on_the_command_line(kind, good, bad):
    assert kind(good) == float(good)
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match="is no"):
            kind(text)


def test_a_reader_that_has_gone_ends_a_command_without_a_word():
    program = """
from util.errors import command_line
@command_line
def main():
    for line in range(100_000):
        print(line)
main()
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 141


def test_processes_start_although_opencv_has_threads():
    program = (
        "import cv2, numpy; from util.parallel import in_processes; cv2.setNumThreads(4); "
        "cv2.GaussianBlur(numpy.zeros((2000, 2000, 4), numpy.uint8), (31, 31), 5); "
        "print(*in_processes(abs, [-1, -2], 2))"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.stdout == "1 2\n", result.stderr
