"""RDE-VOS: the one network of training and inference (Section 3, Figure 2)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from model.aggregation import SpatioTemporalAggregation
from model.decoder import Decoder, DecoderFrame
from model.encoders import KeyEncoder, KeyFeatures, MaskEncoder


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Everything that decides the shapes of the weights; the defaults are the paper's network."""

    key_backbone: str = "resnet50"
    key_width: int = 64  # of the backbone's first convolution; the standard ResNets have 64
    mask_backbone: str = "resnet50"
    mask_width: int = 64
    key_channels: int = 64  # Ck
    value_channels: int = 512  # Cv
    decoder_channels: tuple[int, int, int] = (512, 256, 256)  # at strides 16, 8 and 4
    aggregation: bool = True  # False for STCN's weights, which have no SAM


class RDE_VOS(nn.Module):
    """Key encoder, mask encoder, twin SAM and decoder; what is remembered is up to the caller.

    Frames are ImageNet-normalised [B,3,H,W] with H and W multiples of 16; h=H/16 and w=W/16; K objects a frame.

    Attributes:
        frozen_norms: whether training leaves batch norms with their stored statistics, as the paper's every stage
            does. A network of random weights has none worth keeping: set it to False before ``train()``.
    """

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NetworkConfig()
        self.frozen_norms = True
        self.key_encoder = KeyEncoder(config.key_backbone, config.key_width, config.key_channels, config.value_channels)
        c4, c8, c16 = self.key_encoder.backbone.channels
        self.mask_encoder = MaskEncoder(config.mask_backbone, config.mask_width, c16, config.value_channels)
        self.decoder = Decoder(config.value_channels, c8, c4, config.decoder_channels)
        if config.aggregation:
            self.key_aggregation = SpatioTemporalAggregation(config.key_channels)
            self.value_aggregation = SpatioTemporalAggregation(config.value_channels)

    def train(self, mode: bool = True) -> "RDE_VOS":
        """Switch to training or inference; batch norms that are frozen, or not trained, keep their statistics."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d) and (self.frozen_norms or not module.weight.requires_grad):
                module.eval()
        return self

    def encode_key(self, image: Tensor) -> KeyFeatures:
        """ImageE: the key, query value and backbone features of frames [B,3,H,W]."""
        return self.key_encoder(image)

    def prepare_encoding(self, f16: Tensor) -> tuple[Tensor, Tensor]:
        """What `encode_value` needs of a frame, the same for any objects, from `encode_key`'s f16 [B,C16,h,w]."""
        return self.mask_encoder.of_frame(f16)

    def encode_value(self, image: Tensor, frame: tuple[Tensor, Tensor], masks: Tensor) -> Tensor:
        """MaskE: the values [B,K,Cv,h,w] of K objects, from soft masks [B,K,H,W] in 0..1 and `prepare_encoding`."""
        return self.mask_encoder(image, frame, masks)

    def aggregate(self, previous: tuple[Tensor, Tensor], latest: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """SAM: the next RDE from the previous one and the latest frame (Eq. 4 to 6).

        Both are pairs of a key [B,Ck,h,w] and the objects' values [B,K,Cv,h,w], and so is the result.
        """
        key = self.key_aggregation(previous[0], latest[0])
        value = self.value_aggregation(previous[1].flatten(0, 1), latest[1].flatten(0, 1))
        return key, value.view_as(latest[1])

    def prepare_decoding(self, features: KeyFeatures) -> DecoderFrame:
        """What `decode` needs of a frame, the same for any objects."""
        return self.decoder.of_frame(features)

    def decode(self, readout: Tensor, frame: DecoderFrame) -> Tensor:
        """Logits [B,K,H,W] of the objects' masks from their readouts [B,K,Cv,h,w] and `prepare_decoding`."""
        return self.decoder(readout, frame)


class _NothingDrawn(TorchFunctionMode):
    """Random numbers for a tensor without storage would import torch's compiler, for nothing."""

    def __torch_function__(
        self, function: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        return args[0] if function is Tensor.normal_ else function(*args, **(kwargs or {}))


def empty_network(config: NetworkConfig) -> RDE_VOS:
    """A network without storage: its tensors are about to be assigned, so nothing is drawn or copied."""
    with torch.device("meta"), _NothingDrawn():
        return RDE_VOS(config)


def soft_aggregation(masks: Tensor) -> Tensor:
    """Make the objects' independent masks exclude each other.

    The background is Π(1−p); p is clamped to [1e-7, 1−1e-7]; the softmax of log(p/(1−p)) over background and objects
    is then a distribution at every pixel.

    Args:
        masks: [B,K,H,W] probabilities in 0..1.

    Returns:
        aggregated logits [B,K+1,H,W], background first, fp32.
    """
    masks = masks.float()
    # Not torch's product, which makes a GPU wait on the way back, to look for zeros.
    background = math.prod((1 - masks).unbind(1)).unsqueeze(1)
    probability = torch.cat([background, masks], dim=1).clamp(1e-7, 1 - 1e-7)
    return torch.log(probability / (1 - probability))
