"""The place of each part in the root folder, in the layout of the project's scripts."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from downloads.archives import unpack
from downloads.catalogue import ARCHIVES, Part
from util.errors import InputError
from util.files import is_plain_name, sha256, write_error, write_lines

_LIST = ".unpacked"  # a file in a target folder that lists the completely unpacked archives
_DEPTH = 2  # the maximum number of folders around the content of an archive
# DAVIS 2016 has lists of frames. The scripts read lists of videos in ImageSets/2016, as in DAVIS 2017.
_FRAME_LISTS, _VIDEO_LISTS = Path("ImageSets/480p"), Path("ImageSets/2016")


def file_path(root: Path, part: Part) -> Path:
    """Return the path of a part's file: of the archive, or of a file that is used unchanged."""
    return root / (ARCHIVES if part.holds else part.target) / part.name


def is_in_place(root: Path, part: Part) -> bool:
    """Whether a part is complete in its target, also if it was unpacked by hand."""
    if not part.holds:
        return file_path(root, part).is_file()
    target = root / part.target
    return _holds(target, part.holds) and (not (target / _LIST).exists() or part.name in _unpacked(target))


def verify(part: Part, path: Path) -> None:
    """Compare a file with the size and the hash of its part, if they are known.

    Raises:
        InputError: the file differs.
    """
    size = path.stat().st_size
    if part.size is not None and size != part.size:
        raise InputError(
            f"{path} has the wrong size, {size} bytes instead of {part.size}; delete it, and run the same command again"
        )
    if part.sha256 is not None and sha256(path) != part.sha256:
        raise InputError(f"{path} has the wrong SHA-256, not {part.sha256}; delete it, and run the same command again")


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
            unpack(archive, folder)
            content = _find_content(archive, folder, part.holds)
            _write_video_lists(archive, content)
            unpacked = _unpacked(target)
            # The list lacks this archive until everything has been moved.
            write_lines(content / _LIST, unpacked)
            _merge(content, target)
            write_lines(target / _LIST, [*unpacked, part.name])
    except OSError as error:
        raise write_error(target, error.strerror or error) from None


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
    if source.is_dir() and target.is_dir():
        for entry in sorted(source.iterdir()):
            _merge(entry, target / entry.name)
    else:
        os.replace(source, target)


def _unpacked(target: Path) -> list[str]:
    path = target / _LIST
    return path.read_text().splitlines() if path.is_file() else []
