"""A real headless Chromium, driven through chromedriver, that tells of everything it asked for and what came back.

Uses the machine's own `chromium` and `chromedriver`; nothing is ever downloaded.
"""

from __future__ import annotations

import base64
import fcntl
import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

# Chromium knows no host but this one, so it cannot call home; it draws WebGL in software.
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-features=OptimizationHints,MediaRouter,Translate",
    "--disable-dev-shm-usage",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--force-device-scale-factor=1",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--mute-audio",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--window-size=1400,1000",
)


_TURN = Path(__file__).parents[2] / ".cache" / "chromium.lock"

# Starting the viewer takes 3 s of an idle machine, and 20 s were seen on a busy one.
DEADLINE_S = 120.0


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request of a page or its workers: `failure` is its net error, `status` None when no answer came."""

    initiator: str
    url: str
    method: str
    status: int | None
    failure: str = ""

    @property
    def failed(self) -> bool:
        """Whether it got no answer, or one that says no."""
        return bool(self.failure) or (self.status is not None and self.status >= 400)


class Browser:
    """A page in Chromium and what it did."""

    def __init__(self, driver: webdriver.Chrome, net_log: Path) -> None:
        self.driver = driver
        self._net_log = net_log
        self._console: list[str] = []

    def open(self, url: str) -> None:
        """Loads a page."""
        self.driver.get(url)

    def script(self, text: str, *arguments: Any) -> Any:
        """What a function body in the page returns."""
        return self.driver.execute_script(text, *arguments)

    def wait(self, condition: str, *arguments: Any, timeout_s: float = DEADLINE_S) -> Any:
        """Waits until an expression in the page is true, and gives its value."""
        wait = WebDriverWait(self.driver, timeout_s, poll_frequency=0.1)
        try:
            return wait.until(lambda driver: driver.execute_script(f"return {condition};", *arguments))
        except TimeoutException:
            raise AssertionError(f"never true: {condition}\n{self.told()}") from None

    def told(self) -> str:
        """What helps to see why a page is not as expected: its errors, its last answered requests in ms, its text."""
        entries = "performance.getEntriesByType('resource').slice(-30)"
        answered = self.script(f"return {entries}.map(e => `${{e.name}} ${{e.responseStatus}} ${{Math.round(e.duration)}} ms`);")
        shown = self.script("return document.body.innerText;")
        return f"console: {self.console_errors()}\nanswered: {answered}\npage: {shown[:2000]}"

    def shows(self, text: str, timeout_s: float = DEADLINE_S) -> None:
        """Waits until the page shows a text."""
        self.wait("document.body.innerText.includes(arguments[0])", text, timeout_s=timeout_s)

    def elements(self, selector: str) -> list[Any]:
        """The elements of a CSS selector."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def double_click(self, element: Any) -> None:
        """Double-clicks the middle of an element.

        A driver's own double click is two single ones when the page takes more than half a second for the first press.
        """
        x, y = self.script(
            "const box = arguments[0].getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2];", element
        )
        for count in (1, 2):
            for kind in ("mousePressed", "mouseReleased"):
                event = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": count}
                self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)

    def pixels(self) -> np.ndarray:
        """What a person sees, as an array of rows, columns, RGB."""
        png = base64.b64decode(self.driver.get_screenshot_as_base64())
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))

    def console_errors(self) -> list[str]:
        """Everything so far that the page's console holds at level SEVERE."""
        self._console += [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return self._console

    def quit(self) -> None:
        """Ends Chromium and chromedriver."""
        self.driver.quit()

    def exchanges(self) -> list[Exchange]:
        """Every request that pages and their workers made, by Chromium's own network log; after `quit`."""
        return list(_exchanges(json.loads(self._net_log.read_text(encoding="utf-8", errors="replace"))))


def _exchanges(log: dict[str, Any]) -> Iterator[Exchange]:
    """The requests in a network log, grouped by their source; without those the browser makes for itself."""
    types = {number: name for name, number in log["constants"]["logEventTypes"].items()}
    errors = {number: name for name, number in log["constants"]["netError"].items()}
    found: dict[int, dict[str, Any]] = {}
    for event in log["events"]:
        name, parameters = types[event["type"]], event.get("params", {})
        request = found.setdefault(event["source"]["id"], {})
        if name == "URL_REQUEST_START_JOB" and "url" in parameters:
            request |= {"url": parameters["url"], "method": parameters["method"], "initiator": parameters["initiator"]}
        elif name == "HTTP_TRANSACTION_READ_RESPONSE_HEADERS":
            request["status"] = int(parameters["headers"][0].split()[1])
        elif name == "URL_REQUEST_START_JOB" and "net_error" in parameters:
            request["failure"] = errors.get(parameters["net_error"], str(parameters["net_error"]))
    for request in found.values():
        # Chromium looks into its cache for a preloaded font before it asks for it; nothing went out.
        if request.get("failure") == "ERR_CACHE_MISS":
            continue
        # A page of ours has an origin; a navigation by the driver has none, and nor has the browser itself.
        if urlsplit(request.get("url", "")).hostname == "127.0.0.1" or urlsplit(request.get("initiator", "")).hostname == "127.0.0.1":
            yield Exchange(request["initiator"], request["url"], request["method"], request.get("status"), request.get("failure", ""))


def programs() -> tuple[str, str]:
    """Chromium and chromedriver; skips the test where they are not installed."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs Chromium and chromedriver on PATH (Debian: chromium, chromium-driver)")
    return chromium, driver


@contextmanager
def _alone() -> Iterator[None]:
    """One browser at a time on this machine: each wants more than the processors there are, and two starve each other."""
    _TURN.parent.mkdir(exist_ok=True)
    with _TURN.open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


@contextmanager
def chromium(scratch: Path) -> Iterator[Browser]:
    """A fresh Chromium with an empty profile below `scratch`; ended on leaving."""
    binary, driver = programs()
    with _alone(), _started(binary, driver, scratch) as browser:
        yield browser


@contextmanager
def _started(binary: str, driver: str, scratch: Path) -> Iterator[Browser]:
    net_log = scratch / "network.json"
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*_FLAGS, f"--user-data-dir={scratch / 'profile'}", f"--log-net-log={net_log}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # A service with a path of its own never looks for a driver to download.
    service = webdriver.ChromeService(executable_path=driver, log_output=str(scratch / "chromedriver.log"))
    browser = Browser(webdriver.Chrome(options=options, service=service), net_log)
    try:
        yield browser
    finally:
        browser.quit()
