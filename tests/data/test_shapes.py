"""scripts/convert_mask.py on annotations in JSON files, and on a file for each object."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import assert_refused
from dataset.files.images import read_mask, write_mask

SIZE = (9, 10)  # height, width
LEFT = [1, 1, 4, 1, 4, 6, 1, 6]  # the corners of a rectangle, x and y
RIGHT = [6, 2, 9, 2, 9, 5, 6, 5]


def drawn(*boxes: tuple[int, list[int]]) -> np.ndarray:
    """Ids in the rectangles of these corners."""
    ids = np.zeros(SIZE, np.uint8)
    for number, (left, top, right, _, _, bottom, *_) in boxes:
        ids[top:bottom, left:right] = number
    return ids


def shape(label: str, corners: list[float], group: int | None = None, kind: str = "polygon", **more) -> dict:
    points = np.array(corners, float).reshape(-1, 2).tolist()
    return {"label": label, "points": points, "group_id": group, "shape_type": kind, **more}


def labelme(path: Path, *shapes: dict) -> Path:
    path.write_text(json.dumps({"imageHeight": SIZE[0], "imageWidth": SIZE[1], "imagePath": "x.jpg", "shapes": shapes}))
    return path


def coco(path: Path, *annotations: dict, images: tuple[str, ...] = ("f/00003.jpg",)) -> Path:
    listed = [{"id": n, "file_name": name, "height": SIZE[0], "width": SIZE[1]} for n, name in enumerate(images)]
    categories = [{"id": 7, "name": "cow"}, {"id": 8, "name": "dog"}]
    annotations = [{"image_id": 0, "category_id": 7, "iscrowd": 0, **annotation} for annotation in annotations]
    path.write_text(json.dumps({"images": listed, "categories": categories, "annotations": annotations}))
    return path


@pytest.fixture
def convert(inline, tmp_path):
    def run(*paths: Path) -> tuple[dict[str, np.ndarray], str]:
        result = inline("scripts/convert_mask.py", *paths, "--output", tmp_path / "new").checked()
        return {path.stem: read_mask(path) for path in sorted((tmp_path / "new").iterdir())}, result.stdout

    return run


def test_shapes_of_labelme(convert, tmp_path):
    part = io.BytesIO()
    Image.fromarray(np.array([[0, 255], [255, 255]], np.uint8)).save(part, "PNG")
    path = labelme(
        tmp_path / "00007.json",
        shape("cow", LEFT),
        shape("cow", [6, 2, 9, 5], kind="rectangle"),  # another object, as there is no group
        shape("dog", [0, 7, 2, 7, 2, 9, 0, 9], group=1),
        shape("dog", [4, 7, 6, 7, 6, 9, 4, 9], group=1),
        shape("cat", [8, 7, 9, 8], kind="mask", mask=base64.b64encode(part.getvalue()).decode()),
    )
    masks, text = convert(path)
    expected = drawn((1, LEFT), (2, RIGHT), (3, [0, 7, 2, 7, 2, 9]), (3, [4, 7, 6, 7, 6, 9]))
    expected[7:9, 8:10] = [[0, 4], [4, 4]]
    np.testing.assert_array_equal(masks["00007"], expected)
    assert "object 1 is cow #1, object 2 is cow #2, object 3 is dog 1, object 4 is cat" in text


@pytest.mark.parametrize("kind", ["rectangle", "rotation"])
def test_rectangles_by_their_corners_and_files_without_shapes(convert, tmp_path, kind):
    """As newer versions write them, and as editors on Windows do, with a byte order mark."""
    path = labelme(tmp_path / "a.json", shape("cow", LEFT, kind=kind))
    path.write_text(path.read_text(), "utf-8-sig")
    masks, text = convert(path, labelme(tmp_path / "b.json"))
    assert list(masks) == ["a"] and "b.json shows no object, and gets no mask" in text
    np.testing.assert_array_equal(masks["a"], drawn((1, LEFT)))


def test_a_circle_of_labelme(convert, tmp_path):
    masks, _ = convert(labelme(tmp_path / "a.json", shape("ball", [5, 4, 5, 1], kind="circle")))
    y, x = np.indices(SIZE) + 0.5
    np.testing.assert_array_equal(masks["a"], np.hypot(x - 5, y - 4) < 3)


def test_labels_are_the_objects_of_several_frames(convert, tmp_path):
    first = labelme(tmp_path / "00000.json", shape("dog", LEFT), shape("cow", RIGHT))
    second = labelme(tmp_path / "00005.json", shape("cow", LEFT), shape("dog", RIGHT))
    masks, _ = convert(first, second)
    np.testing.assert_array_equal(masks["00000"], drawn((1, LEFT), (2, RIGHT)))
    np.testing.assert_array_equal(masks["00005"], drawn((2, LEFT), (1, RIGHT)))


def test_polygons_and_run_lengths_of_coco(convert, tmp_path):
    """The run lengths are an example of COCO's own code, compressed and not."""
    runs = [6, 1, 40, 4, 5, 4, 5, 4, 21]
    expected = np.repeat(np.arange(9) % 2, runs).reshape(SIZE[::-1]).T
    for counts in (runs, "61X13mN000`0"):
        path = coco(tmp_path / "a.json", {"segmentation": {"counts": counts, "size": SIZE}})
        masks, _ = convert(path)
        np.testing.assert_array_equal(masks["00003"], expected)
        (tmp_path / "new/00003.png").unlink()
    holes = {"segmentation": [LEFT, RIGHT]}  # one object in two parts
    masks, text = convert(coco(tmp_path / "a.json", holes, {"segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]}))
    np.testing.assert_array_equal(masks["00003"], drawn((1, LEFT), (1, RIGHT), (2, [0, 0, 2, 0, 2, 2])))
    assert "1 pixels of 00003 are in several objects" in text and "object 2 is cow #2" in text


def test_run_lengths_of_masks(convert, inline, tmp_path):
    """They give the same masks again; the first is the example of COCO's own code."""
    runs = [6, 1, 40, 4, 5, 4, 5, 4, 21]
    generator = np.random.default_rng(0)
    ids = [
        np.repeat(np.arange(9) % 2, runs).reshape(SIZE[::-1]).T.astype(np.uint8),
        np.zeros(SIZE, np.uint8),
        np.full(SIZE, 2, np.uint8),
        *generator.integers(0, 4, (3, *SIZE), np.uint8),
        np.kron(generator.integers(0, 4, (2, 3)), np.ones((300, 200))).astype(np.uint8),  # runs of several characters
    ]
    for number, mask in enumerate(ids):
        write_mask(tmp_path / f"masks/{number:05d}.png", mask)
    result = inline("scripts/convert_mask.py", tmp_path / "masks", "--output", tmp_path / "coco.json").checked()
    assert "in 7 frames" in result.stdout
    content = json.loads((tmp_path / "coco.json").read_text())
    assert [image["file_name"] for image in content["images"]] == [f"{number:05d}.jpg" for number in range(7)]
    first, second = content["annotations"][:2]
    assert first["segmentation"] == {"size": list(SIZE), "counts": "61X13mN000`0"} and first["track_id"] == 1
    assert first["area"] == ids[0].sum() and first["bbox"] == [0, 2, 8, 5]
    assert second["image_id"] == 3 and second["segmentation"]["counts"] == "0j2" and second["track_id"] == 2
    masks, text = convert(tmp_path / "coco.json")
    assert "no annotations of 1 of its images" in text and "in several objects" not in text
    assert list(masks) == [f"{number:05d}" for number in range(7) if number != 1]
    for name, mask in masks.items():
        np.testing.assert_array_equal(mask, ids[int(name)])


def test_tracks_of_coco_are_the_objects_of_several_frames(convert, tmp_path):
    path = coco(
        tmp_path / "a.json",
        {"segmentation": [LEFT], "attributes": {"track_id": 4}},
        {"segmentation": [RIGHT], "track_id": 9},
        {"segmentation": [LEFT], "track_id": 9, "image_id": 1},
        images=("00003.jpg", "00004.jpg", "00005.jpg"),
    )
    masks, text = convert(path)
    assert list(masks) == ["00003", "00004"] and "no annotations of 1 of its images" in text
    np.testing.assert_array_equal(masks["00004"], drawn((2, LEFT)))


def test_a_polygon_holds_the_pixels_with_their_centres_in_it(convert, tmp_path):
    """Also where it leaves the image."""
    kite = np.array([[5.2, 0.1], [9.8, 4.4], [5.1, 8.9], [0.3, 4.6]])
    masks, _ = convert(labelme(tmp_path / "a.json", shape("kite", kite)))
    centres = np.stack(np.indices(SIZE)[::-1], -1) + 0.5
    sides = [
        (b - a)[0] * (centres - a)[..., 1] - (b - a)[1] * (centres - a)[..., 0]
        for a, b in zip(kite, np.roll(kite, -1, 0), strict=True)
    ]
    np.testing.assert_array_equal(masks["a"], (np.array(sides) > 0).all(0))
    (tmp_path / "new/a.png").unlink()
    masks, _ = convert(labelme(tmp_path / "a.json", shape("all", [-5, -5, 30, -5, 30, 30, -5, 30])))
    assert masks["a"].all()


@pytest.mark.parametrize(
    ("content", "mentioned"),
    [
        ("{}", "no JSON file of LabelMe or COCO"),
        ('{"shapes": 3, "imageHeight": 4, "imageWidth": 4}', "not as LabelMe"),
        ('{"shapes": [{"label": "a", "points": [[1, 1], [2, 2]]}], "imageHeight": 4, "imageWidth": 4}', "no pixel"),
        (
            '{"images": [{"id": 1, "file_name": "a.jpg", "height": 2, "width": 2}], "annotations": '
            '[{"image_id": 1, "bbox": [0, 0, 1, 1], "segmentation": []}]}',
            "without a mask, such as a box",
        ),
        (
            '{"images": [{"id": 1, "file_name": "a.jpg", "height": 2, "width": 2}], "annotations": '
            '[{"image_id": 1, "segmentation": {"size": [2, 2], "counts": [1, 2]}}]}',
            "3 pixels, their image 4",
        ),
    ],
)
def test_other_json_is_refused(inline, tmp_path, content, mentioned):
    (tmp_path / "a.json").write_text(content)
    result = inline("scripts/convert_mask.py", tmp_path / "a.json", "--output", tmp_path / "new")
    assert_refused(result, tmp_path / "a.json", mentioned)
    assert not (tmp_path / "new").exists()


def test_folders_above_the_masks_are_refused(inline, tmp_path):
    for video in ("a", "b"):
        write_mask(tmp_path / f"run/masks/{video}/00000.png", drawn((1, LEFT), (2, RIGHT)))
    for given, output in (("run", "new"), ("run/masks", "new.json")):
        result = inline("scripts/convert_mask.py", tmp_path / given, "--output", tmp_path / output)
        assert_refused(result, tmp_path / "run/masks/a")
        assert not (tmp_path / output).exists()


@pytest.mark.parametrize("form", ["files", "folder", "folders", "numbers"])
def test_a_file_for_each_object_is_merged(inline, tmp_path, form):
    (tmp_path / "given/1").mkdir(parents=True)
    (tmp_path / "given/2").mkdir()
    for number, corners in ((1, LEFT), (2, RIGHT)):
        name = {"folders": f"{number}/00000.png", "numbers": f"{8 + number}.png"}.get(form, f"object_{number}.png")
        Image.fromarray(drawn((255, corners))).save(tmp_path / "given" / name)
    given = sorted((tmp_path / "given").glob("*.png")) if form == "files" else [tmp_path / "given"]
    result = inline("scripts/convert_mask.py", *given, "--output", tmp_path / "new.png").checked()
    assert "object 2 is" in result.stdout
    np.testing.assert_array_equal(read_mask(tmp_path / "new.png"), drawn((1, LEFT), (2, RIGHT)))
