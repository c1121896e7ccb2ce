"""The live page of scripts/segment_video.py in a real browser: a camera's frame is marked by mouse, finger and pen."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from browser import drag, needs_chromium, one, view, wait
from camera import iter_until, running_camera
from conftest import ROOT, draw_clip
from dataset.files.images import read_mask

pytestmark = needs_chromium

HEIGHT, WIDTH = 96, 160
CENTRES = {1: (53, 48), 2: (107, 58)}  # of the discs
REACH = 21  # pixels from the centre of a disc to the box around it


@pytest.fixture
def page(chromium, tmp_path) -> Iterator[tuple[webdriver.Chrome, subprocess.Popen]]:
    """The page of a camera that shows two discs, and the command; its output is ``output``."""
    view(chromium, 1000, "light")
    frames = draw_clip(1, HEIGHT, WIDTH, 2)[0]
    with running_camera(frames) as camera:
        command = [sys.executable, "scripts/segment_video.py", camera, "--show", "--output", tmp_path / "output"]
        command += ["--size", HEIGHT, "--device", "cpu"]
        with subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            try:
                chromium.get(list(iter_until(process.stdout, "in a browser"))[-1].split()[1])
                wait(chromium, lambda: one(chromium, "#bar").is_displayed())
                yield chromium, process
            finally:
                process.kill()
    assert chromium.get_log("browser") == []


def place(browser, x: float, y: float) -> tuple[int, int]:
    """The point of the window where a point of the frame is."""
    left, top, width, height = browser.execute_script(
        "const {left, top, width, height} = document.querySelector('#marks').getBoundingClientRect();"
        "return [left, top, width, height]"
    )
    scale = min((width - 16) / WIDTH, (height - 16) / HEIGHT)  # the stage has a margin of 8
    return round(left + width / 2 + scale * (x - WIDTH / 2)), round(top + height / 2 + scale * (y - HEIGHT / 2))


def stroke(browser, kind: str, *points: tuple[float, float]) -> None:
    """Press a pointer at a point of the frame, move it to the others, lift it, and wait for the answer."""
    drag(browser, *[place(browser, *point) for point in points], kind=kind)
    answered(browser)


def answered(browser) -> None:
    wait(browser, lambda: one(browser, "#newer").is_enabled() and "Finding" not in one(browser, "#guide").text)


def picture(browser) -> str:
    return browser.execute_script("return document.querySelector('#picture').toDataURL()")


def box(number: int) -> list[tuple[int, int]]:
    x, y = CENTRES[number]
    return [(x - REACH, y - REACH), (x, y), (x + REACH, y + REACH)]


def objects(browser) -> int:
    return len(browser.find_elements(By.CSS_SELECTOR, "#objects button"))


def test_objects_are_marked_and_followed(page, tmp_path):
    browser, process = page
    assert "Drag a box" in one(browser, "#guide").text and not one(browser, "#start").is_enabled()
    stage = one(browser, "#stage").rect
    stroke(browser, "mouse", *box(1))
    wait(browser, lambda: objects(browser) == 1)
    marked = picture(browser)

    x, y = CENTRES[1]
    one(browser, "#outside").click()
    stroke(browser, "touch", (x + 8, y))  # a tap
    wait(browser, lambda: picture(browser) != marked)
    one(browser, "#outside").click()
    one(browser, "#undo").click()
    wait(browser, lambda: picture(browser) == marked)
    one(browser, "#newer").click()
    wait(browser, lambda: objects(browser) == 0 and picture(browser) != marked)

    one(browser, "#outside").click()
    stroke(browser, "mouse", (5, 5))
    assert one(browser, "#message").text.startswith("There is no object yet")
    assert "400" in browser.get_log("browser")[0]["message"]
    assert one(browser, "#stage").rect == stage  # nothing moves the frame while it is marked
    one(browser, "#outside").click()
    for number in (1, 2):
        stroke(browser, "pen", *box(number))
        wait(browser, lambda: objects(browser) == number)  # noqa: B023
    browser.refresh()  # the server keeps the marks
    wait(browser, lambda: objects(browser) == 2)
    one(browser, "#start").click()
    wait(browser, lambda: "Ctrl-C in the terminal" in one(browser, "#guide").text)
    assert not one(browser, "#bar").is_displayed()
    output = tmp_path / "output"
    wait(browser, lambda: len(list(output.glob("masks/*.png"))) >= 3)
    process.send_signal(signal.SIGINT)
    wait(browser, lambda: "The stream has ended" in one(browser, "#message").text)
    assert process.wait(60) == 0

    truth = draw_clip(1, HEIGHT, WIDTH, 2)[1][0]
    for name in ("first_mask.png", "masks/00002.png"):
        ids = read_mask(output / name)
        for number in (1, 2):
            found, true = ids == number, truth == number
            assert np.sum(found & true) > 0.8 * np.sum(found | true), (name, number)
