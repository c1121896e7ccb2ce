"""A pretended GPU: a test runs the project on ``cuda:0`` on any machine, and counts what a GPU would do.

A tensor is on the pretended GPU if its storage is marked. Its values lie in a CPU tensor, and operators compute on the
CPU, so results are real. While `fake_gpu` is active, Python sees the device ``cuda:0`` where a tensor is marked. This
module

- raises `DeviceMismatch` where the operands of an operator lie on different devices, as CUDA does;
- raises where weights, gradients and moments of the fused Adam have different memory layouts, as CUDA does;
- records what makes the host wait for the GPU, and counts the launches: operators that are neither views nor empty;
- fills the result of a non-blocking download only when the host has waited for it; before, it is NaN or 77;
- follows CUDA's autocast, and rounds 16-bit products as tensor cores do: 16-bit operands, sums in fp32, 16-bit result.

Only functions that Python calls are cast, not those that operators call in C++. The backward pass of the rounding
counts as launches, so launches of training are exact without autocast only.
"""

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GPU, CPU = torch.device("cuda:0"), torch.device("cpu")
HALF = (torch.float16, torch.bfloat16)

# What the project calls of the functions that CUDA's autocast computes in 16 bits, and in fp32.
IN_16_BITS = {"conv2d", "linear", "matmul", "__matmul__", "bmm", "mm", "baddbmm", "addmm"}
IN_FP32 = {
    *("softmax", "log_softmax", "cross_entropy", "nll_loss", "kl_div", "sum", "prod", "cumsum", "norm"),
    *("exp", "log", "pow", "__pow__", "rsqrt", "reciprocal", "__rtruediv__", "__rdiv__"),
}
ROUNDED = IN_16_BITS | {"embedding_bag", "interpolate"}  # computed in fp32 from 16-bit operands, then rounded
FROM_HOST_VALUES = {"tensor", "as_tensor", "new_tensor"}  # built on the CPU, then uploaded
READS_VALUES = {"_local_scalar_dense": "item", "equal": "item"} | dict.fromkeys(
    ("nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive", "bincount"), "nonzero"
)
NO_LAUNCH = {"detach", "alias", "lift_fresh", "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"}


class DeviceMismatch(RuntimeError):
    """The operands of an operator lie on different devices."""


def is_on_gpu(x: Tensor) -> bool:
    """Whether a tensor is on the pretended GPU."""
    return getattr(x.untyped_storage(), "on_gpu", False)


def is_pinned(x: Tensor, *_: object) -> bool:
    """Whether a tensor was made by the pretended ``pin_memory``."""
    return getattr(x.untyped_storage(), "pinned", False)


def pin_memory(x: Tensor, *_: object) -> Tensor:
    """A copy of a tensor of the CPU that counts as pinned."""
    if is_on_gpu(x):
        raise TypeError(f"pin_memory needs a tensor on the CPU, not on {GPU}")
    copy = x.clone(memory_format=torch.preserve_format)
    copy.untyped_storage().pinned = True
    return copy


class FakeGPU:
    """What the pretended GPU has done since `reset`.

    Attributes:
        waits: the kinds of the host's waits for it: item, nonzero, upload, download, event or synchronize.
        launches: the number of launches by operator.
    """

    def __init__(self) -> None:
        self._place: torch.device | None = None  # of tensors that the current function makes
        self._rounding = False
        self._weights: dict[int, Tensor] = {}  # in 16 bits, as autocast keeps them until it ends
        self._downloads: list[Callable[[], object]] = []  # the ends of non-blocking downloads
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        self.waits: list[str] = []
        self.launches: Counter[str] = Counter()

    @property
    def kinds(self) -> list[str]:
        """The kinds of ``waits``, sorted."""
        return sorted(self.waits)

    def wait(self, kind: str) -> None:
        """Record that the host waits until the GPU has finished all work so far."""
        self.waits.append(kind)
        self.finish(self._downloads)

    def finish(self, downloads: list[Callable[[], object]]) -> None:
        """End non-blocking downloads."""
        with torch._C._DisableTorchDispatch():
            for end in set(downloads).intersection(self._downloads):
                end()
        self._downloads = [end for end in self._downloads if end not in downloads]

    def function(self, function: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Do what Python asks torch for."""
        name = getattr(function, "__name__", "")
        if name == "__get__":
            answers = {"device": (GPU, CPU), "is_cuda": (True, False), "is_cpu": (False, True)}
            answer = answers.get(getattr(function.__self__, "__name__", ""))
            return answer[not is_on_gpu(args[0])] if answer else function(*args, **kwargs)
        if name in ("to", "cpu", "cuda"):
            return self._move(name, *args, **kwargs)
        operands = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        on_gpu = any(map(is_on_gpu, operands))
        if on_gpu and name in ("numpy", "__array__"):
            raise TypeError(f"{name} needs a tensor on the CPU, not on {GPU}")
        if on_gpu and name == "tolist":
            self.wait("download")
        device = kwargs.pop("device", None)
        place = torch.device(device) if device is not None else GPU if on_gpu else None
        pinned = kwargs.pop("pin_memory", False)
        outer, self._place = self._place, CPU if name in FROM_HOST_VALUES and not on_gpu else place
        try:
            result = self._cast(name, function, args, kwargs) if on_gpu else function(*args, **kwargs)
        finally:
            self._place = outer
        if name == "__deepcopy__" and isinstance(result, Tensor):
            result.untyped_storage().on_gpu = on_gpu  # torch copies the storage without an operator
        if name in FROM_HOST_VALUES and place is not None and place.type == "cuda" and not is_on_gpu(result):
            return self._transfer(result, result, place, non_blocking=False)
        if pinned:
            result.untyped_storage().pinned = True
        return result

    def _move(self, name: str, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``x.to(...)``, ``x.cpu()`` or ``x.cuda()``."""
        if name == "to":
            first = args[0] if args else None
            names = ("dtype",) if isinstance(first, torch.dtype) else ("device", "dtype")
            if isinstance(first, Tensor):
                args = (GPU if is_on_gpu(first) else CPU, first.dtype, *args[1:])
            kwargs |= dict(zip((*names, "non_blocking", "copy"), args, strict=False))
        else:
            kwargs = {"device": name, **kwargs}
        device, non_blocking = kwargs.pop("device", None), kwargs.pop("non_blocking", False)
        here = GPU if is_on_gpu(x) else CPU
        there = here if device is None else torch.device(device)
        moved = x.to(**kwargs)
        return moved if there.type == here.type else self._transfer(x, moved, there, non_blocking=non_blocking)

    def _transfer(self, x: Tensor, moved: Tensor, device: torch.device, *, non_blocking: bool) -> Tensor:
        """``moved`` on the other device; ``x`` is the tensor that it was made from."""
        with torch._C._DisableTorchDispatch():
            moved = moved.clone(memory_format=torch.preserve_format)
        moved.untyped_storage().on_gpu = device.type == "cuda"
        self.launches["transfer"] += 1
        if device.type == "cuda":
            if not (non_blocking and is_pinned(x)):
                self.wait("upload")
        elif non_blocking:  # torch allocates pinned memory for it
            self._delay(moved)
        else:
            self.wait("download")
        return moved

    def _delay(self, target: Tensor) -> None:
        """Fill the target of a download with wrong values, until the host waits."""
        target = target.detach()
        with torch._C._DisableTorchDispatch():
            self._downloads.append(functools.partial(target.copy_, target.clone()))
            target.fill_(float("nan") if target.is_floating_point() else 77)

    def _cast(self, name: str, function: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Call a function as CUDA's autocast does, if it is on, and round results of 16-bit products."""

        def cast(dtype: torch.dtype, kinds: tuple[torch.dtype, ...]) -> Callable[[Any], Any]:
            return lambda x: x.to(dtype) if isinstance(x, Tensor) and x.dtype in kinds else x

        autocast = torch.is_autocast_enabled("cuda")
        half = next((x.dtype for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x.dtype in HALF), None)
        if autocast and name in IN_16_BITS:
            half = torch.get_autocast_dtype("cuda")
            args, kwargs = tree_map(self._weight, (args, kwargs))
            args, kwargs = tree_map(cast(half, (torch.float32, *HALF)), (args, kwargs))
        elif autocast and name in IN_FP32:
            args, kwargs = tree_map(cast(torch.float32, HALF), (args, kwargs))
        if half is None or name not in ROUNDED:
            return function(*args, **kwargs)
        self._rounding = True
        try:
            args, kwargs = tree_map(cast(torch.float32, HALF), (args, kwargs))
            return function(*args, **kwargs).to(half)
        finally:
            self._rounding = False

    def _weight(self, x: Any) -> Any:
        """A weight in autocast's type, which is cast once: its gradients of several uses are added in 16 bits."""
        if not isinstance(x, Tensor) or not (x.is_leaf and x.requires_grad and x.dtype == torch.float32):
            return x
        if id(x) not in self._weights:
            self._weights[id(x)] = x.to(torch.get_autocast_dtype("cuda"))
        return self._weights[id(x)]

    def operator(self, operator: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Run an operator on CPU tensors, after the checks of CUDA; results are where the operands are."""
        schema = operator._schema
        name = schema.name.removeprefix("aten::")
        operands = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        on_gpu = any(map(is_on_gpu, operands))
        makes = name != "_to_copy" and any(each.name == "device" for each in schema.arguments)
        result_on_gpu = self._place.type == "cuda" if makes and self._place is not None else on_gpu
        if not on_gpu and not result_on_gpu:
            return operator(*args, **kwargs)
        if name == "copy_" and is_on_gpu(args[0]) != is_on_gpu(args[1]):
            return self._copy(operator, args, kwargs)
        self._check(name, args, operands)
        if name in READS_VALUES:
            self.wait(READS_VALUES[name])
        is_view = any(each.alias_info and not each.alias_info.is_write for each in schema.arguments)
        if not is_view and name not in NO_LAUNCH and not (self._rounding and name == "_to_copy"):
            self.launches[name] += 1
        result = operator(*args, **kwargs)
        for x in tree_leaves(result):
            if isinstance(x, Tensor):
                x.untyped_storage().on_gpu = result_on_gpu
        return result

    def _copy(self, operator: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
        """``target.copy_(source, non_blocking)`` from one device to the other."""
        target, source, non_blocking = (*args, False)[:3]
        result = operator(*args, **kwargs)
        self.launches["transfer"] += 1
        upload = is_on_gpu(target)
        if not (non_blocking and is_pinned(source if upload else target)) and not (upload and source.ndim == 0):
            self.wait("upload" if upload else "download")
        elif not upload:
            self._delay(target)
        return result

    def _check(self, name: str, args: tuple, operands: list[Tensor]) -> None:
        """Raise where an operator of CUDA refuses its operands, and record waits for indices."""
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            indices = [x for x in args[1] if x is not None]
            if any(x.dtype in (torch.bool, torch.uint8) for x in indices):
                self.wait("nonzero")
            if not is_on_gpu(args[0]) and any(map(is_on_gpu, indices)):
                raise DeviceMismatch(f"indices on {GPU} of a tensor on {CPU}")
            if not all(map(is_on_gpu, indices)):
                self.wait("upload")
            operands = [x for x in (args[0], *args[2:3]) if isinstance(x, Tensor)]
        places = {is_on_gpu(x) for x in operands if x.ndim or is_on_gpu(x)}  # kernels take scalars of the CPU
        if len(places) > 1:
            described = ", ".join(f"{list(x.shape)} on {GPU if is_on_gpu(x) else CPU}" for x in operands)
            raise DeviceMismatch(f"the operands of {name} lie on different devices: {described}")
        if name.startswith("_fused_adam"):
            for tensors in zip(*args[:4], strict=True):  # weight, gradient, both moments
                strides = {tuple(s for s, side in zip(x.stride(), x.shape, strict=True) if side > 1) for x in tensors}
                if len(strides) > 1:
                    raise RuntimeError("params, grads, exp_avgs and exp_avg_sqs must have the same layout")


class _Functions(TorchFunctionMode):
    def __init__(self, gpu: FakeGPU) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return self.gpu.function(function, args, dict(kwargs or {}))


class _Operators(TorchDispatchMode):
    def __init__(self, gpu: FakeGPU) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        return self.gpu.operator(operator, args, kwargs or {})


@contextlib.contextmanager
def fake_gpu() -> Iterator[FakeGPU]:
    """A context in which ``torch.cuda`` has one GPU, the pretended one."""
    gpu = FakeGPU()

    class Event:
        def __init__(self, *_: object, **__: object) -> None:
            self.downloads, self.ended = [], False

        def record(self, *_: object) -> None:
            self.downloads = list(gpu._downloads)

        def query(self) -> bool:
            gpu.finish(self.downloads)
            self.ended = True
            return True

        def synchronize(self) -> None:
            if not self.ended:
                gpu.wait("event")

    group = torch._C._group_tensors_by_device_and_dtype

    def grouped(tensors: list, with_indices: bool = False) -> dict:
        groups = group(tensors, with_indices)
        return {(x[0][0].device, dtype): (x, indices) for (_, dtype), (x, indices) in groups.items()}

    cuda = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "synchronize": lambda *_: gpu.wait("synchronize"),
        "Event": Event,
        "is_bf16_supported": lambda including_emulation=True: True,
        "get_device_name": lambda *_: "pretended GPU",
        "max_memory_allocated": lambda *_: 0,
        "is_current_stream_capturing": lambda: False,
    }
    with contextlib.ExitStack() as stack:
        for name, replacement in cuda.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, replacement))
        stack.enter_context(mock.patch.object(torch, "clear_autocast_cache", gpu._weights.clear))
        # Threads have no modes.
        stack.enter_context(mock.patch.object(Tensor, "pin_memory", pin_memory))
        stack.enter_context(mock.patch.object(Tensor, "is_pinned", is_pinned))
        stack.enter_context(mock.patch.object(torch._C, "_group_tensors_by_device_and_dtype", grouped))
        # Optimizers would ask the driver for the stream.
        stack.enter_context(mock.patch.object(torch.accelerator, "current_accelerator", lambda *_, **__: None))
        with _Functions(gpu), _Operators(gpu):
            yield gpu
