"""A real Chromium for the tests of pages."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (Debian: chromium and chromium-driver)"
)


@contextlib.contextmanager
def running_chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """A Chromium without a window that asks nothing of the network; ``profile`` is an empty folder for its files."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"),
        *("disable-component-update", "disable-sync", f"user-data-dir={profile}"),
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def view(browser: webdriver.Chrome, width: int, scheme: str, height: int = 800) -> None:
    """Make the window as large as that and the system's preference light or dark."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


def one(browser: webdriver.Chrome, selector: str) -> WebElement:
    """The first element that a CSS selector finds."""
    return browser.find_element(By.CSS_SELECTOR, selector)


def wait(browser: webdriver.Chrome, condition: Callable[[], object], timeout: float = 30) -> None:
    """Wait until a condition holds."""
    WebDriverWait(browser, timeout, poll_frequency=0.05).until(lambda _: condition())


def drag(browser: webdriver.Chrome, *points: tuple[int, int], kind: str = "mouse", release: bool = True) -> None:
    """Press a pointer at the first point of the window, move it to the others, and let go."""
    actions = ActionBuilder(browser, mouse=PointerInput(kind, kind), duration=10)
    actions.pointer_action.move_to_location(*points[0]).pointer_down()
    for point in points[1:]:
        actions.pointer_action.move_to_location(*point)
    if release:
        actions.pointer_action.pointer_up()
    actions.perform()
