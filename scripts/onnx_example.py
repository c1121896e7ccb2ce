"""Segment a folder of frames with the files of export.py, without PyTorch: pip install onnxruntime numpy pillow.

    python scripts/onnx_example.py PARTS --images FRAMES --mask FIRST.png --output MASKS

FIRST.png has the ids of the objects in the first frame. The bank is 2F+L+RDE, updated every third frame. The top of
export.py explains the parts, their inputs and their outputs.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession
from PIL import Image

MEM_EVERY = 3


def soft_aggregation(objects: np.ndarray) -> np.ndarray:
    """Probabilities of each object alone [1,K,H,W] -> of background and objects together [1,K+1,H,W]."""
    background = np.prod(1 - objects, axis=1, keepdims=True)
    probability = np.concatenate([background, objects], axis=1).clip(1e-7, 1 - 1e-7)
    odds = probability / (1 - probability)
    return odds / odds.sum(axis=1, keepdims=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", type=Path, metavar="PARTS", help="folder that export.py wrote")
    parser.add_argument("--images", type=Path, required=True, help="folder of frames, in the order of their names")
    parser.add_argument("--mask", type=Path, required=True, help="ids of the first frame, palette or 8-bit grey PNG")
    parser.add_argument("--output", type=Path, required=True, help="folder for the masks")
    arguments = parser.parse_args()
    settings = json.loads((arguments.parts / "network.json").read_text())
    if "sam" not in settings["parts"]:
        parser.error(f"the network in {arguments.parts} has no SAM, so it has no RDE; export weights of RDE-VOS")
    part = {name: InferenceSession(arguments.parts / f"{name}.onnx") for name in settings["parts"]}
    mean, std = (np.float32(settings[name])[:, None, None] for name in ("mean", "std"))

    first = Image.open(arguments.mask)
    given = np.array(first)
    ids = np.array([0, *(i for i in np.unique(given) if i)], np.uint8)  # in the order of the probabilities
    stride, least_side = settings["stride"], settings["least_side"]
    missing = [max(-(-side // stride) * stride, least_side) - side for side in given.shape]
    padding = [(pixels // 2, pixels - pixels // 2) for pixels in missing]
    inside = tuple(slice(before, before + side) for (before, _), side in zip(padding, given.shape, strict=True))
    arguments.output.mkdir(parents=True, exist_ok=True)
    memory: dict[str, np.ndarray] = {}
    for t, path in enumerate(sorted(arguments.images.iterdir())):
        pixels = np.array(Image.open(path).convert("RGB"), np.float32).transpose(2, 0, 1) / 255
        if pixels.shape[1:] != given.shape:
            parser.error(f"{path} has another size than {arguments.mask}; give frames and a mask of one size")
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
        mask = Image.fromarray(ids[probability[0].argmax(axis=0)[inside]])
        if first.mode == "P":
            mask.putpalette(first.getpalette())
        mask.save(arguments.output / f"{path.stem}.png")


if __name__ == "__main__":
    main()
