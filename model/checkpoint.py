"""Checkpoints: one loader for the published weights of RDE-VOS and STCN, and for the weights of this project.

The loader recognises a file by its content, so command lines never name an architecture. Published state dicts are
first translated to the names of this project; all later steps are the same for all files.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from model.encoders import extend_input_channels
from model.network import RDE_VOS, NetworkConfig
from util.errors import InputError
from util.files import atomic_path, refuse_pipe, write_error

# The small network that comes with the project. The README beside the file says how the network was trained.
SHIPPED_WEIGHTS = Path(__file__).resolve().parent / "weights" / "toy.pth"

_FIRST_CONVOLUTION = (
    "mask_encoder.backbone.conv1.weight"  # of the image, the object's mask and the other objects' masks
)
# A fifth channel with less than this share of the fourth one's root mean square is dead. A full stage 0 leaves 0.003;
# in the shipped network, which stages 1 and 2 trained after it had died, it has grown to 0.11.
_DEAD_SHARE = 0.01

# Published name -> our name; the first match counts. RDE-VOS and STCN share the names of all parts but SAM.
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
    (r"mem_compress\.(key|value)_encoder\.non_local\.theta\.", r"\1_aggregation.extract.theta."),
    (r"mem_compress\.(key|value)_encoder\.non_local\.W\.", r"\1_aggregation.extract.out."),
    (r"mem_compress\.(key|value)_encoder\.conv1\.aspp1\.atrous_conv\.", r"\1_aggregation.enhance.branches.0."),
    (r"mem_compress\.(key|value)_encoder\.conv1\.aspp2\.atrous_conv\.", r"\1_aggregation.enhance.branches.1."),
    (r"mem_compress\.(key|value)_encoder\.conv1\.aspp3\.atrous_conv\.", r"\1_aggregation.enhance.branches.2."),
    (r"mem_compress\.(key|value)_encoder\.conv1\.aspp4\.atrous_conv\.", r"\1_aggregation.enhance.branches.3."),
    (r"mem_compress\.(key|value)_encoder\.conv1\.conv1\.", r"\1_aggregation.enhance.merge."),
    (r"mem_compress\.compress_(key|value)\.", r"\1_aggregation.squeeze."),
]


def load_network(path: Path | str, device: torch.device | str = "cpu") -> RDE_VOS:
    """Read a checkpoint of any known form into a network in eval mode. The file decides the architecture.

    Known forms:
    - a state dict of the published RDE-VOS;
    - a state dict of the published STCN; the network then has no SAM;
    - a state dict of the static stage for a single object, with 4 input channels; the fifth starts orthogonal;
    - a file of `save_network`.
    The names in each of them may have the prefix ``module.``.

    Raises:
        InputError: the file is missing, unreadable or of no known form, or holds weights that are infinite or no
            numbers; the message lists names that are missing, unexpected or of such weights.
    """
    return network_from_checkpoint(read_checkpoint(path), path).to(device).eval()


def save_network(network: RDE_VOS, path: Path | str, **training_state: Any) -> None:
    """Write a checkpoint: weights, configuration, `RDE_VOS.single_object` and, for resuming, ``training_state``.

    The file is complete or not there. ``training_state`` must consist of tensors and plain Python containers, because
    ``weights_only=True`` reads nothing else.

    Raises:
        InputError: the file cannot be written.
    """
    content = {
        "config": asdict(network.config),
        "network": network.state_dict(),
        "single_object": network.single_object,
        **training_state,
    }
    with atomic_path(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # torch's writer raises no OSError on a full disk
            raise write_error(Path(path), str(error).split("\n")[0]) from None


def load_imagenet_weights(network: RDE_VOS) -> None:
    """Start both backbones from torchvision's ImageNet weights (IMAGENET1K_V1); download the weights if necessary.

    In the mask encoder's first convolution the mask channels keep their initialisation.

    Raises:
        InputError: the weights cannot be downloaded, or there are none for these backbones.
    """
    import torchvision  # here, because importing takes two seconds and only this function needs the package

    config = network.config
    for encoder, name, width in (
        (network.key_encoder, config.key_backbone, config.key_width),
        (network.mask_encoder, config.mask_backbone, config.mask_width),
    ):
        if name == "resnet10" or width != 64:
            raise InputError(f"there are no ImageNet weights for {name} of width {width}; start from random weights")
        weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
        try:
            state = weights.get_state_dict(check_hash=True)
        except (OSError, RuntimeError) as error:
            file = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
            raise InputError(
                f"{file} is missing and cannot be downloaded from {weights.url} ({error}); put the file there, or "
                "start from random weights"
            ) from None
        backbone = encoder.backbone.state_dict()
        state = {key: tensor for key, tensor in state.items() if key in backbone}
        first = backbone["conv1.weight"].clone()
        first[:, :3] = state["conv1.weight"]
        encoder.backbone.load_state_dict(state | {"conv1.weight": first})


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """Read the content of a checkpoint to the CPU, with ``weights_only=True``.

    Raises:
        InputError: the file is missing or not a checkpoint.
    """
    refuse_pipe(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"checkpoint {path} is missing; check the path of the weights") from None
    except Exception as error:  # torch raises almost every kind of error for a damaged file
        # The message of an UnpicklingError advises to load the file unsafely, so it is not shown.
        reason = type(error).__name__ if isinstance(error, UnpicklingError) else str(error).strip().split("\n")[0]
        raise InputError(f"{path} is not a readable checkpoint ({reason}); copy or download it again") from None
    if not isinstance(content, Mapping) or not content or not all(isinstance(name, str) for name in content):
        raise InputError(f"{path} holds a {type(content).__name__}, not the state dict of a network; use another file")
    return dict(content)


def network_from_checkpoint(content: Mapping[str, Any], path: Path | str) -> RDE_VOS:
    """Build the network that the content of a checkpoint describes; ``path`` is only for messages.

    Raises:
        InputError: as `load_network`.
    """
    if "config" in content and "network" in content:
        state = _without_prefix(content["network"], path)
        try:
            config = NetworkConfig(**content["config"])
            network = _network_without_storage(config)
        except (TypeError, ValueError, IndexError, RuntimeError) as error:
            raise InputError(
                f"{path} was written for another version of this project ({error}); use one that fits"
            ) from None
    else:
        state = _without_prefix(content, path)
        try:
            state = translate_published(state, path)
            config = _config_of(state, path)
        except IndexError:
            raise InputError(f"{path} holds tensors of shapes that no network has; use another file") from None
        network = _network_without_storage(config)
    _extend_single_object(state)
    _check_names(network.state_dict(), state, path)
    if broken := not_finite(state):
        raise InputError(
            f"{path} holds weights that are infinite or no numbers ({_listed(broken)}); use another file, such as an "
            "earlier checkpoint"
        )
    network.load_state_dict(state, assign=True)
    network.single_object = content.get("single_object", _has_dead_channel(state[_FIRST_CONVOLUTION]))
    # Files may store weights in half precision to save space. The network computes in single precision.
    return network.float().requires_grad_(True)


def not_finite(state: Mapping[str, Tensor]) -> list[str]:
    """The names of the tensors with an element that is infinite or no number."""
    return [name for name, tensor in state.items() if not tensor.isfinite().all()]


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
        _start_others_channel(network.mask_encoder.backbone.conv1.weight.data)
        network.single_object = False
    return network


def _start_others_channel(weight: Tensor) -> None:
    """Start the channel of the other objects' masks in a weight [C,5,7,7] orthogonal, in place, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        extend_input_channels(weight, image_channels=4)


def _has_dead_channel(weight: Tensor) -> bool:
    """Whether the fifth channel of a weight [C,5,7,7] is dead, which shows stage 0 in files that do not name it."""
    object_size, others_size = (weight[:, channel].float().square().mean().sqrt() for channel in (3, 4))
    return bool(others_size < _DEAD_SHARE * object_size)


class _SkipRandomNumbers(TorchFunctionMode):
    """Leaves out ``normal_``: for a tensor without storage ``normal_`` would import torch's compiler, for nothing."""

    def __torch_function__(
        self, function: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        return args[0] if function is Tensor.normal_ else function(*args, **(kwargs or {}))


def _network_without_storage(config: NetworkConfig) -> RDE_VOS:
    """A network whose tensors have shapes only. The weights of a file are about to replace them."""
    with torch.device("meta"), _SkipRandomNumbers():
        return RDE_VOS(config)


def translate_published(published: Mapping[str, Tensor], path: Path | str) -> dict[str, Tensor]:
    """Rename and reshape the tensors of a published RDE-VOS or STCN state dict to those of this project.

    Raises:
        InputError: the state dict holds names that no published network has.
    """
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
        raise InputError(_refusal(path, [], unexpected))
    return _split_shared(_fold_biases(state))


def _without_prefix(state: Any, path: Path | str) -> dict[str, Tensor]:
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} holds more than a network's tensors and no configuration; save its state dict alone")
    if all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return dict(state)


def _as_2d(tensor: Tensor) -> Tensor:
    """A kernel over (time, height, width) as the 2-D kernel of the same operation (see model/aggregation.py)."""
    if tensor.ndim != 5:
        return tensor
    return tensor.transpose(1, 2).flatten(1, 2)  # [out,in,t,kh,kw] -> [out,t·in,kh,kw]


def _fold_biases(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fold the biases of the published mask encoder's convolutions into its batch norms.

    Convolutions of torchvision's ResNets have no biases. BN(x + b) = γ(x + b − mean)/σ + β, so with frozen statistics a
    mean of mean − b has exactly the effect of the bias.
    """
    for name in [name for name in state if name.startswith("mask_encoder.backbone.") and name.endswith(".bias")]:
        norm = re.sub(r"conv(\d)\.bias$", r"bn\1.", re.sub(r"downsample\.0\.bias$", "downsample.1.", name))
        if norm != name and norm + "running_mean" in state:
            state[norm + "running_mean"] = state[norm + "running_mean"] - state.pop(name)
    return state


def _split_shared(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Split the kernels of concatenations into their halves (`model.blocks.SharedConv2d`)."""
    for block, feature in (
        ("decoder.compress", "value_projection.weight"),
        ("mask_encoder.fuse", "key_projection.weight"),
    ):
        projection = state.get(f"key_encoder.{feature}")
        for conv in ("conv1", "shortcut"):
            name = f"{block}.{conv}"
            if projection is None or f"{name}.weight" not in state:
                continue
            # The shared half of the decoder is the query value, the shared half of the mask encoder is f16.
            shared = projection.shape[0 if block == "decoder.compress" else 1]
            weight = state.pop(f"{name}.weight")
            state[f"{name}.own.weight"] = weight[:, :-shared].contiguous()
            state[f"{name}.shared.weight"] = weight[:, -shared:].contiguous()
            if f"{name}.bias" in state:
                state[f"{name}.shared.bias"] = state.pop(f"{name}.bias")
    return state


def _extend_single_object(state: dict[str, Tensor]) -> None:
    """Add the channel of the other objects, orthogonal, to a mask encoder for a single object [image, mask]."""
    weight = state.get(_FIRST_CONVOLUTION)
    if weight is not None and weight.ndim == 4 and weight.shape[1] == 4:
        extended = weight.new_empty(weight.shape[0], 5, *weight.shape[2:], dtype=torch.float32)
        extended[:, :4] = weight
        _start_others_channel(extended)
        state[_FIRST_CONVOLUTION] = extended


def _config_of(state: Mapping[str, Tensor], path: Path | str) -> NetworkConfig:
    """The architecture that the names and shapes of a translated state dict imply."""

    def width(name: str) -> int:
        if name not in state:
            raise InputError(_refusal(path, [name], []))
        return state[name].shape[0]

    return NetworkConfig(
        key_backbone=_backbone_of(state, "key_encoder"),
        key_width=width("key_encoder.backbone.conv1.weight"),
        mask_backbone=_backbone_of(state, "mask_encoder"),
        mask_width=width(_FIRST_CONVOLUTION),
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
    """The name of an encoder's backbone. Published networks have ResNet-18 or ResNet-50, which differ in blocks."""
    return "resnet50" if f"{encoder}.backbone.layer1.0.conv3.weight" in state else "resnet18"


def _check_names(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path | str) -> None:
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    unexpected += [
        f"{name} of shape {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if missing or unexpected:
        raise InputError(_refusal(path, missing, unexpected))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _refusal(path: Path | str, missing: list[str], unexpected: list[str]) -> str:
    parts = [f"{kind} {_listed(names)}" for kind, names in (("missing", missing), ("unexpected", unexpected)) if names]
    return f"{path} is no checkpoint of RDE-VOS or STCN ({'; '.join(parts)}); use one of those or one trained here"
