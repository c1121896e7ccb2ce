"""Our own convolution in C, compiled when a network is converted: the fastest for 3×3 kernels on CPUs."""

import ctypes
import functools
import logging
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.fast.convolution import Convolution, PackedConv2d

_SOURCE = Path(__file__).with_name("winograd.c")

# Points and step of F(step×step, 3×3). A larger tile saves more multiplications and loses more accuracy. bf16 rounds
# the transformed inputs: the error of the result is 4% with a step of 6, and 0.9% with a step of 4 and these points.
_TILINGS = {
    torch.float32: ((0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5), 6),
    torch.bfloat16: ((0.0, 2 / 3, -2 / 3, 1.5, -1.5), 4),
}

COMPILE_TIMEOUT = 30  # seconds until a compiler is stopped; compiling takes half a second

# The maximum error of the compiled convolution against torch's, relative to the maximum of the result.
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.05}

_UNSUPPORTED_PROCESSOR = "this processor lacks native bf16 arithmetic"  # winograd.c's message

_GROUP = 12  # tiles that a core processes at a time
_PADDING = 32  # elements after each row of a product; without them rows would compete for the same cache lines


class _Arguments(ctypes.Structure):
    """The structure ``Convolution`` of winograd.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "weight", "other", "bias", "y", "tiles", "kernels")),
        *((name, ctypes.c_int64) for name in ("images", "height", "width", "inputs", "outputs")),
        *((name, ctypes.c_int64) for name in ("tiles_at_once", "blocks_at_once", "relu_first", "relu")),
    )


def _source(dtype: torch.dtype) -> str:
    """The C program for tensors of a type: constants, then winograd.c."""
    points, step = _TILINGS[dtype]
    output, kernel, tile = winograd_matrices(points, step, 3)
    # Rows of two matrices may be scaled inversely. A 1 at the end of each row of the first one simplifies the sums.
    tile[np.abs(tile) < 1e-12] = 0.0
    scale = np.array([row[np.flatnonzero(row)[-1]] for row in tile])[:, None]
    constants = {"STEP": step, "BF16": int(dtype == torch.bfloat16), "GROUP": _GROUP, "PADDING": _PADDING}
    lines = [f"#define {name} {value}" for name, value in constants.items()]
    for name, matrix in (("INPUT", tile / scale), ("KERNEL", kernel * scale), ("OUTPUT", output)):
        rows = ", ".join("{" + ", ".join(f"{float(value)}f" for value in row) + "}" for row in matrix)
        lines.append(f"static const float {name}[{matrix.shape[0]}][{matrix.shape[1]}] = {{{rows}}};")
    return "\n".join([*lines, _SOURCE.read_text(encoding="utf-8")])


@functools.cache
def _library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The compiled library; None if it cannot be made, or if the processor lacks native arithmetic of the type.

    If a compiler exists but fails, a line on stderr says so. Compiling takes half a second. A cache on disk would save
    this time, but could become stale when the source or the processor changes.
    """
    if dtype not in _TILINGS:
        return None
    failure = None
    for compiler in filter(None, map(shutil.which, ("cc", "gcc"))):
        try:
            return _compiled(compiler, dtype)
        except (OSError, AttributeError, ValueError, subprocess.SubprocessError) as error:
            failure = str(error).split("\n")[0]
            if isinstance(error, _UnsupportedProcessor):
                return None
            if isinstance(error, subprocess.TimeoutExpired):
                break  # the other name usually means the same compiler
    if failure is not None:
        _note_failure(failure)
    return None


class _UnsupportedProcessor(ValueError):
    """The processor lacks native arithmetic of the type."""


def _compiled(compiler: str, dtype: torch.dtype) -> ctypes.CDLL:
    """Compile the library for a type with one compiler.

    Raises:
        _UnsupportedProcessor: the processor lacks native arithmetic of the type.
        OSError: a file cannot be written or loaded.
        AttributeError: the library lacks a function.
        ValueError: the library reports an impossible block size.
        subprocess.SubprocessError: the compiler fails or takes too long.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, module, library = (Path(folder, f"winograd.{suffix}") for suffix in ("c", "o", "so"))
        source.write_text(_source(dtype), encoding="utf-8")
        # Linked without -fopenmp, the library uses the threads of the OpenMP library that torch has loaded.
        options = ["-O3", "-march=native", "-fno-signed-zeros", "-fPIC", "-fopenmp"]
        for command in ([*options, "-c", source, "-o", module], ["-shared", module, "-o", library]):
            _run([compiler, *command], Path(folder, "messages"))
        program = ctypes.CDLL(str(library))
    program.convolve  # noqa: B018 - looks the function up
    block = program.outputs_of_a_block()
    if not 2 <= block <= 1024 or block % 2:
        raise ValueError(f"{compiler} made a program with blocks of {block} outputs")
    return program


def _run(command: list[str | Path], messages: Path) -> None:
    """Run a compiler, with a time limit for it and its child processes; see `_compiled`."""
    # The messages go to a file, because child processes of the compiler could keep a pipe open.
    with open(messages, "wb") as file, subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, process_group=0
    ) as process:  # fmt: skip
        try:
            status = process.wait(COMPILE_TIMEOUT)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if status:
        if _UNSUPPORTED_PROCESSOR in messages.read_text(encoding="utf-8", errors="replace"):
            raise _UnsupportedProcessor(_UNSUPPORTED_PROCESSOR)
        raise subprocess.CalledProcessError(status, str(command[0]))


def _note_failure(reason: str) -> None:
    logging.getLogger(__name__).warning(
        "note: the C compiler produces no working convolution (%s), so PyTorch's slower convolutions are used; repair "
        "the compiler for more speed",
        reason,
    )


@functools.cache
@torch.no_grad()
def _computes_the_convolution(library: ctypes.CDLL, dtype: torch.dtype) -> bool:
    """Compare the current result of `_library` with torch's convolution; a line on stderr says if they differ."""
    channels = 2 * library.outputs_of_a_block()
    generator = torch.Generator().manual_seed(0)
    height, width = 19, CompiledConv2d.MIN_POSITIONS // 19 + 2  # neither is a multiple of the step
    shapes = ((1, channels, height, width), (1, channels, height, width), (channels, channels, 3, 3), (channels,))
    # torch's convolution is computed in fp32, from the same rounded numbers.
    x, other, weight, bias = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    conv = nn.Conv2d(channels, channels, 3, padding=1, device="meta")
    conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(bias)
    result = CompiledConv2d(conv)(x, other, relu_first=True).float()
    expected = F.conv2d(x.float().relu(), weight.float(), bias.float(), padding=1) + other.float()
    # The condition is false for NaN.
    if (result - expected).abs().max() <= _TOLERANCE[dtype] * expected.abs().max():
        return True
    _note_failure("the compiled function computes a wrong result")
    return False


def winograd_matrices(points: tuple[float, ...], outputs: int, taps: int) -> tuple[np.ndarray, ...]:
    """A^T [outputs,n], G [n,taps] and B^T [n,n] of Winograd's F(outputs, taps), n = outputs + taps - 1.

    A^T (G g * B^T d) is the result of the filter g that slides over d (Lavin and Gray, "Fast Algorithms for
    Convolutional Neural Networks", CVPR 2016). The method multiplies polynomials at n - 1 points and at infinity.
    """
    n = outputs + taps - 1

    def at_the_points(coefficients: int) -> np.ndarray:
        values = np.vander(np.append(points, 0.0), coefficients, increasing=True)
        values[-1] = np.eye(coefficients)[-1]  # at infinity the highest coefficient counts
        return values

    return at_the_points(outputs).T, at_the_points(taps), np.linalg.inv(at_the_points(n)).T


def gains_from_winograd(conv: nn.Conv2d) -> bool:
    """Whether a convolution is 3×3 with stride 1 and same padding, and has enough channels to gain from the method."""
    geometry = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups)
    if geometry != ((3, 3), (1, 1), (1, 1), (1, 1), 1):
        return False
    return min(conv.in_channels, conv.out_channels) >= 64 and conv.in_channels <= 8 * conv.out_channels


def equal_part(whole: int, most: int) -> int:
    """The size of the parts, at least 1, if a whole is split into the fewest equal parts of at most ``most``."""
    parts = max(1, -(-whole // max(1, most)))  # at least one part: a batch may be empty
    return -(-whole // parts)


class CompiledConv2d(Convolution):
    """A convolution by Winograd's F(6×6, 3×3), in bf16 by F(4×4, 3×3); see `supports`. It accumulates in fp32.

    Every call transforms the kernels again. For large frames this is faster than reading the transformed kernels, which
    are four to seven times as large, from memory; and it keeps no memory between calls.
    """

    # Limits of the workspace in bytes. If all transformed kernels fit into ALL_KERNELS_BYTES, the outer loop runs over
    # a few tiles at a time. Otherwise it runs over a few kernels at a time. The limits were tuned on a processor with 1
    # MiB of cache for each core and 32 MiB for all cores.
    ALL_KERNELS_BYTES, FEW_TILES_BYTES = 1 << 24, 1 << 21
    SOME_KERNELS_BYTES, ALL_TILES_BYTES = 1 << 23, 1 << 25

    # The minimum number of positions of all images for which the method is faster. For fewer positions transforming the
    # kernels takes longer than oneDNN's convolution.
    MIN_POSITIONS = 400

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        weight = conv.weight.detach()
        self.out_channels, self.in_channels = weight.shape[:2]
        self._step = _TILINGS[weight.dtype][1]
        self._block = _library(weight.dtype).outputs_of_a_block()
        # [blocks,in,9,outputs of a block]
        self._weight = weight.flatten(2).unflatten(0, (-1, self._block)).permute(0, 2, 3, 1).contiguous()
        bias = weight.new_zeros(self.out_channels) if conv.bias is None else conv.bias.detach()
        self._bias = bias.float()

    @staticmethod
    def supports(conv: nn.Conv2d) -> bool:
        """Whether a convolution `gains_from_winograd`, and a working library compiles for its type and channels."""
        if not gains_from_winograd(conv) or conv.weight.device.type != "cpu":
            return False
        library = _library(conv.weight.dtype)
        if library is None or not _computes_the_convolution(library, conv.weight.dtype):
            return False
        block = library.outputs_of_a_block()
        return conv.out_channels % block == 0 and conv.in_channels % (block // 2) == 0

    def convolve(self, x: Tensor, other: Tensor | None, relu_first: bool, relu: bool, replace_other: bool) -> Tensor:
        """As `Convolution.forward`.

        Raises:
            ValueError: a tensor has another type, other channels or another device than the weights, or ``other`` has
                another size than x.
        """
        if len(x) * x.shape[2] * x.shape[3] < self.MIN_POSITIONS:
            return self._for_small_frames.convolve(x, other, relu_first, relu, replace_other)
        x = self._channels_last(x, self.in_channels)
        images, height, width, channels = x.shape
        if other is not None:
            other = self._channels_last(other, self.out_channels)
            if other.shape[:3] != x.shape[:3]:
                raise ValueError(f"{tuple(other.shape)} cannot be added to a convolution of {tuple(x.shape)}")
        result = x.new_empty(*x.shape[:3], self.out_channels) if other is None or not replace_other else other

        tiles = images * -(-height // self._step) * -(-width // self._step)
        tiles_at_once, blocks_at_once, *workspace = self._workspace(tiles)
        tensors = (x, self._weight, other, self._bias, result, *workspace)
        torch.get_num_threads()  # in a new thread, only this call makes torch set OpenMP's number of threads
        _library(x.dtype).convolve(
            ctypes.byref(
                _Arguments(
                    *(None if tensor is None else tensor.data_ptr() for tensor in tensors),
                    *(images, height, width, channels, self.out_channels),
                    *(tiles_at_once, blocks_at_once, relu_first, relu),
                )
            )
        )
        return result.permute(0, 3, 1, 2)

    def _workspace(self, tiles: int) -> tuple[int, int, Tensor, Tensor]:
        """The numbers of tiles and of kernel blocks to process at a time, and the memory for both."""
        places, blocks = (self._step + 2) ** 2, len(self._weight)
        group_size = _GROUP * places * (self.in_channels + _PADDING)
        block_size = places * self.in_channels * self._block
        group_bytes, block_bytes = (size * self._weight.element_size() for size in (group_size, block_size))
        if blocks * block_bytes <= self.ALL_KERNELS_BYTES:
            most_groups = self.FEW_TILES_BYTES // group_bytes
        else:
            most_groups = self.ALL_TILES_BYTES // group_bytes
            blocks = equal_part(blocks, self.SOME_KERNELS_BYTES // block_bytes)
        groups = equal_part(-(-tiles // _GROUP), most_groups)
        memory = (
            self._weight.new_empty(number * size) for number, size in ((groups, group_size), (blocks, block_size))
        )
        return groups * _GROUP, blocks, *memory

    @functools.cached_property
    def _for_small_frames(self) -> PackedConv2d:
        conv = nn.Conv2d(self.in_channels, self.out_channels, 3, padding=1, device="meta")
        weight = self._weight.permute(0, 3, 1, 2).reshape(conv.weight.shape)
        conv.weight, conv.bias = (nn.Parameter(each.to(weight), requires_grad=False) for each in (weight, self._bias))
        return PackedConv2d(conv)

    def _channels_last(self, x: Tensor, channels: int) -> Tensor:
        """[N,C,h,w] as [N,h,w,C], contiguous. The library itself checks neither layout nor type."""
        if x.shape[1] != channels or x.dtype != self._weight.dtype or x.device.type != "cpu":
            raise ValueError(
                f"a tensor has {x.shape[1]} channels of {x.dtype} on {x.device}; this convolution needs {channels} of "
                f"{self._weight.dtype} on the CPU"
            )
        return x.permute(0, 2, 3, 1).contiguous()
