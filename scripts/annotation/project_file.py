"""The file of a project, ``project.json``: the video, its objects, and the annotated frames."""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from annotation.errors import Refused
from annotation.frames import Frames
from util.errors import InputError
from util.files import atomic_path, read_json

MOST_OBJECTS = 255  # ids of one byte; 0 is the background
LONGEST_NAME = 60  # characters


class Note:
    """The content of ``project.json``.

    Attributes:
        frames: the number of frames of the video; None in a new project.
        objects: the objects by their ids, in order. Each has an id, a name, a colour and a visibility.
        annotated: by frame number, the ids of the objects that the annotated mask holds, or that were erased from it.
    """

    def __init__(self, folder: Path, source: Path) -> None:
        self.path = folder / "project.json"
        self._source = str(source)
        self.frames: int | None = None
        self.size: tuple[int, int] | None = None
        self.objects: dict[int, dict[str, Any]] = {}
        self.annotated: dict[int, list[int]] = {}
        if self.path.exists():
            self._read()
        elif any((folder / "masks").glob("*.png")):
            raise InputError(f"{folder} holds masks, but {self.path} is missing; choose another --output")

    def _read(self) -> None:
        content = read_json(self.path, "restore it from a copy, or choose another --output")
        if content.get("video") != self._source:
            raise InputError(
                f"{self.path.parent} is the project of {content.get('video')}; choose another --output, or correct the "
                f"path in {self.path} if the video has moved"
            )
        try:
            self.frames, self.size = int(content["frames"]), (int(content["height"]), int(content["width"]))
            for entry in content["objects"]:
                checked = {"id": int(entry["id"]), **check_object(entry)}
                if not 1 <= checked["id"] <= MOST_OBJECTS or len(checked) < 4:
                    raise ValueError(f"{entry} is no object")
                self.objects[checked["id"]] = checked
            self.annotated = {int(number): [int(i) for i in ids] for number, ids in content["annotated"].items()}
            if self.annotated and not 0 <= min(self.annotated) <= max(self.annotated) < self.frames:
                raise ValueError(f"the video has no frame {max(self.annotated)}")
        except (KeyError, TypeError, ValueError, AttributeError, Refused) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else error
            raise InputError(
                f"{self.path} is damaged ({reason}); restore it from a copy, or choose another --output"
            ) from None

    def check(self, frames: Frames) -> None:
        """Refuse a video that has changed since the project was created; a new project records its length and size."""
        found, size = len(frames), frames.video.size
        if (self.frames or found, self.size or size) != (found, size):
            raise InputError(
                f"{self._source} has {found} frames of {size[1]}×{size[0]}, but had {self.frames} of "
                f"{self.size[1]}×{self.size[0]} when {self.path.parent} was created; choose another --output"
            )
        self.frames, self.size = found, size

    @contextlib.contextmanager
    def saved(self, fps: float) -> Iterator[None]:
        """Write the file, durably. It is replaced after the body of the `with`, and only if the body raises no error.

        The new file is on disk before the body runs, so that a full disk refuses it before the body changes masks.
        """
        content = {
            "video": self._source,
            "frames": self.frames,
            "width": self.size[1],
            "height": self.size[0],
            "fps": fps,
            "objects": list(self.objects.values()),
            "annotated": {str(number): ids for number, ids in sorted(self.annotated.items())},
        }
        with atomic_path(self.path, durable=True) as temporary:
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(json.dumps(content, indent=1) + "\n")
                file.flush()
                os.fsync(file.fileno())
            yield


def check_object(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the name, colour and visibility among ``fields``, normalised."""
    checked: dict[str, Any] = {}
    if "name" in fields:
        name = " ".join(fields["name"].split()) if isinstance(fields["name"], str) else ""
        if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
            raise Refused(400, f"the name of an object has 1 to {LONGEST_NAME} characters; choose another name")
        checked["name"] = name
    if "colour" in fields:
        checked["colour"] = str(fields["colour"]).lower()
        if not re.fullmatch(r"#[0-9a-f]{6}", checked["colour"]):
            raise Refused(400, "a colour has the form #rrggbb; choose another colour")
    if "visible" in fields:
        checked["visible"] = bool(fields["visible"])
    return checked
