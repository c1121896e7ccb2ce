"""The command ``clicks``: how many clicks and boxes the annotation page needs for an object."""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from annotation.evidence import Picture
from annotation.marks import Marks
from benchmarks.common import write_table
from dataset.files.images import read_image
from dataset.layouts.static import read_object
from util.device import choose_device
from util.errors import InputError
from util.evaluation.segmentation import engine_network

TARGET = 0.85  # IoU
MOST_CLICKS = 20
NETWORK_SIDE = 480  # pixels, as annotate.py has it
COLUMNS = ["objects", f"median NoC@{100 * TARGET:.0f}", "mean", "failed", "IoU of a box", "and a click"]
COLUMNS += ["and two clicks", "ms per click"]


def measure_clicks(model: Path, device: str, folders: list[Path], most: int | None, output: Path) -> None:
    """The command ``clicks``: clicks at the centre of the largest error, until the IoU of each object is `TARGET`."""
    network = engine_network(model, choose_device(device), amp=False)
    counts, seconds, marked = [], [], []
    for image_path, mask_path in tqdm(list(find_objects(folders, most)), disable=None):
        truth = read_object(mask_path) > 0
        picture = Picture(read_image(image_path), network, NETWORK_SIDE)
        user = SimulatedUser(picture, truth)
        counts.append(user.clicks_until(TARGET))
        seconds += user.seconds
        user = SimulatedUser(picture, truth)
        marked.append([user.draw_box(), user.click(), user.click()])
    failed = sum(count > MOST_CLICKS for count in counts)
    counts = [min(count, MOST_CLICKS) for count in counts]
    noc = [statistics.median(counts), statistics.fmean(counts), failed]
    boxes = [statistics.median(values) for values in zip(*marked, strict=True)]
    write_table(output, COLUMNS, [[len(counts), *noc, *boxes, 1000 * statistics.median(seconds)]])


def find_objects(folders: list[Path], most: int | None) -> Iterator[tuple[Path, Path]]:
    """The images (JPEG) of folders and their subfolders with the masks beside them (PNG of the same name).

    Args:
        folders: with pairs ``<name>.jpg`` and ``<name>.png``.
        most: the maximum number of pairs of a folder, evenly spaced; None for all.
    """
    for folder in folders:
        paths = sorted(path for path in folder.rglob("*.jpg") if path.with_suffix(".png").is_file())
        if not paths:
            raise InputError(f"{folder} holds no pairs of an image <name>.jpg and its mask <name>.png")
        for index in np.linspace(0, len(paths) - 1, min(most or len(paths), len(paths))).round().astype(int):
            yield paths[index], paths[index].with_suffix(".png")


class SimulatedUser:
    """A user of the annotation page who knows the ground truth.

    Args:
        truth: the ground truth, bool [H,W].

    Attributes:
        seconds: the time of each cut.
    """

    def __init__(self, picture: Picture, truth: np.ndarray) -> None:
        self.seconds: list[float] = []
        self._marks, self._truth = Marks(picture), truth

    @property
    def mask(self) -> np.ndarray:
        """The current mask, bool [H,W]."""
        return self._marks.ids > 0

    def clicks_until(self, target: float) -> int:
        """Click until the IoU reaches the target; return the number of clicks, at most `MOST_CLICKS` + 1."""
        for count in range(1, MOST_CLICKS + 1):
            if self.click() >= target:
                return count
        return MOST_CLICKS + 1

    def draw_box(self) -> float:
        """Draw the object's bounding box; return the IoU."""
        rows, columns = np.flatnonzero(self._truth.any(1)), np.flatnonzero(self._truth.any(0))
        box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        self._marks.draw_box(1, box)
        return self._iou()

    def click(self) -> float:
        """Click on the centre of the largest error, inside or outside; return the IoU."""
        x, y, is_inside = self._largest_error()
        started = time.perf_counter()
        self._marks.click(1, x, y, is_inside=is_inside)
        self.seconds.append(time.perf_counter() - started)
        return self._iou()

    def _largest_error(self) -> tuple[int, int, bool]:
        """The centre (x, y) of the largest error, and whether it is a false negative."""
        depths = [
            cv2.distanceTransform(np.pad(np.uint8(error), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
            for error in (self._truth & ~self.mask, self.mask & ~self._truth)
        ]
        is_inside = bool(depths[0].max() >= depths[1].max())
        depth = depths[0] if is_inside else depths[1]
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        return int(x), int(y), is_inside

    def _iou(self) -> float:
        return float((self.mask & self._truth).sum() / (self.mask | self._truth).sum())
