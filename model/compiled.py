"""A convolution of our own, compiled where it runs: no library has one as fast for 3×3 kernels on CPUs."""

import contextlib
import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from model.convolution import Convolution, PackedConv2d, equal_part, gains_from_winograd, winograd_matrices

_SOURCE = Path(__file__).with_name("winograd.c")

# Points and step of F(step×step, 3×3). In fp32 the larger tile saves more multiplications; in bf16, where inputs are
# rounded once transformed, it would lose 4% of the result, and these points lose 0.9%.
_TILINGS = {
    torch.float32: ((0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5), 6),
    torch.bfloat16: ((0.0, 2 / 3, -2 / 3, 1.5, -1.5), 4),
}

_GROUP = 12  # tiles that are worked on at a time
_PADDING = 32  # elements after each row of a product, or rows would compete for the same lines of the cache


class _Arguments(ctypes.Structure):
    """`Convolution` of winograd.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "weight", "other", "bias", "y", "tiles", "kernels")),
        *((name, ctypes.c_int64) for name in ("images", "height", "width", "inputs", "outputs")),
        *((name, ctypes.c_int64) for name in ("tiles_at_once", "blocks_at_once", "relu_first", "relu")),
    )


def _source(dtype: torch.dtype) -> str:
    """The program for tensors of a type."""
    points, step = _TILINGS[dtype]
    output, kernel, tile = winograd_matrices(points, step, 3)
    # Sums of few simple numbers where one can choose: the last one of each row becomes 1.
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
    """The compiled program; None where it cannot be compiled or loaded, or the processor does not multiply the type.

    Compiling takes half a second, which spares a cache that could outlive what it was made of.
    """
    if dtype not in _TILINGS:
        return None
    for compiler in filter(None, map(shutil.which, ("cc", "gcc"))):
        with contextlib.suppress(OSError, subprocess.CalledProcessError), tempfile.TemporaryDirectory() as folder:
            source, module, library = (Path(folder, f"winograd.{suffix}") for suffix in ("c", "o", "so"))
            source.write_text(_source(dtype), encoding="utf-8")
            # -fopenmp not for linking: torch has brought the OpenMP library, whose threads these are to be, too.
            options = ["-O3", "-march=native", "-fno-signed-zeros", "-fPIC", "-fopenmp"]
            for command in ([*options, "-c", source, "-o", module], ["-shared", module, "-o", library]):
                subprocess.run([compiler, *command], check=True, capture_output=True)
            return ctypes.CDLL(str(library))
    return None


class CompiledConv2d(Convolution):
    """A convolution that is `possible`, as Winograd's F(6×6, 3×3), in bf16 F(4×4, 3×3).

    The kernels are transformed at every call, in less time than it would take to read transformed ones from memory
    where a frame is large, so they need no memory that lasts. Sums are in fp32. Works and answers with the channels
    last; knows no gradients.
    """

    # Bounds of the workspace: where all kernels fit, few tiles pass all of them at a time; elsewhere some kernels all
    # tiles. Measured with 1 MiB of cache for each core and 32 for all.
    ALL_KERNELS_BYTES, FEW_TILES_BYTES = 1 << 24, 1 << 21
    SOME_KERNELS_BYTES, ALL_TILES_BYTES = 1 << 23, 1 << 25

    # Of all images together. With fewer, transforming the kernels takes longer than oneDNN's convolution.
    LEAST_POSITIONS = 400

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
    def possible(conv: nn.Conv2d) -> bool:
        """Whether a convolution `gains_from_winograd`, and this machine compiles it for its type and channels."""
        if not gains_from_winograd(conv) or conv.weight.device.type != "cpu":
            return False
        library = _library(conv.weight.dtype)
        if library is None:
            return False
        block = library.outputs_of_a_block()
        return conv.out_channels % block == 0 and conv.in_channels % (block // 2) == 0

    def convolve(self, x: Tensor, other: Tensor | None, relu_first: bool, relu: bool, replace_other: bool) -> Tensor:
        """As `Convolution`.

        Raises:
            ValueError: the tensors are not of the convolution's type and channels, not alike, or not on the CPU.
        """
        if len(x) * x.shape[2] * x.shape[3] < self.LEAST_POSITIONS and PackedConv2d.available():
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
        torch.get_num_threads()  # lets torch set this number for OpenMP, which in a new thread it has not done yet
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
        """How many tiles and blocks of kernels to work on at a time, and the memory for them once transformed."""
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
        weight = self._weight.permute(0, 3, 1, 2).reshape(self.out_channels, self.in_channels, 3, 3)
        return PackedConv2d(weight, self._bias.to(weight), padding=(1, 1))

    def _channels_last(self, x: Tensor, channels: int) -> Tensor:
        """[N,C,h,w] as [N,h,w,C] in this order of memory, which the program takes for granted like the type."""
        if x.shape[1] != channels or x.dtype != self._weight.dtype or x.device.type != "cpu":
            raise ValueError(f"{channels} channels of {self._weight.dtype} on the CPU are wanted here")
        return x.permute(0, 2, 3, 1).contiguous()
