"""The report in a real browser, by mouse and by keyboard."""

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from browser import needs_chromium, one, view, wait
from conftest import write_davis, write_evaluation
from util.evaluation.protocols import recorded_evaluation
from util.evaluation.report import write_report

pytestmark = needs_chromium

LENGTHS = {"alpha": 14, "beta-10": 9, "beta-9": 80}


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    """A report's address on disk."""
    folder = tmp_path_factory.mktemp("report")
    davis = write_davis(folder / "davis", LENGTHS, size=(90, 160))
    output = write_evaluation(davis, folder / "output", LENGTHS)
    write_report(output, recorded_evaluation(output), folder / "report.html")
    return (folder / "report.html").as_uri()


@pytest.fixture
def browser(chromium, address):
    """A browser with the report freshly loaded, 1280 pixels wide; it must have nothing to complain of in the end."""
    view(chromium, 1280, "light")
    chromium.get(address)
    yield chromium
    assert chromium.get_log("browser") == []
    assert chromium.execute_script("return performance.getEntriesByType('resource').map(e => e.name)") == []


def column(browser, number: int) -> list[str]:
    return [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, f"tbody tr > :nth-child({number})")]


def heading(browser, text: str):
    (button,) = (b for b in browser.find_elements(By.CSS_SELECTOR, "thead button") if b.text.startswith(text))
    return button


def open_player(browser, number: int):
    """Scroll to a player and wait until it shows a frame; returns the video's element."""
    video = one(browser, f"#video-{number}")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", video)
    wait(browser, lambda: painted(browser, video))
    return video


def shown(video) -> str:
    return video.find_element(By.TAG_NAME, "output").get_property("value")


def slider(video):
    return video.find_element(By.CSS_SELECTOR, "[type=range]")


def painted(browser, video) -> str:
    """The player's picture as a data URL; empty while there is none."""
    return browser.execute_script(
        "const canvas = arguments[0].querySelector('canvas');"
        "const blank = Object.assign(document.createElement('canvas'), {width: canvas.width, height: canvas.height});"
        "return canvas.toDataURL() === blank.toDataURL() ? '' : canvas.toDataURL()",
        video,
    )


def test_headings_sort_by_mouse_and_keyboard(browser):
    button = heading(browser, "J&F")
    button.click()
    values = [float(text) for text in column(browser, 3)]
    assert values == sorted(values) and len(set(values)) > 1
    assert button.find_element(By.XPATH, "..").get_attribute("aria-sort") == "ascending"
    button.send_keys(Keys.ENTER)
    assert [float(text) for text in column(browser, 3)] == sorted(values, reverse=True)
    assert button.find_element(By.XPATH, "..").get_attribute("aria-sort") == "descending"
    heading(browser, "Video").send_keys(Keys.SPACE)
    assert column(browser, 1) == ["alpha"] * 2 + ["beta-9"] * 2 + ["beta-10"] * 2  # numbers count as numbers
    assert button.find_element(By.XPATH, "..").get_attribute("aria-sort") == "none"


def test_the_player_scrubs_by_keyboard(browser):
    video = open_player(browser, 2)
    first = painted(browser, video)
    slider(video).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert shown(video) == "00004"  # 60 frames of 80 are shown
    wait(browser, lambda: painted(browser, video) != first)
    assert slider(video).get_attribute("aria-valuetext").startswith("frame 00004, object 1 J ")
    assert "J " in video.find_element(By.CSS_SELECTOR, ".objects li").text
    slider(video).send_keys(Keys.END)
    assert shown(video) == "00079"
    slider(video).send_keys(Keys.HOME)
    assert shown(video) == "00000" and "J " not in video.find_element(By.CSS_SELECTOR, ".objects li").text
    wait(browser, lambda: painted(browser, video) == first)


def test_masks_can_be_switched_and_the_video_played(browser):
    video = open_player(browser, 1)
    slider(video).send_keys(*[Keys.ARROW_RIGHT] * 5)
    wait(browser, lambda: shown(video) == "00005")
    prediction = painted(browser, video)
    radios = video.find_elements(By.CSS_SELECTOR, "[type=radio]")
    radios[0].send_keys(Keys.ARROW_RIGHT)
    wait(browser, lambda: painted(browser, video) != prediction)
    truth = painted(browser, video)
    radios[2].click()
    wait(browser, lambda: painted(browser, video) not in (prediction, truth))
    assert slider(open_player(browser, 0)).get_property("value") == "0"  # the other players stay as they are
    play = video.find_element(By.CSS_SELECTOR, ".play")
    play.send_keys(Keys.SPACE)
    assert play.text == "Pause"
    wait(browser, lambda: shown(video) == "00008" and play.text == "Play")


def test_a_worst_moment_leads_to_its_frame(browser):
    link = one(browser, ".moments a")
    video = one(browser, link.get_attribute("hash"))
    link.click()
    wait(browser, lambda: painted(browser, video))
    assert abs(int(shown(video)) - int(link.get_attribute("data-frame"))) <= 1
    assert browser.switch_to.active_element == slider(video)
    wait(browser, lambda: 0 <= browser.execute_script("return arguments[0].getBoundingClientRect().top", video) < 800)
