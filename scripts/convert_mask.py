"""Convert images with soft edges, JPEGs, inverted masks and annotations as JSON to masks for all scripts.

    python scripts/convert_mask.py PAINTED.jpg --output MASK.png
    python scripts/convert_mask.py PAINTED_*.png --output FOLDER
    python scripts/convert_mask.py ANNOTATIONS.json --output FOLDER
    python scripts/convert_mask.py FOLDER_OF_OBJECTS --output FOLDER
    python scripts/convert_mask.py RESULTS/masks --output RESULTS/coco.json

Each pixel gets the plain colour of an adjacent area, so a soft edge between two areas never becomes a third object with
a colour in between. Black or transparency is the background, or white if it surrounds the objects and nothing is black.
Objects are numbered by colour, consistently over all images of a command. In a photograph with a transparent
background, the opaque part is the object. Masks of 16 bits a pixel, such as those of MOTS (class·1000 + number), are
numbered by value; 10000, MOTS's ignored region, is background.

JSON files are those of LabelMe, one for each frame, or of COCO with polygons or RLE, which may hold many frames.
Shapes of one label and group_id (LabelMe) or track_id (COCO) are one object. In a folder, or for one PNG as the output,
binary files of one object each (object_1.png and object_2.png, 1/00000.png and 2/00000.png) are merged into a mask for
each frame.

Writes palette PNGs with the names of the images, and prints their objects. If the output is a JSON file, the images are
masks of ids, such as those that this project writes, or JSON files; the output is COCO's, with compressed RLE.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from dataset.files.colours import davis_palette
from dataset.files.given_masks import ObjectMasks, find_masks, find_objects, one_frame
from dataset.files.images import PaintedMasks, read_mask, read_pixels, read_wide_grey, write_mask
from dataset.files.json_annotations import coco_annotations, read_shapes
from dataset.files.masks import described
from dataset.files.video import FRAME_SUFFIXES
from util.argument_types import positive
from util.errors import InputError, command_line
from util.files import write_text

FLAT = 16  # levels by which the pixels of a plain area may differ from their neighbours
ALIKE = 48  # levels by which the colours of one object may differ
LEAST_AREA = 1e-4  # the minimum fraction of the image that the plain pixels of a colour cover
MOST_COLOURS = 64
MOTS_IGNORED = 10000
WHITE = 65535  # of 16 bits
REACHES = (2, 4, 8, 16, 32)  # pixels from a soft pixel to the areas that it may belong to


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="painted masks, folders or JSON files")
    parser.add_argument("--output", type=Path, required=True, help="PNG file, folder for several masks, or JSON file")
    parser.add_argument(
        "--threshold", type=positive, metavar="GREY", help="object 1 is the pixels of this brightness or more, 1 to 255"
    )
    parser.add_argument("--invert", action="store_true", help="swap the object and the background")
    return parser.parse_args()


def areas(pixels: np.ndarray, path: Path) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """Segment an image into areas of plain colours.

    Args:
        pixels: uint8 RGBA [H,W,4].

    Returns:
        the index of each pixel's colour [H,W], and the colours (red, green, blue); black stands for transparent pixels.
    """
    opacity = pixels[:, :, 3]
    colours = (pixels[:, :, :3].astype(int) * opacity[:, :, None] // 255).astype(np.uint8)
    flat = _plain(colours)
    opaque = opacity >= 128
    if not opaque.all() and (not colours.any() or flat[opaque].mean() < 0.5):
        return opaque.astype(int), [(0, 0, 0), (255, 255, 255)]  # black on transparency, or a photograph
    plain = _plain_colours(colours[flat], LEAST_AREA * flat.size)
    if not plain or len(plain) > MOST_COLOURS or flat.mean() < 0.5:
        raise InputError(f"{path} is a picture, not a mask in plain colours; paint the objects in one colour each")
    distance = np.stack([np.abs(colours.astype(int) - colour).max(2) for colour in plain])
    labels = np.where(flat & (distance.min(0) <= ALIKE), distance.argmin(0), -1)
    for reach in REACHES:
        if (labels >= 0).all():
            break
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
        near = [cv2.dilate((labels == index).astype(np.uint8), disc) > 0 for index in range(len(plain))]
        allowed = np.where(np.stack(near), distance, 1 << 16)
        labels = np.where((labels < 0) & (allowed.min(0) < 1 << 16), allowed.argmin(0), labels)
    return np.where(labels < 0, distance.argmin(0), labels), plain


def _plain(colours: np.ndarray) -> np.ndarray:
    """The pixels that differ little from their neighbours, bool [H,W]."""
    square = np.ones((3, 3), np.uint8)
    return (cv2.dilate(colours, square).astype(int) - cv2.erode(colours, square)).max(2) <= FLAT


def _plain_colours(colours: np.ndarray, least: float) -> list[tuple[int, ...]]:
    """The distinct colours of pixels [N,3] that cover ``least`` pixels, the most frequent first."""
    found, counts = np.unique(colours, axis=0, return_counts=True)
    distinct: list[np.ndarray] = []
    areas: list[int] = []
    for at in counts.argsort(kind="stable")[::-1][:4096]:
        alike = [n for n, other in enumerate(distinct) if np.abs(found[at].astype(int) - other).max() <= ALIKE]
        if alike:
            areas[alike[0]] += counts[at]
        elif len(distinct) <= MOST_COLOURS:
            distinct.append(found[at].astype(int))
            areas.append(counts[at])
    return [tuple(colour.tolist()) for colour, area in zip(distinct, areas, strict=True) if area >= max(9, least)]


def background(labels: np.ndarray, colours: list[tuple[int, ...]], path: Path) -> int | None:
    """The index of the background's colour: black, or white that covers most of the border; None without one."""
    for index, colour in enumerate(colours):
        if max(colour) <= ALIKE:
            return index
    border = np.concatenate([labels[0], labels[-1], labels[1:-1, 0], labels[1:-1, -1]])
    for index, colour in enumerate(colours):
        if min(colour) >= 255 - ALIKE and (border == index).mean() > 0.5:
            return index
    if len(colours) > 1:
        raise InputError(f"{path} has no black, white or transparent background; paint the background black")
    return None


def numbered(colours: list[tuple[int, ...]]) -> dict[tuple[int, ...], int]:
    """The ids of the objects by colour: DAVIS's if all colours are DAVIS's; otherwise red, green, blue, ...

    Greys are numbered from dark to bright.
    """
    palette = np.frombuffer(davis_palette(), np.uint8).reshape(-1, 3).astype(int)
    is_grey = all(max(colour) - min(colour) <= FLAT for colour in colours)
    if not is_grey:
        apart = np.stack([np.abs(palette[1:] - colour).max(1) for colour in colours])
        ids = apart.argmin(1) + 1
        if (apart.min(1) <= FLAT).all() and len(set(ids.tolist())) == len(colours):
            return dict(zip(colours, ids.tolist(), strict=True))
    return {colour: number for number, colour in enumerate(sorted(colours, reverse=not is_grey), start=1)}


def read_instances(path: Path) -> np.ndarray | None:
    """Read a grey mask whose ids do not fit into 8 bits, as int64 [H,W]; None for any other image.

    An image with 65535, the white of 16 bits, shows shades of grey and no ids if it has other bright values; if not,
    65535 is void and becomes 0. If all other values are MOTS's, class·1000 + number, so does its ignored region 10000.
    """
    values = read_wide_grey(path)
    if values is None or values.max() <= 255:
        return None
    if values.max() == WHITE:
        if ((values >= WHITE // 2) & (values < WHITE)).any() or not ((values > 0) & (values < WHITE)).any():
            return None
        values = np.where(values == WHITE, 0, values)
    others = values[(values != 0) & (values != MOTS_IGNORED)]
    return np.where(values == MOTS_IGNORED, 0, values) if (others >= 1000).all() else values


def renumbered(masks: dict[Path, np.ndarray]) -> dict[Path, np.ndarray]:
    """Number the objects of masks by value, consistently over all masks: int64 [H,W] -> uint8 ids [H,W]."""
    values = np.unique(np.concatenate([np.unique(mask) for mask in masks.values()]))
    values = values[values != 0]
    if len(values) > 255:
        raise InputError(f"{next(iter(masks))} and the other masks hold {len(values)} objects; 255 is the maximum")
    if not len(values):
        raise InputError(f"{next(iter(masks))} shows no object; leave it out")
    return {
        path: np.where(mask > 0, np.searchsorted(values, mask) + 1, 0).astype(np.uint8) for path, mask in masks.items()
    }


def hard_masks(converted: dict[Path, np.ndarray]) -> dict[Path, np.ndarray] | None:
    """Masks that need no conversion, read as they are, where it has lost dark colours or thin objects; None otherwise.

    Args:
        converted: the converted masks, uint8 ids [H,W] by path.
    """
    try:
        reader = PaintedMasks(converted)
        masks = {path: reader.read(path) for path in converted}
    except InputError:
        return None
    return masks if any((masks[path] > 0)[mask == 0].any() for path, mask in converted.items()) else None


def convert_painted(paths: list[Path], threshold: int | None, invert: bool) -> dict[Path, np.ndarray]:
    """Convert painted masks of 8 bits: uint8 ids [H,W] by path.

    Args:
        threshold: object 1 is the pixels of this brightness or more; None for objects in plain colours.
        invert: whether to swap the only object and the background.
    """
    masks, known = [], []
    for path in paths:
        pixels = read_pixels(path)
        if threshold is not None:
            grey = pixels[:, :, :3].max(2).astype(int) * pixels[:, :, 3] // 255
            masks.append((grey >= threshold, {1: (255, 255, 255)}))
        else:
            labels, colours = areas(pixels, path)
            empty = background(labels, colours, path)
            # A similar colour of an earlier image counts as the same colour.
            same = [next((k for k in known if max(map(abs, np.subtract(k, c))) <= ALIKE), c) for c in colours]
            masks.append((labels, {index: colour for index, colour in enumerate(same) if index != empty}))
        known += [colour for colour in masks[-1][1].values() if colour not in known]
    ids, results = numbered(known), {}
    for path, (labels, colours) in zip(paths, masks, strict=True):
        mask = np.zeros(labels.shape, np.uint8)
        for index, colour in colours.items():
            mask[labels == index] = ids[colour]
        if invert:
            if len(np.unique(mask[mask > 0])) > 1:
                raise InputError(f"{path} shows several objects, so --invert has no meaning; leave it out")
            mask = (mask == 0).astype(np.uint8)
        results[path] = mask
    if threshold is None and not invert:
        results = hard_masks(results) or results
    if empty := [path for path, mask in results.items() if not mask.any()]:
        raise InputError(f"{empty[0]} shows no object; choose another --threshold, or --invert")
    return results


def convert_images(paths: list[Path], threshold: int | None, invert: bool) -> dict[Path, np.ndarray]:
    """Convert painted masks, or masks of 16 bits: uint8 ids [H,W] by path; see `convert_painted`."""
    wide = {path: mask for path in paths if (mask := read_instances(path)) is not None}
    if not wide:
        return convert_painted(paths, threshold, invert)
    for path in paths:  # of 16 bits without a high value, such as black ones, which show that no object is there
        if path not in wide and (mask := read_wide_grey(path)) is not None:
            wide[path] = mask
    if len(wide) < len(paths) or threshold is not None or invert:
        raise InputError(
            f"{next(iter(wide))} has 16 bits a pixel and is numbered by value; convert such masks in a command of "
            "their own, without --threshold and --invert"
        )
    return renumbered(wide)


def write_coco(masks: Iterable[tuple[str, np.ndarray]], output: Path) -> None:
    """Write a COCO file of masks, see `dataset.files.json_annotations.coco_annotations`."""
    content = coco_annotations(masks)
    if not content["annotations"]:
        raise InputError(f"the masks for {output} show no object; give others")
    write_text(output, json.dumps(content) + "\n")
    print(f"{output}: {len(content['annotations'])} masks of objects in {len(content['images'])} frames")


def convert(
    paths: list[Path], output: Path, threshold: int | None, invert: bool
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Convert images or JSON files to masks, uint8 ids [H,W] by name. Also return notes for the user."""
    is_plain = threshold is None and not invert
    if any(path.suffix.lower() == ".json" for path in paths):
        if not is_plain or not all(path.suffix.lower() == ".json" for path in paths):
            raise InputError(
                f"{paths[0]} and the other files include JSON; convert it in a command of its own, without --threshold "
                "and --invert"
            )
        return read_shapes(paths)
    # The files of one object each, by frame and name; nothing if the files show several objects or frames.
    objects = one_frame(paths) if is_plain and output.suffix.lower() == ".png" else {}
    if is_plain and not objects and any(map(Path.is_dir, paths)):
        objects = find_objects(paths, "")
    if objects:
        firsts = {number: next(iter(files.values())) for number, files in sorted(objects.items())}
        reader = ObjectMasks({path: objects[number] for number, path in firsts.items()})
        return {f"{number:05d}": reader.read(path) for number, path in firsts.items()}, reader.notes
    converted = convert_images(find_masks(paths), threshold, invert)
    if len({path.stem for path in converted}) < len(converted):
        raise InputError(f"two images have the same name, so {output} would hold one mask for both; rename one")
    return {path.stem: mask for path, mask in converted.items()}, []


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    output, paths = arguments.output, arguments.images
    suffix = output.suffix.lower()
    if suffix in set(FRAME_SUFFIXES) - {".png"}:
        raise InputError(f"{output} is no name of a PNG, which masks are; give {output.with_suffix('.png')}")
    if suffix in (".png", ".json") and output.exists():
        raise InputError(f"{output} already exists; choose another --output or delete it")
    if suffix == ".json" and not any(path.suffix.lower() == ".json" for path in paths):
        paths = find_masks(paths)
        if arguments.threshold or arguments.invert or len({path.stem for path in paths}) < len(paths):
            raise InputError(
                f"{output} is made of the ids in masks of one video; give those of one alone, such as "
                f"{paths[0].parent}, without --threshold and --invert"
            )
        write_coco(((path.stem, read_mask(path)) for path in paths), output)
        return
    results, notes = convert(paths, output, arguments.threshold, arguments.invert)
    if suffix == ".json":
        write_coco(results.items(), output)
        results = {}
    if suffix == ".png" and len(results) > 1:
        raise InputError(f"{output} is one file, but there are {len(results)} masks; give a folder")
    targets = {name: output if suffix == ".png" else output / f"{name}.png" for name in results}
    for target in targets.values():
        if target.exists():
            raise InputError(f"{target} already exists; choose another --output or delete it")
    for name, mask in results.items():
        write_mask(targets[name], mask)
        print(f"{targets[name]}: {described(name, mask).partition(': ')[2]}")
    for note in notes:
        print(f"note: {note}")


if __name__ == "__main__":
    main()
