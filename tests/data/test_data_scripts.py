import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from check_data import check_image, check_video
from conftest import Command, assert_refused, draw_clip, write_davis
from dataset.files.images import read_image, read_mask, read_palette, write_mask
from dataset.layouts.folders import Pair, VideoFolders
from dataset.layouts.static import ImageFolder
from dataset.samples.image_clips import ImageClips
from dataset.samples.stages import stage_dataset
from dataset.samples.video_clips import VideoClips
from synthetic import SyntheticSettings, make_synthetic
from util.errors import InputError

PALETTE = bytes(range(30)) + bytes(738)  # not DAVIS's


def draw_video(base: Path, video: str, *, size: tuple[int, int], length: int = 3) -> None:
    """A video of YouTube-VOS, annotated every fifth frame, with the ids 2 and 5."""
    frames, ids = draw_clip(length, *size, 2)
    (base / "JPEGImages" / video).mkdir(parents=True)
    for t in range(length):
        Image.fromarray(frames[t]).save(base / "JPEGImages" / video / f"{5 * t:05d}.jpg", quality=95)
        mask = np.array([0, 2, 5], np.uint8)[ids[t]]
        write_mask(base / "Annotations" / video / f"{5 * t:05d}.png", mask, PALETTE)


def files(root: Path) -> dict[str, int]:
    """When each file was written."""
    return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def truncate(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-200])
    return path


def resize(command: Command, root: Path):
    return command("scripts/resize_youtube.py", "--yv_root", root, "--size", 48)


def test_resize_makes_training_frames_and_goes_on_where_it_stopped(tmp_path, command):
    source, target = tmp_path / "train", tmp_path / "train_480p"
    draw_video(source, "a", size=(72, 129))
    draw_video(source, "b", size=(40, 70))  # small enough already
    draw_video(source, "c", size=(130, 96))
    (source / "meta.json").write_text('{"videos": {}}')
    broken = source / "JPEGImages/c/00005.jpg"
    whole = broken.read_bytes()
    truncate(broken)
    assert_refused(resize(command, tmp_path), broken, "again")
    assert not (target / "JPEGImages/c/00005.jpg").exists() and not (target / "meta.json").exists()
    before = files(target)
    assert len(before) >= 6

    broken.write_bytes(whole)
    truncate(target / "Annotations/b/00000.png").write_bytes(b"")  # as other tools leave files when they are stopped
    damaged = before.pop("Annotations/b/00000.png")
    result = resize(command, tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"3 videos, {18 - len(before)} files written, {len(before)} already existed" in result.stdout
    after = files(target)
    assert after.keys() == files(source).keys() and after.items() >= before.items()
    assert after["Annotations/b/00000.png"] != damaged

    for video, size in (("a", (48, 86)), ("b", (40, 70)), ("c", (65, 48))):
        for frame in ("00000", "00005", "00010"):
            image, mask = f"JPEGImages/{video}/{frame}.jpg", f"Annotations/{video}/{frame}.png"
            if video == "b":
                assert all((target / name).read_bytes() == (source / name).read_bytes() for name in (image, mask))
            small, old = read_image(target / image), read_image(source / image)
            assert small.shape[:2] == size and read_mask(target / mask).shape == size
            # Averaging over the pixels that become one keeps the picture and loses the noise.
            mean = cv2.resize(old, size[::-1], interpolation=cv2.INTER_AREA)
            assert np.abs(small.astype(int) - mean).mean() < 5
            assert read_palette(target / mask)[:30] == PALETTE[:30]
            rows, columns = (
                ((np.arange(new) + 0.5) * whole / new).astype(int)
                for new, whole in zip(size, old.shape[:2], strict=True)
            )
            ids = read_mask(source / mask)[np.ix_(rows, columns)]
            assert set(np.unique(ids)) == {0, 2, 5}
            np.testing.assert_array_equal(read_mask(target / mask), ids)
    assert (target / "meta.json").read_text() == '{"videos": {}}'


def test_resize_names_folders_that_are_missing(tmp_path, inline):
    source = tmp_path / "train"
    assert_refused(resize(inline, tmp_path), source / "JPEGImages", "is missing")
    draw_video(source, "a", size=(40, 70), length=1)
    (source / "JPEGImages/b").mkdir()
    assert_refused(resize(inline, tmp_path), source / "Annotations/b", "again")
    assert_refused(inline("scripts/resize_youtube.py", "--yv_root", tmp_path, "--size", 0), "--size")
    assert not (tmp_path / "train_480p").exists()


def table(output: str) -> dict[str, list[int]]:
    """The numbers in the table's lines, by data set."""
    lines = [line.rsplit(maxsplit=4) for line in output.splitlines()]
    return {line[0]: list(map(int, line[1:])) for line in lines if len(line) == 5 and line[4].isdecimal()}


def problems(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("/")]


def assert_listed(output: str, *expected: tuple[Path, str, str]) -> None:
    """These problems (path, part of what, part of the remedy) and no others."""
    found = problems(output)
    assert len(found) == len(expected), output
    for path, what, remedy in expected:
        (line,) = (line for line in found if line.startswith(f"{path} {what}"))
        assert remedy in line.rsplit("; ", 1)[1] and line.count(str(path)) <= 2


@pytest.fixture
def roots(tmp_path) -> dict[str, Path]:
    """Tiny clean data of stage 2: DAVIS lists a and b, and holds c too."""
    davis = write_davis(tmp_path / "davis", {"a": 3, "b": 3, "c": 3})
    (davis / "trainval/ImageSets/2017/train.txt").write_text("a\nb\n")
    for video in ("x", "y"):
        draw_video(tmp_path / "yv/train_480p", video, size=(48, 80))
    return {"davis_root": davis, "yv_root": tmp_path / "yv"}


def check(command: Command, stage: int, roots: dict[str, Path]):
    return command("scripts/check_data.py", "--stage", stage, *(f"--{name}={path}" for name, path in roots.items()))


def test_check_lists_all_problems_of_videos(roots, command):
    yv = roots["yv_root"] / "train_480p"
    (yv / "Annotations/x/00005.png").unlink()  # not all frames are annotated
    (yv / "JPEGImages/.DS_Store").write_bytes(b"")
    clean = check(command, 2, roots)
    assert clean.returncode == 0, clean.stdout + clean.stderr
    assert table(clean.stdout) == {"DAVIS 2017": [2, 6, 4, 0], "YouTube-VOS": [2, 5, 4, 0]}
    assert_listed(clean.stdout)

    davis = roots["davis_root"] / "trainval"
    images, masks = davis / "JPEGImages/480p", davis / "Annotations/480p"
    (masks / "a/00001.png").unlink()
    truncate(images / "a/00002.jpg")
    Image.fromarray(read_image(images / "b/00000.jpg")).save(masks / "b/00000.png")
    shutil.rmtree(images / "c")
    (davis / "ImageSets/2017/train.txt").write_text("a\nb\nd\n")
    write_mask(yv / "Annotations/x/00010.png", np.ones((48, 81), np.uint8))
    (yv / "JPEGImages/x/00000.jpg").unlink()
    for mask in (yv / "Annotations/y").iterdir():
        write_mask(mask, np.zeros((48, 80), np.uint8))
    (yv / "JPEGImages/z").mkdir()
    bad = check(command, 3, roots)
    assert bad.returncode == 1, bad.stderr
    assert_listed(
        bad.stdout,
        (images / "d", "is missing", "davis_root"),
        (masks / "d", "is missing", "davis_root"),
        (yv / "Annotations/z", "is missing", "resize_youtube.py"),
        (masks / "a/00001.png", "is missing", "copy it again"),
        (images / "a/00002.jpg", "cannot be decoded", "download it again"),
        (masks / "b/00000.png", "has soft edges", "convert_mask.py"),
        (yv / "Annotations/x/00010.png", "is 81×48, but", "same size"),
        (yv / "JPEGImages/x/00000.jpg", "is missing", "resize_youtube.py"),
        (yv / "Annotations/y", "shows no object in any frame", "remove"),
    )
    assert table(bad.stdout) == {"DAVIS 2017": [2, 5, 4, 5], "YouTube-VOS": [2, 4, 3, 4]}


def test_check_goes_on_where_a_data_set_is_missing(roots, inline):
    (roots["davis_root"] / "trainval/ImageSets/2017/train.txt").unlink()
    shutil.rmtree(roots["yv_root"] / "train_480p/JPEGImages")
    result = check(inline, 2, roots)
    assert result.returncode == 1, result.stderr
    assert_listed(
        result.stdout,
        (roots["davis_root"] / "trainval/ImageSets/2017/train.txt", "is missing", "davis_root"),
        (roots["yv_root"] / "train_480p/JPEGImages", "is missing", "resize_youtube.py"),
    )
    assert table(result.stdout) == {"DAVIS 2017": [0, 0, 0, 1], "YouTube-VOS": [0, 0, 0, 1]}


def test_training_says_how_to_make_what_is_missing(roots):
    shutil.rmtree(roots["yv_root"] / "train_480p")
    with pytest.raises(InputError, match=r"train_480p/JPEGImages is missing; make it with scripts/resize_youtube\.py"):
        stage_dataset(2, roots, iterations=1)


def test_check_lists_all_problems_of_images(tmp_path, command):
    make_synthetic(tmp_path, SyntheticSettings(height=48, width=64, frames=6, static=60))
    static = tmp_path / "static"
    assert len(stage_dataset(0, {"static_root": static}, iterations=1)) == 10 * (4 + 2 * 5)
    first = {folder: sorted((static / folder).rglob("*.jpg"))[:2] for folder in os.listdir(static)}
    truncate(first["fss"][0])
    first["DUTS-TR"][0].unlink()
    first["DUTS-TE"][0].with_suffix(".png").unlink()
    for image, value, width in ((first["ECSSD"][0], 127, 64), (first["ECSSD"][1], 128, 65)):
        cv2.imwrite(str(image.with_suffix(".png")), np.full((48, width), value, np.uint8))
    shutil.rmtree(static / "HRSOD")
    result = check(command, 0, {"static_root": static})
    assert result.returncode == 1, result.stderr
    assert_listed(
        result.stdout,
        (first["fss"][0], "cannot be decoded", "again"),
        (first["DUTS-TR"][0], "is missing", "copy the pair again"),
        (first["DUTS-TE"][0].with_suffix(".png"), "is missing", "copy the pair again"),
        (first["ECSSD"][0].with_suffix(".png"), "shows no object", "remove"),
        (first["ECSSD"][1].with_suffix(".png"), "is 65×48, but", "same size"),
    )
    assert table(result.stdout) == {
        "FSS-1000": [10, 10, 10, 1],
        "DUTS-TR": [9, 9, 9, 1],
        "DUTS-TE": [9, 9, 9, 1],
        "ECSSD": [10, 10, 9, 2],
        "BIG": [10, 10, 10, 0],
    }


ODD_MASKS = {
    "empty": (np.zeros((60, 60), np.uint8), True),
    "a pixel": (np.pad(np.ones((1, 1), np.uint8), ((700, 699), (700, 699))), False),
    "a line": (np.pad(np.ones((1, 1400), np.uint8), ((700, 699), (0, 0))), False),
    "another size": (np.ones((60, 61), np.uint8), True),
}


@pytest.mark.parametrize(("mask", "refused"), ODD_MASKS.values(), ids=ODD_MASKS)
@pytest.mark.parametrize("kind", ["image", "video"])
def test_training_refuses_what_the_check_finds(tmp_path, kind, mask, refused):
    image = np.zeros((len(mask), len(mask), 3), np.uint8)
    if kind == "image":
        cv2.imwrite(str(tmp_path / "a.jpg"), image)
        cv2.imwrite(str(tmp_path / "a.png"), 255 * mask)
        findings = check_image(Pair(tmp_path / "a.jpg", tmp_path / "a.png"))
        clips = ImageClips(ImageFolder("toy", tmp_path), crop_size=64)
    else:
        (tmp_path / "images/a").mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "images/a/0.jpg"), image)
        write_mask(tmp_path / "masks/a/0.png", mask)
        folders = VideoFolders("toy", tmp_path / "images", tmp_path / "masks", "copy it again")
        findings, clips = check_video(folders, "a"), VideoClips(folders, crop_size=64)
    assert bool(findings.problems) == refused
    if refused:
        with pytest.raises(InputError):
            clips.sample(0, np.random.default_rng(0), 0.0)
    else:
        assert clips.sample(0, np.random.default_rng(0), 0.0)["masks"][0].any()


def test_check_needs_the_stage_s_folders(tmp_path, inline):
    assert_refused(check(inline, 1, {}), "stage 1 needs data; give --bl_root or --videos")
    assert_refused(
        check(inline, 0, {"static_root": tmp_path / "nowhere"}), "nowhere is not a folder; check --static_root"
    )
