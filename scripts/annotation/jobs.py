"""Background jobs: one at a time in a thread, with progress for the page."""

import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from annotation.errors import Refused
from util.errors import InputError

Announce = Callable[[dict[str, Any]], None]

ANNOUNCED_EVERY = 0.1  # seconds between two progress events


class Notice(NamedTuple):
    """A sentence for the user."""

    text: str
    paths: tuple[Path, ...] = ()
    level: str = "info"  # or "error"

    def event(self) -> dict[str, Any]:
        """The event for the page."""
        return {"type": "notice", "level": self.level, "text": self.text, "paths": list(map(str, self.paths))}


class Job:
    """The progress of a job, and a flag to stop it.

    Attributes:
        kind: "propagation", "export", "deletion" or "unpacking".
        direction: "forward" or "backward" in a propagation, otherwise None.
        stopped: whether the job has to stop. It checks this before every frame.
    """

    def __init__(self, kind: str, total: int) -> None:
        self.kind = kind
        self.direction: str | None = None
        self._total = total
        self._frame: int | None = None
        self._done = 0
        self._started = time.monotonic()
        self._announced = 0.0
        self.stopped = False
        self.announce: Announce = lambda event: None

    def passed(self, frame: int) -> None:
        """Record a processed frame."""
        self._frame = frame
        self._done += 1
        now = time.monotonic()
        if now - self._announced >= ANNOUNCED_EVERY or self._done == self._total:
            self._announced = now
            self.announce({"type": "job", "job": self.state()})

    def state(self) -> dict[str, Any]:
        """The progress, for the page."""
        fps = self._done / max(time.monotonic() - self._started, 1e-6)
        return {
            "kind": self.kind,
            "direction": self.direction,
            "frame": self._frame,
            "done": self._done,
            "total": self._total,
            "fps": round(fps, 3),
            "left": round((self._total - self._done) / fps, 1) if self._done else None,
        }


class Jobs:
    """The running job, if any. All events are announced to the page."""

    def __init__(self, announce: Announce) -> None:
        self._announce = announce
        self._lock = threading.Lock()
        self._job: Job | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def start(self, job: Job, work: Callable[[Job], Notice | None]) -> dict[str, Any]:
        """Start a job, and return its state.

        ``work`` runs in a thread, and returns a notice for the page, or None. Its errors become notices.
        """
        with self._lock:
            if self._closed:
                raise Refused(409, "the server is shutting down; start the same command again")
            if self._job:
                raise Refused(409, f"another job ({self._job.kind}) is running; wait until it ends, or stop it")
            job.announce = self._announce
            state = job.state()
            self._job, self._thread = job, threading.Thread(target=self._run, args=(job, work), name=job.kind)
            self._announce({"type": "job", "job": state})
            self._thread.start()
            return state

    def state(self) -> dict[str, Any] | None:
        """The progress of the running job, or None."""
        with self._lock:
            return self._job.state() if self._job else None

    def stop(self, kind: str | None = None) -> None:
        """Stop the running job if it is of this kind (None: any), and wait until it has stopped."""
        with self._lock:
            job, thread = self._job, self._thread
        if job and kind in (None, job.kind):
            job.stopped = True
            thread.join()

    def close(self) -> None:
        """Stop the running job, and refuse new ones."""
        with self._lock:
            self._closed = True
        self.stop()

    def _run(self, job: Job, work: Callable[[Job], Notice | None]) -> None:
        try:
            notice = work(job)
        except (InputError, Refused) as error:
            notice = Notice(str(error), level="error")
        except Exception as error:  # the page must be notified of every end
            traceback.print_exc(file=sys.stderr)
            reason = str(error).split("\n")[0] or type(error).__name__
            notice = Notice(f"the {job.kind} failed ({reason})", level="error")
        with self._lock:
            self._job = None
            self._announce({"type": "job", "job": None})
        if notice:
            self._announce(notice.event())
