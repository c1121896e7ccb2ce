"""Figure 3: how J&F, speed and memory change with the length of a video, for RDE's constant bank and STM's growing one.

A clip in DAVIS's layout, played forward and backward, is repeated 1, 10, 15 and 20 times. Every run has a process of
its own, because peak memory is measured for a process. As in the paper, STM's bank takes only every 60th frame.

Writes OUTPUT/figure3.csv and figure3.png. Run again to go on: finished runs are not done again.
"""

import argparse
import itertools
import json
import multiprocessing
import sys
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from dataset.davis import DAVIS
from dataset.images import read_mask
from dataset.video import Video, in_background
from util.device import choose_device, peak_memory
from util.distributed import Processes
from util.errors import InputError, command_line
from util.evaluation.arguments import add_network_arguments, chosen_network, network_notes
from util.evaluation.metrics import check_scorable, contour_accuracy, region_similarity
from util.evaluation.output import OutputFolder
from util.evaluation.stream import EngineSettings, Segmented, engine_network, segment
from util.files import atomic_path, read_json, write_csv
from util.numbers import positive

HEADER = ["Bank", "θ", "Times", "Frames", "J&F", "J", "F", "FPS", "ms per frame", "Peak memory (GiB)"]
PUBLISHED = (
    "The paper's Figure 3 has no numbers: RDE's J&F and FPS are 'almost unchanged' with length, "
    "STCN's 'have an obvious reduction'."
)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--davis_path", type=Path, required=True, help="folder that holds trainval/")
    parser.add_argument("--output", type=Path, required=True, help="folder for the table and the picture")
    parser.add_argument("--video", default="cows", help="the clip; default cows, as in the paper")
    parser.add_argument(
        "--times", type=positive, nargs="+", default=[1, 10, 15, 20], help="how often to play it; default 1 10 15 20"
    )
    parser.add_argument("--mem_every", type=positive, default=3, metavar="θ", help="for 2F+L+RDE; default 3")
    parser.add_argument("--stm_mem_every", type=positive, default=60, metavar="θ", help="for STM; default 60")
    add_network_arguments(parser)
    return parser.parse_args()


def forward_and_backward(clip: Video, times: int) -> Video:
    """A video that plays a clip forward and backward ``times`` times; its frames are the files of the clip."""
    return replace(clip, name=f"{clip.name} ×{times}", frames=[*clip.frames, *reversed(clip.frames)] * times)


def measure(
    model: Path, davis: DAVIS, name: str, times: int, settings: EngineSettings, amp: bool, device_name: str
) -> dict:
    """Segment the long video and score each frame at once; only sums are kept.

    As on DAVIS, the first and the last frame are not scored.

    Returns:
        ``frames``, ``seconds``, ``peak_memory`` in bytes of this process or its GPU, and the mean ``j`` and ``f``.

    Raises:
        InputError: the clip cannot be read, or the memory does not suffice.
    """
    device = choose_device(device_name)
    network = engine_network(model, device, amp)
    clip = davis.video(name)
    video = forward_and_backward(clip, times)
    ids = np.unique(clip.read_given_mask(0))
    ids = ids[ids > 0, None, None]

    def score(result: Segmented) -> tuple[np.ndarray, float]:
        if result.number in (0, video.last):
            return np.zeros(2), result.seconds
        truth = read_mask(davis.annotations / name / f"{video.frame_name(result.number)}.png") == ids
        predicted = result.ids == ids
        measured = region_similarity(truth, predicted), contour_accuracy(truth, predicted)
        return np.mean(measured, axis=1), result.seconds

    total, seconds = np.zeros(2), 0.0
    try:
        # Work of a device at its first frames only, such as the choice of algorithms, is not part of the speed.
        deque(itertools.islice(segment(network, clip, settings), 2 * settings.mem_every), maxlen=0)
        scored = in_background(segment(network, video, settings), score)
        for figures, frame_seconds in tqdm(scored, total=len(video.frames), desc=settings.bank, disable=None):
            total += figures
            seconds += frame_seconds
    except torch.OutOfMemoryError:
        raise _too_long(settings, times) from None
    j, f = (total / max(1, len(video.frames) - 2)).tolist()
    return {"frames": len(video.frames), "seconds": seconds, "peak_memory": peak_memory(device), "j": j, "f": f}


def run(
    path: Path, model: Path, davis: DAVIS, name: str, times: int, settings: EngineSettings, amp: bool, device: str
) -> dict:
    """Call `measure` in a process of its own, or read the results of an earlier run from ``path``."""
    if not path.is_file():
        try:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                record = pool.submit(measure, model, davis, name, times, settings, amp, device).result()
        except BrokenProcessPool:  # the system ends a process where memory is short
            raise _too_long(settings, times) from None
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(record))
    remedy = "delete it and run this again"
    record = read_json(path, remedy)
    for name in ("frames", "seconds", "peak_memory", "j", "f"):
        if not isinstance(record.get(name), int | float):
            raise InputError(f"{path} holds no number {name}; {remedy}")
    return record


def _too_long(settings: EngineSettings, times: int) -> InputError:
    return InputError(
        f"the memory does not suffice for {times} times the clip with bank {settings.bank} and θ = "
        f"{settings.mem_every}; raise --stm_mem_every, or leave that length out of --times"
    )


def draw(rows: list[list], path: Path) -> None:
    """Draw J&F, FPS, time and memory over the length, a line for each bank."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    for axes, name in zip(figure.subplots(1, 4), ("J&F", "FPS", "ms per frame", "Peak memory (GiB)"), strict=True):
        column = HEADER.index(name)
        for bank, theta in dict.fromkeys((row[0], row[1]) for row in rows):
            points = sorted((row[2], row[column]) for row in rows if row[:2] == [bank, theta])
            axes.plot(*zip(*points, strict=True), "o-", label=f"{bank}, θ = {theta}")
        axes.set_title(f"{name} (%)" if name == "J&F" else name)
        axes.set_xlabel("times forward and backward")
        axes.set_xticks(sorted({row[2] for row in rows}))
        axes.set_ylim(0, 1.1 * max(row[column] for row in rows))
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    figure.supxlabel(PUBLISHED, fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    davis = DAVIS(arguments.davis_path)
    check_scorable([davis.video(arguments.video)], davis.annotations)
    device = choose_device(arguments.device)
    processes = Processes()
    # This process only checks the network, on the CPU.
    if processes.is_main:
        for note in network_notes(arguments, torch.device("cpu")):
            print(note)
    network = chosen_network(arguments, torch.device("cpu"))
    banks = {"2F+L+RDE": arguments.mem_every, "STM": arguments.stm_mem_every}
    settings = [EngineSettings(bank=bank, mem_every=theta, top_k=arguments.top) for bank, theta in banks.items()]
    for each in settings:
        each.check(network)
    output = OutputFolder(arguments.output)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    claimed = {each.bank: {**asdict(each), "amp": arguments.amp} for each in settings}
    claimed |= {"video": arguments.video, "device": where}
    output.claim(arguments.model, arguments.davis_path, processes, **claimed)

    rows = []
    for each, times in itertools.product(settings, arguments.times):
        path = output.records / f"{each.bank}-{times}.json"
        record = run(path, arguments.model, davis, arguments.video, times, each, arguments.amp, arguments.device)
        frames, seconds, memory = record["frames"], record["seconds"], record["peak_memory"] / 2**30
        j, f = 100 * record["j"], 100 * record["f"]
        figures = [(j + f) / 2, j, f, frames / seconds, 1000 * seconds / frames, memory]
        rows.append([each.bank, each.mem_every, times, frames, *figures])
        shown = zip(HEADER[4:], figures, strict=True)
        print(f"{each.bank:9} ×{times:<3}", *(f"{name} {figure:.3g}" for name, figure in shown), sep="  ", flush=True)
    write_csv(output.path / "figure3.csv", [HEADER, *rows])
    draw(rows, output.path / "figure3.png")
    print(PUBLISHED)
    print(f"{output.path / 'figure3.csv'}\n{output.path / 'figure3.png'}")


if __name__ == "__main__":
    main()
