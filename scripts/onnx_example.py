"""Segment a folder of frames with the files of export.py, without PyTorch: pip install onnxruntime numpy pillow.

    python scripts/onnx_example.py PARTS --images FRAMES --mask FIRST.png --output MASKS

FIRST.png shows the objects in the first frame. Frames and masks are read as segment_video.py reads them, with the
project's own functions, which need NumPy and Pillow only. The bank is 2F+L+RDE, updated every third frame. The top of
export.py explains the parts, their inputs and their outputs.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from dataset.files.given_masks import assign_masks
from dataset.files.images import PaintedMasks, image_size, write_mask
from dataset.files.masks import described
from dataset.files.video import Video, check_mask_sizes, list_frames
from util.errors import InputError, command_line
from util.packages import needs

with needs("export"):
    from onnxruntime import InferenceSession

MEM_EVERY = 3


def soft_aggregation(objects: np.ndarray) -> np.ndarray:
    """Probabilities of each object alone [1,K,H,W] -> of background and objects together [1,K+1,H,W]."""
    background = np.prod(1 - objects, axis=1, keepdims=True)
    probability = np.concatenate([background, objects], axis=1).clip(1e-7, 1 - 1e-7)
    odds = probability / (1 - probability)
    return odds / odds.sum(axis=1, keepdims=True)


def open_folder(images: Path, mask: Path) -> Video:
    """Open a folder of frames with the mask of its first frame."""
    if images.is_file():
        raise InputError(f"{images} is a file; give a folder of frames, or run scripts/segment_video.py on a video")
    frames = list_frames(images, without=[mask])
    assigned = assign_masks([mask], images.name, [frame.stem for frame in frames])
    if 0 not in assigned:
        raise InputError(f"{mask} is for frame {frames[min(assigned)].stem}; this example needs the first frame's mask")
    check_mask_sizes([mask], image_size(frames[0]), images.name)
    video = Video(images.name, frames, assigned, reader=PaintedMasks([mask]))
    video.check_frames()
    return video


@command_line
def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", type=Path, metavar="PARTS", help="folder that export.py wrote")
    parser.add_argument("--images", type=Path, required=True, help="folder of frames")
    parser.add_argument("--mask", type=Path, required=True, help="the objects in the first frame")
    parser.add_argument("--output", type=Path, required=True, help="folder for the masks")
    arguments = parser.parse_args()
    settings = json.loads((arguments.parts / "network.json").read_text())
    if "sam" not in settings["parts"]:
        parser.error(f"the network in {arguments.parts} has no SAM, so it has no RDE; export weights of RDE-VOS")
    part = {name: InferenceSession(arguments.parts / f"{name}.onnx") for name in settings["parts"]}
    mean, std = (np.float32(settings[name])[:, None, None] for name in ("mean", "std"))

    video = open_folder(arguments.images, arguments.mask)
    given = video.read_given_mask(0)
    for line in [*video.reader.notes, described(arguments.mask.name, given)]:
        print(line)
    ids = np.array([0, *(i for i in np.unique(given) if i)], np.uint8)  # in the order of the probabilities
    stride, least_side = settings["stride"], settings["least_side"]
    missing = [max(-(-side // stride) * stride, least_side) - side for side in given.shape]
    padding = [(pixels // 2, pixels - pixels // 2) for pixels in missing]
    inside = tuple(slice(before, before + side) for (before, _), side in zip(padding, given.shape, strict=True))
    memory: dict[str, np.ndarray] = {}
    for t in range(len(video.frames)):
        pixels = video.read_frame(t).transpose(2, 0, 1).astype(np.float32) / 255
        image = np.pad((pixels - mean) / std, [(0, 0), *padding])[None]
        key, query_value, f16, f8, f4 = part["key_encoder"].run(None, {"image": image})
        if not memory:
            probability = (np.pad(given, padding) == ids[:, None, None]).astype(np.float32)[None]
        else:
            query = {"key": key, "query_value": query_value, "f8": f8, "f4": f4}
            probability = soft_aggregation(*part["reading_decoder"].run(None, query | memory))
        if t % MEM_EVERY == 0:
            masks = probability[:, 1:]
            (value,) = part["mask_encoder"].run(None, {"image": image, "f16": f16, "masks": masks})
            if not memory:  # RDE is F, and there is no L
                f_key, f_value = rde_key, rde_value = key, value
                keys, values, multiplicity = [f_key], [f_value], [2]
            else:
                pair = {"rde_key": rde_key, "rde_value": rde_value, "key": key, "value": value}
                rde_key, rde_value = part["sam"].run(None, pair)
                keys, values, multiplicity = [f_key, key, rde_key], [f_value, value, rde_value], [2, 1, 1]
            memory = {"memory_key": np.concatenate(keys), "memory_value": np.concatenate(values)}
            memory["multiplicity"] = np.array(multiplicity)
        mask = ids[probability[0].argmax(axis=0)[inside]]
        write_mask(arguments.output / video.mask_name(t), mask, video.palette)


if __name__ == "__main__":
    main()
