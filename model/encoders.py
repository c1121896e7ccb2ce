"""ImageE and MaskE of Figure 2: frames to keys, frames with masks to values (Section 3.2)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.blocks import CBAM, FusionBlock, ResidualBlock, per_object
from model.resnet import Backbone


class KeyFeatures(NamedTuple):
    """What the key encoder knows about N frames of H×W; h=H/16, w=W/16."""

    key: Tensor  # [N,Ck,h,w], compared with the memory's keys
    query_value: Tensor  # [N,Cv,h,w], joins the readout in the decoder
    f16: Tensor  # [N,C16,h,w], the backbone at stride 16, for the mask encoder
    f8: Tensor  # [N,C8,2h,2w] and
    f4: Tensor  # [N,C4,4h,4w], the decoder's skip connections


class KeyEncoder(nn.Module):
    """ImageE: one pass over a frame gives its key, its query value and the decoder's skip features."""

    def __init__(self, backbone: str, width: int, key_channels: int, value_channels: int) -> None:
        super().__init__()
        self.backbone = Backbone(backbone, width)
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
    """MaskE: the value of each object of a frame, from the frame, the objects' masks and the key encoder's f16.

    ``objects_at_once`` bounds how many objects pass the backbone together, and so memory; None for no bound.
    """

    objects_at_once: int | None = None

    def __init__(self, backbone: str, width: int, f16_channels: int, value_channels: int) -> None:
        super().__init__()
        self.backbone = Backbone(backbone, width, in_channels=5)
        extend_input_channels(self.backbone.conv1.weight.data, image_channels=3)
        self.fuse = FusionBlock(self.backbone.channels[2], f16_channels, value_channels)
        self.attention = CBAM(value_channels)
        self.refine = ResidualBlock(value_channels, value_channels)

    def of_frame(self, f16: Tensor) -> tuple[Tensor, Tensor]:
        """The part that all objects of a frame share, from the key encoder's f16 [B,C16,h,w]; two of [B,Cv,h,w]."""
        return self.fuse.of_frame(f16)

    def forward(self, image: Tensor, of_frame: tuple[Tensor, Tensor], masks: Tensor) -> Tensor:
        """Encode K objects of each of B frames.

        Args:
            image: normalised frames [B,3,H,W].
            of_frame: the result of `of_frame` for the same frames.
            masks: soft masks [B,K,H,W] in 0..1, background left out.

        Returns:
            values [B,K,Cv,h,w].
        """
        others = masks.sum(1, keepdim=True) - masks
        at_once = self.objects_at_once or masks.shape[1]
        pairs = zip(masks.split(at_once, dim=1), others.split(at_once, dim=1), strict=True)
        x = torch.cat([self._features(image, *pair) for pair in pairs], dim=1).flatten(0, 1)
        x = self.fuse(x, of_frame)
        return self.refine(x + self.attention(x)).unflatten(0, masks.shape[:2])

    def _features(self, image: Tensor, masks: Tensor, others: Tensor) -> Tensor:
        """The backbone's features of some of the objects [B,K',C16,h,w]."""
        batch_and_objects = masks.shape[:2]
        channels = (per_object(image, masks.shape[1]), masks.flatten(0, 1)[:, None], others.flatten(0, 1)[:, None])
        return self.backbone(torch.cat(channels, dim=1))[2].unflatten(0, batch_and_objects)


def extend_input_channels(weight: Tensor, image_channels: int) -> None:
    """Start the mask channels of a first convolution [C,in,7,7] orthogonal, in place, and leave the image's alone."""
    nn.init.orthogonal_(weight[:, image_channels:])
