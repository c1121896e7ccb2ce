"""The published weights of RDE-VOS and STCN: their names and shapes, translated to those of this project."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from model.efficientnet import NAME as EFFICIENTNET
from model.initialisation import start_channel_of_others
from model.network import NetworkConfig
from model.resnet import RESNETS, BasicBlock, Bottleneck
from util.errors import InputError, listed

# Published name -> our name; the first match applies. RDE-VOS and STCN share the names of all parts except SAM.
_PUBLISHED_NAMES = [
    (r"key_encoder\.res2\.", "key_encoder.backbone.layer1."),
    (r"key_encoder\.(conv1|bn1|layer[23])\.", r"key_encoder.backbone.\1."),
    (r"key_proj\.key_proj\.", "key_encoder.key_projection."),
    (r"key_comp\.", "key_encoder.value_projection."),
    (r"value_encoder\.(conv1|bn1|layer[123])\.", r"mask_encoder.backbone.\1."),
    (r"value_encoder\.fuser\.block1\.downsample\.", "mask_encoder.fuse.shortcut."),
    (r"value_encoder\.fuser\.block1\.", "mask_encoder.fuse."),
    (r"value_encoder\.fuser\.attention\.ChannelGate\.mlp\.1\.", "mask_encoder.attention.channel_mlp.0."),
    (r"value_encoder\.fuser\.attention\.ChannelGate\.mlp\.3\.", "mask_encoder.attention.channel_mlp.2."),
    (r"value_encoder\.fuser\.attention\.SpatialGate\.spatial\.conv\.", "mask_encoder.attention.spatial_conv."),
    (r"value_encoder\.fuser\.block2\.", "mask_encoder.refine."),
    (r"decoder\.compress\.downsample\.", "decoder.compress.shortcut."),
    (r"decoder\.compress\.", "decoder.compress."),
    (r"decoder\.up_16_8\.skip_conv\.", "decoder.up8.skip."),
    (r"decoder\.up_16_8\.out_conv\.downsample\.", "decoder.up8.block.shortcut."),
    (r"decoder\.up_16_8\.out_conv\.", "decoder.up8.block."),
    (r"decoder\.up_8_4\.skip_conv\.", "decoder.up4.skip."),
    (r"decoder\.up_8_4\.out_conv\.downsample\.", "decoder.up4.block.shortcut."),
    (r"decoder\.up_8_4\.out_conv\.", "decoder.up4.block."),
    (r"decoder\.pred\.", "decoder.predict."),
    (r"mem_compress\.(key|value)_encoder\.non_local\.(g|phi)\.0\.", r"\1_aggregation.extract.\2."),
    (r"mem_compress\.(key|value)_encoder\.non_local\.theta\.", r"\1_aggregation.extract.omega."),
    (r"mem_compress\.(key|value)_encoder\.non_local\.W\.", r"\1_aggregation.extract.out."),
    (r"mem_compress\.(key|value)_encoder\.conv1\.aspp1\.atrous_conv\.", r"\1_aggregation.enhance.branches.0."),
    (r"mem_compress\.(key|value)_encoder\.conv1\.aspp2\.atrous_conv\.", r"\1_aggregation.enhance.branches.1."),
    (r"mem_compress\.(key|value)_encoder\.conv1\.aspp3\.atrous_conv\.", r"\1_aggregation.enhance.branches.2."),
    (r"mem_compress\.(key|value)_encoder\.conv1\.aspp4\.atrous_conv\.", r"\1_aggregation.enhance.branches.3."),
    (r"mem_compress\.(key|value)_encoder\.conv1\.conv1\.", r"\1_aggregation.enhance.merge."),
    (r"mem_compress\.compress_(key|value)\.", r"\1_aggregation.squeeze."),
]


def translate_published(published: Mapping[str, Tensor], path: Path | str) -> dict[str, Tensor]:
    """Rename and reshape the tensors of a published RDE-VOS or STCN state dict to those of this project."""
    state, unexpected = {}, []
    for name, tensor in published.items():
        for pattern, ours in _PUBLISHED_NAMES:
            renamed, found = re.subn("^" + pattern, ours, name)
            if found:
                state[renamed] = _as_2d(tensor)
                break
        else:
            unexpected.append(name)
    if unexpected:
        raise InputError(refusal(path, [], unexpected))
    return _split_shared(_with_channel_of_others(_fold_biases(state)))


def config_of(state: Mapping[str, Tensor], path: Path | str) -> NetworkConfig:
    """The architecture that the names and shapes of a state dict of this project imply.

    Raises:
        InputError: a tensor is missing.
        IndexError: the tensors have shapes that no network has.
    """

    def width(name: str) -> int:
        if name not in state:
            raise InputError(refusal(path, [name], []))
        return state[name].shape[0]

    def backbone_width(encoder: str) -> int:
        return 64 if _backbone_of(state, encoder) == EFFICIENTNET else width(f"{encoder}.backbone.conv1.weight")

    return NetworkConfig(
        key_backbone=_backbone_of(state, "key_encoder"),
        key_width=backbone_width("key_encoder"),
        mask_backbone=_backbone_of(state, "mask_encoder"),
        mask_width=backbone_width("mask_encoder"),
        key_channels=width("key_encoder.key_projection.weight"),
        value_channels=width("key_encoder.value_projection.weight"),
        decoder_channels=(
            width("decoder.compress.conv2.weight"),
            width("decoder.up8.block.conv2.weight"),
            width("decoder.up4.block.conv2.weight"),
        ),
        aggregation=any(name.startswith(("key_aggregation.", "value_aggregation.")) for name in state),
    )


def _backbone_of(state: Mapping[str, Tensor], encoder: str) -> str:
    """The name of an encoder's backbone, by the kind and the number of its blocks.

    Raises:
        IndexError: no backbone has such blocks.
    """
    if f"{encoder}.backbone.first.conv.weight" in state:
        return EFFICIENTNET
    prefix = f"{encoder}.backbone.layer"
    block = Bottleneck if f"{prefix}1.0.conv3.weight" in state else BasicBlock
    blocks = {tuple(name[len(prefix) :].split(".")[:2]) for name in state if name.startswith(prefix)}
    depths = tuple(sum(stage == str(number) for stage, _ in blocks) for number in (1, 2, 3))
    for name, described in RESNETS.items():
        if described == (block, depths):
            return name
    raise IndexError(f"no backbone has {depths} blocks")


def _as_2d(tensor: Tensor) -> Tensor:
    """A kernel over (time, height, width) as the equivalent 2-D kernel (see model/sam.py)."""
    if tensor.ndim != 5:
        return tensor
    return tensor.transpose(1, 2).flatten(1, 2)  # [out,in,t,kh,kw] -> [out,t·in,kh,kw]


def _fold_biases(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fold the biases of the published mask encoder's convolutions into its batch norms.

    The convolutions of torchvision's ResNets have no biases. BN(x + b) = γ(x + b − mean)/σ + β, so with frozen
    statistics replacing mean by mean − b has exactly the effect of the bias.
    """
    for name in [name for name in state if name.startswith("mask_encoder.backbone.") and name.endswith(".bias")]:
        norm = re.sub(r"conv(\d)\.bias$", r"bn\1.", re.sub(r"downsample\.0\.bias$", "downsample.1.", name))
        if norm != name and norm + "running_mean" in state:
            state[norm + "running_mean"] = state[norm + "running_mean"] - state.pop(name)
    return state


def _split_shared(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Split the kernels over concatenations into their two parts (`model.blocks.SharedConv2d`)."""
    for block, feature in (
        ("decoder.compress", "value_projection.weight"),
        ("mask_encoder.fuse", "key_projection.weight"),
    ):
        projection = state.get(f"key_encoder.{feature}")
        for conv in ("conv1", "shortcut"):
            name = f"{block}.{conv}"
            if projection is None or f"{name}.weight" not in state:
                continue
            # The shared part is the query value in the decoder, and f16 in the mask encoder.
            shared = projection.shape[0 if block == "decoder.compress" else 1]
            weight = state.pop(f"{name}.weight")
            state[f"{name}.own.weight"] = weight[:, :-shared].contiguous()
            state[f"{name}.shared.weight"] = weight[:, -shared:].contiguous()
            if f"{name}.bias" in state:
                state[f"{name}.shared.bias"] = state.pop(f"{name}.bias")
    return state


def _with_channel_of_others(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the channel of the other objects' masks to a mask encoder for a single object [image, mask]."""
    weight = state.get("mask_encoder.backbone.conv1.weight")
    if weight is not None and weight.ndim == 4 and weight.shape[1] == 4:
        extended = weight.new_empty(weight.shape[0], 5, *weight.shape[2:], dtype=torch.float32)
        extended[:, :4] = weight
        start_channel_of_others(extended)
        state["mask_encoder.backbone.conv1.weight"] = extended
    return state


def refusal(path: Path | str, missing: list[str], unexpected: list[str]) -> str:
    """The message for a state dict with missing or unexpected names."""
    parts = [f"{kind} {listed(names)}" for kind, names in (("missing", missing), ("unexpected", unexpected)) if names]
    return f"{path} is not a checkpoint of RDE-VOS or STCN ({'; '.join(parts)}); use one of those or one trained here"
