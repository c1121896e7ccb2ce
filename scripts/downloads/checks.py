"""The checks of downloaded data sets, by scripts/check_data.py."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from check_data import Plan, check, plan_images, plan_videos
from dataset.layouts import bl30k, davis, youtube
from dataset.layouts.static import paper_folders


def check_targets(root: Path, targets: list[str]) -> bool:
    """Decode all files of some targets in the catalogue, print every problem, and return whether there is none."""
    plans = [plan for target in targets for plan in _plans(root, target)]
    is_clean = check(plans, "image" if "static" in targets else "video")
    if is_clean and "YouTube/valid" in targets:
        youtube.YouTubeVOS(root / "YouTube").videos()  # reads the list of objects, and finds missing frames
    return is_clean


def _plans(root: Path, target: str) -> Iterator[Plan]:
    folder = root / target
    if target == "static":
        yield from map(plan_images, paper_folders(folder))
    elif target == "BL30K":
        yield plan_videos(bl30k.training_folders(folder))
    elif target.startswith("DAVIS"):
        year = int(folder.parent.name)
        for split in ("testdev",) if folder.name == "test-dev" else ("train", "val"):
            yield plan_videos(replace(davis.split_folders(folder, year, split), name=f"DAVIS {year} {split}"))
    elif target in ("YouTube/train", "YouTube/valid"):
        folders = youtube.split_folders(folder.parent, folder.name)
        yield plan_videos(replace(folders, name=f"YouTube-VOS {folder.name}"))
