"""Refinement of a rough mask by the network: it memorises the frame with the mask, and segments the same frame."""

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dataset.files.images import resize_image, to_tensor
from model.inference import pad_to_stride, unpad
from model.network import RDE_VOS

CONTEXT = 1 / 4  # of the longer side of the object: the network sees this much on each side of it
LEAST_CONTEXT = 16  # pixels
PIXELS = 100_000  # of the network's input: the region of the object is scaled to it
MOST_SCALE = 4.0
TOP_K = 40


def refine(
    image: np.ndarray,
    network: RDE_VOS,
    mask: np.ndarray,
    inside: np.ndarray,
    outside: np.ndarray,
    neighbours: tuple[int, ...],
) -> np.ndarray:
    """Segment the object of a rough mask, in the region around it.

    The key of a position is the most similar to itself, so that the network would only repeat the mask. Therefore each
    position reads the memory without itself and its neighbours.

    Args:
        image: the frame, uint8 RGB [H,W,3].
        network: in eval mode.
        mask: the rough mask, bool [H,W], not empty.
        inside, outside: pixels that are certain, bool [H,W]; outside has priority.
        neighbours: for each round, how far around itself a position of the key does not read.

    Returns:
        the probability of the object, float32 [H,W]; 0 outside of the region.
    """
    left, upper, right, lower = _region(mask | inside)
    region = np.s_[upper:lower, left:right]
    height, width = lower - upper, right - left
    scale = min((PIXELS / (height * width)) ** 0.5, MOST_SCALE)
    size = max(1, round(scale * height)), max(1, round(scale * width))
    frame = to_tensor(resize_image(np.ascontiguousarray(image[region]), size))[None]
    frame, padding = pad_to_stride(frame.to(network.device, network.dtype))
    probability = mask[region].astype(np.float32)
    with torch.inference_mode():
        features = network.encode_key(frame)
        similarity = _similarity(network, features.key)
        for distance in neighbours:
            small = cv2.resize(probability, size[::-1], interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
            small = F.pad(torch.from_numpy(small)[None, None], padding).to(frame)
            value = network.encode_value(frame, features.f16, small)
            logit = network.decode(_read_others(similarity, value, distance), features)
            found = unpad(logit.float().sigmoid(), padding)
            found = F.interpolate(found, (height, width), mode="bilinear", align_corners=False)
            probability = found[0, 0].cpu().numpy()
            probability[inside[region]], probability[outside[region]] = 1, 0
    result = np.zeros(mask.shape, np.float32)
    result[region] = probability
    return result


def _region(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The left, upper, right and lower edge of the region that the network sees."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    context = round(max(LEAST_CONTEXT, CONTEXT * (np.ptp(rows) + 1), CONTEXT * (np.ptp(columns) + 1)))
    edges = columns[0] - context, rows[0] - context, columns[-1] + 1 + context, rows[-1] + 1 + context
    return tuple(int(edge) for edge in np.clip(edges, 0, mask.shape[::-1] * 2))


def _similarity(network: RDE_VOS, key: Tensor) -> Tensor:
    """The similarities of all positions of a key [1,Ck,h,w] to each other, [h·w,h·w]."""
    rows = key.flatten(2).transpose(1, 2)
    return network.similarity(rows)(rows)[0]


def _read_others(similarity: Tensor, value: Tensor, distance: int) -> Tensor:
    """Read a value [1,1,Cv,h,w] for all of its positions (Eq. 3), each without those within a distance around it."""
    height, width = value.shape[-2:]
    position = torch.arange(height * width, device=value.device)
    row, column = position // width, position % width
    near = (row[:, None] - row).abs().maximum((column[:, None] - column).abs()) <= distance
    # Not minus infinity, because all positions of a tiny region are near.
    score, others = (similarity - 1e4 * near).topk(min(TOP_K, len(position)), dim=1)
    rows = value[0, 0].flatten(1).T.contiguous()
    weight = score.softmax(dim=1).to(rows)
    return F.embedding_bag(others, rows, per_sample_weights=weight, mode="sum").T.reshape(value.shape)
