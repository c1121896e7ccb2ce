"""Turn a folder of pictures into one moving picture, for a web page.

    python eval_davis.py --davis_path DAVIS --output OUTPUT --overlay
    python scripts/animate.py OUTPUT/overlay/horsejump-high --output horsejump-high.webp

The suffix of the output is .webp or .gif. A moving WebP is several times smaller.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from PIL import Image
from tqdm import tqdm

from dataset.images import read_image
from dataset.video import list_frames
from util.errors import InputError, command_line
from util.files import atomic_path
from util.numbers import positive

FORMATS = {".webp": "WEBP", ".gif": "GIF"}


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, metavar="FOLDER", help="the pictures, in the order of their names")
    parser.add_argument("--output", type=Path, required=True, help="the moving picture, .webp or .gif")
    parser.add_argument("--width", type=positive, default=480, help="width in pixels; default 480")
    parser.add_argument("--fps", type=positive, default=20, help="pictures per second; default 20")
    parser.add_argument("--every", type=positive, default=1, metavar="N", help="take every Nth picture; default 1")
    parser.add_argument("--quality", type=positive, default=60, help="of a WebP, 1 to 100; default 60")
    return parser.parse_args()


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    kind = FORMATS.get(arguments.output.suffix.lower())
    if kind is None:
        raise InputError(f"{arguments.output} is neither .webp nor .gif; choose one of these suffixes")
    paths = list_frames(arguments.pictures)[:: arguments.every]

    def small_pictures() -> Iterator[Image.Image]:
        for path in tqdm(paths, unit="picture", disable=None):
            picture = Image.fromarray(read_image(path))
            height = round(picture.height * arguments.width / picture.width)
            yield picture.resize((arguments.width, max(1, height)), Image.Resampling.LANCZOS)

    first, *others = small_pictures()
    with atomic_path(arguments.output) as temporary:
        first.save(
            temporary,
            kind,
            save_all=True,
            append_images=others,
            duration=round(1000 / arguments.fps),
            loop=0,
            quality=arguments.quality,
            method=6,
        )
    print(f"{arguments.output} ({len(paths)} pictures, {arguments.output.stat().st_size / 2**20:.2f} MiB)")


if __name__ == "__main__":
    main()
