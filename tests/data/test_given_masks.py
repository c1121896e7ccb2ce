"""A binary mask file for each object of a frame, told from the masks of several frames."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.files.given_masks import ObjectMasks, absences, read_given
from dataset.layouts.davis import DAVIS
from dataset.layouts.folder_videos import FolderVideos
from util.errors import InputError

PADDED = [f"{number:05d}" for number in range(12)]


def square(left: int, side: int = 10) -> np.ndarray:
    mask = np.zeros((40, 60), bool)
    mask[5 : 5 + side, left : left + side] = True
    return mask


FIRST, SECOND = square(5), square(30, 15)


def save(path: Path, mask: np.ndarray, form: str = "grey") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))
    image = {"grey": image, "bits": image.convert("1"), "colours": image.convert("RGB")}[form]
    image.save(path)


def given(folder: Path, files: dict[str, np.ndarray], names: list[str] | None = None, form: str = "grey"):
    for name, mask in files.items():
        save(folder / f"{name}.png", mask, form)
    masks, reader = read_given([folder], "clip", names)
    return {number: reader.read(path) for number, path in masks.items()}, reader


@pytest.mark.parametrize("names", [PADDED, None, ["shot8", "shot9", "shot10"]])
@pytest.mark.parametrize(
    "files",
    [
        ["object_1", "object_2"],
        ["mask_0", "mask_1"],
        ["cat", "dog"],
        ["id3", "id12"],
        ["1/mask", "2/mask"],
        ["person_1", "dog_2"],
        ["dog_0.83", "person_0.91"],  # scores of a detector
        ["mask_0_0.981", "mask_1_0.954"],
    ],
)
def test_objects_of_the_first_frame(tmp_path, files, names):
    masks, reader = given(tmp_path, dict(zip(files, (FIRST, SECOND), strict=True)), names)
    np.testing.assert_array_equal(masks[0], FIRST + 2 * SECOND)
    assert list(masks) == [0] and "object 1 is" in reader.notes[0] and Path(files[0]).parts[0] in reader.notes[0]


@pytest.mark.parametrize("form", ["grey", "bits", "colours"])
@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("{frame:05d}_{key}", PADDED),
        ("{frame:05d}-object-{key}", None),
        ("{frame}_{key}", [str(number) for number in range(12)]),
        ("frame_{frame}_{key}", None),
        ("{key}_{frame:05d}", PADDED),
        ("00{key}/{frame:05d}", PADDED),
        ("{frame:05d}/{key}", PADDED),
        ("{frame:05d}_dog{key}_0.9{frame}", PADDED),
    ],
)
def test_objects_of_several_frames(tmp_path, pattern, names, form):
    """The first object leaves the last frame; the names tell which object that is."""
    shown = {(3, 1): FIRST, (3, 2): SECOND, (7, 1): SECOND, (7, 2): FIRST, (9, 2): SECOND}
    files = {pattern.format(frame=frame, key=key): mask for (frame, key), mask in shown.items()}
    masks, _ = given(tmp_path, files, names, form)
    assert list(masks) == [3, 7, 9]
    for number, expected in ((3, FIRST + 2 * SECOND), (7, SECOND + 2 * FIRST), (9, 2 * SECOND)):
        np.testing.assert_array_equal(masks[number], expected)


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["00000", "00005"], PADDED),
        (["frame_1", "frame_2"], PADDED),
        (["IMG_0001", "IMG_0002"], None),
        (["shot8", "shot 9"], ["shot8", "shot9"]),
        (["00001_mask", "00002_mask"], PADDED),
        (["mask_0003", "mask_0009"], None),
    ],
)
@pytest.mark.parametrize("disjoint", [True, False])
def test_binary_masks_of_frames_stay_masks_of_frames(tmp_path, files, names, disjoint):
    masks, reader = given(tmp_path, dict(zip(files, (FIRST, SECOND if disjoint else square(6)), strict=True)), names)
    assert len(masks) == 2 and not isinstance(reader, ObjectMasks)
    assert all(mask.max() == 1 for mask in masks.values())


def test_masks_of_several_objects_are_masks_of_frames(tmp_path):
    both = np.where(SECOND, 2, FIRST).astype(np.uint8)
    for name in ("mask_7", "mask_150"):
        Image.fromarray(both).save(tmp_path / f"{name}.png")
    masks, reader = read_given([tmp_path], "clip")
    assert list(masks) == [7, 150] and not isinstance(reader, ObjectMasks)
    for path in list(tmp_path.iterdir()):
        path.rename(tmp_path / path.name.replace("mask", "object"))
    with pytest.raises(InputError, match=r"named after objects.*00000\.png"):
        read_given([tmp_path], "clip")


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["0", "1"], None),  # two objects, or one that jumps
        (["000", "001"], PADDED),
        (["1_0", "2_0"], [str(number) for number in range(12)]),
        (["ComfyUI_00001_", "ComfyUI_00002_"], PADDED),
        (["mask_3", "mask_40"], PADDED),  # no objects 0, 1, ...; no names of frames
    ],
)
def test_what_may_be_both_is_refused(tmp_path, files, names):
    with pytest.raises(InputError, match=r"two frames or of two objects.*object_1.png"):
        given(tmp_path, dict(zip(files, (FIRST, SECOND), strict=True)), names)


def test_masks_of_one_object_are_no_two_objects(tmp_path):
    """Three proposals for an object, or three frames of it."""
    with pytest.raises(InputError, match="two frames or of two objects"):
        given(tmp_path, {f"mask_{number}": square(5 + number) for number in range(3)}, PADDED)
    with pytest.raises(InputError, match=r"named like no frame.*00000\.png.*object_1\.png"):
        given(tmp_path / "other", {"00099_1": FIRST, "00099_2": SECOND}, PADDED)
    with pytest.raises(InputError, match="named like no frame"):
        given(tmp_path / "folders", {"1/00099": FIRST, "2/00099": SECOND}, PADDED)


@pytest.mark.parametrize("names", [PADDED, None])
def test_a_folder_around_the_masks_is_no_object(tmp_path, names):
    masks, _ = given(tmp_path, {"masks/object_1": FIRST, "masks/object_2": SECOND}, names)
    np.testing.assert_array_equal(masks[0], FIRST + 2 * SECOND)
    with pytest.raises(InputError, match=rf"holds no masks; give PNGs, or {tmp_path}/above/clip$"):
        given(tmp_path / "above", {"clip/1/00000": FIRST, "clip/2/00000": SECOND}, names)


def test_inverted_masks_of_objects_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"object_1.png and .*object_2.png .*--invert$"):
        given(tmp_path, {"object_1": ~FIRST, "object_2": ~SECOND})
    _, reader = given(tmp_path / "one", {"object_1": ~FIRST, "object_2": SECOND})
    assert any("object_1.png: the object surrounds" in note for note in reader.notes)


def test_an_overlap_goes_to_the_later_object(tmp_path):
    masks, reader = given(tmp_path, {"object_2": SECOND, "object_10": square(35, 20)})
    np.testing.assert_array_equal(masks[0], np.where(square(35, 20), 2, SECOND))
    assert "object_10.png covers 150 pixels" in reader.notes[1]


def test_files_of_one_frame_that_do_not_fit_are_refused(tmp_path):
    both = np.where(SECOND, 2, FIRST).astype(np.uint8)
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        Image.fromarray(both).save(tmp_path / name / "00000.png")
    with pytest.raises(InputError, match=r"1/00000.png shows 2 objects.*one mask for each frame"):
        read_given([tmp_path], "clip")
    with pytest.raises(InputError, match=r"several videos; give .*/clip"):
        given(tmp_path / "data", {"clip/00000": FIRST, "other/00000": SECOND})
    with pytest.raises(InputError, match=r"60×40.*30×20|30×20.*60×40"):
        given(tmp_path / "sizes", {"object_1": FIRST, "object_2": SECOND[:20, :30]})


def black(*shown: np.ndarray) -> dict[str, np.ndarray]:
    return {f"{number:05d}": mask for number, mask in enumerate(shown)}


EMPTY = np.zeros_like(FIRST)


def test_black_masks_after_an_object_mean_that_it_is_absent(tmp_path):
    for name, mask in black(EMPTY, EMPTY, FIRST, EMPTY, FIRST).items():
        save(tmp_path / f"masks/v/{name}.png", mask)
    for number in range(6):
        save(tmp_path / f"images/v/{number:05d}.png", FIRST)
    (video,) = FolderVideos(tmp_path / "images", tmp_path / "masks").videos()
    assert list(video.masks) == [2, 3, 4] and video.absent == {3: [1]} and video.given_ids == {2: [1], 3: [], 4: [1]}
    before, absent = video.reader.notes
    assert "left out" in before and "00000.png and 1 more" in before and "absent from 1 frame, first 1 in" in absent
    for number in range(2, 5):
        save(tmp_path / f"masks/v/{number:05d}.png", EMPTY)
    (video,) = FolderVideos(tmp_path / "images", tmp_path / "masks").videos()
    with pytest.raises(InputError, match="mark at least one pixel"):
        video.read_given_mask(0)


def test_an_empty_file_of_an_object_means_that_it_is_absent(tmp_path):
    files = {"1/00000": FIRST, "1/00004": EMPTY, "1/00006": FIRST, "2/00000": EMPTY, "2/00004": SECOND}
    for name, mask in files.items():
        save(tmp_path / f"{name}.png", mask)
    masks, absent = absences(*read_given([tmp_path], "clip", PADDED))
    assert list(masks) == [0, 4, 6] and absent == {4: [1]}  # 2 has no file for frame 6, and none before shows it


@pytest.mark.parametrize(
    ("images", "masks"),
    [("valid/JPEGImages", "valid/Annotations"), ("JPEGImages/480p", "Annotations/480p"), ("imgs", "panomasks")],
)
def test_a_data_set_as_it_comes_names_its_folders_and_new_only(tmp_path, images, masks):
    images, masks = tmp_path / "LVOS" / images, tmp_path / "LVOS" / masks
    for name, mask in black(EMPTY, FIRST, EMPTY, FIRST).items():
        save(images / "v" / f"{name}.png", FIRST)
        save(masks / "v" / f"{name}.png", mask)
    for roots in ((tmp_path / "LVOS", masks), (images, tmp_path / "LVOS")):
        with pytest.raises(InputError, match=f"give --images {images} --masks {masks}$"):
            FolderVideos(*roots).videos()
    with pytest.raises(InputError, match=f"give --gt {masks}$"):
        FolderVideos(images, masks, tmp_path / "LVOS").videos()
    with pytest.raises(InputError, match="download.py davis2017$" if images.name == "480p" else f"--images {images} "):
        DAVIS(tmp_path / "LVOS")
    with pytest.raises(InputError, match=r"a mask of every frame.*--new_only"):
        FolderVideos(images, masks).videos()
    (video,) = FolderVideos(images, masks, new_only=True).videos()
    assert video.given_ids == {1: [1]}


def test_a_folder_for_each_object_of_a_collection(tmp_path):
    """SA-V: objects by their folders, in the given masks and in the ground truth."""
    for number in range(6):
        save(tmp_path / f"images/v/{number:05d}.png", FIRST)
    for number, one, other in ((0, FIRST, SECOND), (4, SECOND, FIRST)):
        save(tmp_path / f"truth/v/000/{number:05d}.png", one)
        save(tmp_path / f"truth/v/001/{number:05d}.png", other)
    save(tmp_path / "masks/v/001/00000.png", SECOND)
    save(tmp_path / "masks/v/002/00000.png", np.zeros_like(FIRST))
    (video,) = FolderVideos(tmp_path / "images", tmp_path / "masks", tmp_path / "truth").videos()
    assert video.given_ids == {0: [1]}  # 001 has the first name
    truth = FolderVideos(tmp_path / "images", tmp_path / "masks", tmp_path / "truth").true_masks("v", video.frames)
    np.testing.assert_array_equal(video.read_mask(truth[4]) == 1, FIRST)
