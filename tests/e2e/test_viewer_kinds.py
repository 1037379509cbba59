"""The viewer in a real browser, with a study of every kind it has something for: each shows its content, nothing fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.e2e.test_viewer import viewer_files  # noqa: F401  a fixture
from tests.support import browser, processes
from tests.support.browser import Browser
from tests.support.processes import until
from tests.support.viewer_studies import KINDS, study_uid

# The middle of the picture, between the panels and the texts, in a window of 1400 by 1000.
_MIDDLE = (slice(150, 750), slice(400, 1080))
# Grey pictures are told from a blank viewport by their contrast, others by what they have of their colour.
_CONTRAST = 20.0
_COLOURS: dict[str, tuple[tuple[int, int, int], float]] = {
    "US": ((140, 40, 20), 0.02),
    "US JPEG": ((140, 40, 20), 0.02),
    "SR": ((0, 255, 0), 0.0002),
    "SEG": ((240, 115, 115), 0.02),
    "RTSTRUCT": ((255, 0, 0), 0.0003),
    "PDF": ((200, 30, 30), 0.02),
    "slide": ((60, 20, 110), 0.002),
}
_QUICK = {"CT JPEG-LS", "CT HTJ2K", "enhanced", "SEG", "slide"}
_REFERRING = {"SR", "SEG", "RTSTRUCT"}


@pytest.fixture(scope="module")
def opened(viewer_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Browser, str]]:  # noqa: F811
    """A browser, and a server with all the studies."""
    scratch = tmp_path_factory.mktemp("kinds")
    data, files = scratch / "data", scratch / "files"
    data.mkdir()
    files.mkdir()
    (data / "viewer").symlink_to(viewer_files)
    for kind, make in KINDS.items():
        for number, ds in enumerate(make(kind)):
            ds.save_as(files / f"{kind} {number}.dcm", enforce_file_format=True)
    with processes.serving(data) as server:
        taken = processes.pacslite("import", files, "--data", data)
        assert taken.returncode == 0, taken.stderr
        with browser.chromium(scratch) as chromium:
            yield chromium, server.url


@pytest.mark.parametrize("kind", [kind if kind in _QUICK else pytest.param(kind, marks=pytest.mark.full) for kind in KINDS])
def test_a_study_of_this_kind_is_seen(opened: tuple[Browser, str], tmp_path: Path, kind: str) -> None:
    page, root = opened
    _look_at(page, root, kind, tmp_path)
    assert "went wrong" not in page.script("return document.body.innerText;")
    assert page.console_errors() == []


_SLOW = """data:text/html,<div id=thumbnail style='width:200px;height:100px'></div><script>
window.seen = [];
for (const kind of ['mousedown', 'dblclick'])
    document.getElementById('thumbnail').addEventListener(kind, event => {
        window.seen.push(kind);
        const end = performance.now() + (kind === 'mousedown' ? 700 : 0);
        while (performance.now() < end);
    });
</script>"""


def test_a_double_click_is_one_on_a_page_that_is_busy(opened: tuple[Browser, str]) -> None:
    page, _ = opened
    page.open(_SLOW)
    page.double_click(page.elements("#thumbnail")[0])
    assert page.script("return window.seen;") == ["mousedown", "mousedown", "dblclick"]


def _look_at(page: Browser, root: str, kind: str, tmp_path: Path) -> None:
    """Opens the study and returns when its picture is on the screen."""
    page.open(f"{root}/viewer/{'microscopy' if kind == 'slide' else 'viewer'}?StudyInstanceUIDs={study_uid(kind)}")
    if kind in _REFERRING:
        _open_what_refers(page, kind)
    seen = np.zeros((1, 1, 3), np.uint8)

    def shown() -> bool:
        nonlocal seen
        seen = page.pixels()
        return _is_seen(seen[_MIDDLE], kind)

    try:
        until(shown, browser.DEADLINE_S, f"the picture of {kind}")
    except AssertionError as error:
        error.add_note(page.told())
        raise
    finally:
        Image.fromarray(seen).save(tmp_path / f"{kind}.png")


def _open_what_refers(page: Browser, kind: str) -> None:
    """Double-clicks the thumbnail of what is drawn upon the images, once these are there."""
    images, drawn = "study-browser-thumbnail", "study-browser-thumbnail-no-image"
    page.wait("[arguments[0], arguments[1]].every(name => document.querySelector(`[data-cy=${name}]`))", images, drawn)
    page.wait("window.cornerstone.getRenderingEngines().flatMap(e => e.getViewports()).some(v => v.viewportStatus === 'rendered')")
    page.double_click(page.elements(f"[data-cy={drawn}]")[0])
    if kind != "SR":
        yes = "[...document.querySelectorAll('button')].find(button => button.innerText === 'Yes')"
        page.wait(f"!!{yes}")
        page.script(f"{yes}.click();")


def _is_seen(picture: np.ndarray, kind: str) -> bool:
    if kind not in _COLOURS:
        return float(picture.std()) > _CONTRAST
    colour, share = _COLOURS[kind]
    return float((np.abs(picture.astype(int) - colour).max(axis=2) < 40).mean()) > share
