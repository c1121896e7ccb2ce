"""Segment your own video, of any length and size, given the masks of the objects in one frame or several.

    python scripts/segment_video.py VIDEO --mask 00000.png --model WEIGHTS --output OUTPUT

VIDEO is a video file or a folder of images. A mask is an image of the frame's size from any program: objects in plain
colours on black or transparency, 0 and 255, a palette or 8-bit grey PNG whose values are ids, ... The command prints
the objects of each mask. scripts/convert_mask.py converts images with soft edges and JPEGs.

A mask has the name of its frame, such as 00003.png or frame_0003.png. The frames of a video file are numbered from 0.
A single mask whose name states no number belongs to the first frame. Binary masks may show one object each, such as
object_1.png and object_2.png, 00003_1.png and 00003_2.png, or 1/00003.png and 2/00003.png. The masks of frames before
the first given mask are empty; with --both_ways they are segmented backward from this mask.

Writes OUTPUT/masks/<frame>.png, palette PNGs of the video's size, and OUTPUT/overlay.mp4, the masks drawn over the
frames (H.264, without sound; a folder's at 24 frames a second). --cutout also writes OUTPUT/cutout/<frame>.png, the
objects on transparency, and --matte writes OUTPUT/matte.mp4, the objects white on black (VP9, exactly 255 and 0). The
same command resumes an interrupted run.
"""

import argparse
import contextlib
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image
from tqdm import tqdm

from dataset.files.colours import colour_table
from dataset.files.given_masks import absences, find_masks, read_given
from dataset.files.images import image_size, read_mask, write_mask
from dataset.files.masks import described
from dataset.files.video import AnyVideo, Video, check_mask_sizes, list_frames
from dataset.files.video_file import VideoFile, encoder_note, playback_fps, refuse_name, video_writer
from model.network import RDE_VOS
from util.device import choose_device, enough_memory, peak_memory
from util.errors import InputError, command_line
from util.evaluation.arguments import MEMORY_REMEDY, add_engine_arguments, engine_settings, network_notes
from util.evaluation.pictures import cutout, matte, overlay
from util.evaluation.stream import (
    EngineSettings,
    Segmented,
    Throughput,
    engine_network,
    input_size,
    read_inputs,
    segment,
)
from util.files import (
    atomic_folder,
    atomic_path,
    check_settings,
    fingerprint,
    lock_folder,
    read_json,
    sha256,
    write_text,
)
from util.parallel import background, in_background
from util.progress import frames_bar

Write = Callable[[int, np.ndarray, np.ndarray], None]  # takes a frame's number, the frame and its mask


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, metavar="VIDEO", help="video file, or folder of images")
    parser.add_argument(
        "--mask", type=Path, nargs="+", required=True, help="given masks, named after their frames, or a folder of them"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--format", choices=("masks", "overlay", "both"), default="both", help="what to write; default both"
    )
    parser.add_argument("--cutout", action="store_true", help="also write the objects on transparency, as PNG frames")
    parser.add_argument("--matte", action="store_true", help="also write a black and white video of the objects")
    parser.add_argument(
        "--both_ways", action="store_true", help="also segment backward, from the first mask to the first frame"
    )
    add_engine_arguments(parser, mem_every=3, size=480)
    return parser.parse_args()


def open_video(path: Path, masks: list[Path]) -> AnyVideo:
    """Open a video file or a folder of images, with its given masks.

    Raises:
        InputError: the video or a mask cannot be used.
    """
    if path.is_dir():
        found = find_masks(masks)
        frames = list_frames(path, without=found)
        check_mask_sizes(found, image_size(frames[0]), path.name)
        assigned, reader = read_given(masks, path.name, [frame.stem for frame in frames])
        assigned, absent = absences(assigned, reader)
        return Video(path.name, frames, assigned, absent=absent, reader=reader)
    check_mask_sizes(find_masks(masks), VideoFile(path).size, path.name)
    assigned, reader = read_given(masks, path.stem)
    assigned, absent = absences(assigned, reader)
    video = VideoFile(path, assigned, reader, absent=absent)
    last = max(assigned)
    if video.announced and last >= video.announced:
        raise InputError(
            f"{assigned[last]} is for no frame of {path}, which has {video.announced} frames, from 0 on; name the mask "
            f"after its frame"
        )
    return video


class Run:
    """A run that can be resumed: a folder in the output keeps its masks beside the settings that made them.

    Args:
        output: the folder for the results.
        settings: everything that the masks depend on, as JSON values.

    Raises:
        InputError: the folder holds the masks of an interrupted run with other settings.
    """

    def __init__(self, output: Path, settings: dict[str, object]) -> None:
        self.folder, self._result = unfinished_folder(output), output / "masks"
        self._settings, self._segmented = self.folder / "settings.json", self.folder / "segmented.json"
        if not self._settings.is_file():
            shutil.rmtree(self.folder, ignore_errors=True)  # the settings of these masks are unknown
        names = " and ".join(difference.name for difference in check_settings(self._settings, settings))
        if names:
            raise InputError(
                f"{output} holds an interrupted run with another {names}; choose another --output or delete it"
            )

    @property
    def masks(self) -> Path:
        """The folder of the masks. It moves to the results at the end."""
        unfinished = self.folder / "masks"
        return unfinished if self.length is None or unfinished.is_dir() else self._result

    @property
    def length(self) -> int | None:
        """The number of frames of the video if all have masks, otherwise None."""
        return read_json(self._segmented, "delete it")["frames"] if self._segmented.is_file() else None

    @length.setter
    def length(self, frames: int) -> None:
        write_text(self._segmented, json.dumps({"frames": frames}))

    def first_missing(self, video: AnyVideo, start: int = 0) -> int:
        """The number of the first frame from ``start`` on that has no mask, or the number of frames."""
        number, end = start, len(video.frames) if isinstance(video, Video) else math.inf
        while number < end and (self.masks / video.mask_name(number)).is_file():
            number += 1
        return number

    def finish(self, *, keep_masks: bool) -> None:
        """Move the masks of a complete run to the results, or delete them, and delete the records."""
        if keep_masks and self.masks != self._result:
            os.replace(self.masks, self._result)
        shutil.rmtree(self.folder)

    def abort(self, *, keep: bool) -> None:
        """Report the masks that are kept; without masks, or with ``keep`` False, delete the files of the run."""
        kept = sum(1 for _ in self.masks.glob("[!.]*.png"))
        if kept and keep:
            print(f"note: {kept} masks are kept in {self.masks}; the same command resumes")
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()  # fails if the folder holds other files


def unfinished_folder(output: Path) -> Path:
    """The folder of an unfinished run."""
    return output / ".unfinished"


def segment_into(
    run: Run, network: RDE_VOS, video: AnyVideo, settings: EngineSettings, start: int = 0, title: str = ""
) -> Throughput:
    """Segment a video from frame ``start`` on, or from the first missing mask, and write the masks."""
    start = run.first_missing(video, start)
    if isinstance(video, VideoFile):
        video = VideoFile(video.path, video.masks, video.reader, start, video.absent)
        total = max(0, video.announced - start) or None
    else:
        video = replace(video, wanted=frozenset(range(start, len(video.frames))))
        total = len(video.wanted)
    if total == 0:
        return Throughput(0, 0.0)
    frames, seconds = 0, 0.0

    def save(result: Segmented) -> None:
        write_mask(run.masks / video.mask_name(result.number), result.ids, video.palette)

    core = settings.core(network)
    with enough_memory(MEMORY_REMEDY), frames_bar(total) as bar, background(save) as write:
        bar.update(name=title or video.name)
        for result in segment(core, read_inputs(video, core.rule, settings.size)):
            write(result)
            frames, seconds = frames + result.frames, seconds + result.seconds
            bar.increment()
    return Throughput(frames, seconds)


@contextlib.contextmanager
def reversed_video(video: AnyVideo, first: int, folder: Path) -> Iterator[Video]:
    """Yield the video from the first given mask backward to its start.

    A video file cannot be read backward, so these frames are unpacked into a temporary folder, without losses.
    """
    masks = {0: video.masks[first]}
    if isinstance(video, Video):
        yield replace(video, frames=video.frames[first::-1], masks=masks, absent={})
        return
    source = VideoFile(video.path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{video.frame_name(number)}.png" for number in range(first + 1)]
        for number, path in enumerate(tqdm(paths, desc="unpacking", unit="frame", disable=None)):
            image = source.read_frame(number)
            if not path.is_file():
                with atomic_path(path) as temporary:
                    Image.fromarray(image).save(temporary, compress_level=1)
        yield Video(video.name, paths[::-1], masks, reader=video.reader)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def writing_video(
    path: Path, video: AnyVideo, picture: Callable[[np.ndarray, np.ndarray], np.ndarray], *, lossless: bool = False
) -> Iterator[Write]:
    """Yield a function that appends the picture of a frame and its mask to a video."""
    with video_writer(path, video.size, playback_fps(video), lossless=lossless) as append:
        yield lambda number, image, ids: append(picture(image, ids))


@contextlib.contextmanager
def writing_cutout(folder: Path, video: AnyVideo) -> Iterator[Write]:
    """Yield a function that writes the cutout of a frame; the folder appears when it is complete."""
    with atomic_folder(folder) as unfinished:

        def write(number: int, image: np.ndarray, ids: np.ndarray) -> None:
            with atomic_path(unfinished / video.mask_name(number)) as temporary:
                Image.fromarray(cutout(image, ids)).save(temporary)

        yield write


def draw(video: AnyVideo, masks: Path, length: int, targets: dict[str, Path]) -> None:
    """Write the overlay, the cutout and the matte, those in ``targets``."""
    table = colour_table(video.entries)
    if isinstance(video, VideoFile):
        video = VideoFile(video.path, video.masks, video.reader)  # from its start

    def load(number: int) -> tuple[int, np.ndarray, np.ndarray]:
        return number, video.read_frame(number), read_mask(masks / video.mask_name(number))

    kinds = {
        "overlay": lambda path: writing_video(path, video, lambda image, ids: overlay(image, ids, table)),
        "matte": lambda path: writing_video(path, video, lambda image, ids: matte(ids), lossless=True),
        "cutout": lambda path: writing_cutout(path, video),
    }
    missing = {kind: path for kind, path in targets.items() if not path.exists()}
    if not missing:
        return
    if encoder_note() and missing.keys() & {"overlay", "matte"}:
        print(f"note: {encoder_note()}")
    # The writers end inside the bar, which is full only when the last frame is in the file.
    with frames_bar(length) as bar, contextlib.ExitStack() as stack:
        bar.update(name=f"{video.name}, drawing")
        writers = [stack.enter_context(kinds[kind](path)) for kind, path in missing.items()]
        for number, image, ids in in_background(range(length), load):
            for write in writers:
                write(number, image, ids)
            bar.update(number)


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    with lock_folder(arguments.output, ".unfinished", ".unfinished/*"):
        run_command(arguments)


def run_command(arguments: argparse.Namespace) -> None:
    """Segment the video of the command line, or resume, and draw the results."""
    output = arguments.output
    video = open_video(arguments.video, arguments.mask)
    given = {number: video.read_given_mask(number) for number in video.masks}  # checks the masks
    if isinstance(video, Video):
        video.check_frames()
    targets = {"masks": output / "masks", "overlay": output / "overlay.mp4"}
    if arguments.format != "both":
        targets = {arguments.format: targets[arguments.format]}
    targets |= {"cutout": output / "cutout"} if arguments.cutout else {}
    targets |= {"matte": output / "matte.mp4"} if arguments.matte else {}
    for target in targets.values():
        if target.exists() and not unfinished_folder(output).is_dir():
            raise InputError(f"{target} already exists; choose another --output or delete it")
        if target.suffix == ".mp4":
            refuse_name(target)
    settings = engine_settings(arguments)
    device = choose_device(arguments.device)
    for note in [
        *network_notes(arguments.model, device, amp=arguments.amp),
        *(f"note: {note}" for note in video.reader.notes),
    ]:
        print(note)
    network = engine_network(arguments.model, device, arguments.amp, compiled=arguments.compile)
    settings.check(network)
    input_size(video, settings.size)
    for number, ids in given.items():
        print(f"frame {video.frame_name(number)} has the mask {', '.join(map(str, video.mask_files(number)))}")
        print(described(", ".join(path.name for path in video.mask_files(number)), ids))
    first = min(video.masks)
    if first and not arguments.both_ways:
        before = "mask of the frame before it is" if first == 1 else f"masks of the {first} frames before it are"
        print(
            f"note: the first mask is given for frame {video.frame_name(first)}, so the {before} empty; --both_ways "
            f"segments backward, too"
        )
        if isinstance(video, VideoFile) and first == 1:
            print(
                "note: frames of a video file are numbered from 0, but ffmpeg's from 1: its frame_0001.png is frame 0"
            )

    run = Run(
        output,
        {
            "model": sha256(arguments.model),
            "video": str(arguments.video.resolve()),
            "frames": fingerprint(video.frames if isinstance(video, Video) else [video.path]),
            "mask": {
                video.frame_name(number): "+".join(map(sha256, video.mask_files(number))) for number in video.masks
            },
            **asdict(settings),
            "amp": arguments.amp,
            **({"compile": True} if arguments.compile else {}),
            "both_ways": arguments.both_ways,
        },
    )
    try:
        speeds = [Throughput(0, 0.0)]
        if run.length is None:
            start = 0
            if first and arguments.both_ways:
                start = first
                with reversed_video(video, first, run.folder / "frames") as backward:
                    speeds.append(segment_into(run, network, backward, settings, 1, f"{video.name}, backward"))
            speeds.append(segment_into(run, network, video, settings, start))
            length, last = run.first_missing(video), max(video.masks)
            if length <= last:
                run.abort(keep=False)
                raise InputError(
                    f"{video.masks[last]} is for frame {last}, but {arguments.video} has only {length} frames; name "
                    f"the mask after its frame"
                )
            run.length = length
        draw(video, run.masks, run.length, {kind: path for kind, path in targets.items() if kind != "masks"})
    except (InputError, KeyboardInterrupt):
        run.abort(keep=True)
        raise
    length = run.length
    run.finish(keep_masks="masks" in targets)
    if isinstance(video, VideoFile) and length < video.announced:
        print(f"note: {arguments.video} states {video.announced} frames, but only {length} could be decoded")
    # The frame of the first mask is part of both directions.
    speed = Throughput(min(length, sum(each.frames for each in speeds)), sum(each.seconds for each in speeds))
    print(f"FPS         {speed.text(device)}")
    print(f"peak memory {peak_memory(device) / 2**30:.3f} GiB ({device})")
    for kind, target in targets.items():
        print(f"{kind:11} {target}")


if __name__ == "__main__":
    main()
