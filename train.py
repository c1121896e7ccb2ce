"""Train RDE-VOS stage by stage, in one process or under torchrun.

    torchrun --nproc_per_node=4 train.py --stage 0 --id s0 --static_root STATIC
    torchrun --nproc_per_node=4 train.py --stage 1 --id s1 --bl_root BL30K --load_network runs/s0/network.pth
    torchrun --nproc_per_node=4 train.py --stage 2 --id s2 --davis_root DAVIS --yv_root YOUTUBE \\
        --load_network runs/s1/network.pth
    python train.py --stage 2 --id own --videos MY_VIDEOS --load_network WEIGHTS

The defaults are the paper's recipe; --recipe release is that of the authors' release. A stage trains on any of its data
sets. The folder runs/ID contains everything of a run; --resume resumes it.
"""

import copy
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dataset.samples.batches import global_batches
from dataset.samples.loading import training_batches
from dataset.samples.stages import stage_dataset
from model import RDE_VOS, NetworkConfig, load_network
from model.checkpoint import network_from_checkpoint
from model.clip_loss import ClipLoss
from model.encoders import ENCODERS
from model.initialisation import add_aggregation, load_imagenet_weights, prepare_for_several_objects
from model.losses import hard_fraction_at
from util.device import (
    autotuned_convolutions,
    choose_device,
    enough_memory,
    half_precision,
    inference_dtype,
    training_layout,
    working_compiler,
)
from util.errors import InputError, command_line
from util.imagenet import normalise
from util.training.arguments import (
    chosen_intervals,
    chosen_losses,
    chosen_network,
    chosen_recipe,
    configuration,
    parse_arguments,
    started_with,
    validation_split,
)
from util.training.log import TrainingLog
from util.training.loss_check import LossCheck
from util.training.parallel import data_parallel, exchange, training_processes
from util.training.recipe import CPU_FLAGS, CPU_TIME, Recipe
from util.training.reports import Reports
from util.training.run import RunFolder, StopRequest, TrainingState, save_result
from util.training.validation import Validation

INPUTS = ("frames", "masks", "perturbed", "selector")  # the entries of a batch for ClipLoss


@command_line
def main() -> None:
    """Train one stage."""
    arguments = parse_arguments(__doc__)
    recipe, losses = chosen_recipe(arguments), chosen_losses(arguments)
    device = choose_device(arguments.device)
    dtype = precision(arguments.precision, device)
    processes = training_processes(device)
    run = RunFolder(arguments.runs, arguments.id)
    with (
        processes.collective(),
        processes.lock(run.path),
        enough_memory("split the batch with --accumulation, use --recompute, or make --crop_size smaller"),
        working_compiler(),
    ):
        # The main process looks for it, because other machines may have other folders.
        saved = processes.broadcast(run.read_latest() if arguments.resume and processes.is_main else None)
        clips = {"crop_size": arguments.crop_size, "frames": arguments.frames, "seed": arguments.seed}
        data = stage_dataset(arguments.stage, vars(arguments), iterations=recipe.iterations, **clips)

        torch.manual_seed(arguments.seed)
        if saved:
            network = network_from_checkpoint(saved, run.path)
        else:
            start = (arguments.load_network, arguments.from_scratch)
            network = first_network(arguments.stage, chosen_network(arguments), *start)
        choose_trained_parts(network, arguments.stage, arguments.freeze, norms=arguments.from_scratch)
        keys = global_batches(
            len(data), batch_size=recipe.batch_size, iterations=recipe.iterations,
            start_iteration=saved["iteration"] if saved else 0, rank=processes.rank, world_size=processes.count,
            accumulation=arguments.accumulation, seed=arguments.seed,
        )  # fmt: skip
        parts = training_batches(data, keys, workers=arguments.workers, pin_memory=device.type == "cuda")
        batches = map(list, zip(*[parts] * arguments.accumulation, strict=True))
        validation = None
        if split := validation_split(arguments):
            validation = Validation(
                split, run.path / "validation", processes, inference_dtype(device, amp=dtype is not None)
            )

        if processes.is_main:
            run.check_settings(configuration(arguments, recipe, losses, network), arguments.resume)
        processes.wait()
        state = training_state(network, recipe, device, dtype, arguments.average, saved)
        if processes.is_main:
            run.record_start(state.iteration, started_with(arguments))
            print(f"stage {arguments.stage} trains on {data.summary}", flush=True)
            if device.type == "cpu":
                fitting = f"{CPU_FLAGS} takes the small network about {CPU_TIME} of one core"
                print(f"note: this trains on the CPU, where {fitting}", flush=True)
        loss = ClipLoss(network, losses, recompute=arguments.recompute)
        if arguments.compile:
            loss.compile()
        model = data_parallel(loss, device, processes, equal_buffers=not network.trained_norms)
        stop = StopRequest(processes)
        first = state.iteration
        with TrainingLog(run.path / "log", processes, first, recipe.iterations) as log:
            reports = Reports(chosen_intervals(arguments, recipe), log, run, validation, processes)
            train(model, state, batches, recipe, stop, reports)
        if processes.is_main:
            save_result(run, state, stopped=state.iteration < recipe.iterations, trained=state.iteration > first)
        processes.wait()  # torchrun kills all other processes when one ends, even one that is still saving
    processes.close()
    stop.exit()


def train(
    model: nn.Module,
    state: TrainingState,
    batches: Iterator[list[dict[str, Any]]],
    recipe: Recipe,
    stop: StopRequest,
    reports: Reports,
) -> None:
    """Train until the end of the recipe or a request to stop.

    Args:
        batches: the batches of this process; one for each iteration, in the parts that are accumulated.

    Raises:
        InputError: a loss is infinite or NaN, or a file cannot be written.
    """
    device, dtype = state.network.device, state.dtype
    losses = LossCheck(patience=20 if state.scaler.is_enabled() else 0)  # 20 reductions: from 2^16 to below 1
    while state.iteration < recipe.iterations:
        with stop.at_unreadable_data(), reports.log.waiting():
            parts = next(batches)
        if stop.agreed():
            break
        hard_fraction = hard_fraction_at(state.iteration, recipe.warm_up)
        for number, batch in enumerate(parts, start=1):
            inputs = {name: batch[name].to(device, non_blocking=True) for name in INPUTS}
            inputs["frames"] = normalise(inputs["frames"])
            # The processes exchange gradients once per iteration, in the last backward pass.
            # All passes have the same shapes; the videos of a validation have not.
            with exchange(model, last=number == len(parts)), autotuned_convolutions():
                with torch.autocast(device.type, dtype, enabled=dtype is not None):
                    result = model(**inputs, hard_fraction=hard_fraction)
                state.scaler.scale(result.loss / len(parts)).backward()
            reports.log.collect_pass(inputs, result)
            losses.add(result.loss, batch["name"])
        reports.log.collect_step(state.step(), state.iteration)
        reports.after_iteration(state, losses, hard_fraction, (inputs["frames"], inputs["masks"], result.masks))
    losses.check()


def precision(name: str, device: torch.device) -> torch.dtype | None:
    """The 16-bit type that ``--precision`` selects on a device; None for fp32."""
    if name == "auto":
        return half_precision(device) if device.type == "cuda" else None
    return {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}[name]


def first_network(stage: int, config: NetworkConfig, weights: Path | None, from_scratch: Collection[str]) -> RDE_VOS:
    """The network that a new run starts from.

    Args:
        config: the architecture if there are no ``weights``.
        weights: the weights of an earlier stage, or None.
        from_scratch: the encoders that start from random weights instead of ImageNet's if there are no ``weights``.
    """
    if weights:
        network = load_network(weights)
        if stage > 0:
            return add_aggregation(prepare_for_several_objects(network))
        network.single_object = True
        return network
    if stage > 0 and not from_scratch:
        raise InputError(
            f"stage {stage} starts from the weights of an earlier stage; give them with --load_network, or train from "
            "random weights with --from_scratch"
        )
    network = RDE_VOS(config)
    load_imagenet_weights(network, [name for name in ENCODERS if name not in from_scratch])
    network.single_object = stage == 0
    return network


def choose_trained_parts(network: RDE_VOS, stage: int, freeze: Collection[str], *, norms: Collection[str]) -> None:
    """Freeze the parts of the network that the run does not train, and batch norms except in the encoders ``norms``."""
    network.trained_norms = tuple(norms)
    # Stage 0 has the STM bank only, which does not use SAM.
    frozen = {*freeze, *(("key_aggregation", "value_aggregation") if stage == 0 else ())}
    network.requires_grad_(True)
    for name, part in network.named_modules():
        if name in frozen:
            part.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise InputError(f"--freeze {' '.join(freeze)} leaves nothing to train; name fewer parts")


def training_state(
    network: RDE_VOS,
    recipe: Recipe,
    device: torch.device,
    dtype: torch.dtype | None,
    decay: float | None,
    content: dict[str, Any] | None,
) -> TrainingState:
    """The state of training on the device: new, or restored from a checkpoint.

    Args:
        dtype: the 16-bit type to compute in; None for fp32.
        decay: see `TrainingState`; None for no average.
        content: the content of a checkpoint; None for a new run.
    """
    network.to(device, memory_format=training_layout(device, dtype)).train()
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, recipe.lr, weight_decay=1e-7, fused=True)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(recipe.lr_steps), gamma=0.1)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    average = None if decay is None else copy.deepcopy(network)
    state = TrainingState(network, optimizer, schedule, scaler, average=average, decay=decay or 0.0, dtype=dtype)
    if content:
        state.restore(content)
    return state


if __name__ == "__main__":
    main()
