"""train.py as its users run it: every stage on synthetic clips, split, stopped, killed and resumed."""

import copy
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torchvision
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from conftest import ROOT, assert_refused, write_davis
from conftest import SMALL as SMALL_CONFIG
from dataset.files.images import read_mask
from dataset.samples.batches import global_batches
from dataset.samples.stages import stage_dataset
from model import RDE_VOS, NetworkConfig, load_network, save_network
from model.checkpoint import read_checkpoint
from model.clip_loss import ClipLoss
from model.initialisation import load_imagenet_weights
from model.losses import LossTerms
from synthetic import SyntheticSettings, make_synthetic
from train import first_network
from util import files
from util.errors import InputError
from util.training.arguments import chosen_losses, chosen_network, parse_arguments
from util.training.loss_check import LossCheck
from util.training.recipe import RECIPES
from util.training.run import RunFolder, TrainingState
from util.training.validation import Validation

SMALL = (
    *("--key_backbone", "resnet10", "--key_width", 16, "--mask_backbone", "resnet10", "--mask_width", 16),
    *("--key_channels", 16, "--value_channels", 32, "--decoder_channels", 32, 16, 16),
)
FAST = ("--crop_size", 64, "--workers", 1, "--lr", 1e-3, "--device", "cpu", "--log_every", 1, "--draw_every", 10)
# The losses in config.json.
PAPER = {"mu": 10, "gamma": 10, "frame_weights": "equal", "guidance": "readout"}
RELEASE = {"mu": 10, "gamma": 10, "frame_weights": "halved", "guidance": "decoder_input"}


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    """A few synthetic clips of each kind."""
    root = tmp_path_factory.mktemp("toy")
    settings = SyntheticSettings(height=72, width=108, frames=8, static=12, bl=2, youtube_train=2, davis_train=2)
    make_synthetic(root, settings)
    return root


@pytest.fixture
def train(command, inline, toy, tmp_path):
    """Run train.py with runs in tmp_path; the stage chooses the data.

    Without ``processes`` train.py runs in this process, which has imported everything already. It then loads samples
    itself: a loading process would be a copy of this process, without its threads.
    """

    def run(stage: int, name: str, *flags: object, processes: int | None = None) -> subprocess.CompletedProcess:
        given = (*arguments(toy, tmp_path, stage, name), *flags)
        if processes is None:
            return inline("train.py", *given, "--workers", 0)
        return command("train.py", *given, processes=processes)

    return run


def arguments(toy: Path, runs: Path, stage: int, name: str) -> list[object]:
    davis = ("--davis_root", toy / "DAVIS" / "2017", "--yv_root", toy / "YouTube")
    data = {0: ("--static_root", toy / "static"), 1: ("--bl_root", toy / "BL30K"), 2: davis, 3: davis}
    return ["--stage", stage, "--id", name, "--runs", runs, *data[stage], *FAST]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_network(path / "network.pth").state_dict()


def scalars(run: Path) -> dict[str, list[float]]:
    log = EventAccumulator(str(run / "log")).Reload()
    return {name: [event.value for event in log.Scalars(name)] for name in log.Tags()["scalars"]}


@pytest.mark.parametrize(("given", "expected"), [((), "1"), (("--workers", 5), "5")])
def test_loading_processes_follow_the_cores(given, expected, toy, tmp_path):
    """Without a warning if there are more, and on a CPU the command says what fits one."""
    core = min(os.sched_getaffinity(0))
    code = (
        f"import os, runpy, sys; os.sched_setaffinity(0, [{core}]); sys.path.insert(0, '.')\n"
        "from dataset.samples import loading; load = loading.training_batches\n"
        "def batches(*data, workers, **rest): print(workers, 'workers'); return load(*data, workers=workers, **rest)\n"
        "loading.training_batches = batches; runpy.run_path('train.py', run_name='__main__')\n"
    )
    flags = arguments(toy, tmp_path, 0, "run")
    place = flags.index("--workers")
    del flags[place : place + 2]
    flags += ["--from_scratch", *SMALL, "--batch_size", 1, "--iterations", 1, *given]
    result = subprocess.run([sys.executable, "-c", code, *map(str, flags)], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert f"{expected} workers\n" in result.stdout and "Warning" not in result.stderr
    assert "trains on the CPU, where --crop_size" in result.stdout


@pytest.mark.parametrize(("processes", "later_stages"), [(1, (1, 2, 3)), (2, (2,))])
def test_each_stage_goes_on_from_the_one_before(train, tmp_path, processes, later_stages):
    # The loss is comparable while all pixels count, which they do until the last iterations here.
    flags = ("--batch_size", 4, "--iterations", 40, "--warm_up", 36, 39)
    train(0, "s0", "--from_scratch", *SMALL, *flags, processes=processes).checked()
    log = scalars(tmp_path / "s0")
    assert np.mean(log["loss/total"][26:36]) < 0.7 * np.mean(log["loss/total"][:5])
    assert set(log) >= {
        *("loss/total", "loss/ce_1", "loss/ce_2", "loss/mc", "IoU/object 1", "learning rate"),
        *("share of hard pixels", "samples per second", "gradient norm"),
    }
    assert log["learning rate"][0] == pytest.approx(1e-3) and log["learning rate"][-1] == pytest.approx(1e-4)
    assert log["share of hard pixels"][0] == 1 and log["share of hard pixels"][-1] == pytest.approx(0.15)
    panels = EventAccumulator(str(tmp_path / "s0" / "log")).Reload().Images("predicted (above) and true masks")
    assert len(panels) == 4 and (panels[0].height, panels[0].width) == (128, 192)
    config = json.loads((tmp_path / "s0" / "config.json").read_text())
    assert config["recipe"].keys() == {"iterations", "batch_size", "lr", "lr_steps", "warm_up"}
    assert config["recipe"]["batch_size"] == 4 and config["network"]["value_channels"] == 32
    assert config["losses"].items() >= PAPER.items()

    previous = "s0"
    assert load_network(tmp_path / "s0" / "network.pth").single_object
    for stage in later_stages:
        start = ("--load_network", tmp_path / previous / "network.pth")
        flags = ("--batch_size", 2, "--iterations", 36, "--warm_up", 100, 200)
        train(stage, f"s{stage}", *start, *flags, processes=processes if processes > 1 else None).checked()
        log = scalars(tmp_path / f"s{stage}")
        assert {"loss/ce_1", "loss/ce_2", "loss/ce_3", "loss/ce_4", "loss/ug_2", "loss/ug_4", "loss/mc"} <= set(log)
        assert np.mean(log["loss/total"][-12:]) < np.mean(log["loss/total"][:12])
        before, after = weights(tmp_path / previous), weights(tmp_path / f"s{stage}")
        changed = {name for name in after if not torch.equal(before[name], after[name])}
        assert any(name.startswith("value_aggregation") for name in changed)
        assert not any("running_" in name for name in changed)
        previous = f"s{stage}"
        assert not load_network(tmp_path / previous / "network.pth").single_object


def test_only_later_stages_start_the_fifth_channel_anew(small_network, tmp_path):
    stage_0 = copy.deepcopy(small_network)
    stage_0.single_object = True
    stage_0.mask_encoder.backbone.conv1.weight.data[:, 4] *= 0.5
    save_network(stage_0, tmp_path / "s0.pth")
    again, later = (first_network(stage, NetworkConfig(), tmp_path / "s0.pth", False) for stage in (0, 1))
    before, kept, anew = (network.mask_encoder.backbone.conv1.weight for network in (stage_0, again, later))
    assert torch.equal(kept, before) and again.single_object
    channel = anew[:, 4].flatten(1)
    torch.testing.assert_close(channel.T @ channel, torch.eye(49), atol=1e-5, rtol=0)
    assert torch.equal(anew[:, :4], before[:, :4]) and not later.single_object


def test_however_a_batch_is_split_the_weights_are_the_same(train, small_checkpoint, tmp_path):
    """One process of batch 2, two of batch 1, and two accumulation steps; with frozen norms, so from given weights."""
    recipe = ("--load_network", small_checkpoint, "--batch_size", 2, "--iterations", 4)
    for name, flags, processes in (
        ("whole", (), None),
        ("processes", (), 2),
        ("accumulated", ("--accumulation", 2), None),
    ):
        train(2, name, *recipe, *flags, processes=processes).checked()
    whole = weights(tmp_path / "whole")
    for name in ("processes", "accumulated"):
        trained = weights(tmp_path / name)
        differences = torch.cat([(tensor - whole[key]).abs().flatten().float() for key, tensor in trained.items()])
        # Adam's first steps turn rounding in tiny gradients into steps, of at most 1e-3 each.
        assert differences.max() < 4e-3 and (differences > 4e-4).float().mean() < 1e-5
        log, reference = scalars(tmp_path / name), scalars(tmp_path / "whole")
        np.testing.assert_allclose(log["loss/total"], reference["loss/total"], rtol=1e-3)


def start(toy: Path, runs: Path, *flags: object, **environment: str) -> subprocess.Popen:
    command = [sys.executable, ROOT / "train.py", *arguments(toy, runs, 2, "run"), *flags]
    return subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        start_new_session=True,
    )


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)


def test_a_killed_run_resumes_to_bit_identical_weights(train, toy, tmp_path):
    recipe = ("--from_scratch", *SMALL, "--batch_size", 2, "--iterations", 12, "--save_every", 3, "--average", 0.8)
    assert train(2, "whole", *recipe).returncode == 0
    process = start(toy, tmp_path, *recipe)
    wait_for(tmp_path / "run" / "checkpoint_6.pth", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "run" / "network.pth").exists()
    train(2, "run", *recipe, "--resume").checked()
    events = EventAccumulator(str(tmp_path / "run" / "log")).Reload().Scalars("loss/total")
    assert [event.step for event in events] == list(range(1, 13))
    for name in ("network.pth", "checkpoint_12.pth"):  # with the state of the random numbers
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
    # Resuming a finished run changes nothing.
    trained = (tmp_path / "run" / "network.pth").read_bytes()
    assert train(2, "run", *recipe, "--resume").returncode == 0
    assert (tmp_path / "run" / "network.pth").read_bytes() == trained
    assert [path.name for path in sorted((tmp_path / "run").glob("checkpoint*"))] == [
        "checkpoint_12.pth",
        "checkpoint_6.pth",
        "checkpoint_9.pth",
    ]


def test_sigterm_stops_cleanly_after_saving(train, toy, tmp_path):
    recipe = ("--from_scratch", *SMALL, "--batch_size", 1, "--iterations", 500, "--save_every", 2)
    process = start(toy, tmp_path, *recipe)
    wait_for(tmp_path / "run" / "checkpoint_2.pth", process)
    for _ in range(2):
        os.killpg(process.pid, signal.SIGTERM)  # as a job scheduler does: the loading processes get it too
        time.sleep(0.05)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "--resume" in output and "Traceback" not in errors
    done = int(output.split("stopped after iteration ")[1].split(";")[0])
    assert (tmp_path / "run" / f"checkpoint_{done}.pth").is_file()


def start_pair(toy: Path, runs: tuple[Path, Path], *flags: object) -> list[subprocess.Popen]:
    """Two processes as two machines would run them: each with a folder of runs of its own, and without torchrun."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": "0"}
    return [start(toy, folder, *flags, **group, RANK=str(rank)) for rank, folder in enumerate(runs)]


def test_the_main_process_decides_where_both_machines_resume_and_a_lost_one_ends_the_other(toy, tmp_path):
    recipe = ("--from_scratch", *SMALL, "--batch_size", 2, "--save_every", 2, "--iterations")
    whole, parts = ((tmp_path / name / "a", tmp_path / name / "b") for name in ("whole", "parts"))
    for process in start_pair(toy, whole, *recipe, 6):
        assert process.communicate(timeout=200)[1] is not None and process.returncode == 0

    # One of the two machines is lost in the middle.
    first, second = start_pair(toy, parts, *recipe, 6)
    wait_for(parts[0] / "run" / "checkpoint_2.pth", first)
    second.kill()
    _, errors = first.communicate(timeout=200)
    second.communicate()
    assert first.returncode == 2 and "Traceback" not in errors, errors
    assert "error: process 0 lost another process" in errors
    # The second machine has no checkpoint.
    assert not list(parts[1].rglob("*.pth"))
    for process in start_pair(toy, parts, *recipe, 6, "--resume"):
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    expected = weights(whole[0] / "run")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(parts[0] / "run").items())
    starts = json.loads((parts[0] / "run" / "starts.json").read_text())["starts"]
    assert starts[0]["iteration"] == 0 and starts[-1]["iteration"] >= 2
    assert starts[0]["versions"]["torch"] == torch.__version__ and starts[0]["davis_root"].endswith("2017")


def test_a_corrupt_sample_leaves_a_checkpoint_of_the_last_iteration(train, toy, tmp_path):
    data = stage_dataset(0, {"static_root": toy / "static"}, iterations=8, crop_size=64)
    batches = global_batches(len(data), batch_size=2, iterations=8)
    names = [{data[key]["name"] for key in keys} for keys in batches]
    late = next(iteration for iteration in range(2, 8) if names[iteration] - set().union(*names[:iteration]))
    name = (names[late] - set().union(*names[:late])).pop().split(": ")[1]
    static = tmp_path / "static"
    shutil.copytree(toy / "static", static)
    (image,) = static.rglob(f"{name}.jpg")
    kept = image.read_bytes()
    image.write_bytes(kept[:200])
    recipe = ("--from_scratch", *SMALL, "--batch_size", 2, "--iterations", 8, "--static_root", static)
    result = train(0, "run", *recipe, processes=2)
    assert result.returncode != 0 and 'Traceback (most recent call last):\n  File "' + str(ROOT) not in result.stderr
    assert f"error: {image} cannot be decoded" in result.stderr
    assert [path.name for path in (tmp_path / "run").glob("checkpoint_*")] == [f"checkpoint_{late}.pth"]
    image.write_bytes(kept)
    assert train(0, "run", *recipe, "--resume", processes=2).returncode == 0


def test_validation_logs_its_scores_and_keeps_the_best_weights(train, small_checkpoint, tmp_path):
    davis = write_davis(tmp_path / "DAVIS", {"first": 6, "second": 4})
    recipe = ("--load_network", small_checkpoint, "--batch_size", 2, "--iterations", 3)
    train(2, "run", *recipe, "--validate_every", 2, "--validate_on", davis, processes=2).checked()
    run = tmp_path / "run"
    log = scalars(run)
    # After two iterations, and at the end.
    assert all(len(log[f"validation/{name}"]) == 2 for name in ("J&F", "J", "F", "RDE norm"))
    assert min(log["validation/J&F"]) >= 0 and min(log["validation/RDE norm"]) > 0
    assert {"peak memory (GiB)", "share of time waiting for data"} <= log.keys()
    best = torch.load(run / "best.pth", weights_only=True)["validation"]
    assert best["J&F"] == pytest.approx(max(log["validation/J&F"]), abs=1e-6)
    assert load_network(run / "best.pth").config.aggregation
    assert len(list((run / "validation").glob("*/*.png"))) == 10
    assert_refused(train(0, "none", "--from_scratch", *SMALL, "--validate_every", 2), "--validate_on")


def test_a_run_killed_in_a_validation_keeps_the_same_best(train, small_checkpoint, monkeypatch, tmp_path):
    davis = write_davis(tmp_path / "DAVIS", {"first": 4})
    flags = ("--load_network", small_checkpoint, "--batch_size", 1, "--iterations", 3, "--save_every", 1)
    flags += ("--validate_every", 1, "--validate_on", davis)
    # The second validation is the best one.
    monkeypatch.setattr(Validation, "run", lambda self, network: next(scores))
    rows = [{"J&F": number, "J": number, "F": number} for number in (0.2, 0.9, 0.5)]
    scores = iter(rows)
    assert train(2, "whole", *flags).returncode == 0

    def killed():
        yield rows[0]
        raise KeyboardInterrupt

    scores = killed()
    assert train(2, "run", *flags).returncode == 130
    assert (tmp_path / "run" / "checkpoint_1.pth").is_file()
    scores = iter(rows[1:])
    assert train(2, "run", *flags, "--resume").returncode == 0
    whole, resumed = (torch.load(tmp_path / name / "best.pth", weights_only=True) for name in ("whole", "run"))
    assert whole["validation"] == resumed["validation"] == {"iteration": 2, **rows[1]}
    assert all(torch.equal(tensor, resumed["network"][name]) for name, tensor in whole["network"].items())
    assert scalars(tmp_path / "run")["validation/J&F"] == pytest.approx([0.2, 0.9, 0.5])
    # A finished run is not validated again.
    assert train(2, "run", *flags, "--resume").returncode == 0


def lines(output: str) -> list[re.Match]:
    """The lines that a run prints at its log entries."""
    pattern = r"iteration (\d+)/(\d+)  loss [\d.]+  rate ([\de.-]+)  [\d.]+ samples/s  \d+:\d\d:\d\d left"
    return [found for line in output.splitlines() if (found := re.fullmatch(pattern, line))]


def test_a_run_without_a_terminal_says_how_far_it_is(train, small_checkpoint, tmp_path):
    flags = ("--load_network", small_checkpoint, "--batch_size", 1, "--iterations", 12, "--log_every", 5)
    davis = write_davis(tmp_path / "DAVIS", {"first": 3})
    result = train(2, "run", *flags, "--log_every", 100, "--validate_every", 12, "--validate_on", davis).checked()
    # An entry at the first iteration, at every tenth of the run, and at the end.
    assert [int(line[1]) for line in lines(result.stdout)] == list(range(1, 13))
    assert {float(line[3]) for line in lines(result.stdout)} == {1e-3, 1e-4}
    assert re.search(r"^iteration 12/12  validation: J&F [\d.]+  J [\d.]+  F [\d.]+$", result.stdout, re.MULTILINE)
    assert "stage 2 trains on 12 samples an epoch: DAVIS 2017 (2 videos × 5), YouTube-VOS (2 videos)" in result.stdout
    assert result.stderr == ""


def test_a_run_on_ones_own_videos_says_and_records_what_it_trains_on(inline, toy, small_checkpoint, tmp_path):
    common = ("--load_network", small_checkpoint, *FAST, "--workers", 0, "--batch_size", 1, "--iterations", 1)
    own = ("--videos", f"{toy / 'BL30K'}:3", "--videos", toy / "YouTube" / "train_480p")
    result = inline("train.py", "--stage", 3, "--id", "run", "--runs", tmp_path, *own, *common).checked()
    assert "8 samples an epoch: BL30K (2 videos × 3), train_480p (2 videos)\n" in result.stdout
    (start,) = json.loads((tmp_path / "run/starts.json").read_text())["starts"]
    assert start["videos"] == [f"{toy / 'BL30K'}:3", f"{toy / 'YouTube' / 'train_480p'}:1"]


def test_running_out_of_memory_names_the_remedy_and_no_other_error_does(train, small_checkpoint, monkeypatch):
    flags = ("--load_network", small_checkpoint, "--batch_size", 1, "--iterations", 1)
    error = mock.Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB ..."))
    monkeypatch.setattr(ClipLoss, "forward", error)
    assert_refused(train(2, "run", *flags), "memory", "--accumulation", "--recompute", "--crop_size")
    error.side_effect = RuntimeError("shapes do not fit")
    with pytest.raises(RuntimeError, match="shapes"):
        train(2, "other", *flags)


def test_a_run_on_davis_2016_validates_on_davis_2016(train, small_checkpoint, tmp_path):
    davis = write_davis(tmp_path / "DAVIS", {"first": 4})
    (davis / "trainval/ImageSets/2016/train.txt").write_text("first\n")
    flags = ("--davis_root", davis, "--davis_year", 2016, "--validate_every", 1, "--load_network", small_checkpoint)
    result = train(2, "run", *flags, "--batch_size", 1, "--iterations", 1).checked()
    assert "DAVIS 2016 (1 videos × 5)" in result.stdout and "validation: J&F" in result.stdout
    masks = [read_mask(path) for path in (tmp_path / "run/validation").rglob("*.png")]
    assert len(masks) == 4 and set(np.unique(masks)) <= {0, 255}  # one object, and no ids


def test_under_loss_scaling_only_a_row_of_broken_losses_is_an_error():
    losses = LossCheck(patience=3)
    broken, fine = torch.tensor(float("inf")), torch.tensor(1.0)
    for loss in (broken, broken, broken, fine, broken, broken, broken):
        losses.add(loss, ["sample"])
    losses.check()
    losses.add(broken, ["last"])
    with pytest.raises(InputError, match="on the batch of last"):
        losses.check()
    losses = LossCheck()
    losses.add(broken, ["first"])
    losses.add(fine, ["second"])
    with pytest.raises(InputError, match="on the batch of first"):
        losses.check()


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_batch(train, small_network, tmp_path):
    network = copy.deepcopy(small_network)
    network.key_encoder.backbone.conv1.weight.data *= 1e38  # finite, but the features are not
    save_network(network, tmp_path / "bad.pth")
    result = train(0, "bad", "--load_network", tmp_path / "bad.pth", "--batch_size", 1, "--iterations", 4)
    assert_refused(result, "the loss became nan on the batch of", ": ", "learning rate")
    assert not list((tmp_path / "bad").glob("*.pth"))


def small_state(memory_format: torch.memory_format, **settings: Any) -> TrainingState:
    torch.manual_seed(0)
    network = RDE_VOS(SMALL_CONFIG).to(memory_format=memory_format).train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, weight_decay=1e-7, fused=True)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [100])
    scaler = torch.amp.GradScaler("cpu", enabled=settings.pop("scaled", False))
    return TrainingState(network, optimizer, schedule, scaler, **settings)


def step(state: TrainingState, number: int) -> None:
    """A step with gradients that depend on the name and the place of each weight."""
    rng = torch.Generator().manual_seed(number)
    for parameter in state.parameters():
        gradient = torch.randn(parameter.shape, generator=rng)
        parameter.grad = torch.empty_like(parameter).copy_(gradient)  # in the layout of the weight, as autograd's
    state.step()


LAYOUTS = (torch.contiguous_format, torch.channels_last)


@pytest.mark.parametrize(("saved", "resumed"), [LAYOUTS, LAYOUTS[::-1], LAYOUTS[:1] * 2])
def test_a_run_resumes_on_another_kind_of_device(tmp_path, saved, resumed):
    """A GPU trains in channels last, a CPU does not: whichever wrote the checkpoint, the next step is the same."""
    before = small_state(saved)
    for number in range(3):
        step(before, number)
    RunFolder(tmp_path, "run").save(before)
    content = read_checkpoint(tmp_path / "run" / "checkpoint_3.pth")
    after = small_state(resumed)
    after.network.load_state_dict(content["network"])
    after.restore(content)
    for parameter, moments in after.optimizer.state.items():
        assert moments["exp_avg"].stride() == moments["exp_avg_sq"].stride() == parameter.stride()
    for state in (before, after):
        step(state, 3)
    for name, tensor in before.network.state_dict().items():
        torch.testing.assert_close(after.network.state_dict()[name], tensor, atol=1e-6, rtol=0, check_stride=False)


def test_no_checkpoint_is_kept_of_weights_that_are_no_numbers(tmp_path):
    state = small_state(torch.contiguous_format, iteration=7)
    next(state.network.parameters()).data.view(-1)[0] = float("nan")
    with pytest.raises(InputError, match=r"key_encoder.*no longer finite after iteration 7.*resume"):
        RunFolder(tmp_path, "run").save(state)
    assert not list(tmp_path.rglob("*.pth"))
    # Another precision than that of the checkpoint, as `auto` finds on another GPU.
    scaled = small_state(torch.contiguous_format, scaled=True)
    scaled.restore(state.content())
    assert scaled.iteration == 7


def test_mixed_precision_and_table_6(train, tmp_path):
    flags = ("--precision", "bf16", "--without_mc", "--without_ug", "--without_stm")
    train(2, "run", "--from_scratch", *SMALL, "--batch_size", 2, "--iterations", 2, *flags).checked()
    assert {name for name in scalars(tmp_path / "run") if name.startswith("loss")} == {
        *("loss/total", "loss/ce_2", "loss/ce_4")
    }


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--stage 2 --recipe paper", PAPER),
        ("--stage 2 --mu 5 --frame_weights halved", PAPER | {"mu": 5, "frame_weights": "halved"}),
        ("--stage 2 --gamma 5 --guidance decoder_input", PAPER | {"gamma": 5, "guidance": "decoder_input"}),
        *((f"--stage {stage} --recipe release", RELEASE) for stage in (0, 1, 3)),
        ("--stage 2 --recipe release", RELEASE | {"mu": 5, "gamma": 5}),
        ("--stage 2 --recipe release --gamma 10 --guidance readout", RELEASE | {"mu": 5, "guidance": "readout"}),
    ],
)
def test_each_flag_replaces_one_setting_of_the_recipe(monkeypatch, flags, expected):
    monkeypatch.setattr(sys, "argv", ["train.py", "--id", "run", *flags.split()])
    terms = asdict(chosen_losses(parse_arguments("")))
    switches = dict.fromkeys(("mask_consistency", "unbiased_guidance", "stm_segmentation"), True)
    assert terms == expected | switches


@pytest.mark.parametrize(
    ("flags", "backbone"),
    [("", "resnet50"), ("--recipe release", "resnet18"), ("--recipe release --mask_backbone resnet10", "resnet10")],
)
def test_a_new_network_has_the_mask_encoder_of_the_recipe(monkeypatch, flags, backbone):
    start = "train.py --stage 2 --id run --from_scratch --key_backbone resnet10 --key_width 8 --mask_width 8"
    monkeypatch.setattr(sys, "argv", [*start.split(), *flags.split()])
    assert chosen_network(parse_arguments("")).mask_backbone == backbone


def test_a_run_minimises_the_loss_of_its_configuration(train, small_checkpoint, tmp_path):
    start = ("--load_network", small_checkpoint, "--batch_size", 1, "--iterations", 1)
    train(2, "run", *start, "--recipe", "release", "--precision", "bf16").checked()
    losses = RELEASE | {"mu": 5, "gamma": 5}
    assert json.loads((tmp_path / "run" / "config.json").read_text())["losses"].items() >= losses.items()
    weight = {"ce_1": 1 / 16, "ce_2": 1 / 8, "ce_3": 1 / 4, "ce_4": 1 / 2, "ug_2": 5, "ug_4": 5, "mc": 5}
    log = scalars(tmp_path / "run")
    expected = sum(weight[name] * np.array(log[f"loss/{name}"]) for name in weight)
    np.testing.assert_allclose(log["loss/total"], expected, rtol=1e-4)


def test_a_loading_process_that_the_system_ends_leaves_a_checkpoint(toy, tmp_path):
    process = start(toy, tmp_path, "--from_scratch", *SMALL, "--batch_size", 1, "--iterations", 5000)
    wait_for(tmp_path / "run" / "log", process)
    time.sleep(3)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in map(int, children):
        os.kill(child, signal.SIGKILL)
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 2 and "Traceback" not in errors, errors
    assert "error: the system ended a process that loads samples" in errors
    done = int(output.split("stopped after iteration ")[1].split(";")[0])
    assert (tmp_path / "run" / f"checkpoint_{done}.pth").is_file()


def test_two_processes_do_not_train_the_same_run(train, toy, monkeypatch, tmp_path):
    flags = ("--from_scratch", *SMALL, "--batch_size", 1, "--iterations", 2)
    monkeypatch.setattr(files, "_PATIENCE", 0.1)
    with files.lock_folder(tmp_path / "run"):
        assert_refused(train(2, "run", *flags, "--resume"), "another process uses", tmp_path / "run")
    assert train(2, "run", *flags).returncode == 0


def test_the_result_can_be_the_moving_average_of_the_weights(train, small_checkpoint, tmp_path):
    flags = ("--load_network", small_checkpoint, "--batch_size", 1, "--iterations", 3, "--save_every", 1)
    validation = ("--validate_every", 3, "--validate_on", write_davis(tmp_path / "DAVIS", {"first": 3}))
    train(2, "run", *flags, "--average", 0.75, *validation).checked()
    run = tmp_path / "run"
    one, two, three = (load_network(run / f"checkpoint_{number}.pth").state_dict() for number in (1, 2, 3))
    for name, tensor in weights(run).items():
        if tensor.is_floating_point():
            expected = 0.75 * (0.75 * one[name] + 0.25 * two[name]) + 0.25 * three[name]
            torch.testing.assert_close(tensor, expected, atol=1e-6, rtol=1e-5)
    assert any(not torch.allclose(tensor, three[name]) for name, tensor in weights(run).items())
    best = load_network(run / "best.pth").state_dict()
    assert all(torch.equal(tensor, best[name]) for name, tensor in weights(run).items())
    # The weights of the iterations are those of a run without an average, and such a run cannot go on with one.
    assert train(2, "plain", *flags).returncode == 0
    assert all(torch.equal(tensor, three[name]) for name, tensor in weights(tmp_path / "plain").items())
    assert_refused(train(2, "plain", *flags, "--average", 0.75, "--resume"), "average: None in the run, 0.75 now")


def test_compile_reaches_the_loss(train, small_checkpoint, monkeypatch):
    compiled = mock.Mock()
    monkeypatch.setattr(ClipLoss, "compile", compiled)
    train(2, "run", "--load_network", small_checkpoint, "--batch_size", 1, "--iterations", 1, "--compile").checked()
    compiled.assert_called_once()


def test_frozen_parts_stay_as_they_are(train, small_checkpoint, tmp_path):
    parts = ("key_encoder.backbone", "key_encoder.key_projection", "key_aggregation", "value_aggregation")
    flags = ("--batch_size", 1, "--iterations", 2, "--freeze", *parts)
    train(2, "run", "--load_network", small_checkpoint, *flags).checked()
    before, after = load_network(small_checkpoint).state_dict(), weights(tmp_path / "run")
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert not any(name.startswith(parts) for name in changed)
    assert {name.split(".")[0] for name in changed} == {"key_encoder", "mask_encoder", "decoder"}


def test_wrong_input_is_refused(train, inline, tmp_path):
    scratch = ("--from_scratch", *SMALL, "--iterations", 1, "--batch_size", 1)
    assert train(0, "run", *scratch).returncode == 0
    assert_refused(train(0, "run", *scratch), tmp_path / "run", "add --resume", "another --id")
    assert_refused(train(0, "run", *scratch, "--resume", "--seed", 5), "config.json", "seed: 0 in the run, 5 now")
    assert_refused(train(1, "other", "--iterations", 1), "--load_network", "--from_scratch")
    assert_refused(train(1, "other", "--load_network", tmp_path / "absent.pth"), tmp_path / "absent.pth")
    assert_refused(train(0, "other", *scratch, "--batch_size", 3, "--accumulation", 2), "batch_size")
    assert_refused(inline("train.py", "--stage", 1, "--id", "x", *scratch), "give --bl_root or --videos")
    for flags, mentioned in (
        (("--warm_up", 5, 3), "--warm_up 5 3"),
        (("--crop_size", 60), "--crop_size 60"),
        (("--frames", 6), "6 is not an odd number"),
        (("--lr", "nan"), "--lr"),
        (("--freeze", "key_encoder", "mask_encoder", "decoder"), "name fewer parts"),
    ):
        assert_refused(train(0, "other", *scratch, *flags), mentioned)
    assert not (tmp_path / "other").exists()


IDLE = [  # stage, flags, the two flags that the message names
    *((2, f"--load_network W --{flag}", flag, "--load_network") for flag in (
        "mask_backbone resnet50", "key_backbone resnet50", "key_width 64", "mask_width 64", "key_channels 999",
        "value_channels 512", "decoder_channels 512 256 256", "from_scratch", "from_scratch key_encoder",
    )),
    (2, "--key_backbone efficientnet_lite0 --key_width 64", "key_width", "--key_backbone efficientnet_lite0"),
    (2, "--mask_backbone efficientnet_lite0 --mask_width 64", "mask_width", "--mask_backbone efficientnet_lite0"),
    (0, "--videos V", "videos", "--stage 0"),
    (0, "--davis_root D", "davis_root", "--stage 0"),
    (1, "--davis_root D --validate_every 2 --validate_on D", "davis_root", "--stage 1"),
    (1, "--static_root S", "static_root", "--stage 1"),
    (2, "--bl_root B", "bl_root", "--stage 2"),
    *((0, f"--{flag}", flag, "--stage 0") for flag in (
        "frames 5", "mu 10", "guidance readout", "without_ug", "without_stm", "freeze decoder key_aggregation",
    )),
    (1, "--davis_year 2017", "davis_year", "DAVIS"),
    (2, "--validate_on D", "validate_on", "--validate_every"),
    (2, "--without_ug --mu 10", "mu", "--without_ug"),
    (2, "--without_ug --guidance readout", "guidance", "--without_ug"),
    (2, "--without_mc --gamma 10", "gamma", "--without_mc"),
]  # fmt: skip


@pytest.mark.parametrize(("stage", "flags", "idle", "other"), IDLE)
def test_a_flag_without_effect_is_refused(monkeypatch, stage, flags, idle, other):
    """Even with the value of the default, which the program alone could not tell from a missing flag."""
    monkeypatch.setattr(sys, "argv", ["train.py", "--id", "run", "--stage", str(stage), *flags.split()])
    with pytest.raises(InputError, match=f"--{idle.split()[0]} has no effect .*{other}"):
        parse_arguments("")


def test_an_added_loss_term_leaves_older_runs_resumable(tmp_path):
    @dataclass(frozen=True, kw_only=True)
    class MoreTerms(LossTerms):
        boundary: bool = False

    run = RunFolder(tmp_path, "run")
    run.check_settings({"losses": LossTerms().settings()}, resume=False)
    run.check_settings({"losses": MoreTerms().settings()}, resume=True)
    for losses, difference in (
        (MoreTerms(boundary=True), "boundary: None in the run, True now"),
        (LossTerms(mu=5), "mu: 10.0 in the run, 5 now"),
        (LossTerms(unbiased_guidance=False), "unbiased_guidance: True in the run, None now"),
    ):
        with pytest.raises(InputError, match=difference):
            run.check_settings({"losses": losses.settings()}, resume=True)
    switched_off = (LossTerms(unbiased_guidance=False, mask_consistency=False, mu=mu, gamma=mu) for mu in (5, 10))
    assert len({str(terms.settings()) for terms in switched_off}) == 1


def test_missing_imagenet_weights_name_the_file_to_place(train, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setattr("urllib.request._opener", None)  # urllib keeps the proxies of its first use for ever
    result = train(0, "run", "--iterations", 1)
    assert_refused(result, tmp_path / "torch" / "hub" / "checkpoints" / "resnet50-", "random weights")
    narrow = train(0, "run", "--iterations", 1, "--key_width", 32)
    assert_refused(narrow, "width 32", "random weights")


def test_imagenet_weights_start_both_encoders(monkeypatch):
    torch.manual_seed(0)
    state = torchvision.models.resnet18(weights=None).state_dict()
    entry = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    monkeypatch.setattr(type(entry), "get_state_dict", lambda self, **_: state)
    network = RDE_VOS(NetworkConfig(key_backbone="resnet18", mask_backbone="resnet18"))
    extra = network.mask_encoder.backbone.conv1.weight[:, 3:].clone()
    load_imagenet_weights(network)
    for encoder in (network.key_encoder, network.mask_encoder):
        assert torch.equal(encoder.backbone.layer3[1].conv2.weight, state["layer3.1.conv2.weight"])
        assert torch.equal(encoder.backbone.conv1.weight[:, :3], state["conv1.weight"])
    assert torch.equal(network.mask_encoder.backbone.conv1.weight[:, 3:], extra)


def test_the_recipes_are_the_papers():
    rows = {stage: (r.iterations, r.batch_size, r.lr, r.lr_steps, r.warm_up) for stage, r in RECIPES.items()}
    assert rows == {
        0: (75_000, 64, 2e-5, (37_500,), (5_000, 17_500)),
        1: (500_000, 8, 1e-5, (400_000,), (20_000, 70_000)),
        2: (75_000, 16, 2e-5, (62_500,), (5_000, 17_500)),
        3: (150_000, 8, 2e-5, (125_000,), (20_000, 70_000)),
    }
    assert RECIPES[0].scaled(150).lr_steps == (75,)
