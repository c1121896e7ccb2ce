"""Downscale YouTube-VOS's training videos: YV/train_480p from YV/train.

    python scripts/resize_youtube.py --yv_root YV

The short side becomes 480 pixels. Smaller files are copied unchanged. The same command resumes after an interruption.
"""

import argparse
import contextlib
import functools
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dataset.files.images import image_size, read_image, read_mask, read_palette, resize_image, write_mask
from dataset.layouts.folders import VideoFolders, find_videos
from dataset.layouts.youtube import TRAIN, TRAIN_480P, meta_path, split_folders
from util.argument_types import positive
from util.errors import InputError, command_line
from util.files import atomic_path
from util.parallel import in_processes

_JPEG_QUALITY = 95  # high, because the frames were compressed before


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--yv_root", type=Path, required=True, help="folder of train/{JPEGImages,Annotations}/<video>")
    parser.add_argument("--size", type=positive, default=480, help="short side of the results in pixels (default: 480)")
    return parser.parse_args()


def resize_video(source: VideoFolders, target: VideoFolders, size: int, video: str) -> tuple[int, int]:
    """Resize the frames and masks of one video; return the numbers of files that were written, and that existed."""
    files = []
    for old, new, suffix in ((source.images, target.images, ".jpg"), (source.masks, target.masks, ".png")):
        found = sorted((old / video).glob(f"[!.]*{suffix}"))
        if not found:
            raise InputError(f"{old / video} holds no files {suffix}; {source.remedy}")
        files += [(path, new / video / path.name) for path in found]
    written = [_resize_file(path, resized, size) for path, resized in files]
    return sum(written), len(written) - sum(written)


def _resize_file(source: Path, target: Path, size: int) -> bool:
    """Resize a frame or a mask. Return whether the file was written."""
    old = image_size(source)
    scale = min(1, size / min(old))
    new = tuple(max(1, round(side * scale)) for side in old)
    with contextlib.suppress(InputError):  # the file does not exist or is damaged, so write it
        # An existing file is complete, but may come from a run with another --size.
        if image_size(target) == new:
            return False
    is_mask = source.suffix == ".png"
    pixels = read_mask(source) if is_mask else read_image(source)  # of a file that is copied, too: it may be damaged
    if new == old:
        _copy(source, target)
    elif is_mask:
        resized = Image.fromarray(pixels).resize(new[::-1], Image.Resampling.NEAREST)
        write_mask(target, np.array(resized), read_palette(source))
    else:
        with atomic_path(target) as temporary:
            Image.fromarray(resize_image(pixels, new)).save(temporary, quality=_JPEG_QUALITY)
    return True


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    root = arguments.yv_root
    source, target = split_folders(root, TRAIN), split_folders(root, TRAIN_480P)
    videos, missing = find_videos(source.images, source.masks)
    if missing:
        raise InputError(f"{missing[0]} is missing ({len(missing)} such folders); {source.remedy}")
    if not videos:
        raise InputError(f"{source.images} holds no videos; check how YouTube-VOS was unpacked")
    resized = in_processes(functools.partial(resize_video, source, target, arguments.size), videos)
    counts = list(tqdm(resized, total=len(videos), desc="resizing", unit="video", disable=None))
    if meta_path(root, TRAIN).is_file():
        _copy(meta_path(root, TRAIN), meta_path(root, TRAIN_480P))
    written, kept = (sum(column) for column in zip(*counts, strict=True))
    print(f"{root / TRAIN_480P}: {len(videos)} videos, {written} files written, {kept} already existed")


if __name__ == "__main__":
    main()
