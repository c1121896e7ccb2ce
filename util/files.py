"""Files that are either complete or not there."""

import contextlib
import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from util.errors import InputError


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` on success, delete it on any failure.

    The temporary name keeps the suffix, which image and archive writers read the format from, and starts with a
    dot, so that no reader of the folder takes it for a result. Missing parent folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write a table, floats with six digits after the point.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([f"{cell:.6f}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); choose another output folder") from None
