"""Teach the keys of a network to match positions as an ImageNet network does.

    pip install -r scripts/requirements/distill.txt
    python scripts/distill_keys.py --id keys --load_network WEIGHTS --key_width 48 --images STILLS --davis_root DAVIS

The keys learn the affinities of EfficientNet-Lite0, which was trained on ImageNet. The key encoder gets wider, and only
its new channels and the projection of the keys are trained, so all other parts see the same features as before. The SAM
of the keys starts anew: its result is close to the mean of its two keys. Ctrl-C and SIGTERM save a checkpoint; --resume
resumes.
"""

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dataset.images import normalise
from dataset.training_data import TrainingData
from distillation import FramePairs, ImageNetTeacher, affinity_divergence, train_new_channels, widened
from model import RDE_VOS, load_network
from model.checkpoint import network_from_checkpoint
from pasting import add_source_flags, find_sources
from util.device import choose_device, enough_memory, inference_dtype, peak_memory, training_layout
from util.distributed import Processes
from util.errors import InputError, command_line
from util.files import sha256
from util.numbers import positive, positive_float, seed
from util.training.log import TrainingLog
from util.training.parallel import data_parallel, load_batches, training_processes
from util.training.run import RunFolder, StopRequest, TrainingState, latest_checkpoint, save_result

STRIDE = 32  # of the teacher's coarse features


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--id", required=True, metavar="NAME", help="the run; its folder is RUNS/NAME")
    add("--runs", type=Path, default=Path("runs"), help="folder of all runs (default: runs)")
    add("--resume", action="store_true", help="resume the run, or start it")
    add("--load_network", type=Path, required=True, metavar="WEIGHTS", help="the trained network")
    add("--key_width", type=positive, required=True, help="width of the new key encoder; the standard ResNets have 64")
    add_source_flags(parser)
    add("--iterations", type=positive, default=8000, help="length of training (default: 8000)")
    add(
        "--batch_size",
        type=positive,
        default=12,
        help="pairs of images in an iteration, over all processes (default: 12)",
    )
    add("--crop_size", type=positive, default=192, help=f"side of the crops, a multiple of {STRIDE} (default: 192)")
    add("--lr", type=positive_float, default=1.5e-3, help="highest learning rate (default: 0.0015)")
    add("--seed", type=seed, default=0, help="determines all random choices (default: 0)")
    add("--device", default="auto", help="auto, cpu, cuda, ... (default: auto)")
    add("--workers", type=positive, default=1, help="loading processes for each process (default: 1)")
    add("--save_every", type=positive, default=500, help="iterations between checkpoints (default: 500)")
    add("--log_every", type=positive, default=50, help="iterations between lines (default: 50)")
    return parser.parse_args()


class KeyTraining(nn.Module):
    """The loss of a batch of images; a module, so that DistributedDataParallel can wrap it."""

    def __init__(self, network: RDE_VOS) -> None:
        super().__init__()
        self.encoder = network.key_encoder

    def forward(self, images: Tensor, features: Tensor) -> Tensor:
        """Normalised images [N,3,S,S] and the teacher's features of them -> a scalar."""
        f16 = self.encoder.backbone(images)[2]
        return affinity_divergence(features, self.encoder.key_projection(f16))


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    if arguments.crop_size % STRIDE:
        raise InputError(f"--crop_size {arguments.crop_size} is not a multiple of {STRIDE}; 192 is the default")
    device = choose_device(arguments.device)
    processes = training_processes(device)
    run = RunFolder(arguments.runs, arguments.id)
    with processes.collective(), enough_memory("make --batch_size or --crop_size smaller"):
        torch.manual_seed(arguments.seed)
        known = load_network(arguments.load_network)
        if arguments.key_width < known.config.key_width:
            raise InputError(
                f"the key encoder of {arguments.load_network} has a width of {known.config.key_width}; give this or a "
                "larger --key_width"
            )
        saved = latest_checkpoint(run, processes) if arguments.resume else None
        network = network_from_checkpoint(saved, run.path) if saved else widened(known, arguments.key_width)
        train_new_channels(network, known.config.key_width)
        sources = find_sources(arguments.videos, arguments.images, arguments.davis_root)
        if processes.is_main:
            run.check_settings(configuration(arguments) | sources.summary(), arguments.resume)
        processes.wait()
        pairs = FramePairs(sources, crop_size=arguments.crop_size)
        data = TrainingData([(pairs, 1)], iterations=arguments.iterations, seed=arguments.seed)
        state = training_state(network, arguments, device, saved)
        stop, first = StopRequest(), state.iteration
        with TrainingLog(run.path / "log", processes, first, arguments.iterations) as log:
            train(state, data, arguments, processes, run, log, stop)
        if processes.is_main:
            save_result(run, state, stopped=stop.requested, trained=state.iteration > first)
        processes.wait()
    processes.close()
    stop.exit()


def train(
    state: TrainingState,
    data: TrainingData,
    arguments: argparse.Namespace,
    processes: Processes,
    run: RunFolder,
    log: TrainingLog,
    stop: StopRequest,
) -> None:
    """Train until the last iteration or a request to stop."""
    device = state.network.device
    dtype = inference_dtype(device, amp=True)
    teacher = ImageNetTeacher().to(device, memory_format=training_layout(device, dtype))
    # Gradients of the new channels of 1×1 kernels have other strides than their weights, but the same order in memory.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    model = data_parallel(KeyTraining(state.network), device, processes, equal_buffers=False)
    batches = load_batches(
        data, device, processes, batch_size=arguments.batch_size, iterations=arguments.iterations,
        start=state.iteration, workers=arguments.workers, seed=arguments.seed,
    )  # fmt: skip
    while state.iteration < arguments.iterations:
        with stop.at_unreadable_data(), log.waiting():
            batch = next(batches)
        if stop.agreed(processes):
            break
        images = normalise(batch["images"].flatten(0, 1).to(device, non_blocking=True))
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = model(images, teacher(images))
        state.scaler.scale(loss).backward()
        log.collect({"loss/total": loss.detach()}, samples=len(batch["images"]))
        log.collect_step(state.step(), state.iteration)
        last = state.iteration == arguments.iterations
        if state.iteration % arguments.log_every == 0 or last:
            log.write(state.iteration, state.rate, peak_memory(device))
        if processes.is_main and (state.iteration % arguments.save_every == 0 or last):
            run.save(state)


def training_state(
    network: RDE_VOS, arguments: argparse.Namespace, device: torch.device, content: dict[str, Any] | None
) -> TrainingState:
    """The state of training on the device: new, or restored from the content of a checkpoint."""
    dtype = inference_dtype(device, amp=True)
    network.to(device, memory_format=training_layout(device, dtype)).train()
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, arguments.lr, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, arguments.lr, total_steps=arguments.iterations, pct_start=0.05, cycle_momentum=False
    )
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    state = TrainingState(network, optimizer, schedule, scaler)
    if content:
        state.restore(content)
    return state


def configuration(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that the trained weights depend on, for ``config.json``."""
    names = ("key_width", "iterations", "batch_size", "crop_size", "lr", "seed")
    return {name: getattr(arguments, name) for name in names} | {"load_network": sha256(arguments.load_network)}


if __name__ == "__main__":
    main()
