"""The check of free disk space."""

import shutil
from pathlib import Path

from tqdm import tqdm

from util.errors import InputError


def require_space(folder: Path, needed: int, file: Path) -> None:
    """Check that the disk of ``folder`` has space for ``needed`` more bytes of ``file``.

    Raises:
        InputError: there is too little space.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        needed_text, free_text = (tqdm.format_sizeof(number, "B", 1024) for number in (needed, free))
        raise InputError(
            f"{file} needs {needed_text} more, but {folder} has {free_text}; free some space there or choose another "
            f"--root, and run the same command again"
        )
