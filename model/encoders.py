"""ImageE and MaskE of Figure 2: frames to keys, frames with masks to values (Section 3.2)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.blocks import CBAM, FusionBlock, ResidualBlock, per_object
from model.efficientnet import NAME as EFFICIENTNET
from model.efficientnet import EfficientNetLite0
from model.resnet import RESNETS, ResNet

BACKBONES = (*RESNETS, EFFICIENTNET)
ENCODERS = ("key_encoder", "mask_encoder")  # the parts of the network that have a backbone


class KeyFeatures(NamedTuple):
    """The key encoder's features of N frames of H×W; h=H/16, w=W/16."""

    key: Tensor  # [N,Ck,h,w], compared with the memory's keys
    query_value: Tensor  # [N,Cv,h,w], joins the readout in the decoder
    f16: Tensor  # [N,C16,h,w], the backbone at stride 16, for the mask encoder
    f8: Tensor  # [N,C8,2h,2w], a skip connection of the decoder
    f4: Tensor  # [N,C4,4h,4w], a skip connection of the decoder


class KeyEncoder(nn.Module):
    """ImageE: one pass over a frame yields its key, its query value and the decoder's skip features."""

    def __init__(self, backbone: str, width: int, key_channels: int, value_channels: int) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, width)
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

    def __init__(self, backbone: str, width: int, f16_channels: int, value_channels: int) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, width, in_channels=5)
        extend_input_channels(self.backbone.stem.weight.data, image_channels=3)
        self.fuse = FusionBlock(self.backbone.channels[2], f16_channels, value_channels)
        self.attention = CBAM(value_channels)
        self.refine = ResidualBlock(value_channels, value_channels)

    def forward(self, image: Tensor, f16: Tensor, masks: Tensor) -> Tensor:
        """Encode K objects of each of B frames.

        Args:
            image: normalised frames [B,3,H,W].
            f16: the key encoder's feature of the same frames [B,C16,h,w].
            masks: soft masks [B,K,H,W] in 0..1, without the background.

        Returns:
            values [B,K,Cv,h,w].
        """
        others = masks.sum(1, keepdim=True) - masks
        inputs = per_object(image, masks.shape[1]), masks.flatten(0, 1)[:, None], others.flatten(0, 1)[:, None]
        *_, own = self.backbone(torch.cat(inputs, dim=1))
        x = self.fuse(own, f16)
        x = self.refine(x + self.attention(x))
        return x.unflatten(0, masks.shape[:2])


def build_backbone(name: str, width: int, in_channels: int = 3) -> ResNet | EfficientNetLite0:
    """Build a backbone with random weights.

    Args:
        name: one of `BACKBONES`.
        width: channels of a ResNet's first convolution. EfficientNet-Lite0 accepts only 64, and has its own width.

    Raises:
        ValueError: the backbone is unknown, or does not exist in this width.
    """
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}; choose one of {', '.join(BACKBONES)}")
    if name in RESNETS:
        return ResNet(name, width, in_channels)
    if width != 64:
        raise ValueError(f"{name} has no width {width}; give 64, or choose a ResNet")
    return EfficientNetLite0(in_channels)


def extend_input_channels(weight: Tensor, image_channels: int) -> None:
    """Initialise the mask channels of a first convolution's weight [C,in,7,7] orthogonally, in place.

    Args:
        image_channels: the number of leading input channels that stay unchanged.
    """
    nn.init.orthogonal_(weight[:, image_channels:])
