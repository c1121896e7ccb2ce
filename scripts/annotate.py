"""Annotate a video in the browser: mark objects, propagate the masks with the network, correct, export.

    python scripts/annotate.py VIDEO

VIDEO is a video file or a folder of images. The command prints the address of the page and opens it. The page can be
reached from this machine only, and by those who know its secret address. Every stroke is saved to OUTPUT at once, and
the same command resumes:

    OUTPUT/masks/<frame>.png  palette PNGs of the video's size, as segment_video.py writes them
    OUTPUT/project.json       the objects, and the annotated frames
    OUTPUT/uncertainty.csv    the uncertainty of the network in the other frames
    OUTPUT/frames             the unpacked frames of a video file
    OUTPUT/export             exports of the page: masks, an overlay video, a folder in DAVIS's layout, ...

Ctrl-C ends the command.
"""

import argparse
import os
import signal
import sys
import threading
import webbrowser
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from annotation.frames import open_file, open_folder
from annotation.project import refuse_links
from annotation.project_file import Note
from annotation.server import Server
from dataset.files.video_file import VideoFile
from util.argument_types import non_negative
from util.device import choose_device
from util.errors import command_line
from util.evaluation.arguments import add_engine_arguments, engine_settings, network_notes, parse_engine_arguments
from util.evaluation.segmentation import engine_network, input_size
from util.files import lock_folder


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, metavar="VIDEO", help="video file, or folder of images")
    parser.add_argument("--output", type=Path, help="folder of the project; default annotations/<name of the video>")
    parser.add_argument("--port", type=non_negative, default=0, help="port of the page; default 0, any free one")
    parser.add_argument("--no_browser", action="store_true", help="print the address, but open no browser")
    add_engine_arguments(parser, mem_every=3, size=480)
    return parse_engine_arguments(parser)


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    source = Path(os.path.realpath(arguments.video))
    opened = open_folder(source) if source.is_dir() else VideoFile(source)
    output = arguments.output or Path("annotations") / (source.name if source.is_dir() else source.stem)
    settings = engine_settings(arguments)
    device = choose_device(arguments.device)
    network = engine_network(arguments.model, device, arguments.amp, compiled=arguments.compile)
    settings.check(network)
    input_size(opened if isinstance(opened, VideoFile) else opened.video, settings.size)
    for note in (notes := network_notes(arguments.model, device, amp=arguments.amp)):
        print(note)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets commands in the background ignore it
    with lock_folder(output, "masks", "frames", "export"):
        note = Note(output, source)
        frames, unpack = opened, None
        if isinstance(opened, VideoFile):
            refuse_links(output)
            frames, unpack = open_file(opened, output / "frames", note.frames)
        with Server(output, note, frames, network, settings, notes, arguments.port) as server:
            if unpack:
                server.unpack(unpack)
            print(f"annotating {source.name} at {server.address}", flush=True)
            if not arguments.no_browser:
                threading.Thread(target=webbrowser.open, args=(server.new_entrance(),), daemon=True).start()
            try:
                server.serve_forever()
            except SystemExit:
                print("ended; run the same command again to resume", file=sys.stderr)
                raise


if __name__ == "__main__":
    main()
