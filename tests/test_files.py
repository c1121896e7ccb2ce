"""Notes that say which settings a folder belongs to."""

import json

import pytest

from util.errors import InputError
from util.files import Difference, claim


def test_a_folder_belongs_to_its_first_settings(tmp_path):
    note = tmp_path / "folder" / "note.json"
    settings = {"size": (48, 80), "seed": 0, "recipe": {"steps": (1, 2)}}
    assert claim(note, settings) == []
    written = note.read_text()
    assert json.loads(written) == {"size": [48, 80], "seed": 0, "recipe": {"steps": [1, 2]}}
    assert claim(note, settings) == []
    other = {"new": True, "seed": 1, "size": (48, 80)}
    assert claim(note, other) == [
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
        claim(note, {"seed": 0})
