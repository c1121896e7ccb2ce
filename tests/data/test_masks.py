"""What masks mean: of every mode, from every program, hard and soft; and what convert_mask.py makes of soft ones."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from conftest import assert_refused
from dataset.files.colours import davis_palette
from dataset.files.images import PaintedMasks, image_size, read_image, read_mask, read_pixels
from util.errors import InputError

RED, GREEN, BLUE, WHITE, BLACK, YELLOW = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255,) * 3, (0,) * 3, (255, 255, 0)
SIZE = (60, 80)


def shapes() -> np.ndarray:
    """A rectangle with the id 1 and a disc with the id 2, apart from each other."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    ids = np.zeros(SIZE, np.uint8)
    ids[8:30, 10:40] = 1
    ids[(y - 40) ** 2 + (x - 58) ** 2 < 13**2] = 2
    return ids


IDS = shapes()
ONE = (IDS > 0).astype(np.uint8)


def painted(*colours: tuple[int, ...], background: tuple[int, ...] = BLACK) -> Image.Image:
    return Image.fromarray(np.array([background, *colours], np.uint8)[IDS])


def on_transparency(*colours: tuple[int, ...], clear: tuple[int, ...] = WHITE, opacity: int = 255) -> Image.Image:
    image = painted(*colours, background=clear)
    image.putalpha(Image.fromarray(ONE * np.uint8(opacity)))
    return image


def indexed(indices: np.ndarray, *palette: tuple[int, ...], clear: int | None = None) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8))
    image.putpalette([level for colour in palette for level in colour])
    if clear is not None:
        image.info["transparency"] = clear
    return image


def davis(ids: np.ndarray) -> Image.Image:
    image = Image.fromarray(ids)
    image.putpalette(davis_palette())
    return image


def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8))


# Name of the file: the image, and the ids that it means.
HARD = {
    "0 and 255.png": (Image.fromarray(ONE * np.uint8(255)), ONE),
    "ids in grey.png": (Image.fromarray(IDS), IDS),
    "large ids.png": (Image.fromarray(np.array([0, 100, 200], np.uint8)[IDS]), np.array([0, 100, 200])[IDS]),
    "grey on white.png": (Image.fromarray(np.array([255, 90, 90], np.uint8)[IDS]), ONE),
    "one bit.png": (Image.fromarray(ONE > 0), ONE),
    "16 bits, 0 and 65535.png": (Image.fromarray(ONE.astype(np.uint16) * 65535), ONE),
    "32 bits.tif": (Image.fromarray(IDS.astype(np.int32)), IDS),
    "floats.tif": (Image.fromarray(IDS.astype(np.float32)), IDS),
    "white on black.png": (painted(WHITE, WHITE), ONE),
    "red and green.png": (painted(RED, GREEN), IDS),
    "green and red.png": (painted(GREEN, RED), np.array([0, 2, 1])[IDS]),  # red comes first
    "red alone.png": (painted(RED, RED), ONE),
    "colours of DAVIS.png": (painted((0, 128, 0), (128, 128, 0)), np.array([0, 2, 3])[IDS]),
    "on transparency.png": (on_transparency(RED, GREEN), IDS),
    "half opaque.png": (on_transparency(RED, GREEN, opacity=128), IDS),
    "black on transparency.png": (on_transparency(BLACK, BLACK), ONE),
    "white on clear white.png": (on_transparency(WHITE, WHITE), ONE),
    "grey and opacity.png": (Image.fromarray(ONE * np.uint8(255)).convert("LA"), ONE),
    "print.tif": (painted(RED, GREEN).convert("CMYK"), IDS),
    "DAVIS.png": (davis(np.array([0, 4, 9], np.uint8)[IDS]), np.array([0, 4, 9])[IDS]),
    "own palette.png": (indexed(np.array([0, 5, 3])[IDS], BLACK, *[RED] * 5), np.array([0, 5, 3])[IDS]),
    "black is last.png": (indexed(np.array([2, 0, 1])[IDS], RED, GREEN, BLACK), IDS),
    "black is 1, and 0 unused.png": (indexed(IDS + 1, RED, BLACK, RED, GREEN), IDS),
    "white is 0.png": (indexed(IDS, WHITE, RED, GREEN), IDS),
    "clear is 0.png": (indexed(IDS, WHITE, RED, GREEN, clear=0), IDS),
    "clear is 2.png": (indexed(np.array([2, 0, 1])[IDS], RED, GREEN, BLUE, clear=2), IDS),
    "grey palette.png": (Image.fromarray(ONE * np.uint8(255)).convert("P"), ONE),
    "quantized.png": (painted(RED, GREEN).quantize(3), IDS),
    "colours.BMP": (painted(RED, GREEN), IDS),
    "0 and 255.TIF": (Image.fromarray(ONE * np.uint8(255)), ONE),
    "lossless.webp": (painted(RED, GREEN), IDS),
}


@pytest.mark.parametrize("name", HARD)
def test_masks_of_any_program_are_taken(name, tmp_path):
    image, expected = HARD[name]
    path = tmp_path / name
    image.save(path, **({"lossless": True} if path.suffix == ".webp" else {}))
    masks = PaintedMasks([path])
    np.testing.assert_array_equal(masks.read(path), expected)
    assert bool(masks.notes) == (("white.png" in name and "clear" not in name) or name == "white is 0.png")


def smooth(image: Image.Image) -> Image.Image:
    """The image with the soft edges of a brush."""
    return image.resize((4 * SIZE[1], 4 * SIZE[0])).resize(SIZE[::-1], Image.Resampling.BILINEAR)


def through_jpeg(image: Image.Image, path: Path) -> Image.Image:
    image.save(path.with_suffix(".jpg"), quality=90)
    return Image.open(path.with_suffix(".jpg"))


def one_soft_row() -> Image.Image:
    values = np.zeros(SIZE, np.uint8)
    values[20:40, 20:40], values[19, 20:40] = 255, 128
    return Image.fromarray(values)


# Name of the file: the image, and the ids that convert_mask.py makes of it.
SOFT = {
    "soft.png": (lambda path: smooth(Image.fromarray(ONE * np.uint8(255))), ONE),
    "one soft row.png": (lambda path: one_soft_row(), None),
    "soft colours.png": (lambda path: smooth(painted(RED, GREEN)), IDS),
    "soft and quantized.png": (lambda path: smooth(painted(RED, GREEN)).quantize(8), IDS),
    "soft opacity.png": (lambda path: _soft_opacity(), ONE),
    "mask.jpg": (lambda path: painted(RED, GREEN), IDS),
    "a JPEG once.png": (lambda path: through_jpeg(painted(RED, GREEN), path), IDS),
    "faint noise.png": (lambda path: _noisy(0, 255), ONE),
    "bright noise.png": (lambda path: _noisy(1, 254), ONE),
    "a grey JPEG once.png": (lambda path: through_jpeg(Image.fromarray(ONE * np.uint8(255)), path), ONE),
}


def _noisy(low: int, high: int) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 2, SIZE, np.uint8)
    return Image.fromarray(np.where(ONE, high + noise * (low > 0), low + noise * (low == 0)).astype(np.uint8))


def _soft_opacity() -> Image.Image:
    image = Image.new("RGBA", SIZE[::-1], (*RED, 0))
    image.putalpha(smooth(Image.fromarray(ONE * np.uint8(255))))
    return image


@pytest.mark.parametrize("name", SOFT)
def test_soft_masks_are_refused_and_converted(name, inline, tmp_path):
    make, expected = SOFT[name]
    path = tmp_path / name
    make(path).save(path)
    with pytest.raises(InputError) as error:
        PaintedMasks([path])
    assert str(path) in str(error.value) and "scripts/convert_mask.py" in str(error.value)
    inline("scripts/convert_mask.py", path, "--output", tmp_path / "out/new.png").checked()
    converted = read_mask(tmp_path / "out/new.png")
    if expected is not None:  # an edge may go to either side
        assert (converted != expected).mean() < 0.03 and set(np.unique(converted)) == set(np.unique(expected))
    np.testing.assert_array_equal(PaintedMasks([]).read(tmp_path / "out/new.png"), converted)


def test_a_soft_edge_never_becomes_an_object_with_a_colour_between(inline, tmp_path):
    """The edge from 0 to 200 passes through 100, which is another object's colour."""
    smooth(Image.fromarray(np.array([0, 100, 200], np.uint8)[IDS])).save(tmp_path / "soft.png")
    assert inline("scripts/convert_mask.py", tmp_path / "soft.png", "--output", tmp_path / "hard.png").returncode == 0
    converted = read_mask(tmp_path / "hard.png")
    numbers = {converted[15, 20]: IDS == 1, converted[40, 58]: IDS == 2}
    assert len(numbers) == 2
    for number, region in numbers.items():
        near = np.asarray(Image.fromarray(region).filter(ImageFilter.MaxFilter(5)))
        assert not ((converted == number) & ~near).any()


def test_pictures_and_masks_without_background_are_refused(inline, tmp_path):
    photo().save(tmp_path / "photo.png")
    painted(RED, GREEN, background=(90, 90, 120)).save(tmp_path / "bare.png")
    Image.fromarray(np.array([0, 300, 700], np.uint16)[IDS]).save(tmp_path / "high.png")
    Image.fromarray(IDS).save(tmp_path / "pages.tif", save_all=True, append_images=[Image.fromarray(IDS)])
    Image.fromarray(np.where(ONE, np.uint8(235), np.uint8(16))).save(tmp_path / "video.png")
    for name, text in (
        ("photo.png", "soft edges"),
        ("bare.png", "no background"),
        ("video.png", "no background.*--threshold 128"),
        ("high.png", "700"),
        ("pages.tif", "2 images"),
        ("absent.png", "missing"),
    ):
        with pytest.raises(InputError, match=text) as error:
            PaintedMasks([tmp_path / name]).read(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
    for name, text in (("photo.png", "is a picture"), ("bare.png", "background")):
        assert_refused(inline("scripts/convert_mask.py", tmp_path / name, "--output", tmp_path / "new.png"), name, text)
    assert not (tmp_path / "new.png").exists()
    flags = ("--output", tmp_path / "new.png", "--threshold", 128)
    assert inline("scripts/convert_mask.py", tmp_path / "video.png", *flags).returncode == 0
    np.testing.assert_array_equal(read_mask(tmp_path / "new.png"), ONE)


def test_a_colour_is_the_same_object_in_all_masks_of_a_video(tmp_path):
    """A grey value or colour that comes alone in one mask is not renumbered, if another mask knows it."""

    def read(*images: Image.Image) -> list[list[int]]:
        paths = [tmp_path / f"{number}.png" for number in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            image.save(path)
        masks = PaintedMasks(paths)
        return [np.unique(masks.read(path))[1:].tolist() for path in paths]

    grey = np.array([0, 100, 200], np.uint8)[IDS]
    assert read(Image.fromarray(grey), Image.fromarray(grey * (IDS == 2))) == [[100, 200], [200]]
    assert read(Image.fromarray(grey * (IDS == 2)), Image.fromarray(grey)) == [[200], [100, 200]]
    assert read(Image.fromarray(grey * (IDS == 1)), Image.fromarray(grey * (IDS == 2))) == [[100], [200]]
    assert read(HARD["0 and 255.png"][0], HARD["0 and 255.png"][0]) == [[1], [1]]
    assert read(painted(GREEN, BLUE), painted(RED, BLUE), painted(BLUE, BLUE)) == [[1, 2], [2, 3], [2]]
    assert read(davis(IDS * np.uint8(2)), painted(RED, RED)) == [[2, 4], [1]]


def test_data_sets_keep_their_ids(tmp_path):
    """Whatever their palette, and 255 as well."""
    for number, image in enumerate(
        (davis(IDS), davis(ONE * np.uint8(255)), indexed(np.array([2, 0, 1])[IDS], RED, GREEN, BLACK))
    ):
        image.save(tmp_path / f"{number}.png")
        np.testing.assert_array_equal(read_mask(tmp_path / f"{number}.png"), np.array(image))
    HARD["0 and 255.png"][0].save(tmp_path / "grey.png")
    assert set(np.unique(read_mask(tmp_path / "grey.png"))) == {0, 255}
    HARD["colours of DAVIS.png"][0].save(tmp_path / "colours.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "colours.png"), HARD["colours of DAVIS.png"][1])
    painted(RED, GREEN).save(tmp_path / "others.png")
    with pytest.raises(InputError, match=r"convert_mask\.py"):
        read_mask(tmp_path / "others.png")


def test_many_hard_objects_are_no_soft_edge(tmp_path):
    """255 objects side by side, a thin one between two others, and specks."""
    y, x = np.mgrid[:85, :120]
    stripes = (x // 8 + 15 * (y // 5)).clip(0, 255).astype(np.uint8)
    thin = np.where(IDS == 0, np.uint8(3), IDS)
    thin[:, 50] = 7
    specks = IDS.copy()
    specks[2:50:9, 45], specks[55, 5:40:9] = 5, 9
    for number, ids in enumerate((stripes, thin, specks)):
        Image.fromarray(ids).save(tmp_path / f"{number}.png")
        np.testing.assert_array_equal(PaintedMasks([]).read(tmp_path / f"{number}.png"), ids)


def test_an_inverted_mask_is_noticed_and_turned_round(inline, tmp_path):
    path = tmp_path / "my mask.png"
    Image.fromarray((1 - ONE) * np.uint8(255)).save(path)
    (note,) = PaintedMasks([path]).notes
    assert str(path) in note and "--invert" in note
    assert inline("scripts/convert_mask.py", path, "--invert", "--output", tmp_path / "new.png").returncode == 0
    np.testing.assert_array_equal(read_mask(tmp_path / "new.png"), ONE)
    assert_refused(inline("scripts/convert_mask.py", path, "--output", tmp_path / "new.png"), "new.png", "--output")


def test_convert_mask_takes_several_images_and_a_threshold(inline, tmp_path):
    smooth(painted(RED, GREEN)).save(tmp_path / "00000.png")
    smooth(painted(BLACK, GREEN)).save(tmp_path / "00010.png")
    result = inline(
        "scripts/convert_mask.py", tmp_path / "00000.png", tmp_path / "00010.png", "--output", tmp_path / "o"
    ).checked()
    assert "2 objects, 1 (" in result.stdout
    assert [np.unique(read_mask(tmp_path / f"o/{name}.png")).tolist() for name in ("00000", "00010")] == [
        [0, 1, 2],
        [0, 2],
    ]
    ramp = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (20, 1)))
    ramp.save(tmp_path / "ramp.png")
    flags = ("--threshold", 200, "--output", tmp_path / "t.png")
    assert inline("scripts/convert_mask.py", tmp_path / "ramp.png", *flags).returncode == 0
    np.testing.assert_array_equal(read_mask(tmp_path / "t.png")[0], np.arange(256) >= 200)


def test_convert_mask_keeps_the_dark_and_thin_objects_of_hard_masks(inline, tmp_path):
    ids = IDS.copy()
    ids[50, 5:40] = 7
    flags = ("--output", tmp_path / "new.png")
    for image in (Image.fromarray(ids), Image.fromarray(np.dstack([20 * ids, 30 * ids, 0 * ids]))):
        image.save(tmp_path / "mask.png")
        assert inline("scripts/convert_mask.py", tmp_path / "mask.png", *flags).returncode == 0
        np.testing.assert_array_equal(read_mask(tmp_path / "new.png") > 0, ids > 0)
        assert len(np.unique(read_mask(tmp_path / "new.png"))) == 4
        (tmp_path / "new.png").unlink()
    assert_refused(inline("scripts/convert_mask.py", tmp_path / "mask.png", "--output", tmp_path / "n.jpg"), "n.png")


def test_only_common_formats_are_decoded_whatever_a_file_is_called(tmp_path):
    davis(IDS).save(tmp_path / "mask.png", format="PCX")
    for read in (read_mask, read_image, image_size):
        with pytest.raises(InputError, match=r"mask\.png cannot be decoded"):
            read(tmp_path / "mask.png")


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [(3, Image.Transpose.ROTATE_180), (5, Image.Transpose.TRANSPOSE), (6, Image.Transpose.ROTATE_90)],
)
def test_images_and_masks_are_upright(orientation, turn, tmp_path):
    """A camera stores the picture turned, and the EXIF orientation beside it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    frame = painted(RED, GREEN, background=(90, 90, 200))
    for name in ("frame.jpg", "frame.png", "frame.tif"):
        frame.transpose(turn).save(tmp_path / name, exif=exif)
        assert np.abs(read_image(tmp_path / name).astype(int) - np.asarray(frame)).mean() < 8
        assert image_size(tmp_path / name) == SIZE == read_pixels(tmp_path / name).shape[:2]
    for image in (davis(IDS), painted(RED, GREEN)):
        image.transpose(turn).save(tmp_path / "mask.png", exif=exif)
        np.testing.assert_array_equal(PaintedMasks([]).read(tmp_path / "mask.png"), IDS)


@pytest.mark.parametrize("values", [(0, 1001, 2003), (0, 300, 65000), (0, 300, 700)])
def test_masks_of_16_bits_are_numbered_by_value(inline, tmp_path, values):
    """The same value is the same object in all masks of a command; 65535 is void, and so is 10000 among MOTS's."""
    first, second = (np.array(values, np.uint16)[ids] for ids in (IDS, np.where(IDS == 1, 0, IDS)))
    if values[2] < 65000:
        first[:4] = 10000 if values[1] > 1000 else 65535
    for name, mask in (("a.png", first), ("b.png", second)):
        Image.fromarray(mask).save(tmp_path / name)
    with pytest.raises(InputError, match=r"convert_mask\.py"):
        read_mask(tmp_path / "a.png")
    inline("scripts/convert_mask.py", tmp_path / "a.png", tmp_path / "b.png", "--output", tmp_path / "o").checked()
    assert np.array_equal(read_mask(tmp_path / "o/a.png"), IDS)
    assert np.array_equal(read_mask(tmp_path / "o/b.png"), np.where(IDS == 2, 2, 0))
    Image.fromarray(0 * first).save(tmp_path / "c.png")
    inline("scripts/convert_mask.py", tmp_path / "a.png", tmp_path / "c.png", "--output", tmp_path / "black").checked()
    assert not read_mask(tmp_path / "black/c.png").any()
    painted(RED, GREEN).save(tmp_path / "c.png")
    mixed = inline("scripts/convert_mask.py", tmp_path / "a.png", tmp_path / "c.png", "--output", tmp_path / "mixed")
    assert_refused(mixed, tmp_path / "a.png", "command of their own")
