"""Measure speed and memory of the engine, of a training step, or of a GPU, and the clicks of the annotation page.

    python scripts/benchmark.py engine --output engine.csv --objects 1 2 5 --size 854x480
    python scripts/benchmark.py training --output training.csv --crop_size 192 --batch_size 2
    python scripts/benchmark.py clicks --pairs FOLDER --output clicks.csv
    python scripts/benchmark.py gpu --output gpu.csv

"plain" is the engine on the plain network of model/. "fast" is the engine on the network of model/fast/. "engine" and
"training" run every variant once in each repetition, each in a process of its own. Times are medians over the
repetitions, and ratios are medians of the repetitions' ratios. The peak is the peak memory of the process (on a GPU, of
its tensors) during all frames or steps. The growth is the peak minus the memory before the first frame or step. The
peak includes the weights; the growth does not. Without --model the weights are random.

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
from benchmarks.engine import measure_engines
from benchmarks.gpu import measure_gpu
from benchmarks.training import measure_training
from model.checkpoint import SHIPPED_WEIGHTS
from model.inference import STRIDE
from util.argument_types import positive
from util.errors import command_line


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)

    engine = commands.add_parser("engine", help="FPS and memory of plain, fast and --amp")
    engine.set_defaults(run=measure_engines)
    engine.add_argument("--size", type=frame_size, default=(480, 854), help="width x height; default 854x480")
    engine.add_argument("--objects", type=positive, nargs="+", default=[1, 2, 5], help="default 1 2 5")
    engine.add_argument("--frames", type=positive, default=12, help="per repetition; default 12")

    training = commands.add_parser("training", help="time and memory of a training step, with and without --recompute")
    training.set_defaults(run=measure_training)
    training.add_argument("--crop_size", type=positive, default=192, help="side of the synthetic clips; default 192")
    training.add_argument("--batch_size", type=positive, default=2, help="default 2")

    clicks = commands.add_parser("clicks", help="clicks and boxes that the annotation page needs for an object")
    clicks.set_defaults(run=measure_clicks)
    clicks.add_argument(
        "--pairs", dest="folders", type=Path, nargs="+", required=True, metavar="FOLDER",
        help="images <name>.jpg with masks <name>.png",
    )  # fmt: skip
    clicks.add_argument("--most", type=positive, metavar="N", help="pairs of each folder; default: all")

    gpu = commands.add_parser("gpu", help="FPS, memory and training speed of an NVIDIA GPU, in six minutes")
    gpu.set_defaults(run=measure_gpu)
    gpu.add_argument("--minutes", type=positive, default=6, help="no measurement begins after this time; default 6")

    for command in commands.choices.values():
        weights = "random weights of the published architecture"
        command.add_argument(
            "--model", type=Path, metavar="W",
            help=f"checkpoint; default: {'the small network' if command is clicks else weights}",
        )  # fmt: skip
        command.add_argument("--output", type=Path, required=True, metavar="FILE.csv", help="the table as CSV")
        if command is not gpu:
            command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    for command in (engine, training):
        command.add_argument("--repetitions", type=positive, default=3, help="default 3")
    clicks.set_defaults(model=SHIPPED_WEIGHTS)
    return parser.parse_args()


def frame_size(text: str) -> tuple[int, int]:
    """Parse a size such as ``854x480`` to (height, width)."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match or min(int(match[1]), int(match[2])) < STRIDE:
        raise argparse.ArgumentTypeError(f"{text} is not a size like 854x480 with sides of at least {STRIDE}")
    return int(match[2]), int(match[1])


@command_line
def main() -> None:
    """Run the command line."""
    arguments = vars(parse_arguments())
    arguments.pop("command")
    arguments.pop("run")(**arguments)


if __name__ == "__main__":
    main()
