"""Make synthetic data in the layouts of the real data sets, to try and test everything without a download."""

import argparse
import os
import sys
from dataclasses import fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # small_network and its packages

from small_network.toy import ToySettings, make_toy_data, write_preview
from util.errors import command_line
from util.numbers import positive

_HELP = {
    "seed": "random seed; the same seed makes the same data, byte for byte",
    "height": "height of the frames in pixels",
    "width": "width of the frames in pixels",
    "frames": "number of frames in a video; of annotated frames, five apart, in YouTube-VOS's training videos",
    "max_objects": "maximum number of annotated objects in a video",
    "leave": "let objects of BL30K and DAVIS leave the frame for at least this number of frames, and return",
    "static": "number of images with one object, in static/{fss,DUTS-TR,DUTS-TE,ECSSD,BIG,HRSOD}",
    "bl": "number of videos in BL30K/",
    "youtube_train": "number of videos in YouTube/train and YouTube/train_480p",
    "youtube_valid": "number of videos in YouTube/valid and YouTube/all_frames; YouTube/valid_gt is their ground truth",
    "davis_train": "number of training videos in DAVIS/2017/trainval",
    "davis_val": "number of validation videos in DAVIS/2017/trainval",
    "davis_test": "number of videos in DAVIS/2017/test-dev; only their first frames have masks",
}


@command_line
def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        default=argparse.SUPPRESS,
        help="folder to write to; the same command resumes",
    )
    for setting in fields(ToySettings):
        parser.add_argument(f"--{setting.name}", type=int, default=setting.default, help=_HELP[setting.name])
    parser.add_argument("--workers", type=positive, default=os.cpu_count(), help="number of processes")
    parser.add_argument("--preview", action="store_true", help="also write preview.jpg, a contact sheet of all data")
    arguments = vars(parser.parse_args())
    settings = ToySettings(**{setting.name: arguments[setting.name] for setting in fields(ToySettings)})
    make_toy_data(arguments["output"], settings, arguments["workers"], progress=True)
    if arguments["preview"]:
        print(write_preview(arguments["output"]))


if __name__ == "__main__":
    main()
