import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as torchvision

from dataset.samples.augmentation import (
    Warp,
    affine,
    recolour,
    static_transforms,
    transforms_around_object,
    video_transforms,
)


def smooth_image(height: int, width: int) -> np.ndarray:
    """A colourful image without edges, so that interpolation methods agree, and far from black and white."""
    y, x = np.mgrid[:height, :width]
    channels = [np.sin(x / 17 + y / 29), np.cos(x / 23 - y / 19), np.sin(x / 31) * np.cos(y / 13)]
    return np.stack([128 + 60 * channel for channel in channels], axis=-1).round().astype(np.uint8)


def chw(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)


def test_warp_of_whole_pixels_is_exact():
    image = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    shift = np.array([[1.0, 0, 2], [0, 1, -1], [0, 0, 1]])
    warped = Warp(shift, 6).image(image)
    np.testing.assert_array_equal(warped[:5, 2:], image[1:, :4])
    assert (warped[:, :2] == (124, 116, 104)).all(), "outside of the image is its mean colour"
    ids = Warp(shift, 6).mask(image[..., 0])
    np.testing.assert_array_equal(ids[:5, 2:], image[1:, :4, 0])
    assert not ids[:, :2].any() and not ids[5].any(), "outside of the mask is background"


def test_warp_reduces_without_aliasing():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    reduced = Warp(np.diag([0.5, 0.5, 1]), 32).image(stripes)
    assert np.abs(reduced[4:-4, 4:-4].astype(int) - 128).max() < 20


def test_affine_is_torchvisions():
    image = smooth_image(96, 128)
    warped = Warp(affine(96, 128, degrees=13, scale=1.1, shear=-8) @ np.eye(3), 128).image(image)[:96]
    reference = torchvision.affine(
        chw(image), 13, [0, 0], 1.1, [-8.0, 0.0], interpolation=torchvision.InterpolationMode.BILINEAR
    )
    difference = np.abs(warped[24:-24, 32:-32].astype(int) - reference.permute(1, 2, 0).numpy()[24:-24, 32:-32])
    assert difference.max() <= 3


@pytest.mark.parametrize(
    ("step", "reference"),
    [
        (("brightness", 1.1), lambda image: torchvision.adjust_brightness(image, 1.1)),
        (("contrast", 0.9), lambda image: torchvision.adjust_contrast(image, 0.9)),
        (("saturation", 1.2), lambda image: torchvision.adjust_saturation(image, 1.2)),
        (("saturation", 0.0), lambda image: torchvision.rgb_to_grayscale(image, num_output_channels=3)),
        (("hue", -0.05), lambda image: torchvision.adjust_hue(image, -0.05)),
    ],
)
def test_colour_steps_are_torchvisions(step, reference):
    image = smooth_image(40, 50)
    expected = reference(chw(image)).permute(1, 2, 0).numpy().astype(int)
    # Hue goes through 8-bit HSV, as PIL's does.
    assert np.abs(recolour(image, [step]) - expected).max() <= (5 if step[0] == "hue" else 1)


def test_video_crops_keep_their_share_and_aspect_ratio():
    rng = np.random.default_rng(0)
    for _ in range(200):
        transforms = video_transforms(rng, 48, 85, size=32, frames=5, crop_area=(0.36, 1))
        matrices = [transform.warp.matrix for transform in transforms]
        # Rotation and shear keep areas: what a crop covers is in the determinant.
        shares = [32 * 32 / abs(np.linalg.det(matrix)) / (48 * 85) for matrix in matrices]
        np.testing.assert_allclose(shares, shares[0])
        assert 0.36 <= shares[0] <= 1
        assert len({np.linalg.det(matrix) > 0 for matrix in matrices}) == 1, "a flip is the whole clip's"


def test_static_clips_move_and_stay_within_their_zoom():
    rng = np.random.default_rng(0)
    warps = 0
    for _ in range(100):
        transforms = static_transforms(rng, 40, 60, size=32, frames=3)
        assert not np.allclose(transforms[0].warp.matrix, transforms[1].warp.matrix)
        warps += sum(transform.warp.displacement is not None for transform in transforms)
        for transform in transforms:
            zoom = abs(np.linalg.det(transform.warp.matrix)) ** 0.5 / (32 / 40)
            assert 0.8 * 0.9 <= zoom <= 1.5 * 1.1
    assert 70 < warps < 130, "a third of the frames are bent"


@pytest.mark.parametrize("shape", [(1400, 1400), (64, 64), (30, 100), (100, 63), (20, 31)])
@pytest.mark.parametrize("corner", [0, -1])
def test_crop_around_an_object_shows_its_pixel(shape, corner):
    ids = np.zeros(shape, np.uint8)
    ids[corner, corner] = 3
    transforms = transforms_around_object(np.random.default_rng(0), ids, size=64, frames=3)
    assert len(transforms) == 3
    assert 3 in transforms[0].warp.mask(ids)
    inside = transforms[0].warp.mask(np.ones_like(ids))
    assert inside.all(), "the crop lies inside the image"
