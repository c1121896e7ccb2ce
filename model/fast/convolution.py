"""Convolutions fused with ReLUs and additions, on CPUs."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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

    RELU: tuple[str, list[float]] = "relu", []  # oneDNN's name and parameters of the ReLU after the convolution

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
        activation, limits = self.RELU if relu else (None, [])
        if other is None:
            return torch.ops.mkldnn._convolution_pointwise(x, *convolution, activation or "none", limits, "")
        other = other.contiguous(memory_format=torch.channels_last)
        after = ("add", 1.0, activation, limits, "")
        if replace_other:
            return torch.ops.mkldnn._convolution_pointwise_.binary(other, x, *convolution, *after)
        return torch.ops.mkldnn._convolution_pointwise.binary(x, other, *convolution, *after)


class PackedSameConv2d(PackedConv2d):
    """`model.efficientnet.SameConv2d` by oneDNN.

    The ReLU after it is ReLU6, which torch cannot fuse after an addition; ``relu_first`` stays ReLU.

    oneDNN pads both sides alike here, but at stride 2 SAME pads an even side less before the image than after it. A
    zero row and a zero column at the beginning of the kernel make up for that without a padded copy of the input.

    Args:
        weight: [out,in,k,k], k odd; in is 1 for a depthwise convolution.
        bias: [out], or None.
        stride: 1 or 2.
    """

    RELU = "hardtanh", [0.0, 6.0]

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int) -> None:
        outputs, inputs, size, _ = weight.shape
        groups = outputs if inputs == 1 else 1
        conv = nn.Conv2d(groups * inputs, outputs, size, stride, size // 2, groups=groups, device="meta")
        conv.weight = nn.Parameter(F.pad(weight, (1, 0, 1, 0)) if stride == 2 else weight, requires_grad=False)
        conv.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        super().__init__(conv)
        self._padding = conv.padding[0]

    def convolve(self, x: Tensor, other: Tensor | None, relu_first: bool, relu: bool, replace_other: bool) -> Tensor:
        """As `Convolution.forward`."""
        _, stride, *rest = self.geometry
        if stride == (2, 2):
            self.geometry = ([self._padding + side % 2 for side in x.shape[2:]], stride, *rest)
        return super().convolve(x, other, relu_first, relu, replace_other)
