"""Void, the pixels that belong to no object: 255 beside other ids, as in Pascal VOC and VSPW."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from dataset.files.colours import davis_palette
from dataset.files.images import PaintedMasks, write_mask
from dataset.layouts.folders import VideoFolders
from dataset.layouts.static import read_object
from util.errors import InputError


def outlined(*ids: int) -> tuple[np.ndarray, np.ndarray]:
    """Squares with these ids and an outline of 255, and the ids without the outline."""
    mask = np.zeros((60, 40 * len(ids)), np.uint8)
    for place, number in enumerate(ids):
        mask[10:50, 40 * place + 5 : 40 * place + 35] = 255
        mask[13:47, 40 * place + 8 : 40 * place + 32] = number
    return mask, np.where(mask == 255, 0, mask)


def saved(path, mask, kind):
    image = Image.fromarray(mask)
    if kind != "grey":
        image.putpalette(davis_palette())
    (image.convert("RGB") if kind == "colours" else image).save(path)
    return path


@pytest.mark.parametrize("kind", ["palette", "grey", "colours"])
@pytest.mark.parametrize("ids", [(1, 2), (3,), (7, 20, 5)])
def test_void_of_a_first_mask_is_background_with_a_note(tmp_path, kind, ids):
    mask, expected = outlined(*ids)
    path = saved(tmp_path / "mask.png", mask, kind)
    masks = PaintedMasks([path])
    np.testing.assert_array_equal(masks.read(path), expected)
    (note,) = masks.notes
    assert "255 beside other ids" in note and "background" in note


def test_255_that_is_no_outline_stays_an_object(tmp_path):
    mask = np.zeros((60, 90), np.uint8)
    mask[10:50, 10:40], mask[10:50, 50:80] = 128, 255
    masks = PaintedMasks([saved(tmp_path / "mask.png", mask, "grey")])
    np.testing.assert_array_equal(masks.read(tmp_path / "mask.png"), mask)
    assert not masks.notes


def test_cream_around_other_colours_and_white_of_16_bits_are_void(tmp_path):
    mask, expected = outlined(1, 2)
    colours = np.zeros((256, 3), np.uint8)
    colours[[1, 2, 255]] = (255, 0, 0), (0, 0, 255), (224, 224, 192)
    Image.fromarray(colours[mask]).save(tmp_path / "colours.png")
    Image.fromarray(np.where(mask == 255, np.uint16(65535), mask)).save(tmp_path / "wide.png")
    for name in ("colours", "wide"):
        masks = PaintedMasks([tmp_path / f"{name}.png"])
        np.testing.assert_array_equal(masks.read(tmp_path / f"{name}.png"), expected)
        assert "background" in masks.notes[0]


@pytest.mark.parametrize("kind", ["palette", "grey", "colours"])
@pytest.mark.parametrize("ids", [(1, 2), (4,), (24, 33), (100, 40)])
def test_the_object_of_a_static_image_is_what_void_surrounds(tmp_path, kind, ids):
    mask, expected = outlined(*ids)
    np.testing.assert_array_equal(read_object(saved(tmp_path / "mask.png", mask, kind)), expected > 0)


def test_static_masks_of_ids_without_void_are_not_empty(tmp_path):
    _, ids = outlined(1, 2)
    for kind in ("grey", "colours"):
        np.testing.assert_array_equal(read_object(saved(tmp_path / "mask.png", ids, kind)), ids > 0)
    Image.fromarray(np.where(ids, np.uint16(65535), np.uint16(0))).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_object(tmp_path / "mask.png"), ids > 0)


def test_static_masks_with_soft_edges_or_noise(tmp_path):
    """Grey ones have a threshold. Colours have none: a soft edge between two is no shade of either."""
    _, ids = outlined(1, 2)
    hard = np.where(ids, np.uint8(255), np.uint8(0))
    soft = Image.fromarray(hard).filter(ImageFilter.GaussianBlur(2))
    noisy = np.where(ids, hard, np.random.default_rng(0).integers(0, 2, ids.shape, np.uint8))
    for image in (soft, Image.fromarray(noisy), Image.fromarray(np.where(ids, np.uint8(254), np.uint8(1)))):
        for mode in ("L", "RGB"):
            image.convert(mode).save(tmp_path / "mask.png")
            np.testing.assert_array_equal(read_object(tmp_path / "mask.png"), np.array(image) >= 128)
    Image.merge("RGB", [soft, Image.fromarray(0 * hard), Image.fromarray(0 * hard)]).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match="soft edges"):
        read_object(tmp_path / "mask.png")


def test_soft_masks_of_an_annotated_video_are_refused(tmp_path):
    """Their shades look like ids. Other masks need not have a background."""
    _, ids = outlined(1, 2)
    folders = VideoFolders("own", tmp_path, tmp_path, "copy it again")
    Image.fromarray(np.where(ids, np.uint8(255), np.uint8(0))).filter(ImageFilter.GaussianBlur(2)).save(
        tmp_path / "0.png"
    )
    with pytest.raises(InputError, match=r"0\.png has soft edges.*convert_mask\.py"):
        folders.read_ids(tmp_path / "0.png")
    Image.fromarray(np.array([9, 40, 90], np.uint8)[ids]).save(tmp_path / "1.png")
    assert set(np.unique(folders.read_ids(tmp_path / "1.png"))) == {9, 40, 90}


def test_void_is_no_object_of_an_annotated_video(tmp_path):
    mask, expected = outlined(1, 2)
    write_mask(tmp_path / "0.png", mask)
    write_mask(tmp_path / "1.png", np.where(mask > 0, 255, 0).astype(np.uint8))
    folders = VideoFolders("own", tmp_path, tmp_path, "copy it again")
    np.testing.assert_array_equal(folders.read_ids(tmp_path / "0.png"), expected)
    assert folders.read_ids(tmp_path / "1.png").max() == 255  # alone, 255 is an object
