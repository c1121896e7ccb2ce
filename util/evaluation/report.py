"""One HTML page about the results of an evaluation: figures, table, plots, pictures and a player.

The page needs no other file and no network. Its pictures are layers: the page holds each frame once, as WebP, and each
mask as a PNG of about 1 kB that is transparent outside the objects. A reader can switch between prediction and truth,
and the page needs no further picture for this.
"""

import base64
import csv
import io
import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import jinja2
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from tqdm import tqdm

from dataset.davis import DAVIS, VOID
from dataset.images import read_mask
from dataset.video import Video
from util.errors import InputError
from util.evaluation.metrics import VideoScore, global_results, score_videos, statistics
from util.evaluation.output import OutputFolder
from util.evaluation.pictures import evenly_spaced, outline
from util.evaluation.stream import Throughput, mask_name
from util.files import atomic_path

PICTURE_WIDTH = 480  # pixels
PICTURE_QUALITY = 55  # of WebP: a DAVIS frame of this width takes about 12 kB
FRAMES_PER_VIDEO = 60  # in the player, at most
FRAMES_PER_PAGE = 900  # many videos share these frames, because a phone has little memory for a page
MOMENTS = 8  # the number of worst moments on the page
MOMENT_DISTANCE = 10  # frames between two worst moments of an object, because neighbouring frames look alike

# The colours of objects 1, 2, ... in masks and plots. Some colours of DAVIS's palette are too dark for a line on a dark
# page. These colours have a contrast of 3:1 or more to the light and to the dark background of the page.
COLOURS = ("#3b82f6", "#e8590c", "#1f9d63", "#d6409f", "#a07d00", "#8e6cef", "#0a95a8", "#e5484d")
TINT, EDGE = 120, 255  # the opacity of the inside and of the outline of an object, in 0..255

# The position of the axes in a plot (left, bottom, width, height), as shares of the plot. The page draws the line of
# the current frame over the axes.
AXES = (0.085, 0.15, 0.89, 0.8)
_TEXT_COLOUR = "#010203"  # takes the place of the page's text colour, which matplotlib does not know


class Moment(NamedTuple):
    """An object in a frame, with its scores."""

    video: int  # the index of the video in the report
    object_id: int
    frame: int  # the number of the frame in the video
    j: float
    f: float


@dataclass(frozen=True)
class Result:
    """The results of a finished video.

    Attributes:
        video: the video.
        predictions: the folder of the predicted masks.
        took: the number of segmented frames, and the time for them.
        truth: the folder of the true masks; None where the split has no ground truth.
        score: J and F; None where the split has no ground truth.
    """

    video: Video
    predictions: Path
    took: Throughput
    truth: Path | None
    score: VideoScore | None

    @property
    def scored(self) -> list[int]:
        """The numbers of the scored frames."""
        numbers = {frame.stem: number for number, frame in enumerate(self.video.frames)}
        return [numbers[name] for name in self.score.frames] if self.score else []


def write_report(output: Path, davis_path: Path, page: Path, progress: bool = False) -> list[str]:
    """Write a page about the results that eval_davis.py left in ``output``.

    Args:
        output: the output folder of eval_davis.py; its settings say which year and split of DAVIS was segmented.
        davis_path: the folder of the data set.
        page: the HTML file to write; the file is complete or absent.
        progress: show progress bars on stderr.

    Returns:
        sentences about what is missing in the results; the page shows them too.

    Raises:
        InputError: eval_davis.py did not write ``output``, ``output`` holds no finished video, masks or frames cannot
            be read, or the page cannot be written.
    """
    folder = OutputFolder(output)
    settings = folder.settings()
    if not {"year", "split", "bank", "mem_every", "top_k", "amp", "model"} <= settings.keys():
        raise InputError(f"{output} was not written by eval_davis.py; point at the output folder of eval_davis.py")
    davis = DAVIS(davis_path, settings["year"], settings["split"])
    videos = davis.videos()
    finished = [video for video in videos if folder.is_finished(video)]
    if not finished:
        raise InputError(f"{output} holds no finished video of {davis.image_set}; run eval_davis.py on it first")
    names = [video.name for video in finished]
    scores = [None] * len(names)
    if davis.has_ground_truth:
        scores = score_videos(
            davis.annotations, folder.masks, names, merge_objects=davis.year == 2016, progress=progress
        )
    results = [
        Result(
            video,
            folder.masks / video.name,
            folder.throughput([video]),
            davis.annotations / video.name if davis.has_ground_truth else None,
            score,
        )
        for video, score in zip(finished, scores, strict=True)
    ]
    overall = global_results(scores) if davis.has_ground_truth else {}
    notes = _missing(output, [video.name for video in videos if video not in finished], len(videos), overall)
    html = _render(settings, results, overall, notes, folder.throughput(finished), progress)
    with atomic_path(page) as temporary:
        temporary.write_text(html, encoding="utf-8", errors="replace")
    return notes


def worst_moments(results: Sequence[Result], count: int = MOMENTS) -> list[Moment]:
    """The ``count`` objects and frames with the lowest J&F, the worst first; see `MOMENT_DISTANCE`."""
    moments = [
        Moment(index, object_id, frame, float(j), float(f))
        for index, result in enumerate(results)
        if result.score
        for object_id, rows in enumerate(zip(result.score.j, result.score.f, strict=True), 1)
        for frame, j, f in zip(result.scored, *rows, strict=True)
    ]
    chosen: list[Moment] = []
    for moment in sorted(moments, key=lambda moment: moment.j + moment.f):
        if len(chosen) == count:
            break
        if all(other[:2] != moment[:2] or abs(other.frame - moment.frame) >= MOMENT_DISTANCE for other in chosen):
            chosen.append(moment)
    return chosen


def plot(values: np.ndarray, numbers: Sequence[int], length: int, name: str) -> str:
    """Draw J or F over time as an SVG whose text has the text colour of the page around it.

    Args:
        values: J or F [objects, scored frames], in 0..1.
        numbers: the numbers of the scored frames.
        length: the number of frames of the video.
        name: the prefix of the ids in the SVG, which must differ between the plots of a page.

    Returns:
        an ``<svg>`` element that refers to nothing outside itself.
    """
    style = {"svg.fonttype": "none", "svg.hashsalt": "report", "font.size": 9, "axes.linewidth": 0.6}
    style |= dict.fromkeys(("text.color", "xtick.color", "ytick.color", "axes.edgecolor", "grid.color"), _TEXT_COLOUR)
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(4.4, 1.9))
        axes = figure.add_axes(AXES)
        axes.set(xlim=(0, max(length - 1, 1)), ylim=(-2, 102), yticks=range(0, 101, 25))
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=8)
        axes.grid(axis="y", linewidth=0.5, alpha=0.18)
        axes.patch.set_visible(False)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0, pad=4)
        for object_id, row in enumerate(values, 1):
            # A single scored frame needs a marker, because it makes no line.
            marker = "" if len(numbers) > 1 else "o"
            axes.plot(numbers, 100 * row, color=colour_of(object_id), linewidth=1.4, marker=marker)
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    # Within a page an <svg> needs neither the XML head nor namespaces, and the page chooses its size.
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(_TEXT_COLOUR, "currentColor")
    svg = re.sub(r' (?:xmlns(?::xlink)?|width|height|version)="[^"]*"', "", svg, count=5)
    return re.sub(r'(\bid="|"#|url\(#)', rf"\g<1>{name}-", svg)


def layer(ids: np.ndarray) -> bytes:
    """Draw a mask as a PNG picture that lies over its frame.

    Args:
        ids: uint8 object ids [H,W]; pixels of id 0 are transparent.

    Returns:
        the content of the PNG file.
    """
    # The inside of colour c is entry c of the palette, its outline is entry len(COLOURS) + c. Entry 0 is transparent.
    entries = np.where(ids > 0, (ids.astype(int) - 1) % len(COLOURS) + 1, 0)
    entries[outline(ids)] += len(COLOURS)
    image = Image.fromarray(entries.astype(np.uint8))
    image.putpalette(bytes(3) + bytes.fromhex("".join(COLOURS).replace("#", "")) * 2)
    opacity = bytes([0] + [TINT] * len(COLOURS) + [EDGE] * len(COLOURS))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True, transparency=opacity)
    return file.getvalue()


def colour_of(object_id: int) -> str:
    """The colour of an object in masks, plots and text."""
    return COLOURS[(object_id - 1) % len(COLOURS)]


def _missing(output: Path, unfinished: Sequence[str], count: int, overall: dict[str, float]) -> list[str]:
    """Sentences about missing results that a reader of the figures must know."""
    notes = []
    if unfinished:
        names = ", ".join(unfinished[:5]) + (", ..." if len(unfinished) > 5 else "")
        notes.append(
            f"Not finished: {names} ({len(unfinished)} of {count} videos). This page is about the others only; "
            "run eval_davis.py again to finish."
        )
    if not overall:
        return notes
    path = output / "global_results-val.csv"
    try:
        with open(path, newline="") as file:
            row = next(csv.DictReader(file))
        written = [float(row[name]) for name in overall]
    except FileNotFoundError:
        notes.append(f"{path.name} is missing: eval_davis.py has not scored these results; this page has.")
    except (OSError, StopIteration, KeyError, TypeError, ValueError):
        notes.append(f"{path.name} cannot be read; the figures here are computed from the masks.")
    else:
        # A file of DAVIS's code has three decimals.
        if not unfinished and not np.allclose(written, list(overall.values()), atol=6e-4, equal_nan=True):
            notes.append(f"{path.name} has other figures than the masks give; those here are the masks'.")
    return notes


def _picture(result: Result, number: int) -> dict:
    """A frame with its masks and scores, for the page's template and script; pictures are in base64."""
    video = result.video
    name = mask_name(video, number)
    size = _picture_size(video)
    file = io.BytesIO()
    Image.fromarray(video.read_frame(number)).resize(size).save(file, "WEBP", quality=PICTURE_QUALITY)
    picture = {"number": number, "name": video.frames[number].stem, "frame": file.getvalue()}
    for kind, folder in (("prediction", result.predictions), ("truth", result.truth)):
        if folder:
            ids = _read_ids(folder / name, video)
            picture[kind] = layer(cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST))
    picture = {k: base64.b64encode(v).decode() if isinstance(v, bytes) else v for k, v in picture.items()}
    if number in result.scored:
        at = result.scored.index(number)
        picture |= {"j": result.score.j[:, at].round(4).tolist(), "f": result.score.f[:, at].round(4).tolist()}
    return picture


def _picture_size(video: Video) -> tuple[int, int]:
    """Width and height, in pixels, of a video's pictures."""
    height, width = video.size
    scale = min(1, PICTURE_WIDTH / width)
    return round(scale * width), max(1, round(scale * height))


def _read_ids(path: Path, video: Video) -> np.ndarray:
    """The object ids of a mask, uint8 [H,W], with merged objects and void pixels as `score_videos` treats them."""
    ids = read_mask(path)
    if ids.shape != video.size:
        raise InputError(
            f"{path} is {ids.shape[1]}×{ids.shape[0]}, but the frames are {video.size[1]}×{video.size[0]}; "
            "delete the video's folder and run eval_davis.py again"
        )
    return (ids > 0).astype(np.uint8) if video.merge_objects else np.where(ids == VOID, np.uint8(0), ids)


def _render(
    settings: dict,
    results: Sequence[Result],
    overall: dict[str, float],
    notes: Sequence[str],
    took: Throughput,
    progress: bool,
) -> str:
    """The page as HTML text."""
    moments = worst_moments(results)
    most = min(FRAMES_PER_VIDEO, max(FRAMES_PER_PAGE // len(results), 8))
    shown = [evenly_spaced(len(result.video.frames), most) for result in results]
    tasks = [(results[moment.video], moment.frame) for moment in moments]
    tasks += [(result, number) for result, numbers in zip(results, shown, strict=True) for number in numbers]
    with ThreadPoolExecutor() as pool:
        pictures = pool.map(lambda task: _picture(*task), tasks)
        hidden = None if progress else True  # None shows the bar only in terminals
        pictures = iter(list(tqdm(pictures, total=len(tasks), desc="drawing", unit="picture", disable=hidden)))
    moments = [{**moment._asdict(), "picture": next(pictures)} for moment in moments]
    videos = [
        _describe(index, result, [next(pictures) for _ in numbers])
        for index, (result, numbers) in enumerate(zip(results, shown, strict=True))
    ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("report_page")),
        autoescape=True,  # names of videos and frames come from outside
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda value: "–" if math.isnan(value) else f"{100 * value:.1f}"
    environment.filters["fps"] = lambda value: "–" if math.isnan(value) else f"{value:.1f}"
    environment.globals["colour_of"] = colour_of
    return environment.get_template("page.html").render(
        settings=settings,
        overall=overall,
        notes=notes,
        took=took,
        moments=moments,
        videos=videos,
        most=most,
        width=PICTURE_WIDTH,
        axes=AXES,
    )


def _describe(index: int, result: Result, pictures: list[dict]) -> dict:
    """The description of a video for the page's template."""
    video, score = result.video, result.score
    if score:
        objects = list(range(1, len(score.j) + 1))
    else:
        objects = [int(object_id) for object_id in np.unique(_read_ids(video.masks[0], video)) if object_id]
    description = {
        "name": video.name,
        "length": len(video.frames),
        "picture_size": _picture_size(video),
        "fps": result.took.fps,
        "objects": objects,
        "pictures": pictures,
        "plots": [],
        "scores": {},
    }
    if score:
        for key, title, values in (("j", "J, region similarity", score.j), ("f", "F, contour accuracy", score.f)):
            svg = plot(values, result.scored, len(video.frames), f"{key}{index}")
            description["plots"].append({"title": title, "svg": svg})
        description["scores"] = {
            object_id: (statistics(score.j[object_id - 1]), statistics(score.f[object_id - 1])) for object_id in objects
        }
    return description
