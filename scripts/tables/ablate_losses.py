"""Table 6: train without each loss in turn, from the same weights and with the same budget, and score the results.

    python scripts/tables/ablate_losses.py --davis_path DAVIS --output OUTPUT --seeds 0 1 -- \\
        --stage 3 --davis_root DAVIS --yv_root YOUTUBE --load_network runs/s0/network.pth

Everything after ``--`` goes to train.py, in every run. DAVIS's validation videos are segmented as by eval_davis.py.

Writes OUTPUT/<variant>-<seed>/, the runs of train.py with their masks and scores, and OUTPUT/table6.csv and table6.png
with the published figures beside ours. The same command resumes an interrupted run.
"""

import argparse
import shlex
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dataset.layouts.davis import DAVIS
from tables.plots import draw_scores
from util.argument_types import seed
from util.distributed import run_script
from util.errors import InputError, command_line
from util.evaluation.protocols import DAVISEvaluation
from util.evaluation.scoring import read_results
from util.files import lock_folder, write_csv

ROOT = Path(__file__).resolve().parents[2]
# The rows of Table 6: train.py's flags, and J&F, J and F on DAVIS 2017 val as published.
VARIANTS = {
    "w/o L_MC": (["--without_mc"], (83.7, 80.5, 86.9)),
    "w/o L_UG": (["--without_ug"], (82.9, 79.5, 86.4)),
    "w/o L_MC & L_UG": (["--without_mc", "--without_ug"], (82.5, 79.1, 86.0)),
    "L_Seg w/o STM": (["--without_stm"], (83.0, 79.4, 86.6)),
    "full": ([], (84.2, 80.8, 87.5)),
}
# The settings of train.py that a switched-off loss leaves without effect.
SETTINGS = {"--without_mc": ("--gamma",), "--without_ug": ("--mu", "--guidance")}


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--davis_path", type=Path, required=True, help="folder that holds trainval/, to score on")
    parser.add_argument("--year", type=int, choices=(2016, 2017), default=2017, help="2016 merges a video's objects")
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs, the table and the picture")
    parser.add_argument("--seeds", type=seed, nargs="+", default=[0, 1], help="runs of each variant; default 0 1")
    parser.add_argument("train", nargs="*", metavar="...", help="after --: flags of train.py")
    return parser.parse_args()


def chosen_flags(given: list[str], variant: list[str]) -> list[str]:
    """The flags of a variant's run: all given ones but the settings of a loss that the variant switches off."""
    idle = [name for switch in variant for name in SETTINGS.get(switch, ())]
    flags = iter(given)
    kept = []
    for flag in flags:
        if flag in idle:
            next(flags, None)  # its value
        elif flag.split("=")[0] not in idle:
            kept.append(flag)
    return [*kept, *variant]


def run(script: str, *arguments: object) -> None:
    """Run a script of the project."""
    given = [str(argument) for argument in arguments]
    if code := run_script(ROOT / script, given):
        command = shlex.join(["python", script, *given])
        raise InputError(f"{command} failed (exit code {code}); see its message above, and run again")


def train_and_score(arguments: argparse.Namespace, variant: str, seed: int) -> tuple[float, float, float]:
    """J&F, J and F in percent of a variant's run, which is resumed if it was interrupted."""
    name = f"{variant.replace('/', '').replace(' ', '_')}-{seed}"
    folder, flags = arguments.output / name, chosen_flags(arguments.train, VARIANTS[variant][0])
    # Both scripts resume, and refuse results of other settings.
    where = ("--runs", arguments.output, "--id", name)
    run("train.py", *flags, *where, "--seed", seed, "--resume")
    output = folder / "val"
    data = ("--davis_path", arguments.davis_path, "--year", arguments.year)
    run("eval_davis.py", "--model", folder / "network.pth", *data, "--output", output)
    return read_results(output)


def make_table(arguments: argparse.Namespace) -> None:
    """Train and score every variant, or what an earlier call has left, and write the table and the picture."""
    # Before the first training, not after it.
    DAVISEvaluation(DAVIS(arguments.davis_path, arguments.year)).check(progress=True)
    rows, scores = [], {}
    for variant, (_, published) in VARIANTS.items():
        runs = [train_and_score(arguments, variant, seed) for seed in arguments.seeds]
        scores[variant] = [run[0] for run in runs]
        means = [f"{statistics.mean(column):.1f}" for column in zip(*runs, strict=True)]
        rows.append([variant, *means, *(f"{score:.1f}" for score in (*scores[variant], *published))])
        print(f"{variant:15}  J&F {means[0]}", flush=True)
    each = [f"J&F, seed {seed}" for seed in arguments.seeds]
    header = ["Losses", "J&F", "J", "F", *each, "Published J&F", "Published J", "Published F"]
    write_csv(arguments.output / "table6.csv", [header, *rows])
    panels = {"": {name: (scores[name], VARIANTS[name][1][0]) for name in VARIANTS}}
    draw_scores(panels, arguments.output / "table6.png")
    print(f"{arguments.output / 'table6.csv'}\n{arguments.output / 'table6.png'}")


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    with lock_folder(arguments.output):
        make_table(arguments)


if __name__ == "__main__":
    main()
