"""One HTML page about the results of an evaluation: figures, table, plots, pictures and a player.

The page is self-contained. It holds each frame once, as WebP, and each mask as a PNG layer of about 1 kB that is
transparent outside the objects.
"""

import base64
import functools
import io
import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
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

from dataset.files.colours import COLOURS, colour_of
from dataset.files.images import read_mask
from dataset.files.video import Video, read_sized_mask
from util.errors import InputError, listed
from util.evaluation.metrics import statistics
from util.evaluation.output import OutputFolder
from util.evaluation.pictures import contours, evenly_spaced, surroundings
from util.evaluation.protocols import Evaluation
from util.evaluation.scoring import ObjectFigures, VideoScore, score_plans
from util.evaluation.segmentation import Throughput
from util.files import atomic_path
from util.progress import hidden

PICTURE_WIDTH = 480  # pixels
PICTURE_QUALITY = 55  # of WebP: a DAVIS frame of this width takes about 12 kB
FRAMES_PER_VIDEO = 60  # in the player, at most
FRAMES_PER_PAGE = 900  # in all players: a phone has little memory for a page
MOMENTS = 8  # worst moments on the page
MOST_ENLARGED = 6  # times, for an object of a worst moment that is small in its frame
MOMENT_DISTANCE = 10  # frames between two worst moments of an object, because neighbouring frames look alike

TINT, EDGE, LINE = 120, 255, 170  # the opacity of the inside and contour of an object and of the line around, 0..255

# The axes of a plot (left, bottom, width, height), as fractions of the plot. The page draws the line of the current
# frame over them.
AXES = (0.085, 0.15, 0.89, 0.8)
_TEXT_COLOUR = "#010203"  # a placeholder for the page's text colour, which matplotlib does not know
_PANEL_COLOUR = "#1b1e24"  # dark on light pages too, because the bright colours of objects do not show on white


class Moment(NamedTuple):
    """An object in a frame, with its scores."""

    video: int  # the index of the video in the report
    object_id: int
    frame: int  # the number of the frame in the video
    j: float
    f: float


@dataclass(frozen=True)
class Result:
    """The results of a finished video."""

    video: Video
    predictions: Path  # the folder of the predicted masks
    throughput: Throughput
    score: VideoScore | None  # None without ground truth

    @functools.cached_property
    def scored(self) -> list[int]:
        """The numbers of the scored frames."""
        numbers = {frame.stem: number for number, frame in enumerate(self.video.frames)}
        return [numbers[name] for name in self.score.frames] if self.score else []

    @property
    def objects(self) -> list[int]:
        """The ids of the scored objects; without ground truth, of all objects."""
        if self.score:
            return list(self.score.ids)
        return sorted(self.entries)

    @functools.cached_property
    def entries(self) -> dict[int, int]:
        """The number of the frame in which each object enters, by id; merged objects are object 1."""
        entries = self.video.entries
        return {1: min(entries.values())} if self.video.merge_objects else entries


def write_report(output: Path, evaluation: Evaluation, page: Path, progress: bool = False) -> list[str]:
    """Write a page about the results of an evaluation script.

    Args:
        evaluation: the data set, see `util.evaluation.protocols.recorded_evaluation`.
        page: the HTML file to write; the file is complete or absent.

    Returns:
        notes on what is missing in the results, which the page shows too.
    """
    folder = OutputFolder(output, evaluation.masks_folder)
    finished = [video for video in evaluation.videos if folder.is_finished(video)]
    if not finished:
        raise InputError(f"{output} holds no finished video of {evaluation.data}; run {evaluation.script} on it first")
    names = {video.name for video in finished}
    notes = list(evaluation.notes)
    if unfinished := [video.name for video in evaluation.videos if video.name not in names]:
        notes.append(
            f"Not finished: {listed(unfinished)} ({len(unfinished)} of {len(evaluation.videos)} videos). This page "
            f"covers the others only; run {evaluation.script} again to resume."
        )
    plans = [plan for plan in evaluation.plans if plan.truth.name in names]
    scores = score_plans(plans, folder.masks, progress=progress)
    by_name = {score.name: score for score in scores}
    results = [
        Result(video, folder.masks / video.name, folder.throughput([video]), by_name.get(video.name))
        for video in finished
    ]
    most = min(FRAMES_PER_VIDEO, max(FRAMES_PER_PAGE // len(results), 8))
    moments, videos = _draw(evaluation, results, most, progress)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("report_page")),
        autoescape=True,  # names of videos and frames come from outside
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda value: "–" if math.isnan(value) else f"{100 * value:.1f}"
    environment.filters["fps"] = lambda value: "–" if math.isnan(value) else f"{value:.1f}"
    html = environment.get_template("page.html").render(
        settings={**folder.settings(), **{name: folder.recorded(name, finished) for name in ("device", "weights")}},
        evaluation=evaluation,
        headlines=_headlines(evaluation.figures(scores) if evaluation.truth else {}),
        categories=any(item["category"] for video in videos for item in video["objects"]),
        notes=notes,
        throughput=folder.throughput(finished),
        moments=moments,
        videos=videos,
        most=most,
        width=PICTURE_WIDTH,
        axes=AXES,
    )
    with atomic_path(page) as temporary:
        temporary.write_text(html, encoding="utf-8", errors="replace")
    return notes


def worst_moments(results: Sequence[Result], count: int = MOMENTS) -> list[Moment]:
    """The ``count`` objects and frames with the lowest J&F, the worst first; see `MOMENT_DISTANCE`."""
    moments = [
        Moment(index, object_id, frame, float(j), float(f))
        for index, result in enumerate(results)
        if result.score
        for object_id, *rows in zip(result.score.ids, result.score.j, result.score.f, strict=True)
        for frame, j, f in zip(result.scored, *rows, strict=True)
        if not math.isnan(j)
    ]
    worst: list[Moment] = []
    for moment in sorted(moments, key=lambda moment: moment.j + moment.f):
        if len(worst) == count:
            break
        if all(other[:2] != moment[:2] or abs(other.frame - moment.frame) >= MOMENT_DISTANCE for other in worst):
            worst.append(moment)
    return worst


def plot(values: np.ndarray, result: Result, name: str) -> str:
    """Plot J or F over time as an SVG in the text colour of the page.

    Args:
        values: J or F [objects, scored frames], in 0..1; NaN where an object is not scored in a frame.
        name: the prefix of the ids in the SVG, which must differ between the plots of a page.

    Returns:
        a self-contained ``<svg>`` element.
    """
    style = {"svg.fonttype": "none", "svg.hashsalt": "report", "font.size": 9, "axes.linewidth": 0.6}
    style |= dict.fromkeys(("text.color", "xtick.color", "ytick.color", "axes.edgecolor", "grid.color"), _TEXT_COLOUR)
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(4.4, 1.9))
        axes = figure.add_axes(AXES)
        axes.set(xlim=(0, max(len(result.video.frames) - 1, 1)), ylim=(-2, 102), yticks=range(0, 101, 25))
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=8)
        axes.grid(axis="y", linewidth=0.5, alpha=0.18, color="white")
        axes.patch.set_facecolor(_PANEL_COLOUR)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0, pad=4)
        for object_id, row in zip(result.score.ids, values, strict=True):
            scored = ~np.isnan(row)
            at = np.array(result.scored)[scored]
            # Markers show which frames are scored, if not all are; a single frame makes no line.
            marker = "" if len(at) > 1 and len(at) == at[-1] - at[0] + 1 else "o"
            colour = colour_of(object_id, result.entries)
            axes.plot(at, 100 * row[scored], color=colour, linewidth=1.4, marker=marker, markersize=3)
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.patch.set_visible(False)
        figure.savefig(file, format="svg", metadata=nothing)
    # An <svg> in a page needs neither the XML head nor namespaces, and the page sets its size.
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(_TEXT_COLOUR, "currentColor")
    svg = re.sub(r' (?:xmlns(?::xlink)?|width|height|version)="[^"]*"', "", svg, count=5)
    return re.sub(r'(\bid="|"#|url\(#)', rf"\g<1>{name}-", svg)


def layer(ids: np.ndarray, objects: Collection[int] = ()) -> bytes:
    """Draw a mask as a PNG layer over its frame.

    Args:
        ids: uint8 object ids [H,W]; pixels of id 0 are transparent.
        objects: the ids of all objects of the video, which select the colours, see `dataset.files.colours.colour_of`.

    Returns:
        the content of the PNG file.
    """
    # The inside of colour c is entry c of the palette, its contour is entry len(COLOURS) + c. Entry 0 is transparent,
    # and the last entry is the dark line around objects.
    shown = np.unique(ids[ids > 0])
    table = np.zeros(256, int)
    table[shown] = [COLOURS.index(colour_of(number, objects)) + 1 for number in shown]
    entries = table[ids]
    entries[contours(ids)] += len(COLOURS)
    entries[surroundings(ids)] = 2 * len(COLOURS) + 1
    image = Image.fromarray(entries.astype(np.uint8))
    image.putpalette(bytes(3) + bytes.fromhex("".join(COLOURS).replace("#", "")) * 2 + bytes(3))
    opacity = bytes([0] + [TINT] * len(COLOURS) + [EDGE] * len(COLOURS) + [LINE])
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True, transparency=opacity)
    return file.getvalue()


def _picture(evaluation: Evaluation, result: Result, number: int, object_id: int | None = None) -> dict:
    """A frame with its masks and scores, for the page's template and script; pictures in base64.

    With ``object_id``, the "region" is the part of the picture that shows this object, see `_region`.
    """
    video = result.video
    paths = {"prediction": result.predictions / video.mask_name(number), "truth": evaluation.true_mask(video, number)}
    masks = {
        kind: _read_ids(path, video, read_mask if kind == "prediction" else video.read_mask)
        for kind, path in paths.items()
        if path
    }
    size = _picture_size(video)
    file = io.BytesIO()
    Image.fromarray(video.read_frame(number)).resize(size).save(file, "WEBP", quality=PICTURE_QUALITY)
    picture = {"number": number, "name": video.frames[number].stem, "frame": file.getvalue()}
    for kind, ids in masks.items():
        picture[kind] = layer(cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST), result.entries)
    picture = {k: base64.b64encode(v).decode() if isinstance(v, bytes) else v for k, v in picture.items()}
    if number in result.scored:
        at = result.scored.index(number)
        for key, values in (("j", result.score.j), ("f", result.score.f)):
            # JSON has no NaN.
            picture[key] = [None if math.isnan(value) else round(float(value), 4) for value in values[:, at]]
    if object_id is not None:
        picture["region"] = _region(size, masks.values(), object_id)
    return picture


def _picture_size(video: Video) -> tuple[int, int]:
    """Width and height, in pixels, of a video's pictures."""
    height, width = video.size
    scale = min(1, PICTURE_WIDTH / width)
    return round(scale * width), max(1, round(scale * height))


def _region(size: tuple[int, int], masks: Iterable[np.ndarray], object_id: int) -> tuple[int, int, int, int]:
    """The part of a picture that shows an object and its surroundings: left, top, width and height in pixels.

    It is the whole picture, unless the object takes less than a third of its width and height.

    Args:
        size: the width and height of the picture, in pixels.
        masks: object ids [H,W] at the size of the video.
    """
    width, height = size
    seen = np.any([ids == object_id for ids in masks], axis=0)
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    if not rows.size:
        return 0, 0, width, height
    spans = [
        (values[0] / side, (values[-1] + 1) / side)
        for values, side in zip((columns, rows), seen.shape[::-1], strict=True)
    ]
    part = min(1, max(1 / MOST_ENLARGED, 3 * max(end - start for start, end in spans)))
    starts = [min(max(0, (start + end - part) / 2), 1 - part) for start, end in spans]
    return round(starts[0] * width), round(starts[1] * height), round(part * width), round(part * height)


def _read_ids(path: Path, video: Video, read: Callable[[Path], np.ndarray]) -> np.ndarray:
    """The object ids of a mask, uint8 [H,W], with merged objects and void pixels as in `score_plans`."""
    ids = read_sized_mask(path, video.size, video.name, read)
    if video.merge_objects:
        return (ids > 0).astype(np.uint8)
    return ids if video.void is None else np.where(ids == video.void, np.uint8(0), ids)


def _draw(
    evaluation: Evaluation, results: Sequence[Result], most: int, progress: bool
) -> tuple[list[dict], list[dict]]:
    """The worst moments and the videos, with at most ``most`` frames each, for the page's template."""
    moments = worst_moments(results)
    shown = [
        [numbers[at] for at in evenly_spaced(len(numbers), most)]
        for numbers in (result.video.results for result in results)
    ]
    tasks = [(results[moment.video], moment.frame, moment.object_id) for moment in moments]
    tasks += [(result, number) for result, numbers in zip(results, shown, strict=True) for number in numbers]
    with ThreadPoolExecutor() as pool:
        drawn = pool.map(lambda task: _picture(evaluation, *task), tasks)
        pictures = iter(list(tqdm(drawn, total=len(tasks), desc="drawing", unit="picture", disable=hidden(progress))))
    described = [
        {
            **moment._asdict(),
            "colour": colour_of(moment.object_id, results[moment.video].entries),
            "region": picture.pop("region"),
            "picture": picture,
        }
        for moment, picture in zip(moments, pictures, strict=False)
    ]
    videos = [
        _describe(evaluation, index, result, [next(pictures) for _ in numbers])
        for index, (result, numbers) in enumerate(zip(results, shown, strict=True))
    ]
    return described, videos


def _headlines(overall: dict[str, float]) -> list[dict]:
    """The global figures for the top of the page, the most important one first; none without ground truth."""
    explained = {"J": "region similarity", "F": "contour accuracy", "O": "mean of the four"}
    if "J&F-Mean" not in overall:  # YouTube-VOS
        return [
            {"name": key.replace("_", " "), "explanation": explained[key[0]], "figure": figure, "more": {}}
            for key, figure in overall.items()
        ]
    measures = [
        {
            "name": measure,
            "explanation": explained[measure],
            "figure": overall[f"{measure}-Mean"],
            "more": {name.lower(): overall[f"{measure}-{name}"] for name in ("Recall", "Decay")},
        }
        for measure in "JF"
    ]
    return [{"name": "J&F", "explanation": "", "figure": overall["J&F-Mean"], "more": {}}, *measures]


def _describe(evaluation: Evaluation, index: int, result: Result, pictures: list[dict]) -> dict:
    """The description of a video for the page's template."""
    video, score = result.video, result.score
    measures = (("J, region similarity", score.j), ("F, contour accuracy", score.f)) if score else ()
    return {
        "name": video.name,
        "length": len(video.frames),
        "picture_size": _picture_size(video),
        "fps": result.throughput.fps,
        "merged": video.merge_objects,
        "objects": _describe_objects(evaluation, result),
        "pictures": pictures,
        "has_truth": any("truth" in picture for picture in pictures),
        "plots": [
            {"title": title, "svg": plot(values, result, f"{title[0].lower()}{index}")} for title, values in measures
        ],
    }


def _describe_objects(evaluation: Evaluation, result: Result) -> list[dict]:
    """The description of a video's objects for the page's template."""
    video = result.video
    nothing = statistics([])
    figures = {item.id: item for item in result.score.objects} if result.score else {}
    entries = result.entries
    return [
        {
            "id": object_id,
            "colour": colour_of(object_id, entries),
            "category": evaluation.category(video.name, object_id),
            # Empty for objects that are there from the start.
            "entry": video.frame_name(entries[object_id]) if entries.get(object_id) else "",
            "figures": figures.get(object_id, ObjectFigures(object_id, 0, nothing, nothing)),
        }
        for object_id in result.objects
    ]
