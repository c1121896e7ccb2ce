from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dataset.batches import GlobalBatchSampler, SampleKey
from dataset.image_clips import ImageClips
from dataset.images import write_mask
from dataset.loading import training_batches
from dataset.stages import stage_dataset
from dataset.video_clips import VideoClips, choose_clip, largest_gap
from plain import mask_iou
from util.errors import InputError

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
    return VideoClips("toy", root / "JPEGImages", root / "Annotations", crop_size=SIZE, **settings)


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


def test_video_sample_format(roots):
    sample = clips(roots["bl_root"]).sample(0, np.random.default_rng(0), 0.0)
    assert {name: (value.dtype, tuple(value.shape)) for name, value in sample.items() if name != "name"} == {
        "frames": (torch.uint8, (5, 3, SIZE, SIZE)),
        "masks": (torch.uint8, (5, 2, SIZE, SIZE)),
        "perturbed": (torch.uint8, (2, SIZE, SIZE)),
        "selector": (torch.float32, (2,)),
    }
    assert sample["name"].startswith("toy: a 000")


def test_images_and_masks_move_together(roots):
    static = ImageClips(roots["static_root"] / "DUTS-TR", crop_size=SIZE)
    large = ImageClips(roots["static_root"] / "hrsod_SMALL", crop_size=SIZE)
    for source, count in ((static, 20), (large, 10), (clips(roots["yv_root"] / "train_480p", annotation_step=5), 20)):
        for sample in samples(source, count):
            for image, mask in zip(brightness(sample["frames"]), sample["masks"][:, 0].numpy(), strict=True):
                if mask.sum() > 100:
                    assert mask_iou((image > 165).astype(np.uint8), mask) > 0.85


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
                assert 0.5 < mask_iou(mask, perturbed) < 1


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


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (1400, 1400)])
def test_small_mask_of_a_static_image_is_found(tmp_path, shape):
    """The large image is made smaller before the crop."""
    ids = np.zeros(shape, np.uint8)
    ids[0] = ids[-1, -1] = 1
    draw_frame(tmp_path, "a", ids)
    assert all(sample["masks"][0].any() for sample in samples(ImageClips(tmp_path, crop_size=SIZE), 5))


def test_pixel_in_a_large_frame_is_found(tmp_path):
    ids = np.zeros((1400, 1400), np.uint8)
    ids[700, 700] = 1
    draw_video(tmp_path, "a", [ids] * 5)
    assert all(sample["masks"][0, 0].any() for sample in samples(clips(tmp_path), 3))


def test_static_sample_format(roots):
    sample = ImageClips(roots["static_root"] / "fss", crop_size=SIZE, nested=True).sample(
        0, np.random.default_rng(0), 0.0
    )
    assert sample["frames"].shape == (3, 3, SIZE, SIZE)
    assert sample["masks"].shape == (3, 1, SIZE, SIZE)
    assert sample["perturbed"].shape == (1, SIZE, SIZE)
    assert sample["selector"].tolist() == [1]
    assert not torch.equal(sample["frames"][0], sample["frames"][1])


def test_grey_masks_are_thresholded(tmp_path):
    draw_frame(tmp_path, "a", ellipses((48, 30)))
    cv2.imwrite(str(tmp_path / "a.png"), np.where(ellipses((48, 30)), 128, 127).astype(np.uint8))
    image, mask = ImageClips(tmp_path, crop_size=SIZE)._read(tmp_path / "a.jpg")
    np.testing.assert_array_equal(mask, ellipses((48, 30)))
    assert image.shape == (HEIGHT, WIDTH, 3)


# Stages and batches


def stage(number: int, roots: dict[str, Path], iterations: int = 100):
    return stage_dataset(number, **roots, iterations=iterations, crop_size=SIZE, seed=1)


def test_stages_repeat_small_data_sets(roots):
    assert len(stage(0, roots)) == 3 + 2 + 1 + 1 + 5 + 5
    assert len(stage(1, roots)) == 2
    assert len(stage(2, roots)) == len(stage(3, roots)) == 5 * 1 + 2
    names = [stage(2, roots)[SampleKey(0, index, 0)]["name"].split(":")[0] for index in range(7)]
    assert names == ["DAVIS 2017"] * 5 + ["YouTube-VOS"] * 2


def test_stages_need_only_their_own_folders(roots):
    for number, flags in ((0, ["static_root"]), (1, ["bl_root"]), (2, ["davis_root", "yv_root"])):
        stage(number, {flag: roots[flag] for flag in flags})
        for missing in flags:
            with pytest.raises(InputError, match=f"stage {number} needs {missing}"):
                stage(number, {flag: roots[flag] for flag in flags if flag != missing})


def test_plain_davis_layout(roots):
    assert len(stage(2, roots | {"davis_root": roots["davis_root"] / "trainval"})) == 7


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
        sampler = GlobalBatchSampler(len(data), batch_size=4, iterations=4, seed=1, **settings)
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


@pytest.mark.parametrize("workers", [0, 1])
def test_corrupt_image_is_named_in_one_line(tmp_path, workers):
    for video in ("a", "b"):
        draw_video(tmp_path, video, moving(5))
    broken = tmp_path / "JPEGImages/b/00002.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    data = stage_dataset(1, bl_root=tmp_path, iterations=4, crop_size=SIZE)
    sampler = GlobalBatchSampler(len(data), batch_size=2, iterations=4)
    with pytest.raises(InputError) as raised:
        list(training_batches(data, sampler, workers=workers))
    assert str(raised.value).startswith(f"{broken} cannot be decoded") and "\n" not in str(raised.value)


def test_missing_static_folder(roots, tmp_path):
    with pytest.raises(InputError, match="no folder fss"):
        stage(0, {"static_root": tmp_path})
    for folder in ("fss", "DUTS-TR", "DUTS-TE", "ecssd"):
        (tmp_path / folder).symlink_to(roots["static_root"] / folder)
    with pytest.raises(InputError, match="no folder BIG_small or BIG"):
        stage(0, {"static_root": tmp_path})
    with pytest.raises(InputError, match="is no folder; check static_root"):
        stage(0, {"static_root": tmp_path / "nowhere"})


def test_static_images_need_their_masks(tmp_path):
    with pytest.raises(InputError, match="holds no images"):
        ImageClips(tmp_path, crop_size=SIZE)
    for name in ("a", "b"):
        draw_frame(tmp_path, name, ellipses((48, 30)))
    (tmp_path / "b.png").unlink()
    with pytest.raises(InputError, match=r"b\.png is missing, b\.jpg needs it"):
        ImageClips(tmp_path, crop_size=SIZE)
    (tmp_path / "b.jpg").unlink()
    (tmp_path / "a.jpg").rename(tmp_path / "c.jpg")
    with pytest.raises(InputError, match=r"a\.jpg is missing, a\.png needs it \(2 such files"):
        ImageClips(tmp_path, crop_size=SIZE)


def test_static_pairs_must_fit_and_show_something(tmp_path):
    draw_frame(tmp_path, "a", ellipses((48, 30)))
    source = ImageClips(tmp_path, crop_size=SIZE)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((HEIGHT, WIDTH + 1), np.uint8))
    with pytest.raises(InputError, match=r"a\.jpg and a\.png differ in size"):
        samples(source, 1)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((HEIGHT, WIDTH), np.uint8))
    with pytest.raises(InputError, match=r"a\.png shows no object"):
        samples(source, 1)


def test_videos_must_be_complete(tmp_path):
    with pytest.raises(InputError, match="JPEGImages is missing"):
        clips(tmp_path)
    draw_video(tmp_path, "a", moving(5))
    (tmp_path / "JPEGImages/b").mkdir()
    with pytest.raises(InputError, match=r"Annotations/b is missing \(1 such"):
        clips(tmp_path)
    with pytest.raises(InputError, match="JPEGImages/c is missing"):
        clips(tmp_path, videos=["a", "c"])
    (tmp_path / "Annotations/a/00003.png").unlink()
    with pytest.raises(InputError, match=r"Annotations/a/00003\.png is missing"):
        samples(clips(tmp_path, videos=["a"]), 1)
    sparse = clips(tmp_path, videos=["a"], annotation_step=5)
    assert not any("00003" in sample["name"] for sample in samples(sparse, 10))
    (tmp_path / "JPEGImages/a/00002.jpg").unlink()
    with pytest.raises(InputError, match=r"JPEGImages/a/00002\.jpg is missing"):
        samples(sparse, 1)


def test_hidden_files_are_no_data(tmp_path):
    draw_video(tmp_path, "a", moving(5))
    draw_frame(tmp_path / "static", "a", ellipses((48, 30)))
    for hidden in ("Annotations/a/._00000.png", "JPEGImages/.DS_Store", "static/._a.jpg"):
        (tmp_path / hidden).write_bytes(b"")
    (tmp_path / "Annotations/.cache").mkdir()
    assert samples(clips(tmp_path), 1)
    assert len(ImageClips(tmp_path / "static", crop_size=SIZE)) == 1


def test_videos_must_fit_and_show_something(tmp_path):
    draw_video(tmp_path, "a", [np.zeros((HEIGHT, WIDTH), np.uint8)] * 5)
    with pytest.raises(InputError, match="Annotations/a shows no object"):
        samples(clips(tmp_path), 1)
    draw_video(tmp_path, "a", moving(5))
    write_mask(tmp_path / "Annotations/a/00002.png", ellipses((48, 30), width=WIDTH + 1))
    with pytest.raises(InputError, match="differ in size"):
        samples(clips(tmp_path), 1)


def test_missing_davis_split(roots, tmp_path):
    with pytest.raises(InputError, match=r"train\.txt is missing; check davis_root"):
        stage(2, roots | {"davis_root": tmp_path})
