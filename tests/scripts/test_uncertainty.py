"""How uncertain the network is near the contours of its masks."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from conftest import draw_clip, segmented, tensors
from dataset.files.images import write_mask
from dataset.files.video import Video
from model.inference import InferenceCore
from util.errors import InputError
from util.evaluation.stream import EngineSettings, contour_entropy

HEIGHT, WIDTH = 30, 40  # a diagonal of 50 pixels, so the margin is one pixel


def two_classes(object_probability: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
    return torch.stack([1 - object_probability, object_probability]), (object_probability > 0.5).byte().numpy()


def test_only_pixels_near_contours_count():
    probability = torch.zeros(HEIGHT, WIDTH)
    probability[:, 20:] = 1
    assert contour_entropy(*two_classes(probability)) == 0
    probability[:, 19], probability[:, 20] = 0.25, 0.75  # the two columns whose neighbours have another id
    quarter = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert contour_entropy(*two_classes(probability)) == pytest.approx(quarter)
    probability[:, 5] = 0.5  # far from the contour
    assert contour_entropy(*two_classes(probability)) == pytest.approx(quarter)


def test_without_a_contour_all_pixels_count():
    probability = torch.zeros(HEIGHT, WIDTH)
    probability[:, :10] = 0.5
    assert contour_entropy(*two_classes(probability)) == pytest.approx(10 / WIDTH)
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    assert contour_entropy(torch.full((4, HEIGHT, WIDTH), 0.25), ids) == pytest.approx(2)


def test_contours_between_objects_count():
    ids = np.ones((HEIGHT, WIDTH), np.uint8)
    ids[10:] = 200
    probability = F.one_hot(torch.from_numpy((ids == 200) + 1).long(), 3).permute(2, 0, 1).float()
    probability[:, 9] = torch.tensor([0, 0.5, 0.5])[:, None]
    assert contour_entropy(probability, ids) == pytest.approx(0.5)  # one of the two rows


def test_results_tell_how_uncertain_the_network_is(small_network, tmp_path):
    """The video is read backwards, and the second mask shows that object 1 is absent."""
    frames, ids = draw_clip(5, 48, 80, 2)
    backwards = frames[::-1].copy()
    write_mask(tmp_path / "first.png", ids[4])
    write_mask(tmp_path / "later.png", np.where(ids[2] == 2, ids[2], 0).astype(np.uint8))
    masks = {0: tmp_path / "first.png", 2: tmp_path / "later.png"}
    video = written_video(tmp_path / "frames", backwards, masks, {2: [1]})
    settings = EngineSettings(mem_every=2)
    results = list(segmented(small_network, video, settings, uncertainty=True))

    core = InferenceCore(small_network, mem_every=2)
    for t, image in enumerate(tensors(backwards)):
        mask = torch.from_numpy(video.read_given_mask(t)) if t in masks else None
        probability = core.step(image, mask, absent=video.absent.get(t, ()), last=t == 4)
        assert np.array_equal(results[t].ids, probability.argmax(0).numpy())
        assert results[t].uncertainty == pytest.approx(contour_entropy(probability, results[t].ids), rel=1e-5)
    assert not (results[2].ids == 1).any()
    assert all(math.isnan(result.uncertainty) for result in segmented(small_network, video, settings))


def test_an_empty_mask_needs_an_absent_object(small_network, tmp_path):
    frames, ids = draw_clip(3, 48, 80, 1)
    write_mask(tmp_path / "first.png", ids[0])
    write_mask(tmp_path / "empty.png", np.zeros_like(ids[0]))
    masks = {0: tmp_path / "first.png", 1: tmp_path / "empty.png"}
    video = written_video(tmp_path / "frames", frames, masks, {1: [1]})
    results = list(segmented(small_network, video, EngineSettings()))
    assert results[0].ids.any() and not results[1].ids.any()
    with pytest.raises(InputError, match=r"empty.png holds no object"):
        list(segmented(small_network, written_video(tmp_path / "again", frames, masks, {}), EngineSettings()))


def written_video(folder, frames: np.ndarray, masks: dict, absent: dict) -> Video:
    """The frames as PNG files."""
    folder.mkdir()
    paths = [folder / f"{t:05d}.png" for t in range(len(frames))]
    for path, frame in zip(paths, frames, strict=True):
        Image.fromarray(frame).save(path)
    return Video("clip", paths, masks, absent=absent)
