"""Draw toy data in the layouts of the real data sets, to try out and test everything without a download."""

import argparse
import os
import sys
from dataclasses import fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from toy import ToySettings, make_toy_data, write_preview
from util.errors import command_line

_HELP = {
    "seed": "another seed draws other data; the same one draws the same, byte for byte",
    "height": "of the frames, in pixels",
    "width": "of the frames, in pixels",
    "frames": "length of each video; YouTube-VOS's training videos have that many annotated frames, five apart",
    "max_objects": "most annotated objects in a video",
    "static": "images with one object, in static/{fss,DUTS-TR,DUTS-TE,ECSSD,BIG,HRSOD}",
    "bl": "videos in BL30K/",
    "youtube_train": "videos in YouTube/train and train_480p",
    "youtube_valid": "videos in YouTube/valid and all_frames; their ground truth goes to YouTube/valid_gt",
    "davis_train": "training videos in DAVIS/2017/trainval",
    "davis_val": "validation videos in DAVIS/2017/trainval",
    "davis_test": "videos in DAVIS/2017/test-dev, with masks for their first frames only",
    "photos": "cut some textures from the photographs that scikit-image and scikit-learn carry",
}


@command_line
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--output", type=Path, required=True, default=argparse.SUPPRESS, help="folder to write to; run again to go on"
    )
    for setting in fields(ToySettings):
        if setting.type is bool:
            parser.add_argument(f"--{setting.name}", action="store_true", help=_HELP[setting.name])
        else:
            parser.add_argument(f"--{setting.name}", type=int, default=setting.default, help=_HELP[setting.name])
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes to draw with")
    parser.add_argument("--preview", action="store_true", help="also write preview.jpg, a contact sheet of every kind")
    arguments = vars(parser.parse_args())
    settings = ToySettings(**{setting.name: arguments[setting.name] for setting in fields(ToySettings)})
    make_toy_data(arguments["output"], settings, arguments["workers"], progress=True)
    if arguments["preview"]:
        print(write_preview(arguments["output"]))


if __name__ == "__main__":
    main()
