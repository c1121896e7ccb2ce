"""Fast blocks for CPUs. Each reuses the children of a plain block and computes the same result.

ReLUs and additions are fused into the convolutions. The sum with a shortcut is written over the shortcut in memory, so
a block may modify its input.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.blocks import per_object
from model.decoder import Decoder
from model.efficientnet import ConvNormReLU6, EfficientNetLite0, InvertedResidual
from model.fast.convolution import PackedConv2d, PackedSameConv2d
from model.fast.winograd import CompiledConv2d


def fast_convolution(conv: nn.Conv2d) -> nn.Module:
    """The fastest implementation of a convolution that is supported here."""
    if CompiledConv2d.supports(conv):
        return CompiledConv2d(conv)
    if (conv.kernel_size, conv.padding, conv.stride, conv.out_channels) == ((3, 3), (1, 1), (1, 1), 1):
        return OneChannelConv2d(conv)
    return PackedConv2d(conv)


class OneChannelConv2d(nn.Module):
    """A 3×3 convolution to one channel, from nine products for each position.

    A 1×1 convolution multiplies each position by all nine weights of the kernel. ``fold`` shifts each product to its
    output position, and adds. oneDNN is optimised for many output channels, and reads the input nine times as often.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        # The product with the upper left weight belongs to the neighbour at the lower right, so the kernel is flipped.
        weight = conv.weight.flip(2, 3)[0].permute(1, 2, 0).reshape(9, -1, 1, 1)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """[N,in,h,w] -> [N,1,h,w] in fp32."""
        products = F.conv2d(x, self.weight).float()
        return F.fold(products.flatten(2), x.shape[2:], kernel_size=3, padding=1) + self.bias


class FastBlock(nn.Module):
    """A block that reuses the children of a plain block."""

    def __init__(self, plain: nn.Module) -> None:
        nn.Module.__init__(self)  # the constructor of a plain class would create new weights
        for name, child in plain.named_children():
            self.add_module(name, child)


class FastBasicBlock(FastBlock):
    """`model.resnet.BasicBlock` with folded norms."""

    def forward(self, x: Tensor) -> Tensor:
        """[N,in,h,w] -> [N,planes,h/stride,w/stride]."""
        y = self.conv1(x, relu=True)
        return self.conv2(y, self.downsample(x), relu=True, replace_other=True)


class FastBottleneck(FastBlock):
    """`model.resnet.Bottleneck` with folded norms."""

    def forward(self, x: Tensor) -> Tensor:
        """[N,in,h,w] -> [N,4·planes,h/stride,w/stride]."""
        y = self.conv1(x, relu=True)
        y = self.conv2(y, relu=True)
        return self.conv3(y, self.downsample(x), relu=True, replace_other=True)


class FastResNet(FastBlock):
    """`model.resnet.ResNet` with folded norms."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[N,in,H,W] -> the features at strides 4, 8 and 16."""
        f4 = self.layer1(self.maxpool(self.conv1(x, relu=True)))
        f8 = self.layer2(f4)
        return f4, f8, self.layer3(f8)


class FastConvNormReLU6(nn.Module):
    """`model.efficientnet.ConvNormReLU6` with a folded norm."""

    def __init__(self, plain: ConvNormReLU6) -> None:
        super().__init__()
        self.conv = PackedSameConv2d(plain.conv.weight, plain.conv.bias, plain.conv.stride[0])

    def forward(self, x: Tensor) -> Tensor:
        """[N,in,h,w] -> [N,out,⌈h/stride⌉,⌈w/stride⌉]."""
        return self.conv(x, relu=True)


class FastInvertedResidual(nn.Module):
    """`model.efficientnet.InvertedResidual` with folded norms, for a third of the inner channels at a time.

    The depthwise convolution does not mix channels, so the reductions of the thirds are added up. A third takes less
    memory and stays in the processor's cache: at high resolution this is up to twice as fast.
    """

    def __init__(self, plain: InvertedResidual) -> None:
        super().__init__()
        self.has_shortcut = plain.has_shortcut
        expands = not isinstance(plain.expand, nn.Identity)
        parts = []
        depthwise, reduce = plain.depthwise.conv, plain.reduce
        for number, channels in enumerate(torch.arange(reduce.in_channels).chunk(3 if expands else 1)):
            part = slice(int(channels[0]), int(channels[-1]) + 1)
            layers = [
                PackedSameConv2d(depthwise.weight[part], depthwise.bias[part], depthwise.stride[0]),
                PackedSameConv2d(reduce.weight[:, part], reduce.bias if number == 0 else None, 1),
            ]
            if expands:
                expand = plain.expand.conv
                layers.insert(0, PackedSameConv2d(expand.weight[part], expand.bias[part], 1))
            parts.append(nn.ModuleList(layers))
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        """[N,in,h,w] -> [N,out,⌈h/stride⌉,⌈w/stride⌉]."""
        result = x if self.has_shortcut else None
        for *inner, reduce in self.parts:
            y = x
            for layer in inner:
                y = layer(y, relu=True)
            result = reduce(y, result, replace_other=result is not x)
        return result


def fast_efficientnet(backbone: EfficientNetLite0) -> EfficientNetLite0:
    """Replace the first convolution of a backbone whose blocks have been replaced."""
    backbone.first = FastConvNormReLU6(backbone.first)
    return backbone


class ObjectByObject(nn.Module):
    """The backbone of the mask encoder, one object at a time."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """[N,5,H,W] -> the feature at stride 16, the only one that the mask encoder uses."""
        return (torch.cat([self.backbone(one)[-1] for one in x.split(1)]),)


class FastResidualBlock(FastBlock):
    """`model.blocks.ResidualBlock`."""

    def forward(self, x: Tensor) -> Tensor:
        """[N,in,h,w] -> [N,out,h,w]."""
        y = self.conv1(x, relu_first=True, relu=True)
        return self.conv2(y, self.shortcut(x), replace_other=True)


class FastFusionBlock(FastBlock):
    """`model.blocks.FusionBlock`."""

    def forward(self, own: Tensor, shared: Tensor) -> Tensor:
        """As `FusionBlock.forward`."""
        objects = len(own) // len(shared)
        joins_conv1 = per_object(self.conv1.shared(shared, relu_first=True), objects)
        y = self.conv1.own(own, joins_conv1, relu_first=True, relu=True)
        joins_shortcut = per_object(self.shortcut.shared(shared), objects)
        return self.conv2(y, self.shortcut.own(own, joins_shortcut), replace_other=True)


class ObjectwiseDecoder(FastBlock, Decoder):
    """`model.decoder.Decoder`, one object at a time at high resolution."""

    def upsample(self, x: Tensor, skip8: Tensor, skip4: Tensor) -> Tensor:
        """As `Decoder.upsample`."""
        frames = zip(x.split(len(x) // len(skip8)), skip8.split(1), skip4.split(1), strict=True)
        parts = ((one, *skips) for objects, *skips in frames for one in objects.split(1))
        return torch.cat([super(ObjectwiseDecoder, self).upsample(*part) for part in parts])
