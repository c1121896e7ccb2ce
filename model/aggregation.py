"""The spatio-temporal aggregation module, SAM (Section 3.3, Figure 2c).

The paper writes its convolutions over (time, height, width). Two frames leave little of the third dimension: a
(1,3,3) kernel is a 2-D convolution of each frame, and the (2,3,3) kernel of *squeeze* is one 2-D convolution of both
frames stacked along the channels. That is how they are stored and computed here.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.convolution import Conv2d


class SpatioTemporalAggregation(nn.Module):
    """SAM for embeddings of C channels: squeeze(enhance(extract(previous RDE, latest))), Eq. 4 to 6.

    It starts close to the mean of the two embeddings. Its non-local product is cubic in its input, and SAM is applied
    to its own results: from torch's start they reach 1e6 in training's three rounds, and later, if the product grows
    unchecked, in the rounds of inference that training never sees.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.extract = Extract(channels)
        self.enhance = Enhance(channels)
        self.squeeze = nn.Conv2d(2 * channels, channels, 3, padding=1)
        for half in self.squeeze.weight.data.chunk(2, dim=1):
            nn.init.dirac_(half).mul_(0.5)
        nn.init.zeros_(self.squeeze.bias)

    def forward(self, previous: Tensor, latest: Tensor) -> Tensor:
        """Fold the embedding of the latest frame into the recurrent one: both [N,C,h,w], result [N,C,h,w]."""
        x = torch.stack([previous, latest], dim=1)  # Eq. 4, time before the channels: [N,2,C,h,w]
        x = self.extract(x)
        x = self.enhance(x.flatten(0, 1)).view_as(x)
        return self.squeeze(x.flatten(1, 2))


class Extract(nn.Module):
    """A non-local block without softmax over both frames (Eq. 5), as a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.theta = nn.Conv2d(channels, channels // 2, 1)
        self.phi = nn.Conv2d(channels, channels // 2, 1)
        self.g = nn.Conv2d(channels, channels // 2, 1)
        self.out = nn.Conv2d(channels // 2, channels, 1)
        # As non-local blocks start (Wang et al., CVPR 2018): as nothing but their residual connection. The product
        # starts small, too: Adam moves all weights alike, and ``out`` would make much of a large one within few steps.
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        for factor in (self.theta, self.phi, self.g):
            factor.weight.data.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """[N,2,C,h,w] -> [N,2,C,h,w].

        Without a softmax the product is associative: θᵀ(φg) costs C²/4 per position, (θᵀφ)g a row of all positions.
        """
        frames = x.flatten(0, 1)
        theta = self._by_position(self.theta(frames), x)
        phi = self._by_position(F.max_pool2d(self.phi(frames), 2), x)
        g = self._by_position(F.max_pool2d(self.g(frames), 2), x)
        # Divided before the sum over positions, which could otherwise leave the range of fp16.
        y = theta @ ((phi / phi.shape[1]).transpose(1, 2) @ g)
        y = y.unflatten(1, (2, *x.shape[3:])).permute(0, 1, 4, 2, 3)
        return x + self.out(y.flatten(0, 1)).view_as(x)

    @staticmethod
    def _by_position(frames: Tensor, x: Tensor) -> Tensor:
        """[N·2,c,h,w] -> [N,2·h·w,c]: one row for each position of the two frames."""
        return frames.unflatten(0, x.shape[:2]).permute(0, 1, 3, 4, 2).flatten(1, 3)


class Enhance(nn.Module):
    """Atrous spatial pyramid pooling within each frame, as a residual (Eq. 6)."""

    DILATIONS = (2, 4, 6)

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = channels // 4
        self.branches = nn.ModuleList(
            [nn.Conv2d(channels, width, 1, bias=False)]
            + [nn.Conv2d(channels, width, 3, padding=d, dilation=d, bias=False) for d in self.DILATIONS]
        )
        self.merge = Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N,C,h,w] -> [N,C,h,w]."""
        return x + self.merge(F.relu(torch.cat([branch(x) for branch in self.branches], dim=1)), relu=True)
