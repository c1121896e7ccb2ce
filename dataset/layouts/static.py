"""Folders of static images with masks: FSS-1000, DUTS, ECSSD, BIG, HRSOD, and the user's own."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataset.files.images import read_grey, read_mask_values
from dataset.files.masks import MOST_PLAIN_ID
from dataset.files.video import FRAME_SUFFIXES, is_junk
from dataset.layouts.folders import Pair
from util.errors import InputError

OBJECT_THRESHOLD = 128  # in a mask with soft edges, pixels >= this value belong to the object
_MOST_IDS = 64  # a mask of more grey values that reach the threshold has soft edges

# The paper's data sets: the possible folder names, case-insensitive, and the repetitions of each image per epoch.
_KNOWN = {
    "FSS-1000": (("fss",), 1),
    "DUTS-TR": (("DUTS-TR",), 1),
    "DUTS-TE": (("DUTS-TE",), 1),
    "ECSSD": (("ecssd",), 1),
    "BIG": (("BIG_small", "BIG"), 5),
    "HRSOD": (("HRSOD_small", "HRSOD"), 5),
}
# The names of a folder of images and its twin of masks differ in one of these words.
_IMAGE_WORDS = ("images", "image", "imgs", "img", "jpegimages")
_MASK_WORDS = ("masks", "mask", "gt", "annotations", "labels")


class ImageFolder(NamedTuple):
    """The folder of one data set of static images.

    Attributes:
        name: the name of the data set, for messages.
        path: the folder. It need not exist.
        repeats: the number of repetitions of each image per epoch.
    """

    name: str
    path: Path
    repeats: int = 1


def paper_folders(root: Path) -> list[ImageFolder]:
    """Return the folders of the paper's data sets in ``root``, including missing ones."""
    present = {name.lower(): root / name for name in _entries(root)}
    folders = []
    for data_set, (names, repeats) in _KNOWN.items():
        path = next((present[name.lower()] for name in names if name.lower() in present), root / names[0])
        folders.append(ImageFolder(data_set, path, repeats))
    return folders


def image_folders(root: Path) -> list[ImageFolder]:
    """Return the data sets of images in ``root``: its subfolders, or ``root`` itself if it holds images or twins.

    The paper's data sets are recognised by their folder names.

    Raises:
        InputError: ``root`` cannot be read, or holds neither images nor folders.
    """
    known = {name.lower(): (data_set, repeats) for data_set, (names, repeats) in _KNOWN.items() for name in names}

    def folder(path: Path) -> ImageFolder:
        name, repeats = known.get(path.name.lower(), (path.name, 1))
        return ImageFolder(name, path, repeats)

    names = _entries(root)
    inside = [root / name for name in names if (root / name).is_dir()]
    if root.name.lower() in known or any(map(_is_image, names)) or any(_twin(path) for path in inside):
        return [folder(root)]
    if not inside:
        raise InputError(f"{root} holds no images; give a folder of images <name>.jpg and masks <name>.png")
    return [folder(path) for path in inside]


def find_images(folder: Path) -> tuple[list[Pair], list[Path]]:
    """Find images and their masks, in a folder and all its subfolders.

    An image is ``<name>.jpg`` (or .jpeg, ...) and its mask ``<name>.png``, in the same folder. Or the image lies in a
    folder such as ``images`` and the mask in its twin, such as ``masks``; the image may then be a PNG, too.

    Returns:
        The images that have a mask, and the missing files: the image of a mask, or the mask of an image. Both lists are
        in order.
    """
    pairs: list[Pair] = []
    missing: list[Path] = []
    for images, masks in _image_and_mask_folders(folder):
        apart = images != masks
        shown = {Path(name).stem: images / name for name in _entries(images) if _is_image(name, png=apart)}
        annotated = {Path(name).stem: masks / name for name in _entries(masks) if Path(name).suffix.lower() == ".png"}
        pairs += (Pair(shown[stem], annotated[stem]) for stem in shown.keys() & annotated.keys())
        missing += (images / f"{stem}.jpg" for stem in annotated.keys() - shown.keys())
        missing += (masks / f"{stem}.png" for stem in shown.keys() - annotated.keys())
    return sorted(pairs), sorted(missing)


def read_object(mask: Path) -> np.ndarray:
    """Read the mask of a static image: uint8 0/1 [H,W].

    All objects that `dataset.files.masks.interpret` finds in ids, grey values or plain colours are one; void belongs to
    none. In a mask of grey values with soft edges, pixels >= 128 belong to the object.

    Raises:
        InputError: the file is missing, truncated or not an image, or has colours with soft edges.
    """
    grey = read_grey(mask)
    if grey is not None:
        shown = np.flatnonzero(np.bincount(grey.reshape(-1)))  # far faster than `interpret`, for large photographs
        if len(shown) == 2 and not shown[0]:
            return (grey > 0).astype(np.uint8)
        is_shade = len(shown) == 1 and shown[0] > MOST_PLAIN_ID
        if is_shade or (len(shown) > _MOST_IDS and shown[-1] >= OBJECT_THRESHOLD):
            return (grey >= OBJECT_THRESHOLD).astype(np.uint8)
    try:
        return (read_mask_values(mask).values > 0).astype(np.uint8)
    except InputError:
        if grey is None:
            raise
        return (grey >= OBJECT_THRESHOLD).astype(np.uint8)


def _image_and_mask_folders(folder: Path, masks: Path | None = None) -> Iterator[tuple[Path, Path]]:
    """The folders of images in ``folder``, including itself, each with the folder of its masks.

    Args:
        masks: the folder of its masks, if it belongs to a twin.
    """
    yield folder, masks or folder
    inside = [folder / name for name in _entries(folder) if (folder / name).is_dir()]
    twins = {path: _twin(path) for path in inside} if masks is None else {path: masks / path.name for path in inside}
    for path in inside:
        if path not in twins.values():
            yield from _image_and_mask_folders(path, twins[path])


def _twin(images: Path) -> Path | None:
    """The folder of masks beside a folder of images; None if there is none."""
    wanted = _without(images.name, _IMAGE_WORDS)
    if wanted is None:
        return None
    beside = (images.parent / name for name in _entries(images.parent))
    return next((path for path in beside if _without(path.name, _MASK_WORDS) == wanted and path.is_dir()), None)


def _without(name: str, words: tuple[str, ...]) -> list[str] | None:
    """The other words of a name that contains one of ``words``; None if it contains none."""
    parts = re.split(r"[^a-z0-9]+", name.lower())
    found = next((word for word in words if word in parts), None)
    return None if found is None else [part for part in parts if part != found]


def _is_image(name: str, *, png: bool = False) -> bool:
    suffix = Path(name).suffix.lower()
    return suffix in FRAME_SUFFIXES and (png or suffix != ".png")


def _entries(folder: Path) -> list[str]:
    """The names of the files and folders in a folder, in order."""
    try:
        return sorted(name for name in os.listdir(folder) if not is_junk(name))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror}); check the data set's folder") from None
