"""A wider key encoder with the features of a trained one, and the training of its new channels alone."""

from collections.abc import Callable
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

    The norms of new channels use the statistics of the batch, and those of old channels keep their statistics.

    Args:
        network: as `widened` returns it, or a checkpoint of it.
        old_width: the width before.
    """
    network.frozen_norms = False
    network.requires_grad_(False)
    backbone = network.key_encoder.backbone
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d | nn.Conv2d):
            known = len(module.weight) * old_width // backbone.width
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(True).register_hook(_without_old(known))
            if isinstance(module, nn.BatchNorm2d):
                module.__class__ = _HalfFrozenNorm
                module.known = known
    network.key_encoder.key_projection.requires_grad_(True)


class _HalfFrozenNorm(nn.BatchNorm2d):
    """A batch norm whose first ``known`` channels keep their statistics in training."""

    known: int

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._part(x, slice(self.known), False), self._part(x, slice(self.known, None), True)], dim=1)

    def _part(self, x: Tensor, channels: slice, batch: bool) -> Tensor:
        statistics = self.running_mean[channels], self.running_var[channels]  # views, which batch_norm updates
        affine = self.weight[channels], self.bias[channels]
        return F.batch_norm(x[:, channels], *statistics, *affine, batch and self.training, self.momentum, self.eps)


def _without_old(known: int) -> Callable[[Tensor], Tensor]:
    """A hook that sets the gradient of the first ``known`` channels to 0."""

    def hook(gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        gradient[:known] = 0
        return gradient

    return hook
