"""The mask of the first frame from boxes and clicks on the command line."""

import argparse
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from annotation.errors import Refused
from annotation.evidence import Picture
from annotation.marks import Marks
from dataset.files.images import read_mask, write_mask
from model.network import RDE_VOS
from util.errors import InputError

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_CLICK = re.compile(rf"([+-])({_NUMBER}),({_NUMBER})")
MOST_OBJECTS = 255


class Click(NamedTuple):
    """A click on a pixel, inside or outside of the object."""

    x: int
    y: int
    is_inside: bool

    def __str__(self) -> str:
        return f"{'+' if self.is_inside else '-'}{self.x},{self.y}"


@dataclass
class MarkedObject:
    """The marks of an object: the left, upper, right and lower edge of its box in pixels, or None, and its clicks."""

    box: list[float] | None = None
    clicks: list[Click] = field(default_factory=list)

    @property
    def flag(self) -> str:
        """The object as the command line names it first, for messages."""
        if self.box:
            return f"--box {' '.join(f'{edge:g}' for edge in self.box)}"
        return f"--clicks {' '.join(map(str, self.clicks))}"


def add_mark_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --box and --clicks. Both add to ``marks`` in their order, see `marked_objects`."""
    parser.add_argument(
        "--box", dest="marks", nargs=4, type=float, action="append", default=[], metavar=("X0", "Y0", "X1", "Y1"),
        help="box around an object in the first frame, in pixels; repeat it for more objects",
    )  # fmt: skip
    parser.add_argument(
        "--clicks", dest="marks", nargs="+", type=_click, action="append", default=[], metavar="±X,Y",
        help="pixels inside (+) and outside (-) of the object of the --box before, or of another object",
    )  # fmt: skip


def protected(words: list[str]) -> list[str]:
    """The words of a command line, with a space before each click outside, which argparse would take for a flag."""
    return [f" {word}" if _CLICK.fullmatch(word) else word for word in words]


def _click(text: str) -> Click:
    found = _CLICK.fullmatch(text.strip())
    if not found:
        raise argparse.ArgumentTypeError(
            f"{text.strip()[:40]!r} is no click; write +X,Y inside of the object or -X,Y outside"
        )
    return Click(int(float(found[2])), int(float(found[3])), found[1] == "+")


def marked_objects(marks: list[list[float] | list[Click]]) -> list[MarkedObject]:
    """The objects of boxes and clicks: clicks belong to the box before them, or are an object of their own."""
    objects: list[MarkedObject] = []
    for mark in marks:
        if not isinstance(mark[0], Click):
            objects.append(MarkedObject(mark))
        elif objects and not objects[-1].clicks:
            objects[-1].clicks = mark
        else:
            objects.append(MarkedObject(clicks=mark))
    return objects


def check_marks(objects: list[MarkedObject], size: tuple[int, int]) -> None:
    """Check marks in a frame of this height and width in pixels, before the network is loaded."""
    height, width = size
    if len(objects) > MOST_OBJECTS:
        raise InputError(f"--box and --clicks mark {len(objects)} objects, but a mask holds {MOST_OBJECTS} at most")
    for marked in objects:
        left, upper, right, lower = marked.box or (0, 0, width, height)
        is_inside = all(click.x < width and click.y < height for click in marked.clicks)
        if not (is_inside and 0 <= left < right <= width and 0 <= upper < lower <= height):
            raise InputError(
                f"{marked.flag} leaves the frame or has no area; the frame is {width}×{height} with pixels up to "
                f"{width - 1},{height - 1}, and a box is its left, upper, right and lower edge"
            )
        if not marked.box and not any(click.is_inside for click in marked.clicks):
            raise InputError(f"{marked.flag} is all outside of the object; give a click inside, as +X,Y, or its --box")


def write_first_mask(
    path: Path, image: np.ndarray, objects: list[MarkedObject], network: RDE_VOS, network_side: int | None
) -> list[str]:
    """Write the mask of a frame, uint8 RGB [H,W,3], whose objects are marked; their ids are 1, 2, ...

    A file that is there already has to hold the same mask. Return notes on weak evidence for the user. For ``network``
    and ``network_side`` see `annotation.evidence.Picture`.
    """
    picture = Picture(image, network, network_side)
    marks = Marks(picture)
    for number, marked in enumerate(objects, start=1):
        try:
            if marked.box and not marks.draw_box(number, marked.box) and not marked.clicks:
                raise Refused(400, "no object was found there; draw a larger box, or add --clicks inside the object")
            for click in marked.clicks:
                marks.click(number, click.x, click.y, is_inside=click.is_inside)
        except Refused as error:
            raise InputError(f"{marked.flag}: {error}") from None
    notes = []
    for number, marked in enumerate(objects, start=1):
        if not (marks.ids == number).any():
            raise InputError(f"{marked.flag}: no pixel is left for object {number}; give other boxes or more clicks")
        if marked.box and marks.fills(number, marked.box):
            notes.append(
                f"the mask of object {number} fills its box, so the outline is probably wrong; look at {path}, and add "
                "--clicks or fit the box more closely"
            )
    if path.exists() and not np.array_equal(read_mask(path), marks.ids):
        raise InputError(f"{path} holds another mask; give it as --mask with another --output, or delete it")
    if not path.exists():
        write_mask(path, marks.ids)
    return notes
