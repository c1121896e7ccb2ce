"""The blocks that the mask encoder and the decoder are built of."""

import torch
from torch import Tensor, nn

from model.convolution import Conv2d


class ResidualBlock(nn.Module):
    """conv3×3(ReLU(conv3×3(ReLU(x)))) + shortcut; the shortcut is a 3×3 convolution where the channels change.

    In a fast copy of the network the result may take the place of x.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = (
            nn.Identity() if in_channels == out_channels else Conv2d(in_channels, out_channels, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N,in,h,w] -> [N,out,h,w]."""
        return self.conv2(self.conv1(x, relu_first=True, relu=True), self.shortcut(x), replace_other=True)


class SharedConv2d(nn.Module):
    """A 3×3 convolution of cat([own, shared]) where ``shared`` is a frame's and ``own`` each of its objects'.

    A convolution of a concatenation is a sum of convolutions, so the shared half is computed once for all objects.
    """

    def __init__(self, own_channels: int, shared_channels: int, out_channels: int) -> None:
        super().__init__()
        whole = nn.Conv2d(own_channels + shared_channels, out_channels, 3, padding=1)  # for its initialisation
        self.own = Conv2d(own_channels, out_channels, 3, padding=1, bias=False)
        self.shared = Conv2d(shared_channels, out_channels, 3, padding=1)
        self.own.weight.data.copy_(whole.weight[:, :own_channels])
        self.shared.weight.data.copy_(whole.weight[:, own_channels:])
        self.shared.bias = whole.bias

    def forward(self, own: Tensor, shared: Tensor, *, relu_first: bool = False, relu: bool = False) -> Tensor:
        """own [B·K,own,h,w], and what ``self.shared`` made of the frame's features [B,out,h,w] -> [B·K,out,h,w]."""
        return self.own(own, per_object(shared, own.shape[0] // shared.shape[0]), relu_first=relu_first, relu=relu)


class FusionBlock(nn.Module):
    """The `ResidualBlock` of cat([own, shared]); see `SharedConv2d`."""

    def __init__(self, own_channels: int, shared_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = SharedConv2d(own_channels, shared_channels, out_channels)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = SharedConv2d(own_channels, shared_channels, out_channels)

    def of_frame(self, shared: Tensor) -> tuple[Tensor, Tensor]:
        """The part that all objects share, from the frame's features [B,shared,h,w]; two of [B,out,h,w]."""
        return self.conv1.shared(shared, relu_first=True), self.shortcut.shared(shared)

    def forward(self, own: Tensor, of_frame: tuple[Tensor, Tensor]) -> Tensor:
        """own [B·K,own,h,w] and the result of `of_frame` -> [B·K,out,h,w]."""
        x = self.conv1(own, of_frame[0], relu_first=True, relu=True)
        return self.conv2(x, self.shortcut(own, of_frame[1]), replace_other=True)


class CBAM(nn.Module):
    """Convolutional block attention (Woo et al., ECCV 2018): a gate per channel, then a gate per position."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.channel_mlp = nn.Sequential(
            nn.Linear(channels, channels // reduction), nn.ReLU(), nn.Linear(channels // reduction, channels)
        )
        self.spatial_conv = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """[N,C,h,w] -> [N,C,h,w], every element scaled by two gates in (0, 1)."""
        channel_gate = torch.sigmoid(self.channel_mlp(x.mean((2, 3))) + self.channel_mlp(x.amax((2, 3))))
        x = x * channel_gate[:, :, None, None]
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.spatial_conv(pooled))


def per_object(x: Tensor, objects: int) -> Tensor:
    """Repeat features of a frame for each of its objects: [B,C,h,w] -> [B·K,C,h,w]; those of one frame in place."""
    return x.expand(objects, -1, -1, -1) if len(x) == 1 else x.repeat_interleave(objects, dim=0)
