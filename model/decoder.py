"""The decoder: a readout and the query frame's features to the logit of each object's mask (Section 3.2)."""

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from model.blocks import FusionBlock, ResidualBlock, per_object
from model.encoders import KeyFeatures


class PreparedDecoding(NamedTuple):
    """The part of decoding that all objects of a frame share; C16, C8 and C4 are the decoder's widths."""

    compress: Tensor  # [B,C16,h,w], joins the readouts in the first block's convolution
    compress_shortcut: Tensor  # [B,C16,h,w], joins the readouts in the first block's shortcut
    skip8: Tensor  # [B,C16,2h,2w], a skip connection
    skip4: Tensor  # [B,C8,4h,4w], a skip connection


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

    def prepare(self, features: KeyFeatures) -> PreparedDecoding:
        """The part that all objects of a frame share."""
        compress = self.compress.prepare(features.query_value)
        return PreparedDecoding(*compress, self.up8.skip(features.f8), self.up4.skip(features.f4))

    def forward(self, readout: Tensor, prepared: PreparedDecoding) -> Tensor:
        """Decode the K objects of B frames: readout [B,K,Cv,h,w] -> logits [B,K,H,W]."""
        x = self.compress(readout.flatten(0, 1), (prepared.compress, prepared.compress_shortcut))
        logit = self.upsample(x, prepared.skip8, prepared.skip4)
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
