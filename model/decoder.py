"""The decoder: a readout and the query frame's features to the logit of each object's mask (Section 3.2)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.blocks import FusionBlock, ResidualBlock, per_object
from model.convolution import Conv2d, OneChannelConv2d
from model.encoders import KeyFeatures


class DecoderFrame(NamedTuple):
    """What the decoder makes of a frame itself, for all of its objects; C16, C8 and C4 are the decoder's widths."""

    compress: Tensor  # [B,C16,h,w], joins the readouts in the first block's convolution
    compress_shortcut: Tensor  # [B,C16,h,w], and in its shortcut
    skip8: Tensor  # [B,C16,2h,2w] and
    skip4: Tensor  # [B,C8,4h,4w], the skip connections


class Decoder(nn.Module):
    """Residual block at stride 16, two up blocks, and a 1-channel prediction at stride 4.

    ``objects_at_once`` bounds how many objects pass the up blocks together, and so memory; None for no bound.
    """

    objects_at_once: int | None = None

    def __init__(
        self, value_channels: int, f8_channels: int, f4_channels: int, channels: tuple[int, int, int] = (512, 256, 256)
    ) -> None:
        """``channels`` are the widths at strides 16, 8 and 4."""
        super().__init__()
        self.compress = FusionBlock(value_channels, value_channels, channels[0])
        self.up8 = UpBlock(f8_channels, channels[0], channels[1])
        self.up4 = UpBlock(f4_channels, channels[1], channels[2])
        self.predict = OneChannelConv2d(channels[2])

    def of_frame(self, features: KeyFeatures) -> DecoderFrame:
        """The part that all objects of a frame share."""
        compress = self.compress.of_frame(features.query_value)
        return DecoderFrame(*compress, self.up8.skip(features.f8), self.up4.skip(features.f4))

    def forward(self, readout: Tensor, frame: DecoderFrame) -> Tensor:
        """Decode the K objects of B frames: readout [B,K,Cv,h,w] -> logits [B,K,H,W]."""
        x = self.compress(readout.flatten(0, 1), (frame.compress, frame.compress_shortcut))
        if self.objects_at_once is None:
            logit = self._predict(x, frame.skip8, frame.skip4)
        else:
            # Parts of the batch, never a dimension of one object taken apart and joined again: torch would no longer
            # see that the channels are last, and interpolate in the other order.
            frames = zip(x.split(readout.shape[1]), frame.skip8.split(1), frame.skip4.split(1), strict=True)
            parts = ((part, *skips) for objects, *skips in frames for part in objects.split(self.objects_at_once))
            logit = torch.cat([self._predict(*part) for part in parts])
        return logit.view(*readout.shape[:2], *logit.shape[2:])

    def _predict(self, x: Tensor, skip8: Tensor, skip4: Tensor) -> Tensor:
        """Objects of the skips' frames [B·K,C16,h,w] to logits [B·K,1,H,W]."""
        x = self.up8(x, skip8)
        x = self.up4(x, skip4)
        logit = self.predict(F.relu_(x))
        return F.interpolate(logit, scale_factor=4, mode="bilinear", align_corners=False)


class UpBlock(nn.Module):
    """Doubles the resolution with a skip connection: residual block(conv3×3(skip) + bilinear ×2(x))."""

    def __init__(self, skip_channels: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.skip = Conv2d(skip_channels, in_channels, 3, padding=1)
        self.block = ResidualBlock(in_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """x [B·K,in,h,w], and what ``self.skip`` made of the frame's features [B,in,2h,2w] -> [B·K,out,2h,2w]."""
        # In the order of the skip, which is quicker to bring about before the resolution doubles.
        channels_last = skip.is_contiguous(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return self.block(x.add_(per_object(skip, x.shape[0] // skip.shape[0])))
