"""Train RDE-VOS stage by stage, in one process or under torchrun.

    torchrun --nproc_per_node=4 train.py --stage 0 --id s0 --static_root STATIC
    torchrun --nproc_per_node=4 train.py --stage 1 --id s1 --bl_root BL30K --load_network runs/s0/network.pth
    torchrun --nproc_per_node=4 train.py --stage 2 --id s2 --davis_root DAVIS --yv_root YOUTUBE \\
        --load_network runs/s1/network.pth

The defaults are the paper's recipe. Everything of a run is in runs/ID; add --resume to go on with one.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from dataset.batches import GlobalBatchSampler
from dataset.loading import training_batches
from dataset.stages import stage_dataset
from model import RDE_VOS, NetworkConfig, load_network, save_network
from model.checkpoint import (
    add_aggregation,
    load_imagenet_weights,
    network_from_checkpoint,
    prepare_for_several_objects,
    read_checkpoint,
)
from model.inference import STRIDE
from model.losses import hard_pixel_share
from model.resnet import BACKBONES
from model.training import ClipResult, ClipTrainer, LossTerms
from util.device import choose_device, half_precision, training_layout
from util.distributed import Processes
from util.errors import InputError, command_line
from util.training.log import TrainingLog, object_ious
from util.training.run import RunFolder, StopRequest, TrainingState


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a stage is trained (Section 4.2)."""

    iterations: int
    batch_size: int  # over all processes and accumulation steps
    lr: float
    steps: tuple[int, ...]  # iterations at which the learning rate falls to a tenth
    warm_up: tuple[int, int]  # iterations between which the share of hard pixels falls

    def scaled(self, iterations: int) -> "Recipe":
        """The same recipe over another number of iterations: its schedules are stretched."""
        steps, warm_up = (
            tuple(round(step * iterations / self.iterations) for step in schedule)
            for schedule in (self.steps, self.warm_up)
        )
        return replace(self, iterations=iterations, steps=steps, warm_up=warm_up)


RECIPES = {
    # static images; three frames, one object
    0: Recipe(iterations=75_000, batch_size=64, lr=2e-5, steps=(37_500,), warm_up=(5_000, 17_500)),
    # BL30K
    1: Recipe(iterations=500_000, batch_size=8, lr=1e-5, steps=(400_000,), warm_up=(20_000, 70_000)),
    # DAVIS 2017 and YouTube-VOS
    2: Recipe(iterations=75_000, batch_size=16, lr=2e-5, steps=(62_500,), warm_up=(5_000, 17_500)),
    # the same straight after stage 0: the paper's rows without BL30K
    3: Recipe(iterations=150_000, batch_size=8, lr=2e-5, steps=(125_000,), warm_up=(20_000, 70_000)),
}

# What --freeze names: the network's parts.
PARTS = ("key_encoder", "mask_encoder", "decoder", "key_aggregation", "value_aggregation")
BATCH_TENSORS = ("frames", "masks", "perturbed", "selector")  # in the order that ClipTrainer takes them


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--stage", type=int, choices=RECIPES, required=True, help="0 static, 1 BL30K, 2 main, 3 main without BL30K")
    add("--id", required=True, help="name of the run; its folder is RUNS/ID")
    add("--runs", type=Path, default=Path("runs"), help="folder of all runs (default: runs)")
    add("--resume", action="store_true", help="go on from the run's last checkpoint, where it has one")

    data = parser.add_argument_group("data")
    data.add_argument("--static_root", type=Path, help="stage 0: holds fss, DUTS-TR, DUTS-TE, ecssd, BIG, HRSOD")
    data.add_argument("--bl_root", type=Path, help="stage 1: holds JPEGImages and Annotations")
    data.add_argument("--davis_root", type=Path, help="stages 2, 3: holds trainval, or is it")
    data.add_argument("--yv_root", type=Path, help="stages 2, 3: holds train_480p")
    data.add_argument("--crop_size", type=int, default=384, help="side of the training crops (default: 384)")
    data.add_argument("--workers", type=int, default=8, help="loading processes of each process (default: 8)")

    start = parser.add_argument_group("start")
    start.add_argument("--load_network", type=Path, help="weights to start from, of any known form")
    start.add_argument(
        "--from_scratch", action="store_true",
        help="start from random weights, not ImageNet's; batch norms, frozen otherwise, are trained then",
    )  # fmt: skip
    start.add_argument(
        "--freeze", nargs="+", default=[], metavar="PART", choices=PARTS, help=f"leave alone: {', '.join(PARTS)}"
    )
    network = NetworkConfig()
    for side in ("key", "mask"):
        flag, default = f"--{side}_backbone", getattr(network, f"{side}_backbone")
        start.add_argument(flag, choices=BACKBONES, default=default, help=f"of a new network (default: {default})")
    for flag in ("--key_width", "--mask_width", "--key_channels", "--value_channels"):
        default = getattr(network, flag[2:])
        start.add_argument(flag, type=int, default=default, help=f"of a new network (default: {default})")
    start.add_argument(
        "--decoder_channels", type=int, nargs=3, default=network.decoder_channels, metavar="C",
        help="of a new network, at strides 16, 8 and 4 (default: 512 256 256)",
    )  # fmt: skip

    recipe = parser.add_argument_group("recipe (default: the paper's for the stage)")
    recipe.add_argument("--iterations", type=int, help="length; the schedules are stretched to it")
    recipe.add_argument("--batch_size", type=int, help="over all processes and accumulation steps")
    recipe.add_argument(
        "--accumulation", type=int, default=1, help="passes to split a process's share into (default: 1)"
    )
    recipe.add_argument("--lr", type=float, help="learning rate")
    recipe.add_argument("--steps", type=int, nargs="+", help="iterations at which it falls to a tenth")
    recipe.add_argument(
        "--warm_up", type=int, nargs=2, metavar=("START", "END"),
        help="iterations between which the share of hard pixels falls",
    )  # fmt: skip
    recipe.add_argument("--without_mc", action="store_true", help="leave out L_MC (Table 6)")
    recipe.add_argument("--without_ug", action="store_true", help="leave out L_UG (Table 6)")
    recipe.add_argument("--without_stm", action="store_true", help="leave out L_Seg's STM pattern items (Table 6)")
    recipe.add_argument("--seed", type=int, default=0, help="of the initialisation and the samples (default: 0)")

    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default: auto)")
    machine.add_argument(
        "--precision", choices=("auto", "fp32", "fp16", "bf16"), default="auto",
        help="auto: on GPUs bf16 where they have it and fp16 with loss scaling elsewhere; fp32 on CPUs",
    )  # fmt: skip
    machine.add_argument(
        "--recompute", action="store_true", help="compute activations again on the way back: less memory, more time"
    )
    machine.add_argument("--save_every", type=int, default=5000, help="iterations between checkpoints (default: 5000)")
    machine.add_argument("--log_every", type=int, default=100, help="iterations between log entries (default: 100)")
    machine.add_argument("--draw_every", type=int, default=1000, help="iterations between panels (default: 1000)")
    return parser.parse_args()


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """The stage's recipe with what the flags change."""
    recipe = RECIPES[arguments.stage]
    if arguments.iterations is not None:
        recipe = recipe.scaled(arguments.iterations)
    changes = {name: getattr(arguments, name) for name in ("batch_size", "lr") if getattr(arguments, name) is not None}
    changes |= {name: tuple(getattr(arguments, name)) for name in ("steps", "warm_up") if getattr(arguments, name)}
    recipe = replace(recipe, **changes)
    if min(recipe.iterations, recipe.batch_size, arguments.accumulation) < 1:
        raise InputError("--iterations, --batch_size and --accumulation are at least 1")
    if min(arguments.save_every, arguments.log_every, arguments.draw_every) < 1:
        raise InputError("--save_every, --log_every and --draw_every are at least 1; --iterations + 1 is never")
    if recipe.warm_up[0] > recipe.warm_up[1]:
        raise InputError(f"--warm_up {recipe.warm_up[0]} {recipe.warm_up[1]} ends before it starts; give START END")
    if recipe.lr <= 0 or arguments.workers < 0:
        raise InputError("--lr is more than 0, and --workers not less")
    if arguments.crop_size < 32 or arguments.crop_size % STRIDE:
        raise InputError(f"--crop_size {arguments.crop_size} is no multiple of {STRIDE} from 32 on; 384 is the paper's")
    return recipe


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
        mask_backbone=arguments.mask_backbone,
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


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    recipe = recipe_of(arguments)
    device = choose_device(arguments.device)
    dtype = precision(arguments.precision, device)
    processes = Processes("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    data = stage_dataset(
        arguments.stage,
        static_root=arguments.static_root,
        bl_root=arguments.bl_root,
        yv_root=arguments.yv_root,
        davis_root=arguments.davis_root,
        iterations=recipe.iterations,
        crop_size=arguments.crop_size,
        seed=arguments.seed,
    )

    run = RunFolder(arguments.runs, arguments.id)
    checkpoint = run.latest() if arguments.resume else None
    content = read_checkpoint(checkpoint) if checkpoint else None

    # The batches follow from the seed and the iteration alone, however they are split.
    sampler = GlobalBatchSampler(
        len(data),
        batch_size=recipe.batch_size,
        iterations=recipe.iterations,
        start_iteration=content["iteration"] if content else 0,
        rank=processes.rank,
        world_size=processes.count,
        accumulation=arguments.accumulation,
        seed=arguments.seed,
    )
    batches = training_batches(data, sampler, workers=arguments.workers, pin_memory=device.type == "cuda")

    # The network, new or from the run's last checkpoint, and what trains it.
    torch.manual_seed(arguments.seed)
    network = network_from_checkpoint(content, checkpoint) if content else first_network(arguments)
    network.frozen_norms = not arguments.from_scratch
    # In stage 0 there is only the STM bank, which has no use for SAM.
    frozen = {*arguments.freeze, *(("key_aggregation", "value_aggregation") if arguments.stage == 0 else ())}
    for name, part in network.named_children():
        part.requires_grad_(name not in frozen)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not parameters:
        raise InputError(f"--freeze {' '.join(arguments.freeze)} leaves nothing to train; name fewer parts")
    terms = LossTerms(
        mask_consistency=not arguments.without_mc,
        unbiased_guidance=not arguments.without_ug,
        stm_segmentation=not arguments.without_stm,
    )
    if processes.is_main:
        config = {name: getattr(arguments, name) for name in ("stage", "crop_size", "seed", "precision")}
        config |= {"frozen_norms": network.frozen_norms, "frozen": sorted(arguments.freeze)}
        config |= {"recipe": asdict(recipe), "losses": asdict(terms), "network": asdict(network.config)}
        run.claim(config, arguments.resume)
    processes.wait()
    network.to(device, memory_format=training_layout(device, dtype)).train()
    optimizer = torch.optim.Adam(parameters, recipe.lr, weight_decay=1e-7, fused=True)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(recipe.steps), gamma=0.1)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    state = TrainingState(network, optimizer, schedule, scaler)
    if content:
        state.restore(content)

    model = ClipTrainer(network, terms, recompute=arguments.recompute)
    if processes.count > 1:
        device_ids = [device.index] if device.type == "cuda" else None
        model = DistributedDataParallel(model, device_ids=device_ids)

    def passes(share: float) -> Iterator[Pass]:
        """Run the passes of an iteration, gradients included."""
        for part in range(arguments.accumulation):
            batch = next(batches)
            inputs = [batch[name].to(device, non_blocking=True) for name in BATCH_TENSORS]
            # Gradients travel between the processes once, with the last pass.
            apart = processes.count > 1 and part < arguments.accumulation - 1
            with model.no_sync() if apart else contextlib.nullcontext():
                with torch.autocast(device.type, dtype, enabled=dtype is not None):
                    result = model(*inputs, share)
                scaler.scale(result.loss / arguments.accumulation).backward()
            yield Pass(dict(zip(BATCH_TENSORS, inputs, strict=True)), batch["name"], result)

    resumed_at = state.iteration
    stop = StopRequest(processes)
    log = TrainingLog(run.path / "log", processes, state.iteration)
    unchecked: list[Pass] = []
    progress = tqdm(
        total=recipe.iterations, initial=state.iteration, unit="it", disable=None if processes.is_main else True
    )
    while state.iteration < recipe.iterations:
        share = hard_pixel_share(state.iteration, recipe.warm_up)
        done = state.iteration + 1
        latest = list(passes(share))
        # The losses of the iteration before, so that a GPU has this one to work on while it is asked about them.
        check_finite(unchecked)
        unchecked = latest
        scaler.unscale_(optimizer)
        for each in latest:
            log.collect(each.scalars(), samples=len(each.names))
        if done % arguments.log_every == 0:
            log.collect({"gradient norm": torch.nn.utils.get_total_norm([p.grad for p in parameters])})
        state.step()

        progress.update()
        stopped = stop.received()
        saves = stopped or done % arguments.save_every == 0 or done == recipe.iterations
        if saves or done % arguments.log_every == 0:
            check_finite(unchecked)
        if done % arguments.log_every == 0:
            means = log.write(done, **{"learning rate": schedule.get_last_lr()[0], "share of hard pixels": share})
            progress.set_postfix(loss=f"{means['loss/total']:.3f}")
        if done % arguments.draw_every == 0:
            inputs = latest[-1].inputs
            log.draw(done, inputs["frames"], inputs["masks"], latest[-1].result.masks)
        if saves and processes.is_main:
            run.save(state)
        if stopped:
            break
    progress.close()
    log.close()
    if state.iteration < recipe.iterations:
        if processes.is_main:
            print(f"stopped after iteration {state.iteration}; go on with --resume")
        processes.wait()  # torchrun ends those that are still saving when another one is gone
        processes.close()
        sys.exit(128 + stopped)
    if processes.is_main:
        trained = run.path / "network.pth"
        # Where nothing was left to do it stays as it is: results made with it know it by its bytes.
        if state.iteration > resumed_at or not trained.is_file():
            save_network(network, trained)
        print(f"trained weights are in {trained}")
    processes.close()


class Pass(NamedTuple):
    """One forward and backward pass."""

    inputs: dict[str, Tensor]
    names: list[str]  # of the samples
    result: ClipResult

    def scalars(self) -> dict[str, Tensor]:
        """What the log keeps of it."""
        terms = {f"loss/{name}": term for name, term in self.result.terms.items()}
        ious = object_ious(self.result.masks, self.inputs["masks"], self.inputs["selector"])
        return {"loss/total": self.result.loss} | terms | ious


def precision(name: str, device: torch.device) -> torch.dtype | None:
    """The 16-bit type that ``--precision`` stands for on a device; None for fp32."""
    if name == "auto":
        return half_precision(device) if device.type == "cuda" else None
    return {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}[name]


def check_finite(passes: list[Pass]) -> None:
    """Stop where a loss is not a number.

    Raises:
        InputError: it names the samples of the batch.
    """
    for each in passes:
        if not each.result.loss.isfinite():
            raise InputError(
                f"the loss became {each.result.loss.item()} on the batch of {'; '.join(each.names)}; look at these "
                "samples, or start again from the last checkpoint with --load_network and a lower --lr"
            )


if __name__ == "__main__":
    main()
