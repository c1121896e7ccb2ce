"""The rows of the paper's tables with their published figures, the commands that measure them, and the report."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tables.ablate_banks import PUBLISHED


class Evaluation(NamedTuple):
    """One command on one data set."""

    data_set: str  # its name in the catalogue of downloads
    archives: tuple[str, ...]  # the names of the archives there that the command reads
    command: tuple[str, ...]  # the script and its flags; ``{root}`` is the folder of all downloads
    scores: str | None = "global_results-val.csv"  # the CSV file in the output folder; None if a server has to score


class Network(NamedTuple):
    """A network of the tables."""

    davis: tuple[str, ...]  # the names of its weights for DAVIS; the first file that exists counts
    youtube: tuple[str, ...]  # those for YouTube-VOS
    source: str = ""  # how to get the weights; empty if they are in the catalogue of downloads
    flags: tuple[str, ...] = ()  # of its memory


class Row(NamedTuple):
    """A row of Tables 1 to 4."""

    table: int
    data: str  # a key of `EVALUATIONS`
    network: str  # a key of `NETWORKS`
    # The scores in the paper in percent: J&F, J and F; in Table 4 Overall, J and F of seen categories, and of unseen.
    paper: tuple[float, ...]
    fps: float | None = None  # in the paper
    release: str = ""  # the first score by the README of the method's release, with a note


_VAL = "DAVIS-2017-trainval-480p.zip"
_DAVIS_2017 = "--davis_path", "{root}/DAVIS/2017"
EVALUATIONS = {
    "DAVIS 2017 val": Evaluation("davis2017", (_VAL,), ("eval_davis.py", *_DAVIS_2017)),
    "DAVIS 2017 test-dev": Evaluation(
        "davis2017",
        ("DAVIS-2017-test-dev-480p.zip",),
        ("eval_davis.py", *_DAVIS_2017, "--split", "testdev"),
        scores=None,
    ),
    "DAVIS 2016 val": Evaluation(
        "davis2016", ("DAVIS-data.zip",), ("eval_davis.py", "--davis_path", "{root}/DAVIS/2016", "--year", "2016")
    ),
    # With all frames, because θ counts them.
    "YouTube-VOS 2019 val": Evaluation(
        "youtube2019",
        ("valid.zip", "valid_all_frames.zip"),
        ("eval_youtube.py", "--yv_path", "{root}/YouTube"),
        scores=None,
    ),
    "Table 5": Evaluation(
        "davis2017",
        (_VAL,),
        ("scripts/tables/ablate_banks.py", *_DAVIS_2017, "--banks", *dict.fromkeys(bank for bank, _ in PUBLISHED)),
        scores="table5.csv",
    ),
    "Figure 3": Evaluation("davis2017", (_VAL,), ("scripts/tables/long_video.py", *_DAVIS_2017), "figure3.csv"),
}

RDE, RDE_WITHOUT_BL30K, STCN = "RDE-VOS", "RDE-VOS without BL30K", "STCN"
NETWORKS = {
    RDE: Network(
        ("model_s012_final.pth", "pytorch_model.pt"),
        ("model_s012_final_yv.pth", "pytorch_model.pt"),
    ),
    RDE_WITHOUT_BL30K: Network(
        ("without_bl30k.pth",),
        ("without_bl30k.pth",),
        "train with train.py --stage 0 and --stage 3, and save network.pth",
    ),
    # A frame in five and top 20 are the defaults of STCN's release.
    STCN: Network(
        ("stcn.pth",),
        ("stcn.pth",),
        "save the weights of STCN's release",
        ("--bank", "STM", "--mem_every", "5", "--top", "20"),
    ),
}

_RETRAINED = "retrained with μ = γ = 5"
ROWS = [
    Row(1, "DAVIS 2017 val", RDE, (86.1, 82.1, 90.0), 27, f"85.7, {_RETRAINED}"),
    Row(1, "DAVIS 2017 val", RDE_WITHOUT_BL30K, (84.2, 80.8, 87.5), 27),
    Row(1, "DAVIS 2017 val", STCN, (85.3, 82.0, 88.6), 20.2),
    Row(2, "DAVIS 2017 test-dev", RDE, (78.9, 74.9, 82.9), None, f"79.2, {_RETRAINED}"),
    Row(2, "DAVIS 2017 test-dev", RDE_WITHOUT_BL30K, (77.4, 73.6, 81.2)),
    Row(2, "DAVIS 2017 test-dev", STCN, (77.8, 74.3, 81.3), None, "79.9"),
    Row(3, "DAVIS 2016 val", RDE, (91.6, 90.0, 93.2), 35),
    Row(3, "DAVIS 2016 val", RDE_WITHOUT_BL30K, (91.1, 89.7, 92.5), 35),
    Row(3, "DAVIS 2016 val", STCN, (91.7, 90.4, 93.0), 26.9),
    Row(4, "YouTube-VOS 2019 val", RDE, (83.3, 81.9, 86.3, 78.0, 86.9), None, "83.3, by ModelScope's card"),
    Row(4, "YouTube-VOS 2019 val", RDE_WITHOUT_BL30K, (81.9, 81.1, 85.5, 76.2, 84.8)),
    Row(4, "YouTube-VOS 2019 val", STCN, (84.2, 82.6, 87.0, 79.4, 87.7)),
]


class Problem(NamedTuple):
    """Something that an evaluation lacks."""

    sentence: str  # what it is, with the remedy
    command: str = ""  # the command that gets it
    is_error: bool = True  # whether a download or an evaluation failed; otherwise somebody has to save a file by hand


class Measurement(NamedTuple):
    """How a finished evaluation was made."""

    command: str
    weights: str  # the SHA-256 of the weights
    seconds: float  # the time of the call that finished it
    fps: float | None  # the frames per second that eval_davis.py and eval_youtube.py print
    device: str
    versions: str


class Outcome(NamedTuple):
    """What came of an evaluation."""

    problems: tuple[Problem, ...] = ()  # what it lacks; empty if it has finished
    measurement: Measurement | None = None  # how it was made, if it has finished
    folder: Path | None = None
    scores: tuple[dict[str, str], ...] = ()  # the rows of the CSV file with the scores
    submission: Path | None = None  # the zip for the server, if a server has to score
    server: str = ""  # the page that leads to this server
    note: str = ""  # says if other weights than usual were used


Outcomes = dict[tuple[str, str], Outcome]  # by keys of EVALUATIONS and NETWORKS

_HEADER = ("", "data", "method", "paper", "release", "measured", "difference", "FPS, paper", "FPS", "remark")
_INTRODUCTION = """# Reproduction

Written by `{command}`.

Scores are percentages: J&F / J / F, and in Table 4 Overall / J / F of seen categories / J / F of unseen categories.
"release" is J&F or Overall according to the method's own release: for STCN on DAVIS 2017 test-dev 79.9, where the paper
has 77.8. The difference is the measured score minus the paper's. The paper's FPS are those of a V100 in fp32.
"""


def report(outcomes: Outcomes, command: str) -> str:
    """Write all rows, what is missing, and how the others were measured, in Markdown."""
    problems = list(dict.fromkeys(problem for outcome in outcomes.values() for problem in outcome.problems))
    remarks = {key: _remark(outcome, problems) for key, outcome in outcomes.items()}
    rows = [_row(row, outcomes[row.data, row.network], remarks[row.data, row.network]) for row in ROWS]
    rows += _table_5(outcomes["Table 5", RDE], remarks["Table 5", RDE])
    rows += _figure_3(outcomes["Figure 3", RDE], remarks["Figure 3", RDE])
    lines = [_INTRODUCTION.format(command=command), *_markdown(_HEADER, rows)]
    if problems:
        lines += ["", "## What is missing", ""]
        lines += [
            f"{number}. {problem.sentence}" + (f": `{problem.command}`" if problem.command else "")
            for number, problem in enumerate(problems, start=1)
        ]
    made = [
        [f"{data}, {network}", f"{m.seconds:.0f} s", m.device, m.versions, m.weights[:16], f"`{m.command}`"]
        for (data, network), outcome in outcomes.items()
        if (m := outcome.measurement)
    ]
    if made:
        lines += ["", "## How the others were measured", ""]
        lines += _markdown(("", "time", "device", "versions", "SHA-256 of the weights", "command"), made)
    return "\n".join(lines) + "\n"


def _remark(outcome: Outcome, problems: list[Problem]) -> str:
    if outcome.problems:
        return f"missing, see {', '.join(str(problems.index(problem) + 1) for problem in outcome.problems)}"
    upload = f"upload `{outcome.submission}` to the server, see {outcome.server}" if outcome.submission else ""
    return "; ".join(filter(None, (upload, outcome.note)))


def _row(row: Row, outcome: Outcome, remark: str) -> list[str]:
    columns = ("J&F-Mean", "J-Mean", "F-Mean")
    measured = [100 * float(scores[name]) for scores in outcome.scores for name in columns]
    fps = outcome.measurement.fps if outcome.measurement else None
    cells = [f"Table {row.table}", row.data, row.network, _numbers(row.paper), row.release]
    return [*cells, *_compared(measured, row.paper), _speed(row.fps), _speed(fps), remark]


def _table_5(outcome: Outcome, remark: str) -> list[list[str]]:
    found = {(scores["Bank"], int(scores["θ"])): scores for scores in outcome.scores}
    rows = []
    for (bank, theta), paper in PUBLISHED.items():
        scores = found.get((bank, theta))
        measured = [float(scores[name]) for name in ("J&F", "J", "F")] if scores else []
        cells = ["Table 5", "DAVIS 2017 val", f"{bank}, θ = {theta}", _numbers(paper), "", *_compared(measured, paper)]
        rows.append([*cells, "", _speed(float(scores["FPS"]) if scores else None), remark])
    return rows


def _figure_3(outcome: Outcome, remark: str) -> list[list[str]]:
    rows = []
    for scores in outcome.scores:
        name, paper = f"{scores['Bank']}, θ = {scores['θ']}", "no numbers"
        measured = _numbers(float(scores[name]) for name in ("J&F", "J", "F"))
        memory = f"{scores['Frames']} frames, peak memory {float(scores['Peak memory (GiB)']):.3f} GiB"
        remarks = "; ".join(filter(None, (memory, remark)))
        cells = ["Figure 3", f"cows × {scores['Times']}", name, paper, "", measured, "", ""]
        rows.append([*cells, _speed(float(scores["FPS"])), remarks])
    return rows or [["Figure 3", "cows", "2F+L+RDE and STM", "no numbers", "", "", "", "", "", remark]]


def _compared(measured: Sequence[float], paper: Sequence[float]) -> tuple[str, str]:
    """The measured scores, and their differences from the paper's; empty texts without measured scores."""
    pairs = zip(measured, paper, strict=True) if measured else ()
    return _numbers(measured), " / ".join(f"{ours - theirs:+.1f}" for ours, theirs in pairs)


def _numbers(scores: Iterable[float]) -> str:
    return " / ".join(f"{score:.1f}" for score in scores)


def _speed(fps: float | None) -> str:
    return f"{fps:.3g}" if fps else ""


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]
