"""A page on this machine that shows the newest picture of a stream, and on which its first frame can be marked."""

import contextlib
import json
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from annotation.errors import Refused
from util.errors import InputError

ADDRESS = "127.0.0.1"
QUALITY = 85  # of the JPEG pictures
MOST_BYTES = 4096  # of a request
GONE = 1.0  # seconds without a request after which a browser is taken to have left
FOLDER = Path(__file__).parent
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
STARTED = {"stage": "started"}  # the state of a page on which nothing can be marked
SEGMENTED = "the stream is segmented already; nothing can be marked any more"
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",  # the address is secret
    "X-Content-Type-Options": "nosniff",
}


class LivePage:
    """The pictures of a page, each of which replaces the one before. A browser that is slow skips pictures.

    Attributes:
        path: the path of the page. It is secret: other users and other pages of the browser cannot guess it.
    """

    def __init__(self) -> None:
        self.path = f"/{secrets.token_urlsafe(16)}/"
        self._changed = threading.Condition()
        self._picture, self._count, self._state = b"", 0, STARTED
        self._waiting = 0  # requests that wait for the next picture
        self._visits = 0  # requests that are being answered
        self._last_visit = -GONE
        self._requests: deque[tuple[dict[str, Any], Future[dict[str, Any]]]] = deque()
        self._end = ""

    @property
    def is_watched(self) -> bool:
        """Whether a browser shows the page."""
        return self._visits > 0 or time.monotonic() - self._last_visit < GONE

    @property
    def is_awaited(self) -> bool:
        """Whether a browser has shown the newest picture and waits for another one."""
        return self._waiting > 0

    def show(self, picture: np.ndarray, state: dict[str, Any] = STARTED) -> int:
        """Show a picture in place of the one before.

        Args:
            picture: uint8 RGB [H,W,3].
            state: what the page's script needs; its ``stage`` is "live", "frozen" or "started".

        Returns:
            the number of the picture.
        """
        _, content = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        with self._changed:
            self._picture, self._count, self._state = content.tobytes(), self._count + 1, state
            self._waiting = 0
            self._changed.notify_all()
            return self._count

    def next_picture(self, after: int) -> tuple[bytes, dict[str, Any]]:
        """Wait for a picture that is newer than the one with a number: its JPEG file, and its state with its number.

        Raises:
            Refused: the page is closed.
        """
        with self._changed:
            if self._count <= after:
                self._waiting += 1
                self._changed.notify_all()
            self._changed.wait_for(lambda: self._end or self._count > after)
            if self._end:
                raise Refused(410, self._end)
            return self._picture, {**self._state, "number": self._count}

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Wait for the answer to a request of the page.

        Raises:
            Refused: the request is invalid, or comes too late.
        """
        with self._changed:
            if self._end or self._state == STARTED:
                raise Refused(409, self._end or SEGMENTED)
            answer: Future[dict[str, Any]] = Future()
            self._requests.append((request, answer))
            self._changed.notify_all()
        return answer.result()

    def answer(
        self, handle: Callable[[dict[str, Any]], dict[str, Any]], timeout: float, *, or_awaited: bool = False
    ) -> bool:
        """Wait for a request, and answer it.

        Args:
            handle: gives the answer, or raises `Refused`.
            timeout: the time to wait, in seconds.
            or_awaited: whether to wait only until a browser waits for a picture.

        Returns:
            whether a request was answered.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._requests or (or_awaited and self._waiting), timeout)
            if not self._requests:
                return False
            request, answer = self._requests[0]
        try:
            answer.set_result(handle(request))
        except Refused as error:
            answer.set_exception(error)
        self._requests.popleft()
        return True

    @contextlib.contextmanager
    def visit(self) -> Iterator[None]:
        """Count a request of a browser while it is being answered."""
        with self._changed:
            self._visits += 1
        try:
            yield
        finally:
            with self._changed:
                self._visits, self._last_visit = self._visits - 1, -GONE if self._end else time.monotonic()
                self._changed.notify_all()

    def close(self, sentence: str) -> None:
        """Refuse all requests from now on, and tell the browsers why."""
        with self._changed:
            self._end = sentence
            for _, answer in self._requests:
                if not answer.done():
                    answer.set_exception(Refused(410, sentence))
            self._changed.notify_all()
            patience = time.monotonic() + GONE
            while self.is_watched and time.monotonic() < patience:
                self._changed.wait(0.05)


@contextlib.contextmanager
def live_page() -> Iterator[tuple[LivePage, str]]:
    """Serve a `LivePage` until the end of the block. Yield it, and the address for the browser."""
    page = LivePage()
    folders = (FOLDER.parent / "annotation" / "page", FOLDER / "marking")
    # The list of files is fixed before the first request, so that no request can read another file.
    files = {path.name: path for folder in folders for path in folder.iterdir() if path.suffix in TYPES}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # a connection for all pictures

        def handle(self) -> None:
            with contextlib.suppress(OSError):  # the browser has gone
                super().handle()

        def do_GET(self) -> None:
            with page.visit():
                name = self.path.removeprefix(page.path) if self.path.startswith(page.path) else None
                path = files.get(name or "index.html")
                if name is not None and (found := re.fullmatch(r"picture\?after=([0-9]{1,15})", name)):
                    self._send_picture(int(found[1]))
                elif name is not None and path:
                    self._send(200, f"{TYPES[path.suffix]}; charset=utf-8", path.read_bytes())
                else:
                    self.send_error(404)

        def do_POST(self) -> None:
            with page.visit():
                length = self.headers.get("Content-Length", "")
                is_valid = self.path == f"{page.path}marks" and re.fullmatch("[0-9]{1,9}", length)
                if not is_valid or int(length) > MOST_BYTES:
                    self.close_connection = True  # the body is not read
                    self.send_error(404)
                    return
                try:
                    self._send_json(200, page.ask(_object(self.rfile.read(int(length)))))
                except Refused as error:
                    self._send_json(error.status, {"error": str(error)})

        def _send_picture(self, after: int) -> None:
            try:
                picture, state = page.next_picture(after)
            except Refused as error:
                self._send_json(200, {"end": str(error)})  # not as an error, which the browser would log
            else:
                self._send(200, "image/jpeg", picture, {"X-State": json.dumps(state)})

        def _send_json(self, status: int, content: dict[str, Any]) -> None:
            self._send(status, "application/json", json.dumps(content).encode())

        def _send(self, status: int, kind: str, content: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            headers = {"Content-Type": kind, "Content-Length": str(len(content)), **HEADERS, **(headers or {})}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Print nothing, because the address is secret."""

    server = ThreadingHTTPServer((ADDRESS, 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    end = "the command has ended; its terminal says why"
    try:
        yield page, f"http://{ADDRESS}:{server.server_address[1]}{page.path}"
        end = "the stream has ended, and its results are complete"
    except InputError as error:
        end = str(error)
        raise
    finally:
        page.close(end)
        server.shutdown()
        server.server_close()


def _object(content: bytes) -> dict[str, Any]:
    """The JSON object in the body of a request.

    Raises:
        Refused: there is none.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused(400, "the request is no JSON object; load the page again")
    return found
