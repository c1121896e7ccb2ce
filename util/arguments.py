"""The flags that every evaluation script shares."""

import argparse
from pathlib import Path

from util.evaluation import EngineSettings


def add_engine_arguments(parser: argparse.ArgumentParser, *, mem_every: int) -> None:
    """Add the flags that say how videos are segmented; ``mem_every`` is the data set's default θ."""
    parser.add_argument("--model", type=Path, required=True, help="checkpoint; its architecture is read from the file")
    parser.add_argument(
        "--bank", default="2F+L+RDE", help="what the memory holds, as Table 5 writes it (F, L, RDE, F+L, ...), or STM"
    )
    parser.add_argument("--mem_every", type=int, default=mem_every, metavar="θ", help="frames between memory updates")
    parser.add_argument("--top", type=int, default=40, metavar="K", help="memory positions that each position reads")
    parser.add_argument("--amp", action="store_true", help="compute in half precision")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")


def engine_settings(arguments: argparse.Namespace) -> EngineSettings:
    """The settings that the flags of `add_engine_arguments` were given."""
    return EngineSettings(bank=arguments.bank, mem_every=arguments.mem_every, top_k=arguments.top, amp=arguments.amp)
