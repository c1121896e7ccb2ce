"""A page on this machine that shows the newest picture of a stream."""

import contextlib
import secrets
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

ADDRESS = "127.0.0.1"
QUALITY = 85  # of the JPEG pictures
PAGE = b"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>RDE-VOS, live</title>
<body style="margin:0;background:#111"><img src="pictures" alt="The frames of the stream with the masks of the objects"
style="width:100vw;height:100vh;object-fit:contain"></body></html>
"""


class LivePage:
    """The pictures of a page, each of which replaces the one before. A browser that is slow skips pictures.

    Attributes:
        path: the path of the page. It is secret: other users and other pages of the browser cannot guess it.
    """

    def __init__(self) -> None:
        self.path = f"/{secrets.token_urlsafe(16)}/"
        self._changed = threading.Condition()
        self._picture, self._count = b"", 0
        self._watchers, self._closed = 0, False

    @property
    def is_watched(self) -> bool:
        """Whether a browser shows the page."""
        return self._watchers > 0

    def show(self, picture: np.ndarray) -> None:
        """Show a picture, uint8 RGB [H,W,3], in place of the one before."""
        _, content = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        with self._changed:
            self._picture, self._count = content.tobytes(), self._count + 1
            self._changed.notify_all()

    def close(self) -> None:
        """End the pictures of all browsers."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def pictures(self) -> Iterator[bytes]:
        """The pictures from now on, as JPEG."""
        shown = 0
        with self._changed:
            self._watchers += 1
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._closed or self._count > shown)  # noqa: B023
                    if self._closed:
                        return
                    picture, shown = self._picture, self._count
                yield picture
        finally:
            with self._changed:
                self._watchers -= 1


@contextlib.contextmanager
def live_page() -> Iterator[tuple[LivePage, str]]:
    """Serve a `LivePage` until the end of the block. Yield it, and the address for the browser."""
    page = LivePage()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(OSError):  # the browser has gone
                if self.path == page.path:
                    self._head("text/html; charset=utf-8")
                    self.wfile.write(PAGE)
                elif self.path == f"{page.path}pictures":
                    self._head("multipart/x-mixed-replace; boundary=picture")
                    for picture in page.pictures():
                        head = f"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                        self.wfile.write(head.encode() + picture + b"\r\n")
                else:
                    self.send_error(404)

        def _head(self, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Cache-Control", "no-store")
            self.send_header("Referrer-Policy", "no-referrer")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing, because the address is secret."""

    server = ThreadingHTTPServer((ADDRESS, 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield page, f"http://{ADDRESS}:{server.server_address[1]}{page.path}"
    finally:
        page.close()
        server.shutdown()
        server.server_close()
