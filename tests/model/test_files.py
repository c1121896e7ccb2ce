"""Files that are complete or absent, and notes that say which settings a folder belongs to."""

import json
import os
import signal
import subprocess
import sys

import pytest

from conftest import ROOT
from util import files
from util.errors import InputError
from util.files import ChangedSetting, atomic_path, check_settings, lock_folder


def test_a_folder_belongs_to_its_first_settings(tmp_path):
    note = tmp_path / "folder" / "note.json"
    settings = {"size": (48, 80), "seed": 0, "recipe": {"steps": (1, 2)}}
    assert check_settings(note, settings) == []
    written = note.read_text()
    assert json.loads(written) == {"size": [48, 80], "seed": 0, "recipe": {"steps": [1, 2]}}
    assert check_settings(note, settings) == []
    other = {"new": True, "seed": 1, "size": (48, 80)}
    assert check_settings(note, other) == [
        ChangedSetting("new", None, True),
        ChangedSetting("seed", 0, 1),
        ChangedSetting("recipe", {"steps": [1, 2]}, None),
    ]
    assert note.read_text() == written


def test_a_durable_file_reaches_the_disk_before_its_name_does(monkeypatch, tmp_path):
    """First the content, then the folder that holds the name."""
    synced, path = [], tmp_path / "note.txt"
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    with atomic_path(path, durable=True) as temporary:
        temporary.write_text("x")
    assert synced == [str(temporary), str(tmp_path)]


HOLD = """
import os, sys, time
from pathlib import Path
from util.files import lock_folder
with lock_folder(Path(sys.argv[1])):
    Path(sys.argv[1], "result").touch()
    print("locked", flush=True)
    time.sleep(100)
"""


def test_one_process_at_a_time_uses_a_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "_PATIENCE", 0.2)
    folder = tmp_path / "new" / "folder"
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(InputError, match=f"another process uses {folder}; wait"), lock_folder(folder):
            pass
        other.send_signal(signal.SIGKILL)
    with lock_folder(folder):
        assert (folder / "result").exists()
    with lock_folder(folder):  # and again
        pass


def test_the_next_process_removes_what_a_killed_one_has_left(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    kept = (f".a.{os.getpid()}.tmp.pth", ".b.tmp.png", ".c.12x.tmp", "d.tmp.png", f"e.{ended.pid}.tmp.mp4")
    for name in (*kept, f".checkpoint_9.{ended.pid}.tmp.pth", f"..unpacked.{ended.pid}.tmp", f".{9**30}.{9**30}.tmp"):
        (tmp_path / name).touch()
    (tmp_path / f".cutout.unfinished.{ended.pid}.tmp").mkdir()
    (tmp_path / f".cutout.unfinished.{ended.pid}.tmp" / "1.png").touch()
    inner, linked = tmp_path / "frames", tmp_path / "linked"
    for folder in (inner, tmp_path / "elsewhere"):
        folder.mkdir()
        (folder / f"..unpacking.{ended.pid}.tmp").touch()
    linked.symlink_to(tmp_path / "elsewhere")
    with lock_folder(tmp_path, "frames", "linked", "absent"):
        assert {path.name for path in tmp_path.iterdir()} == {*kept, ".lock", "frames", "linked", "elsewhere"}
        assert not list(inner.iterdir()) and list(linked.iterdir())
