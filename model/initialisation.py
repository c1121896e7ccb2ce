"""The weights that a training starts from: ImageNet's, new SAMs, and the input channel that stage 0 does not train."""

from dataclasses import replace

import torch
from torch import Tensor

from model.encoders import extend_input_channels
from model.network import RDE_VOS

# A fifth channel with less than this fraction of the fourth one's root mean square is dead. A full stage 0 leaves
# 0.003; in the shipped network, which stages 1 and 2 trained after it had died, it has grown to 0.11.
_DEAD_FRACTION = 0.01


def load_imagenet_weights(network: RDE_VOS) -> None:
    """Start both backbones from ImageNet weights; in the mask encoder the mask channels keep their initialisation.

    Raises:
        InputError: the weights cannot be downloaded, or there are none for these backbones.
    """
    for encoder in (network.key_encoder, network.mask_encoder):
        encoder.backbone.load_imagenet()


def add_aggregation(network: RDE_VOS) -> RDE_VOS:
    """The network with new SAMs, for weights that have no SAM, such as STCN's; a network with SAM is returned as is."""
    if network.config.aggregation:
        return network
    extended = RDE_VOS(replace(network.config, aggregation=True))
    extended.load_state_dict(extended.state_dict() | network.state_dict())
    extended.single_object = network.single_object
    return extended.train(network.training)


def prepare_for_several_objects(network: RDE_VOS) -> RDE_VOS:
    """Start the mask encoder's fifth input channel orthogonal, in place, if stage 0 trained the network last.

    Stage 0 has one object, so the gradient of the channel of the other objects' masks is 0. Adam turns the weight decay
    alone into full steps and so makes the channel ever smaller. Any other network stays as it is. The same weights
    always give the same network.
    """
    if network.single_object:
        start_channel_of_others(network.mask_encoder.backbone.stem.weight.data)
        network.single_object = False
    return network


def start_channel_of_others(weight: Tensor) -> None:
    """Start the channel of the other objects' masks in a weight [C,5,7,7] orthogonal, in place, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        extend_input_channels(weight, image_channels=4)


def has_dead_channel(network: RDE_VOS) -> bool:
    """Whether the channel of the other objects' masks is dead, which shows stage 0 in files that do not name it."""
    weight = network.mask_encoder.backbone.stem.weight
    object_size, others_size = (weight[:, channel].float().square().mean().sqrt() for channel in (3, 4))
    return bool(others_size < _DEAD_FRACTION * object_size)
