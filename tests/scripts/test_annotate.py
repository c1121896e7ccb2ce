"""scripts/annotate.py: the server behind the page, by real requests to a real process, and its command line."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image

from annotation import cuts
from annotation.errors import Refused
from annotation.exports import PARTS, Export
from annotation.frames import open_file, open_folder
from annotation.imports import import_masks
from annotation.jobs import Job
from annotation.project import KINDS, Project
from annotation.project_file import Note
from annotation.server import Events
from annotator import Running
from conftest import ENDED, ROOT, assert_refused, draw_clip, full_disk, segmented, write_video
from dataset.files.images import read_image, read_mask, write_mask
from dataset.files.video import Video, list_frames
from dataset.files.video_file import VideoFile, video_writer
from dataset.layouts.davis import split_folders
from dataset.samples.video_clips import VideoClips
from model.fast import fast_network
from util.errors import InputError
from util.evaluation.pictures import overlay
from util.evaluation.segmentation import EngineSettings
from util.training.arguments import parse_arguments as training_arguments

SIZE = (48, 80)
LENGTH = 150  # long enough that a test can do something before a propagation is over
PIXELS = SIZE[0] * SIZE[1]


def write_clip(folder: Path, length: int, suffix: str = ".jpg") -> np.ndarray:
    """Write a synthetic clip of two objects, 14 different frames again and again; returns the ids [14,H,W]."""
    folder.mkdir(parents=True)
    frames, ids = draw_clip(14, *SIZE, 2)
    for t in range(length):
        Image.fromarray(frames[t % 14]).save(folder / f"{t:05d}{suffix}", quality=95)
    return ids


@pytest.fixture
def serve(small_checkpoint, tmp_path) -> Iterator[Callable[..., Running]]:
    """Start servers on videos; they end with the test."""
    servers: list[Running] = []

    def start(video: Path, output: Path = tmp_path / "output", *flags: object) -> Running:
        servers.append(Running(video, output, SIZE, "--model", small_checkpoint, *flags))
        return servers[-1]

    yield start
    for server in servers:
        server.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> tuple[Path, np.ndarray]:
    """The folder of a long clip, and its ids."""
    folder = tmp_path_factory.mktemp("videos") / "long clip"
    return folder, write_clip(folder, LENGTH)


@pytest.fixture(scope="module")
def shared(clip, small_checkpoint, tmp_path_factory) -> Iterator[Running]:
    """A server with two objects for tests that leave nothing behind but revisions."""
    server = Running(clip[0], tmp_path_factory.mktemp("shared") / "output", SIZE, "--model", small_checkpoint)
    assert [server.json("POST", "api/objects", body, status=201)["id"] for body in ({}, None)] == [1, 2]
    yield server
    server.end(signal.SIGKILL)


def direct(network, video: Path, numbers: list[int], masks: dict[int, Path], absent: dict[int, list[int]]) -> dict:
    """The engine over some frames of a folder, given masks by frame number: the results by frame number."""
    frames = list_frames(video)
    passage = Video(
        "direct",
        [frames[number] for number in numbers],
        {numbers.index(number): path for number, path in masks.items()},
        absent={numbers.index(number): ids for number, ids in absent.items()},
    )
    settings = EngineSettings(size=min(SIZE))
    results = segmented(fast_network(network, network.dtype), passage, settings, confidence=True)
    return {numbers[result.number]: result for result in results}


ROUTES = [
    *(("GET", path) for path in ("", "page/main.js", "page/style.css", "api/state", "api/events")),
    *(("GET", f"api/{kind}/0") for kind in ("frames", "thumbnails", "masks")),
    *((method, "api/masks/0") for method in ("PUT", "DELETE")),
    *(
        ("POST", f"api/{path}")
        for path in ("objects", "cut/0/box", "cut/0/strokes", "propagation", "export", "import", "import/0")
    ),
    *(("DELETE", f"api/{path}") for path in ("objects/1", "propagation", "export")),
    ("PATCH", "api/objects/1"),
]


def test_every_request_must_bear_the_secret_path(shared):
    before = shared.state()
    place = shared.root.strip("/")
    other = ("A" if place[0] != "A" else "B") + place[1:]
    for method, path in ROUTES:
        body = bytes(PIXELS) if "masks" in path and method == "PUT" else {"name": "stolen", "frame": 0}
        for name in ("", "/", other, place[:-1], f"{place}x", f"%C3%A9{other}", f"%FF{other}"):
            root = f"/{name}/" if name else "/"
            response, content = shared.request(method, path, None if method == "GET" else body, root=root, If_Match="0")
            assert response.status == 404, (method, root, path)
            assert len(content) < 200 and set(json.loads(content)) == {"error"}
    assert shared.state() == before
    for method, path in ROUTES:
        if method == "GET" and path.startswith("api") and "events" not in path:
            assert shared.request(method, path)[0].status == 200, path


def test_the_browser_gets_an_address_that_works_once(clip, small_checkpoint, tmp_path):
    """Other users of the machine may read it in the command line of the browser."""
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opening && mv {tmp_path}/opening {tmp_path}/opened\n')
    browser.chmod(0o755)
    command = [sys.executable, ROOT / "scripts/annotate.py", clip[0], "--output", tmp_path / "output"]
    command += ["--model", small_checkpoint, "--device", "cpu"]
    environment = {**os.environ, "BROWSER": f"{browser} %s"}
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    try:
        printed = urlsplit(process.stdout.readline().split()[-1])
        deadline = time.monotonic() + 60
        while not (tmp_path / "opened").is_file() and time.monotonic() < deadline:
            time.sleep(0.05)
        opened = urlsplit((tmp_path / "opened").read_text().strip())
        assert printed.path not in opened.path
        for path, status in ((opened.path, 303), (opened.path, 404), (printed.path, 200), ("/open/", 404)):
            with contextlib.closing(HTTPConnection(printed.netloc, timeout=60)) as connection:
                connection.request("GET", path)
                response = connection.getresponse()
                assert response.status == status
                assert status != 303 or response.headers["Location"] == printed.path
    finally:
        process.kill()
        process.communicate()


def test_no_path_leaves_the_page_and_the_frames(shared):
    secret = shared.output / "project.json"
    inner = ("../server.py", "../../annotate.py", "../../../README.md", str(secret), f"../{'../' * 20}{secret}")
    for prefix in ("page/", "api/frames/", "api/thumbnails/", "api/masks/", "", "api/"):
        for path in inner:
            for written in (path, path.replace("/", "%2f"), path.replace(".", "%2e").replace("/", "%2F")):
                response, content = shared.request("GET", prefix + written)
                assert response.status in (403, 404), prefix + written
                assert len(content) < 200
    frames = (f"api/frames/{number}" for number in (-1, LENGTH, "9" * 5000))
    for path in ("page/.", "page/..", "page/%2e%2e", "page/server.py", "page/", *frames):
        assert shared.request("GET", path)[0].status == 404, path


def test_only_masks_of_the_video_are_taken(shared):
    tag = shared.mask(3)[2]
    right, path = bytes(PIXELS), "api/masks/3"
    for body in (right[:-1], b""):
        assert "80×48" in shared.refused(400, "PUT", path, body, If_Match=tag)
    assert "more than" in shared.refused(413, "PUT", path, right + b"\0", If_Match=tag)
    assert "no object 7" in shared.refused(400, "PUT", path, bytes([7]) * PIXELS, If_Match=tag)
    assert "If-Match" in shared.refused(428, "PUT", path, right)
    assert "If-Match" in shared.refused(428, "DELETE", path)
    assert "last frame is 149" in shared.refused(404, "PUT", "api/masks/150", right, If_Match=tag)
    ids, kind, now = shared.mask(3)
    assert not ids.any() and (kind, now) == ("none", tag)


def test_a_body_of_a_gigabyte_is_refused_and_not_kept(shared):
    def memory() -> int:
        status = Path(f"/proc/{shared.process.pid}/status").read_text()
        return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])

    before, size, block = memory(), 2**30, bytes(2**20)
    with socket.create_connection(shared.host.split(":"), timeout=60) as connection:
        head = f"PUT {shared.root}api/masks/0 HTTP/1.1\r\nHost: {shared.host}\r\nContent-Length: {size}\r\n"
        connection.sendall(f'{head}If-Match: "0"\r\n\r\n'.encode())
        for _ in range(size // len(block)):
            connection.sendall(block)
        assert b" 413 " in connection.recv(100)
    assert memory() - before < 50 * 2**20
    assert not shared.mask(0)[0].any()


def test_two_pages_at_once(shared, clip):
    """Both hear of every change, and a page that has not seen a change cannot undo it."""
    ids = clip[1][0]
    with shared.events() as first, shared.events() as second:
        tag = shared.mask(5)[2]
        revision = shared.put(5, ids, tag)["revision"]
        assert "changed" in shared.put(5, np.zeros(SIZE), tag, status=412)["error"]
        assert "changed" in shared.refused(412, "DELETE", "api/masks/5", If_Match=tag)
        assert shared.json("PATCH", "api/objects/2", {"name": " a  disc "})["name"] == "a disc"
        for events in (first, second):
            change = {"type": "frame", "number": 5, "kind": "annotated", "revision": revision, "uncertainty": None}
            assert next(events) == change
            assert next(events)["objects"][1]["name"] == "a disc"
    served, kind, tag = shared.mask(5)
    assert np.array_equal(served, ids) and (kind, tag) == ("annotated", f'"{revision}"')
    assert np.array_equal(read_mask(shared.output / "masks/00005.png"), ids)
    assert shared.state()["annotated"] == [5]
    assert shared.json("DELETE", "api/masks/5", If_Match=tag)["revision"] > revision
    assert shared.mask(5)[1] == "none" and not (shared.output / "masks/00005.png").exists()
    assert shared.state()["annotated"] == []


def test_objects(shared):
    assert shared.state()["objects"][0] == {"id": 1, "name": "object 1", "colour": "#ff00f0", "visible": True}
    changed = shared.json("PATCH", "api/objects/1", {"colour": "#00FFaa", "visible": False})
    assert changed == {"id": 1, "name": "object 1", "colour": "#00ffaa", "visible": False}
    for wish in ({"name": " "}, {"name": "x" * 61}, {"name": 3}, {"colour": "red"}):
        assert shared.refused(400, "PATCH", "api/objects/1", wish)
    for body in (b"[]", b"[" * 3000, b"\xff"):
        assert "JSON" in shared.refused(400, "POST", "api/objects", body)
    assert "no object 9" in shared.refused(404, "DELETE", "api/objects/9")
    note = json.loads((shared.output / "project.json").read_text())
    assert note["objects"][0] == changed and len(note["objects"]) == 2
    shared.json("PATCH", "api/objects/1", {"colour": "#ff00f0", "visible": True})


def test_frames_and_thumbnails(shared, clip):
    response, content = shared.request("GET", "api/frames/7")
    assert content == (clip[0] / "00007.jpg").read_bytes() and response.headers["Content-Type"] == "image/jpeg"
    assert "immutable" in response.headers["Cache-Control"]
    thumbnail = Image.open(io.BytesIO(shared.request("GET", "api/thumbnails/7")[1]))
    assert thumbnail.size == (120, 72)
    frame = Image.open(clip[0] / "00007.jpg").resize((120, 72))
    assert np.abs(np.asarray(thumbnail, int) - np.asarray(frame)).mean() < 10


def test_marks_that_cannot_be_cut(shared):
    path = "api/cut/0/strokes"
    for box in ([0, 0, 80, 48], [5, 5, 6, 6]):
        assert "box" in shared.refused(400, "POST", "api/cut/0/box", {"box": box})
    for box in ([1, 2, 3], ["a", 0, 9, 9], [0, 0, 1e99, 9], [0, 0, 10**400, 9], None):
        assert "invalid" in shared.refused(400, "POST", "api/cut/0/box", {"box": box})
    assert "no pixel is marked" in shared.refused(400, "POST", path, bytes([cuts.MASK]) * PIXELS)
    assert "sum of bits" in shared.refused(400, "POST", path, bytes([128]) * PIXELS)
    assert "80×48" in shared.refused(400, "POST", path, b"123")


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def test_masks_are_imported(tmp_path):
    """One for a frame, and several by their names, in the forms that all scripts read."""
    project, ids = new_project(tmp_path, objects=0)
    white = {n: png(np.where(ids[0] == n, 255, 0).astype(np.uint8)) for n in (1, 2)}
    answer = import_masks(project, {"of gimp.png": white[1]}, 0)
    assert answer["frames"] == [0] and "of gimp.png: 1 object" in answer["sentences"][0]
    assert np.array_equal(project.read(0).ids, ids[0] == 1) and KINDS[project.kind(0)] == "annotated"
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)
    files = {f"clip/{n:05d}.png": png(colours[ids[n]]) for n in (1, 2)}
    assert import_masks(project, files, None)["frames"] == [1, 2]
    assert all(np.array_equal(project.read(number).ids, ids[number]) for number in (1, 2))
    # A file for each object.
    answer = import_masks(project, {f"masks/object_{n}.png": content for n, content in white.items()}, None)
    assert answer["frames"] == [0] and any("object 2 is" in sentence for sentence in answer["sentences"])
    assert np.array_equal(project.read(0).ids, ids[0])

    before = project.state()
    for frame, files, message in (
        (2, {"wide.png": png(np.zeros((8, 8), np.uint8))}, r"^wide\.png is 8×8"),
        (2, {"text.png": b"no image"}, r"^text\.png cannot be decoded"),
        (None, {"00001.png": white[1], "00900.png": white[1]}, "00900"),
        (2, {"a.png": white[1], "b.png": white[1]}, "one file"),
        (None, {"../00001.png": white[1]}, "is no name of a file"),
    ):
        with pytest.raises(Refused, match=message):
            import_masks(project, files, frame)
    assert project.state() == before


@pytest.mark.parametrize(
    "form",
    [b"", b"[]", b"{", b"3\n", b'[["0.png"]]\nx', b'[[3, "x"]]\nx', b'[["0.png", "x"]]\nx', b"[" * 9999]
    + [b'[["%s.png", 1]]\nx' % name for name in (b"0" * 300, b"..", b"\\udc00", b"\\ud800", b"a\\u0000b")],
)
def test_a_malformed_import_is_refused_in_a_sentence(shared, form):
    before = shared.state()
    error = shared.refused(400, "POST", "api/import/0", form)
    assert len(error) < 200 and shared.state() == before
    assert not list(shared.output.glob(".import*"))


@pytest.mark.parametrize("part", ["masks", "export", "export/masks", "masks/00001.png", "frames/00000.jpg"])
def test_no_link_leads_out_of_a_project(tmp_path, part):
    """Exports would copy what such a link leads to, or replace it, and imports would write there."""
    project, ids = new_project(tmp_path)
    project.annotate(1, ids[1], 0)
    folder, private = tmp_path / "output", tmp_path / "private"
    (private / "masks").mkdir(parents=True)
    write_mask(private / "00001.png", ids[2])
    before = sorted(private.rglob("*"))
    link = folder / part
    link.parent.mkdir(exist_ok=True)
    if link.is_dir():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.symlink_to(private if not link.suffix else private / "00001.png")
    for use in (
        lambda: Export(project, ["masks", "zip"]),
        lambda: open_project(tmp_path),
        lambda: import_masks(project, {"00001.png": (private / "00001.png").read_bytes()}, None),
    ):
        with pytest.raises(InputError, match="leads out of"):
            use()
    assert sorted(private.rglob("*")) == before
    # An import replaces the link to a mask, and not what it leads to.
    if part == "masks/00001.png":
        project.import_masks({1: ids[0]})
        assert np.array_equal(read_mask(private / "00001.png"), ids[2]) and not link.is_symlink()
        assert Export(project, ["masks"]).run(Job("export", 1)) is not None


def test_names_that_are_not_utf8(serve, tmp_path):
    """Of the folder, and so of the project, and of its frames: all but the videos of the export works."""
    video = Path(os.fsdecode(os.fsencode(tmp_path / "clip ") + b"\xff"))
    ids = write_clip(video, 3)
    for number in range(3):
        (video / f"{number:05d}.jpg").rename(Path(os.fsdecode(os.fsencode(video) + b"/\xfe%d.jpg" % number)))
    output = Path(os.fsdecode(os.fsencode(tmp_path / "output ") + b"\xff"))
    server = serve(video, output)
    for _ in range(2):
        server.json("POST", "api/objects", {}, status=201)
    server.put(0, ids[0])
    server.run(lambda: server.propagate(0, "forward"))
    assert server.state()["propagated"] == [[1, 2]]
    assert "name" in server.state()["video"] and server.request("GET", "api/frames/1")[0].status == 200
    wish = {part: True for part in PARTS if part not in ("overlay", "matte")}
    with server.events() as events:
        server.json("POST", "api/export", wish, status=202)
        notice = next(event for event in events if event["type"] == "notice")
    assert notice["level"] == "info" and len(notice["paths"]) == 4
    with zipfile.ZipFile(output / "export/export.zip") as archive:
        assert "masks/?0.png" in archive.namelist()
    with server.events() as events:
        server.json("POST", "api/export", {"overlay": True}, status=202)
        notice = next(event for event in events if event["type"] == "notice")
    assert notice["level"] == "error" and "not UTF-8" in notice["text"]
    assert "Traceback" not in server.end()
    with pytest.raises(InputError, match="not UTF-8"):
        VideoFile(output / "video.mp4")


def test_a_killed_server_has_lost_nothing(serve, clip, small_network):
    """Every mask that an event has announced is there again, and the same command resumes."""
    video, ids = clip
    server = serve(video)
    server.json("POST", "api/objects", {}, status=201)
    server.json("POST", "api/objects", {"name": "disc", "colour": "#112233"}, status=201)
    server.put(2, ids[2])
    announced = {}
    with server.events() as events:
        server.propagate(2, "both")
        for event in events:
            if event["type"] == "frame":
                announced[event["number"]] = event["uncertainty"]
                if len(announced) == 8:
                    break
        server.end(signal.SIGKILL)
    assert set(range(3, 11)) == set(announced)

    # What the server was writing at that moment does no harm.
    (server.output / f"masks/.00050.{ENDED}.tmp.png").write_bytes(b"half")
    with open(server.output / "uncertainty.csv", "a") as file:
        file.write("300,0.2")
    server = serve(video)
    state = server.state()
    assert [entry["name"] for entry in state["objects"]] == ["object 1", "disc"]
    (first, last), *more = state["propagated"]
    assert not more and first == 3 and last >= 10 and state["annotated"] == [2]
    assert announced == pytest.approx({number: state["uncertainty"][str(number)] for number in announced}, abs=2e-4)
    assert set(map(int, state["uncertainty"])) <= set(range(3, last + 1))
    assert not list((server.output / "masks").glob(".*"))
    expected = direct(small_network, video, list(range(2, 11)), {2: server.output / "masks/00002.png"}, {})
    for number in announced:
        served, kind, _ = server.mask(number)
        assert kind == "propagated" and np.array_equal(served, expected[number].ids), number
        assert announced[number] == pytest.approx(expected[number].uncertainty, abs=1e-4)

    # Stop: nothing is written afterwards.
    server.propagate(last, "forward")
    assert "propagation" in server.refused(409, "POST", "api/propagation", {"frame": 2, "direction": "forward"})
    assert "propagation" in server.refused(409, "DELETE", "api/objects/1")
    server.json("DELETE", "api/propagation")
    state = server.state()
    assert state["job"] is None and state["propagated"][0][1] < LENGTH - 1
    time.sleep(0.2)
    masks = list((server.output / "masks").iterdir())
    assert len(masks) == 1 + sum(end - start + 1 for start, end in state["propagated"])

    # An end in the middle of a job: the stream of events ends, and the exit code says which signal it was.
    with server.events() as events:
        server.propagate(2, "forward")
        assert next(events)["job"]["total"] == LENGTH - 3
        assert "run the same command again" in server.end(signal.SIGINT)
        assert server.process.returncode == 130
        assert list(events)[-1] == {"type": "job", "job": None}


def test_propagated_masks_are_those_of_the_engine(serve, clip, small_network, tmp_path):
    """Forward and backward, with a corrected frame on the way in which an object is absent."""
    video, ids = tmp_path / "short", clip[1]
    shutil.copytree(clip[0], video, ignore=lambda folder, names: [name for name in names if name >= "00016.jpg"])
    server = serve(video)
    masks = {number: server.output / f"masks/{number:05d}.png" for number in range(16)}
    for _ in range(2):
        server.json("POST", "api/objects", {}, status=201)
    assert "no object" in server.refused(400, "POST", "api/propagation", {"frame": 4, "direction": "forward"})
    wishes = [{"frame": frame, "direction": "forward"} for frame in (True, "4", None)]
    wishes += [{"frame": 4, "direction": direction} for direction in ("up", [], None)]
    for wish in (*wishes, {"frame": 4, "direction": "both", "until": "noon"}):
        assert server.refused(400, "POST", "api/propagation", wish)
    for frame in (16, -1):
        assert "no frame" in server.refused(404, "POST", "api/propagation", {"frame": frame, "direction": "forward"})

    server.put(4, ids[4])
    server.run(lambda: server.propagate(4, "both"))
    assert server.state()["propagated"] == [[0, 3], [5, 15]]
    expected = direct(small_network, video, list(range(4, 16)), {4: masks[4]}, {})
    expected |= direct(small_network, video, list(range(4, -1, -1)), {4: masks[4]}, {})
    for number in range(16):
        assert np.array_equal(server.mask(number)[0], expected[number].ids), number

    # The correction of a propagated mask erases object 2, which the annotation speaks for from now on.
    assert (server.mask(8)[0] == 2).any()
    corrected = np.where(ids[8] == 1, 1, 0)
    server.put(8, corrected)
    note = json.loads((server.output / "project.json").read_text())
    assert note["annotated"] == {"4": [1, 2], "8": [1, 2]}
    events = server.run(lambda: server.propagate(4, "forward"))
    assert 8 not in [event["number"] for event in events if event["type"] == "frame"]
    expected |= direct(small_network, video, list(range(4, 16)), {4: masks[4], 8: masks[8]}, {8: [2]})
    for number in range(5, 16):
        assert np.array_equal(server.mask(number)[0], corrected if number == 8 else expected[number].ids), number
    unaware = direct(small_network, video, list(range(4, 16)), {4: masks[4], 8: masks[8]}, {})
    assert not np.array_equal(unaware[9].ids, expected[9].ids)  # the absence has told the engine something

    # From a propagated mask, up to the next annotation only.
    before = {number: server.mask(number)[2] for number in range(16)}
    start = tmp_path / "start.png"
    shutil.copy(masks[11], start)
    server.run(lambda: server.propagate(11, "backward", "annotation"))
    expected = direct(small_network, video, [11, 10, 9], {11: start}, {})
    for number in range(16):
        served, _, tag = server.mask(number)
        assert (tag != before[number]) == (number in (9, 10)), number
        assert number not in (9, 10) or np.array_equal(served, expected[number].ids)
    for frame, direction in ((15, "forward"), (9, "backward")):
        wish = {"frame": frame, "direction": direction, "until": "annotation"}
        assert "no frame to propagate to" in server.refused(400, "POST", "api/propagation", wish)

    # An annotation without any object is given to the engine only where the engine knows what is absent.
    server.put(11, corrected)
    server.put(12, np.zeros(SIZE))
    server.json("POST", "api/objects", {}, status=201)
    server.json("DELETE", "api/masks/13", If_Match=server.mask(13)[2])
    server.put(13, np.where(ids[13] == 2, 3, 0))
    server.put(13, np.zeros(SIZE))
    note = json.loads((server.output / "project.json").read_text())
    assert note["annotated"]["13"] == [3] and 1 in note["annotated"]["12"]
    server.run(lambda: server.propagate(11, "forward"))
    expected = direct(small_network, video, list(range(11, 16)), {11: masks[11], 12: masks[12]}, {12: [1]})
    for number in (14, 15):
        assert np.array_equal(server.mask(number)[0], expected[number].ids), number
    assert "run the same command again" in server.end(signal.SIGTERM) and server.process.returncode == 143


def test_an_annotation_that_comes_late_is_kept_and_used(shared, clip, small_network):
    video, ids = clip
    shared.put(0, ids[0])
    late, mark = 90, np.where(ids[4] > 0, 3 - ids[4], 0)  # the two objects change places
    with shared.events() as events:
        shared.propagate(0, "forward")
        shared.put(late, mark, '"0"')  # no mask has been written there yet
        kinds = {}
        for event in events:
            if event["type"] == "frame":
                kinds[event["number"]] = event["kind"]
                if event["number"] == late + 4:
                    break
    shared.json("DELETE", "api/propagation")
    assert kinds[late] == "annotated" and np.array_equal(shared.mask(late)[0], mark)
    masks = {number: shared.output / f"masks/{number:05d}.png" for number in (0, late)}
    expected = direct(small_network, video, list(range(late + 6)), masks, {})
    for number in (1, late - 1, *range(late + 1, late + 5)):
        assert np.array_equal(shared.mask(number)[0], expected[number].ids), number

    # The deletion of an object goes through all masks.
    shared.run(lambda: shared.json("DELETE", "api/objects/1", status=202))
    state = shared.state()
    assert [entry["id"] for entry in state["objects"]] == [2] and state["annotated"] == [0, late]
    for number in (0, 1, 50, late):
        on_disk = read_mask(shared.output / f"masks/{number:05d}.png")
        assert set(np.unique(on_disk)) <= {0, 2} and np.array_equal(shared.mask(number)[0], on_disk)
    # Without any object there is no mask, and the ids are free again.
    shared.run(lambda: shared.json("DELETE", "api/objects/2", status=202))
    state = shared.state()
    assert not state["objects"] and not state["annotated"] and not state["propagated"] and not state["uncertainty"]
    assert not list((shared.output / "masks").iterdir())
    assert [shared.json("POST", "api/objects", {}, status=201)["id"] for _ in range(2)] == [1, 2]


def test_a_video_file_and_its_exports(serve, inline, small_checkpoint, tmp_path):
    frames, ids = draw_clip(12, *SIZE, 3)
    write_video(tmp_path / "my clip.mp4", frames, fps=12.5)
    server = serve(tmp_path / "my clip.mp4")
    server.idle()
    state = server.state()
    assert state["video"] == {"name": "my clip", "frames": 12, "width": 80, "height": 48, "fps": 12.5}
    assert "no mask" in server.refused(400, "POST", "api/export", {"masks": True})
    for _ in range(3):
        server.json("POST", "api/objects", {}, status=201)
    server.run(lambda: server.json("DELETE", "api/objects/1", status=202))  # the ids are 2 and 3 now
    server.json("PATCH", "api/objects/2", {"colour": "#0000ff"})
    known = np.where(ids > 1, ids, 0)
    server.put(1, np.zeros(SIZE))
    server.put(3, known[3])
    server.put(9, known[9])
    everything = {part: True for part in PARTS}
    assert "6 frames between masks have none, frame 2 first" in server.refused(400, "POST", "api/export", everything)
    assert "nothing is selected" in server.refused(400, "POST", "api/export", {"masks": False})
    server.run(lambda: server.propagate(3, "forward", "annotation"))
    server.run(lambda: server.propagate(3, "backward", "annotation"))
    expected = {number: server.mask(number)[0] for number in range(12)}

    for _ in range(2):  # the second export replaces the first
        with server.events() as events:
            server.json("POST", "api/export", everything, status=202)
            notice = next(event for event in events if event["type"] == "notice")
        (server.output / "export/masks/of an older export").touch()
    export = server.output / "export"
    names = ["masks", "overlay.mp4", "DAVIS", "cutout", "matte.mp4", "export.zip"]
    assert notice["paths"] == [str(export / name) for name in names]
    first = next(number for number in range(1, 4) if expected[number].any())
    assert f"frames {first} to 9" in notice["text"] and "new ids (2 → 1, 3 → 2)" in notice["text"]
    assert sorted(path.name for path in export.iterdir()) == sorted(names)

    (export / "masks/of an older export").unlink()
    assert sorted(path.name for path in (export / "masks").iterdir()) == [f"{t:05d}.png" for t in range(1, 10)]
    mask = Image.open(export / "masks/00003.png")
    assert np.array_equal(np.asarray(mask), expected[3]) and mask.getpalette()[6:9] == [0, 0, 255]
    video = VideoFile(export / "overlay.mp4")
    assert video.announced == 12 and video.fps == pytest.approx(12.5)
    palette = bytes(mask.getpalette())
    for number in range(12):
        frame = read_image(server.output / f"frames/{number:05d}.jpg")
        drawn = overlay(frame, expected[number], palette).astype(int)
        assert np.abs(video.read_frame(number) - drawn).mean() < 12, number

    matte = VideoFile(export / "matte.mp4")
    for number in range(12):
        cutout = export / f"cutout/{number:05d}.png"
        assert cutout.is_file() == (1 <= number <= 9)
        if cutout.is_file():
            pixels, frame = np.array(Image.open(cutout)), read_image(server.output / f"frames/{number:05d}.jpg")
            assert np.array_equal(pixels[:, :, 3], np.where(expected[number] > 0, 255, 0))
            assert np.array_equal(pixels[:, :, :3], np.where(expected[number][:, :, None] > 0, frame, 0))
        assert np.array_equal(matte.read_frame(number)[:, :, 0], 255 * (expected[number] > 0))
    response, content = server.request("GET", "api/export.zip")
    assert response.headers["Content-Disposition"] == 'attachment; filename="my_clip.zip"'
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert archive.read("masks/00003.png") == (export / "masks/00003.png").read_bytes()
        files = {str(path.relative_to(export)) for path in export.rglob("*") if path.is_file()}
        assert set(archive.namelist()) == files - {"export.zip", "masks/of an older export"}
    assert "nothing is selected" in server.refused(400, "POST", "api/export", {"zip": True})

    # DAVIS: evaluation and training take the folder.
    davis = export / "DAVIS"
    for number in range(first, 10):
        exported = read_mask(davis / f"Annotations/480p/my-clip/{number:05d}.png")
        assert np.array_equal(exported, np.array([0, 0, 1, 2], np.uint8)[expected[number]])
        frame = davis / f"JPEGImages/480p/my-clip/{number:05d}.jpg"
        assert frame.read_bytes() == (server.output / f"frames/{number:05d}.jpg").read_bytes()
    for year in (2016, 2017):
        result = inline(
            *("eval_davis.py", "--davis_path", davis, "--output", tmp_path / str(year), "--year", year),
            *("--model", small_checkpoint, "--device", "cpu"),
        ).checked()
        assert re.search(r"J&F-Mean\D+\d", result.stdout) and "my-clip" in result.stdout
    folders = split_folders(davis, 2017, "train")
    clips = VideoClips(folders, crop_size=32, frames=3)
    assert clips.sample(0, np.random.default_rng(0), 0.0)["frames"].shape[0] == 3


def test_a_page_that_does_not_read_is_dropped():
    """Events for it are not kept for ever."""
    events = Events()
    pieces = events.stream()
    next(pieces)
    for number in range(5000):
        events.announce({"number": number})
    received = list(pieces)  # it ends
    assert 0 < len(received) < 2000
    assert json.loads(received[0].removeprefix(b"data: ")) == {"number": 0}


def open_project(root: Path) -> Project:
    """The project ``root/output`` of the images in ``root/clip``, in this process."""
    folder, video = root / "output", root / "clip"
    return Project(folder, Note(folder, video), open_folder(video), lambda event: None)


def new_project(root: Path, objects: int = 2, suffix: str = ".jpg") -> tuple[Project, np.ndarray]:
    """A new project of a clip of three frames, with some objects; and the ids [14,H,W]."""
    ids = write_clip(root / "clip", 3, suffix)
    project = open_project(root)
    for _ in range(objects):
        project.add_object({})
    return project, ids


def test_a_full_disk_changes_nothing(tmp_path):
    project, ids = new_project(tmp_path)
    revision = project.annotate(0, ids[0], 0)
    before = project.state()
    with full_disk(100):
        for change in (
            lambda: project.annotate(0, ids[1], revision),
            lambda: project.annotate(1, ids[1], 0),
            lambda: project.propagate(2, ids[2], 0.5),
            lambda: project.clear(0, revision),
            lambda: project.add_object({}),
            lambda: project.change_object(1, {"name": "other"}),
            lambda: project.delete_object(1, Job("deletion", 3)),
        ):
            with pytest.raises(InputError, match="free some space"):
                change()
    assert np.array_equal(project.read(0).ids, ids[0])
    assert [project.read(number).revision for number in range(3)] == [revision, 0, 0]
    assert before == project.state() == open_project(tmp_path).state()
    # The page may send the same stroke once more.
    assert project.annotate(0, ids[1], revision) > revision
    assert np.array_equal(read_mask(tmp_path / "output/masks/00000.png"), ids[1])


def test_a_disk_that_fills_up_between_two_files_changes_nothing(tmp_path):
    """The mask of an annotation fits, and the note does not: the frame has no mask, also for the next server."""
    project, ids = new_project(tmp_path, objects=9)
    folder = tmp_path / "output"
    project.propagate(1, ids[1], 0.5)
    small = (folder / "project.json").stat().st_size - 1
    assert (folder / "masks/00001.png").stat().st_size < small
    with full_disk(small):
        for number in (0, 1):
            with pytest.raises(InputError, match="free some space"):
                project.annotate(number, ids[2], project.read(number).revision)
    assert sorted(path.name for path in (folder / "masks").iterdir()) == ["00001.png"]
    for each in (project, open_project(tmp_path)):
        assert [KINDS[each.kind(number)] for number in range(2)] == ["none", "propagated"]
        assert np.array_equal(each.read(1).ids, ids[1]) and not each.read(0).ids.any()


def test_a_prediction_comes_back_as_it_was(shared, clip):
    ids = clip[1]
    path = "api/masks/6"
    shared.put(6, ids[6])
    tag = shared.mask(6)[2]
    for wrong in ("much", "-1"):
        address = f"{path}?kind=propagated&uncertainty={wrong}"
        assert "load the page again" in shared.refused(400, "PUT", address, bytes(PIXELS), If_Match=tag)
    network = f"{path}?kind=propagated&uncertainty=0.345678"
    answer = shared.json("PUT", network, ids[7].tobytes(), If_Match=tag)
    served, kind, tag = shared.mask(6)
    assert np.array_equal(served, ids[7]) and (kind, tag) == ("propagated", f'"{answer["revision"]}"')
    state = shared.state()
    assert 6 not in state["annotated"] and [6, 6] in state["propagated"]
    assert state["uncertainty"]["6"] == pytest.approx(0.345678, abs=1e-6)
    assert "6,0.345678\n" in (shared.output / "uncertainty.csv").read_text()
    shared.json("DELETE", "api/masks/6", If_Match=tag)


def test_a_deletion_that_ends_early_leaves_the_object(tmp_path):
    project, ids = new_project(tmp_path)
    folder = tmp_path / "output"
    project.annotate(0, ids[0], 0)
    project.annotate(1, np.where(ids[1] == 1, ids[1], 0), 0)
    project.propagate(2, ids[2], 0.25)
    stopped = Job("deletion", 3)
    stopped.stopped = True
    project.delete_object(1, stopped)

    project = open_project(tmp_path)
    assert [entry["id"] for entry in project.objects()] == [1, 2]
    assert set(np.unique(read_mask(folder / "masks/00002.png"))) == {0, 1, 2}
    project.delete_object(1, Job("deletion", 3))
    assert [entry["id"] for entry in project.objects()] == [2]
    assert [KINDS[project.kind(number)] for number in range(3)] == ["annotated", "none", "propagated"]
    assert set(np.unique(read_mask(folder / "masks/00002.png"))) == {0, 2}
    assert project.state()["uncertainty"] == {"2": 0.25}
    assert project.add_object({})["id"] == 1


def test_a_stopped_export_leaves_nothing(monkeypatch, tmp_path):
    project, ids = new_project(tmp_path, suffix=".png")
    project.propagate(1, ids[1], 0.5)
    for part in PARTS[:-1]:
        job = Job("export", 1)
        job.stopped = True
        assert Export(project, [part]).run(job) is None
        assert not list((tmp_path / "output/export").iterdir())
    notice = Export(project, ["davis"]).run(Job("export", 1))
    command = notice.text.split(": ", 1)[1].split()
    assert command[:2] == ["python", "train.py"] and str(tmp_path / "output/export/DAVIS") in command
    monkeypatch.setattr("sys.argv", command[1:])
    assert training_arguments("").iterations <= (2000 if torch.cuda.is_available() else 200)
    assert "frames 1 to 1, without the frames before and after" in notice.text
    exported = tmp_path / "output/export/DAVIS/JPEGImages/480p/clip/00001.jpg"
    assert Image.open(exported).format == "JPEG"  # the frames are PNGs


def test_at_most_255_objects(tmp_path):
    (first,) = new_project(tmp_path, objects=1)[0].objects()
    path = tmp_path / "output/project.json"
    note = json.loads(path.read_text())
    path.write_text(json.dumps({**note, "objects": [{**first, "id": number} for number in range(1, 255)]}))
    project = open_project(tmp_path)
    assert project.add_object({})["id"] == 255
    with pytest.raises(Refused, match="255"):
        project.add_object({})


def test_frames_of_any_format_are_shown_as_the_network_sees_them(tmp_path):
    """Also a JPEG that a camera has marked as turned, which is shown upright, and a PNG by the name of a JPEG."""
    write_clip(tmp_path / "clip", 1, ".png")
    image = Image.open(tmp_path / "clip/00000.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = image.transpose(Image.Transpose.ROTATE_90)
    lying.save(tmp_path / "clip/00001.jpg", exif=exif, quality=95)
    image.save(tmp_path / "clip/00002.jpg", "PNG")
    frames = open_folder(tmp_path / "clip")
    for number in range(3):
        served = Image.open(io.BytesIO(frames.jpeg(number)))
        assert served.format == "JPEG" and served.getexif().get(0x0112, 1) == 1
        assert np.abs(np.asarray(served, int) - np.asarray(image)).mean() < 12
    Image.new("RGB", (9, 9)).save(tmp_path / "clip/00003.png")
    with pytest.raises(InputError, match="9×9"):
        open_folder(tmp_path / "clip").jpeg(3)


def test_unpacking_goes_on_where_it_stopped(tmp_path):
    frames, _ = draw_clip(6, *SIZE, 1)
    for name in ("one", "two"):
        write_video(tmp_path / f"{name}.mp4", frames)
    video = VideoFile(tmp_path / "one.mp4")
    folder = tmp_path / "frames"
    unpacked, unpack = open_file(video, folder, None)
    assert len(unpacked) == 6 and unpacked.fps == 25 and unpacked.ready == 1
    assert unpacked.jpeg(0) and not unpacked.video.frames[1].exists()
    assert unpack(Job("unpacking", 5)) == 6 and unpacked.ready == 6
    reference = VideoFile(tmp_path / "one.mp4")
    for number in range(6):
        assert np.abs(unpacked.video.read_frame(number).astype(int) - reference.read_frame(number)).mean() < 6
    kept = {path: path.stat().st_mtime_ns for path in unpacked.video.frames[:3]}
    for path in unpacked.video.frames[3:]:
        path.unlink()
    again, unpack = open_file(VideoFile(tmp_path / "one.mp4"), folder, 6)
    assert len(again) == 6 and again.ready == 3 and unpack(Job("unpacking", 5)) == 6
    assert open_file(VideoFile(tmp_path / "one.mp4"), folder, 6)[1] is None
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    with pytest.raises(InputError, match="another video"):
        open_file(VideoFile(tmp_path / "two.mp4"), folder, None)


def test_space_is_checked_before_a_video_is_unpacked(tmp_path, monkeypatch):
    frames, _ = draw_clip(6, *SIZE, 1)
    write_video(tmp_path / "one.mp4", frames)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=3000))
    with pytest.raises(InputError, match=r"need about 0\.0 GB more .*; free some space there"):
        open_file(VideoFile(tmp_path / "one.mp4"), tmp_path / "frames", None)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**6))
    assert open_file(VideoFile(tmp_path / "one.mp4"), tmp_path / "frames", None)[1](Job("unpacking", 5)) == 6


def test_a_long_video_can_be_marked_while_it_is_unpacked(serve, tmp_path):
    """The address is printed at once; other work waits; a video that announces a wrong number of frames has its own."""
    frames, ids = draw_clip(14, *SIZE, 2)
    length = 600
    with video_writer(tmp_path / "long.mp4", SIZE, 25) as append:
        for number in range(length):
            append(frames[number % 14])
    server = serve(tmp_path / "long.mp4")
    state = server.state()
    assert state["video"]["frames"] == length and state["job"]["kind"] == "unpacking"
    server.json("POST", "api/objects", {}, status=201)
    server.json("POST", "api/objects", {}, status=201)
    server.put(0, ids[0])
    last = f"api/masks/{length - 1}"
    assert "not unpacked yet" in server.refused(409, "GET", f"api/frames/{length - 1}")
    assert "not unpacked yet" in server.refused(409, "PUT", last, bytes(PIXELS), If_Match='"0"')
    assert "unpacking" in server.refused(409, "POST", "api/propagation", {"frame": 0, "direction": "forward"})
    server.end(signal.SIGKILL)
    there = len(list((tmp_path / "output/frames").glob("[0-9]*.jpg")))
    assert 0 < there < length
    for name in ("frames/..unpacking.{}.tmp", "masks/.00003.{}.tmp.png", ".import.a.{}.tmp/1.png"):
        left = tmp_path / "output" / name.format(ENDED)
        left.parent.mkdir(exist_ok=True)
        left.touch()

    server = serve(tmp_path / "long.mp4")
    assert server.mask(0)[1] == "annotated"
    server.idle()
    assert len(list((tmp_path / "output/frames").glob("[0-9]*.jpg"))) == length
    assert server.request("GET", f"api/frames/{length - 1}")[0].status == 200
    server.end()
    assert not list((tmp_path / "output").rglob(f"*{ENDED}*"))


def test_what_cannot_be_used_is_refused(shared, clip, inline, small_checkpoint, monkeypatch, tmp_path):
    def refused(*mentioned: object, video: Path = clip[0], output: Path = tmp_path / "output", **flags: object) -> None:
        flags = {"model": small_checkpoint, **flags}
        named = [text for name, value in flags.items() for text in (f"--{name}", value)]
        result = inline("scripts/annotate.py", video, "--output", output, "--no_browser", "--device", "cpu", *named)
        assert_refused(result, *mentioned)

    refused(tmp_path / "absent.mp4", "missing", video=tmp_path / "absent.mp4")
    refused(tmp_path / "absent.pth", model=tmp_path / "absent.pth")
    assert not (tmp_path / "output").exists()
    refused("port", "in use", port=shared.host.split(":")[1])
    monkeypatch.setattr("util.files._PATIENCE", 0.1)
    refused(shared.output, "another process", output=shared.output)

    folder = tmp_path / "output"
    source = clip[0].resolve()
    Project(folder, Note(folder, source), open_folder(source), lambda event: None)
    write_clip(tmp_path / "other", 2)
    refused(folder, clip[0].resolve(), "choose another --output", video=tmp_path / "other")
    note = folder / "project.json"
    good = json.loads(note.read_text())
    for damage in ({"frames": "many"}, {"objects": [{"id": 1}]}, {"annotated": {"900": [1]}}):
        note.write_text(json.dumps({**good, **damage}))
        refused(note, "damaged")
    note.write_text(json.dumps({**good, "frames": 3}))
    refused("150 frames", "had 3")
    note.write_text("{")
    refused(note, "cannot be read")
    note.write_text(json.dumps({**good, "annotated": {"5": [1]}}))
    refused("00005.png is missing")
    note.unlink()
    write_mask(folder / "masks/00000.png", np.ones(SIZE, np.uint8))
    refused(note, "is missing")
