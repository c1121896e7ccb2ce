"""A wider key encoder with the features of a trained one, and the training of its new channels alone."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model import RDE_VOS

_NEW = ("key_encoder.key_projection.", "key_aggregation.")  # the parts that start again


def widened(network: RDE_VOS, width: int) -> RDE_VOS:
    """A network with a wider key encoder, whose other parts see the same features as before.

    In the key encoder the old channels read old channels only, and the new channels, which are random, read all. The
    value projection, the mask encoder and the decoder give the new channels a weight of 0. The keys' projection and
    their SAM are new.

    Args:
        network: the trained network; it is not changed.
        width: the channels of the new key encoder's first convolution, at least those of the old one.

    Raises:
        ValueError: the key encoder would get narrower.
    """
    if width < network.config.key_width:
        raise ValueError(f"the key encoder has a width of {network.config.key_width}, which cannot become {width}")
    wide = RDE_VOS(replace(network.config, key_width=width))
    wide.single_object = network.single_object
    weights = wide.state_dict()  # the network's own tensors, which are changed in place
    for name, old in network.state_dict().items():
        if name.startswith(_NEW):
            continue
        weight = weights[name]
        if name.startswith("key_encoder.backbone."):
            if weight.ndim == 4:
                weight[: len(old)] = 0
        elif weight.shape != old.shape:
            weight.zero_()
        weight[tuple(slice(side) for side in old.shape)] = old
        # New residual branches start at zero. New channels that only pass on the features before them learn slowly.
        if name.endswith(".weight") and not weight[len(old) :].any():
            weight[len(old) :] = 0.2
    return wide


def train_new_channels(network: RDE_VOS, old_width: int) -> None:
    """Let training change only the new channels of the key encoder and the projection of the keys.

    The norms of new channels use the statistics of the batch, and those of old channels keep their statistics. The
    weights keep their names and shapes.

    Args:
        network: as `widened` returns it, or a checkpoint of it.
        old_width: the width before.
    """
    network.trained_norms = ("key_encoder",)
    network.requires_grad_(False)
    backbone = network.key_encoder.backbone
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d | nn.Conv2d):
            module.requires_grad_(True)
            module.old = len(module.weight) * old_width // backbone.width
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = _NewChannelsNorm
        elif isinstance(module, nn.Conv2d):
            module.__class__ = _NewChannelsConv
            stem = module is backbone.stem
            module.old_inputs = module.in_channels if stem else module.in_channels * old_width // backbone.width
    network.key_encoder.key_projection.requires_grad_(True)


class _NewChannelsConv(nn.Conv2d):
    """A convolution whose first ``old`` channels are not trained, and read the first ``old_inputs`` channels only.

    The backward pass leaves out the old channels: it takes a third less time than one with all gradients.
    """

    old: int
    old_inputs: int

    def forward(self, x: Tensor) -> Tensor:
        """As `nn.Conv2d`."""
        seen, new = x[:, : self.old_inputs].detach(), x[:, self.old_inputs :]
        kept, weight = self.weight[: self.old, : self.old_inputs].detach(), self.weight[self.old :]
        y = self._convolve(seen, weight[:, : self.old_inputs])
        if new.shape[1]:  # the stem reads the image only
            y = y + self._convolve(new, weight[:, self.old_inputs :])
        return torch.cat([self._convolve(seen, kept), y], dim=1)

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, None, self.stride, self.padding)


class _NewChannelsNorm(nn.BatchNorm2d):
    """A batch norm whose first ``old`` channels are not trained and keep their statistics."""

    old: int

    def forward(self, x: Tensor) -> Tensor:
        """As `nn.BatchNorm2d`."""
        old, new = slice(self.old), slice(self.old, None)
        kept = self._normalise(x[:, old].detach(), old, self.weight.detach(), self.bias.detach(), batch=False)
        return torch.cat([kept, self._normalise(x[:, new], new, self.weight, self.bias, batch=self.training)], dim=1)

    def _normalise(self, x: Tensor, part: slice, weight: Tensor, bias: Tensor, *, batch: bool) -> Tensor:
        statistics = self.running_mean[part], self.running_var[part]  # views, which batch_norm updates
        return F.batch_norm(x, *statistics, weight[part], bias[part], batch, self.momentum, self.eps)
