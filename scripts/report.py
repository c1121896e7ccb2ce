"""Turn what eval_davis.py wrote into one HTML page: figures, a table of objects, plots, worst moments and a player.

    python scripts/report.py OUTPUT --davis_path DAVIS

The page opens in a browser from disk, without a network, and can be passed on as a single file.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from util.errors import command_line
from util.evaluation.report import write_report


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("evaluation", metavar="OUTPUT", type=Path, help="the --output of eval_davis.py")
    parser.add_argument("--davis_path", type=Path, required=True, help="the --davis_path that it was made with")
    parser.add_argument("--output", type=Path, help="the page (default: OUTPUT/report.html)")
    return parser.parse_args()


@command_line
def main() -> None:
    arguments = parse_arguments()
    page = arguments.output or arguments.evaluation / "report.html"
    notes = write_report(arguments.evaluation, arguments.davis_path, page, progress=True)
    for note in notes:
        print(f"note: {note}")
    print(f"{page} ({page.stat().st_size / 2**20:.1f} MiB)")


if __name__ == "__main__":
    main()
