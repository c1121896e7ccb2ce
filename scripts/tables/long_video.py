"""Long videos (Figure 3): a bank's accuracy, speed and memory over time, and its recovery of objects that return.

A clip in DAVIS's layout is played forward and backward 1, 10, 15 and 20 times, or, with --forward, once as it is. Every
run has a process of its own, because peak memory is measured per process. As in the paper, STM's bank adds only every
60th frame.

Writes OUTPUT/figure3.csv and figure3.png, or with --forward OUTPUT/long.csv and long.png. The same command resumes, and
can add banks.

Columns of the table: J&F over all scored frames; drift, the J&F of the last tenth of the frames minus that of the first
tenth; J&F of objects while present; J&F of objects while absent, which is the fraction of these frames without a false
pixel; recovery, the J&F in the first 50 frames after an absence of 25 frames or more.
"""

import argparse
import itertools
import math
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from matplotlib.figure import Figure

from dataset.files.images import read_mask
from dataset.files.video import Video
from dataset.layouts.davis import DAVIS
from tables.long_run import LongRun
from util.argument_types import positive
from util.device import choose_device, device_name, peak_memory
from util.distributed import Processes
from util.errors import command_line
from util.evaluation.arguments import (
    add_confirmation_argument,
    add_network_arguments,
    network_notes,
    never_updated,
)
from util.evaluation.metrics import contour_accuracy, region_similarity
from util.evaluation.output import OutputFolder
from util.evaluation.scoring import check_given_masks, check_plans, davis_plans
from util.evaluation.segmentation import EngineSettings, Segmented, engine_network, segment
from util.files import atomic_path, lock_folder, write_csv
from util.flags import parse_given, refuse_without_effect
from util.parallel import background, in_own_process
from util.progress import frames_bar

HEADER = ["Bank", "θ", "Times", "Frames", "J&F", "J", "F", "Drift", "J&F present", "J&F absent", "Recovery"]
HEADER += ["FPS", "ms per frame", "Peak memory (GiB)"]
PUBLISHED = (
    "The paper's Figure 3 has no numbers: RDE's J&F and FPS are 'almost unchanged' with length, "
    "STCN's 'have an obvious reduction'."
)


@dataclass(frozen=True)
class Plan:
    """One run: a video and the settings; model, amp and device as on the command line."""

    davis: DAVIS
    video: str  # the name of the clip
    times: int | None  # how often the clip is played forward and backward; None plays it once, forward only
    settings: EngineSettings
    model: Path
    amp: bool
    device: str


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--davis_path", type=Path, required=True, help="folder that holds trainval/")
    parser.add_argument("--year", type=int, choices=(2016, 2017), default=2017, help="2016 merges a video's objects")
    parser.add_argument("--output", type=Path, required=True, help="folder for the table and the picture")
    parser.add_argument("--video", default="cows", help="the clip; default cows, as in the paper")
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--times", type=positive, nargs="+", default=[1, 10, 15, 20], help="how often to play it; default 1 10 15 20"
    )
    length.add_argument("--forward", action="store_true", help="play a clip that is long already once, as it is")
    parser.add_argument(
        "--banks", nargs="+", default=["2F+L+RDE", "STM"], help="in Table 5's notation; default 2F+L+RDE STM"
    )
    parser.add_argument("--mem_every", type=positive, default=3, metavar="θ", help="for banks but STM; default 3")
    parser.add_argument("--stm_mem_every", type=positive, default=60, metavar="θ", help="for STM; default 60")
    add_confirmation_argument(parser)
    add_network_arguments(parser)
    arguments, given = parse_given(parser)
    chosen, others = f"with --banks {' '.join(arguments.banks)}", set(arguments.banks) - {"STM"}
    refuse_without_effect(
        given,
        [
            (never_updated(others), ["mem_every"], f"{chosen}, which have no update or another θ"),
            ("STM" not in arguments.banks, ["stm_mem_every"], chosen),
            (never_updated(arguments.banks), ["confirm_updates"], f"{chosen}, which have no update"),
        ],
    )
    return arguments


def measure(plan: Plan) -> LongRun:
    """Segment the long video and score each frame; frames and masks are not kept."""
    device = choose_device(plan.device)
    network = engine_network(plan.model, device, plan.amp)
    video = clip = plan.davis.video(plan.video)
    if plan.times:
        video = replace(clip, frames=[*clip.frames, *reversed(clip.frames)] * plan.times)
    ids = np.array(clip.given_ids[0], np.uint8)[:, None, None]
    scores, seconds, memory = [], [], []

    def score(result: Segmented) -> None:
        if result.number in (0, video.last):
            return
        truth = read_mask(plan.davis.annotations / clip.name / f"{video.frame_name(result.number)}.png")
        truth = truth[None] > 0 if clip.merge_objects else truth == ids
        predicted = result.ids == ids
        f = [contour_accuracy(*pair) for pair in zip(truth, predicted, strict=True)]
        scores.append(np.stack([region_similarity(truth, predicted), f, truth.any(axis=(1, 2))]))

    def results(video: Video) -> Iterator[Segmented]:
        return segment(plan.settings.core(network), video, plan.settings.size)

    # Warm-up: a device selects algorithms in its first frames.
    deque(itertools.islice(results(clip), 2 * plan.settings.mem_every), maxlen=0)
    with frames_bar(len(video.frames)) as bar, background(score) as score_later:
        bar.update(name=plan.settings.bank)
        for result in results(video):
            score_later(result)
            seconds.append(result.seconds)
            memory.append(peak_memory(device))
            bar.increment()
    j, f, present = np.stack(scores, axis=1)
    return LongRun(j, f, present.astype(bool), np.array(seconds), np.array(memory))


def run(path: Path, plan: Plan) -> LongRun:
    """Call `measure` in a process of its own, or read the results of an earlier run from ``path``."""
    if not path.is_file():
        remedy = f"for bank {plan.settings.bank}, raise --stm_mem_every or use a shorter video"
        in_own_process(measure, plan, remedy=remedy).write(path)
    return LongRun.read(path)


def table_row(plan: Plan, measured: LongRun) -> list:
    """The row of a run, see `HEADER`; accuracies in percent, and empty cells for NaN."""
    accuracies = [measured.accuracy.mean(), measured.j.mean(), measured.f.mean(), measured.drift]
    accuracies += [measured.while_present, measured.while_absent, measured.recovery]
    seconds = measured.seconds.mean()
    figures = [*(100 * accuracy for accuracy in accuracies), 1 / seconds, 1000 * seconds, measured.memory[-1] / 2**30]
    cells = ["" if math.isnan(figure) else round(float(figure), 6) for figure in figures]
    return [plan.settings.bank, plan.settings.mem_every, plan.times or "", len(measured.seconds), *cells]


def draw(runs: Sequence[tuple[Plan, LongRun]], note: str, path: Path) -> None:
    """Draw J&F, FPS and peak memory over the frames of each bank's longest run, and a dot for each other length."""
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    panels = figure.subplots(1, 3, width_ratios=(2, 1, 1))
    accuracy, speed, memory = panels
    for settings in dict.fromkeys(plan.settings for plan, _ in runs):
        own = [measured for plan, measured in runs if plan.settings == settings]
        longest = max(own, key=lambda measured: len(measured.seconds))
        window = max(1, len(longest.j) // 50)
        (line,) = accuracy.plot(*_smooth(100 * longest.accuracy.mean(axis=1), window))
        line.set_label(f"{settings.bank}, θ = {settings.mem_every}")
        x, seconds = _smooth(longest.seconds, window)
        speed.plot(x, 1 / seconds)
        memory.plot(longest.memory / 2**30)
        for measured in own if len(own) > 1 else ():
            totals = 100 * measured.accuracy.mean(), 1 / measured.seconds.mean(), measured.memory[-1] / 2**30
            for axes, total in zip(panels, totals, strict=True):
                axes.plot(len(measured.seconds), total, "o", color=line.get_color())
    present = runs[0][1].present
    for number, shown in enumerate([] if present.all() else present.T):
        edges = np.flatnonzero(np.diff(shown, prepend=False, append=False)).reshape(-1, 2)
        accuracy.broken_barh([(start, end - start) for start, end in edges], (-6 - 5 * number, 3), color="0.6")
    for axes, title in zip(panels, ("J&F (%)", "FPS", "Peak memory (GiB)"), strict=True):
        axes.set_title(title)
        axes.set_xlabel("frame")
        axes.grid(alpha=0.3)
    accuracy.set_ylim(min(0, accuracy.dataLim.y0 - 3), 102)
    for axes in (speed, memory):
        axes.set_ylim(0, 1.1 * axes.dataLim.y1)
    figure.legend(*accuracy.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    figure.supxlabel(note, fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _smooth(values: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """The moving average over ``window`` values: the centres of the windows, and the means."""
    means = np.convolve(values, np.full(window, 1 / window), mode="valid")
    return np.arange(len(means)) + window / 2, means


def make_table(arguments: argparse.Namespace) -> None:
    """Measure every bank at every length, or what an earlier call has left, and write the table and the picture."""
    davis = DAVIS(arguments.davis_path, arguments.year)
    clip = davis.video(arguments.video)
    device = choose_device(arguments.device)
    # This process only checks the network, on the CPU.
    for note in network_notes(arguments.model, torch.device("cpu"), amp=arguments.amp):
        print(note)
    network = engine_network(arguments.model, torch.device("cpu"), arguments.amp)
    thetas = {bank: arguments.stm_mem_every if bank == "STM" else arguments.mem_every for bank in arguments.banks}
    shared = {"top_k": arguments.top, "confirm_updates": arguments.confirm_updates}
    settings = [EngineSettings(bank=bank, mem_every=theta, **shared) for bank, theta in thetas.items()]
    for each in settings:
        each.check(network)
    check_given_masks([clip])
    check_plans([clip], davis_plans(davis.annotations, [clip.name], clip.merge_objects), progress=True)
    output = OutputFolder(arguments.output)
    compared = {"video": arguments.video, "year": davis.year, **shared, "amp": arguments.amp}
    output.check_settings(arguments.model, arguments.davis_path, Processes(), **compared, device=device_name(device))

    runs, lengths = [], [None] if arguments.forward else arguments.times
    longest = len(clip.frames) * (1 if arguments.forward else 2 * max(arguments.times))
    additions = (longest - 1) // arguments.stm_mem_every
    if "STM" in arguments.banks and additions < 5:
        print(
            f"note: STM's bank, which adds every {arguments.stm_mem_every}th frame, adds {additions} of the {longest} "
            "frames of the longest run; use a longer clip, more --times or a smaller --stm_mem_every"
        )
    for each, times in itertools.product(settings, lengths):
        plan = Plan(davis, arguments.video, times, each, arguments.model, arguments.amp, arguments.device)
        measured = run(output.records / f"{each.bank}-{each.mem_every}-{times or 'forward'}.json", plan)
        runs.append((plan, measured))
        title = f"{each.bank} ×{times}" if times else each.bank
        figures = zip(HEADER[4:], table_row(plan, measured)[4:], strict=True)
        shown = (f"{name} {figure:.3g}" for name, figure in figures if figure != "")
        print(f"{title:12}", *shown, sep="  ", flush=True)
    name = "long" if arguments.forward else "figure3"
    table, picture = (output.path / f"{name}.{suffix}" for suffix in ("csv", "png"))
    write_csv(table, [HEADER, *(table_row(plan, measured) for plan, measured in runs)])
    note = "Lines: moving averages. Grey: an object is present."
    if not arguments.forward:
        note = f"Lines: moving averages in the longest run. Dots: means of whole runs. {PUBLISHED}"
        print(PUBLISHED)
    draw(runs, note, picture)
    print(f"{table}\n{picture}")


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    with lock_folder(arguments.output, ".records"):
        make_table(arguments)


if __name__ == "__main__":
    main()
