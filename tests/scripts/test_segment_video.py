"""scripts/segment_video.py on folders of images and on video files."""

import os
import random
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import plain
from browser import needs_chromium
from conftest import ROOT, assert_refused, contents, draw_clip, read_table, segmented, tensors, write_video
from dataset.files.colours import colour_table
from dataset.files.given_masks import assign_masks
from dataset.files.images import read_image, read_mask, write_mask
from dataset.files.video import Video
from dataset.files.video_file import EndOfVideo, VideoFile, encoder_note, video_writer
from model.checkpoint import SHIPPED_WEIGHTS
from util.errors import InputError
from util.evaluation.segmentation import EngineSettings
from util.files import lock_folder

SIZE = (48, 80)
LENGTH = 11


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """A synthetic clip as ``clip.mp4``, its decoded frames as ``frames/8.png`` to ``18.png``, and masks."""
    root = tmp_path_factory.mktemp("clip")
    frames, ids = draw_clip(LENGTH, *SIZE, 3)
    write_video(root / "clip.mp4", frames, fps=12.5)
    video = VideoFile(root / "clip.mp4")
    (root / "frames").mkdir()
    for t in range(LENGTH):
        decoded = video.read_frame(t)
        assert np.abs(decoded.astype(int) - frames[t]).mean() < 12  # compressed, but in order and RGB
        Image.fromarray(decoded).save(root / "frames" / f"{t + 8}.png")
    with pytest.raises(EndOfVideo):
        video.read_frame(LENGTH)
    # The second mask knows two objects and brings a third.
    for name, t, shown in (("first", 0, (1, 2)), ("00004", 4, (1, 3)), ("12", 4, (1, 3)), ("8", 0, (1, 2))):
        write_mask(root / f"{name}.png", ids[t] * np.isin(ids[t], shown))
    return root


@pytest.fixture
def arguments(clip, small_checkpoint, tmp_path):
    """The command line for the small network; frames keep their size."""

    def build(video: Path, *flags: object, output: Path = tmp_path / "output") -> tuple:
        model = ("--model", small_checkpoint, "--device", "cpu", "--size", min(SIZE))
        return ("scripts/segment_video.py", video, *model, "--output", output, *flags)

    return build


def masks(output: Path) -> dict[str, np.ndarray]:
    return {path.stem: read_mask(path) for path in sorted((output / "masks").iterdir())}


def interrupted_drawing() -> mock._patch:
    """A context in which Ctrl-C ends a command when it begins to draw."""
    return mock.patch("dataset.files.video_file.video_writer", side_effect=KeyboardInterrupt)


def in_order(found: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [found[name] for name in sorted(found, key=int)]


def test_a_video_file_and_its_frames_give_the_same_masks(arguments, command, inline, clip, small_network, tmp_path):
    result = command(*arguments(clip / "clip.mp4", "--mask", clip / "first.png", clip / "00004.png"))
    assert_refused(result, clip / "first.png", "00000.png")  # several masks are told apart by their names

    shutil.copy(clip / "first.png", tmp_path / "0.png")
    result = inline(*arguments(clip / "clip.mp4", "--mask", tmp_path / "0.png", clip / "00004.png")).checked()
    output = tmp_path / "output"
    for text in ("frame 00000 has the mask", "frame 00004 has the mask", "11 frames", str(output / "overlay.mp4")):
        assert text in result.stdout
    assert "note" not in result.stdout
    from_file = masks(output)
    assert list(from_file) == [f"{t:05d}" for t in range(LENGTH)]

    folder = tmp_path / "folder"
    flags = ("--mask", clip / "12.png", clip / "8.png", "--format", "masks")
    inline(*arguments(clip / "frames", *flags, output=folder)).checked()
    assert {path.name for path in folder.iterdir()} == {"masks", "confidence.csv"}
    from_folder = masks(folder)
    rows = read_table(folder / "confidence.csv")
    shown = [(row["frame"], int(row["object"]), int(row["area"])) for row in rows]
    assert shown == [
        (str(t + 8), number, (from_folder[str(t + 8)] == number).sum())
        for t in range(LENGTH)
        for number in ((1, 2) if t < 4 else (1, 2, 3))
    ]
    assert all(0 <= float(row["confidence"]) <= 1 for row in rows) and len({row["confidence"] for row in rows}) > 5
    assert [row["confidence"] for row in rows[:2]] == ["1.0000", "1.0000"]  # of the given mask
    assert [list(row.values())[1:] for row in rows] == [
        list(row.values())[1:] for row in read_table(output / "confidence.csv")
    ]
    for t in range(LENGTH):
        assert np.array_equal(from_file[f"{t:05d}"], from_folder[str(t + 8)]), t

    frames = tensors(np.stack([read_image(clip / "frames" / f"{t + 8}.png") for t in range(LENGTH)]))
    given = {t: torch.from_numpy(read_mask(clip / name)) for t, name in ((0, "first.png"), (4, "00004.png"))}
    for t, probability in enumerate(plain.segment(small_network, frames, given, "2F+L+RDE", 3, 40)):
        assert (from_file[f"{t:05d}"] != probability.argmax(0).numpy()).mean() < 1e-3, t

    # The overlay: all frames, at the file's pace, tinted where there is an object.
    overlay = VideoFile(output / "overlay.mp4")
    assert overlay.announced == LENGTH and overlay.fps == pytest.approx(12.5)
    drawn = overlay.read_frame(0)
    colour = np.frombuffer(colour_table(), np.uint8).reshape(-1, 3)[1]
    inside = cv2.erode((from_file["00000"] == 1).astype(np.uint8), np.ones((9, 9))) > 0
    expected = read_image(clip / "frames/8.png")[inside].mean(0) / 2 + colour / 2
    assert np.abs(drawn[inside].mean(0) - expected).max() < 25

    # Results are not overwritten.
    assert_refused(inline(*arguments(clip / "clip.mp4", "--mask", clip / "first.png")), output / "masks", "--output")


def test_masks_come_at_the_size_of_the_video(arguments, inline, clip, tmp_path):
    """Whatever the size it is segmented at; before the first mask they are empty, and grey masks will do."""
    Image.fromarray(read_mask(clip / "12.png") * 60).save(tmp_path / "3.png")
    flags = ("--mask", tmp_path / "3.png", "--size", 31, "--format", "masks")
    assert inline(*arguments(clip / "clip.mp4", *flags)).returncode == 0
    written = masks(tmp_path / "output")
    assert all(mask.shape == SIZE and set(np.unique(mask)) <= {0, 60, 180} for mask in written.values())
    assert not written["00002"].any()
    assert np.array_equal(written["00003"], read_mask(clip / "12.png") * 60)  # the given mask, with all of its details


def test_frames_are_decoded_only_shortly_before_they_are_segmented(clip, small_network, tmp_path):
    with video_writer(tmp_path / "long.mp4", SIZE, 25) as append:
        for _ in range(6):
            for frame in draw_clip(LENGTH, *SIZE, 1)[0]:
                append(frame)
    video = VideoFile(tmp_path / "long.mp4")
    video.masks[0] = clip / "first.png"
    ahead = [video.decoded - result.number for result in segmented(small_network, video, EngineSettings(bank="F"))]
    assert len(ahead) == 6 * LENGTH and max(ahead) <= 6


def test_an_odd_size_loses_its_last_row_and_column(tmp_path):
    with video_writer(tmp_path / "odd.mp4", (49, 75), 25) as append:
        append(np.zeros((49, 75, 3), np.uint8))
    assert VideoFile(tmp_path / "odd.mp4").size == (48, 74)


def test_what_cannot_be_used_is_refused(arguments, inline, clip, tmp_path):
    video, first = clip / "clip.mp4", clip / "first.png"
    (tmp_path / "text.mp4").write_text("no video")
    write_mask(tmp_path / "00000.png", np.zeros(SIZE, np.uint8))
    write_mask(tmp_path / "00002.png", np.ones((20, 30), np.uint8))
    write_mask(tmp_path / "00011.png", np.ones(SIZE, np.uint8))
    shutil.copytree(clip / "frames", tmp_path / "frames")
    Image.open(clip / "frames/8.png").save(tmp_path / "frames/8.jpg")
    for source, given, *mentioned in (
        (tmp_path / "absent.mp4", [first], tmp_path / "absent.mp4", "missing"),
        (tmp_path / "text.mp4", [first], tmp_path / "text.mp4", "video"),
        (video, [tmp_path / "absent.png"], "absent.png is missing; check the path"),
        (video, [tmp_path / "00000.png"], tmp_path / "00000.png", "no object"),
        (video, [tmp_path / "00002.png"], tmp_path / "00002.png", "30×20", "80×48"),
        (video, [tmp_path / "00011.png"], tmp_path / "00011.png", "no frame"),
        (video, [clip / "00004.png"] * 2, "the same frame"),
        (video, [first, "--both_ways"], "--both_ways has no effect", "first frame"),
        (tmp_path / "frames", [first], "8.jpg", "8.png"),
    ):
        assert_refused(inline(*arguments(source, "--mask", *given)), *mentioned)
        assert not list(tmp_path.glob("output/*"))


def test_a_file_that_ends_early_says_so(arguments, inline, clip, monkeypatch, tmp_path):
    """Its header announces more frames than there are: masks for those are found out at the end."""
    monkeypatch.setattr(VideoFile, "announced", 20)
    result = inline(*arguments(clip / "clip.mp4", "--mask", clip / "first.png", "--format", "masks")).checked()
    assert "note" in result.stdout and "only 11 could" in result.stdout
    write_mask(tmp_path / "15.png", np.ones(SIZE, np.uint8))
    other = tmp_path / "other"
    result = inline(*arguments(clip / "clip.mp4", "--mask", tmp_path / "15.png", output=other))
    assert_refused(result, tmp_path / "15.png", "11 frames")
    assert not list(other.rglob("*.*"))


def test_a_mask_among_the_frames_is_no_frame(arguments, inline, clip, tmp_path):
    frames = shutil.copytree(clip / "frames", tmp_path / "frames")
    shutil.copy(clip / "first.png", frames / "8_mask.png")
    result = inline(*arguments(frames, "--mask", frames / "8_mask.png", "--format", "masks")).checked()
    assert list(masks(tmp_path / "output")) == sorted(str(t + 8) for t in range(LENGTH))
    assert "mask 8_mask.png: 2 objects, 1 (" in result.stdout


def test_masks_are_named_after_frames_in_many_ways():
    def frame(name: str, names: list[str] | None = None, video: str = "clip") -> int:
        ((number, _),) = assign_masks([Path(f"{name}.png")], video, names).items()
        return number

    for name, number in {
        "00003": 3, "3": 3, "frame_0003": 3, "frame3": 3, "Frame 12": 12, "mask_0007": 7, "00012_mask": 12, "first": 0,
        "dog2": 0, "mask_v2": 0, "mask_255": 0, "320x180": 0, "clip_mask": 0, "clip_00004": 4, "00003_mask2": 3,
        "frame00003_seg1": 3, "IMG_20240105_12": 0,
    }.items():  # fmt: skip
        assert frame(name) == number, name
    assert frame("IMG_4512_mask", video="IMG_4512") == 0
    padded = [f"{t:05d}" for t in range(20)]
    for name, number in {"00003": 3, "3": 3, "frame_0003": 3, "00012_mask": 12, "mask-00012": 12, "my mask": 0}.items():
        assert frame(name, padded) == number, name
    for several, numbers in {
        ("mask_150", "mask_7"): [7, 150], ("00005_mask1", "00003_mask2"): [3, 5],
        ("frame_3_of_9", "frame_5_of_9"): [3, 5], ("IMG_20240105_12", "IMG_20240105_9"): [9, 12],
    }.items():  # fmt: skip
        assert list(assign_masks([Path(f"{name}.png") for name in several], "clip")) == numbers
    assert frame("frame_0003", ["frame_0003", "frame_0004"]) == 0
    assert frame("shot 4 mask", ["shot 3", "shot 4"]) == 1
    for name, names in (("00099", padded), ("frame_0099", padded)):
        with pytest.raises(InputError, match="named like no frame"):
            frame(name, names)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_frames_before_the_first_mask(kind, arguments, inline, clip, tmp_path):
    """They are empty, and the command says so; with --both_ways they are segmented as a reversed video is."""
    video = clip / ("clip.mp4" if kind == "file" else "frames")
    mask = shutil.copy(clip / "00004.png", tmp_path / ("frame_0004.png" if kind == "file" else "12.png"))
    result = inline(*arguments(video, "--mask", mask, "--format", "masks")).checked()
    assert "the masks of the 4 frames before it are empty" in result.stdout
    forward = list(masks(tmp_path / "output").values()) if kind == "file" else None
    both = tmp_path / "both"
    result = inline(*arguments(video, "--mask", mask, "--both_ways", output=both)).checked()
    assert "before it are empty" not in result.stdout
    assert f"({LENGTH} frames in" in result.stdout
    assert {path.name for path in both.iterdir()} == {"masks", "overlay.mp4", "confidence.csv"}
    found = masks(both)
    if forward:
        assert not any(mask.any() for mask in forward[:4])
        for t in range(4, LENGTH):
            assert np.array_equal(found[f"{t:05d}"], forward[t])
        assert [row["frame"] for row in read_table(tmp_path / "output/confidence.csv")] == [
            f"{t:05d}" for t in range(4, LENGTH) for _ in range(2)
        ]
    assert [int(row["area"]) for row in read_table(both / "confidence.csv")] == [
        (mask == number).sum() for mask in in_order(found) for number in (1, 3)
    ]

    reverse = tmp_path / "reverse"
    reverse.mkdir()
    for t in range(5):
        shutil.copy(clip / f"frames/{8 + t}.png", reverse / f"{4 - t}.png")
    shutil.copy(clip / "00004.png", tmp_path / "given.png")
    assert inline(*arguments(reverse, "--mask", tmp_path / "given.png", output=tmp_path / "r")).returncode == 0
    for t in range(5):
        name = f"{t:05d}" if kind == "file" else str(8 + t)
        assert np.array_equal(found[name], masks(tmp_path / "r")[str(4 - t)]), t


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_stopped_run_keeps_its_masks_and_goes_on(kind, arguments, inline, clip, monkeypatch, tmp_path):
    """To exactly the masks of a run that was not stopped."""
    video, expected = (clip / "clip.mp4" if kind == "file" else clip / "frames"), tmp_path / "expected"
    assert inline(*arguments(video, "--mask", clip / "first.png", output=expected)).returncode == 0
    read = type(VideoFile(video) if kind == "file" else Video("", [])).read_frame

    def broken(self, number):
        if number == LENGTH - 2:
            raise InputError("the frame is broken; copy it again")
        return read(self, number)

    owner = VideoFile if kind == "file" else Video
    with monkeypatch.context() as patch:
        patch.setattr(owner, "read_frame", broken)
        result = inline(*arguments(video, "--mask", clip / "first.png"))
    assert_refused(result, "the frame is broken")
    kept = masks(tmp_path / "output/.unfinished")
    assert len(kept) >= LENGTH - 6 and f"note: {len(kept)} masks are kept in" in result.stdout
    assert not (tmp_path / "output/overlay.mp4").exists()
    result = inline(*arguments(video, "--mask", clip / "first.png", "--mem_every", 5))
    assert_refused(result, tmp_path / "output", "another mem_every")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "output/.unfinished/masks").iterdir()}
    inline(*arguments(video, "--mask", clip / "first.png")).checked()
    moved = {tmp_path / "output/masks" / path.name: time for path, time in before.items()}
    assert all(path.stat().st_mtime_ns == time for path, time in moved.items())
    found, wanted = masks(tmp_path / "output"), masks(expected)
    assert found.keys() == wanted.keys() and all(np.array_equal(found[name], wanted[name]) for name in wanted)
    assert (tmp_path / "output/confidence.csv").read_bytes() == (expected / "confidence.csv").read_bytes()
    assert {path.name for path in (tmp_path / "output").iterdir()} == {"masks", "overlay.mp4", "confidence.csv"}
    assert VideoFile(tmp_path / "output/overlay.mp4").announced == LENGTH


def test_a_run_on_a_video_file_that_is_killed_twice_ends_as_an_undisturbed_one(arguments, inline, clip, tmp_path):
    """With equal files and nothing beside them, whatever it was doing: segmenting either way, unpacking or drawing."""
    flags = ("--mask", clip / "00004.png", "--both_ways", "--cutout", "--matte")
    expected, output = tmp_path / "expected", tmp_path / "output"
    assert inline(*arguments(clip / "clip.mp4", *flags, output=expected)).returncode == 0
    command = [sys.executable, *map(str, arguments(clip / "clip.mp4", *flags))]
    moments = random.Random()
    for sign in (".unfinished/masks/*.png", ".overlay.*.mp4"):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and not list(output.glob(sign)):
                time.sleep(0.01)
            time.sleep(moments.uniform(0, 0.3))
            process.kill()
        unfinished = output / ".unfinished/masks"
        if unfinished.is_dir():  # as if the moment had been between two steps of a write
            (unfinished / f".00003.{9**9}.tmp.png").touch()
    if not (output / "masks").is_dir() or (output / ".unfinished").is_dir():
        inline(*arguments(clip / "clip.mp4", *flags)).checked()
    assert contents(output) == contents(expected)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_masks_belong_to_the_settings_that_made_them(kind, arguments, inline, clip, tmp_path):
    """A run that ended while it drew goes on in another format; no mask is used for another first mask or video."""
    video = (
        shutil.copy(clip / "clip.mp4", tmp_path) if kind == "file" else shutil.copytree(clip / "frames", tmp_path / "f")
    )
    output, command = tmp_path / "output", arguments(video, "--mask", clip / "first.png")
    with interrupted_drawing():
        assert inline(*command, "--format", "overlay").returncode == 130
    assert len(masks(output / ".unfinished")) == LENGTH
    other = tmp_path / "other.png"
    write_mask(other, np.roll(read_mask(clip / "first.png"), 9, axis=1))
    assert_refused(inline(*arguments(video, "--mask", other)), output, "another mask")
    os.utime(video if kind == "file" else video / "9.png", (1, 1))  # as if another file took its place
    assert_refused(inline(*command), output, "another frames")
    (output / ".unfinished/settings.json").unlink()  # the settings of these masks are unknown
    result = inline(*arguments(video, "--mask", other, "--format", "overlay")).checked()
    assert f"{LENGTH} frames in" in result.stdout
    assert {path.name for path in output.iterdir()} == {"overlay.mp4", "confidence.csv"}


def test_a_second_command_in_the_same_folder_is_refused(arguments, inline, clip, monkeypatch, tmp_path):
    monkeypatch.setattr("util.files._PATIENCE", 0.1)
    with lock_folder(tmp_path / "output"):
        result = inline(*arguments(clip / "frames", "--mask", clip / "first.png"))
    assert_refused(result, "another process uses", tmp_path / "output")


@pytest.mark.parametrize("video", ["clip.mp4", "frames"])
def test_the_size_of_a_mask_is_compared_before_it_is_decoded(arguments, inline, clip, tmp_path, video):
    mask = tmp_path / "mask.png"
    Image.new("1", (13_300, 13_300)).save(mask)
    mask.write_bytes(mask.read_bytes()[:1000])
    assert_refused(inline(*arguments(clip / video, "--mask", mask)), mask, "13300×13300")
    assert not (tmp_path / "output").exists()


def test_sizes_that_no_network_can_take_are_refused(arguments, inline, clip, tmp_path):
    (tmp_path / "line").mkdir()
    Image.new("RGB", (9000, 1)).save(tmp_path / "line/0.png")
    write_mask(tmp_path / "mask.png", np.ones((1, 9000), np.uint8))
    line = arguments(tmp_path / "line", "--mask", tmp_path / "mask.png", "--size", 480)
    assert_refused(inline(*line), "line are 9000×1", "4320000×480", "smaller --size")
    for flags in (("--size", 99999999999), ("--size", 2**31 - 1), ("--top", 10**19)):
        result = inline(*arguments(clip / "frames", "--mask", clip / "first.png", *flags))
        assert_refused(result, flags[0])
    assert not (tmp_path / "output").exists()


def test_a_link_that_leads_to_itself_is_no_frame_and_no_video(arguments, inline, clip, tmp_path):
    frames = shutil.copytree(clip / "frames", tmp_path / "frames")
    (frames / "19.png").symlink_to("19.png")
    (tmp_path / "loop").symlink_to("loop")
    output = tmp_path / "output"
    assert_refused(inline(*arguments(frames, "--mask", clip / "first.png")), frames / "19.png")
    assert_refused(inline(*arguments(frames, "--mask", tmp_path / "loop")), tmp_path / "loop")
    assert_refused(inline("scripts/annotate.py", tmp_path / "loop", "--output", output), tmp_path / "loop", "missing")
    assert not output.exists()


def test_names_that_are_not_utf8(arguments, inline, clip, tmp_path):
    frames, mask, output = (Path(os.fsdecode(os.fsencode(tmp_path / name) + b"\xff")) for name in ("in", "mask", "out"))
    shutil.copytree(clip / "frames", frames)
    shutil.copy(clip / "first.png", mask)
    assert_refused(inline(*arguments(frames, "--mask", mask, output=output)), "overlay.mp4", "not UTF-8")
    assert not output.exists()
    result = inline(*arguments(frames, "--mask", mask, "--format", "masks", "--cutout", output=output)).checked()
    assert "mask\\udcff" in result.stdout
    assert len(masks(output)) == LENGTH == len(list((output / "cutout").iterdir()))


def test_sizes_of_all_frames_are_checked_first(arguments, inline, clip, tmp_path):
    frames = shutil.copytree(clip / "frames", tmp_path / "frames")
    Image.new("RGB", (40, 24)).save(frames / "18.png")
    result = inline(*arguments(frames, "--mask", clip / "first.png"))
    assert_refused(result, frames / "18.png", "40×24")
    assert not (tmp_path / "output").exists()


def test_cutout_and_matte(arguments, inline, clip, tmp_path):
    flags = ("--mask", clip / "first.png", "--format", "masks", "--cutout", "--matte")
    assert inline(*arguments(clip / "frames", *flags)).returncode == 0
    output = tmp_path / "output"
    found = masks(output)
    for name, ids in found.items():
        cutout = np.asarray(Image.open(output / f"cutout/{name}.png"))
        frame = read_image(clip / f"frames/{name}.png")
        assert np.array_equal(cutout[:, :, 3] > 0, ids > 0)
        assert np.array_equal(cutout[ids > 0][:, :3], frame[ids > 0]) and not cutout[ids == 0].any()
    matte = VideoFile(output / "matte.mp4")
    assert matte.announced == LENGTH
    for t in range(LENGTH):  # exact, as composition needs it
        assert np.array_equal(matte.read_frame(t)[:, :, 0], np.where(found[str(t + 8)] > 0, 255, 0)), t


@pytest.mark.parametrize("encoder", ["PyAV", "OpenCV"])
def test_videos_are_written_with_and_without_pyav(encoder, monkeypatch, tmp_path):
    if encoder == "PyAV":
        pytest.importorskip("av")
        assert encoder_note() is None
    else:
        monkeypatch.setattr("dataset.files.video_file.av", None)
        assert "pip install" in encoder_note()
    noise = np.random.default_rng(0).integers(0, 2, (8, *SIZE, 1)).astype(np.uint8) * 255 * np.ones(3, np.uint8)
    for lossless, frames in ((False, draw_clip(8, *SIZE, 1)[0]), (True, noise)):
        write_video(tmp_path / "a.mp4", frames, fps=29.97, lossless=lossless)
        video = VideoFile(tmp_path / "a.mp4")
        assert video.announced == 8 and video.fps == pytest.approx(29.97)
        for t, frame in enumerate(frames):
            error = np.abs(video.read_frame(t).astype(int) - frame)
            assert error.mean() < 12 and not (lossless and error.any()), (lossless, t)
        code = int(cv2.VideoCapture(str(video.path)).get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").lower()
        expected = {("PyAV", False): b"avc1 h264", ("OpenCV", True): b"ffv1"}.get((encoder, lossless), b"vp09 vp90")
        assert code in expected.split()


@pytest.mark.parametrize("encoder", ["PyAV", "OpenCV"])
@pytest.mark.parametrize("lossless", [False, True])
def test_a_video_that_cannot_be_written_leaves_nothing_behind(encoder, lossless, tmp_path):
    """As on a full disk."""
    if encoder == "PyAV":
        pytest.importorskip("av")
    code = (
        "import resource, sys; from pathlib import Path; import numpy as np; from dataset.files import video_file\n"
        f"if {encoder == 'OpenCV'}: video_file.av = None\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        f"with video_file.video_writer(Path(sys.argv[1]), (64, 96), 25, lossless={lossless}) as append:\n"
        "    for frame in np.random.default_rng(0).integers(0, 256, (30, 64, 96, 3), np.uint8): append(frame)\n"
    )
    path = tmp_path / "videos/a.mp4"
    result = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1 and f"InputError: {path} cannot be written as an MP4 video" in result.stderr
    assert not list(path.parent.iterdir())


def test_progress_is_shown_until_the_overlay_is_complete(arguments, command, clip, tmp_path):
    """Without a terminal, too."""
    result = command(*arguments(clip / "frames", "--mask", clip / "first.png", "--format", "overlay"))
    assert result.returncode == 0, result.stderr
    assert f"frames, drawing 100% ({LENGTH} of {LENGTH})" in result.stderr


@needs_chromium
@pytest.mark.parametrize("lossless", [False, True])
def test_a_browser_plays_the_overlay_and_the_matte(lossless, chromium, tmp_path):
    if lossless:
        pytest.importorskip("av")
    write_video(tmp_path / "a.mp4", draw_clip(25, *SIZE, 1)[0], lossless=lossless)
    (tmp_path / "page.html").write_text("<video muted src=a.mp4 id=v></video>")
    chromium.get(f"file://{tmp_path}/page.html")
    state = chromium.execute_async_script(
        "const done = arguments[0], v = document.getElementById('v');"
        "v.onended = () => done([v.videoWidth, v.videoHeight, v.duration, 'ended']);"
        "v.onerror = () => done([0, 0, 0, v.error.message]); v.play().catch(error => done([0, 0, 0, String(error)]));"
    )
    assert state[:2] == [SIZE[1], SIZE[0]] and state[2] == pytest.approx(1, abs=0.1) and state[3] == "ended", state


def test_a_video_and_a_mask_that_are_swapped(arguments, inline, clip, tmp_path):
    (tmp_path / "masks").mkdir()
    shutil.copy(clip / "first.png", tmp_path / "masks")
    for mask in (clip / "first.png", tmp_path / "masks"):
        for video in (clip / "clip.mp4", clip / "frames", clip / "frames/8.png"):
            assert_refused(inline(*arguments(mask, "--mask", video)), mask, video, "swap VIDEO and --mask")


def test_remedies_fit_what_was_given(arguments, inline, clip, tmp_path):
    (tmp_path / "shots").mkdir()
    shutil.copy(clip / "clip.mp4", tmp_path / "shots/My Clip.MOV")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.heic").write_bytes(b"x")
    (tmp_path / "no masks").mkdir()
    mask = ("--mask", clip / "first.png")
    assert_refused(inline(*arguments(tmp_path / "shots", *mask)), "no images", "My Clip.MOV")
    assert_refused(inline(*arguments(tmp_path / "photos", *mask)), "no images", ".heic")
    assert_refused(inline(*arguments(clip / "frames/8.png", *mask)), "is an image", clip / "frames")
    assert_refused(inline(*arguments(clip / "clip.mp4", "--mask", tmp_path / "no masks")), "holds no masks")
    for content, *mentioned in (
        (b"", "empty"),
        (b'{"shapes": []}', "JSON", "convert_mask.py"),
        (b"hello", "text file"),
        (b"\x93NUMPY", "NumPy", "PNG"),
        ((clip / "clip.mp4").read_bytes(), "video", "mask of one frame"),
        (b"\0\0\0\x18ftypheic", "HEIF", "as a PNG"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS", "git lfs pull"),
    ):
        (tmp_path / "no mask").write_bytes(content)
        assert_refused(inline(*arguments(clip / "clip.mp4", "--mask", tmp_path / "no mask")), "no mask", *mentioned)
    with zipfile.ZipFile(tmp_path / "frames.zip", "w") as archive:
        archive.writestr("00000.jpg", b"")
    assert_refused(inline(*arguments(tmp_path / "frames.zip", *mask)), "is an archive; unpack it")
    result = inline(*arguments(clip / "clip.mp4", "--mask", tmp_path / "nothere.png"))
    assert_refused(result, "nothere.png is missing; check the path")
    (tmp_path / "data/valid/Annotations/a").mkdir(parents=True)
    shutil.copytree(tmp_path / "data/valid/Annotations", tmp_path / "data/valid/JPEGImages")
    for kind in ("Annotations", "JPEGImages"):
        shutil.copy(clip / "first.png", tmp_path / "data/valid" / kind / "a/0.png")
    assert_refused(inline(*arguments(tmp_path / "data", *mask)), f"such as {tmp_path / 'data/valid/JPEGImages/a'}")
    (tmp_path / "given").mkdir()
    for name in ("00000.png", "00004.png"):
        shutil.copy(clip / ("first.png" if name == "00000.png" else name), tmp_path / "given" / name)
    result = inline(*arguments(clip / "clip.mp4", "--mask", tmp_path / "given", "--format", "masks"))
    assert result.returncode == 0 and "frame 00004 has the mask" in result.stdout


def test_a_file_for_each_object(arguments, inline, clip, tmp_path):
    first = read_mask(clip / "first.png")
    (tmp_path / "given").mkdir()
    for number in (1, 2):
        object_mask = Image.fromarray(np.where(first == number, 255, 0).astype(np.uint8))
        object_mask.save(tmp_path / f"given/object_{number}.png")
    result = inline(*arguments(clip / "clip.mp4", "--mask", tmp_path / "given", "--format", "masks")).checked()
    assert "object 1 is object_1.png, object 2 is object_2.png" in result.stdout
    assert np.array_equal(masks(tmp_path / "output")["00000"], first)


def test_a_black_mask_after_the_first_empties_its_frame(arguments, inline, clip, tmp_path):
    (tmp_path / "given").mkdir()
    shutil.copy(clip / "first.png", tmp_path / "given/frame_0001.png")
    for name in ("00000", "00004"):
        write_mask(tmp_path / "given" / f"{name}.png", np.zeros(SIZE, np.uint8))
    result = inline(*arguments(clip / "clip.mp4", "--mask", tmp_path / "given", "--format", "masks")).checked()
    for note in ("00000.png", "left out", "absent from 1 frame, first 1, 2", "frame_0001.png is frame 0"):
        assert note in result.stdout
    written = masks(tmp_path / "output")
    assert [t for t in range(LENGTH) if not written[f"{t:05d}"].any()] == [0, 4]


@pytest.mark.parametrize("kind", ["clip.mp4", "frames"])
def test_boxes_and_clicks_mark_the_objects_of_the_first_frame(kind, arguments, inline, clip, tmp_path):
    """The second run is interrupted, and resumed with the same marks, and with others."""
    truth = read_mask(clip / "first.png")
    (y, x), (other_y, other_x) = (np.argwhere(truth == number).mean(0).round().astype(int) for number in (1, 2))
    rows, columns = np.nonzero(truth == 1)
    box = (columns.min() - 2, rows.min() - 2, columns.max() + 3, rows.max() + 3)
    marks = ("--box", *box, "--clicks", f"+{x},{y}", "-1,1", "--clicks", f"+{other_x},{other_y}", "-60,19", "-3,44")
    marks += ("--model", SHIPPED_WEIGHTS)
    output, expected = tmp_path / "output", tmp_path / "expected"
    result = inline(*arguments(clip / kind, *marks, output=expected)).checked()
    assert "first_mask.png: 2 objects, 1 (" in result.stdout
    first = read_mask(expected / "first_mask.png")
    assert ((first == 1) & (truth == 1)).sum() > 0.6 * ((first == 1) | (truth == 1)).sum()
    assert (first[truth == 2] == 2).mean() > 0.9 and first[19, 60] == first[44, 3] == 0
    assert np.array_equal(in_order(masks(expected))[0], first)
    assert {path.name for path in expected.iterdir()} == {"masks", "overlay.mp4", "confidence.csv", "first_mask.png"}

    with interrupted_drawing():
        assert inline(*arguments(clip / kind, *marks)).returncode == 130
    assert_refused(
        inline(*arguments(clip / kind, *marks[:5], *marks[-2:])), output / "first_mask.png", "another mask", "--mask"
    )
    assert inline(*arguments(clip / kind, *marks)).returncode == 0
    assert contents(output) == contents(expected)


def test_marks_that_cannot_be_used(arguments, inline, clip, tmp_path):
    for marks, *mentioned in (
        ([], "either as --mask", "--box"),
        (["--mask", clip / "first.png", "--box", 1, 1, 9, 9], "either as --mask", "--box"),
        (["--box", 70, 1, 90, 9], "--box 70 1 90 9", "80×48"),
        (["--box", 20, 1, 9, 9], "--box 20 1 9 9", "no area"),
        (["--box", 0, 0, 80, 48], "--box 0 0 80 48", "no background"),
        (["--clicks", "+80,5"], "+80,5", "leaves the frame", "79,47"),
        (["--clicks", "-8,5"], "-8,5", "a click inside"),
        (["--clicks", "8,5"], "'8,5' is no click", "+X,Y"),
    ):
        assert_refused(inline(*arguments(clip / "clip.mp4", *marks)), *mentioned)
    assert not (tmp_path / "output").exists()
