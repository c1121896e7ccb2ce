"""Segment YouTube-VOS 2018 or 2019, zip the masks as the server takes them and, given ground truth, score them.

Writes OUTPUT/Annotations/<video>/<frame>.png and OUTPUT.zip. Finished videos are not segmented again. Under torchrun
the processes share the videos.

With --gt the command also writes OUTPUT/per-object_results-<split>.csv and OUTPUT/global_results-<split>.csv. The first
file holds J and F of each object, as means over the frames in which the server asks for the object, without the first
of them. The second file holds the figures of Table 4: the means over the objects of seen and of unseen categories, and
Overall, the mean of these four.
"""

import argparse
from dataclasses import asdict
from itertools import chain
from pathlib import Path

from dataset.youtube import YouTubeVOS, meta_path, read_meta
from util.device import choose_device, peak_memory
from util.distributed import Processes
from util.errors import command_line
from util.evaluation.arguments import add_engine_arguments, chosen_network, engine_settings, network_notes
from util.evaluation.output import OutputFolder, evaluate
from util.evaluation.youtube_server import check_scorable, score, summary, write_scores, write_submission


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--yv_path", type=Path, required=True, help="holds valid/ or test/, and all_frames/")
    parser.add_argument("--output", type=Path, required=True, help="folder for the masks; the zip goes beside it")
    parser.add_argument("--split", choices=("valid", "test"), default="valid", help="which videos; default valid")
    parser.add_argument(
        "--output_all", action="store_true", help="also write the masks that the server does not ask for (not zipped)"
    )
    parser.add_argument("--gt", type=Path, help="folder of ground truth, <video>/<frame>.png, to score the masks by")
    parser.add_argument(
        "--train_meta", type=Path, help="list whose categories count as seen; default YV_PATH/train/meta.json"
    )
    add_engine_arguments(parser, mem_every=4, size=480)
    return parser.parse_args()


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    youtube = YouTubeVOS(arguments.yv_path, arguments.split, arguments.output_all)
    videos = youtube.videos()
    processes = Processes()
    seen = set()
    if arguments.gt:
        trained = read_meta(arguments.train_meta or meta_path(arguments.yv_path, "train"))
        seen = {item.category for item in chain(*trained.values())}
        check_scorable(youtube.asked, videos, arguments.gt, progress=processes.is_main)
    settings = engine_settings(arguments)
    device = choose_device(arguments.device)
    if processes.is_main:
        for note in network_notes(arguments, device):
            print(note)
    network = chosen_network(arguments, device)
    settings.check(network)
    output = OutputFolder(arguments.output.absolute(), masks="Annotations")
    described = {"split": youtube.split, "output_all": youtube.output_all, "all_frames": youtube.has_all_frames}
    described |= {**asdict(settings), "amp": arguments.amp}
    output.claim(arguments.model, arguments.yv_path, processes, **described)
    if processes.is_main:
        if not youtube.has_all_frames:
            print(f"note: all frames are not at hand, so those of {youtube.images} are taken for the whole videos")
        for video in videos:
            shown = set(chain(*video.new_objects.values()))
            for item in youtube.asked[video.name]:
                if item.id not in shown:
                    print(
                        f"note: {youtube.annotations / video.name / item.frames[0]}.png shows nothing of object "
                        f"{item.id}, which starts there; it will be in no mask"
                    )

    speed = evaluate(network, videos, output, settings, processes)
    memory = peak_memory(device)
    if processes.is_main:
        print(f"FPS         {speed.fps:.3g} ({speed.frames} masks in {speed.seconds:.1f} s)")
        print(f"peak memory {memory / 2**30:.3f} GiB ({device})")
        submission = output.path.with_name(f"{output.path.name}.zip")
        write_submission(output.path, youtube.asked, submission)
        print(f"zip         {submission}")
        if arguments.gt:
            scores = score(youtube.asked, seen, arguments.gt, output.masks, progress=True)
            write_scores(scores, output.path, youtube.split)
            print("  ".join(f"{name} {100 * figure:.1f}" for name, figure in summary(scores).items()))
    processes.close()


if __name__ == "__main__":
    main()
