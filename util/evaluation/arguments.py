"""The command-line flags that the evaluation scripts share."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from model.checkpoint import SHIPPED_WEIGHTS
from model.memory import BankSpec
from util.argument_types import positive
from util.device import inference_dtype
from util.evaluation.segmentation import EngineSettings
from util.flags import parse_given, refuse_without_effect

# Ends the message of an out-of-memory error.
MEMORY_REMEDY = "segment smaller frames with --size 480, or use --amp"


def add_weights_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that select the network and its top-k filter."""
    parser.add_argument(
        "--model", type=Path, default=SHIPPED_WEIGHTS,
        help="checkpoint; its architecture is read from the file (default: the small network shipped with the project)",
    )  # fmt: skip
    parser.add_argument(
        "--top", type=positive, default=40, metavar="K", help="top-k memory positions per query position; default 40"
    )


def weights_notes(model: Path) -> list[str]:
    """A note if the checkpoint is the shipped one."""
    if model != SHIPPED_WEIGHTS:
        return []
    return ["using the small network shipped with the project, trained on real video; --model selects another"]


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `add_weights_arguments`, --amp and --device."""
    add_weights_arguments(parser)
    parser.add_argument("--amp", action="store_true", help="half precision")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")


def network_notes(model: Path, device: torch.device, *, amp: bool) -> list[str]:
    """Notes for the user: the checkpoint is the shipped one; the device has no half precision for ``amp``."""
    notes = weights_notes(model)
    if amp and inference_dtype(device, amp=True) == torch.float32:
        notes.append("note: this CPU lacks native bf16 arithmetic, so --amp has no effect")
    return notes


def add_engine_arguments(parser: argparse.ArgumentParser, *, mem_every: int, size: int | None = None) -> None:
    """Add the flags of `add_network_arguments`, and the flags of the inference engine.

    Args:
        mem_every: the default of θ, in frames.
        size: the default of --size, in pixels; None for no such flag, frames then keep their size.
    """
    add_network_arguments(parser)
    parser.add_argument(
        "--compile", action="store_true",
        help="compile the network with torch.compile, which takes minutes; for videos of a few sizes",
    )  # fmt: skip
    parser.add_argument(
        "--bank", default="2F+L+RDE", help="memory bank, in Table 5's notation (F, L, RDE, F+L, ...), or STM"
    )
    parser.add_argument(
        "--mem_every", type=positive, default=mem_every, metavar="θ",
        help=f"frames between memory updates; default {mem_every}",
    )  # fmt: skip
    add_confirmation_argument(parser)
    if size:
        parser.add_argument(
            "--size", type=positive, default=size, help=f"short side of the network's input; default {size}"
        )


def add_confirmation_argument(parser: argparse.ArgumentParser) -> None:
    """Add --confirm_updates; see `model.updates.confirmed`."""
    parser.add_argument(
        "--confirm_updates", action="store_true",
        help="memorise an object as absent where the first frame alone does not find it; for videos in which objects "
        "leave",
    )  # fmt: skip


def parse_engine_arguments(
    parser: argparse.ArgumentParser, *needs: tuple[str, str], words: Sequence[str] | None = None
) -> argparse.Namespace:
    """Parse the command line of a script that has the flags of `add_engine_arguments`.

    Args:
        needs: flags of the script that have no effect without another flag: (flag, the other flag).
        words: as for `util.flags.parse_given`.
    """
    arguments, given = parse_given(parser, words)
    refuse_without_effect(
        given,
        [
            (
                never_updated([arguments.bank]),
                ["mem_every", "confirm_updates"],
                f"with --bank {arguments.bank}, which is never updated",
            ),
            *((other not in given, [flag], f"without --{other}") for flag, other in needs),
        ],
    )
    return arguments


def never_updated(banks: Iterable[str]) -> bool:
    """Whether all banks are valid and none changes after the first frame, so that θ has no effect."""
    try:
        return not any(BankSpec.parse(bank).reads_updates for bank in banks)
    except ValueError:
        return False  # `EngineSettings.check` reports the bank


def add_evaluation_arguments(parser: argparse.ArgumentParser, *, mem_every: int, size: int | None = None) -> None:
    """Add the flags of `add_engine_arguments`, and --overlay."""
    add_engine_arguments(parser, mem_every=mem_every, size=size)
    parser.add_argument("--overlay", action="store_true", help="also write overlays, with a contact sheet per video")


def evaluation_choice(arguments: argparse.Namespace) -> dict[str, Any]:
    """The engine that the flags select, as `util.evaluation.run.segment_videos` takes it."""
    names = {"model": "model", "device": "device", "amp": "amp", "compiled": "compile"}
    return {"settings": engine_settings(arguments)} | {name: getattr(arguments, flag) for name, flag in names.items()}


def engine_settings(arguments: argparse.Namespace) -> EngineSettings:
    """The settings that the flags of `add_engine_arguments` select."""
    return EngineSettings(
        bank=arguments.bank,
        mem_every=arguments.mem_every,
        top_k=arguments.top,
        confirm_updates=arguments.confirm_updates,
        size=getattr(arguments, "size", None),
    )
