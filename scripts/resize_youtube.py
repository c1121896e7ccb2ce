"""Make YouTube-VOS's training videos small enough to train on: YV/train_480p from YV/train.

    python scripts/resize_youtube.py --yv_root YV

The short side becomes 480 pixels; smaller files are copied as they are. Run it again after an interruption: finished
files are kept.
"""

import argparse
import contextlib
import functools
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dataset.clips import find_videos
from dataset.images import image_size, read_image, read_mask, read_palette, write_mask
from util.errors import InputError, command_line
from util.files import atomic_path
from util.parallel import in_processes

_JPEG_QUALITY = 95  # the frames are JPEGs already: a second compression should not show


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--yv_root", type=Path, required=True, help="holds train/{JPEGImages,Annotations}/<video>")
    parser.add_argument("--size", type=int, default=480, help="short side of the results in pixels (default: 480)")
    arguments = parser.parse_args()
    if arguments.size < 1:
        raise InputError(f"--size {arguments.size} is no size; choose a number of pixels from 1 up")
    return arguments


def resize_video(source: Path, target: Path, size: int, video: str) -> tuple[int, int]:
    """Resize the frames and masks of one video; returns how many files were written, and how many were there already.

    Raises:
        InputError: a file cannot be read or written.
    """
    files = []
    for kind, pattern in (("JPEGImages", "[!.]*.jpg"), ("Annotations", "[!.]*.png")):
        found = sorted((source / kind / video).glob(pattern))
        if not found:
            raise InputError(f"{source / kind / video} holds no files {pattern[4:]}; unpack YouTube-VOS again")
        files += found
    written = [_resize_file(path, target / path.relative_to(source), size) for path in files]
    return sum(written), len(written) - sum(written)


def _resize_file(source: Path, target: Path, size: int) -> bool:
    """Whether the file had to be written."""
    old = image_size(source)
    scale = min(1, size / min(old))
    new = tuple(max(1, round(side * scale)) for side in old)
    try:
        # A file of this name is complete, but it may be another --size's.
        if image_size(target) == new:
            return False
    except InputError:
        pass  # it is not there, or somebody damaged it
    (_resize_mask if source.suffix == ".png" else _resize_image)(source, target, new)
    return True


def _resize_image(source: Path, target: Path, size: tuple[int, int]) -> None:
    image = read_image(source)
    if image.shape[:2] == size:
        _copy(source, target)
        return
    # Bicubic in Pillow's way, which averages over all the pixels that become one: plain interpolation would alias.
    resized = Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC)
    with _writing(target) as temporary:
        resized.save(temporary, quality=_JPEG_QUALITY)


def _resize_mask(source: Path, target: Path, size: tuple[int, int]) -> None:
    ids = read_mask(source)
    if ids.shape == size:
        _copy(source, target)
        return
    resized = Image.fromarray(ids).resize(size[::-1], Image.Resampling.NEAREST)
    palette = read_palette(source)
    with _writing(target) as temporary:
        write_mask(temporary, np.array(resized), palette)


def _copy(source: Path, target: Path) -> None:
    with _writing(target) as temporary:
        shutil.copyfile(source, temporary)


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[Path]:
    try:
        with atomic_path(target) as temporary:
            yield temporary
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error}); make room or get access, and run this again") from None


@command_line
def main() -> None:
    arguments = parse_arguments()
    source, target = arguments.yv_root / "train", arguments.yv_root / "train_480p"
    for kind in ("JPEGImages", "Annotations"):
        if not (source / kind).is_dir():
            raise InputError(f"{source / kind} is missing; check --yv_root, or unpack YouTube-VOS's training set there")
    videos, missing = find_videos(source / "JPEGImages", source / "Annotations")
    if missing:
        raise InputError(f"{missing[0]} is missing ({len(missing)} such folders); unpack YouTube-VOS again")
    if not videos:
        raise InputError(f"{source / 'JPEGImages'} holds no videos; check how YouTube-VOS was unpacked")
    resized = in_processes(functools.partial(resize_video, source, target, arguments.size), videos)
    counts = list(tqdm(resized, total=len(videos), desc="resizing", unit="video", disable=None))
    if (source / "meta.json").is_file():
        _copy(source / "meta.json", target / "meta.json")
    written, kept = (sum(column) for column in zip(*counts, strict=True))
    print(f"{target}: {len(videos)} videos, {written} files written, {kept} there already")


if __name__ == "__main__":
    main()
