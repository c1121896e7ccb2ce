"""The mask of the first frame from boxes and clicks on the command line."""

import argparse
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from annotation.errors import Refused
from annotation.marks import Marks
from annotation.picture import Picture
from dataset.files.images import read_mask, write_mask
from model.network import RDE_VOS
from util.errors import InputError

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_CLICK = re.compile(rf"([+-])({_NUMBER}),({_NUMBER})")
MOST_OBJECTS = 255


@dataclass
class MarkedObject:
    """The marks of an object.

    Attributes:
        box: the left, upper, right and lower edge in pixels, or None.
        clicks: x and y of each click in pixels, and whether it is inside of the object.
    """

    box: list[float] | None = None
    clicks: list[tuple[int, int, bool]] = field(default_factory=list)

    @property
    def flag(self) -> str:
        """The object as the command line names it first, for messages."""
        if self.box:
            return f"--box {' '.join(f'{edge:g}' for edge in self.box)}"
        return f"--clicks {' '.join(map(_text, self.clicks))}"


def add_mark_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --box and --clicks. Both add to ``objects``, a list of `MarkedObject`."""
    parser.add_argument(
        "--box", dest="objects", nargs=4, type=float, action=_Box, default=[], metavar=("X0", "Y0", "X1", "Y1"),
        help="box around an object in the first frame, in pixels; repeat it for more objects",
    )  # fmt: skip
    parser.add_argument(
        "--clicks", dest="objects", nargs="+", type=_click, action=_Clicks, default=[], metavar="±X,Y",
        help="pixels inside (+) and outside (-) of the object of the --box before, or of another object",
    )  # fmt: skip


def protected(words: list[str]) -> list[str]:
    """The words of a command line, with a space before each click outside, which argparse would take for a flag."""
    return [f" {word}" if _CLICK.fullmatch(word) else word for word in words]


class _Box(argparse.Action):
    def __call__(self, parser, arguments, values, option_string=None) -> None:
        arguments.objects = [*(arguments.objects or []), MarkedObject(values)]


class _Clicks(argparse.Action):
    def __call__(self, parser, arguments, values, option_string=None) -> None:
        objects = arguments.objects or []
        if not objects or objects[-1].clicks:
            objects = [*objects, MarkedObject()]
        objects[-1].clicks = values
        arguments.objects = objects
        if not objects[-1].box and not any(is_inside for *_, is_inside in values):
            parser.error(f"argument --clicks: {' '.join(map(_text, values))} are all outside; give one inside, as +X,Y")


def _click(text: str) -> tuple[int, int, bool]:
    found = _CLICK.fullmatch(text.strip())
    if not found:
        raise argparse.ArgumentTypeError(
            f"{text.strip()[:40]!r} is no click; write +X,Y inside of the object or -X,Y outside"
        )
    return int(float(found[2])), int(float(found[3])), found[1] == "+"


def _text(click: tuple[int, int, bool]) -> str:
    x, y, is_inside = click
    return f"{'+' if is_inside else '-'}{x},{y}"


def check_marks(objects: list[MarkedObject], size: tuple[int, int]) -> None:
    """Check marks, before the network is loaded.

    Args:
        objects: the marks.
        size: the height and width of the frame, in pixels.

    Raises:
        InputError: a mark is outside of the frame, a box has no area, or there are too many objects.
    """
    height, width = size
    if len(objects) > MOST_OBJECTS:
        raise InputError(f"--box and --clicks mark {len(objects)} objects, but a mask holds {MOST_OBJECTS} at most")
    for marked in objects:
        if box := marked.box:
            if min(box) < 0 or max(box[::2]) > width or max(box[1::2]) > height:
                raise InputError(
                    f"{marked.flag} leaves the frame, which is {width}×{height}; give X0 Y0 X1 Y1 in its pixels"
                )
            if not (box[0] < box[2] and box[1] < box[3]):
                raise InputError(f"{marked.flag} has no area; give the left, upper, right and lower edge of the object")
        for click in marked.clicks:
            if click[0] >= width or click[1] >= height:
                raise InputError(
                    f"the click {_text(click)} is outside of the frame, which is {width}×{height}; its last pixel is "
                    f"{width - 1},{height - 1}"
                )


def write_first_mask(
    path: Path, image: np.ndarray, objects: list[MarkedObject], network: RDE_VOS, network_side: int | None
) -> list[str]:
    """Write the mask of a frame whose objects are marked; their ids are 1, 2, ...

    Args:
        path: the file. If it is there already, it has to hold the same mask.
        image: the frame, uint8 RGB [H,W,3].
        objects: the marks of each object; see `check_marks`.
        network: its features are evidence.
        network_side: the short side of the network's input, in pixels; None for the size of the frame.

    Returns:
        notes on weak evidence for the user.

    Raises:
        InputError: no object is found, or the file holds another mask or cannot be written.
    """
    picture = Picture(image, network, network_side)
    marks = Marks(picture)
    for number, marked in enumerate(objects, start=1):
        try:
            if marked.box and not marks.draw_box(number, marked.box) and not marked.clicks:
                raise Refused(400, "no object was found there; draw a larger box, or add --clicks inside the object")
            for x, y, is_inside in marked.clicks:
                marks.click(number, x, y, is_inside=is_inside)
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
