"""A local server that stands in for a camera."""

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np


@contextlib.contextmanager
def running_camera(frames: Sequence[np.ndarray]) -> Iterator[str]:
    """Serve frames, uint8 RGB [H,W,3], as motion JPEG, 25 a second, without an end. Yield the address."""

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            with contextlib.suppress(OSError):  # nobody looks any more
                for frame in itertools.cycle(frames):
                    picture = cv2.imencode(".jpg", frame[:, :, ::-1])[1].tobytes()
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                    self.wfile.write(head.encode() + picture + b"\r\n")
                    time.sleep(0.04)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://user:secret@127.0.0.1:{server.server_address[1]}/stream.mjpg"
    finally:
        server.shutdown()
        server.server_close()


def iter_until(lines: Iterator[str], text: str) -> Iterator[str]:
    """The lines up to the first one with a text."""
    for line in lines:
        yield line
        if text in line:
            return
