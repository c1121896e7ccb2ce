"""Downloads, from Google Drive, other addresses and mirrors.

gdown does all of them. It resumes a partial file only if the server confirms the range and the version of the file, it
checks the size, and it retries after an interruption.
"""

import glob
from pathlib import Path
from urllib.parse import quote

from tqdm import tqdm

from downloads.catalogue import Part
from downloads.unpack import require_space
from util.errors import InputError
from util.files import write_error
from util.packages import needs

with needs("download"):
    import gdown
    import requests
    from gdown.exceptions import DownloadError, FileURLRetrievalError

_TIMEOUT = 60.0  # seconds without a byte
_RETRIES = 5  # after interruptions, per call


def address(part: Part, mirror: str | None) -> str | None:
    """Return the source of a part: a page for a browser, or a file; None if it has no address."""
    if mirror is not None:
        return f"{mirror.rstrip('/')}/{quote(part.name)}"
    if part.drive_file is not None:
        return f"https://drive.google.com/file/d/{part.drive_file}/view"
    if part.drive_folder is not None:
        return f"https://drive.google.com/drive/folders/{part.drive_folder}"
    return part.url


def fetch(part: Part, path: Path, mirror: str | None) -> bool:
    """Download a part to ``path``. A partial file ``<path><8 characters>.part`` of an earlier call is resumed.

    Args:
        part: a part with an address.
        path: the file to write. The file is complete or absent.
        mirror: the address of a folder that holds a file with the part's name, or None for the part's own address.

    Returns:
        False if a mirror lacks a part that is not required; otherwise True.

    Raises:
        InputError: the server does not answer or sends something else, or the file cannot be written. A partial file
            is deleted only if the server refuses to resume it; the download then restarts once.
    """
    place = address(part, mirror)
    by_hand = f"save the file as {path} by hand, and run the same command again"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        from_drive = mirror is None and part.url is None
        source = {"id": _drive_id(part)} if from_drive else {"url": place}
        try:
            _download(source, path)
        except DownloadError as error:
            partial = _partial_files(path)
            # gdown names the cause of an interruption. An error without a cause means that resuming was refused.
            if isinstance(error, FileURLRetrievalError) or error.__cause__ is not None or not partial:
                raise
            tqdm.write(f"{place} cannot be resumed, so the download restarts")
            partial[0].unlink()
            _download(source, path)
        path.chmod(0o644)  # gdown's files can be read by their owner only
    # gdown raises KeyError and AssertionError for pages of an unknown structure.
    except (FileURLRetrievalError, KeyError, AssertionError):
        raise InputError(
            f"Google Drive does not send {part.name} (too many downloads today, or no longer public); open {place} in "
            f"a browser, {by_hand}"
        ) from None
    except (DownloadError, requests.RequestException) as error:
        status = error.response.status_code if isinstance(error, requests.HTTPError) else None
        if status == 404 and not part.required:
            return False
        reason = "the connection failed or was interrupted"
        if status is not None:
            reason = f"the server answers {status}"
        elif isinstance(error, DownloadError) and error.__cause__ is None:
            reason = "the size differs from the size that the server announced"
        raise InputError(
            f"{place} cannot be downloaded ({reason}); run the same command again to resume, or {by_hand}"
        ) from None
    except OSError as error:
        raise write_error(path, error.strerror or error) from None
    return True


def _partial_files(path: Path) -> list[Path]:
    """Return the partial file of a download, if there is one.

    Raises:
        InputError: there are several.
    """
    partial = sorted(path.parent.glob(f"{glob.escape(path.name)}????????.part"))
    if len(partial) > 1:
        raise InputError(
            f"{partial[0]} and {partial[1].name} are parts of one file, which two commands downloaded at once; "
            f"delete one of them, and run the same command again"
        )
    return partial


def _download(source: dict[str, str], path: Path) -> None:
    with tqdm(desc=path.name, unit="B", unit_scale=True, unit_divisor=1024, disable=None) as bar:

        def show(done: int, total: int | None) -> None:
            if bar.total is None and total is not None:
                bar.total = total
                require_space(path.parent, total - done, path)
            bar.update(done - bar.n)

        settings = {"quiet": True, "use_cookies": False, "resume": True, "timeout": _TIMEOUT, "retries": _RETRIES}
        gdown.download(**source, output=str(path), progress=show, **settings)


def _drive_id(part: Part) -> str:
    """Return the id of a part's file in Google Drive.

    Raises:
        FileURLRetrievalError: Google Drive does not show the folder.
        requests.RequestException: there is no connection.
        InputError: the folder does not hold the file.
    """
    if part.drive_file is not None:
        return part.drive_file
    settings = {"quiet": True, "use_cookies": False, "skip_download": True, "timeout": _TIMEOUT}
    try:
        listed = gdown.download_folder(id=part.drive_folder, **settings)
    except DownloadError as error:
        raise FileURLRetrievalError(str(error)) from None
    for file in listed:
        if Path(file.path).name == part.name:
            return file.id
    raise InputError(f"{address(part, None)} holds no {part.name}; look for the file there, and save it by hand")
