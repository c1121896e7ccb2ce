"""The output folder of an evaluation."""

import contextlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from dataset.files.images import write_mask
from dataset.files.video import Video
from util.distributed import Processes
from util.errors import InputError
from util.evaluation.confidence import COLUMNS, append_rows, frame_rows, read_rows, table
from util.evaluation.segmentation import Segmented, Throughput
from util.files import (
    atomic_folder,
    check_settings,
    fingerprint,
    folders_near,
    read_json,
    sha256,
    write_csv,
    write_text,
)
from util.parallel import background

# The folders in which a killed evaluation leaves temporary files, for `lock_folder`.
TEMPORARY = (".records", "masks", "Annotations", "overlay", "overlay/*")
_REMEDY = "delete it and run the evaluation again"


class OutputFolder:
    """The output folder of an evaluation: masks, the settings, and a record of each finished video.

    The folder of a video appears when all masks of the video are written.

    Args:
        path: the folder; `check_settings` makes it.
        masks: the name of the subfolder for the folders of the videos; by default ``path`` itself holds them.

    Attributes:
        masks: the folder that holds ``<video>/<frame>.png``.
        records: the folder of the settings and of the records of finished videos.
    """

    def __init__(self, path: Path, masks: str = "") -> None:
        self.path = path
        self.masks = path / masks
        self.records = path / ".records"
        self._weights = ""  # the name of the checkpoint

    def check_settings(self, model: Path, data: Path, processes: Processes, **settings: object) -> None:
        """Write the settings, or compare them with those of the results in the folder.

        Every process has to call this method.

        Args:
            model: the checkpoint; its content counts, not its path.
            settings: everything else that the results depend on, as JSON values.

        Raises:
            InputError: the folder holds results of another model, data set or settings, or the settings cannot be
                read.
        """
        self._weights = model.name
        settings = {"model": sha256(model), "data": str(data.resolve()), **settings}
        if processes.is_main:
            check_settings(self._settings, settings)  # writes the file if it is missing
        processes.wait()
        differences = check_settings(self._settings, settings)
        if differences:
            names = " and ".join(difference.name for difference in differences)
            raise InputError(
                f"{self.path} holds results made with another {names}; choose another folder or delete this one"
            )

    def settings(self) -> dict[str, Any]:
        """The settings that `check_settings` wrote, by name.

        Raises:
            InputError: the folder holds no settings, or they cannot be read. The message names a folder near it that
                holds some.
        """
        if not self._settings.is_file():
            near = folders_near(self.path, 2, (1, 2))
            right = next((folder for folder in near if OutputFolder(folder)._settings.is_file()), None)
            raise InputError(f"{self._settings} is missing; give {right or 'the folder that the evaluation wrote'}")
        return self._read(self._settings)

    def record_truth(self, **paths: Path) -> None:
        """Record the paths of the ground truth that scored the results, for reports.

        Args:
            paths: the files and folders that the scores depend on, by name.
        """
        write_text(self._truth, json.dumps({name: str(path.resolve()) for name, path in paths.items()}))

    def truth(self) -> dict[str, Path]:
        """The paths that `record_truth` wrote, by name; empty if the results were not scored."""
        return {name: Path(path) for name, path in self._read(self._truth).items()} if self._truth.is_file() else {}

    def mask(self, video: Video, number: int) -> Path:
        """The file with the mask of a frame."""
        return self.masks / video.name / video.mask_name(number)

    def is_finished(self, video: Video) -> bool:
        """Whether the folder holds all masks of a video and its record, and the given masks have not changed."""
        record = self._record(video)
        if not (record.is_file() and all(self.mask(video, number).is_file() for number in video.results)):
            return False
        return self._read(record).get("given") == _given(video)

    def is_current(self, video: Video) -> bool:
        """Whether a video is finished, and its frames are still the files that its masks were made of.

        A copy of the data in another place counts as other files.
        """
        if not self.is_finished(video):
            return False
        return self._read(self._record(video)).get("files") == fingerprint(video.frames)

    @contextlib.contextmanager
    def writing(self, video: Video, device: str = "") -> Iterator[Callable[[Segmented], None]]:
        """Yield a function that writes the mask of a result. The folder of the video appears at the end of the block.

        Args:
            video: the video; the block has to write all its results.
            device: the name of the device, for the record.
        """
        palette, frames, seconds = video.palette, 0, 0.0
        rows: list[np.ndarray] = []
        record = {"given": _given(video), "files": fingerprint(video.frames)}  # before they are read

        def save(result: Segmented) -> None:
            nonlocal frames, seconds
            frames, seconds = frames + result.frames, seconds + result.seconds
            write_mask(unfinished / video.mask_name(result.number), result.ids, palette)
            if result.confidence is not None:
                rows.append(frame_rows(result.number, result.ids, result.confidence))

        with atomic_folder(self.masks / video.name) as unfinished, background(save) as write:
            yield write
        self._rows(video).unlink(missing_ok=True)
        if rows:
            append_rows(self._rows(video), np.concatenate(rows))
        record |= {"frames": frames, "seconds": seconds, "device": device, "weights": self._weights}
        write_text(self._record(video), json.dumps(record))

    def write_confidence(self, videos: Iterable[Video]) -> None:
        """Write ``confidence.csv`` of finished videos: the confidence in each object in each frame with a mask."""
        lines = ([video.name, *line] for video in videos for line in table(video, read_rows(self._rows(video))))
        write_csv(self.path / "confidence.csv", chain([["video", *COLUMNS]], lines))

    def throughput(self, videos: Iterable[Video]) -> Throughput:
        """The throughput over finished videos."""
        frames, seconds = 0, 0.0
        for path in map(self._record, videos):
            record = self._read(path)
            measured = record.get("frames"), record.get("seconds")
            if not all(isinstance(number, int | float) and math.isfinite(number) for number in measured):
                raise InputError(f"{path} holds no frames and seconds; {_REMEDY}")
            frames, seconds = frames + measured[0], seconds + measured[1]
        return Throughput(frames, seconds)

    def recorded(self, name: str, videos: Iterable[Video]) -> str:
        """The "device" or "weights" in the records of finished videos; several values separated by commas."""
        values = (self._read(self._record(video)).get(name) for video in videos)
        return ", ".join(sorted({value for value in values if isinstance(value, str) and value}))

    @property
    def _settings(self) -> Path:
        return self.records / "settings.json"

    @property
    def _truth(self) -> Path:
        return self.records / ".truth.json"

    def _rows(self, video: Video) -> Path:
        return self.records / f"{video.name}.confidence"

    def _record(self, video: Video) -> Path:
        path = self.records / f"{video.name}.json"
        if path == self._settings:
            raise InputError(f"{path} is the file of the settings, so no video can have this name; rename its folders")
        return path

    def _read(self, path: Path) -> dict[str, Any]:
        return read_json(path, _REMEDY)


def _given(video: Video) -> dict[str, str]:
    """The SHA-256 of each given mask, by frame name; a changed mask invalidates the results of a video."""
    return {video.frame_name(number): "+".join(map(sha256, video.mask_files(number))) for number in sorted(video.masks)}
