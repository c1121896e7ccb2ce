"""Segment your own video, of any length and size, given the masks of the objects in one frame or several.

    python scripts/segment_video.py VIDEO --mask 00000.png --model WEIGHTS --output OUTPUT

VIDEO is a video file or a folder of images. A mask is a palette or 8-bit grey PNG of the frame's size: 0 is the
background, every other value an object. In a folder a mask has the name of its image. For a video file the name of a
mask is the number of its frame, counted from 0. A single mask with any other name that is no number belongs to the
first frame.

Writes OUTPUT/masks/<frame>.png, palette PNGs of the video's size, and OUTPUT/overlay.mp4, the masks drawn over the
frames (without sound; a folder's at 24 frames a second).
"""

import argparse
import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tqdm import tqdm

from dataset.images import write_mask
from dataset.video import Video, in_background, list_frames
from dataset.video_file import VideoFile, playback_fps, video_writer
from util.device import choose_device, peak_memory
from util.errors import InputError, command_line
from util.evaluation.arguments import add_engine_arguments, chosen_network, engine_settings, network_notes
from util.evaluation.pictures import overlay
from util.evaluation.stream import Segmented, Throughput, mask_name, segment


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, metavar="VIDEO", help="video file, or folder of images")
    parser.add_argument("--mask", type=Path, nargs="+", required=True, help="given masks, named after their frames")
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--format", choices=("masks", "overlay", "both"), default="both", help="what to write; default both"
    )
    add_engine_arguments(parser, mem_every=3, size=480)
    return parser.parse_args()


def assign_masks(masks: Sequence[Path], video: Video | VideoFile) -> dict[int, Path]:
    """Find the frame of each mask.

    Returns:
        the masks by the numbers of their frames.

    Raises:
        InputError: a mask has the name of no frame, or two masks have the same frame.
    """
    assigned: dict[int, Path] = {}
    for mask in masks:
        number = video.frame_number(mask.stem)
        # A number is the name of a frame: in a video of eight frames the mask 00099 is an error.
        if number is None and (len(masks) > 1 or mask.stem.isdecimal()):
            raise InputError(
                f"{mask} is named like no frame of {video.name}; name each mask after its frame, such as "
                f"{video.frame_name(0)}.png"
            )
        number = number or 0
        if number in assigned:
            raise InputError(f"{assigned[number]} and {mask} are for the same frame; leave one out")
        assigned[number] = mask
    return assigned


@contextlib.contextmanager
def writing_masks(folder: Path, video: Video | VideoFile) -> Iterator[Callable[[Segmented], None]]:
    """Yield a function that writes the mask of a result; the folder appears when all masks are written."""
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        yield lambda result: write_mask(unfinished / mask_name(video, result.number), result.ids, video.palette)
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextlib.contextmanager
def writing_overlay(path: Path, video: Video | VideoFile) -> Iterator[Callable[[Segmented], None]]:
    """Yield a function that draws the mask of a result over its frame and appends the picture to a video."""
    with video_writer(path, video.size, playback_fps(video)) as append:
        yield lambda result: append(overlay(result.image, result.ids, video.palette))


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    if arguments.video.is_dir():
        video = Video(arguments.video.name, list_frames(arguments.video))
    else:
        video = VideoFile(arguments.video)
    video.masks.update(assign_masks(arguments.mask, video))
    for number in sorted(video.masks):
        video.read_given_mask(number)  # refuses a bad mask now, not after an hour of segmenting
    targets = {"masks": arguments.output / "masks", "overlay": arguments.output / "overlay.mp4"}
    if arguments.format != "both":
        targets = {arguments.format: targets[arguments.format]}
    for target in targets.values():
        if target.exists():
            raise InputError(f"{target} is there already; choose another --output or delete it")
    settings = engine_settings(arguments)
    device = choose_device(arguments.device)
    for note in network_notes(arguments, device):
        print(note)
    network = chosen_network(arguments, device)
    settings.check(network)
    for number in sorted(video.masks):
        print(f"frame {video.frame_name(number)} has the mask {video.masks[number]}")

    total = len(video.frames) if isinstance(video, Video) else video.announced or None
    frames, seconds = 0, 0.0
    with contextlib.ExitStack() as stack, tqdm(total=total, desc=video.name, unit="frame", disable=None) as progress:
        kinds = {"masks": writing_masks, "overlay": writing_overlay}
        writers = [stack.enter_context(kinds[kind](target, video)) for kind, target in targets.items()]

        def write(result: Segmented) -> float:
            for writer in writers:
                writer(result)
            return result.seconds

        for frame_seconds in in_background(segment(network, video, settings), write):
            frames, seconds = frames + 1, seconds + frame_seconds
            progress.update()
        if frames <= max(video.masks):
            raise InputError(
                f"{video.masks[max(video.masks)]} is for frame {max(video.masks)}, but {arguments.video} has only "
                f"{frames} frames; name the mask after its frame"
            )
    if isinstance(video, VideoFile) and frames < video.announced:
        print(f"note: {arguments.video} announces {video.announced} frames, but only {frames} could be decoded")
    print(f"FPS         {Throughput(frames, seconds).fps:.3g} ({frames} frames in {seconds:.1f} s)")
    print(f"peak memory {peak_memory(device) / 2**30:.3f} GiB ({device})")
    for kind, target in targets.items():
        print(f"{kind:11} {target}")


if __name__ == "__main__":
    main()
