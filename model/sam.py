"""The spatio-temporal aggregation module, SAM (Section 3.3, Figure 2c).

The paper writes SAM's convolutions over (time, height, width). For two frames they are equivalent to 2-D convolutions:
a (1,3,3) kernel is a 2-D convolution of each frame, and the (2,3,3) kernel of *squeeze* is a 2-D convolution of both
frames stacked along the channels. This module stores and computes the convolutions in this form.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SpatioTemporalAggregation(nn.Module):
    """SAM for embeddings of C channels: squeeze(enhance(extract(previous RDE, latest))), Eq. 4 to 6.

    SAM is initialised close to the mean of the two embeddings. It is applied to its own results, and the non-local
    product of `Extract` is cubic in its input. With torch's default initialisation the results reach 1e6 within the
    three updates of a training clip. A product that grows during training reaches such values later, in the many
    updates of inference, which training never sees.
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
        x = self.extract(x)  # Eq. 5: x_agg
        x = self.enhance(x.flatten(0, 1)).view_as(x)  # Eq. 6: x_agg + ASPP(x_agg)
        return self.squeeze(x.flatten(1, 2))  # Eq. 6: Squeeze


class Extract(nn.Module):
    """A non-local block without softmax over both frames (Eq. 5), as a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.omega = nn.Conv2d(channels, channels // 2, 1)
        self.phi = nn.Conv2d(channels, channels // 2, 1)
        self.g = nn.Conv2d(channels, channels // 2, 1)
        self.out = nn.Conv2d(channels // 2, channels, 1)
        # The block is initialised as the identity, like other non-local blocks (Wang et al., CVPR 2018). The product is
        # initialised small, too: Adam moves all weights by the same amount, so with a large product a few steps of
        # ``out`` would change the result much.
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        for factor in (self.omega, self.phi, self.g):
            factor.weight.data.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """[N,2,C,h,w] -> [N,2,C,h,w].

        Without a softmax the product is associative. ωᵀ(φg) costs C²/4 multiplications per position; (ωᵀφ)g costs C
        multiplications for every pair of positions.
        """
        frames = x.flatten(0, 1)
        # The paper pools before the convolutions, the release after them.
        omega = self._by_position(self.omega(frames), x)
        phi = self._by_position(F.max_pool2d(self.phi(frames), 2), x)
        g = self._by_position(F.max_pool2d(self.g(frames), 2), x)
        # C(x) of Eq. 5 is the number of pooled positions of both frames, as in the release. The division comes before
        # the sum over them, because the sum could overflow in fp16.
        y = omega @ ((phi / phi.shape[1]).transpose(1, 2) @ g)
        y = y.unflatten(1, (2, *x.shape[3:])).permute(0, 1, 4, 2, 3)
        return x + self.out(y.flatten(0, 1)).view_as(x)

    @staticmethod
    def _by_position(frames: Tensor, x: Tensor) -> Tensor:
        """[N·2,c,h,w] -> [N,2·h·w,c]: a row for each position of the two frames."""
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
        self.merge = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N,C,h,w] -> [N,C,h,w]."""
        pyramid = F.relu_(torch.cat([branch(x) for branch in self.branches], dim=1))
        return x + F.relu_(self.merge(pyramid))
