"""Segment every video in a folder, such as MOSE, LVOS or your own data set, and score the masks by ground truth.

    python scripts/eval_folder.py --images IMAGES --masks MASKS --model WEIGHTS --output OUTPUT

IMAGES holds <video>/<frame>.jpg (or .png, ...). MASKS holds <video>/<frame>.png, palette or 8-bit grey PNGs of the
frame's size: 0 is the background, every other value an object. Each folder in MASKS is a video, and each mask is given
for the frame with its name. As in SA-V a binary mask may show one object, as <video>/<object>/<frame>.png or
<video>/<frame>_<object>.png. A mask may add objects at any frame. It overrides the prediction of the objects that it
holds; the other objects are segmented in the remaining pixels. If MASKS is the ground truth of many frames, --new_only
uses only the objects of a mask that are in no earlier mask.

Writes OUTPUT/masks/<video>/<frame>.png for all frames, for every N-th (--every N), or for those with ground truth
(--only_gt), and OUTPUT/confidence.csv: for each of these frames and each object the area of its mask in pixels, and the
confidence, 0 to 1, as in segment_video.py. The same command resumes an interrupted run; videos whose given masks or
frames have changed are segmented again. Under torchrun the videos are distributed over the processes.

With --gt the command also writes OUTPUT/global_results.csv and OUTPUT/per-object_results.csv, J and F as DAVIS defines
them and their means over all objects of all videos. An object is scored in the frames that have a mask in GT and come
after its first given mask, including the last frame, except where its mask is given. Only written frames are scored.
The server of a benchmark may leave out other frames.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dataset.layouts.folder_videos import FolderVideos
from util.argument_types import positive
from util.distributed import Processes
from util.errors import command_line
from util.evaluation.arguments import add_evaluation_arguments, evaluation_choice, parse_engine_arguments
from util.evaluation.output import TEMPORARY, OutputFolder
from util.evaluation.protocols import FolderEvaluation
from util.evaluation.run import score_and_draw, segment_videos


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of frames, <video>/<frame>.jpg")
    parser.add_argument("--masks", type=Path, required=True, help="folder of given masks, <video>/<frame>.png")
    parser.add_argument("--output", type=Path, required=True, help="folder for the masks and scores")
    parser.add_argument("--new_only", action="store_true", help="use only the new objects of each given mask")
    parser.add_argument("--gt", type=Path, help="folder of ground truth, <video>/<frame>.png; scores the masks")
    frames = parser.add_mutually_exclusive_group()
    frames.add_argument("--every", type=positive, default=1, metavar="N", help="write every N-th frame; default 1")
    frames.add_argument("--only_gt", action="store_true", help="write only the frames that have a mask in --gt")
    add_evaluation_arguments(parser, mem_every=3, size=480)
    arguments = parse_engine_arguments(parser)
    if arguments.only_gt and not arguments.gt:
        parser.error("--only_gt needs ground truth; give its folder as --gt")
    return arguments


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    processes = Processes()
    folder = FolderVideos(
        arguments.images,
        arguments.masks,
        arguments.gt,
        new_only=arguments.new_only,
        every=arguments.every,
        only_truth=arguments.only_gt,
    )
    evaluation = FolderEvaluation(folder, progress=processes.is_main)
    output = OutputFolder(arguments.output, evaluation.masks_folder)
    with processes.lock(output.path, *TEMPORARY):
        segment_videos(evaluation, output, processes, **evaluation_choice(arguments))
        if processes.is_main:
            score_and_draw(evaluation, output, overlay=arguments.overlay)
    processes.close()


if __name__ == "__main__":
    main()
