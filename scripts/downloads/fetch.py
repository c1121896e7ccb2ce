"""Downloads, from Google Drive, other addresses and mirrors.

gdown does all of them. It resumes a partial file only if the server confirms the range and the version of the file, it
checks the size, and it retries after an interruption.
"""

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
    """Download a part to ``path``; return False if a mirror lacks it and it is not required.

    The file is complete or absent. A partial file ``<path><8 characters>.part`` of an earlier call is resumed.
    """
    place = address(part, mirror)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download({"id": _drive_id(part)} if mirror is None and part.url is None else {"url": place}, path)
        path.chmod(0o644)  # gdown's files can be read by their owner only
    # gdown raises KeyError and AssertionError for pages of an unknown structure.
    except (DownloadError, requests.RequestException, KeyError, AssertionError) as error:
        status = error.response.status_code if isinstance(error, requests.HTTPError) else None
        if status == 404 and not part.required:
            return False
        if status is not None:
            reason = f"the server answers {status}"
        elif isinstance(error, (FileURLRetrievalError, KeyError, AssertionError)):
            reason = "Google Drive does not send it: too many downloads today, or it is no longer public"
        elif isinstance(error, DownloadError) and error.__cause__ is None:
            reason = str(error).splitlines()[0].rstrip(".")
        else:
            reason = "the connection failed or was interrupted"
        raise InputError(
            f"{place} cannot be downloaded ({reason}); run the same command again to resume, delete {path}*.part to "
            f"start again, or save the file as {path} by hand, and run the same command again"
        ) from None
    except OSError as error:
        raise write_error(path, error.strerror or error) from None
    return True


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
    """Return the id of a part's file in Google Drive, which may be looked up in its folder."""
    if part.drive_file is not None:
        return part.drive_file
    settings = {"quiet": True, "use_cookies": False, "skip_download": True, "timeout": _TIMEOUT}
    for file in gdown.download_folder(id=part.drive_folder, **settings):
        if Path(file.path).name == part.name:
            return file.id
    raise InputError(f"{address(part, None)} holds no {part.name}; look for the file there, and save it by hand")
