"""scripts/segment_video.py on streams: a local server stands in for a camera, and a file for a finite stream."""

import itertools
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from http.client import HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from conftest import ROOT, assert_refused, contents, draw_clip, read_table, write_video
from dataset.files.images import read_image, read_mask, write_mask
from dataset.files.stream import Stream, is_stream
from dataset.files.video_file import EndOfVideo, VideoFile
from segmenting.page import live_page

SIZE = (48, 80)
LENGTH = 9


class Camera(BaseHTTPRequestHandler):
    """Serves frames as motion JPEG, 25 a second, without an end."""

    frames, _ = draw_clip(LENGTH, *SIZE, 2)

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        try:
            for frame in itertools.cycle(self.frames):
                picture = cv2.imencode(".jpg", frame[:, :, ::-1])[1].tobytes()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                self.wfile.write(head.encode() + picture + b"\r\n")
                time.sleep(0.04)
        except OSError:
            pass  # nobody looks any more

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def camera() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://user:secret@127.0.0.1:{server.server_address[1]}/stream.mjpg"
    server.shutdown()
    server.server_close()


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


def iter_until(lines: Iterable[str], text: str) -> Iterator[str]:
    """The lines up to the first one with a text."""
    for line in lines:
        yield line
        if text in line:
            return


def next_picture(response: HTTPResponse) -> np.ndarray:
    """The next picture of a live page."""
    assert response.readline() == b"--picture\r\n" and response.readline() == b"Content-Type: image/jpeg\r\n"
    length = int(response.readline().split()[1])
    response.readline()
    content = response.read(length)
    response.readline()
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]


def test_a_live_page_shows_the_newest_picture_to_those_who_know_its_address():
    with live_page() as (page, address):
        assert urllib.request.urlopen(address).read().count(b'<img src="pictures"') == 1
        for wrong in (address[:-1], address.replace(page.path, "/"), f"{address}x"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(wrong)
        assert not page.is_watched
        with urllib.request.urlopen(f"{address}pictures") as response:
            while not page.is_watched:
                time.sleep(0.01)
            for value in (30, 200):
                page.show(np.full((20, 30, 3), value, np.uint8))
                assert abs(int(next_picture(response).mean()) - value) < 3
            page.close()
            assert response.read() == b""


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
    result = inline(*arguments((clip / "my clip.mp4").as_uri(), *flags))
    assert result.returncode == 0, result.stderr
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
        with urllib.request.urlopen(f"{printed[-1].split()[1]}pictures") as response:
            assert next_picture(response).shape == (*SIZE, 3)
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
    mask = ("--mask", clip / "first.png")
    assert_refused(inline(*arguments("987", *mask)), "camera 987 cannot be opened")
    closed = "rtsp://me:secret@127.0.0.1:9/x"
    result = inline(*arguments(closed, *mask))
    assert_refused(result, "rtsp://127.0.0.1:9/x cannot be opened", "check the address")
    address = (clip / "my clip.mp4").as_uri()
    assert_refused(inline(*arguments(address, *mask, "--both_ways")), "--both_ways", "no frames before")
    assert_refused(inline(*arguments(clip / "my clip.mp4", *mask, "--show")), "--show", "overlay video")
    write_mask(tmp_path / "00003.png", np.ones(SIZE, np.uint8))
    assert_refused(inline(*arguments(address, "--mask", tmp_path / "00003.png")), "00003.png", "first frame only")
    Image.new("L", (9, 9), 255).save(tmp_path / "small.png")
    assert_refused(inline(*arguments(address, "--mask", tmp_path / "small.png")), "small.png is 9×9", "80×48")
    assert not (tmp_path / "output").exists()
