"""Segment YouTube-VOS 2018 or 2019, zip the masks for the server and, given ground truth, score them.

Writes OUTPUT/Annotations/<video>/<frame>.png and OUTPUT.zip. The same command resumes an interrupted run. Under
torchrun the videos are distributed over the processes.

With --gt the command also writes OUTPUT/per-object_results-<split>.csv and OUTPUT/global_results-<split>.csv. The first
file holds J and F of each object, as means over the frames in which the server asks for the object, except the first
of them. The second file holds the figures of Table 4: the means over the objects of seen and of unseen categories, and
Overall, the mean of these four.
"""

import argparse
from pathlib import Path

from dataset.layouts.youtube import YouTubeVOS
from util.distributed import Processes
from util.errors import command_line
from util.evaluation.arguments import add_evaluation_arguments, evaluation_choice, parse_engine_arguments
from util.evaluation.output import TEMPORARY, OutputFolder
from util.evaluation.protocols import YouTubeEvaluation
from util.evaluation.run import score_and_draw, segment_videos


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--yv_path", type=Path, required=True, help="holds valid/ or test/, and all_frames/")
    parser.add_argument("--output", type=Path, required=True, help="folder for the masks; the zip goes beside it")
    parser.add_argument("--split", choices=("valid", "test"), default="valid", help="default valid")
    parser.add_argument(
        "--output_all", action="store_true", help="also write the masks that the server does not ask for (not zipped)"
    )
    parser.add_argument("--gt", type=Path, help="folder of ground truth, <video>/<frame>.png; scores the masks")
    parser.add_argument(
        "--train_meta", type=Path, help="list whose categories count as seen; default YV_PATH/train/meta.json"
    )
    add_evaluation_arguments(parser, mem_every=4, size=480)
    return parse_engine_arguments(parser, ("train_meta", "gt"))


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    youtube = YouTubeVOS(arguments.yv_path, arguments.split, arguments.output_all)
    evaluation = YouTubeEvaluation(youtube, arguments.gt, arguments.train_meta)
    output = OutputFolder(arguments.output.absolute(), evaluation.masks_folder)
    processes = Processes()
    with processes.lock(output.path, *TEMPORARY, ".."):
        segment_videos(evaluation, output, processes, **evaluation_choice(arguments))
        if processes.is_main:
            submission = output.path.with_name(f"{output.path.name}.zip")
            evaluation.write_submission(output.path, submission)
            print(f"zip         {submission}")
            score_and_draw(evaluation, output, overlay=arguments.overlay)
    processes.close()


if __name__ == "__main__":
    main()
