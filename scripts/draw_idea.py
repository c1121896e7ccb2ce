"""Draw the README's picture of the idea: the memory bank of constant size, and how SAM updates it.

    python eval_davis.py --davis_path DAVIS --year 2016 --videos horsejump-high --output OUT --overlay
    python scripts/draw_idea.py DAVIS/trainval/JPEGImages/480p/horsejump-high OUT/overlay/horsejump-high --output a.webp

The blurred picture of RDE is the mean of earlier frames; the embedding itself is not an image.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from dataset.images import read_image
from dataset.video import list_frames
from util.errors import InputError, command_line
from util.files import atomic_path

WIDTH, HEIGHT = 2.2, 1.24  # of a frame, in the drawing's units
BLUE, ORANGE, GREY = "#1f6fb2", "#d9730d", "#555555"
STM_EVERY = 5  # frames between the updates of STM's memory


def draw(frames: list[Path], overlays: list[Path], path: Path) -> None:
    """Draw the bank for a video of at least three frames, with the masks of ``overlays``."""
    figure = Figure(figsize=(12, 5.6))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 13.4), ylim=(0, 6.25))
    axes.axis("off")
    latest, query = 2 * len(frames) // 3, 2 * len(frames) // 3 + 1
    masked = [read_image(overlays[number]) for number in (0, latest, query)]

    _frame(axes, masked[0], 0.3, 4.7, "first frame with its given mask", GREY)
    axes.text(3.25, 4.7 + HEIGHT / 2, "…", ha="center", va="center", fontsize=22, color=GREY)
    _frame(axes, masked[1], 4.0, 4.7, "latest update, every θ frames", ORANGE)
    _frame(axes, read_image(frames[query]), 7.4, 4.7, "query frame", GREY)
    _frame(axes, masked[2], 10.9, 4.7, "its mask", BLUE)

    axes.add_patch(_box(0.1, 1.75, 9.6, 2.1, edgecolor=BLUE, facecolor="#eef4fa"))
    axes.text(0.25, 3.62, "memory bank 2F+L+RDE: four embeddings, however long the video", color=BLUE, va="center")
    _frame(axes, masked[0], 0.3, 2.15, "first frame (F)", GREY)
    _frame(axes, masked[0], 2.65, 2.15, "first frame again (F)", GREY)
    _frame(axes, masked[1], 5.0, 2.15, "latest (L)", ORANGE)
    history = np.mean([read_image(overlays[number]) for number in range(0, latest + 1, 2)], axis=0).astype(np.uint8)
    _frame(axes, history, 7.35, 2.15, "recurrent embedding (RDE)", BLUE)

    axes.add_patch(_box(6.3, 0.3, 2.3, 0.85, edgecolor=ORANGE, facecolor="#fdf1e5"))
    axes.text(7.45, 0.72, "SAM", ha="center", va="center", fontsize=15, color=ORANGE)
    axes.text(6.1, 0.72, "every θ frames:  RDE ← SAM(RDE, latest)", ha="right", va="center", color=ORANGE)
    _arrow(axes, (6.1, 1.7), (6.8, 1.2), ORANGE)
    _arrow(axes, (7.95, 1.7), (7.75, 1.2), ORANGE)
    _arrow(axes, (8.3, 1.2), (8.75, 1.7), ORANGE)
    _arrow(axes, (1.4, 4.3), (1.4, 3.9))
    _arrow(axes, (5.1, 4.3), (5.1, 3.9), ORANGE)
    _arrow(axes, (8.5, 3.9), (8.5, 4.3), BLUE)
    axes.text(8.65, 4.1, "read (top k)", va="center", color=BLUE)
    _arrow(axes, (9.7, 4.7 + HEIGHT / 2), (10.8, 4.7 + HEIGHT / 2), BLUE)
    axes.text(10.25, 4.9 + HEIGHT / 2, "decode", ha="center", color=BLUE)

    plot = figure.add_axes((0.785, 0.115, 0.2, 0.44))
    numbers = np.arange(300)
    plot.plot(numbers, 1 + numbers // STM_EVERY, color=GREY, label=f"STM, every {STM_EVERY} frames")
    plot.plot(numbers, np.full(300, 4), color=BLUE, lw=3, label="2F+L+RDE")
    plot.set(xlabel="frames", ylabel="embeddings in the memory", xlim=(0, 300), ylim=(0, None))
    plot.legend(frameon=False)
    plot.spines[["top", "right"]].set_visible(False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _frame(axes: Axes, picture: np.ndarray, x: float, y: float, title: str, colour: str) -> None:
    """Draw a picture with its lower left corner at (x, y), and a title below it."""
    axes.imshow(picture, extent=(x, x + WIDTH, y, y + HEIGHT), aspect="auto", zorder=2)
    axes.add_patch(_box(x, y, WIDTH, HEIGHT, edgecolor=colour, facecolor="none", zorder=3))
    axes.text(x + WIDTH / 2, y - 0.08, title, ha="center", va="top", color=colour)


def _box(x: float, y: float, width: float, height: float, **style: object) -> FancyBboxPatch:
    return FancyBboxPatch((x, y), width, height, boxstyle="square,pad=0", linewidth=2, **style)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = GREY) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2, "mutation_scale": 16})


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("frames", type=Path, help="folder of a video's frames")
    parser.add_argument("overlays", type=Path, help="folder of the same frames with masks, from --overlay")
    parser.add_argument("--output", type=Path, required=True, help="the picture, such as idea.webp")
    return parser.parse_args()


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    frames, overlays = list_frames(arguments.frames), list_frames(arguments.overlays)
    if len(frames) != len(overlays) or len(frames) < 3:
        raise InputError(
            f"{arguments.overlays} has {len(overlays)} pictures for {len(frames)} frames; "
            "give the overlays of all frames of a video of at least three frames"
        )
    draw(frames, overlays, arguments.output)


if __name__ == "__main__":
    main()
