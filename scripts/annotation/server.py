"""The server of the annotation tool: the page, the API and the events, on 127.0.0.1 and behind a cookie."""

import asyncio
import contextlib
import functools
import json
import math
import re
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import BadHttpMessage

from annotation.cuts import from_box, from_strokes
from annotation.entrance import Entrance
from annotation.errors import Refused
from annotation.exports import PARTS, Export, zip_path
from annotation.frames import Frames, Unpacking
from annotation.imports import MOST_BYTES, import_masks
from annotation.jobs import Job, Jobs
from annotation.note import Note
from annotation.picture import picture_cache
from annotation.project import KINDS, Project
from annotation.propagation import DIRECTIONS, LIMITS, Propagation
from model.network import RDE_VOS
from util.errors import InputError
from util.evaluation.stream import EngineSettings

ADDRESS = "127.0.0.1"
PAGE = Path(__file__).parent / "page"
PAGE_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
WAITING_EVENTS = 1024  # a client with more unread events is disconnected
HEARTBEAT = 15.0  # seconds
BODY_MARGIN = 4096  # bytes that a body may exceed a mask by
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",  # the address is secret
    "X-Content-Type-Options": "nosniff",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Events:
    """The clients that listen to events."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._clients: dict[asyncio.Queue[str | None], asyncio.Transport | None] = {}
        self._closed = False

    def announce(self, event: dict[str, Any]) -> None:
        """Send an event to all clients; thread-safe."""
        with contextlib.suppress(RuntimeError):  # the server has ended
            self._loop.call_soon_threadsafe(self._send, json.dumps(event))

    def _send(self, event: str) -> None:
        for client, transport in list(self._clients.items()):
            try:
                client.put_nowait(event)
            except asyncio.QueueFull:
                del self._clients[client]
                if transport:
                    transport.abort()

    def close(self) -> None:
        """End the streams of all clients."""
        self._closed = True
        for client in self._clients:
            with contextlib.suppress(asyncio.QueueEmpty):
                while True:
                    client.get_nowait()
            client.put_nowait(None)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Respond with a stream of events that ends with the server."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        waiting: asyncio.Queue[str | None] = asyncio.Queue(WAITING_EVENTS)
        if self._closed:
            waiting.put_nowait(None)
        self._clients[waiting] = request.transport
        try:
            await response.prepare(request)
            await response.write(b"retry: 1000\n\n")
            while True:
                try:
                    event = await asyncio.wait_for(waiting.get(), HEARTBEAT)
                except TimeoutError:
                    await response.write(b": alive\n\n")
                    continue
                if event is None:
                    break
                await response.write(f"data: {event}\n\n".encode())
        except ConnectionError:
            pass  # the client has disconnected
        finally:
            self._clients.pop(waiting, None)
        return response


class Server:
    """The request handlers. Disk access and computation run in threads.

    Args:
        notes: notes on the network for the user.
    """

    def __init__(
        self,
        project: Project,
        jobs: Jobs,
        events: Events,
        network: RDE_VOS,
        settings: EngineSettings,
        notes: list[str],
    ) -> None:
        self.entrance = Entrance()
        self._project = project
        self._jobs = jobs
        self._events = events
        self._network = network
        self._settings = settings
        self._notes = notes
        self._size = project.frames.video.size
        self._most_bytes = self._size[0] * self._size[1] + BODY_MARGIN
        self._picture = picture_cache(project.frames.video, network, settings.size)
        self._cutting = asyncio.Lock()
        # The list of files is fixed before the first request, so that no request can read another file.
        self._page = {path.name: path for path in sorted(PAGE.glob("*")) if path.suffix in PAGE_TYPES}

    def application(self) -> web.Application:
        """The application for aiohttp."""
        app = web.Application(middlewares=[self._guard], client_max_size=self._most_bytes)
        number = "{number:[0-9]{1,9}}"
        routes: list[tuple[str, str, Handler]] = [
            ("GET", "", self._page_file),
            ("GET", "page/{name}", self._page_file),
            ("GET", "api/state", self._state),
            ("GET", f"api/frames/{number}", self._frame),
            ("GET", f"api/thumbnails/{number}", self._thumbnail),
            ("GET", f"api/masks/{number}", self._mask),
            ("PUT", f"api/masks/{number}", self._annotate),
            ("DELETE", f"api/masks/{number}", self._clear),
            ("POST", "api/objects", self._add_object),
            ("PATCH", f"api/objects/{number}", self._change_object),
            ("DELETE", f"api/objects/{number}", self._delete_object),
            ("POST", f"api/cut/{number}", self._cut),
            ("POST", f"api/cut/{number}/prepare", self._prepare_cut),
            ("POST", "api/propagation", self._propagate),
            ("DELETE", "api/propagation", self._stop),
            ("POST", "api/import", self._import),
            ("POST", f"api/import/{number}", self._import),
            ("POST", "api/export", self._export),
            ("GET", "api/export.zip", self._zip),
            ("DELETE", "api/export", self._stop),
            ("GET", "api/events", self._events.stream),
        ]
        for method, path, handler in routes:
            app.router.add_route(method, self.entrance.path + path, handler)
        app.router.add_route("GET", "/open/{token}", self.entrance.enter)
        app.on_response_prepare.append(_add_headers)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse requests of browsers that have not been admitted, and turn errors into JSON."""
        if request.match_info.handler != self.entrance.enter and not self.entrance.admits(request):
            return _error(403, "this browser is not admitted; use the last address that the command has printed")
        try:
            most = MOST_BYTES if request.match_info.handler == self._import else self._most_bytes
            if request.content_length and request.content_length > most:
                raise Refused(413, self._too_large)
            return await handler(request)
        except Refused as error:
            return _error(error.status, str(error))
        except InputError as error:
            return _error(500, str(error))
        except ConnectionError:
            raise  # the page has gone
        except OSError as error:
            return _error(500, f"{error.filename or 'a file'} cannot be used ({error.strerror or error}); try again")
        except web.HTTPRequestEntityTooLarge:
            return _error(413, self._too_large)
        except web.HTTPException as error:
            return _error(error.status, f"this address does not support {request.method} ({error.reason})")

    @property
    def _too_large(self) -> str:
        height, width = self._size
        return f"the body is too large; a mask of this video has {width}×{height} bytes"

    def resume(self, unpacking: Unpacking | None) -> None:
        """Unpack the frames of the video, or resume the deletion of objects after a killed server."""

        def unpack(job: Job) -> None:
            count = unpacking.run(job)
            if count is not None and count != len(self._project):
                self._project.resize(count)
            if count is not None and self._project.deleting:
                self._erase(Job("deletion", count))

        if unpacking:
            self._jobs.start(Job("unpacking", len(self._project) - 1), unpack)
        elif self._project.deleting:
            self._jobs.start(Job("deletion", len(self._project)), self._erase)

    async def _page_file(self, request: web.Request) -> web.Response:
        name = request.match_info.get("name", "index.html")
        if name not in self._page:
            raise Refused(404, "the page has no such file")
        path = self._page[name]
        content = await asyncio.to_thread(path.read_bytes)
        return web.Response(
            body=content,
            content_type=PAGE_TYPES[path.suffix],
            charset="utf-8",
            headers={"Cache-Control": "no-cache"},
        )

    async def _state(self, request: web.Request) -> web.Response:
        def state() -> dict[str, Any]:
            return {**self._project.state(), "job": self._jobs.state(), "notes": self._notes}

        return _json(await asyncio.to_thread(state))

    async def _frame(self, request: web.Request) -> web.Response:
        return _picture(await asyncio.to_thread(self._project.frames.jpeg, self._number(request)))

    async def _thumbnail(self, request: web.Request) -> web.Response:
        return _picture(await asyncio.to_thread(self._project.frames.thumbnail, self._number(request)))

    async def _mask(self, request: web.Request) -> web.Response:
        mask = await asyncio.to_thread(self._project.read, self._number(request))
        headers = {"ETag": f'"{mask.revision}"', "X-Kind": KINDS[mask.kind], "Cache-Control": "no-store"}
        return web.Response(body=mask.ids.tobytes(), content_type="application/octet-stream", headers=headers)

    async def _annotate(self, request: web.Request) -> web.Response:
        number, revision = self._number(request), _revision(request)
        kind = request.query.get("kind", "annotated")
        uncertainty = _uncertainty(request.query.get("uncertainty"))
        if kind not in ("annotated", "propagated"):
            raise Refused(400, "the kind of a mask is annotated or propagated; load the page again")
        ids = await self._raw(request)
        if kind == "annotated":
            changed = await asyncio.to_thread(self._project.annotate, number, ids, revision)
        else:
            changed = await asyncio.to_thread(self._project.restore, number, ids, uncertainty, revision)
        return _json({"revision": changed})

    async def _clear(self, request: web.Request) -> web.Response:
        number, revision = self._number(request), _revision(request)
        return _json({"revision": await asyncio.to_thread(self._project.clear, number, revision)})

    async def _add_object(self, request: web.Request) -> web.Response:
        fields = await _read_json(request)
        return _json(await asyncio.to_thread(self._project.add_object, fields), status=201)

    async def _change_object(self, request: web.Request) -> web.Response:
        number, fields = int(request.match_info["number"]), await _read_json(request)
        return _json(await asyncio.to_thread(self._project.change_object, number, fields))

    async def _delete_object(self, request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        job = Job("deletion", len(self._project))
        state = await asyncio.to_thread(
            self._jobs.start, job, self._erase, lambda: self._project.begin_deletion(number)
        )
        return _json({"job": state}, status=202)

    def _erase(self, job: Job) -> None:
        for number in range(len(self._project)):
            if job.stopped:
                return
            self._project.erase_deleted(number)
            job.passed(number)
        self._project.end_deletion()

    async def _cut(self, request: web.Request) -> web.Response:
        number = self._number(request)
        if request.content_type == "application/json":
            box = (await _read_json(request)).get("box")
            if not (isinstance(box, list) and len(box) == 4 and all(_is_number(edge) for edge in box)):
                raise Refused(400, "a box has four numbers: left, upper, right and lower edge")
            cut = functools.partial(from_box, box=box)
        else:
            cut = functools.partial(from_strokes, marks=await self._raw(request))
        async with self._cutting:
            mask = await asyncio.to_thread(lambda: cut(self._picture(number)))
        return web.Response(body=mask.tobytes(), content_type="application/octet-stream")

    async def _prepare_cut(self, request: web.Request) -> web.Response:
        number = self._number(request)
        async with self._cutting:
            await asyncio.to_thread(self._picture, number)
        return _json({})

    async def _propagate(self, request: web.Request) -> web.Response:
        body = await _read_json(request)
        frame, direction, until = body.get("frame"), body.get("direction"), body.get("until", "end")
        if not isinstance(frame, int) or isinstance(frame, bool) or not 0 <= frame < len(self._project):
            raise Refused(400, f"frame is a number from 0 to {len(self._project) - 1}")
        if direction not in tuple(DIRECTIONS) or until not in LIMITS:
            raise Refused(400, f"direction is one of {', '.join(DIRECTIONS)}, and until one of {', '.join(LIMITS)}")

        def start() -> dict[str, Any]:
            propagation = Propagation(self._project, frame, direction, until)
            work = functools.partial(propagation.run, self._network, self._settings)
            return self._jobs.start(Job("propagation", propagation.total), work)

        return _json({"job": await asyncio.to_thread(start)}, status=202)

    async def _stop(self, request: web.Request) -> web.Response:
        await asyncio.to_thread(self._jobs.stop, request.path.rpartition("/")[2])
        return _json({})

    async def _import(self, request: web.Request) -> web.Response:
        number = self._number(request) if "number" in request.match_info else None
        files = await _read_files(request)
        if not files:
            raise Refused(400, "the files are missing; choose a mask, or a folder of masks")
        return _json(await asyncio.to_thread(import_masks, self._project, files, number))

    async def _zip(self, request: web.Request) -> web.StreamResponse:
        path = zip_path(self._project)
        if not path.is_file():
            raise Refused(404, "there is no archive; export with Zip checked")
        name = "".join(
            c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in self._project.frames.video.name
        )
        headers = {"Content-Disposition": f'attachment; filename="{name}.zip"', "Cache-Control": "no-store"}
        return web.FileResponse(path, headers=headers)

    async def _export(self, request: web.Request) -> web.Response:
        body = await _read_json(request)
        parts = [part for part in PARTS if body.get(part) is True]
        if not parts or parts == ["zip"]:
            raise Refused(400, f"nothing is selected; select at least one of {', '.join(PARTS)}")

        def start() -> dict[str, Any]:
            export = Export(self._project, parts)
            return self._jobs.start(Job("export", export.total), export.run)

        return _json({"job": await asyncio.to_thread(start)}, status=202)

    def _number(self, request: web.Request) -> int:
        """The number of a frame in the address."""
        number = int(request.match_info["number"])
        if number >= len(self._project):
            raise Refused(404, f"the video has no frame {number}; its last frame is {len(self._project) - 1}")
        self._project.check_ready([number])
        return number

    async def _raw(self, request: web.Request) -> np.ndarray:
        """A body of one byte for each pixel, uint8 [H,W]."""
        height, width = self._size
        stated = request.query.get("width"), request.query.get("height")
        body = await request.read()
        if stated != (str(width), str(height)) or len(body) != height * width:
            raise Refused(400, f"a mask of this video has {width}×{height} pixels of one byte; load the page again")
        return np.frombuffer(body, np.uint8).reshape(height, width)


async def serve(
    folder: Path,
    note: Note,
    frames: Frames,
    unpacking: Unpacking | None,
    network: RDE_VOS,
    settings: EngineSettings,
    *,
    notes: list[str],
    port: int,
    show: Callable[[str], None],
    browse: Callable[[str], None],
) -> signal.Signals:
    """Serve a project until a signal ends the server.

    Args:
        folder, note, frames: see `Project`.
        unpacking: unpacks the frames that are not there yet; None if all are.
        notes: see `Server`.
        port: the port to listen to; 0 for any free one.
        show: called with the address of the page when the server is ready. An address works once, so `show` is called
            with another one whenever the last has been used.
        browse: opens the page in a browser; called with an address when the server is ready.

    Returns:
        the signal: SIGINT or SIGTERM.

    Raises:
        InputError: the port cannot be used, or as `Project`.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[signal.Signals] = loop.create_future()
    for each in (signal.SIGINT, signal.SIGTERM):
        end = functools.partial(lambda each: ended.done() or ended.set_result(each), each)
        try:
            loop.add_signal_handler(each, end)
        except NotImplementedError:  # on Windows
            signal.signal(each, lambda number, stack, end=end: loop.call_soon_threadsafe(end))
    events = Events()
    jobs = Jobs(events.announce)
    server = Server(Project(folder, note, frames, events.announce), jobs, events, network, settings, notes)
    # A compressed body could be much larger than its limit, so no body is decompressed. No log, because the address
    # is secret.
    runner = web.AppRunner(server.application(), access_log=None, auto_decompress=False, shutdown_timeout=2)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, ADDRESS, port).start()
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"port {port} cannot be used ({reason}); choose another --port, or 0 for any") from None
        server.resume(unpacking)
        origin = f"http://{ADDRESS}:{runner.addresses[0][1]}"

        def show_next() -> None:
            show(origin + server.entrance.new_path(show_next))

        show_next()
        browse(origin + server.entrance.new_path())
        return await ended
    finally:
        await asyncio.to_thread(jobs.close)
        events.close()
        await runner.cleanup()


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


def _json(content: dict[str, Any], status: int = 200) -> web.Response:
    return web.json_response(content, status=status, headers={"Cache-Control": "no-store"})


def _error(status: int, sentence: str) -> web.Response:
    return _json({"error": sentence}, status)


def _picture(jpeg: bytes) -> web.Response:
    headers = {"Cache-Control": "private, max-age=86400, immutable"}
    return web.Response(body=jpeg, content_type="image/jpeg", headers=headers)


def _revision(request: web.Request) -> int:
    """The revision of the mask before the change."""
    given = request.headers.get("If-Match")
    if given is None:
        raise Refused(428, "If-Match is missing; give the ETag of the mask")
    number = given.strip('"')
    return int(number) if number.isascii() and number.isdecimal() and len(number) < 20 else -1


async def _read_files(request: web.Request) -> dict[str, bytes]:
    """The files of a form by their names, without hidden files.

    A browser adds folders to the names. They are left out, but for the last one where files have the same name in
    several folders, as in a folder for each object.
    """
    files: dict[str, bytes] = {}
    total = 0
    if not request.content_type.startswith("multipart/"):
        raise Refused(400, "the files are missing; choose a mask, or a folder of masks")
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                raise Refused(400, "a file holds other files; choose masks only")
            content = bytearray()
            while piece := await part.read_chunk(2**16):
                content += piece
                total += len(piece)
                if total > MOST_BYTES:
                    raise Refused(413, f"the files have more than {MOST_BYTES // 2**20} MiB; import fewer at a time")
            name = "/".join((part.filename or "").replace("\\", "/").split("/")[-2:])
            if name and not name.rpartition("/")[2].startswith("."):  # hidden files are no masks
                if name in files:
                    raise Refused(400, f"two files have the name {name}; import one folder of masks")
                files[name] = bytes(content)
    except (ValueError, AssertionError, RuntimeError, BadHttpMessage, web.RequestPayloadError):
        raise Refused(400, "the files have not arrived as a browser sends them; choose them again") from None
    plain = {name.rpartition("/")[2]: content for name, content in files.items()}
    return plain if len(plain) == len(files) else files


def _uncertainty(given: str | None) -> float:
    """The uncertainty of a mask, in bits: NaN if none is given."""
    if given is None:
        return math.nan
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,20})?", given):
        raise Refused(400, "an uncertainty is a number of bits; load the page again")
    return float(given)


async def _read_json(request: web.Request) -> dict[str, Any]:
    body = await request.read()
    try:
        content = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise Refused(400, "the body is no JSON object")
    return content


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6
