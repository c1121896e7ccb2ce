"""A page on this machine that shows the newest picture of a stream, and on which its first frame can be marked."""

import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from annotation.errors import Refused
from annotation.local_server import PAGE, LocalServer, Reply, Request, Route, json_reply, page_files
from util.errors import InputError

QUALITY = 85  # of the JPEG pictures
GONE = 1.0  # seconds without a request after which a browser is taken to have left
STARTED = {"stage": "started"}  # the state of a page on which nothing can be marked
SEGMENTED = "the stream is segmented already; nothing can be marked any more"


class LivePage(LocalServer):
    """The pictures of a page, each of which replaces the one before. A browser that is slow skips pictures."""

    def __init__(self) -> None:
        files = {**page_files(PAGE), **page_files(Path(__file__).parent / "marking")}
        super().__init__({"": files["index.html"], **files})
        self.routes = [Route("GET", "picture", self._next_picture), Route("POST", "marks", self._ask)]
        self._picture, self._count, self._state = b"", 0, STARTED
        self._waiting = 0  # requests that wait for the next picture
        self._requests: deque[tuple[dict[str, Any], Future[dict[str, Any]]]] = deque()
        self._end, self._is_told = "", False

    @property
    def is_watched(self) -> bool:
        """Whether a browser shows the page."""
        return self.busy > 0 or time.monotonic() - self.last_visit < GONE

    @property
    def is_awaited(self) -> bool:
        """Whether a browser has shown the newest picture and waits for another one."""
        return self._waiting > 0

    def show(self, picture: np.ndarray, state: dict[str, Any] = STARTED) -> int:
        """Show a picture, uint8 RGB [H,W,3], in place of the one before, and return its number.

        The state is what the page's script needs; its ``stage`` is "live", "frozen" or "started".
        """
        _, content = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        with self.changed:
            self._picture, self._count, self._state = content.tobytes(), self._count + 1, state
            self._waiting = 0
            self.changed.notify_all()
            return self._count

    def _next_picture(self, request: Request) -> Reply:
        """Wait for a picture that is newer than the one whose number is in ``after``."""
        after = request.number("after")
        with self.changed:
            if self._count <= after:
                self._waiting += 1
                self.changed.notify_all()
            self.changed.wait_for(lambda: self._end or self._count > after)
            if self._end:
                self._is_told = True
                return json_reply({"end": self._end})  # not as an error, which the browser would log
            state = json.dumps({**self._state, "number": self._count})
            return Reply(self._picture, "image/jpeg", {"X-State": state})

    def _ask(self, request: Request) -> Reply:
        """Wait for the answer to a request of the page."""
        asked = request.json()
        with self.changed:
            if self._end or self._state == STARTED:
                raise Refused(409, self._end or SEGMENTED)
            answer: Future[dict[str, Any]] = Future()
            self._requests.append((asked, answer))
            self.changed.notify_all()
        return json_reply(answer.result())

    def answer(
        self, handle: Callable[[dict[str, Any]], dict[str, Any]], timeout: float, *, or_awaited: bool = False
    ) -> bool:
        """Wait for a request, and answer it; return whether there was one.

        Args:
            handle: gives the answer, or raises `Refused`.
            timeout: the time to wait, in seconds.
            or_awaited: whether to wait only until a browser waits for a picture.
        """
        with self.changed:
            self.changed.wait_for(lambda: self._requests or (or_awaited and self._waiting), timeout)
            if not self._requests:
                return False
            request, answer = self._requests[0]
        try:
            answer.set_result(handle(request))
        except Refused as error:
            answer.set_exception(error)
        self._requests.popleft()
        return True

    def close(self, sentence: str) -> None:
        """Refuse all requests from now on, and tell the browsers why."""
        with self.changed:
            self._end = sentence
            for _, answer in self._requests:
                if not answer.done():
                    answer.set_exception(Refused(410, sentence))
            self.changed.notify_all()
            self.changed.wait_for(lambda: self._is_told, GONE if self.is_watched else 0)


@contextlib.contextmanager
def live_page() -> Iterator[LivePage]:
    """Serve a page until the end of the block, which tells the browsers why it has ended."""
    end = "the command has ended; its terminal says why"
    with LivePage() as page:
        threading.Thread(target=page.serve_forever, daemon=True).start()
        try:
            yield page
            end = "the stream has ended, and its results are complete"
        except InputError as error:
            end = str(error)
            raise
        finally:
            page.close(end)
            page.shutdown()
