"""The server of the annotation tool: the page, the API and the events."""

import copy
import functools
import json
import queue
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from annotation.cuts import from_box, from_strokes
from annotation.errors import Refused
from annotation.evidence import Picture
from annotation.exports import PARTS, Export, zip_path
from annotation.frames import Frames, Unpack
from annotation.imports import MOST_BYTES, import_masks
from annotation.jobs import Job, Jobs
from annotation.local_server import INVALID, PAGE, LocalServer, Reply, Request, Route, json_reply, numbers, page_files
from annotation.project import KINDS, Project
from annotation.project_file import Note
from annotation.propagation import DIRECTIONS, LIMITS, Propagation
from model.network import RDE_VOS
from util.evaluation.segmentation import EngineSettings

WAITING_EVENTS = 1024  # a client with more unread events is disconnected
HEARTBEAT = 15.0  # seconds
CACHED_PICTURES = 4  # of about 20 MB each, and the frame
NUMBER = "([0-9]{1,9})"


class Events:
    """The clients that listen to events; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: list[queue.SimpleQueue[dict[str, Any] | None]] = []
        self._closed = False

    def announce(self, event: dict[str, Any]) -> None:
        """Send an event to all clients."""
        with self._lock:
            for client in list(self._clients):
                client.put(event)
                if client.qsize() > WAITING_EVENTS:
                    client.put(None)
                    self._clients.remove(client)

    def close(self) -> None:
        """End the streams of all clients."""
        with self._lock:
            self._closed = True
            for client in self._clients:
                client.put(None)

    def stream(self) -> Iterator[bytes]:
        """The events from now on, as a stream for a page; it ends with the server, or if the page does not read."""
        client: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        with self._lock:
            self._clients.append(client)
            if self._closed:
                client.put(None)
        return self._pieces(client)

    def _pieces(self, client: queue.SimpleQueue) -> Iterator[bytes]:
        yield b"retry: 1000\n\n"
        try:
            while True:
                try:
                    event = client.get(timeout=HEARTBEAT)
                except queue.Empty:
                    yield b": alive\n\n"
                    continue
                if event is None:
                    return
                yield f"data: {json.dumps(event)}\n\n".encode()
        finally:  # also where the page has gone
            with self._lock:
                if client in self._clients:
                    self._clients.remove(client)


class Server(LocalServer):
    """The page of a project, and the requests that it sends. For ``folder``, ``note`` and ``frames`` see `Project`."""

    def __init__(
        self,
        folder: Path,
        note: Note,
        frames: Frames,
        network: RDE_VOS,
        settings: EngineSettings,
        notes: list[str],
        port: int,
    ) -> None:
        self._events = Events()
        self._jobs = Jobs(self._events.announce)
        super().__init__({"": PAGE / "index.html", **page_files(PAGE, "page/")}, port)
        self._project = project = Project(folder, note, frames, self._events.announce)
        self._network, self._settings, self._notes = network, settings, notes
        self._size = frames.video.size
        marking = copy.deepcopy(network)  # it may propagate meanwhile
        self._picture = functools.lru_cache(CACHED_PICTURES)(
            lambda number: Picture(frames.video.read_frame(number), marking, settings.size)
        )
        self._cutting = threading.Lock()
        pixels = self._size[0] * self._size[1]
        self.routes = [
            Route("GET", "api/state", self._state),
            Route("GET", f"api/frames/{NUMBER}", lambda _, number: _jpeg(project.frames.jpeg(self._ready(number)))),
            Route("GET", f"api/thumbnails/{NUMBER}", lambda _, n: _jpeg(project.frames.thumbnail(self._ready(n)))),
            Route("GET", f"api/masks/{NUMBER}", self._mask),
            Route("PUT", f"api/masks/{NUMBER}", self._annotate, pixels),
            Route("DELETE", f"api/masks/{NUMBER}", self._clear),
            Route("POST", "api/objects", lambda request: json_reply(project.add_object(request.json()), 201)),
            Route("PATCH", f"api/objects/{NUMBER}", lambda r, n: json_reply(project.change_object(n, r.json()))),
            Route("DELETE", f"api/objects/{NUMBER}", self._delete_object),
            Route("POST", f"api/cut/{NUMBER}/box", self._cut_box),
            Route("POST", f"api/cut/{NUMBER}/strokes", self._cut_strokes, pixels),
            Route("POST", f"api/cut/{NUMBER}/prepare", self._prepare_cut),
            Route("POST", "api/propagation", self._propagate),
            Route("DELETE", "api/propagation", lambda _: self._stop("propagation")),
            Route("POST", "api/import", self._import, MOST_BYTES),
            Route("POST", f"api/import/{NUMBER}", self._import, MOST_BYTES),
            Route("POST", "api/export", self._export),
            Route("GET", "api/export.zip", self._zip),
            Route("DELETE", "api/export", lambda _: self._stop("export")),
            Route("GET", "api/events", lambda _: Reply(self._events.stream(), "text/event-stream")),
        ]

    def server_close(self) -> None:
        """Stop the running job, end the events, and close the server."""
        self._jobs.close()
        self._events.close()
        super().server_close()

    def unpack(self, unpack: Unpack) -> None:
        """Unpack the frames of the video in the background."""

        def work(job: Job) -> None:
            count = unpack(job)
            if count is not None and count != len(self._project):
                self._project.resize(count)

        self._jobs.start(Job("unpacking", len(self._project) - 1), work)

    def _state(self, request: Request) -> Reply:
        return json_reply({**self._project.state(), "job": self._jobs.state(), "notes": self._notes})

    def _mask(self, request: Request, number: int) -> Reply:
        mask = self._project.read(self._ready(number))
        return Reply(mask.ids.tobytes(), headers={"ETag": f'"{mask.revision}"', "X-Kind": KINDS[mask.kind]})

    def _annotate(self, request: Request, number: int) -> Reply:
        ids, revision = self._pixels(request), _revision(request)
        if request.query.get("kind") != "propagated":
            return json_reply({"revision": self._project.annotate(self._ready(number), ids, revision)})
        given = request.query.get("uncertainty", "nan")  # in bits
        if not re.fullmatch(r"nan|[0-9]{1,3}(\.[0-9]{1,20})?", given):
            raise Refused(400, INVALID)
        return json_reply({"revision": self._project.restore(self._ready(number), ids, float(given), revision)})

    def _clear(self, request: Request, number: int) -> Reply:
        return json_reply({"revision": self._project.clear(self._ready(number), _revision(request))})

    def _delete_object(self, request: Request, number: int) -> Reply:
        self._project.check_object(number)
        work = functools.partial(self._project.delete_object, number)
        return self._started(Job("deletion", len(self._project)), work)

    def _cut_box(self, request: Request, number: int) -> Reply:
        box = numbers(request.json().get("box"), 4)
        with self._cutting:
            return Reply(from_box(self._picture(self._ready(number)), box).tobytes())

    def _cut_strokes(self, request: Request, number: int) -> Reply:
        marks = self._pixels(request)
        with self._cutting:
            return Reply(from_strokes(self._picture(self._ready(number)), marks).tobytes())

    def _prepare_cut(self, request: Request, number: int) -> Reply:
        with self._cutting:
            self._picture(self._ready(number))
        return json_reply({})

    def _propagate(self, request: Request) -> Reply:
        body = request.json()
        frame, direction, until = body.get("frame"), body.get("direction"), body.get("until", "end")
        if type(frame) is not int or direction not in tuple(DIRECTIONS) or until not in LIMITS:
            raise Refused(400, INVALID)
        propagation = Propagation(self._project, self._ready(frame), direction, until)
        work = functools.partial(propagation.run, self._network, self._settings)
        return self._started(Job("propagation", propagation.total), work)

    def _stop(self, kind: str) -> Reply:
        self._jobs.stop(kind)
        return json_reply({})

    def _import(self, request: Request, number: int | None = None) -> Reply:
        if number is not None:
            self._ready(number)
        return json_reply(import_masks(self._project, _files(request.body), number))

    def _zip(self, request: Request) -> Reply:
        path = zip_path(self._project)
        if not path.is_file():
            raise Refused(404, "there is no archive; export with Zip checked")
        name = re.sub(r"[^\w.-]", "_", self._project.frames.video.name, flags=re.ASCII)
        return Reply(path, "application/zip", {"Content-Disposition": f'attachment; filename="{name}.zip"'})

    def _export(self, request: Request) -> Reply:
        body = request.json()
        parts = [part for part in PARTS if body.get(part) is True]
        if not parts or parts == ["zip"]:
            raise Refused(400, f"nothing is selected; select at least one of {', '.join(PARTS)}")
        export = Export(self._project, parts)
        return self._started(Job("export", export.total), export.run)

    def _started(self, job: Job, work: Callable[[Job], Any]) -> Reply:
        return json_reply({"job": self._jobs.start(job, work)}, 202)

    def _ready(self, number: int) -> int:
        """The number of a frame, if it is there."""
        if not 0 <= number < len(self._project):
            raise Refused(404, f"the video has no frame {number}; its last frame is {len(self._project) - 1}")
        self._project.check_ready([number])
        return number

    def _pixels(self, request: Request) -> np.ndarray:
        """A body of one byte for each pixel, uint8 [H,W]."""
        height, width = self._size
        if len(request.body) != height * width:
            raise Refused(400, f"a mask of this video has {width}×{height} pixels of one byte; load the page again")
        return np.frombuffer(request.body, np.uint8).reshape(height, width)


def _jpeg(content: bytes) -> Reply:
    return Reply(content, "image/jpeg", {"Cache-Control": "private, max-age=86400, immutable"})


def _revision(request: Request) -> int:
    """The revision of the mask before the change."""
    found = re.fullmatch('"([0-9]{1,19})"', request.headers.get("If-Match", ""))
    if not found:
        raise Refused(428, "If-Match is missing; give the ETag of the mask")
    return int(found[1])


def _files(body: bytes) -> dict[str, bytes]:
    """The files of an import by their names, without hidden files.

    The body is a line of JSON, [[name, size], ...], and the contents one after another. A browser adds folders to the
    names. They are left out, but for the last one where files have the same name in several folders, as in a folder for
    each object.
    """
    line, _, contents = body.partition(b"\n")
    files: dict[str, bytes] = {}
    at = 0
    try:
        for name, size in json.loads(line):
            name = "/".join(name.encode(errors="replace").decode().split("/")[-2:])
            if not name.rpartition("/")[2].startswith("."):  # hidden files are no masks
                if name in files:
                    raise Refused(400, f"two files have the name {name}; import one folder of masks")
                files[name] = contents[at : at + size]
            at += size
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise Refused(400, "the files have not arrived as the page sends them; choose them again") from None
    if not files:
        raise Refused(400, "the files are missing; choose a mask, or a folder of masks")
    plain = {name.rpartition("/")[2]: content for name, content in files.items()}
    return plain if len(plain) == len(files) else files
