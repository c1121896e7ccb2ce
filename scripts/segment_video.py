"""Segment your own video, of any length and size, given the masks of the objects in one frame or several.

    python scripts/segment_video.py VIDEO --mask 00000.png --model WEIGHTS --output OUTPUT

VIDEO is a video file or a folder of images. A mask is an image of the frame's size from any program: objects in plain
colours on black or transparency, 0 and 255, a palette or 8-bit grey PNG whose values are ids, ... The command prints
the objects of each mask. scripts/convert_mask.py converts images with soft edges and JPEGs.

A mask has the name of its frame, such as 00003.png or frame_0003.png. The frames of a video file are numbered from 0.
A single mask whose name states no number belongs to the first frame. Binary masks may show one object each, such as
object_1.png and object_2.png, 00003_1.png and 00003_2.png, or 1/00003.png and 2/00003.png. The masks of frames before
the first given mask are empty; with --both_ways they are segmented backward from this mask.

Without a mask, mark the objects of the first frame, in pixels from its upper left corner: each --box X0 Y0 X1 Y1 is an
object, and --clicks +X,Y -X,Y after it correct its mask, inside (+) and outside (-); without a box they are an object
of their own. OUTPUT/first_mask.png is the mask of these marks. Correct it in any program if it is wrong, and give it as
--mask with another --output. On the page of scripts/annotate.py the same marks show their mask at once.

Writes OUTPUT/masks/<frame>.png, palette PNGs of the video's size, and OUTPUT/overlay.mp4, the masks drawn over the
frames (H.264, without sound; a folder's at 24 frames a second). OUTPUT/confidence.csv has a row for each frame and
object: the area of its mask in pixels, and the confidence, 0 to 1: 1 minus the mean entropy of the object's probability
near its contours, in bits; with an area of 0, the confidence that the object is absent. --cutout also writes
OUTPUT/cutout/<frame>.png, the objects on transparency, and --matte writes OUTPUT/matte.mp4, the objects white on black
(VP9, exactly 255 and 0). The same command resumes an interrupted run.

VIDEO may also be the number of a camera, such as 0, or the address of a stream, such as rtsp://... or http://... The
mask is that of the first frame. Results are written as the stream comes, and Ctrl-C ends it with complete results. A
live stream does not wait: frames that come while the network is busy are dropped, and the videos show the last picture
for as long. A stream cannot be resumed. --show prints the address of a page that shows the stream with its masks.

Without a mask and marks, --show lets you mark the objects of a stream on this page: drag a box around an object, click
what is missing, and with Shift what is too much. The first mark freezes the frame. Start makes it the first frame, with
OUTPUT/first_mask.png, and the stream goes on with the next frame that comes. Without --show the command only writes
OUTPUT/first_frame.png, where you can mark what the stream shows.
"""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image

from dataset.files.colours import colour_table
from dataset.files.given_masks import absences, are_swapped, find_masks, read_given
from dataset.files.images import image_size, read_mask, write_mask
from dataset.files.masks import described
from dataset.files.stream import Stream, is_stream
from dataset.files.video import AnyVideo, Video, check_mask_sizes, list_frames
from dataset.files.video_file import VideoFile, encoder_note, playback_fps, refuse_name, video_writer
from model.network import RDE_VOS
from segmenting.first_mask import add_mark_arguments, check_marks, marked_objects, protected, write_first_mask
from segmenting.live import give_first_mask, segment_stream
from segmenting.marking import mark_first_frame
from segmenting.page import LivePage, live_page
from segmenting.run import Run, is_resumable, reversed_video, segment_into
from util.device import choose_device, peak_memory
from util.errors import InputError, command_line
from util.evaluation.arguments import add_engine_arguments, engine_settings, network_notes, parse_engine_arguments
from util.evaluation.confidence import COLUMNS, read_rows, table
from util.evaluation.pictures import cutout, matte, overlay
from util.evaluation.segmentation import EngineSettings, Throughput, engine_network, input_size
from util.files import atomic_folder, atomic_path, fingerprint, lock_folder, sha256, write_csv
from util.parallel import in_background
from util.progress import frames_bar

FIRST_MASK = "first_mask.png"
PICTURES = ("overlay", "matte", "cutout")
Write = Callable[[int, np.ndarray, np.ndarray], None]  # takes a frame's number, the frame and its mask


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", metavar="VIDEO", help="video file, folder of images, number of a camera, or address")
    parser.add_argument(
        "--mask", type=Path, nargs="+", default=[], help="given masks, named after their frames, or a folder of them"
    )
    add_mark_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--format", choices=("masks", "overlay", "both"), default="both", help="what to write; default both"
    )
    parser.add_argument("--cutout", action="store_true", help="also write the objects on transparency, as PNG frames")
    parser.add_argument("--matte", action="store_true", help="also write a black and white video of the objects")
    parser.add_argument(
        "--both_ways", action="store_true", help="also segment backward, from the first mask to the first frame"
    )
    parser.add_argument("--show", action="store_true", help="show a stream in the browser, live, and mark it there")
    add_engine_arguments(parser, mem_every=3, size=480)
    arguments = parse_engine_arguments(parser, words=protected(sys.argv[1:]))
    arguments.objects = marked_objects(arguments.marks)
    if bool(arguments.mask) == bool(arguments.objects) and (arguments.mask or not is_stream(arguments.video)):
        parser.error("give the objects either as --mask, or in the first frame by --box and --clicks")
    if arguments.show and not is_stream(arguments.video):
        parser.error(f"argument --show: {arguments.video} is no camera or stream; open the overlay video instead")
    if arguments.both_ways and is_stream(arguments.video):
        parser.error(f"argument --both_ways: {arguments.video} is a stream, which has no frames before the first one")
    return arguments


def open_video(path: Path, masks: list[Path]) -> AnyVideo:
    """Open a video file or a folder of images, with its given masks, of which there may be none."""
    if masks and are_swapped(path, masks[0]):
        raise InputError(f"{path} shows a mask, and {masks[0]} shows frames; swap VIDEO and --mask")
    found = find_masks(masks)
    frames = list_frames(path, without=found) if path.is_dir() else []
    check_mask_sizes(found, image_size(frames[0]) if frames else VideoFile(path).size, path.name)
    assigned, reader = read_given(masks, path.name if frames else path.stem, [frame.stem for frame in frames] or None)
    assigned, absent = absences(assigned, reader)
    if frames:
        return Video(path.name, frames, assigned, absent=absent, reader=reader)
    video = VideoFile(path, assigned, reader, absent=absent)
    last = max(assigned, default=0)
    if video.announced and last >= video.announced:
        raise InputError(
            f"{assigned[last]} is for no frame of {path}, which has {video.announced} frames, from 0 on; name the mask "
            f"after its frame"
        )
    return video


@contextlib.contextmanager
def writing_pictures(video: AnyVideo, targets: dict[str, Path]) -> Iterator[Write]:
    """Yield a function that writes those of `PICTURES` that are in ``targets``, complete at the end of the block."""
    videos = {kind: targets[kind] for kind in ("overlay", "matte") if kind in targets}
    if encoder_note() and videos:
        print(f"note: {encoder_note()}")
    table, fps = colour_table(video.entries), playback_fps(video)
    with contextlib.ExitStack() as stack:
        appends = {
            kind: stack.enter_context(video_writer(path, video.size, fps, lossless=kind == "matte"))
            for kind, path in videos.items()
        }
        folder = stack.enter_context(atomic_folder(targets["cutout"])) if "cutout" in targets else None

        def write(number: int, image: np.ndarray, ids: np.ndarray) -> None:
            for kind, append in appends.items():
                shown = matte(ids) if kind == "matte" else overlay(image, ids, table)
                for _ in range(video.steps[number] if isinstance(video, Stream) else 1):  # to keep the pace of a stream
                    append(shown)
            if folder:
                with atomic_path(folder / video.mask_name(number)) as temporary:
                    Image.fromarray(cutout(image, ids)).save(temporary)

        yield write


def draw(video: AnyVideo, masks: Path, length: int, targets: dict[str, Path]) -> None:
    """Write those of `PICTURES` in ``targets`` that are missing, from the masks in a folder."""
    missing = {kind: targets[kind] for kind in PICTURES if kind in targets and not targets[kind].exists()}
    if not missing:
        return
    if isinstance(video, VideoFile):
        video = VideoFile(video.path, video.masks, video.reader, absent=video.absent)  # from its start

    def load(number: int) -> tuple[int, np.ndarray, np.ndarray]:
        return number, video.read_frame(number), read_mask(masks / video.mask_name(number))

    # The pictures are complete inside the bar, which is full only when the last frame is in the file.
    with frames_bar(length) as bar, writing_pictures(video, missing) as write:
        bar.update(name=f"{video.name}, drawing")
        for number, image, ids in in_background(map(load, range(length))):
            write(number, image, ids)
            bar.update(number)


def segment_and_draw(
    run: Run, network: RDE_VOS, video: AnyVideo, settings: EngineSettings, targets: dict[str, Path], *, both_ways: bool
) -> Throughput:
    """Segment a video, or resume, and write the results in ``targets``."""
    first, speeds = min(video.masks), [Throughput(0, 0.0)]
    try:
        if not run.end.exists():
            if first and both_ways:
                with reversed_video(video, first, run.folder / "frames") as backward:
                    speeds.append(segment_into(run, network, backward, settings, 1, first))
            speeds.append(segment_into(run, network, video, settings, first if both_ways else 0))
        length, last = run.first_missing(video), max(video.masks)
        if length <= last:
            run.abort(keep=False)
            raise InputError(
                f"{video.masks[last]} is for frame {last}, but {video.name} has only {length} frames; name the mask "
                f"after its frame"
            )
        run.end.touch()
        draw(video, run.masks, length, targets)
        write_csv(targets["confidence"], [COLUMNS, *table(video, read_rows(run.rows))])
    except (InputError, KeyboardInterrupt):
        run.abort(keep=True)
        raise
    run.finish(keep_masks="masks" in targets)
    if isinstance(video, VideoFile) and length < video.announced:
        print(f"note: {video.path} states {video.announced} frames, but only {length} could be decoded")
    # The frame of the first mask is part of both directions.
    return Throughput(min(length, sum(each.frames for each in speeds)), sum(each.seconds for each in speeds))


def segment_live(
    stream: Stream, network: RDE_VOS, settings: EngineSettings, targets: dict[str, Path], *, page: LivePage | None
) -> Throughput:
    """Segment a stream until it ends or Ctrl-C, and write the results in ``targets`` as it comes.

    The page, if there is one, shows the overlays.
    """
    print("note: Ctrl-C ends the stream with complete results; it cannot be resumed", flush=True)
    table = colour_table(stream.entries)
    try:
        with writing_pictures(stream, targets) as write_pictures:

            def write(number: int, image: np.ndarray, ids: np.ndarray) -> None:
                if "masks" in targets:
                    write_mask(targets["masks"] / stream.mask_name(number), ids, stream.palette)
                write_pictures(number, image, ids)
                if page and page.is_watched:
                    page.show(overlay(image, ids, table))

            speed = segment_stream(stream, network, settings, targets["confidence"], write)
    except KeyboardInterrupt:
        raise InputError(
            f"the stream was interrupted before its results were complete; {targets['confidence'].parent} keeps the "
            "masks so far, and no videos"
        ) from None
    if stream.problem:
        print(f"note: the stream ended because {stream.problem}")
    if stream.dropped:
        remedy = "; --size 240 is faster" if min(input_size(stream, settings.size)) > 240 else ""
        print(f"note: {stream.dropped} frames came while the network was busy and were dropped{remedy}")
    return speed


def wanted_results(arguments: argparse.Namespace) -> dict[str, Path]:
    """The paths of the results by kind; refuses those that exist and belong to no unfinished run."""
    output = arguments.output
    names = {"masks": "masks", "overlay": "overlay.mp4"}
    names = names if arguments.format == "both" else {arguments.format: names[arguments.format]}
    names["confidence"] = "confidence.csv"
    names |= {"cutout": "cutout"} if arguments.cutout else {}
    names |= {"matte": "matte.mp4"} if arguments.matte else {}
    targets = {kind: output / name for kind, name in names.items()}
    for target in targets.values():
        if target.exists() and (is_stream(arguments.video) or not is_resumable(output)):
            raise InputError(f"{target} already exists; choose another --output or delete it")
        if target.suffix == ".mp4":
            refuse_name(target)
    return targets


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    with lock_folder(arguments.output, ".unfinished", ".unfinished/*"):
        if is_stream(arguments.video):
            with contextlib.closing(Stream(arguments.video)) as stream:
                run_command(arguments, stream)
        else:
            run_command(arguments, open_video(Path(arguments.video), arguments.mask))


def run_command(arguments: argparse.Namespace, video: AnyVideo) -> None:
    """Segment the video of the command line, or resume, and draw the results."""
    output, mask = arguments.output, arguments.output / FIRST_MASK
    if not arguments.mask and not arguments.objects:
        if not arguments.show:
            path = output / "first_frame.png"
            with atomic_path(path) as temporary:
                Image.fromarray(video.read_frame(0)).save(temporary)
            raise InputError(
                f"no object is given; {path} is what {video.name} shows now: give its mask as --mask, or mark objects "
                "in its pixels by --box and --clicks before the scene changes, or add --show to mark them in the "
                "browser"
            )
        if mask.exists():
            raise InputError(f"{mask} already exists; give it as --mask with another --output, or delete it")
    if isinstance(video, Stream) and arguments.mask:
        give_first_mask(video, arguments.mask)
    given = {number: video.read_given_mask(number) for number in video.masks}  # checks the masks
    check_marks(arguments.objects, video.size)
    if isinstance(video, Video):
        video.check_frames()
    targets = wanted_results(arguments)
    settings = engine_settings(arguments)
    device = choose_device(arguments.device)
    for note in network_notes(arguments.model, device, amp=arguments.amp):
        print(note)
    network = engine_network(arguments.model, device, arguments.amp, compiled=arguments.compile)
    settings.check(network)
    input_size(video, settings.size)
    with live_page() if arguments.show else contextlib.nullcontext() as page:
        if page:
            print(f"open {page.address} in a browser on this machine", flush=True)
        if arguments.objects:
            for note in write_first_mask(mask, video.read_frame(0), arguments.objects, network, settings.size):
                print(f"note: {note}")
        elif not given:
            write_mask(mask, mark_first_frame(video, page, network, settings.size))
        if not given:
            if isinstance(video, Stream):
                give_first_mask(video, [mask])
            else:
                video = open_video(Path(arguments.video), [mask])
            given = {0: video.read_given_mask(0)}
        describe(video, given, both_ways=arguments.both_ways)
        if isinstance(video, Stream):
            speed = segment_live(video, network, settings, targets, page=page)
        else:
            run = Run(output, run_settings(arguments, video, settings))
            speed = segment_and_draw(run, network, video, settings, targets, both_ways=arguments.both_ways)
    print(f"FPS         {speed.text(device)}")
    print(f"peak memory {peak_memory(device) / 2**30:.3f} GiB ({device})")
    for kind, target in targets.items():
        print(f"{kind:11} {target}")


def describe(video: AnyVideo, given: dict[int, np.ndarray], *, both_ways: bool) -> None:
    """Print the given masks, by frame number uint8 ids [H,W], and which frames are before them."""
    for note in video.reader.notes:
        print(f"note: {note}")
    for number, ids in given.items():
        files = video.mask_files(number)
        print(f"frame {video.frame_name(number)} has the mask {', '.join(map(str, files))}")
        print(described(", ".join(path.name for path in files), ids))
    first = min(video.masks)
    if not first and both_ways:
        raise InputError("--both_ways has no effect, because the first mask is that of the first frame; leave it out")
    if first and not both_ways:
        before = "mask of the frame before it is" if first == 1 else f"masks of the {first} frames before it are"
        print(
            f"note: the first mask is given for frame {video.frame_name(first)}, so the {before} empty; --both_ways "
            f"segments backward, too"
        )
        if isinstance(video, VideoFile) and first == 1:
            print(
                "note: frames of a video file are numbered from 0, but ffmpeg's from 1: its frame_0001.png is frame 0"
            )


def run_settings(arguments: argparse.Namespace, video: AnyVideo, settings: EngineSettings) -> dict[str, object]:
    """Everything that the masks depend on."""
    masks = {video.frame_name(number): "+".join(map(sha256, video.mask_files(number))) for number in video.masks}
    return {
        "model": sha256(arguments.model),
        "video": str(Path(arguments.video).resolve()),
        "frames": fingerprint(video.frames if isinstance(video, Video) else [video.path]),
        "mask": masks,
        **asdict(settings),
        "amp": arguments.amp,
        "compile": arguments.compile,
        "both_ways": arguments.both_ways,
    }


if __name__ == "__main__":
    main()
