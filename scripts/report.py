"""Turn the output of an evaluation script into one HTML page: figures, objects, plots, worst moments and a player.

    python scripts/report.py OUTPUT

OUTPUT is the --output of eval_davis.py, eval_youtube.py or eval_folder.py, which records the paths of the data. Give
the flags of the evaluation script if the data have moved, or --gt to add ground truth.

The page is one self-contained file, which opens in a browser without a network.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from util.errors import command_line
from util.evaluation.protocols import recorded_evaluation
from util.evaluation.report import write_report

DATA = {
    "davis_path": "the flag of eval_davis.py",
    "yv_path": "the flag of eval_youtube.py",
    "train_meta": "the flag of eval_youtube.py",
    "images": "the flag of eval_folder.py",
    "masks": "the flag of eval_folder.py",
    "gt": "the flag of eval_youtube.py and eval_folder.py",
}


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("evaluation", metavar="OUTPUT", type=Path, help="the --output of the evaluation script")
    for name, help_text in DATA.items():
        parser.add_argument(f"--{name}", type=Path, help=help_text)
    parser.add_argument("--output", type=Path, help="the page (default: OUTPUT/report.html)")
    return parser.parse_args()


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    page = arguments.output or arguments.evaluation / "report.html"
    evaluation = recorded_evaluation(arguments.evaluation, **{name: getattr(arguments, name) for name in DATA})
    for note in write_report(arguments.evaluation, evaluation, page, progress=True):
        print(f"note: {note}")
    print(f"{page} ({page.stat().st_size / 2**20:.1f} MiB)")


if __name__ == "__main__":
    main()
