import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import assert_refused
from dataset.images import davis_palette, read_image, read_mask, read_palette
from toy import ToySettings, make_toy_data
from toy.cutouts import cut_out, load_clip_art, load_cutouts, load_wallpapers
from toy.figures import Figure, Part, draw, sprite_of
from toy.motion import scaling, translation
from toy.scene import Scene, random_scene
from toy.textures import Pictures
from toy.turning import Turntable
from util.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
TINY = {
    "height": 64, "width": 96, "frames": 11, "static": 12, "bl": 2, "youtube_train": 1, "youtube_valid": 2,
    "davis_train": 2, "davis_val": 1, "davis_test": 1,
}  # fmt: skip
SMALL = [str(word) for name, value in TINY.items() for word in (f"--{name}", value)]


def run(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "scripts/make_toy_data.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("toy") / "set"
    done = run("--output", root, *SMALL, "--workers", "2", "--preview")
    assert done.returncode == 0, done.stderr
    return root


def ids_of(path: Path) -> set[int]:
    return set(np.unique(read_mask(path)).tolist()) - {0}


def check_pairs(images: Path, masks: Path, count: int) -> None:
    frames, annotated = sorted(images.glob("*.jpg")), sorted(masks.glob("*.png"))
    assert len(frames) == count and [path.stem for path in frames] == [path.stem for path in annotated]
    for frame, mask in zip(frames, annotated, strict=True):
        assert read_image(frame).shape == (64, 96, 3) and read_mask(mask).shape == (64, 96)
        assert read_palette(mask)[:30] == davis_palette()[:30]


def test_static_has_both_folder_styles_and_grey_masks(toy):
    assert {path.name for path in (toy / "static").iterdir()} == {"fss", "DUTS-TR", "DUTS-TE", "ECSSD", "BIG", "HRSOD"}
    images = sorted((toy / "static").rglob("*.jpg"))
    assert len(images) == 12
    for image in images:
        assert len(image.relative_to(toy / "static").parts) == (3 if "fss" in image.parts else 2)
        mask = Image.open(image.with_suffix(".png"))
        assert mask.mode == "L" and set(np.unique(np.array(mask)).tolist()) == {0, 255}


def test_bl30k_is_annotated_densely(toy):
    videos = sorted((toy / "BL30K" / "JPEGImages").iterdir())
    assert len(videos) == 2
    for video in videos:
        check_pairs(video, toy / "BL30K" / "Annotations" / video.name, 11)


@pytest.mark.parametrize("folder", ["train", "train_480p"])
def test_youtube_train_has_every_fifth_frame_and_true_meta(toy, folder):
    base = toy / "YouTube" / folder
    videos = json.loads((base / "meta.json").read_text())["videos"]
    assert set(videos) == {path.name for path in (base / "JPEGImages").iterdir()} and len(videos) == 1
    for name, video in videos.items():
        masks = base / "Annotations" / name
        check_pairs(base / "JPEGImages" / name, masks, 11)
        assert sorted(path.stem for path in masks.iterdir()) == [f"{t:05d}" for t in range(0, 55, 5)]
        for label, entry in video["objects"].items():
            shown = [path.stem for path in sorted(masks.iterdir()) if int(label) in ids_of(path)]
            assert entry["frames"] == shown and entry["category"]


def test_youtube_valid_introduces_objects_where_they_first_appear(toy):
    base = toy / "YouTube"
    videos = json.loads((base / "valid" / "meta.json").read_text())["videos"]
    starts, gaps = [], 0
    for name, video in videos.items():
        frames = [path.stem for path in sorted((base / "valid" / "JPEGImages" / name).iterdir())]
        assert frames == ["00000", "00005", "00010"]
        every = base / "all_frames" / "valid_all_frames" / "JPEGImages" / name
        assert len(list(every.iterdir())) == 11
        assert (every / "00005.jpg").read_bytes() == (base / "valid" / "JPEGImages" / name / "00005.jpg").read_bytes()
        introduced: dict[str, set[int]] = {}
        for label, entry in video["objects"].items():
            introduced.setdefault(entry["frames"][0], set()).add(int(label))
            assert entry["frames"] == [frame for frame in frames if frame >= entry["frames"][0]]
        given = {path.stem: ids_of(path) for path in (base / "valid" / "Annotations" / name).iterdir()}
        assert given == introduced
        known: set[int] = set()
        for frame in frames:
            known |= introduced.get(frame, set())
            truth = base / "valid_gt" / "Annotations" / name / f"{frame}.png"
            assert truth.is_file() == bool(known)
            if known:
                assert ids_of(truth) <= known and introduced.get(frame, set()) <= ids_of(truth)
        starts.append(sorted(introduced))
        labels = sorted(map(int, video["objects"]))
        gaps += labels != list(range(1, len(labels) + 1))
    assert any(len(frames) > 1 for frames in starts), "no object comes late"
    assert any(frames[0] != "00000" for frames in starts), "every video starts at its first frame"
    assert gaps, "all ids are contiguous"


def test_davis_lists_and_first_frames(toy):
    base = toy / "DAVIS" / "2017"
    sets = base / "trainval" / "ImageSets"
    for split, count in (("train", 2), ("val", 1)):
        names = (sets / "2017" / f"{split}.txt").read_text().split()
        assert len(names) == count and set((sets / "2016" / f"{split}.txt").read_text().split()) <= set(names)
        for name in names:
            masks = base / "trainval" / "Annotations" / "480p" / name
            check_pairs(base / "trainval" / "JPEGImages" / "480p" / name, masks, 11)
            first = read_mask(masks / "00000.png")
            labels = set().union(*(ids_of(path) for path in masks.iterdir()))
            assert labels == set(range(1, len(labels) + 1))
            assert all((first == label).mean() >= 0.003 for label in labels)
    (name,) = (base / "test-dev" / "ImageSets" / "2017" / "test-dev.txt").read_text().split()
    assert len(list((base / "test-dev" / "JPEGImages" / "480p" / name).iterdir())) == 11
    assert [path.name for path in (base / "test-dev" / "Annotations" / "480p" / name).iterdir()] == ["00000.png"]


def test_same_bytes_from_one_process_and_after_losing_a_video(toy, tmp_path):
    before = contents(toy)
    assert "preview.jpg" in before
    copy = tmp_path / "copy"
    shutil.copytree(toy, copy)
    shutil.rmtree(copy / "BL30K" / "JPEGImages" / "bl-00001")
    next((copy / "static" / "BIG").glob("*.png")).unlink()
    kept = copy / "BL30K" / "JPEGImages" / "bl-00000" / "00000.jpg"
    changed = kept.stat().st_mtime_ns
    make_toy_data(copy, ToySettings(**TINY))
    assert contents(copy) == before
    assert kept.stat().st_mtime_ns == changed, "a finished video was drawn again"

    alone = tmp_path / "alone"
    make_toy_data(alone, ToySettings(**TINY))
    del before["preview.jpg"]
    assert contents(alone) == before


def test_splits_and_seeds_differ(toy):
    first = [path / "00000.jpg" for path in (toy / "DAVIS/2017/trainval/JPEGImages/480p").iterdir()]
    first += [path / "00000.jpg" for path in (toy / "BL30K/JPEGImages").iterdir()]
    assert len({path.read_bytes() for path in first}) == len(first)


def test_refuses_other_settings_in_the_same_folder(inline, toy):
    for name in ("seed", "leave"):
        assert_refused(inline("scripts/make_toy_data.py", "--output", toy, *SMALL, f"--{name}", "1"), name)


def test_refuses_impossible_settings_and_foreign_folders(inline, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    for changes, hint in (
        ({"frames": 2}, "--frames"), ({"height": 0}, "--height"), ({"bl": -1}, "--bl"), ({"leave": 5}, "--frames"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=hint):
            make_toy_data(tmp_path / "new", ToySettings(**changes))
    assert not (tmp_path / "new").exists()
    assert_refused(inline("scripts/make_toy_data.py", "--output", tmp_path, *SMALL), "new folder")
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_objects_leave_a_long_video_and_come_back(tmp_path):
    leave, length = 20, 120
    counts = dict.fromkeys(("static", "bl", "youtube_train", "youtube_valid", "davis_train", "davis_test"), 0)
    settings = ToySettings(height=48, width=64, frames=length, max_objects=3, leave=leave, davis_val=2, **counts)
    make_toy_data(tmp_path / "one", settings)
    several = 0
    for video in sorted((tmp_path / "one/DAVIS/2017/trainval/Annotations/480p").iterdir()):
        ids = [ids_of(path) for path in sorted(video.iterdir())]
        assert len(ids) == length and ids[0] and ids[0] == set().union(*ids)
        several += len(ids[0]) > 1
        for label in ids[0]:
            # One letter a frame, so that absences between two stays are easy to find.
            shown = "".join("x" if label in frame else "." for frame in ids)
            absences = [len(gap) for gap in shown.strip(".").split("x") if gap]
            assert max(absences) >= leave, shown
            assert shown.endswith("x"), "the object is away at the end"
    assert several, "no video has several objects"
    make_toy_data(tmp_path / "other", settings)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


def test_photos_without_the_packages_is_a_clear_error(tmp_path, monkeypatch):
    from toy.textures import load_photos

    load_photos.cache_clear()
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(InputError, match="pip install scikit-image scikit-learn"):
        make_toy_data(tmp_path / "new", ToySettings(photos=True))
    assert not (tmp_path / "new").exists()


def test_ids_and_appearance_are_drawn_together():
    scene = random_scene(np.random.default_rng(5), 72, 128, 20, [2, 5])
    for t in (0, 7.5, 19):
        frame, ids = scene.frame(t)
        assert frame.shape == (72, 128, 3) and frame.dtype == np.uint8
        assert np.array_equal(ids, scene.ids(t)) and set(np.unique(ids).tolist()) <= {0, 2, 5}


def cutout(colour: tuple[int, int, int], height: int = 160, width: int = 200) -> np.ndarray:
    """A photographed object, as it were: an ellipse of one colour, RGBA."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    inside = x * x + y * y < 0.98
    return np.dstack([np.full((height, width, 3), colour, np.uint8), np.where(inside, 255, 0).astype(np.uint8)])


def hard_scene(seed: int, labels=(1,), **settings) -> Scene:
    views = (np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8),)
    pictures = Pictures(views, (cutout((200, 40, 40)), cutout((40, 40, 200), 200, 130)), views)
    return random_scene(np.random.default_rng(seed), 72, 128, 20, labels, pictures=pictures, hard=True, **settings)


def test_hard_scenes_have_true_masks_and_can_be_drawn_again():
    for seed in range(6):
        scene, again = hard_scene(seed, [1, 2]), hard_scene(seed, [1, 2])
        for t in (0, 11):
            frame, ids = scene.frame(t)
            assert np.array_equal(ids, scene.ids(t)) and set(np.unique(ids).tolist()) <= {0, 1, 2}
            assert all(np.array_equal(*pair) for pair in zip((frame, ids), again.frame(t), strict=True))


def test_hard_objects_grow_and_shrink_more():
    def largest_change(hard: bool) -> float:
        changes = []
        for seed in range(12):
            scene = random_scene(np.random.default_rng(seed), 72, 128, 40, [1], hard=hard)
            (actor,) = (actor for actor in scene.actors if actor.label)
            sizes = [actor.track.log_scale(t) for t in range(40)]
            changes.append(max(sizes) - min(sizes))
        return np.exp(max(changes))

    assert largest_change(hard=True) > 3 > largest_change(hard=False)


def test_leading_objects_turn_and_have_few_others_around():
    scenes = [random_scene(np.random.default_rng(seed), 72, 128, 20, [1, 2], lead=True) for seed in range(30)]
    usual = [random_scene(np.random.default_rng(seed), 72, 128, 20, [1, 2]) for seed in range(30)]
    leading = [actor.figure for scene in scenes for actor in scene.actors if actor.label]
    assert sum(isinstance(figure, Turntable) for figure in leading) > len(leading) / 2
    assert len({id(actor.figure) for scene in scenes for actor in scene.actors}) == sum(len(s.actors) for s in scenes)
    assert sum(len(scene.actors) for scene in scenes) < sum(len(scene.actors) for scene in usual)
    frame, ids = scenes[0].frame(7)
    assert np.array_equal(ids, scenes[0].ids(7)) and set(np.unique(ids).tolist()) <= {0, 1, 2}
    assert np.array_equal(frame, random_scene(np.random.default_rng(0), 72, 128, 20, [1, 2], lead=True).frame(7)[0])


def square(colour: int) -> Figure:
    """A rigid square of one unit and one colour."""
    picture = np.full((64, 64, 4), 255, np.uint8)
    picture[..., :3] = colour
    to_pixels = translation(31.5, 31.5) @ scaling(64, 64)
    return Figure([Part([])], [sprite_of(picture, to_pixels)], np.eye(3), 10.0, [], 0.7, [0])


def test_a_turning_object_shows_one_side_after_the_other():
    sides = [(square(colour), 1.0) for colour in (50, 100, 150, 200)]
    table = Turntable(sides, [0.5] * 4, yaw=lambda t: t, shade=0.0)

    def shown(yaw: float) -> dict[int, int]:
        _, _, picture = table.draw(yaw, translation(60, 60) @ scaling(40, 40), 120, 120)
        colours, counts = np.unique(picture[picture[..., 3] == 255][:, 0], return_counts=True)
        return {int(c): int(n) for c, n in zip(colours, counts, strict=True) if n > 100 and c % 50 == 0}

    front = shown(0.0)
    assert set(front) == {50} and 1400 < front[50] < 1800
    assert set(shown(np.pi / 4)) == {50, 200}
    assert set(shown(-np.pi / 2)) == {100} and set(shown(np.pi)) == {150}


def test_pieces_of_a_photographed_object_are_the_whole_object():
    picture = cutout((120, 90, 60))
    several = 0
    for seed in range(8):
        figure, outline = cut_out(np.random.default_rng(seed), picture, softness=0.0)
        assert outline.area == pytest.approx(np.pi / 4 * 0.8, rel=0.05)
        several += len(figure.parts) > 1
        for part in figure.parts:
            part.swing = 0.0  # the rest pose
        _, _, drawn = draw(figure, 0.0, translation(120, 100) @ scaling(200, 200), 200, 240)
        assert (drawn[..., 3] >= 128).sum() == pytest.approx((picture[..., 3] > 0).sum(), rel=0.05)
    assert several >= 3


@pytest.mark.parametrize(
    ("name", "package"),
    [("STAMPS", "tuxpaint-stamps-default"), ("WALLPAPERS", "mate-backgrounds"), ("CLIP_ART", "openclipart-png")],
)
def test_missing_pictures_name_the_package(tmp_path, monkeypatch, name, package):
    load = {"STAMPS": load_cutouts, "WALLPAPERS": load_wallpapers, "CLIP_ART": load_clip_art}[name]
    absent = {package: (str(tmp_path), ("*",))} if name == "WALLPAPERS" else tmp_path
    load.cache_clear()
    monkeypatch.setattr(f"toy.cutouts.{name}", absent)
    with pytest.raises(InputError, match=f"apt install {package}"):
        load()
    load.cache_clear()


def test_photographs_are_found_in_the_folders_of_the_packages(tmp_path, monkeypatch):
    """A drawing, a letter and a small picture among the stamps are left out; KDE's folders give their largest file."""
    rng = np.random.default_rng(0)
    photo = cutout((0, 0, 0))
    photo[..., :3] = rng.integers(0, 255, (160, 200, 3))
    for path, picture in (
        ("animals/cow.png", photo), ("animals/cartoon/cow.png", photo), ("symbols/a.png", photo),
        ("animals/flat.png", cutout((9, 90, 9))), ("food/small.png", photo[:50, :50]),
    ):  # fmt: skip
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(tmp_path / path)
    images = tmp_path / "walls/Lake/contents/images"
    images.mkdir(parents=True)
    for side in (100, 400):
        Image.fromarray(photo[..., :3]).resize((side, side)).save(images / f"{side}x{side}.png")
    load_cutouts.cache_clear(), load_wallpapers.cache_clear()
    monkeypatch.setattr("toy.cutouts.STAMPS", tmp_path)
    monkeypatch.setattr("toy.cutouts.WALLPAPERS", {"any": (str(tmp_path / "walls"), ("Lake",))})
    (found,) = load_cutouts()
    assert found.shape[2] == 4 and max(found.shape) <= 200
    (wall,) = load_wallpapers()
    assert wall.shape == (1200, 1200, 3)
    load_cutouts.cache_clear(), load_wallpapers.cache_clear()


def test_clip_art_shows_single_objects(tmp_path, monkeypatch):
    """Left out are signs, drawings of few colours, in several pieces, small ones and those without opacity."""
    drawing = cutout((0, 0, 0), 500, 800)
    drawing[..., 0], drawing[..., 1] = np.arange(800) // 4, np.arange(500)[:, None] // 2
    pieces = np.concatenate([drawing, drawing], axis=1)
    for path, picture in (
        ("animals/cow.png", drawing), ("people/smilies/joy.png", drawing), ("signs/stop.png", drawing),
        ("animals/two_cows.png", pieces), ("animals/flat.png", cutout((9, 90, 9))), ("food/pea.png", drawing[::9, ::9]),
        ("plants/photo.png", drawing[..., :3]),
    ):  # fmt: skip
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(picture)).save(tmp_path / path)
    load_clip_art.cache_clear()
    monkeypatch.setattr("toy.cutouts.CLIP_ART", tmp_path)
    (found,) = load_clip_art()
    load_clip_art.cache_clear()
    assert found.shape == (300, 480, 4) and found.dtype == np.uint8
    solid = found[found[..., 3] == 255]
    assert solid[:, 0].max() > 180 and solid[:, 1].max() > 230 and not solid[:, 2].any()  # RGBA, not BGRA
    pictures = Pictures(clip_art=[found])
    scenes = [random_scene(np.random.default_rng(seed), 72, 128, 2, [1], pictures=pictures) for seed in range(6)]
    assert any(actor.category == "others" for scene in scenes for actor in scene.actors if actor.label)
