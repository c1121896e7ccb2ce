"""A server on this machine in place of those of scripts/download.py, and archives as the data sets come in."""

import contextlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Files = dict[str, bytes]  # content by path


def contents(folder: Path) -> Files:
    """All files of a folder, but those whose path has a name with a dot in front."""
    paths = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {
        inner.as_posix(): path.read_bytes()
        for inner, path in paths.items()
        if not any(name.startswith(".") for name in inner.parts)
    }


def within(folder: str, files: Files) -> Files:
    return {f"{folder}/{name}": data for name, data in files.items()}


def zipped(files: Files) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(files: Files) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def with_frame_lists(trainval: Files) -> Files:
    """As DAVIS 2016 comes: its lists name frames."""
    files = {name: data for name, data in trainval.items() if not name.startswith("ImageSets")}
    for split in ("train", "val"):
        lines = [
            f"/JPEGImages/480p/{video}/{t:05d}.jpg /Annotations/480p/{video}/{t:05d}.png \n"
            for video in trainval[f"ImageSets/2017/{split}.txt"].decode().split()
            for t in range(6)
        ]
        files[f"ImageSets/480p/{split}.txt"] = "".join(lines).encode()
    return files


@dataclass
class Reply:
    """An answer of the server.

    Attributes:
        body: the content.
        cut: the number of bytes after which the server closes the connection, or None.
        announced: the Content-Length, or None for the true one.
        ranges: whether the server honours Range.
        headers: further headers.
        status: of an answer to a request without Range.
    """

    body: bytes
    cut: int | None = None
    announced: int | None = None
    ranges: bool = True
    headers: tuple[tuple[str, str], ...] = ()
    status: int = 200


class Server(ThreadingHTTPServer):
    """Serves ``replies`` by path and query, and remembers the requests: path and Range."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: dict[str, Reply] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.address = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients close connections."""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.requests.append((self.path, asked))
        reply = self.server.replies.get(self.path, Reply(b"", status=404))
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and reply.ranges else 0
        if first and first >= len(reply.body):
            self.send_error(416)
            return
        self.send_response(206 if first else reply.status)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(reply.body) - 1}/{len(reply.body)}")
        self.send_header("Content-Length", str(reply.announced or len(reply.body) - first))
        for header in reply.headers:
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(reply.body[first:][: reply.cut])

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextlib.contextmanager
def mirror_of(archives: Files) -> Iterator[Server]:
    """A mirror of all archives, below /files."""
    server = Server()
    server.replies = {f"/files/{name}": Reply(data) for name, data in archives.items()}
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
