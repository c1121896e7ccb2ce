"""Train RDE-VOS stage by stage, in one process or under torchrun.

    torchrun --nproc_per_node=4 train.py --stage 0 --id s0 --static_root STATIC
    torchrun --nproc_per_node=4 train.py --stage 1 --id s1 --bl_root BL30K --load_network runs/s0/network.pth
    torchrun --nproc_per_node=4 train.py --stage 2 --id s2 --davis_root DAVIS --yv_root YOUTUBE \\
        --load_network runs/s1/network.pth

The defaults are the paper's recipe; --recipe release trains as the authors' release does. The folder runs/ID holds
everything of a run; --resume goes on with the run.
"""

import argparse
import contextlib
import datetime
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from dataset.batches import GlobalBatchSampler
from dataset.davis import DAVIS
from dataset.images import normalise
from dataset.loading import training_batches
from dataset.stages import stage_dataset
from model import RDE_VOS, NetworkConfig, load_network, save_network
from model.checkpoint import network_from_checkpoint
from model.inference import STRIDE
from model.initialisation import add_aggregation, load_imagenet_weights, prepare_for_several_objects
from model.losses import LossTerms, hard_fraction_at
from model.training import ClipTrainer
from util.device import choose_device, half_precision, inference_dtype, peak_memory, training_layout
from util.distributed import Processes
from util.errors import InputError, command_line
from util.files import sha256
from util.training.arguments import parse_arguments
from util.training.log import TrainingLog
from util.training.loss_check import LossCheck
from util.training.recipe import MASK_BACKBONES, RECIPES, Recipe, recipe_losses
from util.training.run import RunFolder, StopRequest, TrainingState, averaged
from util.training.validation import Validation

PATIENCE = datetime.timedelta(minutes=30)  # a process that hangs must not hold all GPUs for longer
UNREADABLE = 1000  # stands for a sample that cannot be read, among the numbers of signals
INPUTS = ("frames", "masks", "perturbed", "selector")  # of a batch, in the order of ClipTrainer's arguments


@command_line
def main() -> None:
    """Train one stage."""
    arguments = parse_arguments(__doc__)
    recipe = chosen_recipe(arguments)
    device = choose_device(arguments.device)
    processes = Processes("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", PATIENCE)
    with processes.together():
        stopped = train(arguments, recipe, device, processes)
        processes.wait()  # torchrun ends all other processes when one process ends, even one that is still saving
    processes.close()
    if stopped:
        sys.exit(128 + stopped)


def train(arguments: argparse.Namespace, recipe: Recipe, device: torch.device, processes: Processes) -> int:
    """Train from the start, or from the run's last checkpoint, up to the end or a request to stop.

    Returns:
        the signal that has stopped the training; 0 at its end.
    """
    dtype = precision(arguments.precision, device)
    run = RunFolder(arguments.runs, arguments.id)
    # The main process alone looks for a checkpoint: the others may lie on machines with other folders.
    saved = run.read_latest() if arguments.resume and processes.is_main else None
    for note in saved.notes if saved else ():
        print(note)
    content = processes.from_main(saved.content if saved else None)

    batches = load_batches(arguments, recipe, device, processes, start=content["iteration"] if content else 0)
    torch.manual_seed(arguments.seed)
    network = network_from_checkpoint(content, run.path) if content else first_network(arguments)
    choose_trained_parts(network, arguments)
    terms = loss_terms(arguments)
    if processes.is_main:
        run.claim(configuration(arguments, recipe, terms, network), arguments.resume)
    processes.wait()
    state = training_state(network, recipe, device, dtype, arguments.average, content)
    trainer = ClipTrainer(network, terms, recompute=arguments.recompute)
    model = data_parallel(arguments, trainer, device, processes)
    validation = chosen_validation(arguments, run, processes, inference_dtype(device, amp=dtype is not None))
    if processes.is_main:
        run.note_start(state.iteration, started_with(arguments))

    first_iteration = state.iteration
    stop = StopRequest()
    log = TrainingLog(run.path / "log", processes, first_iteration)
    check = LossCheck(patience=20 if state.scaler.is_enabled() else 0)  # a row of 20 brings the scale from 2^16 below 1
    hidden = None if processes.is_main else True  # None shows the bar in terminals only
    progress = tqdm(total=recipe.iterations, initial=first_iteration, unit="it", disable=hidden)
    stopped, unreadable = 0, None  # a signal or UNREADABLE; the error of this process
    while state.iteration < recipe.iterations:
        try:
            with log.waiting():
                parts = [next(batches) for _ in range(arguments.accumulation)]
        except InputError as error:
            unreadable = error
        stopped = processes.greatest(UNREADABLE if unreadable else stop.received)
        if stopped:
            break
        done = state.iteration + 1
        logs, draws, saves, validates = (
            done % every == 0 or (done == recipe.iterations and last)
            for every, last in (
                (arguments.log_every, False),
                (arguments.draw_every, False),
                (arguments.save_every, True),
                (arguments.validate_every or recipe.iterations + 1, validation is not None),
            )
        )
        hard_fraction = hard_fraction_at(state.iteration, recipe.warm_up)
        for part, batch in enumerate(parts, start=1):
            inputs = {name: batch[name].to(device, non_blocking=True) for name in INPUTS}
            inputs["frames"] = normalise(inputs["frames"])
            # The processes exchange gradients once in an iteration, in the last backward pass.
            with exchange(model, part == arguments.accumulation):
                with torch.autocast(device.type, dtype, enabled=dtype is not None):
                    result = model(*inputs.values(), hard_fraction)
                state.scaler.scale(result.loss / arguments.accumulation).backward()
            log.collect_pass(inputs, result)
            check.add(result.loss, batch["name"])
        state.scaler.unscale_(state.optimizer)
        if logs:
            log.collect({"gradient norm": torch.nn.utils.get_total_norm([p.grad for p in state.parameters()])})
        state.step()

        progress.update()
        if logs or saves or validates:
            check.finish()
        if logs:
            others = {"learning rate": state.schedule.get_last_lr()[0], "share of hard pixels": hard_fraction}
            means = log.write(done, **others, **{"peak memory (GiB)": peak_memory(device) / 2**30})
            progress.set_postfix(loss=f"{means['loss/total']:.3f}")
        if draws:
            log.draw(done, inputs["frames"], inputs["masks"], result.masks)
        if saves and processes.is_main:
            run.save(state)
        if validates:
            scores = validation.run(state.result)
            log.write_scores(done, scores)
            if processes.is_main:
                run.keep_best(state.result, done, scores)
    progress.close()
    if stopped:
        check.finish()
        if processes.is_main and state.iteration > first_iteration:
            run.save(state)
    log.close()

    if stopped == UNREADABLE:
        processes.wait()  # until the checkpoint is complete
        raise unreadable or InputError("another process cannot read a sample and says which; mend it and use --resume")
    if processes.is_main:
        if stopped:
            print(f"stopped after iteration {state.iteration}; go on with --resume")
        elif state.iteration > first_iteration or not (run.path / "network.pth").is_file():
            # Evaluations know a file of weights by its bytes, so a finished run does not write the file again.
            save_network(state.result, run.path / "network.pth")
        if not stopped:
            print(f"trained weights are in {run.path / 'network.pth'}")
    return stopped


def chosen_recipe(arguments: argparse.Namespace) -> Recipe:
    """The recipe of the stage with the changes of the flags.

    Raises:
        InputError: the warm-up or the crop size cannot be used.
    """
    recipe = RECIPES[arguments.stage]
    if arguments.iterations is not None:
        recipe = recipe.scaled(arguments.iterations)
    changes = {name: getattr(arguments, name) for name in ("batch_size", "lr") if getattr(arguments, name) is not None}
    changes |= {name: tuple(getattr(arguments, name)) for name in ("steps", "warm_up") if getattr(arguments, name)}
    recipe = replace(recipe, **changes)
    if recipe.warm_up[0] > recipe.warm_up[1]:
        raise InputError(f"--warm_up {recipe.warm_up[0]} {recipe.warm_up[1]} ends before it starts; give START END")
    if arguments.crop_size < 32 or arguments.crop_size % STRIDE:
        raise InputError(f"--crop_size {arguments.crop_size} is no multiple of {STRIDE} from 32 on; 384 is the paper's")
    return recipe


def precision(name: str, device: torch.device) -> torch.dtype | None:
    """The 16-bit type that ``--precision`` stands for on a device; None for fp32."""
    if name == "auto":
        return half_precision(device) if device.type == "cuda" else None
    return {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}[name]


def load_batches(
    arguments: argparse.Namespace, recipe: Recipe, device: torch.device, processes: Processes, start: int
) -> Iterator[dict[str, Any]]:
    """This process's share of the batches from an iteration on.

    The seed and the iteration alone decide which samples a batch holds, however the work is split.

    Raises:
        InputError: data is missing, or the batch cannot be split evenly.
    """
    length = {"iterations": recipe.iterations, "seed": arguments.seed}
    clips = {"crop_size": arguments.crop_size, "frames": arguments.frames}
    data = stage_dataset(arguments.stage, vars(arguments), **length, **clips)
    sampler = GlobalBatchSampler(
        len(data),
        **length,
        batch_size=recipe.batch_size,
        start_iteration=start,
        rank=processes.rank,
        world_size=processes.count,
        accumulation=arguments.accumulation,
    )
    return training_batches(data, sampler, workers=arguments.workers, pin_memory=device.type == "cuda")


def first_network(arguments: argparse.Namespace) -> RDE_VOS:
    """The network that a new run starts from."""
    if arguments.load_network:
        network = load_network(arguments.load_network)
        if arguments.stage > 0:
            return add_aggregation(prepare_for_several_objects(network))
        network.single_object = True
        return network
    if arguments.stage > 0 and not arguments.from_scratch:
        raise InputError(
            f"stage {arguments.stage} starts from the weights of an earlier one; give them with --load_network, or "
            "start without any with --from_scratch"
        )
    config = NetworkConfig(
        key_backbone=arguments.key_backbone,
        key_width=arguments.key_width,
        mask_backbone=arguments.mask_backbone or MASK_BACKBONES[arguments.recipe],
        mask_width=arguments.mask_width,
        key_channels=arguments.key_channels,
        value_channels=arguments.value_channels,
        decoder_channels=tuple(arguments.decoder_channels),
    )
    network = RDE_VOS(config)
    if not arguments.from_scratch:
        load_imagenet_weights(network)
    network.single_object = arguments.stage == 0
    return network


def choose_trained_parts(network: RDE_VOS, arguments: argparse.Namespace) -> None:
    """Freeze the norms and the parts of the network that the run does not train.

    Raises:
        InputError: the flags freeze all parts.
    """
    network.frozen_norms = not arguments.from_scratch
    # Stage 0 has the STM bank only, which does not use SAM.
    frozen = {*arguments.freeze, *(("key_aggregation", "value_aggregation") if arguments.stage == 0 else ())}
    for name, part in network.named_children():
        part.requires_grad_(name not in frozen)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise InputError(f"--freeze {' '.join(arguments.freeze)} leaves nothing to train; name fewer parts")


def loss_terms(arguments: argparse.Namespace) -> LossTerms:
    """The terms of the loss of the recipe with the changes of the flags."""
    names = ("mu", "gamma", "frame_weights", "guidance")
    return replace(
        recipe_losses(arguments.recipe, arguments.stage),
        mask_consistency=not arguments.without_mc,
        unbiased_guidance=not arguments.without_ug,
        stm_segmentation=not arguments.without_stm,
        **{name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None},
    )


def configuration(arguments: argparse.Namespace, recipe: Recipe, terms: LossTerms, network: RDE_VOS) -> dict[str, Any]:
    """The settings that the trained weights depend on, for the run's folder."""
    config = {name: getattr(arguments, name) for name in ("stage", "crop_size", "frames", "seed", "precision")}
    config |= {"frozen_norms": network.frozen_norms, "frozen": sorted(arguments.freeze)}
    if arguments.average is not None:
        config["average"] = arguments.average
    # A setting that is None is left out: runs that began before there was this setting can go on.
    built = {name: value for name, value in asdict(network.config).items() if value is not None}
    return config | {"recipe": asdict(recipe), "losses": asdict(terms), "network": built}


def started_with(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything about a start of the run that the configuration leaves open: versions, data and first weights."""
    folders = {name: getattr(arguments, name) for name in ("static_root", "bl_root", "davis_root", "yv_root")}
    noted: dict[str, Any] = {name: str(folder.resolve()) for name, folder in folders.items() if folder}
    if arguments.load_network:
        path = arguments.load_network
        noted |= {"load_network": str(path.resolve()), "load_network_sha256": sha256(path)}
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    return noted | {"versions": versions | {"cuda": torch.version.cuda}}


def chosen_validation(
    arguments: argparse.Namespace, run: RunFolder, processes: Processes, dtype: torch.dtype
) -> Validation | None:
    """The validation that the flags choose; None for no validation.

    Raises:
        InputError: there is no folder to validate on, or the folder's videos are incomplete.
    """
    if not arguments.validate_every:
        return None
    folder = arguments.validate_on or arguments.davis_root
    if folder is None:
        raise InputError("--validate_every needs videos; give a folder in DAVIS's layout with --validate_on")
    return Validation(DAVIS(folder), run.path / "validation", processes, dtype)


def training_state(
    network: RDE_VOS,
    recipe: Recipe,
    device: torch.device,
    dtype: torch.dtype | None,
    decay: float | None,
    content: dict[str, Any] | None,
) -> TrainingState:
    """The network on the device with its optimiser, schedule, loss scaling and average: new, or from a checkpoint.

    Args:
        network: the network to train.
        recipe: the learning rate and its schedule.
        device: the device to train on.
        dtype: the 16-bit type to compute in; None for fp32.
        decay: see `util.training.run.averaged`; None for no average.
        content: the content of a checkpoint; None for a new run.
    """
    network.to(device, memory_format=training_layout(device, dtype)).train()
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, recipe.lr, weight_decay=1e-7, fused=True)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(recipe.steps), gamma=0.1)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # all passes have the same shapes
    average = None if decay is None else averaged(network, decay)
    state = TrainingState(network, optimizer, schedule, scaler, average=average)
    if content:
        state.restore(content)
    return state


def data_parallel(
    arguments: argparse.Namespace, trainer: ClipTrainer, device: torch.device, processes: Processes
) -> nn.Module:
    """The trainer, compiled if the flags say so, and wrapped for several processes where there are several."""
    if arguments.compile:
        trainer.compile()
    if processes.count == 1:
        return trainer
    return DistributedDataParallel(
        trainer,
        device_ids=[device.index] if device.type == "cuda" else None,
        broadcast_buffers=not trainer.network.frozen_norms,  # frozen statistics are the same everywhere
        gradient_as_bucket_view=True,  # spares a copy of all gradients
    )


def exchange(model: nn.Module, last: bool) -> contextlib.AbstractContextManager:
    """A context for a backward pass. Only in the last pass of an iteration the processes exchange gradients."""
    if last or not isinstance(model, DistributedDataParallel):
        return contextlib.nullcontext()
    return model.no_sync()


if __name__ == "__main__":
    main()
