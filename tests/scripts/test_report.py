"""The page that scripts/report.py writes, taken apart without a browser."""

import base64
import html.parser
import io
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from conftest import draw_clip, store_masks, write_collection, write_davis, write_evaluation
from dataset.files.colours import COLOURS
from dataset.files.images import read_mask, write_mask
from dataset.layouts.folder_videos import FolderVideos
from dataset.layouts.youtube import YouTubeVOS
from util.errors import InputError
from util.evaluation.metrics import statistics
from util.evaluation.protocols import FolderEvaluation, YouTubeEvaluation, recorded_evaluation
from util.evaluation.report import EDGE, LINE, TINT, write_report
from util.evaluation.scoring import global_results, score_plans, score_videos, write_results

ODD = """<!--<script>&"'{{1}}"""  # legal as a folder's name
LENGTHS = {"clip": 25, ODD: 6}
VOID_TAGS = {"meta", "input", "image", "use", "path", "br", "link", "img"}


class Page(html.parser.HTMLParser):
    """A page's elements, each as its tag, attributes and the text in it, its children's included."""

    def __init__(self, path: Path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[dict] = []
        self._open: list[dict] = []
        self.feed(self.source)
        self.close()
        assert not self._open, "an element is not closed"

    def handle_starttag(self, tag, attributes):
        element = {"tag": tag, "text": "", **dict(attributes)}
        self.elements.append(element)
        if tag not in VOID_TAGS:
            self._open.append(element)

    def handle_startendtag(self, tag, attributes):
        self.elements.append({"tag": tag, "text": "", **dict(attributes)})

    def handle_endtag(self, tag):
        if tag not in VOID_TAGS:
            assert self._open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self._open:
            element["text"] += data

    def all(self, tag: str, **attributes: str) -> list[dict]:
        return [e for e in self.elements if e["tag"] == tag and attributes.items() <= e.items()]

    def texts(self, tag: str, **attributes: str) -> list[str]:
        return [" ".join(e["text"].split()) for e in self.all(tag, **attributes)]

    @property
    def players(self) -> list[list[dict]]:
        """The pictures of each video's player."""
        return [json.loads(element["text"]) for element in self.all("script", type="application/json")]


def decode(picture: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(picture)))


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def report(output: Path, davis: Path, page: Path) -> list[str]:
    """Write the page about an output of eval_davis.py; returns the notes."""
    return write_report(output, recorded_evaluation(output, davis_path=davis), page)


@pytest.fixture(scope="module")
def davis(tmp_path_factory) -> Path:
    return write_davis(tmp_path_factory.mktemp("davis"), LENGTHS)


@pytest.fixture(scope="module")
def scores(davis, evaluated):
    return score_videos(davis / "trainval/Annotations/480p", evaluated, LENGTHS)


@pytest.fixture(scope="module")
def evaluated(davis, tmp_path_factory) -> Path:
    """A finished evaluation."""
    output = write_evaluation(davis, tmp_path_factory.mktemp("evaluation") / "output", LENGTHS)
    write_results(score_videos(davis / "trainval/Annotations/480p", output, LENGTHS), output)
    return output


@pytest.fixture(scope="module")
def page(davis, evaluated, tmp_path_factory) -> Page:
    """Its report."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    assert report(evaluated, davis, path) == []
    return Page(path)


@pytest.fixture
def copy(evaluated, tmp_path) -> Path:
    """A copy of the evaluation, to be damaged."""
    return shutil.copytree(evaluated, tmp_path / "copy")


def test_the_page_needs_nothing_but_itself(page):
    assert not re.search(r"https?://|file:|@import", page.source)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)", page.source))
    for element in page.elements:
        assert element["tag"] not in ("link", "iframe", "object", "base")
        for name in ("src", "href", "xlink:href", "srcset", "poster", "action"):
            assert element.get(name, "#").startswith(("#", "data:image/")), element
    (policy,) = (e["content"] for e in page.all("meta") if "http-equiv" in e)
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_headline_figures_and_settings(page, scores):
    overall = global_results(scores)
    figures = page.texts("dd")
    assert figures[0] == percent(overall["J&F-Mean"])
    for measure in ("J", "F"):
        assert percent(overall[f"{measure}-Mean"]) in figures
        assert f"recall {percent(overall[f'{measure}-Recall'])}" in figures
        assert f"decay {percent(overall[f'{measure}-Decay'])}" in figures
    assert {"31.0 FPS", "31 frames", "2 videos", "2F+L+RDE", "θ = 3 frames", "40", "0123456789ab"} <= set(figures)
    assert page.texts("title") == ["RDE-VOS on DAVIS 2017 val"]


def test_the_table_has_every_object(page, scores):
    headings = page.texts("button")[:11]
    assert headings[:4] == ["Video", "Object", "J&F", "J mean"] and headings[-2:] == ["Scored", "FPS"]
    cells = iter(page.texts("td"))
    for score, fps in zip(scores, (50, 12), strict=True):
        for object_id, (j, f) in enumerate(zip(map(statistics, score.j), map(statistics, score.f), strict=True), 1):
            expected = [str(object_id), percent((j.mean + f.mean) / 2), *map(percent, (*j, *f))]
            length = len(score.frames) + 2
            assert [next(cells) for _ in range(10)] == [*expected, f"{length - 2} of {length}", f"{fps:.1f}"]
    assert next(cells, None) is None
    assert page.texts("th", scope="row") == [score.name for score in scores for _ in score.j]


def test_odd_names_stay_text(page):
    assert page.texts("th", scope="row")[-1] == ODD
    assert ODD not in page.source and len(page.all("script")) == 3
    assert [len(pictures) for pictures in page.players] == [25, 6]


def test_the_worst_moments_come_first(page, scores):
    every = [
        ((j + f) / 2, score.name, object_id, int(name))
        for score in scores
        for object_id, rows in enumerate(zip(score.j, score.f, strict=True), 1)
        for name, j, f in zip(score.frames, *rows, strict=True)
    ]
    shown = [float(text) for text in page.texts("b")]
    assert shown == sorted(shown) and shown[0] == round(100 * min(every)[0], 1)
    (_, name, object_id, frame) = min(every)
    moments = [text for text in page.texts("span") if ", object " in text]
    assert moments[0] == f"{name}, object {object_id}, frame {frame:05d}" and len(moments) == len(shown)


def test_a_player_shows_masks_over_frames_and_their_scores(page, davis, evaluated, scores):
    for score, pictures in zip(scores, page.players, strict=True):
        assert [picture["number"] for picture in pictures] == list(range(len(pictures)))
        assert "j" not in pictures[0] and "j" not in pictures[-1]
        for at, picture in enumerate(pictures[1:-1]):
            assert picture["j"] == pytest.approx(score.j[:, at], abs=1e-4)
            assert picture["f"] == pytest.approx(score.f[:, at], abs=1e-4)
        picture = pictures[3]
        assert decode(picture["frame"]).format == "WEBP" and decode(picture["frame"]).size == (80, 48)
        folders = {"prediction": evaluated, "truth": davis / "trainval/Annotations/480p"}
        for kind, folder in folders.items():
            ids = read_mask(folder / score.name / "00003.png")
            drawn = np.array(decode(picture[kind]).convert("RGBA"))
            assert set(np.unique(drawn[ids > 0][:, 3])) == {TINT, EDGE}
            line = (cv2.dilate(ids, np.ones((3, 3))) > 0) & (ids == 0)
            assert (drawn[line] == (0, 0, 0, LINE)).all() and not drawn[(ids == 0) & ~line].any()
            for object_id in (1, 2):
                assert (drawn[ids == object_id][:, :3] == tuple(bytes.fromhex(COLOURS[object_id - 1][1:]))).all()


def test_a_split_without_ground_truth_has_speed_and_player_only(davis, tmp_path):
    root = tmp_path / "davis"
    shutil.copytree(davis / "trainval", root / "test-dev")
    (root / "test-dev/ImageSets/2017/val.txt").rename(root / "test-dev/ImageSets/2017/test-dev.txt")
    for mask in root.glob("test-dev/Annotations/480p/*/*.png"):
        if mask.stem != "00000":
            mask.unlink()
    output = write_evaluation(davis, tmp_path / "output", LENGTHS, split="testdev")
    assert report(output, root, tmp_path / "report.html") == []
    page = Page(tmp_path / "report.html")
    assert page.texts("title") == ["RDE-VOS on DAVIS 2017 test-dev"]
    assert page.texts("td") == ["2", "25", "50.0", "2", "6", "12.0"]
    assert "31.0 FPS" in page.texts("dd") and not any("J" in text for text in page.texts("dt"))
    assert not page.all("ol") and "truth" not in page.players[0][0] and "prediction" in page.players[0][0]
    assert [radio["value"] for radio in page.all("input", type="radio")] == ["prediction", "none"] * 2
    assert "without ground truth" in page.source


def test_an_unfinished_output_says_what_is_missing(davis, copy, scores, tmp_path):
    (copy / "clip" / "00004.png").unlink()
    notes = report(copy, davis, tmp_path / "report.html")
    assert len(notes) == 1 and "clip (1 of 2 videos)" in notes[0]
    page = Page(tmp_path / "report.html")
    assert page.texts("li")[:1] == notes
    assert page.texts("dd")[0] == percent(global_results(scores[1:])["J&F-Mean"])
    assert set(page.texts("th", scope="row")) == {ODD}


def test_videos_too_short_to_be_scored(tmp_path):
    davis = write_davis(tmp_path / "davis", {"one": 1, "two": 2, "three": 3})
    output = write_evaluation(davis, tmp_path / "output", ["one", "two", "three"])
    report(output, davis, tmp_path / "report.html")
    cells = Page(tmp_path / "report.html").texts("td")
    assert cells[1:8] == ["–"] * 7 and "nan" not in cells and cells[41] != "–"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda output: (output / ".records/settings.json").write_text("{}"), "was not written by eval_davis.py"),
        (lambda output: [path.unlink() for path in output.glob("*/00003.png")], "holds no finished video"),
        (lambda output: (output / "clip/00003.png").write_text("no image"), "00003.png cannot be decoded"),
        (lambda output: Image.new("L", (9, 9)).save(output / "clip/00000.png"), "is 9×9, but the frames of clip are"),
    ],
)
def test_an_output_that_cannot_be_reported_is_refused(davis, copy, tmp_path, damage, message):
    damage(copy)
    with pytest.raises(InputError, match=re.escape(message)):
        report(copy, davis, tmp_path / "report.html")
    assert not list(tmp_path.glob("*.html"))


@pytest.fixture
def collection(tmp_path) -> Path:
    return write_collection(tmp_path / "collection")


def test_a_folder_of_videos(collection, small_checkpoint, tmp_path):
    """Objects that enter late, frames and videos without truth, and odd ids."""
    folder = FolderVideos(collection / "images", collection / "masks", collection / "truth")
    evaluation = FolderEvaluation(folder)
    output = store_masks(evaluation, tmp_path / "output", small_checkpoint, collection / "complete")
    notes = write_report(output, recorded_evaluation(output, gt=collection / "truth"), tmp_path / "report.html")
    assert len(notes) == 2 and "unmasked" in notes[0] and "untold" in notes[1]
    page = Page(tmp_path / "report.html")
    assert page.texts("title") == [f"RDE-VOS on {'/'.join((collection / 'images').parts[-3:])}"]
    assert {"48 pixels", "17 frames"} <= set(page.texts("dd"))
    assert not any("NaN" in text for text in page.texts("script", type="application/json"))  # JSON has no NaN

    scores = score_plans(evaluation.plans, output / "masks")
    overall = global_results(scores)
    assert page.texts("dd")[0] == percent(overall["J&F-Mean"])
    assert page.texts("th", scope="row") == ["again", "again", "late", "late", "untold"]
    rows = np.array(page.texts("td")).reshape(5, 10)
    assert rows[:, 0].tolist() == ["1", "2", "3", "7", "1"]
    assert rows[:, 8].tolist() == ["2 of 6", "2 of 6", "7 of 8", "4 of 8", "0 of 3"]
    figures = [item for score in scores for item in score.objects]
    assert rows[:4, 2].tolist() == [percent(item.j.mean) for item in figures]
    assert rows[4, 1:8].tolist() == ["–"] * 7

    again, late, untold = page.players
    assert [picture["name"] for picture in again if "truth" in picture] == ["shot10", "shot11", "shot13"]
    assert [picture["name"] for picture in again if "j" in picture] == ["shot11", "shot13"]
    assert [len(again), len(late), len(untold)] == [6, 8, 3] and not any("truth" in picture for picture in untold)
    assert late[3]["j"][0] is not None and late[3]["j"][1] is None and None not in late[4]["j"]
    assert [radio["value"] for radio in page.all("input", type="radio")][-2:] == ["prediction", "none"]
    objects = [text for text in page.texts("li") if text.startswith("object")]
    assert objects == ["object 1", "object 2, from frame shot10", "object 3", "object 7, from frame 00003", "object 1"]


def test_frames_that_were_not_wanted(collection, small_checkpoint, tmp_path):
    folder = FolderVideos(collection / "images", collection / "masks", every=3)
    output = store_masks(FolderEvaluation(folder), tmp_path / "output", small_checkpoint, collection / "complete")
    write_report(output, recorded_evaluation(output), tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert [[picture["number"] for picture in pictures] for pictures in page.players] == [[0, 3], [0, 3, 6], [0]]
    assert page.texts("td")[:3] == ["2", "6", "2.0"] and "without ground truth" in page.source
    # The data lie elsewhere now.
    moved = collection.rename(tmp_path / "moved")
    with pytest.raises(InputError, match=re.escape(str(collection / "images"))):
        recorded_evaluation(output)
    moved_evaluation = recorded_evaluation(output, images=moved / "images", masks=moved / "masks")
    write_report(output, moved_evaluation, tmp_path / "moved.html")
    assert Page(tmp_path / "moved.html").players == page.players


def test_youtube(small_checkpoint, tmp_path):
    """Categories, a late object, and the figures of the server."""
    base = tmp_path / "valid"
    frames, ids = draw_clip(11, 48, 80, 2)
    for t in range(11):
        (base / "JPEGImages/clip").mkdir(parents=True, exist_ok=True)
        Image.fromarray(frames[t]).save(base / f"JPEGImages/clip/{t:05d}.jpg")
        write_mask(tmp_path / f"gt/clip/{t:05d}.png", ids[t])
    for t in (0, 5):
        write_mask(base / f"Annotations/clip/{t:05d}.png", ids[t])
    (tmp_path / "train").mkdir()
    asked = {"1": {"category": "dog", "frames": ["00000", "00005", "00010"]}}
    (tmp_path / "train/meta.json").write_text(json.dumps({"videos": {"one": {"objects": asked}}}))
    asked["2"] = {"category": "crab", "frames": ["00005", "00010"]}
    (base / "meta.json").write_text(json.dumps({"videos": {"clip": {"objects": asked}}}))

    output = store_masks(
        YouTubeEvaluation(YouTubeVOS(tmp_path)), tmp_path / "output", small_checkpoint, tmp_path / "gt"
    )
    write_report(output, recorded_evaluation(output), tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert page.texts("title") == ["RDE-VOS on YouTube-VOS valid"] and "without ground truth" in page.source
    assert [picture["name"] for picture in page.players[0]] == ["00000", "00005", "00010"]
    assert page.texts("li")[1:] == ["object 1, dog", "object 2, crab, from frame 00005"]

    evaluation = recorded_evaluation(output, gt=tmp_path / "gt")
    write_report(output, evaluation, tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    scores = score_plans(evaluation.plans, output / "Annotations")
    figures = evaluation.figures(scores)
    assert page.texts("dd")[:5] == [percent(figure) for figure in figures.values()]
    assert page.texts("dt")[:2] == ["Overall mean of the four", "J seen region similarity"]
    rows = np.array(page.texts("td")).reshape(2, 11)
    assert rows[:, :2].tolist() == [["1", "dog, seen"], ["2", "crab, unseen"]]
    assert rows[:, 9].tolist() == ["2 of 11", "1 of 11"]
    assert rows[:, 3].tolist() == [percent(item.j.mean) for item in scores[0].objects]
