"""The durable store of a project: masks, objects and annotated frames."""

import array
import contextlib
import itertools
import math
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from annotation.errors import Refused
from annotation.frames import Frames
from annotation.jobs import Announce, Job
from annotation.project_file import MOST_OBJECTS, Note, check_object
from dataset.files.colours import colour_of, colour_table
from dataset.files.images import write_mask
from dataset.files.video import object_ids, read_sized_mask
from util.errors import InputError
from util.files import atomic_path, write_error

NONE, PROPAGATED, ANNOTATED = range(3)
KINDS = ("none", "propagated", "annotated")


class FrameMask(NamedTuple):
    """The mask of a frame."""

    ids: np.ndarray  # uint8 object ids [H,W]; zeros if there is no mask
    kind: int  # NONE, PROPAGATED or ANNOTATED
    revision: int  # increases with every change


def refuse_links(folder: Path) -> None:
    """Refuse a project with links to files outside, which exports would copy or replace."""
    inside = folder.resolve()
    for part in (folder, folder / "masks", folder / "frames", folder / "export"):
        if not part.is_dir():
            continue
        with os.scandir(part) as entries:
            for entry in entries:
                if entry.is_symlink() and not Path(os.path.realpath(entry.path)).is_relative_to(inside):
                    raise InputError(f"{entry.path} is a link that leads out of {folder}; put a copy in its place")


class Project:
    """The masks and objects of a video; thread-safe. Every change is on disk before it is announced.

    Args:
        folder: the folder of the project, locked by `util.files.lock_folder`.
        note: the project's ``project.json``.
        announce: called with every change, as an event for the page.
    """

    def __init__(self, folder: Path, note: Note, frames: Frames, announce: Announce) -> None:
        note.check(frames)
        refuse_links(folder)
        self.folder = folder
        self.frames = frames
        self._note = note
        self._announce = announce
        self._masks = folder / "masks"
        self._uncertainty_path = folder / "uncertainty.csv"
        self._lock = threading.RLock()
        self._deleting: int | None = None  # the object that is being deleted
        self._revisions = array.array("Q", bytes(8 * len(frames)))
        self._changes = itertools.count(1)
        self._kinds = self._find_masks()
        self._uncertainty = array.array("f", [math.nan]) * len(frames)
        with note.saved(frames.fps):
            pass
        self._read_uncertainty()

    def __len__(self) -> int:
        return len(self.frames)

    def state(self) -> dict[str, Any]:
        """The initial state for the page, without the masks."""
        video = self.frames.video
        height, width = video.size
        with self._lock:
            known = {str(n): round(value, 6) for n, value in enumerate(self._uncertainty) if not math.isnan(value)}
            return {
                "video": {
                    "name": video.name,
                    "frames": len(self),
                    "width": width,
                    "height": height,
                    "fps": self.frames.fps,
                },
                "objects": self.objects(),
                "annotated": sorted(self._note.annotated),
                "propagated": [[run.start(), run.end() - 1] for run in re.finditer(rb"\x01+", self._kinds)],
                "uncertainty": known,
                "output": str(self.folder),
            }

    def resize(self, count: int) -> None:
        """Change the number of frames: a video file has announced a wrong one. All its frames are ready."""
        with self._lock:
            more = max(0, count - len(self))
            paths = self.frames.video.frames
            paths[:] = [paths[0].with_name(f"{number:05d}{paths[0].suffix}") for number in range(count)]
            for values, new in ((self._revisions, 0), (self._kinds, NONE), (self._uncertainty, math.nan)):
                values.extend([new] * more)
                del values[count:]
            self.frames.ready = count
            with self._saving() as note:
                note.frames = count
        self._announce({"type": "length"})

    def objects(self) -> list[dict[str, Any]]:
        """The objects in the order of their ids."""
        with self._lock:
            return [dict(entry) for entry in self._note.objects.values()]

    def palette(self) -> bytes:
        """The colours of the objects as 256 RGB triples by id."""
        colours = bytearray(colour_table())
        for entry in self.objects():
            colours[3 * entry["id"] : 3 * entry["id"] + 3] = bytes.fromhex(entry["colour"][1:])
        return bytes(colours)

    def check_ready(self, numbers: Iterable[int]) -> None:
        """Refuse frames that are not unpacked yet."""
        if late := [number for number in numbers if number >= self.frames.ready]:
            raise Refused(409, f"frame {min(late)} is not unpacked yet; wait, or start the same command again")

    def kind(self, number: int) -> int:
        """The kind of a frame's mask: NONE, PROPAGATED or ANNOTATED."""
        return self._kinds[number]

    def is_annotated(self, number: int) -> bool:
        """Whether the mask of a frame is an annotation."""
        return self._kinds[number] == ANNOTATED

    def labelled(self) -> list[int]:
        """The numbers of the frames that have a mask, in order."""
        with self._lock:
            return [number for number, kind in enumerate(self._kinds) if kind != NONE]

    def read(self, number: int) -> FrameMask:
        """Read the mask of a frame."""
        with self._lock:
            return FrameMask(self._ids(number), self._kinds[number], self._revisions[number])

    def annotation(self, number: int) -> tuple[np.ndarray, set[int]] | None:
        """The ids [H,W] of a frame's annotation, and the objects that are absent by it; None without an annotation."""
        with self._lock:
            if self._kinds[number] != ANNOTATED:
                return None
            ids = self._ids(number)
            return ids, set(self._note.annotated[number]).difference(object_ids(ids))

    def annotate(self, number: int, ids: np.ndarray, revision: int) -> int:
        """Make a mask, uint8 object ids [H,W], the annotation of a frame.

        ``revision`` is that of the mask that the user has changed. Return the new one.
        """
        shown = set(object_ids(ids))
        with self._lock:
            self._check_revision(number, revision)
            self._check_objects(shown)
            before = self._note.annotated.get(number)
            erasable = {*object_ids(self._ids(number)), *(before or ())}
            annotated = sorted(shown | erasable & set(self._note.objects))
            if annotated == before:
                self._write(number, ids)
            else:
                with self._saving(lambda: self._write(number, ids)) as note:
                    note.annotated[number] = annotated
            return self._changed(number, ANNOTATED)

    def restore(self, number: int, ids: np.ndarray, uncertainty: float, revision: int) -> int:
        """Make a mask the prediction of a frame again, when the user has undone all changes of it.

        The ids are those that the network has predicted, uint8 [H,W], with their uncertainty in bits, or NaN.
        """
        with self._lock:
            self._check_revision(number, revision)
            self._check_objects(object_ids(ids))
            self._append_uncertainty(number, uncertainty)
            if number in self._note.annotated:
                with self._saving(lambda: self._write(number, ids)) as note:
                    del note.annotated[number]
            else:
                self._write(number, ids)
            return self._changed(number, PROPAGATED, uncertainty)

    def clear(self, number: int, revision: int) -> int:
        """Remove the mask of a frame, and its annotation; see `annotate`."""
        with self._lock:
            self._check_revision(number, revision)
            return self._remove(number)

    def propagate(self, number: int, ids: np.ndarray, uncertainty: float) -> None:
        """Write a predicted mask, uint8 object ids [H,W], unless the frame is annotated.

        For ``uncertainty`` see `util.evaluation.segmentation.Segmented`.
        """
        with self._lock:
            if self._kinds[number] == ANNOTATED:
                return
            # The mask comes last, so that a full disk leaves the old one.
            self._append_uncertainty(number, uncertainty)
            self._write(number, ids)
            self._changed(number, PROPAGATED, uncertainty)

    def add_object(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Add an object with the smallest free id. Fields are its name, colour and visibility; they have defaults."""
        fields = check_object(fields)
        with self._lock:
            number = next((i for i in range(1, MOST_OBJECTS + 1) if i not in self._note.objects), None)
            if number is None:
                raise Refused(409, f"a video can have {MOST_OBJECTS} objects; delete one first")
            added = {**_new_object(number), **fields}
            with self._saving() as note:
                note.objects = dict(sorted({**note.objects, number: added}.items()))
            self._announce_objects()
            return dict(added)

    def import_masks(self, masks: dict[int, np.ndarray]) -> None:
        """Make masks, uint8 ids [H,W] by frame number, the annotations of their frames, and add their objects."""
        ids = {number: object_ids(mask) for number, mask in masks.items()}
        self.check_ready(masks)
        with self._lock:
            new = set().union(*ids.values()).difference(self._note.objects)
            if new:
                with self._saving() as note:
                    note.objects = dict(sorted({**note.objects, **{i: _new_object(i) for i in new}}.items()))
                self._announce_objects()
            for number, mask in masks.items():
                self.annotate(number, mask, self._revisions[number])

    def change_object(self, number: int, fields: dict[str, Any]) -> dict[str, Any]:
        """Change the name, colour or visibility of an object; see `add_object`."""
        fields = check_object(fields)
        with self._lock:
            self.check_object(number)
            changed = {**self._note.objects[number], **fields}
            with self._saving() as note:
                note.objects[number] = changed
            self._announce_objects()
            return dict(changed)

    def check_object(self, number: int) -> None:
        """Refuse the id of no object."""
        if number not in self._note.objects:
            raise Refused(404, f"there is no object {number}; load the page again")

    def delete_object(self, number: int, job: Job) -> None:
        """Erase an object from all masks, and remove it from the list at the end.

        A mask is deleted if its annotation holds no other object, or if the project has no other object.
        """
        self._deleting = number
        try:
            for frame in range(len(self)):
                if job.stopped:
                    return
                self._erase(frame, number)
                job.passed(frame)
            with self._lock:
                with self._saving() as note:
                    del note.objects[number]
                    note.annotated = {n: [i for i in ids if i != number] for n, ids in note.annotated.items()}
                self._announce_objects()
        finally:
            self._deleting = None

    def _erase(self, frame: int, number: int) -> None:
        with self._lock:
            kind = self._kinds[frame]
            if kind == NONE:
                return
            if list(self._note.objects) == [number] or (
                kind == ANNOTATED and set(self._note.annotated[frame]) <= {number}
            ):
                self._remove(frame)
                return
            ids = self._ids(frame)
            if (ids == number).any():
                self._write(frame, np.where(ids == number, np.uint8(0), ids))
                self._changed(frame, kind, self._uncertainty[frame])

    def _path(self, number: int) -> Path:
        return self._masks / self.frames.video.mask_name(number)

    def _ids(self, number: int) -> np.ndarray:
        video = self.frames.video
        if self._kinds[number] == NONE:
            return np.zeros(video.size, np.uint8)
        return read_sized_mask(self._path(number), video.size, video.name)

    def _check_revision(self, number: int, revision: int) -> None:
        if self._revisions[number] != revision:
            raise Refused(412, "this frame has changed in the meantime; review it before you change it")

    def _check_objects(self, shown: Iterable[int]) -> None:
        if unknown := set(shown).difference(self._note.objects) | {self._deleting}.intersection(shown):
            raise Refused(400, f"there is no object {min(unknown)}; load the page again")

    def _write(self, number: int, ids: np.ndarray) -> None:
        write_mask(self._path(number), ids, durable=True)

    def _remove(self, number: int) -> int:
        # The annotation comes first: if the power fails between the two files, a mask without an annotation is left.
        if number in self._note.annotated:
            with self._saving() as note:
                del note.annotated[number]
        self._path(number).unlink(missing_ok=True)
        return self._changed(number, NONE)

    @contextlib.contextmanager
    def _saving(self, write: Callable[[], None] = lambda: None) -> Iterator[Note]:
        """Yield the note for a change and save it; a change that cannot be saved is undone.

        `write` writes the mask that the note speaks of. Its file appears before that of the note: if the power fails
        between the two, the stroke is not lost.
        """
        note = self._note
        before = dict(note.objects), dict(note.annotated)
        try:
            yield note
            with note.saved(self.frames.fps):
                write()
        except InputError:
            note.objects, note.annotated = before
            raise

    def _announce_objects(self) -> None:
        self._announce({"type": "objects", "objects": self.objects()})

    def _changed(self, number: int, kind: int, uncertainty: float = math.nan) -> int:
        """Record a changed mask, and announce it."""
        self._kinds[number] = kind
        self._uncertainty[number] = uncertainty
        self._revisions[number] = next(self._changes)
        bits = None if math.isnan(uncertainty) else round(uncertainty, 6)
        event = {"number": number, "kind": KINDS[kind], "revision": self._revisions[number], "uncertainty": bits}
        self._announce({"type": "frame", **event})
        return self._revisions[number]

    def _find_masks(self) -> bytearray:
        """Find the kinds of all masks."""
        names = {path.name for path in self._masks.glob("*.png")}
        video = self.frames.video
        kinds = bytearray(PROPAGATED if video.mask_name(n) in names else NONE for n in range(len(self)))
        for number in self._note.annotated:
            if kinds[number] == NONE:
                raise InputError(
                    f"{self._path(number)} is missing, but {self._note.path} lists it as an annotation; restore "
                    f"the mask from a copy, or remove frame {number} from that file"
                )
            kinds[number] = ANNOTATED
        return kinds

    def _read_uncertainty(self) -> None:
        """Read the uncertainties, and write one line for each, without incomplete lines of a killed server."""
        path = self._uncertainty_path
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        for match in re.finditer(r"^([0-9]{1,9}),([0-9]\.[0-9]{6})$(?=\n)", text, re.MULTILINE):
            number = int(match[1])
            if number < len(self) and self._kinds[number] == PROPAGATED:
                self._uncertainty[number] = float(match[2])
        with atomic_path(path, durable=True) as temporary, open(temporary, "w", encoding="utf-8") as file:
            for number, value in enumerate(self._uncertainty):
                if not math.isnan(value):
                    file.write(_uncertainty_line(number, value))

    def _append_uncertainty(self, number: int, value: float) -> None:
        # Not durable, for speed: a power cut may lose lines, but no mask.
        if math.isnan(value):
            return
        try:
            with open(self._uncertainty_path, "a", encoding="utf-8") as file:
                file.write(_uncertainty_line(number, value))
        except OSError as error:
            raise write_error(self._uncertainty_path, error.strerror) from None


def _new_object(number: int) -> dict[str, Any]:
    return {"id": number, "name": f"object {number}", "colour": colour_of(number), "visible": True}


def _uncertainty_line(number: int, value: float) -> str:
    return f"{number},{value:.6f}\n"
