"""eval_davis.py as its users run it: real processes on clips in DAVIS's layout."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import SMALL, assert_alone, assert_refused, read_table, write_davis
from dataset.files.images import davis_palette, read_image, read_mask, to_tensor, write_mask
from dataset.layouts.davis import DAVIS
from model import RDE_VOS, save_network
from model.fast import conversion
from model.inference import InferenceCore
from util import files
from util.errors import InputError


@pytest.fixture(scope="module")
def davis(tmp_path_factory) -> Path:
    """Two clips of 2 objects, in an odd size."""
    return write_davis(tmp_path_factory.mktemp("davis"), {"long": 9, "short": 4}, size=(49, 75))


@pytest.fixture
def evaluate(command, inline, davis, small_checkpoint, tmp_path):
    """Run eval_davis.py, without ``processes`` in this process; what is not given is the small network on two clips."""

    def run(*flags: object, model=small_checkpoint, path=davis, output=tmp_path / "output", processes=None):
        arguments = ("--model", model, "--davis_path", path, "--output", output, "--device", "cpu", *flags)
        if processes is None:
            return inline("eval_davis.py", *arguments)
        return command("eval_davis.py", *arguments, processes=processes)

    return run


def masks(output: Path) -> dict[str, np.ndarray]:
    return {
        f"{p.parent.name}/{p.name}": read_mask(p) for p in sorted(output.glob("*/*.png")) if p.parent.name != "overlay"
    }


def figures(path: Path) -> dict[str, float]:
    (row,) = read_table(path)
    return {name: float(value) for name, value in row.items()}


def test_compile_reaches_the_network(evaluate, monkeypatch):
    backends = []
    monkeypatch.setattr(conversion, "compile_network", lambda network, backend: backends.append(backend))
    evaluate("--compile", "--video_names", "short").checked()
    assert backends == ["inductor"]


def test_masks_scores_pictures_and_a_report(evaluate, inline, davis, small_network, tmp_path):
    result = evaluate("--overlay", processes=1).checked()
    output = tmp_path / "output"
    written = masks(output)
    assert len(written) == 13

    core = InferenceCore(small_network)
    base = davis / "trainval"
    for t in range(9):
        image = to_tensor(read_image(base / "JPEGImages/480p/long" / f"{t:05d}.jpg"))
        mask = torch.from_numpy(read_mask(base / "Annotations/480p/long/00000.png")) if t == 0 else None
        expected = core.step(image, mask).argmax(0).numpy()
        assert (written[f"long/{t:05d}.png"] != expected).mean() < 1e-3  # rounding may decide a pixel
    with Image.open(output / "long" / "00003.png") as image:
        assert image.mode == "P" and bytes(image.getpalette()) == davis_palette()

    results = figures(output / "global_results-val.csv")
    assert next(iter(results)) == "J&F-Mean"
    assert all(0 <= results[name] <= 1 for name in ("J-Mean", "F-Mean", "J-Recall"))
    rows = (output / "per-sequence_results-val.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["Sequence", "long_1", "long_2", "short_1", "short_2"]
    for text in ("FPS", "13 frames", "peak memory", "J&F-Mean", "long_1"):
        assert text in result.stdout

    assert read_image(output / "overlay" / "long" / "00008.jpg").shape == (49, 75, 3)
    assert read_image(output / "overlay" / "long.jpg").shape[1] > 1000
    assert (output / "overlay" / "short.jpg").is_file()

    result = inline("scripts/report.py", output).checked()
    assert re.search(rf"^{re.escape(str(output))}/report.html \([\d.]+ MiB\)$", result.stdout)


def test_a_rerun_goes_on_where_the_last_one_stopped(evaluate, tmp_path):
    assert evaluate().returncode == 0
    output = tmp_path / "output"
    before = {path: path.stat().st_mtime_ns for path in output.glob("*/*.png")}
    complete = masks(output)
    # As if the run had been stopped within "short": its record is missing and so are some of its masks.
    (output / ".records" / "short.json").unlink()
    (output / "short" / "00002.png").unlink()
    assert "13 frames" in evaluate().checked().stdout
    after = {path: path.stat().st_mtime_ns for path in output.glob("*/*.png")}
    assert {p.parent.name for p in before if after[p] == before[p]} == {"long"}
    assert {p.parent.name for p in before if after[p] != before[p]} == {"short"}
    assert all(np.array_equal(mask, masks(output)[name]) for name, mask in complete.items())
    assert not list(output.rglob("*.tmp"))


def test_a_video_whose_frames_were_replaced_is_made_again(evaluate, tmp_path):
    root = write_davis(tmp_path / "davis", {"long": 4, "short": 3})
    assert evaluate(path=root).returncode == 0
    before = masks(tmp_path / "output")
    frames = sorted((root / "trainval/JPEGImages/480p/short").iterdir())
    Image.fromarray(255 - read_image(frames[1])).save(frames[1])
    assert "note: the frames of short have been replaced" in evaluate(path=root).checked().stdout
    after = masks(tmp_path / "output")
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert "short/00001.png" in changed and not any(name.startswith("long") for name in changed)


def test_results_of_other_settings_are_not_mixed(evaluate, published_checkpoint, tmp_path):
    assert evaluate().returncode == 0
    assert_refused(
        evaluate("--mem_every", 5), tmp_path / "output", "mem_every", "choose another folder or delete this one"
    )
    assert_refused(evaluate(model=published_checkpoint), tmp_path / "output", "model")
    assert_refused(evaluate(path=write_davis(tmp_path / "davis", {"long": 9})), tmp_path / "output", "data")


def test_on_cpus_without_bf16_amp_is_fp32(evaluate, monkeypatch, tmp_path):
    assert evaluate(output=tmp_path / "fp32").returncode == 0
    # In a process of its own: oneDNN reads the variable once, when it is first used.
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert "--amp has no effect" in evaluate("--amp", processes=1).checked().stdout
    assert all(np.mean(masks(tmp_path / "fp32")[k] == ids) > 0.999 for k, ids in masks(tmp_path / "output").items())


def test_two_processes_share_the_videos(evaluate, tmp_path):
    assert evaluate(output=tmp_path / "one").returncode == 0
    assert evaluate(output=tmp_path / "two", processes=2).checked().stdout.count("FPS") == 1
    one, two = masks(tmp_path / "one"), masks(tmp_path / "two")
    assert one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)
    assert figures(tmp_path / "one/global_results-val.csv") == figures(tmp_path / "two/global_results-val.csv")


def test_the_output_of_a_running_evaluation_is_refused(evaluate, tmp_path):
    with files.lock_folder(tmp_path / "output"):
        result = evaluate(processes=2)
    # One process says it, and the other one, too, unless it has lost the first or torchrun has ended it before.
    # torchrun adds a report with its own traceback.
    assert result.returncode and "exitcode  : 2 " in result.stderr, result.stderr
    sentences = {line for line in result.stderr.splitlines() if line.startswith("error: ")}
    refusal = f"error: another process uses {tmp_path / 'output'}; wait until it has ended, or choose another folder"
    assert refusal in sentences and all("lost another process" in other for other in sentences - {refusal})
    assert "RuntimeError" not in result.stderr  # of a process that waits for another one
    assert not (tmp_path / "output").exists()


def test_one_evaluation_at_a_time_uses_an_output(evaluate, tmp_path):
    assert_alone(evaluate, tmp_path / "output", ".records", "overlay", "overlay/long")


def test_davis_2016_is_one_object_in_white(evaluate, davis, tmp_path):
    result = evaluate("--year", 2016, "--overlay").checked()
    written = masks(tmp_path / "output")
    assert len(written) == 13 and set(np.unique(list(written["long/00000.png"]))) == {0, 255}
    assert all(set(np.unique(mask)) <= {0, 255} for mask in written.values())
    assert "long_1" in result.stdout and "long_2" not in result.stdout
    # White is hard to see over a frame, so the pictures show the object in the first colour, magenta.
    frame = read_image(davis / "trainval/JPEGImages/480p/long/00000.jpg").astype(float)
    drawn = read_image(tmp_path / "output/overlay/long/00000.jpg")
    red, green, blue = (drawn - frame)[written["long/00000.png"] == 255].mean(axis=0)
    assert red > green + 50 and blue > green + 50


def test_testdev_has_first_masks_only_and_no_scores(evaluate, davis, tmp_path):
    """In the layout of the download, without the level of trainval/ and test-dev/."""
    root = tmp_path / "download"
    shutil.copytree(davis / "trainval", root)
    (root / "ImageSets/2017/val.txt").rename(root / "ImageSets/2017/test-dev.txt")
    for mask in root.glob("Annotations/480p/*/*.png"):
        if mask.stem != "00000":
            mask.unlink()
    result = evaluate("--split", "testdev", path=root).checked()
    assert len(masks(tmp_path / "output")) == 13 and "J&F" not in result.stdout
    assert not list((tmp_path / "output").glob("*.csv"))


def _masks_of_2016(path: Path) -> None:
    for mask in path.parent.iterdir():
        write_mask(mask, np.where(read_mask(mask) > 0, np.uint8(255), np.uint8(0)))


IMAGES, MASK, LIST = "JPEGImages/480p/clip", "Annotations/480p/clip/00000.png", "ImageSets/2017/val.txt"
TRUTH = MASK.replace("00000", "00002")
MANY_IDS = np.arange(48 * 80, dtype=np.uint16).reshape(48, 80)
# What is damaged of a fresh data set, how, and what the refusal mentions beside it.
DAMAGES = {
    "no list": (LIST, Path.unlink, "missing"),
    "no first mask": (MASK, Path.unlink, "missing"),
    "a corrupt mask": (MASK, lambda path: path.write_text("no image"), "decoded"),
    "a mask of another size": (MASK, lambda path: write_mask(path, np.ones((20, 30), np.uint8)), "30×20"),
    "no objects": (MASK, lambda path: write_mask(path, np.zeros((48, 80), np.uint8)), "no object"),
    "masks of 2016": (MASK, _masks_of_2016, "year 2016"),
    "no truth": (TRUTH, Path.unlink, "missing"),
    "truth of another size": (TRUTH, lambda path: write_mask(path, np.ones((20, 30), np.uint8)), "30×20", "80×48"),
    "ids of 16 bits": (MASK, lambda path: Image.fromarray(MANY_IDS).save(path), "from 1 to 255", "convert_mask.py"),
    "a coloured mask": (MASK, lambda path: Image.new("RGB", (80, 48), "red").save(path), "palette"),
    "a lost frame": (IMAGES, lambda path: (path / "00003.jpg").unlink(), "no frame", "00003.png"),
    "a corrupt frame": (f"{IMAGES}/00002.jpg", lambda path: path.write_bytes(path.read_bytes()[:300]), "decoded"),
    "a frame of another size": (f"{IMAGES}/00002.jpg", lambda path: Image.new("RGB", (40, 40)).save(path), "40×40"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_data_set_is_refused_before_anything_is_segmented(evaluate, tmp_path, damage):
    root = write_davis(tmp_path / "davis", {"clip": 4})
    place, change, *mentioned = DAMAGES[damage]
    change(root / "trainval" / place)
    assert_refused(evaluate(path=root), root / "trainval" / place, *mentioned)
    assert not (tmp_path / "output" / "clip").exists()


def test_wrong_flags_are_refused(evaluate, published_state, tmp_path):
    stcn = {name: tensor for name, tensor in published_state.items() if not name.startswith("mem_compress.")}
    torch.save(stcn, tmp_path / "stcn.pth")
    assert_refused(evaluate("--bank", "2F+X"), "2F+X", "2F+L+RDE")
    assert_refused(evaluate("--mem_every", 0), "mem_every", "is not an integer from 1 to")
    assert_refused(evaluate("--device", "abacus"), "device abacus", "device cpu")
    assert_refused(evaluate(output=tmp_path / "stcn.pth"), tmp_path / "stcn.pth", "cannot be written")
    assert_refused(evaluate(model=tmp_path / "stcn.pth"), "no SAM", "2F+L")
    assert not (tmp_path / "output").exists()


def test_peak_memory_does_not_depend_on_the_length_of_the_video(command, tmp_path):
    """A clip, and a clip 20 times as long; STM's bank grows. Wide values make the size of a bank show."""
    torch.manual_seed(0)
    narrow = {"key_backbone": "resnet10", "key_width": 16, "mask_backbone": "resnet10", "mask_width": 16}
    save_network(RDE_VOS(replace(SMALL, value_channels=512, **narrow)), tmp_path / "wide.pth")
    peaks = {}
    for times in (1, 20):
        root = write_davis(tmp_path / f"davis{times}", {"clip": 10 * times}, size=(120, 216), objects=1)
        for bank in ("2F+L+RDE", "STM"):
            output = tmp_path / f"{bank}-{times}"
            arguments = ("--davis_path", root, "--output", output, "--bank", bank, "--mem_every", 1)
            result = command("eval_davis.py", "--model", tmp_path / "wide.pth", *arguments)
            assert result.returncode == 0, result.stderr
            (line,) = (line for line in result.stdout.splitlines() if line.startswith("peak memory"))
            peaks[bank, times] = float(line.split()[2])
    assert peaks["2F+L+RDE", 20] == pytest.approx(peaks["2F+L+RDE", 1], rel=0.05)
    # 190 updates of 8×14 positions with 528 fp32 numbers each are 0.04 GiB; reading needs as much again for a moment.
    assert peaks["STM", 20] > peaks["STM", 1] + 0.04


def test_the_other_year_is_named(tmp_path):
    write_davis(tmp_path, {"clip": 3})
    shutil.rmtree(tmp_path / "trainval/ImageSets/2017")
    with pytest.raises(InputError, match="add --year 2016"):
        DAVIS(tmp_path)
    (tmp_path / "trainval/ImageSets/2016").rename(tmp_path / "trainval/ImageSets/480p")
    with pytest.raises(InputError, match="download of DAVIS 2016"):
        DAVIS(tmp_path)
    (tmp_path / "trainval/ImageSets/480p").rename(tmp_path / "trainval/ImageSets/2017")
    for path in (tmp_path / "trainval/Annotations/480p/clip").glob("0000[12].png"):
        path.unlink()
    with pytest.raises(InputError, match=r"eval_folder\.py"):
        DAVIS(tmp_path).videos()
