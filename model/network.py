"""RDE-VOS: the one network of training and inference (Section 3, Figure 2)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.decoder import Decoder
from model.encoders import KeyEncoder, KeyFeatures, MaskEncoder
from model.reading import Embedding, MemoryTable, Similarity
from model.sam import SpatioTemporalAggregation


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The architecture: all settings that weights depend on. The defaults are the paper's network."""

    key_backbone: str = "resnet50"
    key_width: int = 64  # channels of the backbone's first convolution; the standard ResNets have 64
    mask_backbone: str = "resnet50"
    mask_width: int = 64
    key_channels: int = 64  # Ck
    value_channels: int = 512  # Cv
    decoder_channels: tuple[int, int, int] = (512, 256, 256)  # at strides 16, 8 and 4
    aggregation: bool = True  # False for STCN's weights, which have no SAM


class RDE_VOS(nn.Module):
    """Key encoder, mask encoder, decoder and two SAMs: the parts of Figure 2. The caller keeps the memory.

    Frames are ImageNet-normalised [B,3,H,W] with H and W multiples of 16; h=H/16 and w=W/16; K objects a frame.

    Attributes:
        trained_norms: the parts whose batch norms update their statistics in training; none in the stages of the paper.
            Random weights have no useful statistics: name their parts before ``train()``.
        single_object: whether the weights come directly from stage 0. It has one object, so the input channel of the
            other objects' masks is not trained (see `model.initialisation.prepare_for_several_objects`).
        similarity: compares the positions of the memory with those of a frame, in training and inference: Eq. 2, or
            another class that is called in the same way.
    """

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NetworkConfig()
        self.trained_norms: tuple[str, ...] = ()
        self.single_object = False
        self.similarity: type[Similarity] = Similarity
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
        """Switch to training or evaluation mode. Batch norms that are frozen or not trained keep their statistics."""
        super().train(mode)
        for name, module in self.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train(mode and module.weight.requires_grad and name.split(".")[0] in self.trained_norms)
        return self

    def encode_key(self, image: Tensor) -> KeyFeatures:
        """ImageE: the key, query value and backbone features of frames [B,3,H,W]."""
        return self.key_encoder(image)

    def encode_value(self, image: Tensor, f16: Tensor, masks: Tensor) -> Tensor:
        """MaskE: the values of K objects [B,K,Cv,h,w].

        Args:
            image: normalised frames [B,3,H,W].
            f16: [B,C16,h,w] of `encode_key` for the same frames.
            masks: soft masks [B,K,H,W] in 0..1, without the background.
        """
        return self.mask_encoder(image, f16, masks)

    def aggregate(self, previous: Embedding, latest: Embedding) -> Embedding:
        """SAM: the next RDE from the previous one and the embedding of the latest frame (Eq. 4 to 6)."""
        key = self.key_aggregation(previous.key, latest.key)
        value = self.value_aggregation(previous.value.flatten(0, 1), latest.value.flatten(0, 1))
        return Embedding(key, value.view_as(latest.value))

    def read(self, query_key: Tensor, memory: MemoryTable, top_k: int) -> Tensor:
        """The readouts of K objects [1,K,Cv,h,w] for a frame's key [1,Ck,h,w]; see `MemoryTable.read`."""
        return memory.read(query_key, top_k)

    def decode(self, readout: Tensor, features: KeyFeatures) -> Tensor:
        """Logits of the objects' masks [B,K,H,W], from their readouts [B,K,Cv,h,w] and `encode_key`'s result."""
        return self.decoder(readout, features)
