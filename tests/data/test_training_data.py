from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dataset.files.images import write_mask
from dataset.layouts.folders import VideoFolders
from dataset.layouts.static import ImageFolder
from dataset.samples.batches import SampleKey, global_batches
from dataset.samples.image_clips import ImageClips
from dataset.samples.loading import training_batches
from dataset.samples.stages import stage_dataset
from dataset.samples.video_clips import VideoClips, choose_clip, largest_gap
from util.errors import InputError
from util.evaluation.metrics import region_similarity

SIZE = 64
HEIGHT, WIDTH = 60, 96


def draw_frame(folder: Path, name: str, ids: np.ndarray, mask_folder: Path | None = None) -> None:
    """A frame as bright as its object's id is high, and its mask: as grey values beside it, or as ids elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    intensity = np.where(ids, 215 + 20 * ids, 0).astype(np.uint8)
    cv2.imwrite(str(folder / f"{name}.jpg"), intensity, [cv2.IMWRITE_JPEG_QUALITY, 95])
    if mask_folder is None:
        cv2.imwrite(str(folder / f"{name}.png"), (ids > 0).astype(np.uint8) * 255)
    else:
        write_mask(mask_folder / f"{name}.png", ids)


def ellipses(*centres: tuple[int, int], height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Ids 1, 2, ... of ellipses around these centres."""
    ids = np.zeros((height, width), np.uint8)
    for object_id, centre in enumerate(centres, start=1):
        cv2.ellipse(ids, centre, (14, 10), 30, 0, 360, object_id, -1)
    return ids


def draw_video(root: Path, video: str, frames: list[np.ndarray], step: int = 1, level: str = "") -> None:
    for number, ids in enumerate(frames):
        folders = (root / kind / level / video for kind in ("JPEGImages", "Annotations"))
        draw_frame(next(folders), f"{number * step:05d}", ids, next(folders))


def moving(length: int, objects: int = 1) -> list[np.ndarray]:
    return [
        ellipses(*[(30 + 18 * k + time % 7, 20 + 10 * k + time % 5) for k in range(objects)]) for time in range(length)
    ]


def brightness(frames: torch.Tensor) -> np.ndarray:
    """Grey values [T,S,S] of uint8 frames."""
    return frames.float().mean(1).numpy()


def samples(source, count: int, progress: float = 0.5) -> list[dict]:
    return [source.sample(k % len(source), np.random.default_rng(k), progress) for k in range(count)]


def clips(root: Path, **settings) -> VideoClips:
    folders = VideoFolders("toy", root / "JPEGImages", root / "Annotations", "copy it again", **settings)
    return VideoClips(folders, crop_size=SIZE)


def images(folder: Path) -> ImageClips:
    return ImageClips(ImageFolder(folder.name, folder), crop_size=SIZE)


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> dict[str, Path]:
    """Tiny copies of all data sets, in their layouts."""
    base = tmp_path_factory.mktemp("data")
    static = base / "static"
    for folder, count in (("fss/ab", 2), ("fss/cd", 1), ("DUTS-TR", 2), ("DUTS-TE", 1), ("ecssd", 1), ("BIG", 1)):
        for number in range(count):
            draw_frame(static / folder, str(number), ellipses((48, 30)))
    draw_frame(static / "hrsod_SMALL", "large", ellipses((300, 200), height=400, width=600))
    for video in ("a", "b"):
        draw_video(base / "bl", video, moving(12, objects=3))
        draw_video(base / "davis/trainval", video, moving(9, objects=2), level="480p")
        draw_video(base / "yv/train_480p", video, moving(7), step=5)
    split = base / "davis/trainval/ImageSets/2017/train.txt"
    split.parent.mkdir(parents=True)
    split.write_text("a\n")
    return {"static_root": static, "bl_root": base / "bl", "davis_root": base / "davis", "yv_root": base / "yv"}


# Clips in time


def test_gaps_follow_the_curriculum():
    def gaps(**settings) -> list[int]:
        return [largest_gap(percent / 100, **settings) for percent in (0, 9, 10, 19, 20, 30, 40, 79, 80, 89, 90, 100)]

    assert gaps() == [6, 6, 11, 11, 16, 21, 26, 26, 26, 26, 6, 6]
    assert gaps(last_change=0.8) == [6, 6, 11, 11, 16, 21, 26, 26, 6, 6, 6, 6]
    assert gaps(annotation_step=5) == [2, 2, 3, 3, 4, 5, 6, 6, 6, 6, 2, 2]


@pytest.mark.parametrize("largest", [2, 6, 26])
def test_all_gaps_are_equally_frequent(largest):
    rng = np.random.default_rng(0)
    chosen = np.array([choose_clip(rng, 400, frames=5, max_gap=largest) for _ in range(3000)])
    counts = np.bincount(np.abs(np.diff(chosen, axis=1)).ravel(), minlength=largest + 1)
    assert counts[0] == 0 and len(counts) == largest + 1
    expected = 4 * 3000 / largest
    assert np.abs(counts[1:] - expected).max() < 4 * expected**0.5  # four standard deviations


@pytest.mark.parametrize(("length", "max_gap"), [(5, 5), (9, 25), (30, 5), (30, 25), (200, 25), (200, 1)])
def test_clips_keep_the_gap_and_are_reversed_half_of_the_time(length, max_gap):
    rng = np.random.default_rng(0)
    chosen = np.array([choose_clip(rng, length, frames=5, max_gap=max_gap) for _ in range(1000)])
    assert chosen.min() == 0 and chosen.max() == length - 1
    steps = np.diff(chosen, axis=1)
    assert 400 < (steps > 0).all(1).sum() < 600
    assert ((steps > 0).all(1) | (steps < 0).all(1)).all()
    assert np.abs(steps).max() == min(max_gap, length - 4)


@pytest.mark.parametrize(("length", "gaps"), [(1, {0}), (2, {1}), (4, {1})])
def test_clips_turn_round_in_videos_that_are_too_short(length, gaps):
    rng = np.random.default_rng(0)
    chosen = np.array([choose_clip(rng, length, frames=5, max_gap=25) for _ in range(50)])
    assert set(chosen.ravel()) == set(range(length))
    assert set(np.abs(np.diff(chosen, axis=1)).ravel()) == gaps


CURRICULUM = {
    1: {0: 6, 0.1: 11, 0.2: 16, 0.3: 21, 0.4: 26, 0.8: 6},
    2: {0: 10, 0.1: 15, 0.2: 20, 0.3: 25, 0.4: 30, 0.8: 30, 0.9: 10},
}


@pytest.mark.parametrize(
    ("number", "progress", "largest"),
    [(number, progress, largest) for number, gaps in CURRICULUM.items() for progress, largest in gaps.items()],
)
def test_clips_have_the_gaps_of_their_data_set(roots, tmp_path, number, progress, largest):
    """Gaps in frames of the original video: YouTube-VOS, in stage 2, has a mask for every fifth frame."""
    base, step = (tmp_path, 1) if number == 1 else (tmp_path / "train_480p", 5)
    draw_video(base, "long", [ellipses((20, 20), height=40, width=40)] * 120, step=step)
    data = stage(number, {**roots, "bl_root": tmp_path, "yv_root": tmp_path})
    frames = [list(map(int, sample["name"].split()[2:])) for sample in samples(data.sources[-1], 40, progress)]
    gaps = np.abs(np.diff(frames))
    assert gaps.min() == step and gaps.max() == largest
    assert 0.4 < gaps.mean() / (step + largest) < 0.6


# Samples


def test_the_format_of_samples(roots):
    video = clips(roots["bl_root"]).sample(0, np.random.default_rng(0), 0.0)
    image = images(roots["static_root"] / "fss").sample(0, np.random.default_rng(0), 0.0)
    for sample, length, objects in ((video, 5, 2), (image, 3, 1)):
        assert {name: (value.dtype, tuple(value.shape)) for name, value in sample.items() if name != "name"} == {
            "frames": (torch.uint8, (length, 3, SIZE, SIZE)),
            "masks": (torch.uint8, (length, objects, SIZE, SIZE)),
            "perturbed": (torch.uint8, (objects, SIZE, SIZE)),
            "selector": (torch.float32, (objects,)),
        }
    assert video["name"].startswith("toy: a 000") and not torch.equal(image["frames"][0], image["frames"][1])


def test_images_and_masks_move_together(roots):
    static = images(roots["static_root"] / "DUTS-TR")
    large = images(roots["static_root"] / "hrsod_SMALL")
    for source, count in ((static, 20), (large, 10), (clips(roots["yv_root"] / "train_480p", annotation_step=5), 20)):
        for sample in samples(source, count):
            for image, mask in zip(brightness(sample["frames"]), sample["masks"][:, 0].numpy(), strict=True):
                if mask.sum() > 100:
                    assert region_similarity(image > 165, mask > 0) > 0.85


def test_at_most_two_objects_all_in_the_first_frame(roots):
    source = clips(roots["bl_root"])
    pairs = set()
    for sample in samples(source, 60):
        masks = sample["masks"]
        areas = masks[0].sum((1, 2), dtype=torch.int64)
        assert ((areas > 0) == (sample["selector"] == 1)).all() and sample["selector"][0] == 1
        assert masks.max() == 1 and masks.sum(1).max() == 1
        assert not masks[:, sample["selector"] == 0].any()
        image = brightness(sample["frames"])[0]
        if sample["selector"].all():
            pairs.add(tuple(np.argsort([np.median(image[masks[0, slot].numpy() == 1]) for slot in (0, 1)])))
    assert pairs == {(0, 1), (1, 0)}, "which object fills which slot is random"


def test_perturbed_masks_belong_to_the_first_frame(roots):
    for sample in samples(clips(roots["bl_root"]), 20):
        for mask, perturbed, present in zip(
            sample["masks"][0].numpy(), sample["perturbed"].numpy(), sample["selector"], strict=True
        ):
            assert perturbed.any() == bool(present)
            if mask.sum() > 100:
                assert 0.5 < region_similarity(mask > 0, perturbed > 0) < 1


def test_object_that_is_rare_small_and_at_the_border_is_found(tmp_path):
    frames = [np.zeros((HEIGHT, WIDTH), np.uint8) for _ in range(40)]
    frames[23][:2, :2] = 1
    draw_video(tmp_path, "a", frames)
    for sample in samples(clips(tmp_path), 5):
        assert sample["masks"][0, 0].any() and sample["selector"].tolist() == [1, 0]
        assert sample["name"].split()[2] == "00023"


def test_small_objects_are_left_out_of_bl30k_only(roots, tmp_path):
    ids = ellipses((192, 120), height=240, width=384)
    ids[60:64, 192:196] = 2  # less than a thousandth of any crop
    draw_video(tmp_path, "a", [ids] * 5)
    draw_video(tmp_path / "train_480p", "a", [ids] * 5, step=5)
    numbers = {}
    for number in (1, 2):
        data = stage(number, {**roots, "bl_root": tmp_path, "yv_root": tmp_path})
        numbers[number] = [sample["selector"].sum() for sample in samples(data.sources[-1], 20)]
    assert max(numbers[1]) == 1 and max(numbers[2]) == 2


# Stages and batches


def stage(number: int, roots: dict[str, Path], iterations: int = 100):
    return stage_dataset(number, roots, iterations=iterations, crop_size=SIZE, seed=1)


def test_stages_repeat_small_data_sets(roots):
    assert len(stage(0, roots)) == 3 + 2 + 1 + 1 + 5 + 5
    assert len(stage(1, roots)) == 2
    assert len(stage(2, roots)) == len(stage(3, roots)) == 5 * 1 + 2
    names = [stage(2, roots)[SampleKey(0, index, 0)]["name"].split(":")[0] for index in range(7)]
    assert names == ["DAVIS 2017"] * 5 + ["YouTube-VOS"] * 2


def test_each_stage_takes_any_of_its_data_sets_and_needs_one(roots):
    everything = {0: ["static_root"], 1: ["bl_root"], 2: ["davis_root", "yv_root"], 3: ["davis_root", "yv_root"]}
    for number, flags in everything.items():
        for flag in flags:
            assert len(stage(number, {flag: roots[flag]})) > 0
        others = {flag: root for flag, root in roots.items() if flag not in flags}
        with pytest.raises(InputError, match=f"stage {number} needs data; give --{flags[0]}"):
            stage(number, others)
    for davis in (roots["davis_root"], roots["davis_root"] / "trainval"):
        assert len(stage(2, {"davis_root": davis})) == 5
    assert len(stage(3, {"yv_root": roots["yv_root"]})) == 2


def test_davis_2016_is_one_object_a_video(roots, tmp_path):
    base = tmp_path / "trainval"
    draw_video(base, "a", moving(6, objects=2), level="480p")
    listed = base / "ImageSets/2016/train.txt"
    listed.parent.mkdir(parents=True)
    listed.write_text("a\n")
    with pytest.raises(InputError, match=r"2017/train\.txt is missing; this is DAVIS 2016; add --davis_year 2016"):
        stage(2, {"davis_root": tmp_path})
    data = stage(2, {"davis_root": tmp_path, "davis_year": 2016})
    assert len(data) == 5
    (source,) = set(data.sources)
    for sample in samples(source, 5):
        assert sample["selector"].tolist() == [1, 0]
        image = brightness(sample["frames"])[0]
        assert region_similarity(image > 165, sample["masks"][0, 0].numpy() > 0) > 0.7
    with pytest.raises(InputError, match=r"2016/train\.txt is missing; this is DAVIS 2017; add --davis_year 2017"):
        stage(2, {"davis_root": roots["davis_root"], "davis_year": 2016})


def test_void_pixels_of_davis_2017_are_no_object(tmp_path):
    frames = [np.where(ids, 255, 0).astype(np.uint8) for ids in moving(5)]
    frames[2][50:, 80:] = 1
    draw_video(tmp_path, "a", frames, level="480p")
    listed = tmp_path / "ImageSets/2017/train.txt"
    listed.parent.mkdir(parents=True)
    listed.write_text("a\n")
    for sample in samples(stage(2, {"davis_root": tmp_path}).sources[0], 5):
        assert sample["name"].split()[3] == "00002" and sample["selector"].tolist() == [1, 0]


# One's own data


@pytest.mark.parametrize("number", [1, 2, 3])
def test_any_folder_of_videos(tmp_path, number):
    """Frames of any kind and name; frames without a mask are not used."""
    for video, suffix, count in (("one", ".PNG", 9), ("two", ".JPEG", 6)):
        draw_video(tmp_path, video, moving(count, objects=2))
        for frame in (tmp_path / "JPEGImages" / video).iterdir():
            frame.rename(frame.with_name(f"shot {frame.stem}{suffix}"))
        for mask in (tmp_path / "Annotations" / video).iterdir():
            mask.rename(mask.with_name(f"shot {mask.stem}.{'PNG' if video == 'one' else 'png'}"))
        (tmp_path / "Annotations" / video / "shot 00001.png").unlink(missing_ok=True)
    for junk in ("JPEGImages/__MACOSX", "Annotations/.cache"):
        (tmp_path / junk).mkdir()
    (tmp_path / "JPEGImages/one/._shot 00000.PNG").write_bytes(b"")
    data = stage(number, {"videos": [(tmp_path, 3)]})
    assert len(data) == 2 * 3
    used = {name for sample in samples(data.sources[0], 20) for name in sample["name"].split("shot ")[1:]}
    assert {name.strip() for name in used} == {f"{frame:05d}" for frame in range(9)}
    assert all("shot 00001" not in sample["name"] for sample in samples(data.sources[0], 21) if "two" in sample["name"])


def test_gaps_of_own_videos_follow_the_numbers_in_the_names_of_frames(tmp_path):
    for video, step in (("dense", 1), ("sparse", 5)):
        draw_video(tmp_path, video, [ellipses((20, 20), height=40, width=40)] * 60, step=step)
    source = stage(2, {"videos": [(tmp_path, 1)]}).sources[0]
    for index, (step, largest) in enumerate(((1, 6), (5, 10))):
        names = [source.sample(index, np.random.default_rng(k), 0.0)["name"] for k in range(40)]
        gaps = np.abs(np.diff([list(map(int, name.split()[-5:])) for name in names]))
        assert gaps.min() == step and gaps.max() == largest


def test_videos_of_the_annotation_page(tmp_path):
    """What the page exports is a folder of one video in DAVIS's layout; the page's folder holds one for each video."""
    for video in ("cat", "dog"):
        draw_video(tmp_path / f"{video}/export/DAVIS", video, moving(6), level="480p")
        for split in ("train", "val"):
            listed = tmp_path / f"{video}/export/DAVIS/ImageSets/2017/{split}.txt"
            listed.parent.mkdir(parents=True, exist_ok=True)
            listed.write_text(f"{video}\n")
    export = tmp_path / "cat/export/DAVIS"
    for given in (export, export.parent, export.parent.parent):
        (source,) = stage(2, {"videos": [(given, 1)]}).sources
        assert source.videos == ["cat"] and source.folders.name == "cat"
    assert len(stage(2, {"videos": [(tmp_path, 2)]})) == 4


def test_a_wrong_layout_is_named(roots, tmp_path):
    def refusal(number: int, **given: object) -> str:
        with pytest.raises(InputError) as raised:
            stage(number, given)
        return str(raised.value)

    assert "train.txt is missing; check --davis_root" in refusal(2, davis_root=tmp_path)
    assert "is not a folder; check --static_root" in refusal(0, static_root=tmp_path / "nowhere")
    assert "is DAVIS 2017; give it with --davis_root" in refusal(2, videos=[(roots["davis_root"], 1)])
    assert "is YouTube-VOS; give it with --yv_root" in refusal(2, davis_root=roots["yv_root"])
    assert "is a folder of videos; give it with --videos" in refusal(2, davis_root=roots["bl_root"])
    assert "with masks; give it with --static_root" in refusal(1, videos=[(roots["static_root"], 1)])
    for root, images, masks, mentioned in (
        ("MOSE", "train/JPEGImages", "train/Annotations", f"--videos {tmp_path}/MOSE/train"),
        ("LVOS", "valid/JPEGImages", "valid/Annotations", f"--videos {tmp_path}/LVOS/valid"),
        ("SAV", "JPEGImages_24fps", "Annotations_6fps", "SA-V, with a mask for each object"),
        ("VIPSeg", "imgs", "panomasks", "VIPSeg, whose masks state classes"),
    ):
        (tmp_path / root / images / "v").mkdir(parents=True)
        (tmp_path / root / masks / "v").mkdir(parents=True)
        assert mentioned in refusal(2, videos=[(tmp_path / root, 1)])
    (tmp_path / "MOSE/train/meta.json").touch()
    assert "resize_youtube.py" in refusal(2, videos=[(tmp_path / "MOSE", 1)])
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/a.MOV").write_bytes(b"")
    assert "scripts/annotate.py" in refusal(1, bl_root=tmp_path / "clips")
    (tmp_path / "empty").mkdir()
    assert "JPEGImages/<video>" in refusal(1, videos=[(tmp_path / "empty", 1)])


def test_a_folder_above_or_in_a_data_set_names_the_root(roots, tmp_path):
    davis, youtube = roots["davis_root"], roots["yv_root"]
    (tmp_path / "above").mkdir()
    (tmp_path / "above/DAVIS").symlink_to(davis / "trainval")
    for given, named in (
        ({"davis_root": davis / "trainval/JPEGImages/480p"}, f"{davis}/trainval is DAVIS 2017"),
        ({"davis_root": tmp_path / "above"}, "above/DAVIS is DAVIS 2017"),
        ({"yv_root": youtube / "train_480p"}, f"{youtube} is YouTube-VOS"),
        ({"yv_root": tmp_path / "above"}, "above/DAVIS, which is DAVIS 2017"),
        ({"videos": [(tmp_path / "above", 1)]}, "above/DAVIS is DAVIS 2017"),
        ({"videos": [(youtube / "train_480p/JPEGImages", 1)]}, f"{youtube}/train_480p is a folder of videos"),
    ):
        with pytest.raises(InputError) as raised:
            stage(2, given)
        assert named in str(raised.value)


def test_folders_of_own_images(tmp_path):
    """Images of any kind, with masks beside them or in a twin folder, in one folder or several."""
    for name, kind in (("a", ".jpg"), ("b", ".JPEG"), ("c", ".bmp")):
        draw_frame(tmp_path / "beside", name, ellipses((48, 30)))
        (tmp_path / "beside" / f"{name}.jpg").rename(tmp_path / "beside" / f"{name}{kind}")
    for images_folder, masks_folder in (("images", "masks"), ("Own-Image/x", "Own-Mask/x")):
        draw_frame(tmp_path / "twins" / images_folder, "a", ellipses((48, 30)))
        (tmp_path / "twins" / masks_folder).mkdir(parents=True)
        (tmp_path / "twins" / images_folder / "a.png").rename(tmp_path / "twins" / masks_folder / "a.png")
        image = cv2.imread(str(tmp_path / "twins" / images_folder / "a.jpg"))
        cv2.imwrite(str(tmp_path / "twins" / images_folder / "b.png"), image)  # an image, since masks lie apart
        cv2.imwrite(str(tmp_path / "twins" / masks_folder / "b.png"), ellipses((48, 30)))  # a mask of 0 and 1
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "beside/.DS_Store").write_bytes(b"")
    data = stage(0, {"static_root": tmp_path})
    assert [len(source) for source in data.sources] == [3, 4]
    assert len(stage(0, {"static_root": tmp_path / "beside"})) == 3
    for source in data.sources:
        for sample in samples(source, 4):
            for image, mask in zip(brightness(sample["frames"]), sample["masks"][:, 0].numpy(), strict=True):
                if mask.sum() > 100:
                    assert region_similarity(image > 165, mask > 0) > 0.85


def test_copies_and_epochs_differ(roots):
    data = stage(2, roots)
    keys = [SampleKey(0, 0, 0), SampleKey(0, 1, 0), SampleKey(1, 0, 0)]
    first, copy, next_epoch = (data[key]["frames"] for key in keys)
    assert not torch.equal(first, copy) and not torch.equal(first, next_epoch)
    assert torch.equal(first, stage(2, roots)[keys[0]]["frames"])


@pytest.mark.parametrize("number", [0, 2])
def test_batches_do_not_depend_on_workers_or_where_training_started(roots, number):
    def batches(workers: int, **settings) -> list[dict]:
        data = stage(number, roots, iterations=4)
        sampler = global_batches(len(data), batch_size=4, iterations=4, seed=1, **settings)
        return list(training_batches(data, sampler, workers=workers))

    def same(a: list[dict], b: list[dict]) -> bool:
        return all(
            x["name"] == y["name"] and all(torch.equal(x[key], y[key]) for key in x if key != "name")
            for x, y in zip(a, b, strict=True)
        )

    everything = batches(0)
    assert everything[0]["frames"].shape[:2] == (4, 3 if number == 0 else 5)
    assert same(batches(2), everything)
    assert same(batches(1, start_iteration=2), everything[2:])
    halves = [batches(0, rank=rank, world_size=2) for rank in (0, 1)]
    joined = [
        {key: a[key] + b[key] if key == "name" else torch.cat([a[key], b[key]]) for key in a}
        for a, b in zip(*halves, strict=True)
    ]
    assert same(joined, everything)


# What cannot be used


@pytest.mark.parametrize("error", [ConnectionResetError, EOFError])
def test_a_loading_process_that_ends_while_it_hands_over_a_batch(roots, monkeypatch, error):
    def loader(*_, **__):
        raise error
        yield

    monkeypatch.setattr("dataset.samples.loading.DataLoader", loader)
    data = stage(2, roots, iterations=4)
    sampler = global_batches(len(data), batch_size=2, iterations=4)
    with pytest.raises(InputError, match="the system ended a process that loads samples"):
        list(training_batches(data, sampler, workers=1))


def test_static_images_need_their_masks(tmp_path):
    with pytest.raises(InputError, match="holds no images with masks"):
        images(tmp_path)
    for name in ("a", "b"):
        draw_frame(tmp_path, name, ellipses((48, 30)))
    (tmp_path / "b.png").unlink()
    with pytest.raises(InputError, match=r"b\.png is missing \(1 such files in .*; copy it again"):
        images(tmp_path)
    (tmp_path / "b.jpg").unlink()
    (tmp_path / "a.jpg").rename(tmp_path / "c.jpg")
    with pytest.raises(InputError, match=r"a\.jpg is missing \(2 such files"):
        images(tmp_path)


def test_static_pairs_must_fit_and_show_something(tmp_path):
    draw_frame(tmp_path, "a", ellipses((48, 30)))
    source = images(tmp_path)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((HEIGHT, WIDTH + 1), np.uint8))
    with pytest.raises(InputError, match=r"a\.jpg and .*a\.png differ in size"):
        samples(source, 1)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((HEIGHT, WIDTH), np.uint8))
    with pytest.raises(InputError, match=r"a\.png shows no object"):
        samples(source, 1)


def test_videos_must_be_complete(tmp_path):
    draw_video(tmp_path, "a", moving(5))
    (tmp_path / "JPEGImages/b").mkdir()
    with pytest.raises(InputError, match=r"Annotations/b is missing \(1 such"):
        clips(tmp_path)
    split = tmp_path / "list.txt"
    split.write_text("a\nc")
    with pytest.raises(InputError, match="JPEGImages/c is missing"):
        clips(tmp_path, split=split)
    split.write_text("a")
    (tmp_path / "Annotations/a/00003.png").unlink()
    with pytest.raises(InputError, match=r"Annotations/a/00003\.png is missing"):
        samples(clips(tmp_path, split=split), 1)
    sparse = clips(tmp_path, split=split, annotation_step=5)
    assert not any("00003" in sample["name"] for sample in samples(sparse, 10))
    (tmp_path / "JPEGImages/a/00002.jpg").unlink()
    with pytest.raises(InputError, match=r"JPEGImages/a/00002\.jpg is missing"):
        samples(sparse, 1)
