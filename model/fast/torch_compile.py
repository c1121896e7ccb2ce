"""Compilation of a network by ``torch.compile``. The bank has a constant size, so the shapes of all tensors repeat."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from model.network import RDE_VOS
from model.reading import MemoryTable
from util.device import working_compiler

METHODS = ("encode_key", "read", "decode", "encode_value", "aggregate")
MOST_SHAPES = 8  # torch itself compiles no function more often


def compile_network(network: RDE_VOS, backend: str = "inductor") -> None:
    """Let ``torch.compile`` compile the `METHODS` of a network, each at its first call with inputs of new shapes.

    The graphs stay valid from video to video, for frames of one size and one number of objects. Compiling takes a
    minute or more. So a method compiles for at most `MOST_SHAPES` combinations of shapes; all others run as before.

    Args:
        network: a network for inference, which is modified.
        backend: the backend of ``torch.compile``. On GPUs ``inductor`` replays CUDA graphs.
    """
    for method in METHODS:
        setattr(network, method, _Compiled(getattr(network, method), backend))


class _Compiled:
    """A function whose first argument is or holds a tensor, compiled for the first few combinations of shapes."""

    def __init__(self, function: Callable, backend: str) -> None:
        self._function, self._backend = function, backend
        self._compiled: Callable | None = None
        self._shapes: set[tuple] = set()

    def __call__(self, *inputs: Any) -> Any:
        """Call the function.

        Raises:
            InputError: the function cannot be compiled here.
        """
        shapes = _layout(inputs)
        if shapes not in self._shapes and len(self._shapes) == MOST_SHAPES:
            return self._function(*inputs)
        on_gpu = tree_leaves(inputs)[0].is_cuda
        if self._compiled is None:
            graphs = {"mode": "reduce-overhead"} if on_gpu and self._backend == "inductor" else {}
            self._compiled = torch.compile(self._function, dynamic=False, backend=self._backend, **graphs)
        self._shapes.add(shapes)
        if on_gpu:
            torch.compiler.cudagraph_mark_step_begin()
        with working_compiler():
            results = self._compiled(*inputs)
        # The next replay of a CUDA graph overwrites its results.
        return tree_map(Tensor.clone, results) if on_gpu else results


def _layout(x: object) -> object:
    """What a graph depends on: the layouts of tensors, the values of integers, and the types of all else."""
    if isinstance(x, Tensor):
        return x.shape, x.stride(), x.dtype
    if isinstance(x, MemoryTable):
        x = tuple(vars(x).values())
    if isinstance(x, tuple):
        return tuple(map(_layout, x))
    return x if isinstance(x, int) else type(x)
