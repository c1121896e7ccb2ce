"""Convolutions with what usually follows them: the plain one, and others that compute the same, faster, on CPUs."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F


class Conv2d(nn.Conv2d):
    """torch's convolution, followed by an addition and a ReLU where asked for."""

    def forward(self, x: Tensor, other: Tensor | None = None, *, relu: bool = False) -> Tensor:
        """conv(x) + other, or the ReLU of it: [N,in,h,w] and [N,out,h',w'] -> [N,out,h',w']."""
        if trains_by_nnpack(self, x):
            return finish(_TrainedByNNPACK.apply(x, self.weight, self.bias), other, relu)
        return finish(super().forward(x), other, relu)


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


class PackedConv2d(nn.Module):
    """A convolution by oneDNN on a CPU, with its weights laid out in advance and what follows it in the same pass.

    Works and answers with the channels last. The layout depends on the input's size, so it is made anew for another.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.geometry = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self.bias = conv.bias
        self._weight = conv.weight.detach()
        self._packed_for: torch.Size | None = None

    @staticmethod
    def available() -> bool:
        """Whether this build of PyTorch has it."""
        return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")

    def forward(self, x: Tensor, other: Tensor | None = None, *, relu: bool = False) -> Tensor:
        """As `Conv2d`."""
        x = x.contiguous(memory_format=torch.channels_last)
        if x.shape != self._packed_for:
            self._weight = torch.ops.mkldnn._reorder_convolution_weight(self._dense_weight(), *self.geometry, x.shape)
            self._packed_for = x.shape
        after = "relu" if relu else None
        if other is None:
            return torch.ops.mkldnn._convolution_pointwise(
                x, self._weight, self.bias, *self.geometry, after or "none", [], ""
            )
        other = other.contiguous(memory_format=torch.channels_last)
        return torch.ops.mkldnn._convolution_pointwise.binary(
            x, other, self._weight, self.bias, *self.geometry, "add", 1.0, after, [], ""
        )

    def _dense_weight(self) -> Tensor:
        """[out,in,k,k], whatever layout it is kept in."""
        return self._weight.to_dense() if self._weight.is_mkldnn else self._weight


def gains_from_winograd(conv: nn.Conv2d) -> bool:
    """Whether a convolution is one of 3×3 and stride 1 that keeps the size, with enough channels to gain from."""
    plain = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups)
    if plain != ((3, 3), (1, 1), (1, 1), (1, 1), 1):
        return False
    return min(conv.in_channels, conv.out_channels) >= 64 and conv.in_channels <= 8 * conv.out_channels


class NNPACKConv2d(nn.Module):
    """A convolution that `gains_from_winograd`, by NNPACK in fp32, where the frame is large enough for it to gain."""

    # NNPACK transforms the kernel at every call, which pays from about this many positions on; measured against
    # oneDNN with AVX-512, where from 30×54 positions on it takes 0.4 to 0.8 of the time.
    LEAST_POSITIONS = 1500

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, other: Tensor | None = None, *, relu: bool = False) -> Tensor:
        """As `Conv2d`."""
        enough = x.shape[2] * x.shape[3] >= self.LEAST_POSITIONS
        return finish(_by_nnpack(x, self.conv.weight, self.conv.bias) if enough else self.conv(x), other, relu)


def _by_nnpack(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution of 3×3 that keeps the size: [N,in,h,w] -> [N,out,h,w].

    With a batch above one NNPACK is no faster than oneDNN, so the images become one: on top of each other, with a row
    of zeros below each.
    """
    images, _, height, _ = x.shape
    if images == 1:
        return torch._nnpack_spatial_convolution(x, weight, bias, [1, 1], [1, 1])
    stack = F.pad(x, (0, 0, 0, 1)).transpose(0, 1).flatten(1, 2)[None]
    result = torch._nnpack_spatial_convolution(stack, weight, bias, [1, 1], [1, 1])
    return result.unflatten(2, (images, height + 1))[0, :, :, :height].transpose(0, 1).contiguous()


# Channels, and positions of all images together, from which on NNPACK pays in training; measured against oneDNN with
# AVX-512.
_LEAST_TRAINED_CHANNELS, _LEAST_TRAINED_POSITIONS = 256, 4000


def trains_by_nnpack(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether a training step gains from running a convolution of x, and the way back to x, by NNPACK."""
    return (
        torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == conv.weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
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


def _winograd_matrices(points: tuple[float, ...], outputs: int, taps: int) -> tuple[np.ndarray, ...]:
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


class WinogradConv2d(PackedConv2d):
    """A convolution that `gains_from_winograd`, as Winograd's F(4×4, 3×3) in 16 bits, where the frame is large enough.

    The frame is cut into tiles of 6×6 that overlap by 2. Their transforms and the products are matrix products, a
    quarter of the multiplications of the convolution itself.
    """

    # Transformed weights take four times the memory of the others, so they have to gain more than a few milliseconds:
    # from 60×108 positions on they take half of oneDNN's time.
    LEAST_POSITIONS = 6000
    BAND_BYTES = 1 << 23  # bounds each buffer of the tiles that are worked on at a time

    _TILE, _STEP = 6, 4
    # Sums in 16 bits lose least with these points of all quotients of 1 to 4: 1.3% of the result, with 0, ±1 and ±2,
    # the usual ones, 2.9%; the convolution itself loses 0.3%.
    _OUT, _KERNEL, _IN = _winograd_matrices((0.0, 0.75, -0.75, 1.5, -1.5), _STEP, 3)

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv)
        weight = self._weight
        # Both dimensions of a tile at once.
        self._to_products = torch.from_numpy(np.kron(self._IN, self._IN)).to(weight)
        self._from_products = torch.from_numpy(np.kron(self._OUT, self._OUT)).to(weight)
        self._winograd_weight: Tensor | None = None

    def forward(self, x: Tensor, other: Tensor | None = None, *, relu: bool = False) -> Tensor:
        """As `Conv2d`."""
        if x.shape[2] * x.shape[3] < self.LEAST_POSITIONS:
            return super().forward(x, other, relu=relu)
        if self._winograd_weight is None:
            kernel = torch.from_numpy(self._KERNEL).float()
            dense = self._dense_weight()
            weight = torch.einsum("ip,jq,ocpq->ijco", kernel, kernel, dense.float())
            self._winograd_weight = weight.flatten(0, 1).to(dense.dtype)  # [36,in,out]
        results = [self._convolve(one) for one in x.permute(0, 2, 3, 1).contiguous().split(1)]
        result = results[0] if len(results) == 1 else torch.cat(results)
        return finish(result.permute(0, 3, 1, 2), other, relu)

    def _convolve(self, x: Tensor) -> Tensor:
        """[1,h,w,in] -> [1,h,w,out]."""
        _, height, width, channels = x.shape
        tile, step, weight = self._TILE, self._STEP, self._winograd_weight
        rows, columns = -(-height // step), -(-width // step)
        # One row and column around, and what the last tiles have beyond the frame.
        x = F.pad(x, (0, 0, 1, columns * step + 1 - width, 1, rows * step + 1 - height))[0]
        stride = x.shape[1] * channels
        tiles = x.as_strided(
            (tile, tile, rows, columns, channels), (stride, channels, step * stride, step * channels, 1)
        )
        result = x.new_empty(rows, step, columns, step, weight.shape[2])
        by_tile = result.permute(1, 3, 0, 2, 4)
        tile_row_bytes = tile**2 * columns * max(weight.shape[1:]) * x.element_size()
        band = max(1, self.BAND_BYTES // tile_row_bytes)
        for source, target in zip(tiles.split(band, dim=2), by_tile.split(band, dim=2), strict=True):
            products = (self._to_products @ source.reshape(tile**2, -1)).view(tile**2, -1, channels).bmm(weight)
            sums = (self._from_products @ products.flatten(1)).view(target.shape)
            target.copy_(sums) if self.bias is None else torch.add(sums, self.bias, out=target)
        return result.view(1, rows * step, columns * step, -1)[:, :height, :width]


class OneChannelConv2d(nn.Module):
    """A 3×3 convolution to one channel: a 1×1 convolution to the nine products of a position, which are then moved
    to where they count and added. Nine times fewer reads than the usual way, which prepares for many channels."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        weight = conv.weight.detach()  # [1,in,3,3]
        # `fold` moves a product of a position to its neighbour: what the neighbour reads there is the mirrored kernel.
        self.weight = weight.flip(2, 3)[0].permute(1, 2, 0).reshape(9, -1, 1, 1)
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """[N,in,h,w] -> [N,1,h,w], in fp32."""
        products = F.conv2d(x, self.weight).float()
        return F.fold(products.flatten(2), x.shape[2:], kernel_size=3, padding=1) + self.bias
