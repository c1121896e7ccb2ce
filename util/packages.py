"""Packages that only some scripts need, and that requirements.txt therefore lacks."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

_FOLDER = Path(__file__).resolve().parents[1] / "scripts" / "requirements"


@contextlib.contextmanager
def needs(name: str) -> Iterator[None]:
    """A context for imports of packages from ``scripts/requirements/<name>.txt``.

    A missing package ends the script with one sentence on stderr and exit code 2.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        file = _FOLDER / f"{name}.txt"
        print(f"error: the package {error.name} is missing; run pip install -r {file}", file=sys.stderr)
        sys.exit(2)
