"""The layout of the data sets of static images: FSS-1000, DUTS, ECSSD, BIG and HRSOD."""

from pathlib import Path
from typing import NamedTuple

OBJECT_FROM = 128  # in a mask, pixels with this grey value or more belong to the object

# The data sets, and the names that the folder of each one may have. Upper and lower case make no difference.
_FOLDER_NAMES = {
    "FSS-1000": ("fss",),
    "DUTS-TR": ("DUTS-TR",),
    "DUTS-TE": ("DUTS-TE",),
    "ECSSD": ("ecssd",),
    "BIG": ("BIG_small", "BIG"),
    "HRSOD": ("HRSOD_small", "HRSOD"),
}
_NESTED = ("FSS-1000",)  # data sets with a folder for each class of objects


class StaticFolder(NamedTuple):
    """The folder of one data set of static images.

    Attributes:
        name: the name of the data set.
        folder_names: the names that the folder may have, for messages.
        path: the folder, or None if it is missing.
        nested: whether the images lie in subfolders of ``path``, not in ``path`` itself.
    """

    name: str
    folder_names: str
    path: Path | None
    nested: bool


def static_folders(static_root: Path) -> list[StaticFolder]:
    """Find the folders of all data sets of static images in ``static_root``. Missing folders have the path None."""
    present = {entry.name.lower(): entry for entry in static_root.iterdir() if entry.is_dir()}
    folders = []
    for data_set, names in _FOLDER_NAMES.items():
        path = next((present[name.lower()] for name in names if name.lower() in present), None)
        folders.append(StaticFolder(data_set, " or ".join(names), path, data_set in _NESTED))
    return folders


def find_images(folder: Path, *, nested: bool = False) -> tuple[list[Path], list[Path]]:
    """Find images ``<name>.jpg`` and their masks ``<name>.png``.

    Args:
        folder: the folder that holds the files, or subfolders of files.
        nested: whether the files lie in subfolders.

    Returns:
        The images that have a mask, and the files that are missing: images of masks and masks of images. Both lists
        are in order.
    """
    pattern = "*/[!.]*" if nested else "[!.]*"
    images, masks = (set(folder.glob(f"{pattern}{suffix}")) for suffix in (".jpg", ".png"))
    expected = {mask.with_suffix(".jpg") for mask in masks}
    missing = sorted([*(expected - images), *(image.with_suffix(".png") for image in images - expected)])
    return sorted(images & expected), missing
