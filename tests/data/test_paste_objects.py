import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from conftest import Command, assert_refused, contents, draw_clip
from dataset.files.images import read_image, read_mask, write_mask
from small_network.compose import PastedVideos, compose
from small_network.sources import cut_out, find_sources

SCRIPT = "scripts/small_network/paste_objects.py"
SMALL = ("--count", 3, "--frames", 6, "--height", 64, "--width", 96, "--workers", 1)
GREY, RED, GREEN = (120, 120, 120), (220, 20, 20), (20, 220, 20)


def write_video(images: Path, masks: Path, colour: tuple[int, int, int], *, length: int = 12, id_: int = 1) -> None:
    """A video of one colour, with a square of the id ``id_`` that is brighter and moves."""
    for t in range(length):
        frame, ids = np.full((90, 140, 3), colour, np.uint8), np.zeros((90, 140), np.uint8)
        ids[30:60, 20 + 4 * t : 50 + 4 * t] = id_
        frame[ids > 0] += 30
        images.mkdir(parents=True, exist_ok=True)
        Image.fromarray(frame).save(images / f"{t:05d}.jpg", quality=95)
        write_mask(masks / f"{t:05d}.png", ids)


def write_still(path: Path, colour: tuple[int, int, int], around: tuple[int, int, int] = (0, 0, 0)) -> None:
    """An image with a disc of one colour."""
    mask = np.zeros((120, 160), np.uint8)
    cv2.circle(mask, (80, 60), 40, 1, -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.where(mask[..., None], colour, around).astype(np.uint8)).save(path, quality=95)
    Image.fromarray(255 * mask).save(path.with_suffix(".png"))


@pytest.fixture
def clips(tmp_path) -> Path:
    """A folder of two synthetic videos, one with two objects."""
    for name, objects in (("one", 1), ("two", 2)):
        frames, ids = draw_clip(14, 90, 140, objects)
        for t in range(14):
            path = tmp_path / "clips/JPEGImages" / name / f"{t:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(frames[t]).save(path, quality=95)
            write_mask(tmp_path / "clips/Annotations" / name / f"{t:05d}.png", ids[t])
    return tmp_path / "clips"


@pytest.fixture
def stills(tmp_path) -> Path:
    """A folder of images, of which one lies in a folder below."""
    write_still(tmp_path / "stills/red.jpg", RED)
    write_still(tmp_path / "stills/more/also_red.jpg", RED)
    return tmp_path / "stills"


def test_the_result_is_an_ordinary_folder_of_videos(inline: Command, clips, stills, tmp_path):
    inline(SCRIPT, "--videos", clips, "--images", stills, "--output", tmp_path / "new", *SMALL).checked()
    videos = sorted(path.name for path in (tmp_path / "new/JPEGImages").iterdir())
    assert len(videos) == 3 and videos == sorted(path.name for path in (tmp_path / "new/Annotations").iterdir())
    for video in videos:
        first = set(np.unique(read_mask(tmp_path / "new/Annotations" / video / "00000.png")).tolist()) - {0}
        assert first == set(range(1, len(first) + 1)) != set()
        for t in range(6):
            ids = read_mask(tmp_path / "new/Annotations" / video / f"{t:05d}.png")
            assert ids.shape == (64, 96) and set(np.unique(ids).tolist()) <= {0, *first}
            assert read_image(tmp_path / "new/JPEGImages" / video / f"{t:05d}.jpg").shape == (64, 96, 3)


def test_the_same_command_goes_on_to_the_same_bytes(inline: Command, clips, stills, tmp_path):
    new = tmp_path / "new"
    command = (SCRIPT, "--videos", clips, "--images", stills, "--output", new, *SMALL)
    assert inline(*command).returncode == 0
    before = contents(new)
    shutil.rmtree(new / "Annotations/pasted-00001")
    kept = (new / "JPEGImages/pasted-00000/00000.jpg").stat().st_mtime_ns
    assert "3 videos, 1 of them new" in inline(*command).stdout
    assert contents(new) == before
    assert (new / "JPEGImages/pasted-00000/00000.jpg").stat().st_mtime_ns == kept
    assert_refused(inline(*command, "--seed", 1), new, "seed")
    assert_refused(inline(SCRIPT, "--videos", clips, "--output", new, *SMALL), new, "images=2")


def test_ids_are_where_the_objects_are(clips, stills, tmp_path):
    """On grey videos the pixels of red stills are red, and all others are as they were."""
    for name in ("a", "b"):
        write_video(tmp_path / "grey/JPEGImages" / name, tmp_path / "grey/Annotations" / name, GREY, id_=255)
    sources = find_sources([tmp_path / "grey"], [stills])
    settings = PastedVideos(frames=4, height=64, width=96)
    several = 0
    for seed in range(25):
        for image, ids in compose(np.random.default_rng(seed), settings, sources):
            difference = image[..., 0].astype(int) - image[..., 1]
            # A background may be a still itself: then black is around.
            if not (image.max(2) > 90).all():
                continue
            red = difference > 60
            seen = cv2.dilate(red.astype(np.uint8), np.ones((3, 3)))
            for number in range(1, int(ids.max()) + 1):
                inside = cv2.erode((ids == number).astype(np.uint8), np.ones((5, 5))) > 0
                # An object is either all red, or all grey: the video's own, or the grey square of another video.
                assert inside.sum() == 0 or red[inside].mean() in (0, 1) or seen[inside].mean() > 0.98
        several += ids.max() > 1
    assert several > 5


def test_val_videos_of_davis_are_left_alone(inline: Command, stills, tmp_path):
    base = tmp_path / "DAVIS/trainval"
    for name, colour in (("bear", GREY), ("cows", GREEN)):
        write_video(base / "JPEGImages/480p" / name, base / "Annotations/480p" / name, colour)
    (base / "ImageSets/2016").mkdir(parents=True)
    (base / "ImageSets/2016/train.txt").write_text("bear\n")
    (base / "ImageSets/2016/val.txt").write_text("cows\n")
    for arguments in (("--images", stills), ()):
        output = tmp_path / f"new{len(arguments)}"
        inline(SCRIPT, "--davis_root", tmp_path / "DAVIS", *arguments, "--output", output, *SMALL).checked()
        for path in output.rglob("*.jpg"):
            image = read_image(path).astype(int)
            assert (image[..., 1] - image[..., 0]).max() < 60, "green of the val video"


def test_objects_that_the_border_cuts_are_not_pasted():
    image = np.zeros((100, 100, 3), np.uint8)
    whole, cut, tiny, huge = (np.zeros((100, 100), bool) for _ in range(4))
    whole[30:70, 30:70] = cut[30:70, :40] = tiny[50:60, 50:60] = huge[1:99, 1:99] = True
    assert cut_out(image, whole).mask.sum() == 1600
    assert [cut_out(image, mask) for mask in (cut, tiny, huge, np.zeros_like(cut))] == [None] * 4


def test_what_cannot_be_used_is_said(inline: Command, clips, stills, tmp_path):
    write_video(tmp_path / "short/JPEGImages/a", tmp_path / "short/Annotations/a", GREY, length=4)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    shutil.copytree(clips, tmp_path / "full")
    for path in (tmp_path / "full/Annotations").rglob("*.png"):
        write_mask(path, np.ones_like(read_mask(path)))
    for arguments, output, *mentioned in (
        (["--images", stills], "new", "--videos"),
        (["--videos", tmp_path / "short"], "new", "10 frames"),
        (["--videos", clips, "--images", tmp_path / "mine"], "new", tmp_path / "mine", "no images"),
        (["--videos", clips], "mine", tmp_path / "mine", "new folder"),
        (["--videos", tmp_path / "full"], "new", "to paste"),
    ):
        assert_refused(inline(SCRIPT, *arguments, "--output", tmp_path / output, *SMALL), *mentioned)
        assert not (tmp_path / output / "JPEGImages").exists()
