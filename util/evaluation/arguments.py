"""The command-line flags that the evaluation scripts share."""

import argparse
from pathlib import Path

import torch

from model.checkpoint import SHIPPED_WEIGHTS
from util.device import inference_dtype
from util.evaluation.stream import EngineSettings
from util.numbers import positive

# What helps where the memory does not suffice.
MEMORY_REMEDY = "segment smaller frames with --size 480, or use --amp"


def add_weights_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose the network and how the network reads its memory."""
    parser.add_argument(
        "--model", type=Path, default=SHIPPED_WEIGHTS,
        help="checkpoint; its architecture is read from the file (default: the small network shipped with the project)",
    )  # fmt: skip
    parser.add_argument(
        "--top", type=positive, default=40, metavar="K", help="memory positions that each position reads"
    )


def weights_notes(arguments: argparse.Namespace) -> list[str]:
    """The sentence which says that the network is the shipped one; no sentence for any other network."""
    if arguments.model != SHIPPED_WEIGHTS:
        return []
    return ["using the small network shipped with the project, trained on real video; --model selects another"]


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `add_weights_arguments`, and the flags that choose the device and the precision."""
    add_weights_arguments(parser)
    parser.add_argument("--amp", action="store_true", help="compute in half precision")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")


def network_notes(arguments: argparse.Namespace, device: torch.device) -> list[str]:
    """The sentences that a user should read about the flags of `add_network_arguments`.

    They say that the network is the shipped one, and that the device has no half precision.
    """
    notes = weights_notes(arguments)
    if arguments.amp and inference_dtype(device, amp=True) == torch.float32:
        notes.append("note: this CPU has no arithmetic in 16 bits, so --amp changes nothing")
    return notes


def add_engine_arguments(parser: argparse.ArgumentParser, *, mem_every: int, size: int | None = None) -> None:
    """Add the flags of `add_network_arguments`, and the flags that say how videos are segmented.

    Args:
        parser: the parser to add the flags to.
        mem_every: the default of θ.
        size: the default of the short side, in pixels; None leaves the flag out, and frames keep their size.
    """
    add_network_arguments(parser)
    parser.add_argument(
        "--bank", default="2F+L+RDE", help="what the memory holds, as Table 5 writes it (F, L, RDE, F+L, ...), or STM"
    )
    parser.add_argument(
        "--mem_every", type=positive, default=mem_every, metavar="θ", help="frames between memory updates"
    )
    if size:
        parser.add_argument(
            "--size", type=positive, default=size, help=f"short side at which frames are segmented; default {size}"
        )


def add_overlay_argument(parser: argparse.ArgumentParser) -> None:
    """Add the flag for pictures of the masks over the frames."""
    parser.add_argument("--overlay", action="store_true", help="also draw the masks over the frames, with a sheet each")


def engine_settings(arguments: argparse.Namespace) -> EngineSettings:
    """The settings that the flags of `add_engine_arguments` choose."""
    return EngineSettings(
        bank=arguments.bank,
        mem_every=arguments.mem_every,
        top_k=arguments.top,
        size=getattr(arguments, "size", None),
    )
