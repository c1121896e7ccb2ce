"""The annotation tool in a real browser: from an empty folder to an export, by mouse, finger and keyboard."""

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
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from annotator import Running
from browser import drag, needs_chromium, one, view, wait
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


def pressed(page, *points: tuple[float, float], release: bool = True) -> None:
    """Press at the first point of the frame, move to the others, and let go."""
    drag(page, *[place(page, *point) for point in points], release=release)


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


def dab(page, x: float, y: float, size: int = 2 * RADIUS) -> None:
    """Paint a disc."""
    brush_size(page, size)
    pressed(page, (x, y), (x, y + 0.5))
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


def test_a_box_becomes_an_object(page, server):
    boxed(page, 1)
    wait(page, lambda: kinds(page)[0] == "annotated")
    idle(page)
    assert overlap(server.ids(0) == 1, DISCS[0] == 1) > 0.8


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
    folder = tmp_path / "masks"
    folder.mkdir()
    for number in (3, 4):
        write_mask(folder / f"{number:05d}.png", DISCS[number])
    (folder / ".DS_Store").write_bytes(b"x")
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
