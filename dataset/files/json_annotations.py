"""Annotations in JSON files: the shapes of LabelMe, and the polygons and run lengths (RLE) of COCO.

Masks are made of all of these, and COCO's run lengths of masks.
"""

import base64
import contextlib
import functools
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dataset.files.video import frame_order, object_ids
from util.errors import InputError
from util.files import is_plain_name, read_json

_MOST_PIXELS = 1 << 28  # of an image
_REMEDY = "give a JSON file of LabelMe, or one of COCO with instances"


@dataclass(frozen=True)
class _Shape:
    """A shape in a frame.

    Attributes:
        path: the JSON file.
        frame: the name of the frame, without suffix.
        label: the name of its class.
        group: what tells the objects of a class apart, or None.
        draw: draws the shape, bool [H,W].
    """

    path: Path
    frame: str
    label: str
    group: object
    draw: Callable[[], np.ndarray]


def read_shapes(paths: Sequence[Path]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Read the masks of frames from JSON files of LabelMe or COCO. Later shapes are in front of earlier ones.

    Shapes with the same label and group (``group_id`` in LabelMe, ``track_id`` in COCO) are one object in all frames.
    Without groups each shape of a single frame is an object, and so is each label of several frames.

    Args:
        paths: the files; of LabelMe one for each frame.

    Returns:
        the ids of the objects 1, 2, ... by the name of the frame, uint8 [H,W]; and sentences for the user.

    Raises:
        InputError: a file cannot be read, has another format or shows no object; a shape encloses no pixel; one of
            several frames has several shapes with the same label and without a group; or there are more than 255
            objects.
    """
    shapes: list[_Shape] = []
    notes = []
    for path in paths:
        content = read_json(path, _REMEDY)
        if "shapes" not in content and not {"images", "annotations"} <= content.keys():
            raise InputError(f"{path} is no JSON file of LabelMe or COCO; {_REMEDY}")
        with _read_from(path):
            found = list(_labelme(path, content) if "shapes" in content else _coco(path, content))
        if not found:
            notes.append(f"{path} shows no object, and gets no mask")
            continue
        frames = {shape.frame for shape in found}
        if "shapes" not in content and (rest := len(content["images"]) - len(frames)):
            notes.append(f"{path} has no annotations of {rest} of its images, which get no masks")
        shapes += found
    if not shapes:
        raise InputError(f"{paths[0]} shows no object; leave it out")
    names = _objects(shapes)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names), start=1)}
    if len(numbers) > 255:
        raise InputError(f"{paths[0]} and the other files show {len(numbers)} objects; 255 is the maximum")
    masks: dict[str, np.ndarray] = {}
    hidden: Counter[str] = Counter()
    for shape, name in zip(shapes, names, strict=True):
        with _read_from(shape.path):
            drawn = shape.draw()
        mask = masks.setdefault(shape.frame, np.zeros(drawn.shape, np.uint8))
        if mask.shape != drawn.shape:
            raise InputError(f"{shape.path} shows {shape.frame}, as another file does, at another size; leave one out")
        if not drawn.any():
            raise InputError(
                f"{shape.path} has a shape of {name} in {shape.frame} that encloses no pixel; draw it again"
            )
        hidden[shape.frame] += np.count_nonzero(drawn & (mask > 0) & (mask != numbers[name]))
        mask[drawn] = numbers[name]
    notes.insert(0, ", ".join(f"object {number} is {name}" for name, number in numbers.items()))
    for frame, count in hidden.items():
        notes += [f"{count} pixels of {frame} are in several objects, and go to the last of them"] if count else []
    return {frame: masks[frame] for frame in sorted(masks, key=frame_order(masks))}, notes


def coco_annotations(masks: Iterable[tuple[str, np.ndarray]]) -> dict[str, list]:
    """The content of a COCO file with the objects of a video's masks as compressed run lengths.

    An object has its id as ``track_id`` in all frames, as `read_shapes` reads it.

    Args:
        masks: the name of each frame, without suffix, and its ids, uint8 [H,W].
    """
    images, annotations = [], []
    for number, (name, ids) in enumerate(masks, start=1):
        height, width = ids.shape
        images.append({"id": number, "file_name": f"{name}.jpg", "height": height, "width": width})
        for object_id in object_ids(ids):
            mask = ids == object_id
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            left, top, right, bottom = map(int, (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
            annotations.append({
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": 1,
                "track_id": object_id,
                "segmentation": {"size": [height, width], "counts": _encoded(mask)},
                "area": int(mask.sum()),
                "bbox": [left, top, right - left, bottom - top],
                "iscrowd": 0,
            })  # fmt: skip
    return {"images": images, "categories": [{"id": 1, "name": "object"}], "annotations": annotations}


@contextlib.contextmanager
def _read_from(path: Path) -> Iterator[None]:
    """Turn the errors of unexpected content into one about the file."""
    try:
        yield
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, OSError) as error:
        raise InputError(f"{path} is not as LabelMe or COCO writes it ({error!r}); export it again") from None


def _objects(shapes: Sequence[_Shape]) -> list[str]:
    """The name of the object of each shape."""
    counts = Counter((shape.frame, shape.label) for shape in shapes if shape.group is None)
    single = len({shape.frame for shape in shapes}) == 1
    seen: Counter[str] = Counter()
    names = []
    for shape in shapes:
        name = shape.label
        if shape.group is not None:
            name = f"{shape.label} {shape.group}"
        elif counts[shape.frame, shape.label] > 1:
            if not single:
                raise InputError(
                    f"{shape.path} shows {shape.label} several times in {shape.frame}, so it is unclear "
                    f"which is which in the other frames; set group_id in LabelMe or track_id in COCO, or convert one "
                    "frame alone"
                )
            seen[name] += 1
            name = f"{shape.label} #{seen[name]}"
        names.append(name)
    return names


def _labelme(path: Path, content: Mapping[str, Any]) -> Iterator[_Shape]:
    """The shapes of a file of LabelMe, which is for one frame."""
    size = _checked_size(content["imageHeight"], content["imageWidth"])
    for shape in content["shapes"]:
        points, kind = np.array(shape["points"], float).reshape(-1, 2), shape.get("shape_type") or "polygon"
        match kind:
            case "polygon" | "rotation":
                polygon = points
            case "rectangle" if len(points) == 4:  # its corners, as newer versions write them
                polygon = points
            case "rectangle":
                (left, top), (right, bottom) = points
                polygon = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
            case "circle":
                angles = np.linspace(0, 2 * np.pi, 181)[:-1]
                polygon = points[0] + np.hypot(*(points[1] - points[0])) * np.stack([np.cos(angles), np.sin(angles)], 1)
            case "mask":
                draw = functools.partial(_pasted, shape["mask"], points[0], size)
                yield _Shape(path, path.stem, str(shape["label"]), shape.get("group_id"), draw)
                continue
            case _:
                raise InputError(
                    f"{path} has {shape['label']} as a {kind}, which encloses no area; delete it, or draw a polygon"
                )
        draw = functools.partial(_filled, [polygon], size)
        yield _Shape(path, path.stem, str(shape["label"]), shape.get("group_id"), draw)


def _coco(path: Path, content: Mapping[str, Any]) -> Iterator[_Shape]:
    """The shapes of a file of COCO, which may be for several frames."""
    images = {image["id"]: image for image in content["images"]}
    stems = {number: Path(image["file_name"]).stem for number, image in images.items()}
    if len(set(stems.values())) < len(stems) or not all(map(is_plain_name, stems.values())):
        raise ValueError("two images have one name, or an image has none")
    labels = {category["id"]: category["name"] for category in content.get("categories", ())}
    for annotation in content["annotations"]:
        image, segmentation = images[annotation["image_id"]], annotation.get("segmentation")
        if not segmentation:
            raise InputError(
                f"{path} has an annotation of {image['file_name']} without a mask, such as a box; export polygons"
            )
        size = _checked_size(image["height"], image["width"])
        if isinstance(segmentation, dict):
            if tuple(segmentation["size"]) != size:
                raise ValueError(f"a mask is {segmentation['size']}, its image {list(size)}")
            draw = functools.partial(_decoded, segmentation["counts"], size)
        else:
            polygons = [np.array(polygon, float).reshape(-1, 2) for polygon in segmentation]
            draw = functools.partial(_filled, polygons, size)
        track = annotation.get("track_id", (annotation.get("attributes") or {}).get("track_id"))
        label = str(labels.get(annotation.get("category_id"), annotation.get("category_id", "object")))
        yield _Shape(path, stems[annotation["image_id"]], label, track, draw)


def _checked_size(height: object, width: object) -> tuple[int, int]:
    if not (isinstance(height, int) and isinstance(width, int) and min(height, width) > 0):
        raise ValueError(f"the image is {width}×{height}")
    if height * width > _MOST_PIXELS:
        raise ValueError(f"the image has {height * width} pixels")
    return height, width


def _filled(polygons: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centres lie in one of the polygons. So neighbours with one edge share no pixel.

    Other tools decide about the pixels at the edge by rules of their own: LabelMe's export also draws the outline, and
    pycocotools rounds the edge at five times the resolution.

    Args:
        polygons: their corners (x, y) [N,2] in pixels, from the upper left corner of the image.
        size: height and width of the image.
    """
    mask = np.zeros(size, bool)
    for points in polygons:
        ends, inside = np.roll(points, -1, axis=0), np.zeros(size, bool)
        top, bottom = points[:, 1].min(), points[:, 1].max()
        for row in range(max(0, int(np.ceil(top - 0.5))), min(size[0], int(np.ceil(bottom - 0.5)))):
            centre = row + 0.5
            crossing = (points[:, 1] <= centre) != (ends[:, 1] <= centre)
            (x, y), (dx, dy) = points[crossing].T, (ends - points)[crossing].T
            columns = np.ceil(np.sort(x + (centre - y) / dy * dx) - 0.5).clip(0, size[1]).astype(int)
            for left, right in zip(columns[::2], columns[1::2], strict=True):
                inside[row, left:right] = True
        mask |= inside
    return mask


def _pasted(encoded: str, corner: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels of LabelMe's mask, a PNG in base64, whose upper left corner (x, y) lies at ``corner``."""
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        part = np.array(image.convert("L")) > 0
    left, top = corner.round().astype(int)
    mask = np.zeros(size, bool)
    if min(left, top) < 0 or top + part.shape[0] > size[0] or left + part.shape[1] > size[1]:
        raise ValueError(f"a mask at {left}, {top} does not fit into an image of {size[1]}×{size[0]}")
    mask[top : top + part.shape[0], left : left + part.shape[1]] = part
    return mask


def _decoded(counts: str | Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """The pixels of COCO's run lengths, which go down the columns and start with background."""
    runs = _run_lengths(counts) if isinstance(counts, str) else counts
    if sum(runs) != size[0] * size[1] or min(runs) < 0:
        raise ValueError(f"run lengths have {sum(runs)} pixels, their image {size[0] * size[1]}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(size[::-1]).T


def _run_lengths(text: str) -> list[int]:
    """The run lengths in COCO's compressed form.

    A character's code minus 48 has 5 bits of a number, the lowest first. Its bit 32 says that more characters follow.
    From the fourth number on, each is a difference: to the number two places before it.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (code & 16) << (shift - 4) if code & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def _encoded(mask: np.ndarray) -> str:
    """The compressed run lengths of a mask, bool [H,W]; the inverse of `_decoded`."""
    values = mask.T.ravel()
    ends = [*(np.flatnonzero(values[1:] != values[:-1]) + 1).tolist(), values.size]
    if values[0]:
        ends.insert(0, 0)  # no background at the start
    runs = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    text = []
    for index, run in enumerate(runs):
        value, is_last = run - (runs[index - 2] if index > 2 else 0), False
        while not is_last:
            bits, value = value & 31, value >> 5
            is_last = value == (-1 if bits & 16 else 0)  # the rest is the sign, as the highest bit says
            text.append(chr(48 + bits + 32 * (not is_last)))
    return "".join(text)
