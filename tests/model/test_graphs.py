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
from model import RDE_VOS
from model.fast import fast_network, graphs
from model.inference import InferenceCore
from util.errors import InputError


@pytest.fixture
def compiled_network(small_network: RDE_VOS) -> Iterator[RDE_VOS]:
    """The small network with graphs that torch runs without optimising them."""
    torch.compiler.reset()
    counters.clear()
    network = copy.deepcopy(small_network).requires_grad_(False)
    graphs.compile_network(network, "eager")
    yield network
    torch.compiler.reset()


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
    assert [check(small_network, compiled_network, 32, 48, 2) for _ in range(3)] == [len(graphs.VERBS) + 1] * 3
    # Another number of objects changes the shapes of all verbs but one.
    assert check(small_network, compiled_network, 32, 48, 1) == 2 * (len(graphs.VERBS) + 1) - 1


def test_sizes_that_vary_are_not_compiled_forever(small_network, compiled_network, monkeypatch):
    monkeypatch.setattr(graphs, "MOST_SHAPES", 2)
    widths = (32, 48, 64, 32)
    found = [check(small_network, compiled_network, 32, width, 1) for width in widths]
    assert found == [len(graphs.VERBS) + 1, *[2 * len(graphs.VERBS)] * 3]


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
    assert modes == [("inductor", "reduce-overhead", False)] * len(graphs.VERBS)


def test_a_machine_without_a_working_compiler_says_so(small_network):
    def broken(graph: object, inputs: object) -> Callable:
        raise RuntimeError("no g++ here")

    network = copy.deepcopy(small_network).requires_grad_(False)
    graphs.compile_network(network, broken)
    with pytest.raises(InputError, match=r"cannot be compiled here \(.*no g\+\+ here\)"):
        segmented(network, 32, 32, 1)
    torch.compiler.reset()
