"""Segment DAVIS 2016 or 2017 and, where the split has ground truth, score the result.

Writes OUTPUT/<video>/<frame>.png, ready for submission, global_results-val.csv and per-sequence_results-val.csv.
Finished videos are not segmented again. Under torchrun the processes share the videos.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from dataset.davis import DAVIS
from util.device import choose_device, peak_memory
from util.distributed import Processes
from util.errors import command_line
from util.evaluation.arguments import add_engine_arguments, chosen_network, engine_settings, network_notes
from util.evaluation.metrics import check_scorable, format_results, score_videos, write_results
from util.evaluation.output import OutputFolder, evaluate
from util.evaluation.pictures import draw_video


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--davis_path", type=Path, required=True, help="folder that holds trainval/ and test-dev/")
    parser.add_argument("--output", type=Path, required=True, help="folder for the masks and scores")
    parser.add_argument("--year", type=int, choices=(2016, 2017), default=2017, help="2016 merges a video's objects")
    parser.add_argument("--split", choices=("val", "testdev"), default="val", help="which videos; default val")
    add_engine_arguments(parser, mem_every=3)
    parser.add_argument("--overlay", action="store_true", help="also draw the masks over the frames, with a sheet each")
    return parser.parse_args()


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    davis = DAVIS(arguments.davis_path, arguments.year, arguments.split)
    videos = davis.videos()
    settings = engine_settings(arguments)
    processes = Processes()
    check_scorable(videos, davis.annotations if davis.has_ground_truth else None, progress=processes.is_main)
    device = choose_device(arguments.device)
    if processes.is_main:
        for note in network_notes(arguments, device):
            print(note)
    network = chosen_network(arguments, device)
    settings.check(network)
    output = OutputFolder(arguments.output)
    described = {"year": davis.year, "split": davis.split, **asdict(settings), "amp": arguments.amp}
    output.claim(arguments.model, davis.root, processes, **described)

    speed = evaluate(network, videos, output, settings, processes)
    memory = peak_memory(device)
    if processes.is_main:
        print(f"FPS         {speed.fps:.3g} ({speed.frames} frames in {speed.seconds:.1f} s)")
        print(f"peak memory {memory / 2**30:.3f} GiB ({device})")
        scores = {}
        if davis.has_ground_truth:
            names = [video.name for video in videos]
            scored = score_videos(
                davis.annotations, output.masks, names, merge_objects=davis.year == 2016, progress=True
            )
            write_results(scored, output.path)
            print(format_results(scored))
            scores = {score.name: score for score in scored}
        if arguments.overlay:
            for video in tqdm(videos, desc="drawing", unit="video", disable=None):
                draw_video(video, output.masks / video.name, output.path / "overlay", scores.get(video.name))
    processes.close()


if __name__ == "__main__":
    main()
