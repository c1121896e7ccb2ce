"""How sure the network is of each object in each frame, and the table of it in the results."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dataset.files.video import AnyVideo
from util.errors import InputError
from util.files import write_error

CONTOUR_MARGIN = 0.008  # of the diagonal: the tolerance of contour accuracy F
COLUMNS = ("frame", "object", "confidence", "area")

# A row of the table. Frames are numbered from 0, and areas are in pixels.
ROW = np.dtype([("frame", np.int64), ("object", np.uint8), ("confidence", np.float32), ("area", np.int64)])


def object_confidence(probability: Tensor) -> Tensor:
    """The confidence in each object: 1 minus the mean entropy of its probability near its contours, in bits.

    The entropy is the binary entropy of a pixel: this object or not. A pixel is near a contour if pixels inside and
    outside of the object lie within `CONTOUR_MARGIN` of the diagonal, along both axes. Without any contour the mean is
    over all pixels: where an object has no pixel, the value is the confidence in its absence.

    A GPU computes all objects at once, and the host does not wait for it.

    Args:
        probability: probabilities [K+1,H,W] that add up to 1, background first.

    Returns:
        the confidences [K], float32 in 0..1.
    """
    margin = math.ceil(CONTOUR_MARGIN * math.hypot(*probability.shape[1:]))
    channels = torch.arange(1, len(probability), device=probability.device)
    # argmax takes 20 times as long as max on a CPU.
    masks = probability.max(0).indices == channels[:, None, None]
    if probability.device.type != "cpu":
        return 1 - _contour_entropy(probability[1:], masks, margin)
    confidences = torch.empty(len(masks))
    for index, mask in enumerate(masks):
        rows, columns = (_reach(mask.any(axis), margin) for axis in (1, 0))
        window = slice(index, index + 1), rows, columns
        confidences[window[0]] = 1 - _contour_entropy(probability[1:][window], masks[window], margin)
    return confidences


def _reach(shown: Tensor, margin: int) -> slice:
    """The part of an axis in which an object is shown, with a margin; all of it if there is no object."""
    at = shown.nonzero()
    return slice(max(0, int(at[0]) - margin), int(at[-1]) + margin + 1) if len(at) else slice(None)


def _contour_entropy(probability: Tensor, masks: Tensor, margin: int) -> Tensor:
    """The mean entropy [K] near contours, in bits, of probabilities [K,H,W] and masks, bool [K,H,W]."""
    near = _any_within(masks, margin) & _any_within(~masks, margin)
    near |= ~near.flatten(1).any(1)[:, None, None]
    probability = probability.float().clamp(0, 1)
    entropy = torch.special.entr(probability) + torch.special.entr(1 - probability)
    return (entropy * near).sum((1, 2)) / near.sum((1, 2)) / math.log(2)


def _any_within(masks: Tensor, margin: int) -> Tensor:
    """Whether any pixel within a margin is set, along both axes: a dilation of bool [K,H,W] by a square."""
    side = 2 * margin + 1
    masks = F.pad(masks, (margin,) * 4)
    for axis in (1, 2):
        reach = 1  # pixels that each pixel stands for so far; doubling needs few passes
        while reach < side:
            step = min(reach, side - reach)
            length = masks.shape[axis] - step
            masks = masks.narrow(axis, 0, length) | masks.narrow(axis, step, length)
            reach += step
    return masks


def frame_rows(number: int, ids: np.ndarray, confidence: Mapping[int, float]) -> np.ndarray:
    """The rows of a frame, of type `ROW`.

    Args:
        ids: its mask, uint8 object ids [H,W].
    """
    areas = np.bincount(ids.ravel(), minlength=256)
    return np.array([(number, each, value, areas[each]) for each, value in confidence.items()], ROW)


def append_rows(path: Path, rows: np.ndarray) -> None:
    """Append rows of type `ROW` to a file, and remove an incomplete row that a killed process has left at its end."""
    try:
        with open(path, "ab") as file:
            file.truncate(file.tell() // ROW.itemsize * ROW.itemsize)
            file.write(rows.tobytes())
    except OSError as error:
        raise write_error(path, error.strerror or error) from None


def read_rows(path: Path) -> np.ndarray:
    """The rows of a file that `append_rows` wrote, in order. The last ones count if a frame has been done again."""
    if not path.is_file():
        raise InputError(f"{path} is missing; delete the output folder and run the command again")
    rows = np.fromfile(path, ROW)[::-1]
    _, first = np.unique(rows["frame"] * 256 + rows["object"], return_index=True)
    return rows[first]


def table(video: AnyVideo, rows: np.ndarray) -> Iterator[list[object]]:
    """The rows of a video as lines of a CSV file with `COLUMNS`; frames have the names of their masks."""
    for row in rows:
        number, object_id, confidence, area = row.item()
        yield [video.frame_name(number), object_id, f"{confidence:.4f}", area]
