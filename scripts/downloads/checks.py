"""The checks of downloaded data sets, by scripts/check_data.py."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from check_data import Plan, check, plan_images, plan_videos
from dataset.layouts import bl30k, davis, youtube
from dataset.layouts.static import paper_folders

DEMO = "demo"  # the folder of the synthetic clips, in the root folder


def check_targets(root: Path, targets: list[str]) -> bool:
    """Decode all files of some targets in the catalogue, and print every problem and a table.

    Returns:
        Whether there is no problem.

    Raises:
        InputError: YouTube-VOS's list of objects does not fit its frames.
    """
    plans = [plan for target in targets for plan in _PLANS[target](root / target)]
    is_clean = check(plans, "image" if "static" in targets else "video")
    if is_clean and "YouTube/valid" in targets:
        youtube.YouTubeVOS(root / "YouTube").videos()
    return is_clean


def _davis(year: int, *splits: str) -> Callable[[Path], list[Plan]]:
    return lambda folder: [
        plan_videos(replace(davis.split_folders(folder, year, split), name=f"DAVIS {year} {split}")) for split in splits
    ]


def _youtube(split: str) -> Callable[[Path], list[Plan]]:
    return lambda folder: [
        plan_videos(replace(youtube.split_folders(folder.parent, split), name=f"YouTube-VOS {split}"))
    ]


_PLANS: dict[str, Callable[[Path], list[Plan]]] = {
    "DAVIS/2016/trainval": _davis(2016, "train", "val"),
    "DAVIS/2017/trainval": _davis(2017, "train", "val"),
    "DAVIS/2017/test-dev": _davis(2017, "testdev"),
    "YouTube/train": _youtube(youtube.TRAIN),
    "YouTube/valid": _youtube(youtube.VALID),
    # These frames have no masks. Reading the list of objects finds missing frames.
    "YouTube/all_frames/valid_all_frames": lambda folder: [],
    "BL30K": lambda folder: [plan_videos(bl30k.training_folders(folder))],
    "static": lambda folder: [plan_images(images) for images in paper_folders(folder)],
    DEMO: lambda folder: _davis(2017, "val")(folder / "DAVIS" / "2017"),
}
