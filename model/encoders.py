"""ImageE and MaskE of Figure 2: frames to keys, frames with masks to values (Section 3.2)."""

from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from model.blocks import CBAM, ResidualBlock

BACKBONES = ("resnet18", "resnet34", "resnet50")


class KeyFeatures(NamedTuple):
    """What the key encoder knows about N frames of H×W; h=H/16, w=W/16."""

    key: Tensor  # [N,Ck,h,w], compared with the memory's keys
    query_value: Tensor  # [N,Cv,h,w], joins the readout in the decoder
    f16: Tensor  # [N,C16,h,w], the backbone at stride 16, for the mask encoder
    f8: Tensor  # [N,C8,2h,2w] and
    f4: Tensor  # [N,C4,4h,4w], the decoder's skip connections


class Backbone(nn.Module):
    """A torchvision ResNet up to its third stage.

    ``channels`` holds the widths (C4, C8, C16) of what it returns at strides 4, 8 and 16.
    """

    def __init__(self, name: str, in_channels: int = 3) -> None:
        super().__init__()
        if name not in BACKBONES:
            raise ValueError(f"unknown backbone {name!r}; choose one of {', '.join(BACKBONES)}")
        resnet = getattr(torchvision.models, name)(weights=None)
        self.conv1 = resnet.conv1 if in_channels == 3 else nn.Conv2d(in_channels, 64, 7, 2, 3, bias=False)
        self.bn1, self.relu, self.maxpool = resnet.bn1, resnet.relu, resnet.maxpool
        self.layer1, self.layer2, self.layer3 = resnet.layer1, resnet.layer2, resnet.layer3
        expansion = resnet.layer1[0].expansion
        self.channels = (64 * expansion, 128 * expansion, 256 * expansion)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[N,in,H,W] -> the features at strides 4, 8 and 16."""
        f4 = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        f8 = self.layer2(f4)
        return f4, f8, self.layer3(f8)


class KeyEncoder(nn.Module):
    """ImageE: one pass over a frame gives its key, its query value and the decoder's skip features."""

    def __init__(self, backbone: str, key_channels: int, value_channels: int) -> None:
        super().__init__()
        self.backbone = Backbone(backbone)
        f16_channels = self.backbone.channels[2]
        self.key_projection = nn.Conv2d(f16_channels, key_channels, 3, padding=1)
        nn.init.orthogonal_(self.key_projection.weight)
        nn.init.zeros_(self.key_projection.bias)
        self.value_projection = nn.Conv2d(f16_channels, value_channels, 3, padding=1)

    def forward(self, image: Tensor) -> KeyFeatures:
        """Encode normalised frames [N,3,H,W]; H and W are multiples of 16."""
        f4, f8, f16 = self.backbone(image)
        return KeyFeatures(self.key_projection(f16), self.value_projection(f16), f16, f8, f4)


class MaskEncoder(nn.Module):
    """MaskE: the value of each object of a frame, from the frame, the objects' masks and the key encoder's f16."""

    def __init__(self, backbone: str, f16_channels: int, value_channels: int) -> None:
        super().__init__()
        self.backbone = Backbone(backbone, in_channels=5)
        extend_input_channels(self.backbone.conv1.weight.data, image_channels=3)
        self.fuse = ResidualBlock(self.backbone.channels[2] + f16_channels, value_channels)
        self.attention = CBAM(value_channels)
        self.refine = ResidualBlock(value_channels, value_channels)

    def forward(self, image: Tensor, f16: Tensor, masks: Tensor) -> Tensor:
        """Encode K objects of each of B frames.

        Args:
            image: normalised frames [B,3,H,W].
            f16: the key encoder's features of the same frames [B,C16,h,w].
            masks: soft masks [B,K,H,W] in 0..1, background left out.

        Returns:
            values [B,K,Cv,h,w].
        """
        batch, objects = masks.shape[:2]
        others = masks.sum(1, keepdim=True) - masks
        channels = (per_object(image, objects), masks.flatten(0, 1)[:, None], others.flatten(0, 1)[:, None])
        _, _, x = self.backbone(torch.cat(channels, dim=1))
        x = self.fuse(torch.cat([x, per_object(f16, objects)], dim=1))
        x = self.refine(x + self.attention(x))
        return x.unflatten(0, (batch, objects))


def extend_input_channels(weight: Tensor, image_channels: int) -> None:
    """Start the mask channels of a first convolution [C,in,7,7] orthogonal, in place, and leave the image's alone."""
    nn.init.orthogonal_(weight[:, image_channels:])


def per_object(x: Tensor, objects: int) -> Tensor:
    """Repeat features of a frame for each of its objects: [B,C,h,w] -> [B·K,C,h,w]."""
    return x if objects == 1 else x.repeat_interleave(objects, dim=0)
