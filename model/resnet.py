"""The backbones of both encoders: ResNets (He et al., CVPR 2016) up to their third stage.

They have torchvision's names and compute what its ResNets do, but importing those takes two seconds and 160 MiB.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.convolution import convolve_and_norm, trains_on_cpu


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut; the first one may change the resolution."""

    expansion = 1

    def __init__(self, in_channels: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(in_channels, planes, stride)
        nn.init.zeros_(self.bn2.weight)  # see `Backbone`

    def convolutions(self) -> list[nn.Conv2d]:
        """Those beside the shortcut, in their order."""
        return [self.conv1, self.conv2]

    def forward(self, x: Tensor) -> Tensor:
        """[N,in,h,w] -> [N,planes,h/stride,w/stride]."""
        shortcut = self.downsample(x)
        x = F.relu_(convolve_and_norm(self.conv1, self.bn1, x))
        return F.relu_(convolve_and_norm(self.conv2, self.bn2, x).add_(shortcut))


class Bottleneck(nn.Module):
    """A 3×3 convolution, which may change the resolution, between two of 1×1 beside a shortcut."""

    expansion = 4

    def __init__(self, in_channels: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.downsample = _shortcut(in_channels, planes * self.expansion, stride)
        nn.init.zeros_(self.bn3.weight)  # see `Backbone`

    def convolutions(self) -> list[nn.Conv2d]:
        """Those beside the shortcut, in their order."""
        return [self.conv1, self.conv2, self.conv3]

    def forward(self, x: Tensor) -> Tensor:
        """[N,in,h,w] -> [N,4·planes,h/stride,w/stride]."""
        shortcut = self.downsample(x)
        x = F.relu_(convolve_and_norm(self.conv1, self.bn1, x))
        x = F.relu_(convolve_and_norm(self.conv2, self.bn2, x))
        return F.relu_(convolve_and_norm(self.conv3, self.bn3, x).add_(shortcut))


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return Shortcut(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class Shortcut(nn.Sequential):
    """A convolution and a norm, where a block changes the resolution or the channels."""

    def forward(self, x: Tensor) -> Tensor:
        """[N,in,h,w] -> [N,out,h',w']."""
        return convolve_and_norm(*self, x)


# Name -> the block, and how many of them in each of the three stages.
BACKBONES = {
    "resnet10": (BasicBlock, (1, 1, 1)),
    "resnet18": (BasicBlock, (2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6)),
    "resnet50": (Bottleneck, (3, 4, 6)),
}


class Backbone(nn.Module):
    """A ResNet up to its third stage.

    ``channels`` holds the widths (C4, C8, C16) of what it returns at strides 4, 8 and 16. Its residual branches start
    at zero: frozen norms do not hold the scale of a network that starts from nothing, and this does.

    Args:
        name: one of `BACKBONES`; ResNet-10 has one block a stage.
        width: channels of the first convolution, which all others are multiples of; 64 is the standard network.
        in_channels: of the input.

    Raises:
        ValueError: the backbone is unknown.
    """

    def __init__(self, name: str, width: int = 64, in_channels: int = 3) -> None:
        super().__init__()
        if name not in BACKBONES:
            raise ValueError(f"unknown backbone {name!r}; choose one of {', '.join(BACKBONES)}")
        block, depths = BACKBONES[name]
        self.channels = tuple(multiple * width * block.expansion for multiple in (1, 2, 4))
        self.conv1 = nn.Conv2d(in_channels, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _stage(block, depths[0], width, width, stride=1)
        self.layer2 = _stage(block, depths[1], self.channels[0], 2 * width, stride=2)
        self.layer3 = _stage(block, depths[2], self.channels[1], 4 * width, stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[N,in,H,W] -> the features at strides 4, 8 and 16."""
        reorder = trains_on_cpu(x)
        if reorder:
            # A tenth faster, here alone: larger weights have gradients that take long to bring back into order.
            x = x.contiguous(memory_format=torch.channels_last)
        f4 = self.layer1(self.maxpool(self.relu(convolve_and_norm(self.conv1, self.bn1, x))))
        f8 = self.layer2(f4)
        features = f4, f8, self.layer3(f8)
        return tuple(f.contiguous() for f in features) if reorder else features


def _stage(
    block: type[BasicBlock | Bottleneck], depth: int, in_channels: int, planes: int, stride: int
) -> nn.Sequential:
    """A stage of a ResNet; its first block changes the resolution and the channels."""
    first = block(in_channels, planes, stride)
    return nn.Sequential(first, *(block(planes * block.expansion, planes, 1) for _ in range(depth - 1)))
