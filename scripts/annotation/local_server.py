"""A server for one page, which only this machine can reach and only those who know its secret path."""

import contextlib
import json
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from annotation.errors import Refused
from util.errors import InputError

ADDRESS = "127.0.0.1"
MOST_BYTES = 4096  # of a request, unless its route says otherwise
SILENCE = 60.0  # seconds after which a connection without traffic is closed
PATIENCE = 2.0  # seconds that requests have at the end of the server
INVALID = "the request is invalid; load the page again"
PAGE = Path(__file__).parent / "page"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",  # the address is secret
    "X-Content-Type-Options": "nosniff",
}


class Request(NamedTuple):
    """A request, with the parameters of its address."""

    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The JSON object in the body."""
        try:
            content = json.loads(self.body or b"{}")
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise Refused(400, "the request is no JSON object; load the page again")
        return content

    def number(self, name: str) -> int:
        """A parameter of the address that is a number."""
        if not re.fullmatch("[0-9]{1,15}", self.query.get(name, "")):
            raise Refused(400, INVALID)
        return int(self.query[name])


class Reply(NamedTuple):
    """A reply: bytes, a file, or pieces until their end or that of the connection."""

    body: bytes | Path | Iterator[bytes]
    kind: str = "application/octet-stream"
    headers: dict[str, str] | None = None
    status: int = 200


class Route(NamedTuple):
    """What answers the requests of a method whose address below the secret path matches a pattern."""

    method: str
    pattern: str
    handler: Callable[..., Reply]  # takes the request and the groups of the pattern, which are numbers
    most_bytes: int = MOST_BYTES  # of the body


def json_reply(content: dict[str, Any], status: int = 200) -> Reply:
    """A reply of JSON."""
    return Reply(json.dumps(content).encode(), "application/json", status=status)


def numbers(values: object, count: int) -> list[float]:
    """A list in a request with this count of numbers: the edges of a box, or a position, in pixels."""
    if not (isinstance(values, list) and len(values) == count):
        raise Refused(400, INVALID)
    if not all(type(value) in (int, float) and abs(value) < 1e9 for value in values):
        raise Refused(400, INVALID)
    return values


def page_files(folder: Path, prefix: str = "") -> dict[str, Path]:
    """The files of a page by their addresses. The list is fixed, so that no request can read another file."""
    return {f"{prefix}{path.name}": path for path in sorted(folder.iterdir()) if path.suffix in TYPES}


class LocalServer(ThreadingHTTPServer):
    """A server with a thread for each connection.

    Args:
        files: the files of the page by their addresses; "" is that of the page.
        port: 0 for any free one.

    Attributes:
        path: the path of the page, with a secret name.
        routes: the other requests, set by the owner.
        busy: the number of requests that are being answered.
        last_visit: when the last of them was answered, by `time.monotonic`.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, Path], port: int = 0) -> None:
        self.path = f"/{secrets.token_urlsafe(24)}/"
        self.routes: list[Route] = []
        self.files = files
        self.entrances: set[str] = set()
        self.changed = threading.Condition()
        self.busy = 0
        self.last_visit = -SILENCE
        try:
            super().__init__((ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"port {port} cannot be used ({reason}); choose another --port, or 0 for any") from None

    @property
    def address(self) -> str:
        """The address of the page."""
        return f"http://{ADDRESS}:{self.server_port}{self.path}"

    def new_entrance(self) -> str:
        """An address that leads to the page once. Others may read it in the command line of the browser."""
        path = f"/open/{secrets.token_urlsafe(24)}"
        self.entrances.add(path)
        return f"http://{ADDRESS}:{self.server_port}{path}"

    def server_close(self) -> None:
        """Close the server when all requests are answered, or after `PATIENCE`."""
        with self.changed:
            self.changed.wait_for(lambda: not self.busy, PATIENCE)
        super().server_close()

    def answer_request(
        self, method: str, path: str, query: str, headers: Mapping[str, str], read: Callable[[int], bytes]
    ) -> Reply:
        """Answer a request; errors become JSON with a sentence."""
        if path in self.entrances:
            self.entrances.remove(path)
            return Reply(b"", headers={"Location": self.path}, status=303)
        name = path.removeprefix(self.path) if path.startswith(self.path) else None
        if name in self.files and method == "GET":
            file = self.files[name]
            return Reply(file.read_bytes(), f"{TYPES[file.suffix]}; charset=utf-8")
        try:
            for route in self.routes if name is not None else ():
                if route.method == method and (found := re.fullmatch(route.pattern, name)):
                    request = Request(dict(parse_qsl(query)), headers, read(route.most_bytes))
                    return route.handler(request, *map(int, found.groups()))
            raise Refused(404, "there is no such page; use the address that the command has printed")
        except Refused as error:
            return json_reply({"error": str(error)}, error.status)
        except InputError as error:
            return json_reply({"error": str(error)}, 500)
        except ConnectionError:
            raise  # the page has gone
        except OSError as error:
            sentence = f"{error.filename or 'a file'} cannot be used ({error.strerror or error}); try again"
            return json_reply({"error": sentence}, 500)


class _Handler(BaseHTTPRequestHandler):
    server: LocalServer
    protocol_version = "HTTP/1.1"  # a connection for many requests
    disable_nagle_algorithm = True
    timeout = SILENCE

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # the browser has gone
            super().handle()

    def do_GET(self) -> None:
        server = self.server
        with server.changed:
            server.busy += 1
        try:
            self._left = self.headers.get("Content-Length", "" if "Transfer-Encoding" in self.headers else "0")
            path, _, query = self.path.partition("?")
            self._send(server.answer_request(self.command, path, query, self.headers, self._read))
        finally:
            with server.changed:
                server.busy, server.last_visit = server.busy - 1, time.monotonic()
                server.changed.notify_all()

    do_PUT = do_POST = do_PATCH = do_DELETE = do_GET

    def _read(self, most: int) -> bytes:
        if not re.fullmatch("[0-9]{1,15}", self._left):
            raise Refused(411, INVALID)
        length = int(self._left)
        if length > most:
            raise Refused(413, f"the request has more than {most} bytes; send less at a time")
        self._left = "0"
        return self.rfile.read(length)

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        headers = {"Content-Type": reply.kind, **HEADERS, **(reply.headers or {})}
        if isinstance(reply.body, bytes):
            headers["Content-Length"] = str(len(reply.body))
        elif isinstance(reply.body, Path):
            headers["Content-Length"] = str(reply.body.stat().st_size)
        # A body that was not read would be taken for the next request.
        self.close_connection |= self._left != "0" or not isinstance(reply.body, bytes)
        if self.close_connection:
            headers["Connection"] = "close"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if isinstance(reply.body, bytes):
            self.wfile.write(reply.body)
        elif isinstance(reply.body, Path):
            with open(reply.body, "rb") as file:
                shutil.copyfileobj(file, self.wfile)
        else:
            for piece in reply.body:
                self.wfile.write(piece)
        if re.fullmatch("[0-9]{1,15}", self._left):  # a browser sees the reply only when it has sent its body
            left = int(self._left)
            while left > 0 and (piece := self.rfile.read(min(left, 1 << 16))):
                left -= len(piece)

    def log_message(self, *_: object) -> None:
        """Print nothing, because the address is secret."""
