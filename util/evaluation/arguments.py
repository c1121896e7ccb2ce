"""The flags that every evaluation script shares."""

import argparse
from pathlib import Path

import torch

from model import RDE_VOS
from model.checkpoint import SHIPPED_WEIGHTS
from model.inference import engine_dtype
from util.distributed import Processes
from util.evaluation.stream import EngineSettings, engine_network


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which network is run, and how it reads its memory, whatever that holds."""
    parser.add_argument(
        "--model", type=Path, default=SHIPPED_WEIGHTS,
        help="checkpoint; its architecture is read from the file (default: the small network shipped with the project)",
    )  # fmt: skip
    parser.add_argument("--top", type=int, default=40, metavar="K", help="memory positions that each position reads")
    parser.add_argument("--amp", action="store_true", help="compute in half precision")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")


def chosen_network(arguments: argparse.Namespace, device: torch.device) -> RDE_VOS:
    """The network that the flags of `add_network_arguments` name, as the engine runs it; says so where no one is named.

    Raises:
        InputError: as `model.checkpoint.load_network`.
    """
    if arguments.model == SHIPPED_WEIGHTS and Processes().is_main:
        print("using the small network shipped with the project, trained on drawn data; --model chooses another")
    if arguments.amp and engine_dtype(device, amp=True) == torch.float32 and Processes().is_main:
        print("note: this CPU has no arithmetic in 16 bits, so --amp changes nothing")
    return engine_network(arguments.model, device, arguments.amp)


def add_engine_arguments(parser: argparse.ArgumentParser, *, mem_every: int, size: int | None = None) -> None:
    """Add the flags that say how videos are segmented.

    Args:
        mem_every: the data set's default θ.
        size: the default short side; where it is None there is no such flag, and frames keep their size.
    """
    add_network_arguments(parser)
    parser.add_argument(
        "--bank", default="2F+L+RDE", help="what the memory holds, as Table 5 writes it (F, L, RDE, F+L, ...), or STM"
    )
    parser.add_argument("--mem_every", type=int, default=mem_every, metavar="θ", help="frames between memory updates")
    if size:
        parser.add_argument(
            "--size", type=int, default=size, help=f"short side at which frames are segmented; default {size}"
        )


def engine_settings(arguments: argparse.Namespace) -> EngineSettings:
    """The settings that the flags of `add_engine_arguments` were given."""
    return EngineSettings(
        bank=arguments.bank,
        mem_every=arguments.mem_every,
        top_k=arguments.top,
        amp=arguments.amp,
        size=getattr(arguments, "size", None),
    )
