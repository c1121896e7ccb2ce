"""Compiled networks: the same masks, few graphs, and no compilation without end."""

import copy
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from conftest import draw_clip, tensors
from fake_gpu import GPU, fake_gpu
from model import RDE_VOS, NetworkConfig
from model.clip_loss import ClipLoss
from model.fast import fast_network, torch_compile
from model.inference import InferenceCore
from util.errors import InputError


# The tests compile graphs that torch runs without optimising them, which needs no C++ compiler.
@pytest.fixture(autouse=True)
def no_graphs() -> Iterator[None]:
    """No graphs and no counts before a test, and none after it."""
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


@pytest.fixture(scope="module")
def small_network() -> RDE_VOS:
    """The smallest network with every part: tracing takes time for every layer."""
    backbones = {"key_backbone": "resnet10", "mask_backbone": "resnet10", "key_width": 8, "mask_width": 8}
    torch.manual_seed(0)
    return RDE_VOS(NetworkConfig(**backbones, key_channels=8, value_channels=8, decoder_channels=(8, 8, 8))).eval()


@pytest.fixture
def compiled_network(small_network: RDE_VOS) -> RDE_VOS:
    """The small network, compiled."""
    network = copy.deepcopy(small_network).requires_grad_(False)
    torch_compile.compile_network(network, "eager")
    return network


def segmented(network: RDE_VOS, height: int, width: int, objects: int) -> list[Tensor]:
    """The probabilities of each frame of a clip; the memory is updated twice."""
    frames, ids = draw_clip(6, height, width, objects)
    core = InferenceCore(network, mem_every=2)
    return [core.step(image, ids[0] if t == 0 else None) for t, image in enumerate(tensors(frames))]


def check(small_network: RDE_VOS, compiled_network: RDE_VOS, *clip: int) -> int:
    """Compare the results of both networks; return the number of graphs so far."""
    for a, b in zip(segmented(small_network, *clip), segmented(compiled_network, *clip), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
    assert not counters["graph_break"]
    return counters["stats"]["unique_graphs"]


def test_three_videos_of_one_size_need_the_same_graphs(small_network, compiled_network):
    """One for each verb, and one for reading the memory before its first update, when it is smaller."""
    assert [check(small_network, compiled_network, 32, 48, 2) for _ in range(3)] == [len(torch_compile.METHODS) + 1] * 3
    # Another number of objects changes the shapes of all verbs but one.
    assert check(small_network, compiled_network, 32, 48, 1) == 2 * (len(torch_compile.METHODS) + 1) - 1


def test_sizes_that_vary_are_not_compiled_forever(small_network, compiled_network, monkeypatch):
    monkeypatch.setattr(torch_compile, "MOST_SHAPES", 2)
    widths = (32, 48, 64, 32)
    found = [check(small_network, compiled_network, 32, width, 1) for width in widths]
    assert found == [len(torch_compile.METHODS) + 1, *[2 * len(torch_compile.METHODS)] * 3]


def test_results_outlive_the_next_replay_of_a_cuda_graph(small_network, monkeypatch):
    """A CUDA graph writes its results to the same memory each time."""
    modes = []

    def compile(function: Callable, *, backend: str, dynamic: bool, mode: str) -> Callable:
        modes.append((backend, mode, dynamic))
        buffers: dict[tuple, Tensor] = {}

        def replay(*inputs: object) -> object:
            def into_buffer(place: int, result: Tensor) -> Tensor:
                buffer = buffers.setdefault((place, result.shape), result)
                return buffer if buffer is result else buffer.copy_(result)

            results = function(*inputs)
            if isinstance(results, Tensor):
                return into_buffer(0, results)
            return type(results)(*(into_buffer(place, result) for place, result in enumerate(results)))

        return replay

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: None)
    with fake_gpu():
        network = copy.deepcopy(small_network).to(GPU)
        plain, replayed = (
            [probability.cpu().numpy() for probability in segmented(each, 48, 64, 2)]
            for each in (fast_network(network), fast_network(network, compiler="inductor"))
        )
    assert np.array_equal(plain, replayed)
    assert modes == [("inductor", "reduce-overhead", False)] * len(torch_compile.METHODS)


def test_a_machine_without_a_working_compiler_says_so(small_network):
    def broken(graph: object, inputs: object) -> Callable:
        raise RuntimeError("no g++ here")

    network = copy.deepcopy(small_network).requires_grad_(False)
    torch_compile.compile_network(network, broken)
    with pytest.raises(InputError, match=r"cannot be compiled here \(.*no g\+\+ here\)"):
        segmented(network, 32, 32, 1)


def test_training_needs_two_graphs(small_network):
    """One for all pixels, and one for any smaller fraction; neither depends on the objects of a clip."""
    plain, compiled = (ClipLoss(copy.deepcopy(small_network).train()) for _ in range(2))
    compiled.compile(backend="eager")
    found = []
    for hard_fraction, objects in ((1.0, 2), (1.0, 1), (0.9, 2), (0.8, 1), (0.15, 2), (0.15, 1)):
        frames, ids = draw_clip(5, 32, 48, objects)
        masks = torch.from_numpy(np.stack([ids == 1, ids == 2], axis=1)).to(torch.uint8)[None]
        batch = torch.stack(tensors(frames))[None], masks, masks[:, 0].roll(2, 2), torch.ones(1, 2)
        batch[-1][:, objects:] = 0
        results = [loss(*batch, hard_fraction=hard_fraction) for loss in (plain, compiled)]
        for result in results:
            result.loss.backward()
        torch.testing.assert_close(results[1].terms, results[0].terms)
        found.append(counters["stats"]["unique_graphs"])
    assert found == [1, 1, 2, 2, 2, 2] and not counters["graph_break"]
    for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad)
