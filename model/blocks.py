"""The building blocks of the mask encoder and the decoder."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """conv3×3(ReLU(conv3×3(ReLU(x)))) + shortcut(x); the shortcut is a 3×3 convolution where the channels change."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = (
            nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N,in,h,w] -> [N,out,h,w]."""
        y = F.relu_(self.conv1(F.relu(x)))
        return self.conv2(y) + self.shortcut(x)


class SharedConv2d(nn.Module):
    """A 3×3 convolution of cat([own, shared]): ``shared`` is a feature of the frame, ``own`` of one of its objects.

    The convolution of a concatenation is the sum of two convolutions. So the shared part is computed once for all
    objects of a frame.
    """

    def __init__(self, own_channels: int, shared_channels: int, out_channels: int) -> None:
        super().__init__()
        whole = nn.Conv2d(own_channels + shared_channels, out_channels, 3, padding=1)  # for its initialisation
        self.own = nn.Conv2d(own_channels, out_channels, 3, padding=1, bias=False)
        self.shared = nn.Conv2d(shared_channels, out_channels, 3, padding=1)
        self.own.weight.data.copy_(whole.weight[:, :own_channels])
        self.shared.weight.data.copy_(whole.weight[:, own_channels:])
        self.shared.bias = whole.bias

    def forward(self, own: Tensor, shared: Tensor) -> Tensor:
        """K objects of each of B frames [B·K,own,h,w], and the frames [B,shared,h,w] -> [B·K,out,h,w]."""
        return self.own(own) + per_object(self.shared(shared), own.shape[0] // shared.shape[0])


class FusionBlock(nn.Module):
    """The `ResidualBlock` of cat([own, shared]); see `SharedConv2d`."""

    def __init__(self, own_channels: int, shared_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = SharedConv2d(own_channels, shared_channels, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = SharedConv2d(own_channels, shared_channels, out_channels)

    def forward(self, own: Tensor, shared: Tensor) -> Tensor:
        """K objects of each of B frames [B·K,own,h,w], and the frames [B,shared,h,w] -> [B·K,out,h,w]."""
        y = F.relu_(self.conv1(F.relu(own), F.relu(shared)))
        return self.conv2(y) + self.shortcut(own, shared)


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
    """Repeat the features of each frame for each of its K objects: [B,C,h,w] -> [B·K,C,h,w].

    The features of a single frame are not copied.
    """
    # len(x) would make the number a constant in an exported graph.
    return x.expand(objects, -1, -1, -1) if x.shape[0] == 1 else x.repeat_interleave(objects, dim=0)
