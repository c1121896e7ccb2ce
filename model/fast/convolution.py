"""Convolutions fused with ReLUs and additions, on CPUs."""

import torch
from torch import Tensor, nn


class Convolution(nn.Module):
    """A convolution, fused with a ReLU before it, and with an addition and a ReLU after it. It has no gradients."""

    def forward(
        self,
        x: Tensor,
        other: Tensor | None = None,
        *,
        relu_first: bool = False,
        relu: bool = False,
        replace_other: bool = False,
    ) -> Tensor:
        """y = conv(x) + other.

        Args:
            x: [N,in,h,w].
            other: [N,out,h',w'], the summand; None for no addition.
            relu_first: whether to apply ReLU to x.
            relu: whether to apply ReLU to y.
            replace_other: whether the result may overwrite ``other``, which then must not share memory with x.

        Returns:
            [N,out,h',w'], channels last.
        """
        return self.convolve(x, other, relu_first, relu, replace_other)

    def convolve(self, x: Tensor, other: Tensor | None, relu_first: bool, relu: bool, replace_other: bool) -> Tensor:
        """`forward`, as each subclass computes it."""
        raise NotImplementedError


class PackedConv2d(Convolution):
    """A convolution by oneDNN, with weights in oneDNN's own memory layout.

    The layout depends on the input size, so the weights are packed again when the size changes.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.geometry = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self.bias = conv.bias
        self._weight = conv.weight.detach()
        self._packed_for: torch.Size | None = None

    @staticmethod
    def available() -> bool:
        """Whether this build of PyTorch has oneDNN."""
        return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")

    def convolve(self, x: Tensor, other: Tensor | None, relu_first: bool, relu: bool, replace_other: bool) -> Tensor:
        """As `Convolution.forward`."""
        x = (x.relu() if relu_first else x).contiguous(memory_format=torch.channels_last)
        if x.shape != self._packed_for:
            weight = self._weight.to_dense() if self._weight.is_mkldnn else self._weight
            self._weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *self.geometry, x.shape)
            self._packed_for = x.shape
        convolution = (self._weight, self.bias, *self.geometry)
        if other is None:
            return torch.ops.mkldnn._convolution_pointwise(x, *convolution, "relu" if relu else "none", [], "")
        other = other.contiguous(memory_format=torch.channels_last)
        after = ("add", 1.0, "relu" if relu else None, [], "")
        if replace_other:
            return torch.ops.mkldnn._convolution_pointwise_.binary(other, x, *convolution, *after)
        return torch.ops.mkldnn._convolution_pointwise.binary(x, other, *convolution, *after)
