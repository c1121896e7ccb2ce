"""Unpack untrusted archives completely and inside one folder, or refuse them; and put their content in its place."""

import contextlib
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from downloads.catalogue import ARCHIVES, Part
from util.errors import InputError
from util.files import is_plain_name, write_error, write_lines

_MARKS = ".unpacked_archives"  # a folder in a target, with an empty file for each completely unpacked archive
_DEPTH = 2  # the maximum number of folders around the content of an archive
_TAR_END = 1024  # the number of zero bytes that end a tar archive
_ZIP_HEADER = 30  # the least number of bytes between an entry's offset and its data
# DAVIS 2016 has lists of frames. The scripts read lists of videos in ImageSets/2016, as in DAVIS 2017.
_FRAME_LISTS, _VIDEO_LISTS = Path("ImageSets/480p"), Path("ImageSets/2016")
# The errors of zipfile and tarfile for damaged content, passwords and unknown formats.
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)


def file_path(root: Path, part: Part) -> Path:
    """Return the path of a part's file: of the archive, or of a file that is used unchanged."""
    return root / (ARCHIVES if part.holds else part.target) / part.name


def is_in_place(root: Path, part: Part) -> bool:
    """Whether a part is complete in its target, also if it was unpacked by hand."""
    if not part.holds:
        return file_path(root, part).is_file()
    target = root / part.target
    return _holds(target, part.holds) and (not (target / _MARKS).is_dir() or (target / _MARKS / part.name).is_file())


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


def put_in_place(root: Path, part: Part) -> None:
    """Unpack the archive of a part into its target.

    The archive is first unpacked into a temporary folder. A new target appears at once with all of its content. Files
    are added to an existing target and overwrite others.

    Raises:
        InputError: the archive cannot be unpacked or does not hold the content; the target is then as before. Or the
            target cannot be written.
    """
    archive, target = file_path(root, part), root / part.target
    try:
        with _temporary_folder(target) as folder:
            _unpack(archive, folder)
            content = _find_content(archive, folder, part.holds)
            _write_video_lists(archive, content)
            (content / _MARKS).mkdir()
            _merge(content, target)
        (target / _MARKS / part.name).touch()
    except OSError as error:
        raise write_error(target, error.strerror or error) from None


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack the files and folders of a .zip or .tar archive into an empty folder. Checksums are verified.

    Raises:
        InputError: the archive is damaged; it holds a link, a device, or a path that leaves the folder; or the content
            does not fit on the disk.
    """
    unpacked = _unpack_zip if archive.suffix == ".zip" else _unpack_tar
    settings = {"unit": "B", "unit_scale": True, "unit_divisor": 1024, "disable": None}
    try:
        with tqdm(desc=f"unpacking {archive.name}", **settings) as bar:
            for size in unpacked(archive, folder):
                bar.update(size)
    except (FileExistsError, IsADirectoryError, NotADirectoryError):
        raise _refusal(archive, "a file where another entry needs a folder") from None
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's; a damaged bzip2 has no number
            raise
        what = "a web page, not an archive" if _is_web_page(archive) else f"damaged or incomplete ({error})"
        raise InputError(f"{archive} is {what}; delete it, and run the same command again") from None


def _unpack_zip(path: Path, folder: Path) -> Iterator[int]:
    """Unpack, and yield the bytes of each entry. No entry is larger than it says, so the sum of sizes bounds all."""
    with zipfile.ZipFile(path) as archive:
        entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
        require_space(folder.parent, sum(entry.file_size for entry in entries), path)
        ends = [entry.header_offset for entry in entries[1:]] + [archive.start_dir]
        for entry, end in zip(entries, ends, strict=True):
            if entry.header_offset + _ZIP_HEADER + entry.compress_size > end:
                raise zipfile.BadZipFile(f"{entry.filename!r} overlaps with another entry")
            kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 if the archive was not made on Unix
            _check_entry(path, entry.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR))
            written = Path(archive.extract(entry, folder))
            if not entry.is_dir() and written.stat().st_size != entry.file_size:
                raise zipfile.BadZipFile(f"{entry.filename!r} is shorter than it says")
            yield entry.file_size


def _unpack_tar(path: Path, folder: Path) -> Iterator[int]:
    """Unpack, and yield the bytes of each entry."""
    require_space(folder.parent, path.stat().st_size, path)
    with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
        while (entry := archive.next()) is not None:
            _check_entry(path, entry.name, (entry.isreg() or entry.isdir()) and not entry.issparse())
            require_space(folder.parent, entry.size, path)
            archive.extract(entry, folder, filter="data")
            archive.members.clear()  # otherwise the list grows to a million files
            yield entry.size
        # tarfile accepts an archive that is truncated between two entries.
        file.seek(max(0, path.stat().st_size - _TAR_END))
        if any(file.read()):
            raise tarfile.ReadError("the end is missing")


def _check_entry(archive: Path, name: str, is_plain: bool) -> None:
    # Tar archives write "./a/b" and "a/b/" as well.
    if name.startswith("/") or not all(is_plain_name(part) for part in name.split("/") if part not in ("", ".")):
        raise _refusal(archive, f"{name!r}, a path that leaves the folder")
    if not is_plain:
        raise _refusal(archive, f"{name!r}, a link or a device")


def _refusal(archive: Path, what: str) -> InputError:
    return InputError(f"{archive} holds {what}; delete the archive, and get it from a source that you trust")


def _is_web_page(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(256).lstrip().lower().startswith((b"<!doctype", b"<html"))


@contextlib.contextmanager
def _temporary_folder(target: Path) -> Iterator[Path]:
    """Make an empty folder beside the target, and delete it afterwards. A killed process may have left an old one."""
    target = target.resolve()  # a link to another disk: the folder must be on that disk
    folder = target.with_name(f".{target.name}.unpacking")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _find_content(archive: Path, folder: Path, names: tuple[str, ...]) -> Path:
    """Return the folder that holds all of these names: ``folder`` itself, or a folder in it."""
    level = [folder]
    for _ in range(_DEPTH + 1):
        found = [candidate for candidate in level if _holds(candidate, names)]
        if len(found) == 1:
            return found[0]
        level = [child for parent in level for child in sorted(parent.iterdir()) if child.is_dir()]
    raise InputError(
        f"{archive} has no folder that holds {', '.join(names)}, so it is another archive; delete it, and run the same "
        f"command again"
    )


def _holds(folder: Path, names: tuple[str, ...]) -> bool:
    present = {name.lower() for name in os.listdir(folder)} if folder.is_dir() else set()
    return all(name.lower() in present for name in names)


def _write_video_lists(archive: Path, content: Path) -> None:
    """Write DAVIS 2016's lists of videos from its lists of frames. Do nothing without lists of frames."""
    for split in ("train", "val"):
        frames, videos = (content / folder / f"{split}.txt" for folder in (_FRAME_LISTS, _VIDEO_LISTS))
        if not frames.is_file() or videos.exists():
            continue
        # A line is "/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png".
        lines = frames.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [Path(line.split()[0]).parent.name for line in lines if line.strip()]
        if not all(map(is_plain_name, names)):
            raise InputError(f"{archive} holds no list of frames in {_FRAME_LISTS / frames.name}; get it again")
        write_lines(videos, dict.fromkeys(names))


def _merge(source: Path, target: Path) -> None:
    # The marks come first, see `is_in_place`: the target lacks this archive's until everything has been moved.
    if source.is_dir() and target.is_dir():
        for entry in sorted(source.iterdir(), key=lambda path: (path.name != _MARKS, path.name)):
            _merge(entry, target / entry.name)
    else:
        os.replace(source, target)
