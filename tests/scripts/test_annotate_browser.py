"""The annotation tool in a real browser: from an empty folder to an export, by mouse, pen, finger and keyboard."""

import contextlib
import io
import os
import re
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from annotator import Running
from browser import needs_chromium, one, view, wait
from conftest import draw_clip
from dataset.files.images import read_mask, write_mask

pytestmark = needs_chromium

HEIGHT, WIDTH, LENGTH = 96, 160, 12
DISCS = draw_clip(LENGTH, HEIGHT, WIDTH, 2)[1]  # ids [T,H,W]
CENTRES = {1: (54, 48), 2: (107, 58)}  # of the discs in frame 0
RADIUS = 19
FITS = (
    "const {scrollWidth, scrollHeight} = document.body; return scrollWidth <= innerWidth && scrollHeight <= innerHeight"
)


class Server(Running):
    """A running annotate.py and what it has stored."""

    def ids(self, number: int) -> np.ndarray:
        return self.mask(number)[0]

    def empty(self) -> None:
        """Delete all objects, and all masks with the last of them."""
        for entry in self.state()["objects"]:
            self.json("DELETE", f"api/objects/{entry['id']}", status=202)
            self.idle()
        state = self.state()
        assert not state["objects"] and not state["annotated"] and not state["propagated"]


def write_clip(folder: Path, length: int = LENGTH) -> Path:
    folder.mkdir()
    for number, frame in enumerate(draw_clip(length, HEIGHT, WIDTH, 2)[0]):
        Image.fromarray(frame).save(folder / f"{number:05d}.jpg", quality=95)
    return folder


@contextlib.contextmanager
def serving(clip: Path, output: Path, *flags: object) -> Iterator[Server]:
    server = Server(clip, output, (HEIGHT, WIDTH), *flags)
    try:
        yield server
    finally:
        server.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    """A server that all tests use which leave it running; each starts with an empty project."""
    folder = tmp_path_factory.mktemp("annotation")
    with serving(write_clip(folder / "clip"), folder / "output") as running:
        yield running


@pytest.fixture
def browser(chromium) -> Iterator[webdriver.Chrome]:
    """A browser that must have nothing to complain of in the end."""
    view(chromium, 1280, "light")
    yield chromium
    assert chromium.get_log("browser") == []


@pytest.fixture
def page(browser, server) -> webdriver.Chrome:
    """The page of an empty project."""
    server.empty()
    opened(browser, server)
    keys(browser, "b")
    return browser


def opened(browser, server: Server) -> webdriver.Chrome:
    browser.get(f"http://{server.host}{server.root}")
    wait(browser, lambda: browser.execute_script("return window.annotator && annotator.ready"))
    return browser


def seek(page, number: int) -> None:
    page.execute_script("return annotator.seek(arguments[0])", number)
    assert page.execute_script("return annotator.frame") == number


def idle(page) -> None:
    page.execute_script("return annotator.idle()")


def kinds(page, length: int = LENGTH) -> list[str]:
    return page.execute_script("return Array.from({length: arguments[0]}, (_, n) => annotator.kind(n))", length)


def keys(page, *pressed: str) -> None:
    webdriver.ActionChains(page).send_keys(*pressed).perform()


def control(page, key: str) -> None:
    webdriver.ActionChains(page).key_down(Keys.CONTROL).send_keys(key).key_up(Keys.CONTROL).perform()


def undo(page) -> None:
    control(page, "z")
    idle(page)


def place(page, x: float, y: float) -> tuple[int, int]:
    """The point of the window where a point of the frame is."""
    return tuple(map(round, page.execute_script("return annotator.place(...arguments)", x, y)))


def pressed(page, *points: tuple[float, float], kind: str = "mouse", release: bool = True) -> None:
    """Press at the first point of the frame, move to the others, and let go."""
    actions = ActionBuilder(page, mouse=PointerInput(kind, kind), duration=10)
    pointer = actions.pointer_action
    pointer.move_to_location(*place(page, *points[0])).pointer_down()
    for point in points[1:]:
        pointer.move_to_location(*place(page, *point))
    if release:
        pointer.pointer_up()
    actions.perform()


def released(page) -> None:
    actions = ActionBuilder(page, mouse=PointerInput("mouse", "mouse"))
    actions.pointer_action.pointer_up()
    actions.perform()


def brush_size(page, size: int) -> None:
    page.execute_script(
        "const input = document.querySelector('#brush-size'); input.value = arguments[0];"
        "input.dispatchEvent(new Event('input'))",
        size,
    )


def dab(page, x: float, y: float, size: int = 2 * RADIUS, **options) -> None:
    """Paint a disc."""
    brush_size(page, size)
    pressed(page, (x, y), (x, y + 0.5), **options)
    idle(page)


def polygon(page, x: float, y: float) -> None:
    """Click the corners of a disc, and close the polygon by the keyboard."""
    keys(page, "p")
    for angle in np.arange(8) * np.pi / 4:
        pressed(page, (x + RADIUS * np.cos(angle), y + RADIUS * np.sin(angle)))
    keys(page, Keys.ENTER, "b")
    idle(page)


def boxed(page, number: int) -> None:
    """Drag a box around a disc, and do not wait for the answer."""
    (x, y), reach = CENTRES[number], RADIUS + 5
    keys(page, "g")
    pressed(page, (x - reach, y - reach), (x, y), (x + reach, y + reach))


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


def canvas(page) -> str:
    """The picture on the canvas, as a data URL."""
    return page.execute_script("return document.querySelector('#picture').toDataURL()")


def text(page, selector: str) -> str:
    return one(page, selector).text


def shown(page, selector: str) -> bool:
    return one(page, selector).is_displayed()


def propagated(page, key: str = "f") -> None:
    """Propagate, and wait for the end."""
    page.execute_script("document.querySelector('#notices').replaceChildren()")
    keys(page, key)
    wait(page, lambda: "has propagated" in text(page, "#notices"))


def test_from_an_empty_folder_to_an_export(browser, tmp_path):
    clip, output = write_clip(tmp_path / "clip"), tmp_path / "output"
    with serving(clip, output) as server:
        page = opened(browser, server)
        assert "Drag a box" in text(page, "#guide")
        keys(page, "b")
        dab(page, *CENTRES[1])  # makes object 1
        keys(page, "n")
        wait(page, lambda: len(page.find_elements(By.CSS_SELECTOR, "#objects li")) == 2)
        polygon(page, *CENTRES[2])
        ids = server.ids(0)
        assert all(overlap(ids == i, DISCS[0] == i) > 0.8 for i in (1, 2))
        assert "press F" in text(page, "#guide")

        propagated(page)
        assert kinds(page) == ["annotated"] + ["propagated"] * (LENGTH - 1)
        first = [server.ids(number) for number in range(LENGTH)]
        assert "uncertainty" in text(page, "#frame-kind")  # the canvas has followed

        seek(page, 6)
        keys(page, "1")
        dab(page, 75, 25, size=12)
        keys(page, "2", "e")
        dab(page, 118, 60, size=14)
        assert kinds(page)[6] == "annotated"
        corrected = server.ids(6)
        assert (corrected[20:30, 70:80] == 1).mean() > 0.6 and (first[6][20:30, 70:80] == 1).mean() < 0.1
        assert (corrected[56:64, 114:122] == 2).mean() < 0.1 and (first[6][56:64, 114:122] == 2).mean() > 0.5

        propagated(page)
        assert kinds(page) == ["annotated" if number in (0, 6) else "propagated" for number in range(LENGTH)]

        one(page, "#export").click()
        one(page, "#export-start").click()
        wait(page, lambda: "DAVIS" in text(page, "#export-result"))
        for path in ("masks", "overlay.mp4", "DAVIS"):
            assert str(output / "export" / path) in text(page, "#export-result")
        page.get("about:blank")

    exported = [read_mask(output / "export/masks" / f"{number:05d}.png") for number in range(LENGTH)]
    assert np.array_equal(exported[0], ids) and np.array_equal(exported[6], corrected)
    assert all(np.array_equal(exported[number], first[number]) for number in range(1, 6))
    assert any((exported[number] != first[number]).any() for number in range(7, LENGTH))  # since the correction


def test_killing_the_server_loses_no_mask(browser, tmp_path):
    length = 100
    clip, output = write_clip(tmp_path / "clip", length), tmp_path / "output"
    with serving(clip, output, "--size", 2 * HEIGHT) as server:  # slow enough to be killed on the way
        page = opened(browser, server)
        keys(page, "b")
        dab(page, *CENTRES[1])
        keys(page, "f")
        wait(page, lambda: kinds(page, length).count("propagated") >= 3)
        one(page, "#follow").click()
        seek(page, 3)
        picture = canvas(page)
        opened(page, server)  # loaded again: the count of the frames goes on
        one(page, "#stop").click()
        wait(page, lambda: "has propagated" in text(page, "#notices"))
        count = int(re.search(r"propagated (\d+) frame", text(page, "#notices"))[1])
        assert count == kinds(page, length).count("propagated")
        seek(page, 0)
        keys(page, "f")
        wait(page, lambda: shown(page, "#job") and kinds(page, length).count("propagated") > 0)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
    with serving(clip, output) as server:
        wait(page, lambda: shown(page, "#lost"))
        assert "start the same command again" in text(page, "#lost")
        known = kinds(page, length)
        assert "none" in known

        page = opened(browser, server)
        assert all("net::ERR" in entry["message"] for entry in page.get_log("browser"))  # while there was no server
        now = kinds(page, length)
        assert [now[number] for number in range(length) if known[number] != "none"] == [
            kind for kind in known if kind != "none"
        ]
        seek(page, 3)
        assert canvas(page) == picture
        page.get("about:blank")


def test_undo_and_redo(page, server):
    empty = canvas(page)
    dab(page, *CENTRES[1])
    first = server.ids(0)
    dab(page, *CENTRES[2])
    both = server.ids(0)
    assert first.any() and (both != first).any()
    undo(page)
    assert np.array_equal(server.ids(0), first)
    one(page, "#undo").click()
    idle(page)
    assert kinds(page)[0] == "none" and not server.ids(0).any() and not one(page, "#undo").is_enabled()
    wait(page, lambda: canvas(page) == empty)
    control(page, "y")
    one(page, "#redo").click()
    idle(page)
    assert np.array_equal(server.ids(0), both) and not one(page, "#redo").is_enabled()
    seek(page, 1)
    assert not one(page, "#undo").is_enabled()  # each frame has its own steps
    seek(page, 0)
    keys(page, Keys.DELETE)
    idle(page)
    assert kinds(page)[0] == "none"
    undo(page)
    assert np.array_equal(server.ids(0), both)


def test_undo_gives_a_propagated_mask_back(page, server):
    """With its uncertainty, and not as an annotation that no propagation changes."""
    dab(page, *CENTRES[1])
    propagated(page)
    seek(page, 5)
    before, ids, shown = server.state(), server.ids(5), text(page, "#frame-kind")
    assert "uncertainty" in shown
    for x in (30, 45):
        dab(page, x, 20, size=8)
        assert kinds(page)[5] == "annotated" and (server.ids(5) != ids).any()
    undo(page)
    assert kinds(page)[5] == "annotated"  # one of the two strokes is left
    undo(page)
    after = server.state()
    assert all(after[name] == before[name] for name in ("annotated", "propagated", "uncertainty"))
    assert np.array_equal(server.ids(5), ids) and text(page, "#frame-kind") == shown
    keys(page, Keys.DELETE)
    idle(page)
    assert kinds(page)[5] == "none"
    undo(page)
    assert server.state()["uncertainty"] == before["uncertainty"]
    control(page, "y")
    idle(page)
    assert kinds(page)[5] == "none"


def test_a_box_becomes_an_object_and_a_mask_that_fills_its_box_leads_to_clicks(page, server):
    (x, y), reach = CENTRES[1], RADIUS + 5
    boxed(page, 1)
    wait(page, lambda: kinds(page)[0] == "annotated")
    idle(page)
    assert overlap(server.ids(0) == 1, DISCS[0] == 1) > 0.8
    assert "fills its box" not in text(page, "#notices")
    # As where nothing in the box differs from its surroundings.
    page.execute_script(
        "const given = arguments; window.realFetch ??= window.fetch;"
        "window.fetch = (address, options) => address.includes('api/cut')"
        " ? Promise.resolve(new Response(new Uint8Array(given[0]).map((_, i) => {"
        "   const [x, y] = [i % given[1], Math.floor(i / given[1])];"
        "   return x >= given[2] && x < given[4] && y >= given[3] && y < given[5];"
        " }))) : window.realFetch(address, options)",
        *(HEIGHT * WIDTH, WIDTH, x - reach, y - reach, x + reach, y + reach),
    )
    boxed(page, 1)
    idle(page)
    page.execute_script("window.fetch = window.realFetch")
    assert "fills its box" in text(page, "#notices") and "click inside the object" in text(page, "#notices")


def test_scribbles_become_an_object_and_take_no_pixel_of_another_one(page, server):
    brush_size(page, 12)
    pressed(page, (CENTRES[2][0] - 8, 52), (CENTRES[2][0] + 8, 52))
    keys(page, "n", "s")
    x, y = CENTRES[2]
    pressed(page, (x - 8, y + 8), (x + 8, y + 8))
    idle(page)
    ids = server.ids(0)
    painted = ids == 1
    assert painted.sum() > 100 and (ids > 0)[DISCS[0] == 2].mean() > 0.6
    one(page, "#outside").click()
    pressed(page, (x - 8, y + 10), (x + 8, y + 10))  # the same tool takes away
    one(page, "#outside").click()
    idle(page)
    less = server.ids(0)
    assert (less[y + 10, x - 6 : x + 6] != 2).all() and np.array_equal(less == 1, painted)
    undo(page)
    assert np.array_equal(server.ids(0), ids)


def test_clicks_become_an_object(page, server):
    keys(page, "k")
    x, y = CENTRES[1]
    pressed(page, (x, y))
    idle(page)
    ids = server.ids(0)
    assert (ids == 1)[DISCS[0] == 1].mean() > 0.95
    webdriver.ActionChains(page).key_down(Keys.SHIFT).perform()
    for point in ((x, y + 30), (x - 30, y), (x + 26, y)):  # what is too much
        pressed(page, point)
    webdriver.ActionChains(page).key_up(Keys.SHIFT).perform()
    idle(page)
    better = server.ids(0)
    assert overlap(better == 1, DISCS[0] == 1) > 0.1 + overlap(ids == 1, DISCS[0] == 1)


@contextlib.contextmanager
def slow_answers(page, path: str, seconds: float = 1.0) -> Iterator[None]:
    """Requests whose address holds ``path`` take longer, as on a large frame."""
    page.execute_script(
        "const [path, wait] = arguments; window.realFetch ??= window.fetch;"
        "window.fetch = async (address, options) => {"
        "  if (address.includes(path)) await new Promise((resolve) => setTimeout(resolve, wait));"
        "  return window.realFetch(address, options);"
        "}",
        path,
        1000 * seconds,
    )
    yield
    page.execute_script("window.fetch = window.realFetch")


def test_an_object_is_the_one_to_draw_before_the_server_has_answered(page, server):
    with slow_answers(page, "api/objects"):
        brush_size(page, 12)
        for number in CENTRES:
            pressed(page, CENTRES[number], (CENTRES[number][0] + 1, CENTRES[number][1]))
            keys(page, "n")
    idle(page)
    ids = server.ids(0)
    assert [ids[y, x] for x, y in CENTRES.values()] == [1, 2] and set(np.unique(ids)) == {0, 1, 2}
    wait(page, lambda: len(page.find_elements(By.CSS_SELECTOR, "#objects li")) == 3)
    assert one(page, "#objects li:last-child").get_attribute("class").split() == ["current"]  # the third


def marks(page) -> bool:
    """Whether the stage shows any mark of the tools."""
    page.execute_script("return new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
    return page.execute_script(
        "const canvas = document.querySelector('#marks'), empty = document.createElement('canvas');"
        "Object.assign(empty, {width: canvas.width, height: canvas.height});"
        "return canvas.toDataURL() !== empty.toDataURL()"
    )


def test_f_waits_for_the_box(page, server):
    """With a mask in the frame, and without one; the box stays visible until its answer is there."""
    for number in (1, 2):
        with slow_answers(page, "api/cut"):
            boxed(page, number)
            assert marks(page) and text(page, "#save-state") == "Saving …"
            propagated(page)
        assert not marks(page) and text(page, "#save-state") == "Saved"
        assert overlap(server.ids(0) == number, DISCS[0] == number) > 0.7
        assert (server.ids(LENGTH - 1) == number).any()
        assert "has no mask" not in text(page, "#notices")
        seek(page, 0)
        keys(page, "n")
        wait(page, lambda number=number: len(page.find_elements(By.CSS_SELECTOR, "#objects li")) == number + 1)


def test_nothing_is_lost_while_the_server_is_at_work(page, server):
    """Strokes, other tools, other objects and other frames may come before the answer."""
    with slow_answers(page, "api/cut"):
        boxed(page, 1)
        keys(page, "b")
        brush_size(page, 8)
        pressed(page, (10, 10), (30, 10))  # beside the box
        keys(page, "n")
        wait(page, lambda: len(page.find_elements(By.CSS_SELECTOR, "#objects li")) == 2)
        keys(page, "k")
        pressed(page, CENTRES[2])
        keys(page, Keys.ARROW_RIGHT)
        idle(page)
    assert page.execute_script("return annotator.frame") == 1 and kinds(page)[:2] == ["annotated", "none"]
    ids = server.ids(0)
    assert overlap(np.where(DISCS[0] == 1, ids == 1, 0) > 0, DISCS[0] == 1) > 0.8
    assert (ids[10, 12:28] == 1).all()
    assert (ids == 2).sum() > 300
    assert not server.ids(1).any()
    seek(page, 0)
    for _ in range(3):
        undo(page)
    assert not server.ids(0).any()


def test_escape_and_undo_drop_what_the_server_is_asked_for(page, server):
    with slow_answers(page, "api/cut"):
        boxed(page, 1)
        control(page, "z")
        idle(page)
        boxed(page, 1)
        keys(page, Keys.ESCAPE)
        idle(page)
        assert not marks(page) and text(page, "#save-state") == "Saved"
    assert kinds(page)[0] == "none"


def test_f_ends_the_polygon_and_the_stroke(page, server):
    x, y = CENTRES[1]
    keys(page, "p")
    for dx, dy in ((-15, -15), (15, -15)):
        pressed(page, (x + dx, y + dy))
    keys(page, "f")
    wait(page, lambda: "fewer than three corners" in text(page, "#notices"))
    assert kinds(page)[0] == "none"
    # The corners stay while another frame is shown, and another tool is chosen.
    keys(page, Keys.ARROW_RIGHT, "b")
    wait(page, lambda: page.execute_script("return annotator.frame") == 1)
    assert not shown(page, "#actions")
    seek(page, 0)
    keys(page, "p")
    assert text(page, "#actions-text") == "Click at least three corners."
    for dx, dy in ((15, 15), (-15, 15), (80, 0), (80, 5)):
        pressed(page, (x + dx, y + dy))
    assert text(page, "#actions-text") == "6 corners"
    control(page, "z")
    keys(page, Keys.BACKSPACE)  # both take back the last corner
    assert text(page, "#actions-text") == "4 corners"
    propagated(page)
    assert (server.ids(0)[y - 14 : y + 14, x - 14 : x + 14] == 1).all() and (server.ids(0) == 1).sum() < 1000
    assert kinds(page)[1] == "propagated"

    seek(page, 0)
    keys(page, "b")
    brush_size(page, 6)
    pressed(page, (10, 10), (30, 10), release=False)
    propagated(page)
    released(page)
    idle(page)
    assert (server.ids(0)[10, 12:28] == 1).all() and kinds(page)[0] == "annotated"


def test_nothing_covers_the_picture(page, server):
    """Each point of the stage belongs to the canvas, whatever the page has to say; and the picture keeps its place."""
    covered = """
        const {left, top, right, bottom} = document.querySelector("#stage").getBoundingClientRect();
        const points = [];
        for (let x = left + 1; x < right; x += 9) for (let y = top + 1; y < bottom; y += 9) points.push([x, y]);
        return points.filter(([x, y]) => document.elementFromPoint(x, y).id !== "marks");
    """
    for width, height in ((1280, 800), (800, 1000)):
        view(page, width, "light", height)
        wait(page, lambda: page.execute_script(FITS))
        page.execute_script("return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        at = place(page, 40, 30)
        keys(page, "p")
        for point in ((40, 30), (60, 30), (60, 50)):
            pressed(page, point)
        assert shown(page, "#actions") and page.execute_script(covered) == []
        keys(page, Keys.ESCAPE)
        for number in (LENGTH - 1, 5):  # two sentences
            seek(page, number)
            keys(page, "f")
        wait(page, lambda: "has no mask" in text(page, "#notices"))
        assert page.execute_script(covered) == [] and place(page, 40, 30) == at
        seek(page, 0)


def test_a_sentence_goes_away_when_it_is_true_no_more(page, server):
    keys(page, "f")
    wait(page, lambda: "Frame 0 has no mask" in text(page, "#notices"))
    dab(page, *CENTRES[1])
    assert "has no mask" not in text(page, "#notices")
    propagated(page)
    assert f"propagated {LENGTH - 1} frames" in text(page, "#notices")
    seek(page, 2)
    assert "propagated" not in text(page, "#notices")
    keys(page, "u")
    wait(page, lambda: "Check frame" in text(page, "#guide"))
    frame = page.execute_script("return annotator.frame")
    assert f"Check frame {frame}: correct the mask if it is wrong" in text(page, "#guide")


def test_a_sentence_leaves_the_guide_in_sight(page):
    """In a narrow window, too."""
    view(page, 800, "light", 1000)
    seek(page, 5)
    keys(page, "f")
    wait(page, lambda: "Frame 5 has no mask" in text(page, "#notices") and shown(page, "#guide"))
    messages, guide = one(page, "#messages").rect, one(page, "#guide").rect
    assert messages["y"] <= guide["y"] and guide["y"] + guide["height"] <= messages["y"] + messages["height"]


def test_two_tabs(page, server):
    dab(page, *CENTRES[1])
    seek(page, 0)
    first, ids = page.current_window_handle, server.ids(0)
    page.switch_to.new_window("tab")
    try:
        view(page, 1280, "light")
        opened(page, server)
        before = canvas(page)
        keys(page, "b")
        brush_size(page, 9)
        pressed(page, (120, 20), (140, 30))
        idle(page)
        assert (server.ids(0) != ids).any() and canvas(page) != before
        after = canvas(page)
        page.switch_to.window(first)
        wait(page, lambda: canvas(page) == after)

        # The frame changes while a stroke is on its way: the stroke is refused, and the newer mask shows.
        brush_size(page, 9)
        pressed(page, (20, 80), (40, 80), release=False)
        server.put(0, ids)
        released(page)
        wait(page, lambda: "was not saved" in text(page, "#notices"))
        (complaint,) = page.get_log("browser")
        assert "412" in complaint["message"]
        idle(page)
        assert np.array_equal(server.ids(0), ids)
        wait(page, lambda: canvas(page) == before)
        assert not one(page, "#undo").is_enabled()
        pressed(page, (20, 80), (40, 80))  # and the next one is taken
        idle(page)
        assert (server.ids(0)[80, 20:40] == 1).all()
    finally:
        for handle in page.window_handles:
            if handle != first:
                page.switch_to.window(handle)
                page.close()
        page.switch_to.window(first)


def touches(page, kind: str, *points: tuple[float, float]) -> None:
    """Fingers at points of the window."""
    fingers = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
    page.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": fingers})


def test_fingers_paint_pan_and_pinch(page, server):
    a, b = place(page, 40, 40), place(page, 80, 40)
    brush_size(page, 10)
    touches(page, "Start", a)
    touches(page, "Move", b)
    touches(page, "End")
    idle(page)
    painted = server.ids(0)
    assert (painted[40, 42:78] == 1).all() and painted[60:].sum() == 0

    zoom = text(page, "#zoom-output")
    touches(page, "Start", place(page, 60, 70))
    touches(page, "Start", place(page, 60, 70), place(page, 80, 70))  # the dot of the first finger goes away
    touches(page, "Move", place(page, 50, 70), place(page, 90, 70))
    touches(page, "End")
    idle(page)
    assert text(page, "#zoom-output") != zoom and np.array_equal(server.ids(0), painted)
    middle = place(page, 70, 70)
    keys(page, "0")
    assert text(page, "#zoom-output") == zoom
    assert np.abs(np.subtract(middle, place(page, 70, 70))).max() < 40  # the frame was zoomed about the fingers


def test_a_pen_paints_and_fingers_pan_then(page, server):
    dab(page, 60, 40, size=20, kind="pen")
    painted = server.ids(0)
    assert painted[40, 60] == 1 and 200 < painted.sum() < 420
    before = place(page, 60, 40)
    start, end = place(page, 90, 60), place(page, 100, 70)
    touches(page, "Start", start)
    touches(page, "Move", end)
    touches(page, "End")
    idle(page)
    assert np.array_equal(server.ids(0), painted)  # the hand that holds the pen paints nothing
    assert np.allclose(np.subtract(place(page, 60, 40), before), np.subtract(end, start), atol=2)


def test_the_wheel_zooms_about_the_pointer_and_space_pans(page, server):
    target = place(page, 40, 30)
    origin = ScrollOrigin.from_viewport(*target)
    webdriver.ActionChains(page).scroll_from_origin(origin, 0, -300).perform()
    assert np.abs(np.subtract(place(page, 40, 30), target)).max() <= 1 and place(page, 60, 30) != target
    right = place(page, 60, 30)[0] - target[0]
    webdriver.ActionChains(page).key_down(" ").perform()
    pressed(page, (40, 30), (50, 30))
    webdriver.ActionChains(page).key_up(" ").perform()
    assert place(page, 40, 30)[0] - target[0] == pytest.approx(right / 2, abs=2)
    idle(page)
    assert kinds(page)[0] == "none"  # nothing was painted
    assert one(page, "#play").get_attribute("title").startswith("Play")  # the space bar has moved the frame
    dab(page, 45, 35, size=6)
    assert server.ids(0)[35, 45] == 1 and server.ids(0).sum() < 60


def test_objects(page, server):
    dab(page, *CENTRES[1])
    keys(page, "n")
    wait(page, lambda: len(page.find_elements(By.CSS_SELECTOR, "#objects li")) == 2)
    dab(page, *CENTRES[2])
    rows = page.find_elements(By.CSS_SELECTOR, "#objects li")
    name = rows[1].find_element(By.CSS_SELECTOR, "[type=text]")
    # Letters and digits in a name choose no tool and no object.
    name.send_keys(Keys.CONTROL, "a", Keys.NULL, "be 1 fun", Keys.ENTER)
    assert one(page, "#tool-brush").get_attribute("aria-pressed") == "true"
    assert "current" in rows[1].get_attribute("class")
    wait(page, lambda: server.state()["objects"][1]["name"] == "be 1 fun")

    visible = canvas(page)
    eye = rows[0].find_element(By.CSS_SELECTOR, ".eye")
    eye.click()
    wait(page, lambda: not server.state()["objects"][0]["visible"] and canvas(page) != visible)
    eye.click()
    wait(page, lambda: canvas(page) == visible)
    page.execute_script(
        "const input = arguments[0].querySelector('[type=color]'); input.value = '#00ffff';"
        "for (const type of ['input', 'change']) input.dispatchEvent(new Event(type))",
        rows[0],
    )
    wait(page, lambda: server.state()["objects"][0]["colour"] == "#00ffff" and canvas(page) != visible)

    keys(page, "1")
    assert "current" in rows[0].get_attribute("class")
    rows[0].find_element(By.CSS_SELECTOR, ".bin").click()
    one(page, "#delete-keep").click()
    assert len(page.find_elements(By.CSS_SELECTOR, "#objects li")) == 2
    rows[0].find_element(By.CSS_SELECTOR, ".bin").click()
    one(page, "#delete-confirm").click()
    wait(page, lambda: len(page.find_elements(By.CSS_SELECTOR, "#objects li")) == 1 and not shown(page, "#job"))
    assert set(np.unique(server.ids(0))) == {0, 2}
    assert not one(page, "#undo").is_enabled()  # a step could bring the object back


def test_import_and_zip(page, server, tmp_path):
    mask = tmp_path / "mask of frame zero.png"
    Image.fromarray(np.where(DISCS[0] == 1, 255, 0).astype(np.uint8)).save(mask)
    one(page, "#import").click()
    one(page, "#import-file").send_keys(str(mask))
    wait(page, lambda: "1 object" in text(page, "#import-result"))
    assert np.array_equal(server.ids(0), DISCS[0] == 1)
    Image.new("RGB", (9, 9)).save(tmp_path / "wrong.png")
    one(page, "#import-file").send_keys(str(tmp_path / "wrong.png"))
    wait(page, lambda: text(page, "#import-result").startswith("wrong.png is 9×9"))  # names keep their letters
    (complaint,) = page.get_log("browser")
    assert "400" in complaint["message"]
    folder = tmp_path / "masks"
    folder.mkdir()
    for number in (3, 4):
        write_mask(folder / f"{number:05d}.png", DISCS[number])
    one(page, "#import-folder").send_keys(str(folder))
    wait(page, lambda: "Mask 00004.png: 2 objects" in text(page, "#import-result"))
    assert np.array_equal(server.ids(4), DISCS[4])
    assert [number for number, kind in enumerate(kinds(page)) if kind == "annotated"] == [0, 3, 4]
    keys(page, Keys.ESCAPE)

    one(page, "#export").click()
    one(page, "#export-davis").click()
    one(page, "#export-start").click()
    wait(page, lambda: "Download" in text(page, "#export-result"))
    assert str(server.output / "export/masks") in text(page, "#export-result")
    link = one(page, "#export-result a").get_attribute("href")
    with zipfile.ZipFile(io.BytesIO(server.request("GET", urlsplit(link).path, root="")[1])) as archive:
        assert "overlay.mp4" in archive.namelist() and "masks/00004.png" in archive.namelist()


def test_frames_are_reached_by_keys_timeline_and_playing(page, server):
    dab(page, *CENTRES[1])
    keys(page, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    wait(page, lambda: page.execute_script("return annotator.frame") == 2)
    track = one(page, "#timeline")
    webdriver.ActionChains(page).move_to_element_with_offset(track, track.size["width"] // 4, 0).click().perform()
    wait(page, lambda: page.execute_script("return annotator.frame") == LENGTH * 3 // 4)
    assert track.get_attribute("aria-valuetext") == f"frame {LENGTH * 3 // 4}, none"
    webdriver.ActionChains(page).key_down(Keys.SHIFT).send_keys(Keys.ARROW_LEFT).key_up(Keys.SHIFT).perform()
    wait(page, lambda: page.execute_script("return annotator.frame") == 0)
    keys(page, "l")
    assert one(page, "#play").get_attribute("title").startswith("Pause")
    wait(page, lambda: page.execute_script("return annotator.frame") == LENGTH - 1)
    wait(page, lambda: one(page, "#play").get_attribute("title").startswith("Play"))
    seek(page, 0)
    webdriver.ActionChains(page).key_down(" ").key_up(" ").perform()  # as in other players
    assert one(page, "#play").get_attribute("title").startswith("Pause")
    keys(page, Keys.END)
    wait(page, lambda: page.execute_script("return annotator.frame") == LENGTH - 1)
    keys(page, "f")  # no mask here: a sentence, and no request
    assert f"Frame {LENGTH - 1} has no mask" in text(page, "#notices")


def test_everything_fits(page):
    keys(page, "s")
    for width, height in ((1280, 800), (800, 1000)):
        for scheme in ("light", "dark"):
            view(page, width, scheme, height)
            wait(page, lambda: page.execute_script(FITS))
            wrong = page.execute_script("""
                return [...document.querySelectorAll("button, input, select")].filter((control) => {
                  if (!control.checkVisibility()) return false;
                  const target = control.closest("label") ?? control; // a click on the label counts
                  const {left, top, right, bottom} = target.getBoundingClientRect();
                  const isInside = left >= 0 && top >= 0 && right <= innerWidth && bottom <= innerHeight;
                  const middle = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
                  const isNamed = target.textContent.trim() || control.ariaLabel;
                  const isLarge = bottom - top >= 32 && right - left >= 28;
                  return !isInside || !target.contains(middle) || !isLarge || !isNamed;
                }).map((control) => control.outerHTML)
            """)
            assert wrong == [], (width, scheme)
            stage = one(page, "#stage").rect
            assert stage["width"] * stage["height"] > 0.38 * width * height
            back = re.findall(r"\d+", one(page, "body").value_of_css_property("background-color"))[:3]
            assert sum(map(int, back)) < 150 if scheme == "dark" else sum(map(int, back)) > 600
    keys(page, "?")
    assert "Propagate forward" in text(page, "#shortcuts-table")
