"""What the tests share: stand-in weights of the published layout, a small network, tiny data, and command lines."""

import contextlib
import csv
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

import util.progress  # noqa: F401  (progressbar keeps the stderr of its import, which must not be that of one test)
from dataset.files.images import read_mask, to_tensor, write_mask
from dataset.files.video import AnyVideo
from dataset.files.video_file import video_writer
from model import RDE_VOS, NetworkConfig, load_network, save_network
from util import files
from util.distributed import Processes
from util.evaluation.output import OutputFolder
from util.evaluation.protocols import Evaluation
from util.evaluation.segmentation import EngineSettings, Segmented, segment

if TYPE_CHECKING:
    from selenium import webdriver

ROOT = Path(__file__).resolve().parents[1]
GOLDENS = ROOT / "tests" / "goldens"
sys.path.insert(0, str(GOLDENS))

import weights  # noqa: E402

# Tests that need a GPU ask for it; all others, and the processes that they start, see none.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

# A shell lets what runs in the background ignore Ctrl-C, and so would the processes that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)  # as many tests run at a time as there are cores

ENDED = 9**9  # no system has a process of this id
HANGS = 1200  # seconds after which a process hangs, however busy the machine is

# Big enough to have every part, small enough to run hundreds of frames in a test.
SMALL = NetworkConfig(
    key_backbone="resnet18",
    mask_backbone="resnet18",
    key_channels=16,
    value_channels=32,
    decoder_channels=(32, 24, 16),
)


@pytest.fixture(scope="session")
def published_state() -> dict[str, torch.Tensor]:
    """A state dict with the names and shapes of the published RDE-VOS checkpoints, filled with stand-in weights."""
    return weights.state_dict(json.loads((GOLDENS / "official_state_dict.json").read_text()))


@pytest.fixture(scope="session")
def published_checkpoint(published_state: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a file."""
    path = tmp_path_factory.mktemp("weights") / "published.pth"
    torch.save(published_state, path)
    return path


@pytest.fixture(scope="session")
def published_network(published_checkpoint: Path) -> RDE_VOS:
    """The same, loaded."""
    return load_network(published_checkpoint)


@pytest.fixture(scope="session")
def small_network() -> RDE_VOS:
    """A small network of every part, freshly initialised, always the same."""
    torch.manual_seed(0)
    return RDE_VOS(SMALL).eval()


@pytest.fixture(scope="session")
def small_checkpoint(small_network: RDE_VOS, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a file."""
    path = tmp_path_factory.mktemp("weights") / "small.pth"
    save_network(small_network, path)
    return path


def draw_clip(length: int, height: int, width: int, objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Discs that drift over a noisy gradient: uint8 frames [T,H,W,3] and ids [T,H,W], the first disc's id being 1."""
    rng = np.random.default_rng(height * width + objects)
    y, x = np.mgrid[:height, :width]
    frames = np.empty((length, height, width, 3), np.uint8)
    ids = np.zeros((length, height, width), np.uint8)
    background = np.stack([255 * x / width, 255 * y / height, 90 + 0 * x], axis=2)
    for t in range(length):
        frame = background + rng.normal(0, 8, background.shape)
        for number in range(1, objects + 1):
            centre_x = width * number / (objects + 1) + 2 * t % (width // 4)
            centre_y = height * (0.4 + 0.1 * (number % 3))
            disc = (x - centre_x) ** 2 + (y - centre_y) ** 2 < (min(height, width) / 5) ** 2
            frame[disc] = (40 * number, 255 - 40 * number, 60)
            ids[t][disc] = number
        frames[t] = frame.clip(0, 255)
    return frames, ids


def write_video(path: Path, frames: Sequence[np.ndarray], *, fps: float = 25, lossless: bool = False) -> None:
    """Write frames, uint8 RGB [H,W,3], as a video file."""
    with video_writer(path, frames[0].shape[:2], fps, lossless=lossless) as append:
        for frame in frames:
            append(frame)


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file by its header."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def contents(root: Path) -> dict[str, bytes]:
    """All files of a folder, by their paths in it."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def write_davis(
    root: Path, lengths: dict[str, int], *, size: tuple[int, int] = (48, 80), objects: int = 2, nested: bool = True
) -> Path:
    """Write synthetic clips in DAVIS's layout, listed as the val splits of 2016 and 2017; returns ``root``."""
    base = root / "trainval" if nested else root
    for year in ("2016", "2017"):
        (base / "ImageSets" / year).mkdir(parents=True)
        (base / "ImageSets" / year / "val.txt").write_text("\n".join(lengths) + "\n")
    for name, length in lengths.items():
        images, masks = (base / kind / "480p" / name for kind in ("JPEGImages", "Annotations"))
        images.mkdir(parents=True)
        frames, ids = draw_clip(length, *size, objects)
        for t in range(length):
            Image.fromarray(frames[t]).save(images / f"{t:05d}.jpg", quality=95)
            write_mask(masks / f"{t:05d}.png", ids[t])
    return root


def write_collection(root: Path) -> Path:
    """Write synthetic clips as images/, masks/ (given), truth/ and complete/ (all masks); returns ``root``.

    "again": object 1 from frame 0; frame 2 shows it once more, and object 2. The truth has frames 2, 3 and 5 only.
    "late": object 3 from frame 0, object 7 from frame 3. The truth has all frames.
    "untold": object 1 from frame 0, no truth. "unmasked": images only.
    """
    clips = {  # ids in place of the discs', frames of given masks with their ids, frames with truth
        "again": ([0, 1, 2], 6, {0: [1], 2: [1, 2]}, [2, 3, 5]),
        "late": ([0, 3, 7], 8, {0: [3], 3: [7]}, range(8)),
        "untold": ([0, 1, 0], 3, {0: [1]}, []),
        "unmasked": ([0, 0, 0], 2, {}, []),
    }
    for name, (ids, length, given, true) in clips.items():
        frames, discs = draw_clip(length, 48, 80, 2)
        truth = np.array(ids, np.uint8)[discs]
        names = [f"shot{t + 8}" if name == "again" else f"{t:05d}" for t in range(length)]  # shot9 is before shot10
        (root / "images" / name).mkdir(parents=True)
        for t, frame in enumerate(names):
            Image.fromarray(frames[t]).save(root / "images" / name / f"{frame}.png")
            write_mask(root / "complete" / name / f"{frame}.png", truth[t])
            if t in given:
                write_mask(root / "masks" / name / f"{frame}.png", np.where(np.isin(truth[t], given[t]), truth[t], 0))
            if t in true:
                write_mask(root / "truth" / name / f"{frame}.png", truth[t])
    return root


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator["webdriver.Chrome"]:
    """A Chromium; tests that use it are marked with `browser.needs_chromium`."""
    from browser import running_chromium  # needs selenium, which requirements.txt lacks

    with running_chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def tensors(frames: np.ndarray) -> list[torch.Tensor]:
    """uint8 frames [T,H,W,3] as the network takes them."""
    return [to_tensor(frame) for frame in frames]


class Result(subprocess.CompletedProcess):
    """What a command leaves: its exit code, and what it has printed."""

    def checked(self) -> "Result":
        """The same, of a command that has succeeded."""
        assert self.returncode == 0, self.stderr
        return self


Command = Callable[..., Result]


@pytest.fixture
def command() -> Command:
    """Run a script of the project in a process of its own: ``command("eval_davis.py", "--output", path, ...)``.

    ``processes`` runs it under torchrun.
    """

    def run(script: str, *arguments: object, processes: int = 1, timeout: float = HANGS) -> Result:
        launcher = [sys.executable]
        if processes > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        words = [*launcher, str(ROOT / script), *map(str, arguments)]
        process = subprocess.run(words, capture_output=True, text=True, timeout=timeout, env=environment)
        return Result(words, process.returncode, process.stdout, process.stderr)

    return run


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Command:
    """As `command`, but in this process, without the seconds that a new one takes to import everything."""

    def run(script: str, *arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        status = 0
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except SystemExit as end:
            status = end.code
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return Result([script, *arguments], status, *capsys.readouterr())

    return run


def assert_refused(result: subprocess.CompletedProcess, *mentioned: object) -> None:
    """The command ended with exit code 2 and one line on stderr that mentions all of ``mentioned``.

    argparse puts the name of the script before the line, and the usage above it.
    """
    assert result.returncode == 2, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ") or ": error: " in line]
    assert len(lines) == 1 and "Traceback" not in result.stderr, result.stderr
    for text in mentioned:
        assert str(text) in lines[0], f"{text} is not in {lines[0]}"


def assert_alone(run: Callable[[], Result], output: Path, *inside: str) -> None:
    """A command is refused while another process uses its output, and then removes what a killed one has left there.

    Args:
        run: runs the command in this process.
        output: the folder that it writes.
        inside: the folders in ``output`` with temporary files of the killed process.
    """
    with mock.patch.object(files, "_PATIENCE", 0.1), files.lock_folder(output):
        assert_refused(run(), "another process uses", output)
    assert not output.exists()
    left = [output / folder / f".left.{ENDED}.tmp.png" for folder in (".", *inside)]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    run().checked()
    assert not [path for path in left if path.exists()]


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file of this process grows beyond ``size`` bytes, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def write_evaluation(davis: Path, output: Path, videos: Iterable[str], **settings: object) -> Path:
    """Write what eval_davis.py leaves of ``write_davis``'s clips, but its scores; returns ``output``.

    The predictions are the ground truth, frame t moved t pixels to the right; ``settings`` replace the default ones.
    """
    (output / ".records").mkdir(parents=True)
    defaults = {"model": "0123456789abcdef" * 4, "data": str(davis), "script": "eval_davis.py"}
    defaults |= {"year": 2017, "split": "val"}
    settings = {**defaults, "bank": "2F+L+RDE", "mem_every": 3, "top_k": 40, "amp": False, **settings}
    (output / ".records" / "settings.json").write_text(json.dumps(settings))
    for name in videos:
        paths = sorted((davis / "trainval/Annotations/480p" / name).glob("*.png"))
        for t, path in enumerate(paths):
            write_mask(output / name / path.name, np.roll(read_mask(path), t, axis=1))
        record = {"given": {paths[0].stem: files.sha256(paths[0])}, "frames": len(paths), "seconds": 0.5}
        (output / ".records" / f"{name}.json").write_text(json.dumps(record))
    return output


def segmented(
    network: RDE_VOS, video: AnyVideo, settings: EngineSettings, *, confidence: bool = False
) -> Iterator[Segmented]:
    """Segment a video with a new engine."""
    return segment(settings.core(network), video, settings.size, confidence=confidence)


def store_masks(evaluation: Evaluation, output: Path, model: Path, truth: Path) -> Path:
    """Write what an evaluation script leaves, but its scores; returns ``output``.

    The predictions are the masks in ``truth``, frame t moved t pixels to the right.
    """
    folder = OutputFolder(output, evaluation.masks_folder)
    settings = {**evaluation.settings, "bank": "2F+L+RDE", "mem_every": 3, "top_k": 40, "size": 48, "amp": False}
    folder.check_settings(model, evaluation.data, Processes(), **settings)
    for video in evaluation.videos:
        with folder.writing(video) as write:
            for number in video.results:
                ids = np.roll(read_mask(truth / video.name / f"{video.frame_name(number)}.png"), number, axis=1)
                write(Segmented(number, video.read_frame(number), ids, 0.5))
    return output
