"""Check all files of a training stage before training.

    python scripts/check_data.py --stage 2 --davis_root DAVIS --yv_root YV

The script decodes every file. It prints one line for each problem and a table of all data sets.
The exit code is 1 if there are problems, otherwise 0. The flags for data are those of train.py, which itself stops at
the first problem.
"""

import argparse
import functools
import operator
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
    ids = _decode(pair.image, pair.mask, read_object, findings)
    if ids is not None and not ids:
        findings.problems.append(f"{pair.mask} shows no object; remove it and its image")
    findings.objects = int(bool(ids))
    return findings


def check_video(folders: VideoFolders, video: str) -> Findings:
    """Decode all frames and masks of a video."""
    images, masks = folders.images / video, folders.masks / video
    try:
        frames, missing = folders.frames(video)
        shown, annotated = files_by_frame(images), files_by_frame(masks, (".png",))
    except InputError as error:
        return Findings(problems=[str(error)])
    findings = Findings(len(frames), problems=_missing(missing, folders.remedy))
    # Files without a counterpart are decoded, too, so that one check finds all problems.
    names = sorted(shown.keys() | annotated.keys())
    found = [_decode(shown.get(name), annotated.get(name), folders.read_ids, findings) for name in names]
    findings.objects = len(set().union(*(ids for ids in found if ids)))
    if not annotated:
        findings.problems.append(f"{masks} holds no masks (<frame>.png); {remedy_without_masks(masks, folders.remedy)}")
    elif not findings.objects and not any(found[names.index(name)] is None for name in annotated):
        findings.problems.append(f"{masks} shows no object in any frame; remove the video from both folders")
    return findings


def _missing(paths: list[Path], remedy: str) -> list[str]:
    return [f"{path} is missing; {remedy}" for path in paths]


def _decode(
    image: Path | None, mask: Path | None, read_ids: Callable[[Path], np.ndarray], findings: Findings
) -> set[int] | None:
    """Decode a frame and its mask, as far as they are there, and return the ids that the mask shows.

    The result is None without a mask that can be read. Problems are added to ``findings``.
    """
    decoded: dict[Path, np.ndarray] = {}
    for path, read in ((image, read_image), (mask, read_ids)):
        try:
            if path is not None:
                decoded[path] = read(path)
        except InputError as error:
            findings.problems.append(str(error))
    if len(decoded) == 2 and decoded[image].shape[:2] != decoded[mask].shape:
        (height, width, _), (mask_height, mask_width) = decoded[image].shape, decoded[mask].shape
        findings.problems.append(
            f"{mask} is {mask_width}×{mask_height}, but {image} is {width}×{height}; make or copy both again at the "
            "same size"
        )
    return set(np.unique(decoded[mask]).tolist()) - {0} if mask in decoded else None


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
    plan = Plan(folders.name, Findings())
    plan.findings.problems = _missing(
        [path for path in (folders.images, folders.masks) if not path.is_dir()], folders.remedy
    )
    try:
        listed = folders.listed()
        if plan.findings.problems:
            return plan
        videos, missing = find_videos(folders.images, folders.masks, listed)
    except InputError as error:
        plan.findings.problems.append(str(error))
        return plan
    if not videos:
        plan.findings.problems.append(f"{folders.split or folders.masks} holds no videos; {folders.remedy}")
    plan.findings.problems += _missing(missing, folders.remedy)
    lacking = {path.name for path in missing}
    plan.jobs = [functools.partial(check_video, folders, video) for video in videos if video not in lacking]
    return plan


def check(plans: list[Plan], unit: str) -> bool:
    """Run the jobs of all plans on all cores, print every problem and a table, and return whether there is no problem.

    ``unit`` is "image" or "video".
    """
    for problem in (problem for plan in plans for problem in plan.findings.problems):
        print(problem)
    jobs = [job for plan in plans for job in plan.jobs]
    owners = [plan.findings for plan in plans for _ in plan.jobs]
    done = tqdm(in_processes(operator.call, jobs), total=len(jobs), desc="checking", unit=unit, disable=None)
    for total, findings in zip(owners, done, strict=True):
        for problem in findings.problems:
            tqdm.write(problem)
        total.frames += findings.frames
        total.objects += findings.objects
        total.problems += findings.problems
    width = max((len(plan.name) for plan in plans), default=0)
    for name, *cells in [("", f"{unit}s", "frames", "objects", "problems"), *map(_row, plans)] if plans else ():
        print(f"{name:<{width}}" + "".join(f"{cell:>11}" for cell in cells))
    return not any(plan.findings.problems for plan in plans)


def _row(plan: Plan) -> tuple[object, ...]:
    return plan.name, len(plan.jobs), plan.findings.frames, plan.findings.objects, len(plan.findings.problems)


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
