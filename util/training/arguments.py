"""The command-line flags of train.py, and the settings that they select."""

import argparse
import platform
from collections.abc import Callable, Set
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
from util.argument_types import non_negative, non_negative_float, positive, positive_float, seed
from util.distributed import cores_per_process
from util.errors import InputError
from util.files import sha256
from util.flags import Rule, parse_given, refuse_without_effect
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


def _add(
    group: argparse._ActionsContainer, flag: str, kind: Callable, default: object, text: str, **settings: object
) -> None:
    """Add a flag with a value; the help ends with its default, if it has one."""
    shown = "" if default is None else f" (default: {default})"
    group.add_argument(flag, type=kind, default=default, help=text + shown, **settings)


def parse_arguments(description: str) -> argparse.Namespace:
    """Parse the command line of train.py."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--stage", type=int, choices=RECIPES, required=True, help="0 static, 1 BL30K, 2 main, 3 main without BL30K")
    add("--id", required=True, help="name of the run; its folder is RUNS/ID")
    add("--resume", action="store_true", help="resume the run from its last checkpoint; start it if there is none")
    _add(parser, "--runs", Path, Path("runs"), "folder of all runs")

    data = parser.add_argument_group("data (each stage takes any of its data sets, at least one)")
    add_data_arguments(data)
    _add(data, "--crop_size", positive, 384, "side of the training crops")
    text = "frames of a clip in stages 1 to 3, an odd number; longer clips train SAM on more updates"
    _add(data, "--frames", clip_length, 5, text, metavar="T")
    text = "data-loading processes per training process, by default one for each of its cores, at most 8"
    _add(data, "--workers", non_negative, min(8, cores_per_process()), text)

    start = parser.add_argument_group("start")
    _add(start, "--load_network", Path, None, "initial weights, in any known format")
    start.add_argument(
        "--from_scratch", nargs="*", choices=ENCODERS, metavar="ENCODER",
        help="start these encoders from random weights instead of ImageNet's, and train their batch norms, which "
        f"otherwise are frozen: {' or '.join(ENCODERS)} (without a name: both)",
    )  # fmt: skip
    text = f"parts to freeze: {', '.join(PARTS)}"
    start.add_argument("--freeze", nargs="+", default=[], metavar="PART", choices=PARTS, help=text)
    network = NetworkConfig()
    _add(start, "--key_backbone", str, network.key_backbone, "in a new network", choices=BACKBONES)
    text = "in a new network (default: {paper}; {release} in the release)".format(**MASK_BACKBONES)
    _add(start, "--mask_backbone", str, None, text, choices=BACKBONES)
    for name in ("key_width", "mask_width", "key_channels", "value_channels"):
        _add(start, f"--{name}", positive, getattr(network, name), "in a new network")
    text = "channels in a new network, at strides 16, 8 and 4"
    _add(start, "--decoder_channels", positive, network.decoder_channels, text, nargs=3, metavar="C")

    recipe = parser.add_argument_group("recipe (each flag overrides one setting of --recipe)")
    text = "that of the paper, or of the authors' release, which has other losses and another mask encoder"
    _add(recipe, "--recipe", str, "paper", text, choices=LOSSES)
    _add(recipe, "--iterations", positive, None, "length of training; the schedules are scaled to this length")
    _add(recipe, "--batch_size", positive, None, "samples per iteration, over all processes and accumulation steps")
    _add(recipe, "--accumulation", positive, 1, "gradient accumulation steps per process")
    _add(recipe, "--lr", positive_float, None, "learning rate")
    text = "iterations at which the learning rate is divided by 10"
    _add(recipe, "--steps", non_negative, None, text, dest="lr_steps", nargs="+", metavar="STEP")
    text = "iterations between which the fraction of hard pixels falls"
    _add(recipe, "--warm_up", non_negative, None, text, nargs=2, metavar=("START", "END"))
    text = "save the exponential moving average of the weights, with this decay per iteration, such as 0.99 "
    text += "(default: save the last weights)"
    _add(recipe, "--average", decay, None, text, metavar="DECAY")
    for name, loss in (("mu", "L_UG"), ("gamma", "L_MC")):
        text = f"weight of {loss} (default: 10; 5 in stage 2 of the release)"
        _add(recipe, f"--{name}", non_negative_float, None, text)
    text = "frame weights in L_Seg; halved: 1/16, 1/8, 1/4, 1/2 (default: equal; halved in the release)"
    _add(recipe, "--frame_weights", str, None, text, choices=get_args(FrameWeights))
    text = "features compared by L_UG; decoder_input: readout and query value (default: readout; decoder_input in the "
    text += "release)"
    _add(recipe, "--guidance", str, None, text, choices=get_args(Guidance))
    for name, terms in (("mc", "L_MC"), ("ug", "L_UG"), ("stm", "L_Seg's STM pattern items")):
        recipe.add_argument(f"--without_{name}", action="store_true", help=f"switch off {terms} (Table 6)")
    _add(recipe, "--seed", seed, 0, "seed of initialisation and samples")

    machine = parser.add_argument_group("machine")
    _add(machine, "--device", str, "auto", "auto, cpu, cuda, ...")
    text = "auto: bf16 on GPUs that support it, fp16 with loss scaling on other GPUs, fp32 on CPUs"
    _add(machine, "--precision", str, "auto", text, choices=("auto", "fp32", "fp16", "bf16"))
    text = "recompute activations in the backward pass (activation checkpointing): less memory, more time"
    machine.add_argument("--recompute", action="store_true", help=text)
    text = "compile the forward pass with torch.compile; slow to start, then faster"
    machine.add_argument("--compile", action="store_true", help=text)
    _add(machine, "--save_every", positive, 5000, "iterations between checkpoints")
    _add(machine, "--log_every", positive, 100, "iterations between log entries, at most a tenth of the run")
    _add(machine, "--draw_every", positive, 1000, "iterations between panels")
    text = "iterations between validations (default: none)"
    _add(machine, "--validate_every", positive, None, text, metavar="N")
    text = "folder in DAVIS's layout to validate on (default: davis_root)"
    _add(machine, "--validate_on", Path, None, text, metavar="DAVIS")
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
    """The rules for flags of `add_data_arguments` that have no effect in a stage, see `refuse_without_effect`.

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
    return config | {"recipe": asdict(recipe), "losses": losses.settings(), "network": asdict(network.config)}


def started_with(arguments: argparse.Namespace) -> dict[str, Any]:
    """Versions, data and initial weights of this start of the run, which the configuration does not hold."""
    roots = {flag: getattr(arguments, flag) for flag in stage_flags(arguments.stage) if flag != VIDEOS}
    noted: dict[str, Any] = {flag: str(root.resolve()) for flag, root in roots.items() if root}
    if arguments.videos:
        noted[VIDEOS] = [f"{folder.resolve()}:{repeats}" for folder, repeats in arguments.videos]
    if arguments.load_network:
        path = arguments.load_network
        noted |= {"load_network": str(path.resolve()), "load_network_sha256": sha256(path)}
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    return noted | {"versions": versions | {"cuda": torch.version.cuda}}
