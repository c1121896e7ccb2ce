"""Segment DAVIS 2016 or 2017 and, where the split has ground truth, score the result.

Writes OUTPUT/<video>/<frame>.png, ready for submission, global_results-val.csv and per-sequence_results-val.csv.
The same command resumes an interrupted run. Under torchrun the videos are distributed over the processes.
"""

import argparse
from pathlib import Path

from dataset.layouts.davis import DAVIS
from util.distributed import Processes
from util.errors import command_line
from util.evaluation.arguments import add_evaluation_arguments, evaluation_choice, parse_engine_arguments
from util.evaluation.output import TEMPORARY, OutputFolder
from util.evaluation.protocols import DAVISEvaluation
from util.evaluation.run import score_and_draw, segment_videos


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--davis_path", type=Path, required=True, help="folder that holds trainval/ and test-dev/")
    parser.add_argument("--output", type=Path, required=True, help="folder for the masks and scores")
    parser.add_argument("--year", type=int, choices=(2016, 2017), default=2017, help="2016 merges a video's objects")
    parser.add_argument("--split", choices=("val", "testdev"), default="val", help="default val")
    parser.add_argument("--video_names", nargs="+", metavar="NAME", help="evaluate these videos only; default all")
    add_evaluation_arguments(parser, mem_every=3)
    return parse_engine_arguments(parser)


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    evaluation = DAVISEvaluation(DAVIS(arguments.davis_path, arguments.year, arguments.split), arguments.video_names)
    output = OutputFolder(arguments.output, evaluation.masks_folder)
    processes = Processes()
    with processes.lock(output.path, *TEMPORARY):
        segment_videos(evaluation, output, processes, **evaluation_choice(arguments))
        if processes.is_main:
            score_and_draw(evaluation, output, overlay=arguments.overlay)
    processes.close()


if __name__ == "__main__":
    main()
