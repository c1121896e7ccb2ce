"""Paste objects into real videos: training videos with several objects from data with one object each.

    python scripts/small_network/paste_objects.py --videos CLIPS --images STILLS --output PASTED --count 300

The background is a real video, or a still image with simulated camera motion. One to three objects from stills or other
videos move over it, some of them behind the video's own objects. Train on the result with --videos PASTED. The same
command resumes after an interruption.
"""

import argparse
import functools
import os
import sys
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # small_network and its packages

from small_network.compose import PastedVideos, make_video
from small_network.sources import add_source_flags, find_sources
from util.argument_types import positive, seed
from util.errors import InputError, command_line
from util.files import check_settings
from util.parallel import in_processes


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add_source_flags(parser)
    add("--output", type=Path, required=True, help="folder for JPEGImages/<video> and Annotations/<video>")
    add("--count", type=positive, default=300, help="number of videos (default: 300)")
    add("--frames", type=positive, default=24, help="frames of a video (default: 24)")
    add("--height", type=positive, default=288, help="in pixels (default: 288)")
    add("--width", type=positive, default=416, help="in pixels (default: 416)")
    add("--seed", type=seed, default=0, help="determines all random choices (default: 0)")
    add("--workers", type=positive, default=os.cpu_count(), help="processes (default: one for each core)")
    return parser.parse_args()


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    names = ("seed", "frames", "height", "width")  # of `PastedVideos`
    settings = PastedVideos(**{name: getattr(arguments, name) for name in names})
    sources = find_sources(arguments.videos, arguments.images, arguments.davis_root)
    note = arguments.output / "pasted.json"
    if not note.is_file() and arguments.output.exists() and any(arguments.output.iterdir()):
        raise InputError(f"{arguments.output} holds something other than pasted videos; choose a new folder")
    if differences := check_settings(note, settings._asdict() | sources.summary()):
        name, found, wanted = differences[0]
        raise InputError(f"{arguments.output} holds videos with {name}={found}, not {wanted}; choose a new folder")
    work = functools.partial(make_video, arguments.output, settings, sources)
    made = in_processes(work, range(arguments.count), arguments.workers)
    written = sum(tqdm(made, total=arguments.count, desc="pasting", unit="video", disable=None))
    print(f"{arguments.output}: {arguments.count} videos, {written} of them new")


if __name__ == "__main__":
    main()
