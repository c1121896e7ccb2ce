"""Table 5: segment DAVIS 2017 val, or other videos in its layout, with every bank and with every θ for 2F+L+RDE.

Writes OUTPUT/<bank>-<θ>/ as eval_davis.py writes its output, and OUTPUT/table5.csv and table5.png with the published
figures beside ours. The same command resumes an interrupted run.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dataset.layouts.davis import DAVIS
from model import RDE_VOS
from model.memory import BANKS
from tables.plots import draw_scores
from util.argument_types import positive
from util.device import choose_device
from util.distributed import Processes
from util.errors import InputError, command_line
from util.evaluation.arguments import add_network_arguments, network_notes
from util.evaluation.output import OutputFolder
from util.evaluation.protocols import DAVISEvaluation
from util.evaluation.run import evaluate
from util.evaluation.scoring import read_results, score_plans
from util.evaluation.segmentation import EngineSettings, engine_network
from util.files import write_csv

DEFAULT_BANK, DEFAULT_THETA = "2F+L+RDE", 3
# J&F, J and F on DAVIS 2017 val as Table 5 gives them; the banks at θ = 3.
PUBLISHED = {
    ("RDE", 3): (81.8, 78.0, 85.7),
    ("F", 3): (71.6, 67.8, 75.4),
    ("F+RDE", 3): (85.3, 81.6, 89.0),
    ("L", 3): (80.4, 76.9, 83.8),
    ("L+RDE", 3): (82.2, 78.4, 86.0),
    ("F+L", 3): (84.6, 81.0, 88.2),
    ("F+L+RDE", 3): (85.4, 81.6, 89.2),
    ("2F+L", 3): (85.1, 81.5, 88.7),
    ("F+2L", 3): (84.0, 80.4, 87.6),
    ("2F+L+RDE", 2): (85.1, 81.4, 88.9),
    ("2F+L+RDE", 3): (86.1, 82.1, 90.0),
    ("2F+L+RDE", 4): (85.1, 81.5, 88.8),
    ("2F+L+RDE", 5): (84.2, 80.5, 87.9),
}


class Row(NamedTuple):
    """A row of the table: bank and θ, J&F, J and F in percent, and frames per second."""

    bank: str
    mem_every: int
    scores: tuple[float, float, float]
    fps: float


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--davis_path", type=Path, required=True, help="folder that holds trainval/")
    parser.add_argument("--year", type=int, choices=(2016, 2017), default=2017, help="2016 merges a video's objects")
    parser.add_argument("--video_names", nargs="+", metavar="NAME", help="evaluate these videos only; default all")
    parser.add_argument("--output", type=Path, required=True, help="folder for the masks, the table and the picture")
    parser.add_argument(
        "--banks",
        nargs="*",
        choices=BANKS,
        default=list(BANKS),
        help=f"banks to run at θ = {DEFAULT_THETA}; default all",
    )
    parser.add_argument(
        "--mem_every",
        nargs="*",
        type=positive,
        default=[2, 3, 4, 5],
        metavar="θ",
        help=f"values of θ for {DEFAULT_BANK}",
    )
    add_network_arguments(parser)
    return parser.parse_args()


def run(
    network: RDE_VOS, evaluation: DAVISEvaluation, output: OutputFolder, settings: EngineSettings, processes: Processes,
    *, model: Path, amp: bool,
) -> Row:  # fmt: skip
    """Segment and score the videos with one bank and θ, or read the results of an earlier run."""
    names = [video.name for video in evaluation.videos]
    described = {**evaluation.settings, "videos": names, **asdict(settings)}
    output.check_settings(model, evaluation.data, processes, **described, amp=amp)
    results = output.path / evaluation.results_file
    if processes.is_main and not all(map(output.is_current, evaluation.videos)):
        results.unlink(missing_ok=True)  # the scores of masks that are made again
    speed = evaluate(network, evaluation.videos, output, settings, processes)
    if processes.is_main and not results.is_file():
        evaluation.write(score_plans(evaluation.plans, output.masks, progress=True), output.path)
    processes.wait()
    return Row(settings.bank, settings.mem_every, read_results(output.path), speed.fps)


def write_table(rows: list[Row], path: Path) -> None:
    """Write the rows, scores in percent, with the published scores beside them if the paper has them."""
    header = ["Bank", "θ", "J&F", "J", "F", "Published J&F", "Published J", "Published F", "FPS"]
    lines = [
        [bank, theta, *(f"{score:.1f}" for score in scores), *PUBLISHED.get((bank, theta), [""] * 3), f"{fps:.3g}"]
        for bank, theta, scores, fps in rows
    ]
    write_csv(path, [header, *([str(cell) for cell in line] for line in lines)])


def make_table(arguments: argparse.Namespace, processes: Processes) -> None:
    """Run every bank and θ, or what an earlier call has left, and write the table and the picture."""
    wanted = [(bank, DEFAULT_THETA) for bank in arguments.banks]
    wanted += [(DEFAULT_BANK, theta) for theta in arguments.mem_every]
    if not wanted:
        raise InputError("--banks and --mem_every are both empty; name a bank or a θ to run")
    evaluation = DAVISEvaluation(DAVIS(arguments.davis_path, arguments.year), arguments.video_names)
    evaluation.check(progress=processes.is_main)
    device = choose_device(arguments.device)
    if processes.is_main:
        for note in network_notes(arguments.model, device, amp=arguments.amp):
            print(note)
    network = engine_network(arguments.model, device, arguments.amp)
    settings = {
        (bank, theta): EngineSettings(bank=bank, mem_every=theta, top_k=arguments.top) for bank, theta in wanted
    }
    for each in settings.values():
        each.check(network)

    output, rows = arguments.output, {}
    for (bank, theta), each in settings.items():
        folder = OutputFolder(output / f"{bank}-{theta}")
        rows[bank, theta] = row = run(
            network, evaluation, folder, each, processes, model=arguments.model, amp=arguments.amp
        )
        if processes.is_main:
            print(f"{bank:9} θ {theta}  J&F {row.scores[0]:.1f}  {row.fps:.3g} FPS", flush=True)
    if processes.is_main:
        write_table(list(rows.values()), output / "table5.csv")
        shown = {key: ([row.scores[0]], PUBLISHED[key][0] if key in PUBLISHED else None) for key, row in rows.items()}
        banks = {bank: shown[bank, DEFAULT_THETA] for bank in arguments.banks}
        thetas = {str(theta): shown[DEFAULT_BANK, theta] for theta in arguments.mem_every}
        panels = {f"bank (θ = {DEFAULT_THETA})": banks, f"θ ({DEFAULT_BANK})": thetas}
        draw_scores({title: each for title, each in panels.items() if each}, output / "table5.png")
        print(f"{output / 'table5.csv'}\n{output / 'table5.png'}")


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    processes = Processes()
    with processes.lock(arguments.output, "*", "*/.records"):
        make_table(arguments, processes)
    processes.close()


if __name__ == "__main__":
    main()
