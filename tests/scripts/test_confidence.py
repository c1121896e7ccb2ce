"""How sure the network is of each object, near the contours of its mask."""

import math

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from conftest import draw_clip, segmented, tensors
from dataset.files.images import write_mask
from dataset.files.video import Video
from fake_gpu import GPU, fake_gpu
from model.inference import InferenceCore
from util.evaluation.confidence import append_rows, frame_rows, object_confidence, read_rows, table
from util.evaluation.segmentation import EngineSettings

HEIGHT, WIDTH = 30, 40  # a diagonal of 50 pixels, so the margin is one pixel


def entropy(probability: float) -> float:
    return -sum(p * math.log2(p) for p in (probability, 1 - probability) if p)


def confidence_in(object_probability: torch.Tensor) -> float:
    (value,) = object_confidence(torch.stack([1 - object_probability, object_probability])).tolist()
    return value


def test_only_pixels_near_contours_count():
    probability = torch.zeros(HEIGHT, WIDTH)
    probability[:, 20:] = 1
    assert confidence_in(probability) == 1
    probability[:, 19], probability[:, 20] = 0.25, 0.75  # the two columns whose neighbours have another id
    assert confidence_in(probability) == pytest.approx(1 - entropy(0.25))
    probability[:, 5] = 0.49  # far from the contour
    assert confidence_in(probability) == pytest.approx(1 - entropy(0.25))


def test_without_a_contour_all_pixels_count():
    probability = torch.zeros(HEIGHT, WIDTH)
    probability[:, :10] = 0.5
    assert confidence_in(probability) == pytest.approx(1 - 10 / WIDTH)
    assert confidence_in(torch.ones(HEIGHT, WIDTH)) == 1


def test_it_is_the_mean_over_a_band_around_each_contour():
    """As OpenCV dilates and erodes; a pretended GPU finds the same, without a wait."""
    torch.manual_seed(0)
    noise = F.interpolate(torch.randn(1, 4, 6, 9), (120, 200), mode="bicubic")[0]
    probability = (6 * noise).softmax(0)
    found = object_confidence(probability)
    side = 2 * math.ceil(0.008 * math.hypot(120, 200)) + 1
    for channel in (1, 2, 3):
        mask = (probability.argmax(0) == channel).byte().numpy()
        square = np.ones((side, side), np.uint8)
        near = cv2.dilate(mask, square) != cv2.erode(mask, square)
        expected = 1 - np.mean([entropy(p) for p in probability[channel].numpy()[near].tolist()])
        assert found[channel - 1].item() == pytest.approx(expected, abs=1e-5)
    with fake_gpu() as gpu:
        on_gpu = object_confidence(probability.to(GPU, non_blocking=True))
        gpu.reset()
        on_gpu = object_confidence(probability.to(GPU))
        assert "item" not in gpu.kinds and "nonzero" not in gpu.kinds and "download" not in gpu.kinds
        torch.testing.assert_close(on_gpu.cpu(), found)


def test_rows_survive_a_killed_writer(tmp_path):
    """An incomplete row is dropped, and frames that are segmented again replace their rows."""
    frames, ids = draw_clip(4, 48, 80, 2)
    video = written_video(tmp_path / "frames", frames, {}, {})
    path = tmp_path / "rows"
    for number in (2, 0, 1):  # as with frames backward
        append_rows(path, frame_rows(number, ids[number], {1: 0.25, 200: 0.5}))
    path.write_bytes(path.read_bytes()[:-5])
    append_rows(path, frame_rows(1, ids[1], {1: 0.75, 200: 1.0}))
    lines = list(table(video, read_rows(path)))
    area = [(ids[number] == 1).sum() for number in range(3)]
    assert lines == [
        ["00000", 1, "0.2500", area[0]], ["00000", 200, "0.5000", 0], ["00001", 1, "0.7500", area[1]],
        ["00001", 200, "1.0000", 0], ["00002", 1, "0.2500", area[2]], ["00002", 200, "0.5000", 0],
    ]  # fmt: skip


def test_results_tell_how_sure_the_network_is(small_network, tmp_path):
    """The video is read backwards, and the second mask shows that object 1 is absent."""
    frames, ids = draw_clip(5, 48, 80, 2)
    backwards = frames[::-1].copy()
    write_mask(tmp_path / "first.png", ids[4])
    write_mask(tmp_path / "later.png", np.where(ids[2] == 2, ids[2], 0).astype(np.uint8))
    masks = {0: tmp_path / "first.png", 2: tmp_path / "later.png"}
    video = written_video(tmp_path / "frames", backwards, masks, {2: [1]})
    settings = EngineSettings(mem_every=2)
    results = list(segmented(small_network, video, settings, confidence=True))

    core = InferenceCore(small_network, mem_every=2)
    for t, image in enumerate(tensors(backwards)):
        mask = torch.from_numpy(video.read_given_mask(t)) if t in masks else None
        probability = core.step(image, mask, absent=video.absent.get(t, ()), last=t == 4)
        assert np.array_equal(results[t].ids, probability.argmax(0).numpy())
        expected = dict(zip(core.object_ids, object_confidence(probability).tolist(), strict=True))
        assert results[t].confidence == pytest.approx(expected, abs=1e-5)
        assert results[t].uncertainty == pytest.approx(1 - min(expected.values()), abs=1e-5)
    assert not (results[2].ids == 1).any()
    without = list(segmented(small_network, video, settings))
    assert all(math.isnan(result.uncertainty) and not result.confidence for result in without)


def written_video(folder, frames: np.ndarray, masks: dict, absent: dict) -> Video:
    """The frames as PNG files."""
    folder.mkdir()
    paths = [folder / f"{t:05d}.png" for t in range(len(frames))]
    for path, frame in zip(paths, frames, strict=True):
        Image.fromarray(frame).save(path)
    return Video("clip", paths, masks, absent=absent)
