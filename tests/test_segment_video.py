"""scripts/segment_video.py on folders of images and on video files."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import plain
from conftest import assert_refused, draw_clip, tensors
from dataset.colours import colour_table
from dataset.images import read_image, read_mask, write_mask
from dataset.video_file import EndOfVideo, VideoFile, video_writer
from util.evaluation.stream import EngineSettings, segment

SIZE = (48, 80)
LENGTH = 11


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """A drawn clip as ``clip.mp4``, the frames that decoding it gives as ``frames/8.png`` to ``18.png``, and masks."""
    root = tmp_path_factory.mktemp("clip")
    frames, ids = draw_clip(LENGTH, *SIZE, 3)
    with video_writer(root / "clip.mp4", SIZE, 12.5) as append:
        for frame in frames:
            append(frame)
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


def test_a_video_file_and_its_frames_give_the_same_masks(arguments, command, inline, clip, small_network, tmp_path):
    result = command(*arguments(clip / "clip.mp4", "--mask", clip / "first.png", clip / "00004.png"))
    assert_refused(result, clip / "first.png", "00000.png")  # several masks are told apart by their names

    shutil.copy(clip / "first.png", tmp_path / "0.png")
    result = inline(*arguments(clip / "clip.mp4", "--mask", tmp_path / "0.png", clip / "00004.png"))
    assert result.returncode == 0, result.stderr
    output = tmp_path / "output"
    for text in ("frame 00000 has the mask", "frame 00004 has the mask", "11 frames", str(output / "overlay.mp4")):
        assert text in result.stdout
    assert "note" not in result.stdout
    from_file = masks(output)
    assert list(from_file) == [f"{t:05d}" for t in range(LENGTH)]

    folder = tmp_path / "folder"
    flags = ("--mask", clip / "12.png", clip / "8.png", "--format", "masks")
    result = inline(*arguments(clip / "frames", *flags, output=folder))
    assert result.returncode == 0, result.stderr
    assert [path.name for path in folder.iterdir()] == ["masks"]
    from_folder = masks(folder)
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


def test_one_mask_of_any_name_belongs_to_the_first_frame(arguments, inline, clip, tmp_path):
    flags = ("--mask", clip / "first.png", "--format", "overlay")
    result = inline(*arguments(clip / "frames", *flags))
    assert result.returncode == 0, result.stderr
    assert f"frame 8 has the mask {clip / 'first.png'}" in result.stdout
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["overlay.mp4"]


def test_masks_come_at_the_size_of_the_video(arguments, inline, clip, tmp_path):
    """Whatever the size it is segmented at; before the first mask they are empty, and grey masks will do."""
    Image.fromarray(read_mask(clip / "12.png") * 60).save(tmp_path / "3.png")
    flags = ("--mask", tmp_path / "3.png", "--size", 31, "--format", "masks")
    assert inline(*arguments(clip / "clip.mp4", *flags)).returncode == 0
    written = masks(tmp_path / "output")
    assert all(mask.shape == SIZE and set(np.unique(mask)) <= {0, 60, 180} for mask in written.values())
    assert not written["00002"].any() and {60, 180} <= set(np.unique(written["00003"]))


def test_frames_are_decoded_only_shortly_before_they_are_segmented(clip, small_network, tmp_path):
    with video_writer(tmp_path / "long.mp4", SIZE, 25) as append:
        for _ in range(6):
            for frame in draw_clip(LENGTH, *SIZE, 1)[0]:
                append(frame)
    video = VideoFile(tmp_path / "long.mp4")
    video.masks[0] = clip / "first.png"
    ahead = [video.decoded - result.number for result in segment(small_network, video, EngineSettings(bank="F"))]
    assert len(ahead) == 6 * LENGTH and max(ahead) <= 6


def test_an_odd_size_loses_its_last_row_and_column(tmp_path):
    with video_writer(tmp_path / "odd.mp4", (49, 75), 25) as append:
        append(np.zeros((49, 75, 3), np.uint8))
    assert VideoFile(tmp_path / "odd.mp4").size == (48, 74)


def test_what_cannot_be_used_is_refused(arguments, inline, clip, tmp_path):
    def refused(video: Path, *mask: Path, mentioned: tuple) -> None:
        assert_refused(inline(*arguments(video, "--mask", *mask)), *mentioned)
        assert not (tmp_path / "output").exists() or not list((tmp_path / "output").iterdir())

    video, first = clip / "clip.mp4", clip / "first.png"
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty").mkdir()
    write_mask(tmp_path / "00000.png", np.zeros(SIZE, np.uint8))
    write_mask(tmp_path / "00002.png", np.ones((20, 30), np.uint8))
    write_mask(tmp_path / "00011.png", np.ones(SIZE, np.uint8))
    refused(tmp_path / "absent.mp4", first, mentioned=(tmp_path / "absent.mp4", "missing"))
    refused(tmp_path / "text.mp4", first, mentioned=(tmp_path / "text.mp4", "video"))
    refused(tmp_path / "empty", first, mentioned=(tmp_path / "empty", "no images"))
    refused(video, tmp_path / "absent.png", mentioned=(tmp_path / "absent.png", "missing"))
    refused(video, tmp_path / "00000.png", mentioned=(tmp_path / "00000.png", "no object"))
    refused(video, tmp_path / "00002.png", mentioned=(tmp_path / "00002.png", "30×20", "80×48"))
    refused(video, clip / "00004.png", tmp_path / "00011.png", mentioned=(tmp_path / "00011.png", "no frame"))
    refused(video, tmp_path / "00011.png", mentioned=(tmp_path / "00011.png", "no frame"))
    refused(video, clip / "00004.png", clip / "00004.png", mentioned=("the same frame",))
    # A mask among the frames would be a frame.
    shutil.copytree(clip / "frames", tmp_path / "frames")
    Image.open(clip / "frames/8.png").save(tmp_path / "frames/8.jpg")
    refused(tmp_path / "frames", first, mentioned=("8.jpg", "8.png"))


def test_a_file_that_ends_early_says_so(arguments, inline, clip, monkeypatch, tmp_path):
    """Its header announces more frames than there are: masks for those are found out at the end."""
    monkeypatch.setattr(VideoFile, "announced", 20)
    result = inline(*arguments(clip / "clip.mp4", "--mask", clip / "first.png", "--format", "masks"))
    assert result.returncode == 0 and "note" in result.stdout and "only 11 could" in result.stdout
    write_mask(tmp_path / "15.png", np.ones(SIZE, np.uint8))
    other = tmp_path / "other"
    result = inline(*arguments(clip / "clip.mp4", "--mask", tmp_path / "15.png", output=other))
    assert_refused(result, tmp_path / "15.png", "11 frames")
    assert not list(other.rglob("*.*"))
