"""Unpack untrusted archives completely and inside one folder, or refuse them."""

import contextlib
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from tqdm import tqdm

from downloads.space import require_space
from util.errors import InputError
from util.files import is_plain_name, refuse_pipe

_TAR_END = 1024  # the number of zero bytes that end a tar archive
_CHUNK = 1 << 20  # bytes to copy at a time
# The errors of zipfile and tarfile for damaged content, passwords and unknown formats.
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)


class _Member(NamedTuple):
    name: str
    size: int  # bytes of the unpacked file
    is_folder: bool
    is_special: bool  # a link or a device
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .zip or .tar archive into a folder.

    Only files and folders are unpacked, and only inside ``folder``. Checksums are verified.

    Args:
        archive: the archive.
        folder: an empty folder on the same disk as its parent. After an error its content is incomplete.

    Raises:
        InputError: the archive is damaged; it holds a link, a device, or a path that leaves the folder; or the content
            does not fit on the disk.
        OSError: the archive cannot be read, or the content cannot be written.
    """
    refuse_pipe(archive)
    try:
        with (
            _open_archive(archive) as (total, members),
            tqdm(
                desc=f"unpacking {archive.name}",
                total=total,
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
                disable=None,
            ) as bar,
        ):
            require_space(folder.parent, total, archive)
            for member in members:
                _write(archive, member, folder)
                bar.update(member.size)
    except _DAMAGE as error:
        what = "a web page, not an archive" if _is_web_page(archive) else f"damaged or incomplete ({error})"
        raise InputError(f"{archive} is {what}; delete it, and run the same command again") from None


def _write(archive: Path, member: _Member, folder: Path) -> None:
    # Tar archives write "./a/b" and "a/b/" as well.
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    if member.name.startswith("/") or not all(map(is_plain_name, parts)):
        raise _refusal(archive, f"{member.name!r}, a path that leaves the folder")
    if member.is_special:
        raise _refusal(archive, f"{member.name!r}, a link or a device")
    path = folder.joinpath(*parts)
    require_space(folder.parent, member.size, archive)
    try:
        (path if member.is_folder else path.parent).mkdir(parents=True, exist_ok=True)
        if not member.is_folder:
            with member.open() as source, open(path, "wb") as target:
                shutil.copyfileobj(source, target, _CHUNK)
    except (FileExistsError, IsADirectoryError, NotADirectoryError):
        raise _refusal(archive, f"{member.name!r}, a file where another entry needs a folder") from None


def _refusal(archive: Path, what: str) -> InputError:
    return InputError(f"{archive} holds {what}; delete the archive, and get it from a source that you trust")


@contextlib.contextmanager
def _open_archive(path: Path) -> Iterator[tuple[int, Iterator[_Member]]]:
    """Open an archive for reading. Yield the size of the content in bytes, and the members in order."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            yield sum(info.file_size for info in archive.infolist()), _zip_members(archive)
        return
    with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
        yield path.stat().st_size, _tar_members(archive)
        # tarfile accepts an archive that is truncated between two members.
        file.seek(max(0, path.stat().st_size - _TAR_END))
        if any(file.read()):
            raise tarfile.ReadError("the end is missing")


def _zip_members(archive: zipfile.ZipFile) -> Iterator[_Member]:
    for info in archive.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)  # 0 if the archive was not made on Unix
        is_special = kind not in (0, stat.S_IFREG, stat.S_IFDIR)
        yield _Member(info.filename, info.file_size, info.is_dir(), is_special, lambda info=info: archive.open(info))


def _tar_members(archive: tarfile.TarFile) -> Iterator[_Member]:
    while (info := archive.next()) is not None:
        is_special = not info.isreg() and not info.isdir()
        yield _Member(info.name, info.size, info.isdir(), is_special, lambda info=info: archive.extractfile(info))
        archive.members.clear()  # otherwise the list grows to a million files


def _is_web_page(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(256).lstrip().lower().startswith((b"<!doctype", b"<html"))
