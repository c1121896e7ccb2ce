"""One HTML page about an evaluation's results that needs nothing else: figures, table, plots, pictures and a player.

Pictures are layers: a frame is embedded once, as WebP, and each mask as a PNG that is transparent where there is no
object, some 1 kB, so that prediction and truth can be switched without either being drawn into a picture of its own.
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

from dataset.davis import DAVIS
from dataset.images import read_mask
from dataset.video import Video
from util.errors import InputError
from util.evaluation.metrics import VOID, VideoScore, global_results, score_videos, statistics
from util.evaluation.pictures import evenly_spaced, outline
from util.evaluation.stream import Throughput, is_finished, mask_name, read_settings, throughput
from util.files import atomic_path

PICTURE_WIDTH = 480  # pixels
PICTURE_QUALITY = 55  # of WebP: a DAVIS frame of this width takes about 12 kB
FRAMES_PER_VIDEO = 60  # at most, in the player;
FRAMES_PER_PAGE = 900  # many videos share this many, or the page would outgrow a phone's memory
MOMENTS = 8
MOMENT_DISTANCE = 10  # frames between two worst moments of an object, which would else be neighbours

# Of objects 1, 2, ... in masks and plots. DAVIS's own palette has colours too dark for a line on a dark page; these
# have a contrast of 3:1 or more to the page's cards, light and dark.
COLOURS = ("#3b82f6", "#e8590c", "#1f9d63", "#d6409f", "#a07d00", "#8e6cef", "#0a95a8", "#e5484d")
TINT, EDGE = 120, 255  # opacity of an object's inside and outline

# Where the plots' axes lie in their picture (left, bottom, width, height): the page draws its playhead over them.
AXES = (0.085, 0.15, 0.89, 0.8)
_TEXT_COLOUR = "#010203"  # stands for the page's own text colour, which matplotlib cannot name


class Moment(NamedTuple):
    """An object in a frame, and how it was scored there."""

    video: int  # index in the report's videos
    object_id: int
    frame: int  # number in the video
    j: float
    f: float


@dataclass(frozen=True)
class Result:
    """A finished video with the folder of its predictions and, where the split has ground truth, that and its score."""

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
        output: the folder of masks; its settings say which year and split of DAVIS they belong to.
        davis_path: the data set's folder.
        page: the HTML file to write; complete or not at all.
        progress: show progress bars on stderr.

    Returns:
        what is missing in the results, in sentences; the page shows them too.

    Raises:
        InputError: ``output`` is not eval_davis.py's, holds no finished video, or masks or frames cannot be read.
    """
    settings = read_settings(output)
    if not {"year", "split", "bank", "mem_every", "top_k", "amp", "model"} <= settings.keys():
        raise InputError(f"{output} was not written by eval_davis.py; point at its --output")
    davis = DAVIS(davis_path, settings["year"], settings["split"])
    videos = davis.videos()
    finished = [video for video in videos if is_finished(video, output)]
    if not finished:
        raise InputError(f"{output} holds no finished video of {davis.image_set}; run eval_davis.py on it first")
    names = [video.name for video in finished]
    scores = [None] * len(names)
    if davis.has_ground_truth:
        scores = score_videos(davis.annotations, output, names, merge_objects=davis.year == 2016, progress=progress)
    results = [
        Result(
            video,
            output / video.name,
            throughput([video], output),
            davis.annotations / video.name if davis.has_ground_truth else None,
            score,
        )
        for video, score in zip(finished, scores, strict=True)
    ]
    overall = global_results(scores) if davis.has_ground_truth else {}
    notes = _missing(output, [video.name for video in videos if video not in finished], len(videos), overall)
    html = _render(settings, results, overall, notes, throughput(finished, output), progress)
    try:
        with atomic_path(page) as temporary:
            temporary.write_text(html, encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{page} cannot be written ({error.strerror}); choose another --output") from None
    return notes


def worst_moments(results: Sequence[Result], count: int = MOMENTS) -> list[Moment]:
    """The objects and frames of the lowest J&F, worst first, those of one object some frames apart."""
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
    """Draw J or F over time as an SVG that takes the text colour of the page it is put into.

    Args:
        values: [objects, scored frames], 0..1.
        numbers: the scored frames' numbers.
        length: number of frames of the video.
        name: what the ids in the picture start with, for a page that holds several.

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
            # A single scored frame makes no line.
            marker = "" if len(numbers) > 1 else "o"
            axes.plot(numbers, 100 * row, color=colour_of(object_id), linewidth=1.4, marker=marker)
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    # Within a page an <svg> needs neither the XML head nor namespaces, and its size is the page's to choose.
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(_TEXT_COLOUR, "currentColor")
    svg = re.sub(r' (?:xmlns(?::xlink)?|width|height|version)="[^"]*"', "", svg, count=5)
    return re.sub(r'(\bid="|"#|url\(#)', rf"\g<1>{name}-", svg)


def layer(ids: np.ndarray) -> bytes:
    """A mask as a picture to lay over its frame: a PNG of the objects' colours, transparent elsewhere.

    Args:
        ids: uint8 object ids [H,W]; 0 is transparent.
    """
    # Colour c inside is entry c of the palette, on outlines entry len(COLOURS) + c; entry 0 is transparent.
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
    """What a reader of the figures must know is not there, in sentences."""
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
        # DAVIS's own file has three decimals.
        if not unfinished and not np.allclose(written, list(overall.values()), atol=6e-4, equal_nan=True):
            notes.append(f"{path.name} has other figures than the masks give; those here are the masks'.")
    return notes


def _picture(result: Result, number: int) -> dict:
    """A frame with its masks and scores, as the page's template and script take it; pictures in base64."""
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
    """Width and height of a video's pictures."""
    height, width = video.size
    scale = min(1, PICTURE_WIDTH / width)
    return round(scale * width), max(1, round(scale * height))


def _read_ids(path: Path, video: Video) -> np.ndarray:
    """The ids of a mask, counted as the scores count them."""
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
    moments = worst_moments(results)
    most = min(FRAMES_PER_VIDEO, max(FRAMES_PER_PAGE // len(results), 8))
    shown = [evenly_spaced(len(result.video.frames), most) for result in results]
    tasks = [(results[moment.video], moment.frame) for moment in moments]
    tasks += [(result, number) for result, numbers in zip(results, shown, strict=True) for number in numbers]
    with ThreadPoolExecutor() as pool:
        pictures = pool.map(lambda task: _picture(*task), tasks)
        hidden = None if progress else True  # None shows the bar in terminals only
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
    """A video as the page's template takes it."""
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
