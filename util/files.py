"""Atomic writes, and notes that record the settings of a folder."""

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from util.errors import InputError

GIT_LFS = b"version https://git-lfs"  # the start of a pointer, which Git leaves in place of a file that was not fetched
_PATIENCE = 10.0  # seconds that a lock is waited for; forked processes notice within 5 that their parent has ended
_TEMPORARY = re.compile(r"\..*\.(\d+)\.tmp(\..*)?")  # the names of `atomic_path`


class ChangedSetting(NamedTuple):
    """A setting whose value in a note differs from the wanted value; None stands for a missing setting."""

    name: str
    found: object
    wanted: object


def write_error(path: Path, reason: object) -> InputError:
    """The error of a file that cannot be written, most often because the disk is full."""
    return InputError(
        f"{path} cannot be written ({reason}); free some space in {path.parent} or choose another folder, and run the "
        "same command again"
    )


@contextlib.contextmanager
def atomic_path(path: Path | str, *, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``. Rename it to ``path`` on success, delete it on failure.

    The temporary name keeps the suffix, which determines the format of images and archives. It starts with a dot, so
    that readers of the folder ignore it. Missing parent folders are created.

    Args:
        durable: whether to flush the file to disk, so that a power failure cannot lose it.

    Raises:
        InputError: the file or a parent folder cannot be written.
        OSError: the caller failed to read another file.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error.strerror) from None
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        if durable:
            _synchronise(temporary)
        os.replace(temporary, path)
        if durable:
            _synchronise(path.parent)  # contains the file's name
    except OSError as error:
        # An error of copying names the source first and the target second.
        if error.filename is not None and error.filename2 is None and str(error.filename) != str(temporary):
            raise
        raise write_error(path, error.strerror or error) from None
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def lock_folder(path: Path, *inside: str) -> Iterator[None]:
    """A context in which no other process can lock the folder. At its start `remove_leftovers` cleans the folder.

    The system releases the lock when this process ends, in whatever way. Processes that were forked from it may hold
    the lock a few seconds longer, so this waits for them. A folder that is still empty at the end is deleted.

    Args:
        path: the folder; it is created if it is missing.
        inside: patterns of the folders inside that are cleaned, too.

    Raises:
        InputError: another process uses the folder.
    """
    name = path / ".lock"
    lock = FileLock(name)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=_PATIENCE, poll_interval=0.1)
        if not name.exists():  # the last owner has just deleted it
            raise Timeout(str(name))
    except Timeout:
        raise InputError(f"another process uses {path}; wait until it has ended, or choose another folder") from None
    except OSError as error:
        raise write_error(path, error.strerror or error) from None
    try:
        for folder in (path, *(found for pattern in inside for found in path.glob(pattern))):
            remove_leftovers(folder)
        yield
    finally:
        with contextlib.suppress(OSError):
            name.unlink()  # Windows deletes no open file
            path.rmdir()  # fails if something was written
        lock.release()


def folders_near(folder: Path, above: int, below: Iterable[int]) -> Iterator[Path]:
    """The folders near one: those that hold it, the nearest first, and then those in it.

    Args:
        above: how many of the folders that hold it.
        below: the depths of those in it: 1 for its own folders, 2 for the folders in these.
    """
    yield from folder.absolute().parents[:above]
    for depth in below:
        yield from sorted(folder.glob("*/" * depth))


def remove_leftovers(folder: Path) -> None:
    """Delete what `atomic_path` and `atomic_folder` have left in a folder when their process was killed.

    Files of running processes stay. A folder that is a link is left alone.
    """
    for path in folder.glob(".*.tmp*") if not folder.is_symlink() else ():
        if (found := _TEMPORARY.fullmatch(path.name)) and not _is_running(int(found[1])):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        return True
    return True


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder. It replaces ``path`` on success, and is deleted on failure."""
    unfinished, old = (path.with_name(f".{path.name}.{kind}.{os.getpid()}.tmp") for kind in ("unfinished", "old"))
    for folder in (unfinished, old):
        shutil.rmtree(folder, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        if path.exists():
            os.replace(path, old)
        os.replace(unfinished, path)
    finally:
        for folder in (unfinished, old):
            shutil.rmtree(folder, ignore_errors=True)


def _synchronise(path: Path) -> None:
    """Flush the content of a file, or the list of names of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Write a text file in UTF-8; see `atomic_path`. Bytes of names that are not UTF-8 are written as ``\\udcff``."""
    with atomic_path(path, durable=durable) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text file with these lines; see `atomic_path`."""
    write_text(path, "".join(f"{line}\n" for line in lines))


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write a table as CSV, with six decimal places. See `write_text` for names that are not UTF-8."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([f"{cell:.6f}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    write_text(path, file.getvalue())


def is_plain_name(name: str) -> bool:
    """Whether an untrusted name is the name of one file or folder, and not a path."""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Raises:
        InputError: the file is missing or holds no JSON object; the message ends with the remedy.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}); {remedy}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} cannot be read (it holds no JSON object); {remedy}")
    return content


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(paths: Iterable[Path]) -> str:
    """A hash of the names, sizes and modification times of files: it changes when a file is replaced."""
    digest = hashlib.sha256()
    for path in paths:
        status = path.stat()
        digest.update(f"{path.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def check_settings(note: Path, settings: Mapping[str, object]) -> list[ChangedSetting]:
    """Compare the settings of a folder, which are in a note, with other settings.

    The first call writes the settings into the note. Every later call compares its settings with the note. Values are
    compared as JSON returns them: a tuple equals a list.

    Args:
        note: a JSON file in the folder; a missing note is written, with missing parent folders.
        settings: values that JSON can hold, by name.

    Returns:
        the settings that differ: first those in ``settings``, in their order, then those that only the note has. The
        list is empty if all settings are equal.
    """
    text = json.dumps(settings, indent=1)
    if not note.is_file():
        write_text(note, text + "\n")
    found, wanted = read_json(note, "choose another folder or delete this one"), json.loads(text)
    differences = [ChangedSetting(name, found.get(name), wanted.get(name)) for name in {**wanted, **found}]
    return [difference for difference in differences if difference.found != difference.wanted]
