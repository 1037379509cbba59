"""The pages of the OHIF viewer as a person uses them: the study list, one study, the upload dialog."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

from tests.support.browser import DEADLINE_S, Browser

# The viewport that shows the study; the thumbnails are drawn by viewports without a place in the page.
_VIEWPORT = (
    "(window.cornerstone?.getRenderingEngines() ?? []).flatMap(e => e.getViewports())"
    ".find(v => document.body.contains(v.element) && v.element.clientWidth > 300)"
)


class ViewerPage:
    """The viewer below `root`, the address of the server."""

    def __init__(self, browser: Browser, root: str) -> None:
        self.browser = browser
        self.root = root

    def open_list(self) -> None:
        """Goes to the study list."""
        self.browser.open(self.root + "/viewer/")
        self.browser.shows("Study List")

    def patient_names(self, count: int) -> list[str]:
        """The first column of the study list, once it has at least that many rows."""
        rows = "[...document.querySelectorAll('[data-cy^=studyRow-]')]"
        self.browser.wait(f"{rows}.length >= arguments[0]", count)
        return [str(name) for name in self.browser.script(f"return {rows}.map(row => row.querySelector('td td').innerText.trim());")]

    def open_study(self, study_instance_uid: str) -> None:
        """Opens a study and waits until its first picture is drawn."""
        self.browser.open(f"{self.root}/viewer/viewer?StudyInstanceUIDs={study_instance_uid}")
        self.shown()

    def shown(self, timeout_s: float = DEADLINE_S) -> None:
        """Waits until the first picture of a study is drawn."""
        self.browser.wait(f"{_VIEWPORT}?.viewportStatus === 'rendered' && {_VIEWPORT}.getImageIds().length > 0", timeout_s=timeout_s)

    def images(self) -> int:
        """How many images the stack has."""
        return int(self.browser.script(f"return {_VIEWPORT}.getImageIds().length;"))

    def position(self) -> int:
        """The place of the shown image in the stack, from 0."""
        return int(self.browser.script(f"return {_VIEWPORT}.getCurrentImageIdIndex();"))

    def colour_at(self, pixels: np.ndarray, world: tuple[float, float, float]) -> tuple[int, int, int]:
        """The colour a person sees at a point of the patient's coordinate system, in mm."""
        return self._colour(pixels, f"{_VIEWPORT}.worldToCanvas(arguments[0])", list(world))

    def colour_of(self, pixels: np.ndarray, column: int, row: int) -> tuple[int, int, int]:
        """The colour a person sees where a pixel of the shown image is drawn."""
        index = [column, row, 0]
        return self._colour(pixels, f"{_VIEWPORT}.worldToCanvas({_VIEWPORT}.getImageData().imageData.indexToWorld(arguments[0]))", index)

    def _colour(self, pixels: np.ndarray, place: str, argument: list[float]) -> tuple[int, int, int]:
        at: dict[str, Any] = self.browser.script(
            f"const at = {place}, box = {_VIEWPORT}.canvas.getBoundingClientRect(); return {{x: box.left + at[0], y: box.top + at[1]}};",
            argument,
        )
        red, green, blue = pixels[round(at["y"]), round(at["x"])]
        return int(red), int(green), int(blue)

    def picture(self, pixels: np.ndarray) -> np.ndarray:
        """The middle of the viewport, without the texts at its edges."""
        box: dict[str, Any] = self.browser.script(f"return {_VIEWPORT}.canvas.getBoundingClientRect().toJSON();")
        top, left, height, width = (int(box[name]) for name in ("top", "left", "height", "width"))
        return pixels[top + height // 5 : top + height * 4 // 5, left + width // 5 : left + width * 4 // 5]

    def scroll(self) -> None:
        """Turns the wheel over the picture and waits for the next image."""
        before = self.position()
        element = self.browser.script(f"return {_VIEWPORT}.element;")
        ActionChains(self.browser.driver).scroll_from_origin(ScrollOrigin.from_element(element), 0, 120).perform()
        self.browser.wait(f"{_VIEWPORT}.getCurrentImageIdIndex() !== arguments[0]", before)
        self.drawn()

    def drawn(self) -> None:
        """Waits until what was asked for is on the screen: two frames after the viewport says it is rendered."""
        self.browser.wait(f"{_VIEWPORT}.viewportStatus === 'rendered'")
        self.browser.driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(() => done())));"
        )

    def upload(self, file: Path) -> None:
        """Sends a file by the upload dialog of the study list, and waits until the dialog says that it is done."""
        button = "[...document.querySelectorAll('span')].find(e => e.innerText === 'Upload')"
        self.browser.wait(f"!!{button}")
        self.browser.script(f"{button}.click();")
        self.browser.wait("document.querySelector('input[type=file]') !== null")
        self.browser.elements("input[type=file]")[0].send_keys(str(file))
        self.browser.shows("1 file completed.")
