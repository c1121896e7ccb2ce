"""Folders of the user's own annotated videos for training, and the detection of folder layouts."""

from pathlib import Path

from dataset.files.video import FRAME_SUFFIXES, VIDEO_SUFFIXES, is_junk
from dataset.layouts.folders import VideoFolders, annotated_folders
from dataset.layouts.static import find_images
from util.errors import InputError

_REMEDY = "copy it again, or remove its other half"


def training_folders(root: Path, repeats: int = 1) -> list[VideoFolders]:
    """Return the folders of the videos in ``root``. Frames without a mask are not used.

    ``root`` holds ``JPEGImages/<video>/`` and ``Annotations/<video>/``. It may also be an export of the annotation
    page, or the page's folder of several videos: ``DAVIS``, ``export/DAVIS`` or ``<video>/export/DAVIS``.

    Args:
        repeats: the number of repetitions of each video per epoch.

    Raises:
        InputError: ``root`` has another layout. The message names it.
    """
    exports = [root / "DAVIS", root / "export" / "DAVIS", *sorted(root.glob("*/export/DAVIS"))]
    bases = [base for base in (root, *exports) if _has_videos(base)]
    if not bases or any(map(_is_davis, bases)):
        davis = next(filter(_is_davis, bases), None)
        outer = next(filter(_has_videos, root.absolute().parents[:3]), None)
        if found := known_layout(davis or outer or root):
            root = davis or outer or root
        raise InputError(
            f"{root} is {found}"
            if found
            else f"{root} has no folders JPEGImages and Annotations; put the frames into JPEGImages/<video> and their "
            "masks into Annotations/<video>"
        )
    folders = []
    for base in bases:
        level = "480p" if (base / "JPEGImages" / "480p").is_dir() else ""
        images, masks = (base / kind / level for kind in ("JPEGImages", "Annotations"))
        name = base.parent.parent.name if base.parent.name == "export" else base.name
        folders.append(VideoFolders(name, images, masks, _REMEDY, annotation_step=None, repeats=repeats))
    return folders


def data_set_layout(root: Path) -> str | None:
    """Describe the root of DAVIS or YouTube-VOS and name the flag of train.py for it; None for other folders."""
    sets = _davis_base(root) / "ImageSets"
    if (sets / "2017").is_dir():
        return "DAVIS 2017; give it with --davis_root"
    if (sets / "2016").is_dir() or (sets / "480p").is_dir():
        return "DAVIS 2016; give it with --davis_root --davis_year 2016"
    if (root / "train_480p" / "JPEGImages").is_dir():
        return "YouTube-VOS; give it with --yv_root"
    if (root / "train" / "meta.json").is_file() and (root / "train" / "JPEGImages").is_dir():
        return "YouTube-VOS; make its copies with scripts/resize_youtube.py, and give it with --yv_root"
    return None


def known_layout(root: Path) -> str | None:
    """Describe the layout of a folder and name the flag of train.py for it; None if the layout is unknown."""
    if root.is_file():
        return "a file; give the folder that holds the data"
    if found := data_set_layout(root):
        return found
    if _has_videos(root):
        return "a folder of videos; give it with --videos"
    if (root / "JPEGImages").is_dir() and (root / "SegmentationObject").is_dir():
        return (
            "Pascal VOC, with images in JPEGImages and masks of some in SegmentationObject; put these images and masks "
            "into the folders images and masks for --static_root"
        )
    if found := annotated_folders(root, ("train", "valid", "val", "test")):
        if found.name == "SA-V":
            return (
                "SA-V, with a mask for each object; merge them with scripts/convert_mask.py, and put frames into "
                "JPEGImages/<video> and masks into Annotations/<video>"
            )
        if found.name == "VIPSeg":
            return (
                "VIPSeg, whose masks state classes; renumber each video's with scripts/convert_mask.py, and put frames "
                "into JPEGImages/<video> and masks into Annotations/<video>"
            )
        if found.name == "DAVIS":
            base = found.images.parents[1]
            return f"a folder around {base}, which is {data_set_layout(base) or 'a folder of videos; use --videos'}"
        return f"a data set such as MOSE or LVOS; give its split with --videos {found.images.parent}"
    if (root / "frames").is_dir() and any((root / "annotations").rglob("*.json")):
        return "BURST, whose masks are in JSON files; write them as PNGs of ids with its own tools"
    entries = [path for path in root.iterdir() if not is_junk(path.name)] if root.is_dir() else []
    inside = {path.suffix.lower() for path in entries if path.is_file()}
    if inside & set(VIDEO_SUFFIXES):
        return "a folder of video files; mark objects in each with scripts/annotate.py, and train on what it exports"
    if root.is_dir() and find_images(root)[0]:
        return "a folder of images with masks; give it with --static_root in stage 0"
    if inside & set(FRAME_SUFFIXES):
        return "a folder of images without masks; put frames into JPEGImages/<video> and masks into Annotations/<video>"
    return None


def _has_videos(root: Path) -> bool:
    return (root / "JPEGImages").is_dir() and (root / "Annotations").is_dir()


def _davis_base(root: Path) -> Path:
    """Return ``root/trainval`` if it exists, otherwise ``root``."""
    return root / "trainval" if (root / "trainval").is_dir() else root


def _is_davis(root: Path) -> bool:
    """Whether a folder is a download of DAVIS, whose train and val splits differ.

    The annotation page exports videos in the same layout, with equal splits.
    """
    base = _davis_base(root)
    for year in ("2016", "2017"):
        splits = [base / "ImageSets" / year / f"{split}.txt" for split in ("train", "val")]
        contents = [path.read_bytes() for path in splits if path.is_file()]
        if contents and not (len(contents) == 2 and contents[0] == contents[1]):
            return True
    return False
