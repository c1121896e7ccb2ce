"""Deterministic stand-in weights: every tensor is drawn from its own name, so a checkpoint can be rebuilt anywhere."""

import zlib

import numpy as np
import torch


def draw(name, shape):
    rng = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
    leaf = name.rsplit(".", 1)[1]
    if leaf == "num_batches_tracked":
        return torch.tensor(0)
    x = rng.standard_normal(shape).astype(np.float32) if len(shape) else np.float32(rng.standard_normal())
    is_norm = len(shape) == 1 and any(s in name for s in (".bn", "downsample.1."))
    if leaf == "running_var":
        x = 1.0 + 0.2 * np.abs(x)
    elif leaf == "running_mean":
        x = 0.1 * x
    elif is_norm and leaf == "weight":
        last = ".bn3." in name or ("value_encoder" in name and ".bn2." in name)
        x = (0.3 if last else 1.0) + 0.05 * x
    elif leaf == "bias":
        x = 0.05 * x - (0.3 if name == "decoder.pred.bias" else 0.0)
    else:
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
        x = x * np.float32(np.sqrt(gain(name) / fan_in))
        if name == "value_encoder.conv1.weight":
            x[:, 3:] *= 6  # let the mask channels matter as much as the image
    return torch.from_numpy(np.ascontiguousarray(x))


def gain(name):
    if name.startswith("mem_compress."):  # the aggregation is applied to its own output: keep it from growing
        return 0.01 if ".non_local." in name else 0.3 if ".conv1." in name else 0.7
    return GAIN.get(name, 2.0)


GAIN = {
    "key_proj.key_proj.weight": 0.6,
    "decoder.up_16_8.skip_conv.weight": 0.05,
    "decoder.up_8_4.skip_conv.weight": 0.05,
    "decoder.pred.weight": 0.02,
}


def state_dict(shapes):
    return {name: draw(name, tuple(shape)) for name, shape in shapes}
