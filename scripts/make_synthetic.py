"""Make synthetic clips with exact masks, in the layouts of the real data sets: to try things without a download.

python scripts/make_synthetic.py --output synthetic --davis_val 3 --frames 30 --height 320 --width 568
"""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from synthetic import SyntheticSettings, make_synthetic
from util.argument_types import non_negative
from util.errors import command_line
from util.flags import parse_given, refuse_without_effect

_HELP = {
    "seed": "random seed; the same seed makes the same data, byte for byte",
    "height": "height of the frames in pixels",
    "width": "width of the frames in pixels",
    "frames": "number of frames in a clip; of annotated frames, five apart, in YouTube-VOS's training clips",
    "max_objects": "maximum number of annotated objects in a clip",
    "leave": "let objects of BL30K and DAVIS leave the frame for at least this number of frames, and return",
    "static": "number of images with one object, in static/{fss,DUTS-TR,DUTS-TE,ECSSD,BIG,HRSOD}",
    "bl": "number of clips in BL30K/",
    "youtube_train": "number of clips in YouTube/train, and up to 480 pixels in YouTube/train_480p",
    "youtube_valid": "number of clips in YouTube/valid and YouTube/all_frames",
    "davis_train": "number of training clips in DAVIS/2017/trainval",
    "davis_val": "number of validation clips in DAVIS/2017/trainval",
}


@command_line
def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write to; it appears when it is complete")
    for setting in fields(SyntheticSettings):
        text = f"{_HELP[setting.name]} (default: {setting.default})"
        parser.add_argument(f"--{setting.name}", type=non_negative, default=setting.default, help=text)
    parsed, given = parse_given(parser)
    arguments = vars(parsed)
    leaving = ("bl", "davis_train", "davis_val")
    refuse_without_effect(given, [(not given & set(leaving), ["leave"], f"without one of --{', --'.join(leaving)}")])
    output = arguments.pop("output")
    make_synthetic(output, SyntheticSettings(**arguments), progress=sys.stderr.isatty())
    print(output)


if __name__ == "__main__":
    main()
