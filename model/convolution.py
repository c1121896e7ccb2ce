"""Convolutions with what usually follows them: the plain one, and others that compute the same, faster, on CPUs."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from util import lasting_memory


class Convolution(nn.Module):
    """A convolution of any kind, with a ReLU before it, an addition and a ReLU after it where asked for."""

    def forward(
        self,
        x: Tensor,
        other: Tensor | None = None,
        *,
        relu_first: bool = False,
        relu: bool = False,
        replace_other: bool = False,
    ) -> Tensor:
        """conv(x) + other, of the ReLU of x or the ReLU of it all: [N,in,h,w] and [N,out,h',w'] -> [N,out,h',w'].

        With ``replace_other`` a kind that knows no gradients may put the result in the place of ``other``, which then
        shares no memory with x.
        """
        return self.convolve(x, other, relu_first, relu, replace_other)

    def convolve(self, x: Tensor, other: Tensor | None, relu_first: bool, relu: bool, replace_other: bool) -> Tensor:
        """What `forward` does, which is left to each kind."""
        raise NotImplementedError


class Conv2d(Convolution, nn.Conv2d):
    """torch's convolution."""

    def convolve(self, x: Tensor, other: Tensor | None, relu_first: bool, relu: bool, replace_other: bool) -> Tensor:
        """As `Convolution`; can be trained, so it never replaces ``other``."""
        x = begin(x, relu_first)
        if trains_by_nnpack(self, x):
            return finish(_TrainedByNNPACK.apply(x, self.weight, self.bias), other, relu)
        return finish(nn.Conv2d.forward(self, x), other, relu)


def begin(x: Tensor, relu_first: bool) -> Tensor:
    """What comes before a convolution; ``x`` stays as it is."""
    return F.relu(x) if relu_first else x


def finish(x: Tensor, other: Tensor | None, relu: bool) -> Tensor:
    """What follows a convolution, in the place of its result ``x``; ``other`` stays as it is."""
    if other is not None:
        x = x.add_(other)
    return F.relu_(x) if relu else x


def convolve_and_norm(conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """norm(conv(x)) in new memory: [N,in,h,w] -> [N,out,h',w'].

    Norms with stored statistics scale the convolution's weights instead of its result. That is a pass less, and
    training has no need to keep what the norm was given.
    """
    if norm.training or not isinstance(norm, nn.BatchNorm2d):
        return norm(conv(x))
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    bias = norm.bias - scale * norm.running_mean
    return F.conv2d(x, conv.weight * scale.view(-1, 1, 1, 1), bias, conv.stride, conv.padding)


class PackedConv2d(Convolution):
    """A convolution by oneDNN on a CPU, with its weights laid out in advance and what follows it in the same pass.

    Works and answers with the channels last. The layout depends on the input's size, so it is made anew for another.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        padding: Sequence[int] = (0, 0),
        stride: Sequence[int] = (1, 1),
        dilation: Sequence[int] = (1, 1),
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.geometry = (padding, stride, dilation, groups)
        self.bias = bias
        self._weight = weight
        self._packed_for: torch.Size | None = None

    @classmethod
    def of(cls, conv: nn.Conv2d) -> "PackedConv2d":
        """The same convolution."""
        geometry = {"padding": conv.padding, "stride": conv.stride, "dilation": conv.dilation, "groups": conv.groups}
        return cls(conv.weight.detach(), conv.bias, **geometry)

    @staticmethod
    def available() -> bool:
        """Whether this build of PyTorch has it."""
        return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")

    def convolve(self, x: Tensor, other: Tensor | None, relu_first: bool, relu: bool, replace_other: bool) -> Tensor:
        """As `Convolution`."""
        x = begin(x, relu_first).contiguous(memory_format=torch.channels_last)
        if x.shape != self._packed_for:
            with lasting_memory():
                weight = self._weight.to_dense() if self._weight.is_mkldnn else self._weight
                self._weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *self.geometry, x.shape)
            self._packed_for = x.shape
        convolution = (self._weight, self.bias, *self.geometry)
        if other is None:
            return torch.ops.mkldnn._convolution_pointwise(x, *convolution, "relu" if relu else "none", [], "")
        other = other.contiguous(memory_format=torch.channels_last)
        what_follows = ("add", 1.0, "relu" if relu else None, [], "")
        if replace_other:
            return torch.ops.mkldnn._convolution_pointwise_.binary(other, x, *convolution, *what_follows)
        return torch.ops.mkldnn._convolution_pointwise.binary(x, other, *convolution, *what_follows)


def gains_from_winograd(conv: nn.Conv2d) -> bool:
    """Whether a convolution is one of 3×3 and stride 1 that keeps the size, with enough channels to gain from."""
    plain = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups)
    if plain != ((3, 3), (1, 1), (1, 1), (1, 1), 1):
        return False
    return min(conv.in_channels, conv.out_channels) >= 64 and conv.in_channels <= 8 * conv.out_channels


class NNPACKConv2d(Convolution):
    """A convolution that `gains_from_winograd`, by NNPACK in fp32, where the frame is large enough for it to gain."""

    # NNPACK transforms the kernel at every call, which pays from about this many positions on; measured against
    # oneDNN with AVX-512, where from 30×54 positions on it takes 0.4 to 0.8 of the time.
    LEAST_POSITIONS = 1500

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def convolve(self, x: Tensor, other: Tensor | None, relu_first: bool, relu: bool, replace_other: bool) -> Tensor:
        """As `Convolution`; NNPACK cannot write to a given place."""
        x = begin(x, relu_first)
        enough = x.shape[2] * x.shape[3] >= self.LEAST_POSITIONS
        return finish(_by_nnpack(x, self.conv.weight, self.conv.bias) if enough else self.conv(x), other, relu)


def _by_nnpack(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution of 3×3 that keeps the size: [N,in,h,w] -> [N,out,h,w].

    With a batch above one NNPACK is no faster than oneDNN, so the images become one: on top of each other, with a row
    of zeros below each.
    """
    images, channels, height, width = x.shape
    if images == 1:
        return torch._nnpack_spatial_convolution(x, weight, bias, [1, 1], [1, 1])
    stack = x.new_empty(channels, images, height + 1, width)
    stack[:, :, :height] = x.transpose(0, 1)
    stack[:, :, height] = 0
    result = torch._nnpack_spatial_convolution(stack.flatten(1, 2)[None], weight, bias, [1, 1], [1, 1])
    return result.unflatten(2, (images, height + 1))[0, :, :, :height].transpose(0, 1).contiguous()


def trains_on_cpu(x: Tensor) -> bool:
    """Whether x is part of a training step on a CPU, in fp32 throughout."""
    in_fp32 = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return x.device.type == "cpu" and in_fp32 and torch.is_grad_enabled()


# Channels, and positions of all images together, from which on NNPACK pays in training; measured against oneDNN with
# AVX-512.
_LEAST_TRAINED_CHANNELS, _LEAST_TRAINED_POSITIONS = 256, 4000


def trains_by_nnpack(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether a training step gains from running a convolution of x, and the way back to x, by NNPACK."""
    return (
        trains_on_cpu(x)
        and conv.weight.dtype == torch.float32
        and len(x) * x.shape[2] * x.shape[3] >= _LEAST_TRAINED_POSITIONS
        and min(conv.in_channels, conv.out_channels) >= _LEAST_TRAINED_CHANNELS
        and gains_from_winograd(conv)
        and torch.backends.nnpack.is_available()
    )


class _TrainedByNNPACK(torch.autograd.Function):
    """NNPACK's convolution with gradients: to the input by NNPACK again, to weight and bias by oneDNN."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _by_nnpack(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_x = None
        if ctx.needs_input_grad[0]:
            # What a position was read for comes back to it through the mirrored kernel.
            to_x = _by_nnpack(gradient, weight.flip(2, 3).transpose(0, 1).contiguous(), None)
        geometry = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)  # stride, padding, dilation, transposed, ..., groups
        wanted = [False, *ctx.needs_input_grad[1:]]
        _, to_weight, to_bias = torch.ops.aten.convolution_backward(
            gradient, x, weight, [len(weight)], *geometry, wanted
        )
        return to_x, to_weight, to_bias


def equal_part(whole: int, most: int) -> int:
    """The size of the fewest equal parts of a whole that are no larger than this, at least 1."""
    parts = max(1, -(-whole // max(1, most)))  # one of nothing, as in an empty batch
    return -(-whole // parts)


def winograd_matrices(points: tuple[float, ...], outputs: int, taps: int) -> tuple[np.ndarray, ...]:
    """A^T [outputs,n], G [n,taps] and B^T [n,n] of Winograd's F(outputs, taps), n = outputs + taps - 1.

    A^T (G g * B^T d) is what the filter g sees when it slides over d (Lavin and Gray, "Fast Algorithms for
    Convolutional Neural Networks", CVPR 2016): products of polynomials, multiplied at n - 1 points and at infinity.
    """
    n = outputs + taps - 1

    def at_the_points(coefficients: int) -> np.ndarray:
        values = np.vander(np.append(points, 0.0), coefficients, increasing=True)
        values[-1] = np.eye(coefficients)[-1]  # at infinity the highest one counts
        return values

    return at_the_points(outputs).T, at_the_points(taps), np.linalg.inv(at_the_points(n)).T


class WinogradConv2d(Convolution):
    """A convolution that `gains_from_winograd`, as Winograd's F(4×4, 3×3), on a CPU that has `PackedConv2d`.

    The frame is cut into tiles of 6×6 that overlap by 2. Their transforms and the products are matrix products, a
    quarter of the multiplications of the convolution itself. The transformed weights take the place of the others, and
    four times their memory. Works and answers with the channels last.
    """

    BAND_BYTES = 1 << 23  # bounds each buffer of the tiles that are worked on at a time

    _TILE, _STEP = 6, 4
    # Sums in 16 bits lose least with these points of all quotients of 1 to 4: 1.3% of the result, with 0, ±1 and ±2,
    # the usual ones, 2.9%; the convolution itself loses 0.3%.
    _OUT, _KERNEL, _IN = winograd_matrices((0.0, 0.75, -0.75, 1.5, -1.5), _STEP, 3)

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        weight, products = conv.weight.detach(), self._TILE**2
        self.out_channels, in_channels = weight.shape[:2]
        # Both dimensions of a tile at once.
        to_products, from_products, kernel = (np.kron(each, each) for each in (self._IN, self._OUT, self._KERNEL))
        self._to_products, self._from_products = (torch.from_numpy(m).to(weight) for m in (to_products, from_products))
        transformed = weight.new_empty(products, self.out_channels, in_channels)
        for some, target in zip(weight.split(64), transformed.split(64, dim=1), strict=True):  # of fp32 only a part
            target.copy_(torch.einsum("tk,ock->toc", torch.from_numpy(kernel).float(), some.float().flatten(2)))
        bias = None
        if conv.bias is not None:
            # What adds up to one everywhere in a tile's results.
            one = np.linalg.pinv(from_products).sum(1)
            bias = torch.outer(torch.from_numpy(one).to(conv.bias), conv.bias.detach()).flatten()
        # A product of matrices for each of the 36 places, as oneDNN has it quickest.
        self._multiply = PackedConv2d(transformed.view(-1, in_channels, 1, 1), bias, groups=products)

    def convolve(self, x: Tensor, other: Tensor | None, relu_first: bool, relu: bool, replace_other: bool) -> Tensor:
        """As `Convolution`; the first ReLU and the replacing go strip by strip."""
        x = x.permute(0, 2, 3, 1).contiguous()
        if other is None:
            others, replace_other = [None] * len(x), False
        else:
            others = other.permute(0, 2, 3, 1)
        result = others if replace_other else x.new_empty(*x.shape[:3], self.out_channels)
        for image, target, summand in zip(x, result, others, strict=True):
            self._convolve(image, target, summand, relu_first, relu)
        return result.permute(0, 3, 1, 2)

    def _convolve(self, x: Tensor, target: Tensor, other: Tensor | None, relu_first: bool, relu: bool) -> None:
        """x [h,w,in] and other [h,w,out] to the target [h,w,out], some rows at a time."""
        height, width, in_channels = x.shape
        rows, columns = -(-height // self._STEP), -(-width // self._STEP)  # of tiles
        row_bytes = self._TILE**2 * columns * max(in_channels, self.out_channels) * x.element_size()
        band = equal_part(rows, self.BAND_BYTES // row_bytes)
        for first in range(0, rows, band):
            # Every band has as many rows of tiles, since the layout of the weights depends on it; the last one begins
            # within what is done already.
            start = min(first, rows - band) * self._STEP
            stop = start + band * self._STEP
            # One row and column around, and what the last tiles have beyond the frame.
            above, below = max(1 - start, 0), max(stop + 1 - height, 0)
            strip = x[start - 1 + above : stop + 1 - below]
            strip = F.pad(strip, (0, 0, 1, columns * self._STEP + 1 - width, above, below))
            if relu_first:
                strip = strip.relu_()
            place = slice(first * self._STEP, min(stop, height))
            result = self._by_tile(strip)[place.start - start : place.stop - start, :width]
            target[place] = finish(result, None if other is None else other[place], relu)

    def _by_tile(self, x: Tensor) -> Tensor:
        """The convolution of x [4·rows+2,4·columns+2,in], without padding: [4·rows,4·columns,out]."""
        tiles = x.unfold(0, self._TILE, self._STEP).unfold(1, self._TILE, self._STEP)  # [rows,columns,in,6,6]
        rows, columns, channels = tiles.shape[:3]
        x = tiles.permute(0, 1, 3, 4, 2).reshape(rows * columns, -1, channels)
        x = self._to_products @ x
        x = self._multiply(x.view(1, len(x), 1, -1).permute(0, 3, 1, 2))
        x = self._from_products @ x.permute(0, 2, 3, 1).view(rows * columns, len(self._to_products), -1)
        x = x.view(rows, columns, self._STEP, self._STEP, -1).transpose(1, 2)
        return x.reshape(rows * self._STEP, columns * self._STEP, -1)


class OneChannelConv2d(nn.Conv2d):
    """A 3×3 convolution to one channel.

    On CPUs it is a 1×1 convolution to the nine products of a position, which are then moved to where they count and
    added: nine times fewer reads than the usual way, which prepares for many channels.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[N,in,h,w] -> [N,1,h,w]; in fp32 on CPUs."""
        if x.device.type != "cpu":
            return super().forward(x)
        # `fold` moves a product of a position to its neighbour: what the neighbour reads there is the mirrored kernel.
        weight = self.weight.flip(2, 3)[0].permute(1, 2, 0).reshape(9, -1, 1, 1)
        products = F.conv2d(x, weight).float()
        return F.fold(products.flatten(2), x.shape[2:], kernel_size=3, padding=1) + self.bias
