"""Measure the rows of the paper's Tables 1 to 5 and Figure 3, as far as weights and data are available.

    python scripts/reproduce.py --yes

Downloads the published weights and the validation data as scripts/download.py does, runs eval_davis.py, eval_youtube.py
and the scripts of Table 5 and Figure 3, and writes

    OUTPUT/reproduction.md   the paper's figures, the releases', the measured ones and the differences
    OUTPUT/masks.zip         the masks of Tables 1 to 4 with this report, for publication
    OUTPUT/reproduction/     WEIGHTS/EVALUATION/ with masks and scores, and the scripts' output in a .log beside it

Where weights or data are missing, the report says what is missing and how to get it. The same command then does the
rest: it does not repeat finished evaluations, and resumes interrupted ones. It also takes archives and weights that you
saved in ROOT by hand.

The exit code is 0 if no download and no evaluation failed, 1 if one failed, and 2 after any other error. A file that
has to be saved by hand is no failure.
"""

import argparse
import csv
import json
import platform
import re
import shlex
import sys
import time
import tomllib
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from download import confirm, missing_parts, obtain, obtain_weights, web_address
from downloads.catalogue import CATALOGUE
from downloads.fetch import address
from downloads.unpack import file_path, is_in_place
from tables.reproduction import EVALUATIONS, NETWORKS, RDE, ROWS, Measurement, Outcome, Problem, report
from util.argument_types import positive
from util.device import choose_device, device_name
from util.distributed import run_script
from util.errors import InputError, command_line
from util.files import atomic_path, lock_folder, read_json, sha256, write_text

PROJECT = Path(__file__).resolve().parents[1]


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder of all downloads (default: data)")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder of the results (default: results)")
    parser.add_argument("--yes", action="store_true", help="accept the licences without asking")
    parser.add_argument("--mirror", type=web_address, metavar="URL", help="as for scripts/download.py")
    parser.add_argument(
        "--times", type=positive, nargs="+", default=[1, 10, 15, 20],
        help="how often Figure 3 plays its clip (default: 1 10 15 20)",
    )  # fmt: skip
    return parser.parse_args()


def download(root: Path, mirror: str | None, *, accepted: bool) -> dict[str, Problem]:
    """Put weights and archives in place as far as possible.

    Args:
        mirror: the address that replaces the original ones, see scripts/download.py.

    Returns:
        what is wrong with each archive that is not in place, by its name, and with the weights as "weights".
    """
    used = {(each.data_set, archive) for each in EVALUATIONS.values() for archive in each.archives}
    wanted = [(name, part) for name in CATALOGUE for part in CATALOGUE[name].parts if (name, part.name) in used]
    for name in ("weights", *dict.fromkeys(name for name, _ in wanted)):
        print(f"{name}: {CATALOGUE[name].title}\n  licence: {CATALOGUE[name].licence}")
    missing = [part for _, part in wanted if not is_in_place(root, part) and not file_path(root, part).exists()]
    missing += missing_parts(CATALOGUE["weights"], root)
    if not accepted and any(address(part, mirror) for part in missing):
        confirm()

    problems = {}
    flags = shlex.join(["--root", str(root), *(["--mirror", mirror] if mirror else [])])
    for name, part in wanted:
        try:
            if not obtain(part, root, mirror):
                sentence = f"{file_path(root, part)} is missing; save it by hand, see {CATALOGUE[name].homepage}"
                problems[part.name] = Problem(sentence, is_error=False)
        except InputError as error:
            problems[part.name] = Problem(str(error), f"python scripts/download.py {name} {flags}")
    try:
        obtain_weights(CATALOGUE["weights"], root, mirror)
    except InputError as error:
        problems["weights"] = Problem(str(error), f"python scripts/download.py weights {flags}")
    return problems


def evaluate(
    data: str, network: str, root: Path, output: Path, times: list[int], problems: dict[str, Problem]
) -> Outcome:
    """Run an evaluation, or read the results of an earlier call.

    Args:
        data, network: keys of `EVALUATIONS` and of `NETWORKS`.
        problems: as `download` returns them.
    """
    evaluation, settings = EVALUATIONS[data], NETWORKS[network]
    names = settings.youtube if evaluation.data_set == "youtube2019" else settings.davis
    weights = next((path for name in names if (path := root / "weights" / name).is_file()), None)
    lacking = [problems[archive] for archive in evaluation.archives if archive in problems]
    if weights is None and settings.source:
        sentence = f"{root / 'weights' / names[0]} is missing; {settings.source} under this name"
        lacking.append(Problem(sentence, is_error=False))
    elif weights is None:
        lacking.append(problems["weights"])
    if lacking:
        return Outcome(tuple(lacking))

    folder = output / weights.stem / data.lower().replace(" ", "-")
    record, log, submission = (folder.with_name(f"{folder.name}.{suffix}") for suffix in ("json", "log", "zip"))
    script, *flags = (argument.format(root=root) for argument in evaluation.command)
    flags += [*settings.flags, "--model", str(weights), "--output", str(folder)]
    if data == "Figure 3":
        flags += ["--times", *map(str, times)]
    command, digest = f"python {shlex.join([script, *flags])}", sha256(weights)
    found = read_json(record, "delete it, and run the same command again") if record.is_file() else {}
    result = folder / evaluation.scores if evaluation.scores else submission
    if (found.get("command"), found.get("weights")) != (command, digest) or not result.is_file():
        print(f"{command} > {log}", flush=True)
        start = time.monotonic()
        error = run(script, flags, log)
        if error:
            print(error, flush=True)
            return Outcome((Problem(f"{data}, {network}: {error} ({log})", command),))
        if result == submission and script == "eval_davis.py":
            write_zip(submission, {"": folder})
        seconds = time.monotonic() - start
        fps = re.search(r"^FPS +([\d.]+)", log.read_text(encoding="utf-8"), re.MULTILINE)
        device = device_name(choose_device("auto"))
        made = Measurement(command, digest, seconds, float(fps[1]) if fps else None, device, versions())
        write_text(record, json.dumps(made._asdict(), indent=1))
    else:
        made = Measurement(**found)
    note = "" if weights.name == names[0] else f"with {weights.name} in the place of {names[0]}"
    if result == submission:
        server = CATALOGUE[evaluation.data_set].homepage
        return Outcome((), made, folder=folder, submission=submission, server=server, note=note)
    with open(result, newline="", encoding="utf-8") as file:
        return Outcome((), made, folder, tuple(csv.DictReader(file)), note=note)


def run(script: str, flags: list[str], log: Path) -> str:
    """Run a script of the project, with its output in ``log``. Return the error that ended it, or an empty text."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as file:
        code = run_script(PROJECT / script, flags, file)
    if code == 0:
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else f"exit code {code}"


def versions() -> str:
    """The versions of the project and of what computes the figures."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    cuda = f", CUDA {torch.version.cuda}" if torch.version.cuda else ""
    return f"RDE-VOS {project}, Python {platform.python_version()}, PyTorch {torch.__version__}{cuda}"


def write_zip(path: Path, folders: dict[str, Path], text: str = "") -> None:
    """Write a zip with the masks in some folders.

    Args:
        folders: folders that evaluation scripts wrote, by their names in the zip; an empty name is the top.
        text: the content of reproduction.md in the zip, or an empty text for no such file.
    """
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        if text:
            archive.writestr("reproduction.md", text)
        for name, folder in folders.items():
            for file in sorted(folder.glob("[!.]*/**/*.png")):
                archive.write(file, Path(name, file.relative_to(folder)))


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    with lock_folder(arguments.output, "reproduction", "reproduction/*"):
        reproduce(arguments.root, arguments.output, arguments.times, arguments.mirror, accepted=arguments.yes)


def reproduce(root: Path, output: Path, times: list[int], mirror: str | None, *, accepted: bool) -> None:
    """Download, evaluate, and write the report and the masks. The arguments are those of `evaluate` and `download`."""
    problems = download(root, mirror, accepted=accepted)
    wanted = [(row.data, row.network) for row in ROWS] + [("Table 5", RDE), ("Figure 3", RDE)]
    outcomes = {
        (data, network): evaluate(data, network, root, output / "reproduction", times, problems)
        for data, network in wanted
    }
    text = report(outcomes, shlex.join(["python", "scripts/reproduce.py", *sys.argv[1:]]))
    write_text(output / "reproduction.md", text)
    folders = {
        outcome.folder.relative_to(output / "reproduction").as_posix(): outcome.folder
        for (data, network) in outcomes
        if (outcome := outcomes[data, network]).folder and data not in ("Table 5", "Figure 3")
    }
    print(f"{text}\n{output / 'reproduction.md'}")
    if folders:
        write_zip(output / "masks.zip", folders, text)
        print(output / "masks.zip")
    if any(problem.is_error for outcome in outcomes.values() for problem in outcome.problems):
        sys.exit(1)


if __name__ == "__main__":
    main()
