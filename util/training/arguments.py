"""The command-line flags of train.py, and the settings that they select."""

import argparse
import platform
from collections.abc import Set
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from dataset.layouts.davis import DAVIS, split_folders
from dataset.samples.stages import DATA_SETS, VIDEOS, stage_flags
from model.efficientnet import NAME as EFFICIENTNET
from model.encoders import BACKBONES, ENCODERS
from model.inference import STRIDE
from model.losses import FrameWeights, Guidance, LossTerms
from model.network import RDE_VOS, NetworkConfig
from util.distributed import cores_per_process
from util.errors import InputError
from util.files import sha256
from util.flags import Rule, parse_given, refuse_without_effect
from util.numbers import non_negative, non_negative_float, positive, positive_float, seed
from util.training.recipe import LOSSES, MASK_BACKBONES, RECIPES, Recipe, recipe_losses
from util.training.reports import Intervals

# The names for --freeze: parts of the network, and parts of its key encoder.
PARTS = ("key_encoder", "mask_encoder", "decoder", "key_aggregation", "value_aggregation")
PARTS += ("key_encoder.backbone", "key_encoder.key_projection", "key_encoder.value_projection")


def clip_length(text: str) -> int:
    """Parse the number of frames of a clip: an odd number >= 5."""
    number = positive(text)
    if number < 5 or number % 2 == 0:
        raise argparse.ArgumentTypeError(f"{text} is not an odd number >= 5")
    return number


def decay(text: str) -> float:
    """Parse the decay of a moving average: a number between 0 and 1."""
    number = positive_float(text)
    if number >= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return number


def weighted_folder(text: str) -> tuple[Path, int]:
    """Parse ``FOLDER[:REPEATS]``: a folder, and the number of its repetitions per epoch (default: 1)."""
    folder, colon, repeats = text.rpartition(":")
    return (Path(folder), positive(repeats)) if colon and repeats.isdecimal() else (Path(text), 1)


def add_data_arguments(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add the flags for data: one for each of `dataset.samples.stages.DATA_SETS`, and one for other videos."""
    for data_set in DATA_SETS:
        stages = " and ".join(map(str, data_set.stages))
        text = f"stage{'s' * (len(data_set.stages) > 1)} {stages}: holds {data_set.layout}"
        parser.add_argument(f"--{data_set.flag}", type=Path, metavar="FOLDER", help=text)
    parser.add_argument(
        "--davis_year", type=int, choices=(2016, 2017), default=2017,
        help="year of --davis_root; 2016 merges all objects of a video (default: 2017)",
    )  # fmt: skip
    parser.add_argument(
        f"--{VIDEOS}", type=weighted_folder, action="append", default=[], metavar="FOLDER[:REPEATS]",
        help="stages 1 to 3: holds JPEGImages/VIDEO and Annotations/VIDEO, or an export of the annotation page; may be "
        "given several times; each epoch repeats every video REPEATS times (default: 1)",
    )  # fmt: skip


def parse_arguments(description: str) -> argparse.Namespace:
    """Parse the command line of train.py."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--stage", type=int, choices=RECIPES, required=True, help="0 static, 1 BL30K, 2 main, 3 main without BL30K")
    add("--id", required=True, help="name of the run; its folder is RUNS/ID")
    add("--runs", type=Path, default=Path("runs"), help="folder of all runs (default: runs)")
    add("--resume", action="store_true", help="resume the run from its last checkpoint; start it if there is none")

    data = parser.add_argument_group("data (each stage takes any of its data sets, at least one)")
    add_data_arguments(data)
    data.add_argument("--crop_size", type=positive, default=384, help="side of the training crops (default: 384)")
    data.add_argument(
        "--frames", type=clip_length, default=5, metavar="T",
        help="frames of a clip in stages 1 to 3, an odd number; longer clips train SAM on more updates (default: 5)",
    )  # fmt: skip
    data.add_argument(
        "--workers", type=non_negative, default=min(8, cores_per_process()),
        help="data-loading processes per training process (default: one for each of its cores, at most 8)",
    )  # fmt: skip

    start = parser.add_argument_group("start")
    start.add_argument("--load_network", type=Path, help="initial weights, in any known format")
    start.add_argument(
        "--from_scratch", nargs="*", choices=ENCODERS, metavar="ENCODER",
        help="start these encoders from random weights instead of ImageNet's, and train their batch norms, which "
        f"otherwise are frozen: {' or '.join(ENCODERS)} (without a name: both)",
    )  # fmt: skip
    start.add_argument(
        "--freeze",
        nargs="+",
        default=[],
        metavar="PART",
        choices=PARTS,
        help=f"parts to freeze: {', '.join(PARTS)}",
    )
    network = NetworkConfig()
    default = network.key_backbone
    start.add_argument(
        "--key_backbone", choices=BACKBONES, default=default, help=f"in a new network (default: {default})"
    )
    start.add_argument(
        "--mask_backbone", choices=BACKBONES,
        help="in a new network (default: {paper}; {release} in the release)".format(**MASK_BACKBONES),
    )  # fmt: skip
    for flag in ("--key_width", "--mask_width", "--key_channels", "--value_channels"):
        default = getattr(network, flag[2:])
        start.add_argument(flag, type=positive, default=default, help=f"in a new network (default: {default})")
    start.add_argument(
        "--decoder_channels", type=positive, nargs=3, default=network.decoder_channels, metavar="C",
        help="channels in a new network, at strides 16, 8 and 4 (default: 512 256 256)",
    )  # fmt: skip

    recipe = parser.add_argument_group("recipe (each flag overrides one setting of --recipe)")
    recipe.add_argument(
        "--recipe", choices=LOSSES, default="paper",
        help="the paper's recipe, or that of the authors' release, which has other losses and another mask encoder "
        "(default: paper)",
    )  # fmt: skip
    recipe.add_argument(
        "--iterations", type=positive, help="length of training; the schedules are scaled to this length"
    )
    recipe.add_argument(
        "--batch_size", type=positive, help="samples per iteration, over all processes and accumulation steps"
    )
    recipe.add_argument(
        "--accumulation", type=positive, default=1, help="gradient accumulation steps per process (default: 1)"
    )
    recipe.add_argument("--lr", type=positive_float, help="learning rate")
    recipe.add_argument(
        "--steps", dest="lr_steps", type=non_negative, nargs="+", metavar="STEP",
        help="iterations at which the learning rate is divided by 10",
    )  # fmt: skip
    recipe.add_argument(
        "--warm_up", type=non_negative, nargs=2, metavar=("START", "END"),
        help="iterations between which the fraction of hard pixels falls",
    )  # fmt: skip
    recipe.add_argument(
        "--average", type=decay, metavar="DECAY",
        help="save the exponential moving average of the weights, with this decay per iteration, such as 0.99 "
        "(default: save the last weights)",
    )  # fmt: skip
    for flag, loss in (("--mu", "L_UG"), ("--gamma", "L_MC")):
        text = f"weight of {loss} (default: 10; 5 in stage 2 of the release)"
        recipe.add_argument(flag, type=non_negative_float, help=text)
    recipe.add_argument(
        "--frame_weights", choices=get_args(FrameWeights),
        help="frame weights in L_Seg; halved: the sum of L_Seg is halved after each frame (default: equal; "
        "halved in the release)",
    )  # fmt: skip
    recipe.add_argument(
        "--guidance", choices=get_args(Guidance),
        help="features compared by L_UG; decoder_input: readout and query value (default: readout; decoder_input in "
        "the release)",
    )  # fmt: skip
    recipe.add_argument("--without_mc", action="store_true", help="switch off L_MC (Table 6)")
    recipe.add_argument("--without_ug", action="store_true", help="switch off L_UG (Table 6)")
    recipe.add_argument("--without_stm", action="store_true", help="switch off L_Seg's STM pattern items (Table 6)")
    recipe.add_argument("--seed", type=seed, default=0, help="seed of initialisation and samples (default: 0)")

    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default: auto)")
    machine.add_argument(
        "--precision", choices=("auto", "fp32", "fp16", "bf16"), default="auto",
        help="auto: bf16 on GPUs that support it, fp16 with loss scaling on other GPUs, fp32 on CPUs",
    )  # fmt: skip
    machine.add_argument(
        "--recompute",
        action="store_true",
        help="recompute activations in the backward pass (activation checkpointing): less memory, more time",
    )
    machine.add_argument(
        "--compile", action="store_true", help="compile the forward pass with torch.compile; slow to start, then faster"
    )
    machine.add_argument(
        "--save_every", type=positive, default=5000, help="iterations between checkpoints (default: 5000)"
    )
    machine.add_argument(
        "--log_every",
        type=positive,
        default=100,
        help="iterations between log entries, at most a tenth of the run (default: 100)",
    )
    machine.add_argument("--draw_every", type=positive, default=1000, help="iterations between panels (default: 1000)")
    machine.add_argument(
        "--validate_every", type=positive, metavar="N", help="iterations between validations (default: none)"
    )
    machine.add_argument(
        "--validate_on",
        type=Path,
        metavar="DAVIS",
        help="folder in DAVIS's layout to validate on (default: davis_root)",
    )
    arguments, given = parse_given(parser)
    _refuse_without_effect(arguments, given)
    arguments.from_scratch = ENCODERS if arguments.from_scratch == [] else tuple(arguments.from_scratch or ())
    return arguments


def _refuse_without_effect(arguments: argparse.Namespace, given: Set[str]) -> None:
    stage, validates = f"--stage {arguments.stage}", arguments.validate_every and not arguments.validate_on
    architecture = ("key_backbone", "mask_backbone", "key_width", "mask_width", "key_channels", "value_channels")
    architecture += ("decoder_channels", "from_scratch")
    aggregation = {"key_aggregation", "value_aggregation"} & set(arguments.freeze)
    videos_only = ("frames", "mu", "guidance", "without_ug", "without_stm")
    rules = (
        ("load_network" in given, architecture, "with --load_network, whose file determines the architecture"),
        (arguments.key_backbone == EFFICIENTNET, ["key_width"], f"with --key_backbone {EFFICIENTNET}"),
        (arguments.mask_backbone == EFFICIENTNET, ["mask_width"], f"with --mask_backbone {EFFICIENTNET}"),
        *data_rules(arguments.stage, davis=arguments.davis_root or arguments.validate_on, validates=validates),
        (arguments.stage == 0, videos_only, f"in {stage}, whose clips have three frames and no SAM"),
        (arguments.stage == 0 and aggregation, ["freeze"], f"on SAM in {stage}, which does not train it"),
        (not arguments.validate_every, ["validate_on"], "without --validate_every"),
        (arguments.without_ug, ("mu", "guidance"), "with --without_ug, which switches L_UG off"),
        (arguments.without_mc, ["gamma"], "with --without_mc, which switches L_MC off"),
    )
    refuse_without_effect(given, rules)


def data_rules(stage: int, *, davis: object, validates: object = False) -> list[Rule]:
    """What `util.flags.refuse_without_effect` refuses of the flags of `add_data_arguments`.

    Args:
        davis: whether there is a folder in DAVIS's layout.
        validates: whether validation uses ``--davis_root``.
    """
    others = {data_set.flag for data_set in DATA_SETS} | {VIDEOS}
    others -= {*stage_flags(stage), *(["davis_root"] if validates else [])}
    return [(True, others, f"in --stage {stage}"), (not davis, ["davis_year"], "without a folder of DAVIS")]


def chosen_recipe(arguments: argparse.Namespace) -> Recipe:
    """The recipe of the stage, with the settings that flags override."""
    recipe = RECIPES[arguments.stage]
    if arguments.iterations is not None:
        recipe = recipe.scaled(arguments.iterations)
    changes = {name: getattr(arguments, name) for name in ("batch_size", "lr") if getattr(arguments, name) is not None}
    changes |= {name: tuple(getattr(arguments, name)) for name in ("lr_steps", "warm_up") if getattr(arguments, name)}
    recipe = replace(recipe, **changes)
    if recipe.warm_up[0] > recipe.warm_up[1]:
        raise InputError(f"--warm_up {recipe.warm_up[0]} {recipe.warm_up[1]} ends before it starts; give START END")
    if arguments.crop_size < 32 or arguments.crop_size % STRIDE:
        raise InputError(f"--crop_size {arguments.crop_size} is not a multiple of {STRIDE} >= 32; 384 is the paper's")
    return recipe


def chosen_losses(arguments: argparse.Namespace) -> LossTerms:
    """The loss terms of the recipe, with the settings that flags override."""
    names = ("mu", "gamma", "frame_weights", "guidance")
    return replace(
        recipe_losses(arguments.recipe, arguments.stage),
        mask_consistency=not arguments.without_mc,
        unbiased_guidance=not arguments.without_ug,
        stm_segmentation=not arguments.without_stm,
        **{name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None},
    )


def chosen_network(arguments: argparse.Namespace) -> NetworkConfig:
    """The architecture of a new network."""
    names = ("key_backbone", "key_width", "mask_width", "key_channels", "value_channels")
    return NetworkConfig(
        **{name: getattr(arguments, name) for name in names},
        mask_backbone=arguments.mask_backbone or MASK_BACKBONES[arguments.recipe],
        decoder_channels=tuple(arguments.decoder_channels),
    )


def chosen_intervals(arguments: argparse.Namespace, recipe: Recipe) -> Intervals:
    """The intervals of the flags; a run has at least ten log entries."""
    log = min(arguments.log_every, max(1, recipe.iterations // 10))
    return Intervals(log, arguments.draw_every, arguments.save_every, arguments.validate_every, recipe.iterations)


def validation_split(arguments: argparse.Namespace) -> DAVIS | None:
    """The validation split of DAVIS that the flags select; None for no validation.

    If the folder has one year only, that year is used.
    """
    if not arguments.validate_every:
        return None
    folder = arguments.validate_on or arguments.davis_root
    if folder is None:
        raise InputError("--validate_every needs videos; give a folder in DAVIS's layout with --validate_on")
    other = {2016: 2017, 2017: 2016}[arguments.davis_year]
    listed = [year for year in (arguments.davis_year, other) if split_folders(folder, year, "val").split.is_file()]
    return DAVIS(folder, listed[0] if listed else arguments.davis_year)


def configuration(arguments: argparse.Namespace, recipe: Recipe, losses: LossTerms, network: RDE_VOS) -> dict[str, Any]:
    """The settings that the trained weights depend on, for ``config.json``."""
    names = ("stage", "crop_size", "frames", "seed", "precision", "average")
    config = {name: getattr(arguments, name) for name in names}
    config |= {"trained_norms": list(network.trained_norms), "frozen": sorted(arguments.freeze)}
    return config | {"recipe": asdict(recipe), "losses": asdict(losses), "network": asdict(network.config)}


def started_with(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the configuration lacks about a start of the run: versions, data and initial weights."""
    roots = {flag: getattr(arguments, flag) for flag in stage_flags(arguments.stage) if flag != VIDEOS}
    noted: dict[str, Any] = {flag: str(root.resolve()) for flag, root in roots.items() if root}
    if arguments.videos:
        noted[VIDEOS] = [f"{folder.resolve()}:{repeats}" for folder, repeats in arguments.videos]
    if arguments.load_network:
        path = arguments.load_network
        noted |= {"load_network": str(path.resolve()), "load_network_sha256": sha256(path)}
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    return noted | {"versions": versions | {"cuda": torch.version.cuda}}
