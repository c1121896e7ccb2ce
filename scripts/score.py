"""Score predicted masks as the DAVIS 2017 semi-supervised evaluation does: J, F, their means, recall and decay.

    python scripts/score.py --gt DAVIS/trainval/Annotations/480p --video_list DAVIS/trainval/ImageSets/2017/val.txt \\
        --pred OUTPUT --output OUTPUT

Both folders hold <video>/<frame>.png. Writes global_results-val.csv and per-sequence_results-val.csv and prints both.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dataset.files.video import is_junk, read_names
from util.errors import InputError, command_line
from util.evaluation.scoring import format_results, score_videos, write_results
from util.files import folders_near


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


def list_videos(truth_root: Path, prediction_root: Path, list_file: Path | None) -> list[str]:
    """The names in ``list_file``, or of all subfolders of ``truth_root``.

    Raises:
        InputError: the file or folder cannot be read, or names no video; or the folders of the videos lie above or
            below ``truth_root``, or hold a folder for each object.
    """
    if list_file is not None:
        videos = read_names(list_file, "check the path")
    else:
        try:
            videos = sorted(path.name for path in truth_root.iterdir() if path.is_dir() and not is_junk(path.name))
        except OSError as error:
            raise InputError(f"{truth_root} cannot be read ({error}); check the path") from None
        root = truth_root.absolute()
        found = (min(root.glob("*/" * depth + "*.png"), default=None) for depth in (1, 0, 2, 3, 4))
        mask = next(filter(None, found), None)
        if mask and mask.parents[2] == root and any((prediction_root / mask.parents[1].name).glob("*.png")):
            raise InputError(
                f"{mask.parents[1]} has a folder for each object; merge them with scripts/convert_mask.py, or score "
                "with scripts/eval_folder.py --gt"
            )
        if mask and mask.parents[1] != root:
            raise InputError(f"{truth_root} holds no masks in <video>/<frame>.png; give --gt {mask.parents[1]}")
    if not videos:
        raise InputError(f"{list_file or truth_root} names no video; masks are expected in <video>/<frame>.png")
    return videos


def check_root(flag: str, root: Path, videos: Sequence[str]) -> None:
    """Find the folder that holds the videos where ``root`` holds none of them.

    Raises:
        InputError: it is a folder in ``root`` or the one above. The message names it. Or ``root`` is a file.
    """
    if root.is_file():
        raise InputError(f"{root} is a file; give {flag} a folder, and unpack archives before")
    if any((root / video).is_dir() for video in videos):
        return
    for folder in folders_near(root, 1, (1, 2, 3)):
        if any((folder / video).is_dir() for video in videos):
            raise InputError(f"{root} holds no folder {videos[0]}; give the folder of the videos, {flag} {folder}")


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    videos = list_videos(arguments.gt, arguments.pred, arguments.video_list)
    for flag, root in (("--gt", arguments.gt), ("--pred", arguments.pred)):
        check_root(flag, root, videos)
    scores = score_videos(arguments.gt, arguments.pred, videos, merge_objects=arguments.merge_objects, progress=True)
    for score in scores:
        if not score.frames:
            print(f"note: no frame of {score.name} is scored, because the first and the last frame never are")
    write_results(scores, arguments.output)
    print(format_results(scores))


if __name__ == "__main__":
    main()
