import cv2
import numpy as np
import pytest

from dataset.perturbation import LOWEST_IOU_TARGET, mask_iou, perturb_mask


def ellipse(side: int, axes: tuple[int, int]) -> np.ndarray:
    return cv2.ellipse(np.zeros((side, side), np.uint8), (side // 2, side // 2), axes, 30, 0, 360, 1, -1)


@pytest.mark.parametrize(("axes", "worst"), [((8, 5), 0.6), ((40, 25), 0.7), ((90, 60), 0.7)])
def test_falls_just_below_the_target(axes, worst):
    mask = ellipse(192, axes)
    original = mask.copy()
    for seed in range(50):
        target = np.random.default_rng(seed).uniform(LOWEST_IOU_TARGET, 1)
        perturbed = perturb_mask(mask, np.random.default_rng(seed))
        assert worst < mask_iou(mask, perturbed) < target
        assert perturbed.dtype == np.uint8 and perturbed.max() == 1
    np.testing.assert_array_equal(mask, original)


def test_both_grows_and_shrinks():
    mask = ellipse(96, (30, 20))
    areas = [perturb_mask(mask, np.random.default_rng(seed)).sum() for seed in range(40)]
    assert min(areas) < mask.sum() < max(areas)


def test_empty_mask_stays_empty():
    assert not perturb_mask(np.zeros((20, 20), np.uint8), np.random.default_rng(0)).any()


@pytest.mark.parametrize("side", [1, 2, 3])
def test_tiny_object_never_vanishes(side):
    mask = np.zeros((20, 20), np.uint8)
    mask[:side, :side] = 1
    for seed in range(50):
        assert perturb_mask(mask, np.random.default_rng(seed)).any()


def test_mask_that_fills_the_frame_is_left_alone():
    mask = np.ones((20, 20), np.uint8)
    assert perturb_mask(mask, np.random.default_rng(0)).all()
