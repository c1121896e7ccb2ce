"""The decoder: from readouts and the query frame's features to the logits of the objects' masks (Section 3.2)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.blocks import FusionBlock, ResidualBlock, per_object
from model.encoders import KeyFeatures


class Decoder(nn.Module):
    """A residual block at stride 16, two up blocks, and a prediction of one channel at stride 4."""

    def __init__(
        self, value_channels: int, f8_channels: int, f4_channels: int, channels: tuple[int, int, int] = (512, 256, 256)
    ) -> None:
        """``channels`` are the widths at strides 16, 8 and 4."""
        super().__init__()
        self.compress = FusionBlock(value_channels, value_channels, channels[0])
        self.up8 = UpBlock(f8_channels, channels[0], channels[1])
        self.up4 = UpBlock(f4_channels, channels[1], channels[2])
        self.predict = nn.Conv2d(channels[2], 1, 3, padding=1)

    def forward(self, readout: Tensor, features: KeyFeatures) -> Tensor:
        """Decode the K objects of B frames: readout [B,K,Cv,h,w] and the frames' features -> logits [B,K,H,W]."""
        x = self.compress(readout.flatten(0, 1), features.query_value)
        logit = self.upsample(x, self.up8.skip(features.f8), self.up4.skip(features.f4))
        return logit.view(*readout.shape[:2], *logit.shape[2:])

    def upsample(self, x: Tensor, skip8: Tensor, skip4: Tensor) -> Tensor:
        """Features of objects [B·K,C16,h,w] and the skip connections of their frames -> logits [B·K,1,H,W]."""
        x = self.up8(x, skip8)
        x = self.up4(x, skip4)
        logit = self.predict(F.relu(x))
        return F.interpolate(logit, scale_factor=4, mode="bilinear", align_corners=False)


class UpBlock(nn.Module):
    """Doubles the resolution with a skip connection: residual block(conv3×3(skip) + bilinear ×2(x))."""

    def __init__(self, skip_channels: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.skip = nn.Conv2d(skip_channels, in_channels, 3, padding=1)
        self.block = ResidualBlock(in_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Double the resolution.

        Args:
            x: features of K objects of each of B frames [B·K,in,h,w].
            skip: ``self.skip`` of the frames' features [B,in,2h,2w].

        Returns:
            [B·K,out,2h,2w].
        """
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return self.block(x.add_(per_object(skip, x.shape[0] // skip.shape[0])))


def soft_aggregation(masks: Tensor) -> Tensor:
    """Soft aggregation: convert independent masks of objects into logits of mutually exclusive masks.

    It is STM's (Oh et al., "Video Object Segmentation using Space-Time Memory Networks", ICCV 2019). The background is
    Π(1−p). With p clamped to [1e-7, 1−1e-7], the softmax of log(p/(1−p)) over background and objects is a distribution
    at every pixel.

    Args:
        masks: [B,K,H,W] probabilities in 0..1.

    Returns:
        aggregated logits [B,K+1,H,W], background first, fp32.
    """
    masks = masks.float()
    # The backward pass of torch.prod looks for zeros, which synchronises a GPU; products of pairs do not.
    background = math.prod((1 - masks).unbind(1)).unsqueeze(1)
    probability = torch.cat([background, masks], dim=1).clamp(1e-7, 1 - 1e-7)
    return torch.log(probability / (1 - probability))
