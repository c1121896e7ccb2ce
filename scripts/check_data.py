"""Check all files of a training stage before training.

    python scripts/check_data.py --stage 2 --davis_root DAVIS --yv_root YV

The script decodes every file. It prints one line for each problem and a table of all data sets.
The exit code is 1 if there are problems, otherwise 0. The flags for data are those of train.py, which itself stops at
the first problem.
"""

import argparse
import functools
import operator
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dataset.files.images import read_image
from dataset.layouts.folders import Pair, VideoFolders, files_by_frame, find_videos, remedy_without_masks
from dataset.layouts.static import ImageFolder, find_images, read_object
from dataset.samples.stages import stage_folders
from util.errors import InputError, command_line
from util.flags import parse_given, refuse_without_effect
from util.parallel import in_processes
from util.training.arguments import add_data_arguments, data_rules


@dataclass
class Findings:
    """The content of a data set or a part of it: the numbers of annotated frames and objects.

    A problem is a sentence like that of an `InputError`: it names the file and the remedy.
    """

    frames: int = 0
    objects: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass
class Plan:
    """A data set to check: a job for each image or video, and what is found, at first the problems of its folders."""

    name: str
    findings: Findings
    jobs: list[Callable[[], Findings]] = field(default_factory=list)


def check_image(pair: Pair) -> Findings:
    """Decode an image of stage 0 and its mask."""
    findings = Findings(frames=1)
    image, mask = _read(read_image, pair.image, findings), _read(read_object, pair.mask, findings)
    if image is not None and mask is not None:
        _compare(pair, image, mask, findings)
    if mask is not None and mask.any():
        findings.objects = 1
    elif mask is not None:
        findings.problems.append(f"{pair.mask} shows no object; remove it and its image")
    return findings


def check_video(folders: VideoFolders, video: str) -> Findings:
    """Decode all frames and masks of a video."""
    images, masks = folders.images / video, folders.masks / video
    if problems := _closed(images, masks):
        return Findings(problems=problems)
    try:
        frames, missing = folders.frames(video)
        shown, annotated = files_by_frame(images), files_by_frame(masks, (".png",))
    except InputError as error:
        return Findings(problems=[str(error)])
    findings = Findings(len(frames), problems=_missing(missing, folders.remedy))
    objects: set[int] = set()
    unread = 0
    # Files without a counterpart are decoded, too, so that one check finds all problems.
    for frame in sorted(shown.keys() | annotated.keys()):
        image = _read(read_image, shown[frame], findings) if frame in shown else None
        ids = _read(folders.read_ids, annotated[frame], findings) if frame in annotated else None
        if image is not None and ids is not None:
            _compare(Pair(shown[frame], annotated[frame]), image, ids, findings)
        if ids is not None:
            objects |= set(np.unique(ids).tolist()) - {0}
        elif frame in annotated:
            unread += 1
    findings.objects = len(objects)
    if not annotated:
        findings.problems.append(f"{masks} holds no masks (<frame>.png); {remedy_without_masks(masks, folders.remedy)}")
    elif not objects and not unread:
        findings.problems.append(f"{masks} shows no object in any frame; remove the video from both folders")
    return findings


def _missing(paths: list[Path], remedy: str) -> list[str]:
    return [f"{path} is missing; {remedy}" for path in paths]


def _closed(*folders: Path) -> list[str]:
    return [
        f"{folder} cannot be read; get the permission to read it"
        for folder in folders
        if not os.access(folder, os.R_OK | os.X_OK)
    ]


def _read(reader: Callable[[Path], np.ndarray], path: Path, findings: Findings) -> np.ndarray | None:
    """Return the content of a file. If it cannot be read, add a problem to ``findings`` and return None."""
    try:
        return reader(path)
    except InputError as error:
        findings.problems.append(str(error))
        return None


def _compare(pair: Pair, image: np.ndarray, mask: np.ndarray, findings: Findings) -> None:
    if image.shape[:2] == mask.shape:
        return
    (height, width), (mask_height, mask_width) = image.shape[:2], mask.shape
    findings.problems.append(
        f"{pair.mask} is {mask_width}×{mask_height}, but {pair.image} is {width}×{height}; "
        "make or copy both again at the same size"
    )


def plan_images(folder: ImageFolder) -> Plan:
    """Plan the check of a data set of static images."""
    if not folder.path.is_dir():
        return Plan(folder.name, Findings(problems=_missing([folder.path], "copy the data set again")))
    pairs, missing = find_images(folder.path)
    problems = _missing(missing, "copy the pair again, or remove its other half")
    if not pairs and not missing:
        problems = [f"{folder.path} holds no images with masks; check how the data set was unpacked"]
    return Plan(folder.name, Findings(problems=problems), [functools.partial(check_image, pair) for pair in pairs])


def plan_videos(folders: VideoFolders) -> Plan:
    """Plan the check of a data set of videos."""
    roots = (folders.images, folders.masks)
    problems = _missing([root for root in roots if not root.is_dir()], folders.remedy) or _closed(*roots)
    try:
        listed = folders.listed()
    except InputError as error:
        problems.append(str(error))
    if problems:
        return Plan(folders.name, Findings(problems=problems))
    videos, missing = find_videos(folders.images, folders.masks, listed)
    if not videos:
        problems.append(f"{folders.split or folders.masks} holds no videos; {folders.remedy}")
    problems += _missing(missing, folders.remedy)
    lacking = {path.name for path in missing}
    jobs = [functools.partial(check_video, folders, video) for video in videos if video not in lacking]
    return Plan(folders.name, Findings(problems=problems), jobs)


def check(plans: list[Plan], unit: str) -> bool:
    """Run the jobs of all plans on all cores, and print every problem and a table of the data sets.

    Args:
        unit: "image" or "video".

    Returns:
        Whether there is no problem.
    """
    for plan in plans:
        _report(plan.findings.problems)
    jobs = [job for plan in plans for job in plan.jobs]
    owners = [plan.findings for plan in plans for _ in plan.jobs]
    done = tqdm(in_processes(operator.call, jobs), total=len(jobs), desc="checking", unit=unit, disable=None)
    for total, findings in zip(owners, done, strict=True):
        _report(findings.problems)
        total.frames += findings.frames
        total.objects += findings.objects
        total.problems += findings.problems
    if plans:
        print(format_table(plans, unit))
    return not any(plan.findings.problems for plan in plans)


def _report(problems: list[str]) -> None:
    for problem in problems:
        tqdm.write(problem)


def format_table(plans: list[Plan], unit: str) -> str:
    """Return the table of findings, with a row for each data set; ``unit`` as for `check`."""
    rows = [("", f"{unit}s", "frames", "objects", "problems")]
    for plan in plans:
        found = plan.findings
        rows.append((plan.name, len(plan.jobs), found.frames, found.objects, len(found.problems)))
    first = max(len(row[0]) for row in rows)
    return "\n".join(f"{row[0]:<{first}}" + "".join(f"{cell:>11}" for cell in row[1:]) for row in rows)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--stage", type=int, choices=range(4), required=True, help="0 static, 1 BL30K, 2 main, 3 main without BL30K"
    )
    add_data_arguments(parser)
    arguments, given = parse_given(parser)
    refuse_without_effect(given, data_rules(arguments.stage, davis=bool(arguments.davis_root)))
    return arguments


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    plans = [
        plan_images(folders) if isinstance(folders, ImageFolder) else plan_videos(folders)
        for folders in stage_folders(arguments.stage, vars(arguments))
    ]
    if not check(plans, "image" if arguments.stage == 0 else "video"):
        sys.exit(1)


if __name__ == "__main__":
    main()
