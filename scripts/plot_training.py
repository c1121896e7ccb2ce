"""Plot runs of train.py: losses, IoU, learning rate and the fraction of hard pixels.

    python scripts/plot_training.py runs/s0 runs/s1 runs/s2 --output curves.png

The runs of several stages are plotted one after the other.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from util.errors import InputError, command_line
from util.files import atomic_path

PANELS = {
    "losses, unweighted": ("loss/ce_1", "loss/ce_2", "loss/ce_3", "loss/ce_4", "loss/ug_2", "loss/ug_4", "loss/mc"),
    "IoU in training": ("IoU/object 1", "IoU/object 2"),
    "schedules": ("learning rate", "share of hard pixels"),
}


def read_scalars(run: Path) -> dict[str, tuple[list[int], list[float]]]:
    """The iterations and values of all logged scalars of a run."""
    log = EventAccumulator(str(run / "log"), {"scalars": 0})
    names = log.Reload().Tags()["scalars"] if (run / "log").is_dir() else []
    if not names:
        raise InputError(f"{run} has no log of train.py; give the folders of runs, RUNS/ID")
    return {name: tuple(zip(*((e.step, e.value) for e in log.Scalars(name)), strict=True)) for name in names}


def smooth(values: list[float], width: int) -> np.ndarray:
    """The moving average over each value and ``width`` values on both sides."""
    weights = np.ones(2 * width + 1)
    return np.convolve(values, weights, "same") / np.convolve(np.ones(len(values)), weights, "same")


def draw(runs: list[Path], path: Path) -> None:
    """Plot all runs, one after the other."""
    logs = [read_scalars(run) for run in runs]
    logged = set().union(*logs)
    contents = {title: [name for name in names if name in logged] for title, names in PANELS.items()}
    contents = {title: names for title, names in contents.items() if names}
    figure = Figure(figsize=(1 + 4 * len(contents), 4), layout="constrained")
    panels = figure.subplots(1, len(contents), squeeze=False)[0]
    start = 0
    for run, scalars in zip(runs, logs, strict=True):
        for axes, (title, names) in zip(panels, contents.items(), strict=True):
            for number, name in enumerate(names):
                if name in scalars:
                    steps, values = scalars[name]
                    label = name.removeprefix("loss/").removeprefix("IoU/")
                    axes.plot(start + np.array(steps), smooth(values, len(values) // 50), f"C{number}", label=label)
            axes.axvline(start, color="grey", lw=0.8)
            where = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            axes.annotate(run.name, (start, 1), (0, 3), **where, rotation=40, fontsize=8)  # short runs are adjacent
            axes.set_title(title, pad=36)
            axes.set_xlabel("iterations")
            axes.grid(alpha=0.3)
        start += max(steps[-1] for steps, _ in scalars.values())
    panels[0].set_yscale("log")
    panels[-1].set_yscale("log")
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        once = dict(zip(labels, handles, strict=True))  # otherwise each run adds its labels
        axes.legend(once.values(), once.keys(), fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


@command_line
def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of runs, in order")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.png", help="the picture")
    arguments = parser.parse_args()
    draw(arguments.runs, arguments.output)
    print(arguments.output)


if __name__ == "__main__":
    main()
