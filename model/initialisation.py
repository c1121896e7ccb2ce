"""Initial weights of training: ImageNet's, new SAMs, and the input channel that stage 0 does not train."""

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor

from model.encoders import ENCODERS, extend_input_channels
from model.network import RDE_VOS

# The fifth channel is dead if its root mean square is below this fraction of the fourth channel's. After a full stage 0
# the fraction is 0.003. In the shipped network, whose stages 1 and 2 started with a dead channel, it has grown to 0.11.
_DEAD_FRACTION = 0.01


def load_imagenet_weights(network: RDE_VOS, encoders: Collection[str] = ENCODERS) -> None:
    """Load ImageNet weights into the backbones of encoders. The mask channels keep their initialisation.

    Raises:
        InputError: the weights cannot be downloaded, or do not exist for these backbones.
    """
    for encoder in encoders:
        network.get_submodule(encoder).backbone.load_imagenet()


def add_aggregation(network: RDE_VOS) -> RDE_VOS:
    """Add new SAMs to a network without SAM, such as STCN; a network with SAM is returned unchanged."""
    if network.config.aggregation:
        return network
    extended = RDE_VOS(replace(network.config, aggregation=True))
    extended.load_state_dict(extended.state_dict() | network.state_dict())
    extended.single_object = network.single_object
    return extended.train(network.training)


def prepare_for_several_objects(network: RDE_VOS) -> RDE_VOS:
    """Reinitialise the mask encoder's fifth input channel orthogonally, in place, if stage 0 trained the network last.

    Stage 0 has one object, so the gradient of the channel of the other objects' masks is 0. The weight decay alone
    determines Adam's normalised steps, so the channel shrinks towards 0. Any other network stays unchanged. The result
    is deterministic.
    """
    if network.single_object:
        start_channel_of_others(network.mask_encoder.backbone.stem.weight.data)
        network.single_object = False
    return network


def start_channel_of_others(weight: Tensor) -> None:
    """Initialise the channel of the other objects' masks in a weight [C,5,7,7] orthogonally, in place and fixed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        extend_input_channels(weight, image_channels=4)


def has_dead_channel(network: RDE_VOS) -> bool:
    """Whether the channel of the other objects' masks is dead, as after a stage 0 that the file does not record."""
    weight = network.mask_encoder.backbone.stem.weight
    object_size, others_size = (weight[:, channel].float().square().mean().sqrt() for channel in (3, 4))
    return bool(others_size < _DEAD_FRACTION * object_size)
