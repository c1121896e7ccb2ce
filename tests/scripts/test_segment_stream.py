"""scripts/segment_video.py on streams: a local server stands in for a camera, and a file for a finite stream."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from camera import iter_until, running_camera
from conftest import ROOT, assert_refused, contents, draw_clip, read_table, write_video
from dataset.files.images import read_image, read_mask, write_mask
from dataset.files.stream import Stream, is_stream
from dataset.files.video_file import EndOfVideo, VideoFile
from model.checkpoint import SHIPPED_WEIGHTS
from segmenting.page import live_page

SIZE = (48, 80)
LENGTH = 9


@pytest.fixture
def camera() -> Iterator[str]:
    with running_camera(draw_clip(LENGTH, *SIZE, 2)[0]) as address:
        yield address


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """A clip, ``my clip.mp4``, and its first mask."""
    root = tmp_path_factory.mktemp("clip")
    frames, ids = draw_clip(LENGTH, *SIZE, 2)
    write_video(root / "my clip.mp4", frames)
    write_mask(root / "first.png", ids[0])
    return root


@pytest.fixture
def arguments(small_checkpoint, tmp_path):
    def build(source: object, *flags: object, output: Path = tmp_path / "output") -> tuple:
        model = ("--model", small_checkpoint, "--device", "cpu", "--size", min(SIZE))
        return ("scripts/segment_video.py", source, *model, "--output", output, *flags)

    return build


def next_picture(address: str, after: int = 0) -> tuple[np.ndarray, dict[str, Any]]:
    """A picture of a live page that is newer than one with a number, and its state."""
    with urllib.request.urlopen(f"{address}picture?after={after}") as response:
        picture = cv2.imdecode(np.frombuffer(response.read(), np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
        return picture, json.loads(response.headers["X-State"])


def last_sentence(address: str, after: int) -> str:
    """What a live page says at its end."""
    while True:
        with urllib.request.urlopen(f"{address}picture?after={after}") as response:
            if "X-State" not in response.headers:
                return json.load(response)["end"]
            after = json.loads(response.headers["X-State"])["number"]


def marked(address: str, kind: str, status: int | None = 200, **fields: object) -> dict[str, Any]:
    """Send a request of a live page; returns the answer. Its status is ``status``, or None for any."""
    body = json.dumps({"kind": kind, **fields}).encode()
    try:
        with urllib.request.urlopen(f"{address}marks", body) as response:
            assert status in (response.status, None)
            return json.load(response)
    except urllib.error.HTTPError as error:
        assert status in (error.code, None), error.read()
        return json.load(error)


def test_a_live_page_shows_the_newest_picture_to_those_who_know_its_address():
    with live_page() as page:
        address = page.address
        with urllib.request.urlopen(address) as response:
            assert b"marking.js" in response.read() and response.headers["Referrer-Policy"] == "no-referrer"
        assert urllib.request.urlopen(f"{address}cuts.js").read().count(b"class Box") == 1
        for wrong in (address[:-1], address.replace(page.path, "/"), f"{address}x", f"{address}../page.py"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(wrong)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(address.replace(page.path, "/marks"), b"{}")
        with pytest.raises(urllib.error.HTTPError, match="411"):
            urllib.request.urlopen(urllib.request.Request(f"{address}marks", b"{}", {"Content-Length": "²"}))
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(f"{address}marks", b"[" * 4000)
        assert "segmented already" in marked(address, "start", status=409)["error"]  # this page only shows
        with ThreadPoolExecutor(1) as pool:
            for number, value in enumerate((30, 200), start=1):
                coming = pool.submit(next_picture, address, number - 1)
                while not page.is_awaited:
                    time.sleep(0.01)
                assert page.is_watched and page.show(np.full((20, 30, 3), value, np.uint8)) == number
                picture, state = coming.result()
                assert abs(int(picture.mean()) - value) < 3 and state == {"stage": "started", "number": number}
            assert abs(int(next_picture(address)[0].mean()) - 200) < 3
            coming = pool.submit(last_sentence, address, 2)
            while not page.is_awaited:
                time.sleep(0.01)
            page.close("the end")
            assert coming.result() == "the end"


def test_a_browser_that_goes_without_a_word_is_no_error(capsys):
    """It leaves a picture unread, as a tab that is closed."""
    with live_page() as page:
        address = page.address
        page.show(np.zeros((20, 30, 3), np.uint8))
        host = urllib.parse.urlsplit(address)
        with socket.create_connection((host.hostname, host.port)) as browser:
            browser.sendall(f"GET {page.path}picture?after=0 HTTP/1.1\r\n\r\n".encode())
            while not browser.recv(1 << 16, socket.MSG_PEEK).endswith(b"\xff\xd9"):  # the end of a JPEG file
                pass
        while any("process_request" in thread.name for thread in threading.enumerate()):
            time.sleep(0.01)
    assert capsys.readouterr().err == ""


def test_numbers_and_addresses_are_streams(tmp_path, monkeypatch):
    assert all(map(is_stream, ("0", "12", "rtsp://host/x", "HTTP://host:80/a.mjpg", "file:///a.mp4")))
    assert not any(map(is_stream, ("clip.mp4", "/a/b", "C:\\clip.mp4", "x0", "-1", "")))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0").mkdir()
    assert not is_stream("0")  # a folder of frames


def test_a_stream_of_known_length_gives_what_the_file_gives(arguments, inline, clip, tmp_path):
    """No frame is dropped. A password in the address is not shown."""
    flags = ("--mask", clip / "first.png", "--cutout", "--matte")
    assert inline(*arguments(clip / "my clip.mp4", *flags, output=tmp_path / "expected")).returncode == 0
    result = inline(*arguments((clip / "my clip.mp4").as_uri(), *flags)).checked()
    assert "cannot be resumed" in result.stdout and "dropped" not in result.stdout
    assert contents(tmp_path / "output") == contents(tmp_path / "expected")

    result = inline(*arguments((clip / "my clip.mp4").as_uri(), *flags))
    assert_refused(result, "masks already exists", "another --output")


def test_ctrl_c_ends_a_live_stream_with_complete_results(arguments, camera, clip, tmp_path):
    output = tmp_path / "output"
    y, x = np.argwhere(read_mask(clip / "first.png") == 1).mean(0).round().astype(int)
    marks = ("--box", x - 11, y - 11, x + 11, y + 11, "--clicks", f"+{x},{y}")
    command = [sys.executable, *map(str, arguments(camera, *marks, "--show"))]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        printed = list(iter_until(process.stdout, "in a browser"))
        assert next_picture(printed[-1].split()[1])[0].shape == (*SIZE, 3)
        while process.poll() is None and len(list(output.glob("masks/*.png"))) < 5:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0 and "the stream ends" in stderr, stderr
    stdout = "".join([*printed, stdout])
    assert "Ctrl-C ends the stream" in stdout and "secret" not in stdout + stderr
    assert {path.name for path in output.iterdir()} == {"masks", "overlay.mp4", "confidence.csv", "first_mask.png"}
    masks = sorted(path.stem for path in (output / "masks").iterdir())
    assert masks == [f"{number:05d}" for number in range(len(masks))] and len(masks) >= 5
    assert np.array_equal(read_mask(output / "masks/00000.png"), read_mask(output / "first_mask.png"))
    assert [row["frame"] for row in read_table(output / "confidence.csv")] == masks
    overlay = VideoFile(output / "overlay.mp4")
    assert overlay.announced >= len(masks)  # where frames were dropped, the last picture stays
    overlay.read_frame(overlay.announced - 1)


def test_without_a_mask_the_first_frame_is_written(arguments, inline, clip, tmp_path):
    result = inline(*arguments((clip / "my clip.mp4").as_uri()))
    path = tmp_path / "output/first_frame.png"
    assert_refused(result, "no object is given", path, "--mask", "--box")
    assert np.array_equal(read_image(path), VideoFile(clip / "my clip.mp4").read_frame(0))
    assert_refused(inline(*arguments(clip / "my clip.mp4")), "either as --mask")


def test_a_busy_reader_gets_the_newest_frame(camera):
    stream = Stream(camera)
    first = stream.read_frame(0)
    assert stream.is_live and stream.size == SIZE and stream.read_frame(0) is first and stream.steps == {0: 1}
    arrived = stream.arrived
    while stream.arrived < arrived + 4:
        time.sleep(0.02)
    stream.read_frame(1)
    assert stream.steps[1] >= 4 and stream.dropped == stream.steps[1] - 1
    stream.stop()
    with pytest.raises(EndOfVideo):
        stream.read_frame(2)


def test_streams_that_cannot_be_used(arguments, inline, clip, tmp_path):
    address, first = (clip / "my clip.mp4").as_uri(), clip / "first.png"
    write_mask(tmp_path / "00003.png", np.ones(SIZE, np.uint8))
    Image.new("L", (9, 9), 255).save(tmp_path / "small.png")
    for source, mask, flags, *mentioned in (
        ("987", first, [], "camera 987 cannot be opened"),
        ("rtsp://me:secret@127.0.0.1:9/x", first, [], "rtsp://127.0.0.1:9/x cannot be opened", "check the address"),
        (address, first, ["--both_ways"], "--both_ways", "no frames before"),
        (clip / "my clip.mp4", first, ["--show"], "--show", "overlay video"),
        (address, tmp_path / "00003.png", [], "00003.png", "first frame only"),
        (address, tmp_path / "small.png", [], "small.png is 9×9", "80×48"),
    ):
        assert_refused(inline(*arguments(source, "--mask", mask, *flags)), *mentioned)
    assert not (tmp_path / "output").exists()


@pytest.fixture
def marking(arguments, tmp_path):
    """Run the command without a mask: ``with marking(source) as (process, address)``. Its output is ``output``."""

    @contextlib.contextmanager
    def run(source: str) -> Iterator[tuple[subprocess.Popen, str]]:
        command = [sys.executable, *map(str, arguments(source, "--show", "--model", SHIPPED_WEIGHTS))]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                printed = list(iter_until(process.stdout, "in a browser"))
                assert printed, process.stderr.read()
                yield process, printed[-1].split()[1]
            finally:
                process.kill()

    return run


def centre_of(ids: np.ndarray, number: int) -> tuple[int, int]:
    y, x = np.argwhere(ids == number).mean(0).round().astype(int).tolist()
    return x, y


def box_around(ids: np.ndarray, number: int) -> list[int]:
    rows, columns = np.nonzero(ids == number)
    return [int(columns.min()) - 1, int(rows.min()) - 1, int(columns.max()) + 2, int(rows.max()) + 2]


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


def test_the_first_frame_is_marked_on_the_page(marking, clip, tmp_path):
    """The frame before the newest one. The file goes on with the frame after it."""
    output, ids = tmp_path / "output", draw_clip(LENGTH, *SIZE, 2)[1]
    with marking((clip / "my clip.mp4").as_uri()) as (process, address):
        for number in range(1, 4):
            assert next_picture(address, number - 1)[1] == {"stage": "live", "number": number}
        assert "marks are gone" in marked(address, "box", status=409, box=[1, 2, 30, 40])["error"]
        assert "not kept" in marked(address, "freeze", status=409, number=99)["error"]
        assert marked(address, "newer") == {}  # there is none: no frame is being marked
        marked(address, "freeze", number=2)
        x, y = centre_of(ids[1], 1)
        for kind, fields, sentence in (
            ("start", {}, "no object is marked"),
            ("box", {"box": [3, 3, 4, 4]}, "box is too small"),
            ("box", {"box": ["a", 2, 3, 4]}, "invalid"),
            ("box", {"box": [10**400, 2, 3, 4]}, "invalid"),
            ("box", {"box": [1, 2, 3]}, "invalid"),
            ("click", {"object": 1, "x": 999, "y": 1, "isInside": True}, "invalid"),
            ("click", {"object": 2, "x": x, "y": y, "isInside": True}, "invalid"),
            ("click", {"object": 1, "x": x, "y": y, "isInside": False}, "no object yet"),
            ("dance", {}, "invalid"),
        ):
            assert sentence in marked(address, kind, status=400, **fields)["error"]
        assert marked(address, "box", box=box_around(ids[1], 1)) == {}
        one, state = next_picture(address, 4)
        assert state == {"stage": "frozen", "objects": ["#ff00f0"], "steps": 1, "number": 5}
        assert "no new object" in marked(address, "box", status=400, box=box_around(ids[1], 1))["error"]
        marked(address, "click", object=1, x=x + 3, y=y, isInside=False)
        less, state = next_picture(address, 5)
        assert state["steps"] == 2 and np.abs(less.astype(int) - one)[y, x + 3].max() > 50
        marked(address, "undo")
        assert np.abs(next_picture(address, 6)[0].astype(int) - one).max() < 20
        marked(address, "box", box=box_around(ids[1], 2))
        # Other browsers click and start at the same time. One request to start has an effect, and all have an answer.
        with ThreadPoolExecutor(3) as pool:
            x, y = centre_of(ids[1], 2)
            click = pool.submit(marked, address, "click", None, object=2, x=x, y=y, isInside=True)
            starts = [pool.submit(marked, address, "start", None) for _ in range(2)]
            answers = [request.result() for request in (click, *starts)]
        assert answers[1:].count({}) == 1
        assert all(not answer or "segmented already" in answer["error"] for answer in answers)
        assert last_sentence(address, 8).startswith("the stream has ended")
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0 and "2 objects" in stdout and "dropped" not in stdout, stderr
    first = read_mask(output / "first_mask.png")
    assert all(overlap(first == i, ids[1] == i) > 0.85 for i in (1, 2))
    assert np.array_equal(first, read_mask(output / "masks/00000.png"))
    assert len(list((output / "masks").iterdir())) == VideoFile(output / "overlay.mp4").announced == LENGTH - 1


def test_a_newer_frame_of_a_live_stream_is_marked(marking, camera, clip, tmp_path):
    ids, output = read_mask(clip / "first.png"), tmp_path / "output"
    x, y = centre_of(ids, 1)
    with marking(camera) as (process, address):
        state = {"number": 0}
        for stage in ("newer", "start"):
            _, state = next_picture(address, state["number"])
            marked(address, "freeze", number=state["number"])
            marked(address, "click", object=1, x=x, y=y, isInside=True)
            _, state = next_picture(address, state["number"] + 1)
            assert state["stage"] == "frozen" and state["steps"] == 1
            marked(address, stage)
        while process.poll() is None and len(list(output.glob("masks/*.png"))) < 3:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert {path.name for path in output.iterdir()} == {"masks", "overlay.mp4", "confidence.csv", "first_mask.png"}
    assert read_mask(output / "first_mask.png")[y, x] == 1


def test_nothing_is_written_before_start(marking, arguments, inline, camera, clip, tmp_path):
    """Neither after Ctrl-C nor where the stream has ended."""
    with ThreadPoolExecutor(1) as pool, marking(camera) as (process, address):
        number = next_picture(address)[1]["number"]
        marked(address, "freeze", number=number)
        said = pool.submit(last_sentence, address, number + 1)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        assert "interrupted before Start" in said.result()
    assert process.returncode == 2 and "error: the command was interrupted before Start" in stderr
    with marking((clip / "my clip.mp4").as_uri()) as (process, address):
        assert "clip.mp4 ended before Start was pressed" in last_sentence(address, 0)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2 and "ended before Start was pressed" in stderr
    assert not (tmp_path / "output").exists()
    write_mask(tmp_path / "output/first_mask.png", read_mask(clip / "first.png"))
    assert_refused(inline(*arguments(camera, "--show")), "first_mask.png already exists", "--mask")
