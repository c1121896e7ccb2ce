"""The paper's backbones of both encoders: ResNets (He et al., CVPR 2016) up to their third stage.

The names of weights and the results are those of torchvision's ResNets. The project has its own implementation because
importing torchvision costs every evaluation two seconds and 160 MiB.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from util.errors import InputError


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut. The first convolution and the shortcut have the ``stride``."""

    expansion = 1

    def __init__(self, in_channels: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(in_channels, planes, stride)
        nn.init.zeros_(self.bn2.weight)  # see `ResNet`

    def forward(self, x: Tensor) -> Tensor:
        """[N,in,h,w] -> [N,planes,h/stride,w/stride]."""
        y = F.relu_(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu_(y + self.downsample(x))


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions and a shortcut. The 3×3 convolution and the shortcut have the ``stride``."""

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
        nn.init.zeros_(self.bn3.weight)  # see `ResNet`

    def forward(self, x: Tensor) -> Tensor:
        """[N,in,h,w] -> [N,4·planes,h/stride,w/stride]."""
        y = F.relu_(self.bn1(self.conv1(x)))
        y = F.relu_(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu_(y + self.downsample(x))


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """The identity, or a 1×1 convolution and a norm where a block changes the resolution or the channels."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


# Name -> the block, and the number of blocks in each of the three stages.
RESNETS = {
    "resnet10": (BasicBlock, (1, 1, 1)),
    "resnet18": (BasicBlock, (2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6)),
    "resnet50": (Bottleneck, (3, 4, 6)),
}


class ResNet(nn.Module):
    """A ResNet up to its third stage.

    Residual branches are initialised to zero. Random weights need this initialisation: frozen norms do not
    normalise features.

    Args:
        name: one of `RESNETS`; ResNet-10 has one block in each stage.
        width: channels of the first convolution; 64 in the standard networks. The channels of all other convolutions
            are multiples of the width.

    Attributes:
        channels: channels (C4, C8, C16) of the features at strides 4, 8 and 16.
    """

    def __init__(self, name: str, width: int = 64, in_channels: int = 3) -> None:
        super().__init__()
        self.name, self.width = name, width
        block, depths = RESNETS[name]
        self.channels = tuple(multiple * width * block.expansion for multiple in (1, 2, 4))
        self.conv1 = nn.Conv2d(in_channels, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _stage(block, depths[0], width, width, stride=1)
        self.layer2 = _stage(block, depths[1], self.channels[0], 2 * width, stride=2)
        self.layer3 = _stage(block, depths[2], self.channels[1], 4 * width, stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode [N,in,H,W]; H and W are multiples of 16.

        Returns:
            the features at strides 4, 8 and 16: [N,C4,H/4,W/4], [N,C8,H/8,W/8] and [N,C16,H/16,W/16].
        """
        x = self.maxpool(F.relu_(self.bn1(self.conv1(x))))
        f4 = self.layer1(x)
        f8 = self.layer2(f4)
        f16 = self.layer3(f8)
        return f4, f8, f16

    @property
    def stem(self) -> nn.Conv2d:
        """The first convolution."""
        return self.conv1

    def load_imagenet(self) -> None:
        """Load torchvision's ImageNet weights (IMAGENET1K_V1), and download them if necessary.

        The fourth and later input channels keep their weights.

        Raises:
            InputError: the weights cannot be downloaded, or do not exist for this backbone.
        """
        import torchvision  # here, because the import takes two seconds and only this function needs it

        if self.name == "resnet10" or self.width != 64:
            raise InputError(
                f"there are no ImageNet weights for {self.name} of width {self.width}; start from random weights"
            )
        weights = torchvision.models.get_model_weights(self.name).IMAGENET1K_V1
        try:
            state = weights.get_state_dict(check_hash=True)
        except (OSError, RuntimeError) as error:
            file = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
            raise InputError(
                f"{file} is missing and cannot be downloaded from {weights.url} ({error}); put the file there, or "
                "start from random weights"
            ) from None
        own = self.state_dict()
        first = own["conv1.weight"].clone()
        first[:, :3] = state["conv1.weight"]
        self.load_state_dict({name: tensor for name, tensor in state.items() if name in own} | {"conv1.weight": first})


def _stage(
    block: type[BasicBlock | Bottleneck], depth: int, in_channels: int, planes: int, stride: int
) -> nn.Sequential:
    """A stage of a ResNet; its first block changes the resolution and the channels."""
    first = block(in_channels, planes, stride)
    return nn.Sequential(first, *(block(planes * block.expansion, planes, 1) for _ in range(depth - 1)))
