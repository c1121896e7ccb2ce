"""Score predicted masks as the DAVIS 2017 semi-supervised evaluation does: J, F, their means, recall and decay.

    python scripts/score.py --gt DAVIS/trainval/Annotations/480p --video_list DAVIS/trainval/ImageSets/2017/val.txt \\
        --pred OUTPUT --output OUTPUT

Both folders hold <video>/<frame>.png. Writes global_results-val.csv and per-sequence_results-val.csv and prints both.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dataset.files.video import is_junk, read_names
from util.errors import InputError, command_line
from util.evaluation.scoring import format_results, score_videos, write_results


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--gt", type=Path, required=True, help="folder of ground truth, <video>/<frame>.png")
    parser.add_argument("--pred", type=Path, required=True, help="folder of predictions, <video>/<frame>.png")
    parser.add_argument("--output", type=Path, required=True, help="folder for the two CSV files")
    parser.add_argument(
        "--video_list", type=Path, metavar="FILE", help="text file of video names, one a line (default: all in --gt)"
    )
    parser.add_argument("--merge_objects", action="store_true", help="merge all objects into one, as DAVIS 2016 does")
    return parser.parse_args()


def list_videos(truth_root: Path, list_file: Path | None) -> list[str]:
    """The names in ``list_file``, or of all subfolders of ``truth_root``."""
    if list_file is not None:
        videos = read_names(list_file, "check the path")
    else:
        videos = [path.name for path in sorted(truth_root.glob("*/")) if not is_junk(path.name)]
    if not videos:
        raise InputError(f"{list_file or truth_root} names no video; masks are expected in <video>/<frame>.png")
    return videos


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    videos = list_videos(arguments.gt, arguments.video_list)
    scores = score_videos(arguments.gt, arguments.pred, videos, merge_objects=arguments.merge_objects, progress=True)
    for score in scores:
        if not score.frames:
            print(f"note: no frame of {score.name} is scored, because the first and the last frame never are")
    write_results(scores, arguments.output)
    print(format_results(scores))


if __name__ == "__main__":
    main()
