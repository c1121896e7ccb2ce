"""What a GPU would do, on a pretended one: when the host waits for it, its launches, devices, layouts and types."""

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from conftest import SMALL, draw_clip
from dataset.files.video import AnyVideo
from fake_gpu import CPU, GPU, DeviceMismatch, FakeGPU, fake_gpu
from model import RDE_VOS, load_network
from model.clip_loss import ClipLoss
from model.fast import fast_network
from model.reading import Embedding, Similarity
from train import choose_trained_parts, train, training_state
from util.distributed import Processes
from util.evaluation.segmentation import EngineSettings, segment
from util.imagenet import normalise
from util.training.log import TrainingLog
from util.training.recipe import RECIPES
from util.training.reports import Intervals, Reports
from util.training.run import RunFolder, TrainingState


@pytest.fixture
def gpu() -> Iterator[FakeGPU]:
    with fake_gpu() as gpu:
        yield gpu


def test_the_pretended_gpu_computes_real_values_and_notices_what_a_gpu_would(gpu):
    x = torch.arange(6.0).to(GPU, non_blocking=True)
    pinned = torch.arange(6.0).pin_memory().to(GPU, non_blocking=True)
    assert x.device == pinned.device == (2 * x.view(2, 3)).T.device == torch.zeros(1, device="cuda").device == GPU
    assert gpu.kinds == ["upload"]  # only the pinned upload is free
    gpu.reset()
    assert (x + pinned).sum() > 29 and x[x > 3].tolist() == [4, 5]
    assert gpu.kinds == ["download", "item", "nonzero"] and gpu.launches["add"] == 1
    i = torch.zeros(2, dtype=torch.int64, device=GPU)
    for refused in (lambda: x + torch.ones(6), lambda: torch.stack([x, x.cpu()]), lambda: torch.ones(6)[i]):
        with pytest.raises(DeviceMismatch):
            refused()
    for refused in (x.numpy, x.pin_memory):
        with pytest.raises(TypeError):
            refused()


def test_values_of_a_download_come_with_the_wait(gpu):
    x = torch.ones(3, device=GPU)
    values, event = x.to("cpu", non_blocking=True), torch.cuda.Event()
    event.record()
    assert values.device == CPU and values.isnan().all() and not gpu.waits
    event.synchronize()
    assert values.sum() == 3 and gpu.kinds == ["event"]


def test_autocast_of_the_pretended_gpu_is_cudas(gpu):
    weight = torch.full((1, 4), 1 / 3, device=GPU, requires_grad=True)
    with torch.autocast("cuda", torch.float16):
        product = weight @ weight.T
        with torch.autocast("cuda", enabled=False):
            exact = weight @ weight.T
        total = product.sum()
    assert (product.dtype, exact.dtype, total.dtype) == (torch.float16, torch.float32, torch.float32)
    total.backward()
    assert weight.grad.dtype == torch.float32 and torch.equal(weight.grad, 2 * weight.half().float())


def test_similarities_are_computed_in_fp32_under_autocast(gpu):
    torch.manual_seed(0)
    memory, query = (10 * torch.randn(1, rows, 64, device=GPU) for rows in (30, 20))
    exact = Similarity(memory)(query)
    with torch.autocast("cuda", torch.float16):
        found = Similarity(memory)(query)
    assert found.dtype == torch.float32 and torch.equal(found, exact)


def assert_autotuned(*_: object) -> None:
    """A hook: a GPU measures which convolutions are the fastest."""
    assert torch.backends.cudnn.benchmark


class Clip(AnyVideo):
    """Eight frames of two objects."""

    name, size, wanted, masks, absent, last = "clip", (48, 64), None, {0: None}, {}, 7
    frames, ids = draw_clip(8, 48, 64, 2)

    def read_frame(self, number: int) -> np.ndarray:
        return self.frames[number]

    def read_given_mask(self, number: int) -> np.ndarray:
        return self.ids[number]


def segmented(network: RDE_VOS, gpu: FakeGPU | None = None) -> Iterator[tuple[np.ndarray, list[str], int]]:
    """The ids of each frame, with the kinds of waits and the launches for it."""
    if gpu:
        gpu.reset()
    for result in segment(EngineSettings().core(network), Clip()):
        yield result.ids, gpu.kinds if gpu else [], sum(gpu.launches.values()) if gpu else 0
        if gpu:
            gpu.reset()


@pytest.mark.parametrize(("dtype", "agreement"), [(torch.float32, 0.99), (torch.float16, 0.8)])
def test_the_waits_of_a_frame(small_network, dtype, agreement):
    expected = [ids for ids, *_ in segmented(fast_network(small_network))]
    with fake_gpu() as gpu:
        network = fast_network(copy.deepcopy(small_network).to(GPU), dtype)
        network.key_encoder.register_forward_pre_hook(assert_autotuned)
        ids, waits, launches = zip(*segmented(network, gpu), strict=True)
    assert np.mean(np.array(ids) == np.array(expected)) > agreement
    assert waits == (["download"],) * len(Clip.frames)  # the ids'
    # The update of the memory with frame 3 comes with frame 4.
    assert launches[2] <= 103 and launches[3] <= 103 and launches[4] <= 228


def drawn_batch() -> dict[str, torch.Tensor]:
    """A clip of five frames of two objects, as `train.train` gets it."""
    frames, ids = draw_clip(5, 32, 32, 2)
    masks = torch.from_numpy(np.stack([ids == 1, ids == 2], axis=1)).to(torch.uint8)[None]
    return {
        "frames": torch.from_numpy(frames).permute(0, 3, 1, 2)[None],
        "masks": masks,
        "perturbed": masks[:, 0].roll(3, 2),
        "selector": torch.ones(1, 2),
    }


def training(
    dtype: torch.dtype | None, gpu: FakeGPU, folder: Path, iterations: int
) -> tuple[TrainingState, list[list[str]], list[int]]:
    """Train a small network as train.py does; every third iteration writes a log line.

    Returns:
        the state, and for each iteration the kinds of waits and the launches.
    """
    torch.manual_seed(0)
    network = RDE_VOS(SMALL)
    choose_trained_parts(network, 2, [], norms=[])
    network.key_encoder.register_forward_pre_hook(assert_autotuned)
    recipe = replace(RECIPES[2], iterations=iterations)
    state = training_state(network, recipe, GPU, dtype, 0.9, None)
    waits, launches = [], []

    def batches() -> Iterator[list[dict]]:
        while True:
            gpu.reset()
            yield [{name: values.pin_memory() for name, values in drawn_batch().items()} | {"name": ["clip"]}]
            waits.append(gpu.kinds)
            launches.append(sum(gpu.launches.values()))

    source, processes = batches(), Processes()
    stop = SimpleNamespace(at_unreadable_data=contextlib.nullcontext, agreed=lambda: False)
    with TrainingLog(folder / "log", processes, 0, iterations) as log:
        reports = Reports(Intervals(3, 100, 100, None, 100), log, RunFolder(folder, "run"), None, processes)
        train(ClipLoss(network), state, source, recipe, stop, reports)
    return state, waits, launches


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_the_waits_of_an_iteration(gpu, tmp_path, dtype):
    state, waits, launches = training(dtype, gpu, tmp_path, 4)
    assert state.network.device == state.average.device == GPU
    assert waits[1] == []
    assert waits[2] == ["download", "download"]  # a log line: the check of the losses, and the means
    if dtype is None:
        assert launches[1] <= 2515 and launches[2] <= 2516
    else:  # the gradients overflow at the first loss scale, and the scale that fits is found in a few steps
        steps = int(next(iter(state.optimizer.state.values()))["step"])
        assert 1 <= steps <= 3 and state.scaler.get_scale() == 2.0 ** (16 - 4 + steps)
        assert all(parameter.isfinite().all() for parameter in state.network.parameters())


def losses_and_gradients(dtype: torch.dtype, scale: float) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """The terms of the loss of a small network, and the gradients of its weights, under autocast in a dtype."""
    torch.manual_seed(0)
    network = RDE_VOS(SMALL).to(GPU).train()
    batch = {name: values.to(GPU) for name, values in drawn_batch().items()}
    batch["frames"] = normalise(batch["frames"])
    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        result = ClipLoss(network)(**batch, hard_fraction=0.5)
    (scale * result.loss).backward()
    gradients = {name: weight.grad.cpu() / scale for name, weight in network.named_parameters()}
    return {name: term.item() for name, term in result.terms.items()}, gradients


@pytest.mark.parametrize(("dtype", "scale", "cosine"), [(torch.float16, 2.0**13, 0.9999), (torch.bfloat16, 1, 0.999)])
def test_losses_and_gradients_in_16_bits_are_close_to_those_in_fp32(gpu, dtype, scale, cosine):
    exact_terms, exact = losses_and_gradients(torch.float32, 1)
    terms, gradients = losses_and_gradients(dtype, scale)
    assert terms.keys() == {"mc", "ce_1", "ce_2", "ug_2", "ce_3", "ce_4", "ug_4"}
    for name, term in terms.items():
        assert term == pytest.approx(exact_terms[name], rel=0.02), name
    cosines = {
        name: torch.cosine_similarity(gradients[name].flatten(), gradient.flatten(), dim=0)
        for name, gradient in exact.items()
        if gradient.any()
    }
    assert len(cosines) > 100 and np.median(list(cosines.values())) > cosine
    assert min(cosines.values()) > 0.9, min(cosines, key=cosines.get)  # false also for NaN


@torch.inference_mode()
def recurrence(network: RDE_VOS, updates: int) -> torch.Tensor:
    """The norms of the RDE's key and value after each update with a frame of a clip, relative to the first frame's."""
    embeddings = []
    for frame, ids in zip(Clip.frames[:4], Clip.ids[:4], strict=True):
        image = normalise(torch.from_numpy(frame).permute(2, 0, 1)[None].to(network.device)).to(network.dtype)
        masks = torch.from_numpy(np.stack([ids == 1, ids == 2]))[None].to(network.device).to(network.dtype)
        features = network.encode_key(image)
        embeddings.append(Embedding(features.key, network.encode_value(image, features.f16, masks)))
    rde, norms = embeddings[0], []
    for update in range(updates):
        rde = network.aggregate(rde, embeddings[update % 4])
        norms.append([part.float().norm().item() for part in rde])
    return torch.tensor(norms) / torch.tensor([part.float().norm().item() for part in embeddings[0]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_200_updates_of_the_rde_stay_bounded_in_16_bits(gpu, dtype):
    network = load_network()  # trained weights: those of a new SAM are close to a mean
    exact = recurrence(network, 200)
    assert exact.min() > 0.5 and exact.max() < 1.5
    torch.testing.assert_close(recurrence(network.to(GPU, dtype), 200), exact, rtol=0.01, atol=0)


def test_moments_of_a_cpu_go_on_in_the_layout_of_the_gpus_weights(gpu):
    """The pretended GPU refuses another layout, as CUDA's fused Adam does."""
    torch.manual_seed(0)
    network = RDE_VOS(SMALL)

    def step(state: TrainingState) -> None:
        for parameter in state.parameters():
            parameter.grad = torch.ones_like(parameter)
        state.step()

    saved = training_state(network, RECIPES[2], CPU, None, None, None)
    step(saved)
    resumed = training_state(copy.deepcopy(network), RECIPES[2], GPU, torch.bfloat16, None, saved.content())
    step(resumed)
    weight = network.decoder.up4.skip.weight
    moments = resumed.optimizer.state[resumed.network.decoder.up4.skip.weight]
    assert moments["exp_avg"].stride() != weight.stride() and moments["step"] == 2
    moments["exp_avg"] = moments["exp_avg"].contiguous()
    with pytest.raises(RuntimeError, match="the same layout"):
        step(resumed)
