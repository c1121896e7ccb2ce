"""Colours: the palette of mask files, and the colours in which objects are drawn over frames."""

import functools
from collections.abc import Iterable

import numpy as np

# The colours of the first, second, ... object in every picture, page and plot. A search on a grid of colours chose
# them: each is far (at least 0.13 in OKLab) from black, white, grey, sand, grass, forest, sky, sea, pure green and pure
# blue, and the first eight are far (0.18) from each other. None is blue or green, as seas and meadows are.
COLOURS = (
    "#ff00f0", "#ffe600", "#00f0c0", "#f0002c", "#a04bff", "#ff8000", "#ff8cc6", "#00a8a8",
    "#f00090", "#c080ff", "#ffc0c0", "#a8c048", "#a878a8", "#a89060", "#c018c0", "#906000",
)  # fmt: skip


@functools.cache
def davis_palette() -> bytes:
    """Return the palette of DAVIS, YouTube-VOS and PASCAL VOC masks as 256 RGB triples.

    The bits of an id are distributed over red, green and blue. Mask files have this palette; pictures have `COLOURS`,
    because the first colour here is too dark for many frames, and the fourth is the colour of the sea.
    """
    ids = np.arange(256)
    colours = np.zeros((256, 3), dtype=int)
    for bit in range(8):
        colours[:, bit % 3] |= ((ids >> bit) & 1) << (7 - bit // 3)
    return colours.astype(np.uint8).tobytes()


def colour_of(object_id: int, ids: Iterable[int] = ()) -> str:
    """The colour of an object in pictures, as ``#rrggbb``.

    Args:
        object_id: the id of the object, from 1.
        ids: the ids of all objects of the video: the lowest id has the first colour. Other ids follow them, in order.
            Without ``ids``, object 1 has the first colour, object 2 the second, and so on.
    """
    known = sorted(set(ids) - {0})
    rank = known.index(object_id) if object_id in known else object_id - 1 + sum(i > object_id for i in known)
    return COLOURS[rank % len(COLOURS)]


def colour_table(ids: Iterable[int] = ()) -> bytes:
    """The colours of all objects in pictures, as 256 RGB triples by id; see `colour_of`. Id 0 is black."""
    ids = tuple(ids)
    return bytes(3) + b"".join(bytes.fromhex(colour_of(number, ids)[1:]) for number in range(1, 256))
