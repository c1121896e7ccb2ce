"""A running scripts/annotate.py for the tests, and requests to it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from conftest import ROOT


class Running:
    """A server in a process of its own; ``size`` is the height and width of the frames."""

    def __init__(self, video: Path, output: Path, size: tuple[int, int], *flags: object) -> None:
        command = [sys.executable, ROOT / "scripts/annotate.py", video, "--output", output, "--no_browser"]
        command += ["--device", "cpu", "--size", min(size), *flags]
        self.output, self.size = output, size
        self.process = subprocess.Popen(
            list(map(str, command)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        name = re.escape(video.name.encode(errors="backslashreplace").decode())
        pattern = rf"annotating {name} at (http://127\.0\.0\.1:\d+)(/\S+/)\n"
        lines = iter(self.process.stdout.readline, "")  # notes on the weights come first
        match = next(filter(None, (re.fullmatch(pattern, line) for line in lines)), None)
        assert match, self.end(signal.SIGKILL)
        self.host, self.root = urlsplit(match[1]).netloc, match[2]

    def request(
        self, method: str, path: str, body: object = None, *, root: str | None = None, **headers: str
    ) -> tuple[HTTPResponse, bytes]:
        """Send a request; a body that is no bytes is sent as JSON."""
        if body is not None and not isinstance(body, bytes):
            body, headers = json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
        connection = HTTPConnection(self.host, timeout=60)
        with contextlib.closing(connection):
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, (self.root if root is None else root) + path, body, names)
            response = connection.getresponse()
            return response, response.read()

    def json(self, method: str, path: str, body: object = None, *, status: int = 200, **headers: str) -> Any:
        """Send a request that is answered with this status; returns the JSON of the answer."""
        response, content = self.request(method, path, body, **headers)
        assert response.status == status, content
        return json.loads(content)

    def refused(self, status: int, method: str, path: str, body: object = None, **headers: str) -> str:
        """Send a request that is refused; returns the sentence."""
        return self.json(method, path, body, status=status, **headers)["error"]

    def state(self) -> dict[str, Any]:
        return self.json("GET", "api/state")

    def idle(self) -> None:
        """Wait until no job is running, such as the unpacking of the video."""
        while self.state()["job"]:
            time.sleep(0.05)

    def mask(self, number: int) -> tuple[np.ndarray, str, str]:
        """The ids, kind and ETag of a mask."""
        response, content = self.request("GET", f"api/masks/{number}")
        assert response.status == 200, content
        return np.frombuffer(content, np.uint8).reshape(self.size), response.headers["X-Kind"], response.headers["ETag"]

    def put(self, number: int, ids: np.ndarray, tag: str | None = None, status: int = 200) -> dict[str, Any]:
        """Make a mask an annotation."""
        tag = tag or self.mask(number)[2]
        return self.json("PUT", f"api/masks/{number}", ids.astype(np.uint8).tobytes(), status=status, If_Match=tag)

    @contextlib.contextmanager
    def events(self) -> Iterator[Iterator[dict[str, Any]]]:
        """Listen to the events; the iterator ends with the stream."""
        connection = HTTPConnection(self.host, timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", self.root + "api/events")
            response = connection.getresponse()
            assert response.headers["Content-Type"] == "text/event-stream"
            yield (json.loads(line[6:]) for line in response if line.startswith(b"data: "))

    def propagate(self, frame: int, direction: str, until: str = "end") -> None:
        self.json("POST", "api/propagation", {"frame": frame, "direction": direction, "until": until}, status=202)

    def run(self, start: Callable[[], object]) -> list[dict[str, Any]]:
        """Start a job and wait for its end; returns the events."""
        with self.events() as events:
            start()
            seen = list(until_end_of_job(events))
        assert not [event for event in seen if event.get("level") == "error"]
        return seen

    def end(self, how: signal.Signals = signal.SIGTERM) -> str:
        """End the server; returns its stderr."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.communicate(timeout=60)[1]


def until_end_of_job(events: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for event in events:
        yield event
        if event["type"] == "job" and event["job"] is None:
            return
