"""Score a trivial baseline on DAVIS: every frame of a video gets the mask of the first frame.

    python scripts/copy_first_mask.py --davis_path DAVIS --output OUTPUT

OUTPUT has the layout of eval_davis.py.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tqdm import tqdm

from dataset.davis import DAVIS
from dataset.images import write_mask
from util.errors import InputError, command_line
from util.evaluation.benchmarks import DAVISBenchmark
from util.evaluation.output import OutputFolder
from util.evaluation.run import score_and_draw


@command_line
def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--davis_path", type=Path, required=True, help="folder that holds trainval/")
    parser.add_argument("--output", type=Path, required=True, help="folder for the masks and scores")
    arguments = parser.parse_args()
    output = OutputFolder(arguments.output)
    if output.records.exists():
        raise InputError(f"{output.path} holds the results of a network; choose another --output")
    benchmark = DAVISBenchmark(DAVIS(arguments.davis_path))
    benchmark.check(progress=True)
    for video in tqdm(benchmark.videos, unit="video", disable=None):
        first = video.read_given_mask(0)
        for number in range(len(video.frames)):
            write_mask(output.mask(video, number), first, video.palette)
    score_and_draw(benchmark, output, overlay=False)


if __name__ == "__main__":
    main()
