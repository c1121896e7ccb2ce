"""Checkpoints: one loader for the published weights of RDE-VOS and STCN, and for the weights of this project.

The loader detects the architecture from the content of a file. Published state dicts are first translated to the names
of this project; all later steps are the same for all files.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from model.initialisation import has_dead_channel
from model.network import RDE_VOS, NetworkConfig
from model.published import config_of, refusal, translate_published
from util.errors import InputError, listed
from util.files import atomic_path, write_error

# The small network that comes with the project. The README in its folder says how it was trained.
SHIPPED_WEIGHTS = Path(__file__).resolve().parent / "weights" / "small.pth"


def load_network(path: Path | str | None = None, device: torch.device | str = "cpu") -> RDE_VOS:
    """Load a checkpoint of any known format into a network in eval mode. The file determines the architecture.

    Without a path it is the small network that comes with the project. Known formats:
    - a state dict of the published RDE-VOS;
    - a state dict of the published STCN; the network then has no SAM;
    - a state dict of the static stage for a single object, with 4 input channels; the fifth is initialised
      orthogonally;
    - a file of `save_network`.
    - a state dict of a network of this project, whose shapes say what it is.
    The names may have the prefixes ``module.`` and ``_orig_mod.``.

    Raises:
        InputError: the file is missing, unreadable or of an unknown format, or holds weights that are infinite or NaN;
            the message lists names that are missing, unexpected or of such weights.
    """
    path = SHIPPED_WEIGHTS if path is None else path
    return network_from_checkpoint(read_checkpoint(path), path).to(device).eval()


def save_network(network: RDE_VOS, path: Path | str, **training_state: Any) -> None:
    """Write a checkpoint: weights, configuration, `RDE_VOS.single_object` and, for resuming, ``training_state``.

    The file is complete or absent. ``training_state`` must consist of tensors and plain Python containers, because
    ``weights_only=True`` reads nothing else.
    """
    content = {
        "config": asdict(network.config),
        "network": network.state_dict(),
        "single_object": network.single_object,
        **training_state,
    }
    with atomic_path(path) as temporary:
        try:
            with open(temporary, "wb") as file:  # by a path, torch would write the temporary name into the archive
                torch.save(_fresh(content), file)
        except RuntimeError as error:  # torch's writer raises no OSError on a full disk
            raise write_error(Path(path), str(error).split("\n")[0]) from None


def _fresh(value: Any) -> Any:
    """Plain containers with the same content, in which equal strings are one object.

    A pickle writes an object once, and then refers to it. So the bytes of a file also depend on which objects are the
    same, and those of a resumed run differ from those of a run that never stopped.
    """
    if isinstance(value, Mapping):
        return {_fresh(name): _fresh(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_fresh, value))
    return sys.intern(value) if isinstance(value, str) else value


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """Read a checkpoint to the CPU, with ``weights_only=True``."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"checkpoint {path} is missing; check the path of the weights") from None
    except Exception as error:  # torch raises almost any exception for a damaged file
        if isinstance(error, UnpicklingError) and "GLOBAL" in str(error):
            raise InputError(
                f"{path} holds Python objects, such as a whole module, which could run any program when they are "
                "loaded; save the state dict alone, torch.save(network.state_dict(), path)"
            ) from None
        # An UnpicklingError advises loading the file unsafely, so its message is not shown.
        reason = type(error).__name__ if isinstance(error, UnpicklingError) else str(error).strip().split("\n")[0]
        raise InputError(
            f"{path} is not a readable checkpoint ({reason}); copy or download it again, and check that it is no web "
            "page about the file and no pointer of Git LFS"
        ) from None
    if not isinstance(content, Mapping) or not content or not all(isinstance(name, str) for name in content):
        raise InputError(f"{path} holds a {type(content).__name__}, not the state dict of a network; use another file")
    return dict(content)


def network_from_checkpoint(content: Mapping[str, Any], path: Path | str) -> RDE_VOS:
    """Build the network that the content of a checkpoint describes; ``path`` is only for messages."""
    if "config" in content and "network" in content:
        state = _without_prefix(content["network"], path)
        try:
            config = NetworkConfig(**content["config"])
            network = _network_without_storage(config)
        except (TypeError, ValueError, IndexError, RuntimeError) as error:
            raise InputError(
                f"{path} was written by another version of this project ({error}); use that version or another file"
            ) from None
    else:
        state = _without_prefix(_unwrapped(content), path)
        try:
            if "key_encoder.key_projection.weight" not in state:  # not of this project
                state = translate_published(state, path)
            config = config_of(state, path)
        except IndexError:
            raise InputError(f"{path} holds tensors with shapes of no known network; use another file") from None
        network = _network_without_storage(config)
    _check_names(network.state_dict(), state, path)
    if broken := not_finite(state):
        raise InputError(
            f"{path} holds weights that are infinite or NaN ({listed(broken)}); use another file, such as an "
            "earlier checkpoint"
        )
    network.load_state_dict(state, assign=True)
    network.single_object = content.get("single_object", has_dead_channel(network))
    # Files may store weights in half precision to save space. The network computes in fp32.
    return network.float().requires_grad_(True)


def not_finite(state: Mapping[str, Tensor]) -> list[str]:
    """The names of the tensors with an element that is infinite or NaN."""
    return [name for name, tensor in state.items() if not tensor.isfinite().all()]


class _SkipRandomNumbers(TorchFunctionMode):
    """Skips ``normal_``, which on a tensor without storage would import torch's compiler, for nothing."""

    def __torch_function__(
        self, function: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        return args[0] if function is Tensor.normal_ else function(*args, **(kwargs or {}))


def _network_without_storage(config: NetworkConfig) -> RDE_VOS:
    """A network whose tensors have shapes but no storage, for loading weights into."""
    with torch.device("meta"), _SkipRandomNumbers():
        return RDE_VOS(config)


def _unwrapped(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state dict inside a training file of another program: the only one, or of several the average (EMA)."""
    states = {
        name: value
        for name, value in content.items()
        if isinstance(value, Mapping) and value and all(isinstance(tensor, Tensor) for tensor in value.values())
    }
    averages = [value for name, value in states.items() if "ema" in name.lower()]
    (state,) = averages if len(averages) == 1 else states.values() if len(states) == 1 else (content,)
    return {name: tensor for name, tensor in state.items() if name != "n_averaged"}  # AveragedModel's counter


def _without_prefix(state: Any, path: Path | str) -> dict[str, Tensor]:
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} holds more than a network's tensors, but no configuration; save the state dict alone")
    for name, tensor in state.items():
        allowed = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
        allowed += (torch.int64,) if name.endswith("num_batches_tracked") else ()
        repeated = tensor.layout == torch.strided and 0 in tensor.stride()  # a small file may claim gigabytes
        if tensor.dtype not in allowed or tensor.layout != torch.strided or tensor.is_meta or repeated:
            kind = f"{tensor.dtype}, {tensor.layout}, on {tensor.device}{', of repeated numbers' if repeated else ''}"
            raise InputError(
                f"{path} holds {name} as {kind}, not as plain numbers; save its weights in fp32, fp16 or bf16"
            )
    # Wrappers for several GPUs and compiled networks put a prefix before all names, and may be around each other.
    for prefix in ("module.", "_orig_mod.") * 2:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return dict(state)


def _check_names(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path | str) -> None:
    shapes, found = ({name: tuple(tensor.shape) for name, tensor in each.items()} for each in (expected, state))
    unexpected = [name for name in found if name not in shapes]
    unexpected += [
        f"{name} of shape {found[name]} instead of {shape}"
        for name, shape in shapes.items()
        if found.get(name, shape) != shape
    ]
    missing = [name for name in shapes if name not in found]
    if missing or unexpected:
        raise InputError(refusal(path, missing, unexpected))
