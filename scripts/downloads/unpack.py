"""Unpack archives completely and inside one folder, or refuse them; and put their content in its place."""

import contextlib
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from downloads.catalogue import ARCHIVES, Part
from util.errors import InputError
from util.files import folders_near, write_error, write_lines

_MARKS = ".unpacked_archives"  # a folder in a target, with an empty file for each completely unpacked archive
_TAR_END = 1024  # the number of zero bytes that end a tar archive
# DAVIS 2016 has lists of frames. The scripts read lists of videos in ImageSets/2016, as in DAVIS 2017.
_FRAME_LISTS, _VIDEO_LISTS = Path("ImageSets/480p"), Path("ImageSets/2016")
# The errors of zipfile and tarfile for damaged content, passwords, unknown formats, and paths outside of the folder.
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
    """Refuse ``file`` if the disk of ``folder`` lacks the space for ``needed`` more bytes of it."""
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
            try:
                _unpack(archive, folder)
            except (*_DAMAGE, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:  # the system's; a damaged bzip2 has none
                    raise
                raise InputError(
                    f"{archive} is damaged or incomplete ({error}); delete it, and run the same command again"
                ) from None
            folders = (folder, *folders_near(folder, above=0, below=(1, 2)))
            content = next((each for each in folders if _holds(each, part.holds)), None)
            if content is None:
                raise InputError(
                    f"{archive} has no folder that holds {', '.join(part.holds)}, so it is another archive; delete "
                    f"it, and run the same command again"
                )
            _write_video_lists(content)
            if target.exists():
                # The marks come first, see `is_in_place`: this archive's is lacking until everything has been moved.
                (target / _MARKS).mkdir(exist_ok=True)
                shutil.copytree(content, target, copy_function=os.replace, dirs_exist_ok=True)
            else:
                (content / _MARKS).mkdir()
                os.replace(content, target)
        (target / _MARKS / part.name).touch()
    except OSError as error:
        raise write_error(target, error.strerror or error) from None


def _unpack(path: Path, folder: Path) -> None:
    """Unpack a zip or tar archive. No entry is larger than it says, so the sizes bound the space."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            require_space(folder, sum(entry.file_size for entry in archive.infolist()), path)
            for entry in tqdm(archive.infolist(), desc=f"unpacking {path.name}", unit="file", disable=None):
                written = Path(archive.extract(entry, folder))
                if not entry.is_dir() and written.stat().st_size != entry.file_size:
                    raise zipfile.BadZipFile(f"{entry.filename!r} is shorter than it says")
        return
    with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
        bar = tqdm(desc=f"unpacking {path.name}", unit="file", disable=None)
        while (entry := archive.next()) is not None:
            require_space(folder, entry.size, path)
            archive.extract(entry, folder, filter="data")
            archive.members.clear()  # otherwise the list grows to a million files
            bar.update()
        # tarfile accepts an archive that is truncated between two entries.
        file.seek(max(0, path.stat().st_size - _TAR_END))
        if any(file.read()):
            raise tarfile.ReadError("the end is missing")


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


def _holds(folder: Path, names: tuple[str, ...]) -> bool:
    present = {name.lower() for name in os.listdir(folder)} if folder.is_dir() else set()
    return all(name.lower() in present for name in names)


def _write_video_lists(content: Path) -> None:
    """Write DAVIS 2016's lists of videos from its lists of frames. Do nothing without lists of frames."""
    for frames in (content / _FRAME_LISTS).glob("*.txt"):
        # A line is "/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png".
        lines = frames.read_text(encoding="utf-8", errors="replace").splitlines()
        names = dict.fromkeys(Path(line.split()[0]).parent.name for line in lines if line.strip())
        write_lines(content / _VIDEO_LISTS / frames.name, names)
