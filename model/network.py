"""RDE-VOS: the one network of training and inference (Section 3, Figure 2)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.aggregation import SpatioTemporalAggregation
from model.decoder import Decoder, PreparedDecoding
from model.encoders import KeyEncoder, KeyFeatures, MaskEncoder


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """All settings that weights depend on; the defaults are the paper's network."""

    key_backbone: str = "resnet50"
    key_width: int = 64  # channels of the backbone's first convolution; the standard ResNets have 64
    mask_backbone: str = "resnet50"
    mask_width: int = 64
    key_channels: int = 64  # Ck
    value_channels: int = 512  # Cv
    decoder_channels: tuple[int, int, int] = (512, 256, 256)  # at strides 16, 8 and 4
    aggregation: bool = True  # False for STCN's weights, which have no SAM
    # MaskE sees 1 where an object's probability is above this threshold, and 0 elsewhere; gradients pass as if there
    # were no threshold. With None MaskE sees the probabilities, as in the paper.
    mask_threshold: float | None = None


class RDE_VOS(nn.Module):
    """Key encoder, mask encoder, decoder and two SAMs: the parts of Figure 2. The caller keeps the memory.

    Frames are ImageNet-normalised [B,3,H,W] with H and W multiples of 16; h=H/16 and w=W/16; K objects a frame.

    Attributes:
        frozen_norms: whether batch norms keep their stored statistics in training, as in all stages of the paper.
            Random weights come without useful statistics: set ``frozen_norms`` to False before ``train()``.
        single_object: whether stage 0 trained the network last. Stage 0 has one object, so the input channel of the
            other objects' masks is not trained (see `model.checkpoint.prepare_for_several_objects`).
    """

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NetworkConfig()
        self.frozen_norms = True
        self.single_object = False
        self.key_encoder = KeyEncoder(config.key_backbone, config.key_width, config.key_channels, config.value_channels)
        c4, c8, c16 = self.key_encoder.backbone.channels
        self.mask_encoder = MaskEncoder(config.mask_backbone, config.mask_width, c16, config.value_channels)
        self.decoder = Decoder(config.value_channels, c8, c4, config.decoder_channels)
        if config.aggregation:
            self.key_aggregation = SpatioTemporalAggregation(config.key_channels)
            self.value_aggregation = SpatioTemporalAggregation(config.value_channels)

    @property
    def device(self) -> torch.device:
        """The device of the weights, on which the network expects its inputs."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights, which the network expects of its inputs."""
        return next(self.parameters()).dtype

    def train(self, mode: bool = True) -> "RDE_VOS":
        """Switch to training or inference. Batch norms keep their statistics if they are frozen or not trained."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d) and (self.frozen_norms or not module.weight.requires_grad):
                module.eval()
        return self

    def encode_key(self, image: Tensor) -> KeyFeatures:
        """ImageE: the key, query value and backbone features of frames [B,3,H,W]."""
        return self.key_encoder(image)

    def prepare_encoding(self, f16: Tensor) -> tuple[Tensor, Tensor]:
        """The part of `encode_value` that all objects of a frame share, from f16 [B,C16,h,w] of `encode_key`."""
        return self.mask_encoder.prepare(f16)

    def encode_value(self, image: Tensor, prepared: tuple[Tensor, Tensor], masks: Tensor) -> Tensor:
        """MaskE: the values of K objects [B,K,Cv,h,w].

        Args:
            image: normalised frames [B,3,H,W].
            prepared: the result of `prepare_encoding` for the same frames.
            masks: soft masks [B,K,H,W] in 0..1, without the background.
        """
        if self.config.mask_threshold is not None:
            binary = (masks > self.config.mask_threshold).to(masks)
            masks = binary + (masks - masks.detach()) if masks.requires_grad else binary
        return self.mask_encoder(image, prepared, masks)

    def aggregate(self, previous: tuple[Tensor, Tensor], latest: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """SAM: the next RDE from the previous one and the latest frame (Eq. 4 to 6).

        Both arguments and the result are pairs of a key [B,Ck,h,w] and the objects' values [B,K,Cv,h,w].
        """
        key = self.key_aggregation(previous[0], latest[0])
        value = self.value_aggregation(previous[1].flatten(0, 1), latest[1].flatten(0, 1))
        return key, value.view_as(latest[1])

    def prepare_decoding(self, features: KeyFeatures) -> PreparedDecoding:
        """The part of `decode` that all objects of a frame share, from the result of `encode_key`."""
        return self.decoder.prepare(features)

    def decode(self, readout: Tensor, prepared: PreparedDecoding) -> Tensor:
        """Logits of the objects' masks [B,K,H,W], from their readouts [B,K,Cv,h,w] and `prepare_decoding`'s result."""
        return self.decoder(readout, prepared)


def soft_aggregation(masks: Tensor) -> Tensor:
    """Soft aggregation: turn the objects' independent masks into logits of masks that exclude each other.

    The background is Π(1−p). With p clamped to [1e-7, 1−1e-7], the softmax of log(p/(1−p)) over background and objects
    is a distribution at every pixel.

    Args:
        masks: [B,K,H,W] probabilities in 0..1.

    Returns:
        aggregated logits [B,K+1,H,W], background first, fp32.
    """
    masks = masks.float()
    # The backward pass of torch.prod looks for zeros, for which a GPU has to wait; products of pairs do not.
    background = math.prod((1 - masks).unbind(1)).unsqueeze(1)
    probability = torch.cat([background, masks], dim=1).clamp(1e-7, 1 - 1e-7)
    return torch.log(probability / (1 - probability))
