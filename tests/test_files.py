"""Files that are complete or absent, and notes that say which settings a folder belongs to."""

import json
import os

import pytest

from util.errors import InputError
from util.files import Difference, atomic_path, check_settings


def test_a_folder_belongs_to_its_first_settings(tmp_path):
    note = tmp_path / "folder" / "note.json"
    settings = {"size": (48, 80), "seed": 0, "recipe": {"steps": (1, 2)}}
    assert check_settings(note, settings) == []
    written = note.read_text()
    assert json.loads(written) == {"size": [48, 80], "seed": 0, "recipe": {"steps": [1, 2]}}
    assert check_settings(note, settings) == []
    other = {"new": True, "seed": 1, "size": (48, 80)}
    assert check_settings(note, other) == [
        Difference("new", None, True),
        Difference("seed", 0, 1),
        Difference("recipe", {"steps": [1, 2]}, None),
    ]
    assert note.read_text() == written


@pytest.mark.parametrize("damaged", ["", "{", "[1]", "\xff"])
def test_a_damaged_note_is_refused(tmp_path, damaged):
    note = tmp_path / "note.json"
    note.write_text(damaged, encoding="latin-1")
    with pytest.raises(InputError, match=r"note.json cannot be read .*; choose another folder or delete this one"):
        check_settings(note, {"seed": 0})


def test_a_durable_file_reaches_the_disk_before_its_name_does(monkeypatch, tmp_path):
    """First the content, then the new name, then the folder that holds the name."""
    path, steps = tmp_path / "folder" / "note.txt", []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        steps.append(("disk", os.readlink(f"/proc/self/fd/{descriptor}"), path.exists()))
        fsync(descriptor)

    def note_replace(source, target) -> None:
        steps.append(("name", str(target), path.exists()))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    with atomic_path(path, durable=True) as temporary:
        temporary.write_text("x")
    assert steps == [
        ("disk", str(temporary), False),
        ("name", str(path), False),
        ("disk", str(path.parent), True),
    ]
    steps.clear()
    with atomic_path(path) as temporary:
        temporary.write_text("y")
    assert [kind for kind, *_ in steps] == ["name"]
