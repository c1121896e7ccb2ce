"""Measure speed and memory of the engine, of long videos, of a training step, or of a GPU.

    python scripts/benchmark.py engine --output engine.csv --objects 1 2 5 --size 854x480
    python scripts/benchmark.py length --output length.csv --times 1 10 20
    python scripts/benchmark.py training --output training.csv --crop_size 192 --batch_size 2
    python scripts/benchmark.py clicks --pairs FOLDER --output clicks.csv
    python scripts/benchmark.py gpu --output gpu.csv

"plain" is the engine on the plain network of model/. "fast" is the engine on the network of model/fast/. The variants
alternate in one process: each repetition runs every variant once. Times are medians over the repetitions, and ratios
are medians of the repetitions' ratios. Memory is measured in a separate process for each variant. The peak is the peak
memory of the process (on a GPU, of its tensors) during all frames or steps. The growth is the peak minus the memory
before the first frame or step. The peak includes the weights; the growth does not.

Without --model the weights are random, so all objects have similar probabilities at every pixel. The fraction of pixels
with the same id then means little.

"clicks" evaluates the annotation page with simulated clicks: the number of clicks to an IoU of 85% (NoC@85), each on
the centre of the largest error, and the IoU of a box and of a click after the box.

"gpu" measures one NVIDIA GPU in about six minutes, with one line per measurement, in this order: the fast network in
fp16; a clip of 50 and of 1,000 frames, RDE and STM; a training step of stage 2; torch.compile; then the other
precisions, and the plain network. It writes the table after every measurement, also in Markdown. Measurements that
fail, or that --minutes leaves no time for, have a note in the table.

Each command prints a table and writes it as a CSV file.
"""

import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


from benchmarks.clicks import measure_clicks
from benchmarks.engine import measure_engines, measure_lengths
from benchmarks.gpu import measure_gpu
from benchmarks.training import measure_training
from model.checkpoint import SHIPPED_WEIGHTS
from model.inference import STRIDE
from util.errors import command_line
from util.numbers import positive


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser("engine", help="time by part, FPS, memory and agreement of plain, fast and --amp")
    command.set_defaults(run=measure_engines)
    _add_video_arguments(command)
    command.add_argument("--objects", type=positive, nargs="+", default=[1, 2, 5], help="default 1 2 5")
    command.add_argument("--frames", type=positive, default=12, help="per repetition, a multiple of θ; default 12")
    command.add_argument("--repetitions", type=positive, default=5, help="default 5")

    command = commands.add_parser("length", help="time and memory of 2F+L+RDE and STM over the length of a video")
    command.set_defaults(run=measure_lengths)
    _add_video_arguments(command)
    command.add_argument("--objects", type=positive, default=1, help="default 1")
    command.add_argument("--frames", type=positive, help="of the synthetic video; default 24")
    command.add_argument("--times", type=positive, nargs="+", default=[1, 10, 20], help="default 1 10 20")

    command = commands.add_parser("training", help="time and memory of a training step, with and without --recompute")
    command.set_defaults(run=measure_training)
    _add_network_arguments(command)
    command.add_argument("--crop_size", type=positive, default=192, help="side of the synthetic clips; default 192")
    command.add_argument("--batch_size", type=positive, default=2, help="default 2")
    command.add_argument("--repetitions", type=positive, default=5, help="default 5")

    command = commands.add_parser("clicks", help="clicks and boxes that the annotation page needs for an object")
    command.set_defaults(run=measure_clicks)
    _add_network_arguments(command)
    command.set_defaults(model=SHIPPED_WEIGHTS)
    command.add_argument(
        "--pairs", type=Path, nargs="+", required=True, metavar="FOLDER", help="images <name>.jpg with masks <name>.png"
    )
    command.add_argument("--most", type=positive, metavar="N", help="pairs of each folder; default: all")

    command = commands.add_parser("gpu", help="FPS, memory and training speed of an NVIDIA GPU, in six minutes")
    command.set_defaults(
        run=measure_gpu, size=(480, 854), objects=(1, 2, 5), times=(1, 20), crop_size=384, batch_sizes=(4, 16)
    )
    _add_model_argument(command)
    command.add_argument("--minutes", type=positive, default=6, help="no measurement begins after this time; default 6")

    for command in commands.choices.values():
        command.add_argument("--output", type=Path, required=True, metavar="FILE.csv", help="the table as CSV")
    return parser.parse_args()


def _add_model_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", type=Path, metavar="W", help="checkpoint; default: random weights of the published architecture"
    )


def _add_network_arguments(parser: argparse.ArgumentParser) -> None:
    _add_model_argument(parser)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads; default: torch's default")


def _add_video_arguments(parser: argparse.ArgumentParser) -> None:
    _add_network_arguments(parser)
    parser.add_argument("--size", type=frame_size, default=(480, 854), help="width x height; default 854x480")
    parser.add_argument("--mem_every", type=positive, default=3, metavar="θ", help="frames between updates; default 3")
    parser.add_argument("--video", type=Path, metavar="FOLDER", help="frames; default: synthetic moving discs")
    parser.add_argument("--mask", type=Path, metavar="PNG", help="mask of the first frame of --video")


def frame_size(text: str) -> tuple[int, int]:
    """Parse a size such as ``854x480`` to (height, width)."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match or min(int(match[1]), int(match[2])) < STRIDE:
        raise argparse.ArgumentTypeError(f"{text} is not a size like 854x480 with sides of at least {STRIDE}")
    return int(match[2]), int(match[1])


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
