"""Convolutions with what usually follows them: the plain one, and others that compute the same, faster, on CPUs."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Conv2d(nn.Conv2d):
    """torch's convolution, followed by an addition and a ReLU where asked for."""

    def forward(self, x: Tensor, other: Tensor | None = None, *, relu: bool = False) -> Tensor:
        """conv(x) + other, or the ReLU of it: [N,in,h,w] and [N,out,h',w'] -> [N,out,h',w']."""
        return finish(super().forward(x), other, relu)


def finish(x: Tensor, other: Tensor | None, relu: bool) -> Tensor:
    """What follows a convolution, in the place of its result ``x``; ``other`` stays as it is."""
    if other is not None:
        x = x.add_(other)
    return F.relu_(x) if relu else x


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
            dense = self._weight.to_dense() if self._weight.is_mkldnn else self._weight
            self._weight = torch.ops.mkldnn._reorder_convolution_weight(dense, *self.geometry, x.shape)
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


class WinogradConv2d(nn.Module):
    """A 3×3 convolution of stride 1 by NNPACK, where the frame is large enough for it to be the faster one."""

    # NNPACK transforms the kernel at every call, which pays from about this many positions on; measured against
    # oneDNN with AVX-512, where from 30×54 positions on it takes 0.4 to 0.8 of the time.
    LEAST_POSITIONS = 1500

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    @staticmethod
    def suits(conv: nn.Conv2d) -> bool:
        """Whether NNPACK can run it, and has enough channels to gain from."""
        plain = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups)
        if plain != ((3, 3), (1, 1), (1, 1), (1, 1), 1):
            return False
        return min(conv.in_channels, conv.out_channels) >= 64 and conv.in_channels <= 8 * conv.out_channels

    def forward(self, x: Tensor, other: Tensor | None = None, *, relu: bool = False) -> Tensor:
        """As `Conv2d`."""
        if x.shape[2] * x.shape[3] < self.LEAST_POSITIONS:
            return finish(self.conv(x), other, relu)
        weight, bias = self.conv.weight, self.conv.bias
        # With a batch above one it is no faster than oneDNN.
        results = [torch._nnpack_spatial_convolution(one, weight, bias, [1, 1], [1, 1]) for one in x.split(1)]
        return finish(results[0] if len(results) == 1 else torch.cat(results), other, relu)


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
