"""The viewer in a real browser: studies are listed, pictures are right to the grey value, nothing it asks for fails.

One visit by one browser is made for all tests; each test holds one rule about what was seen.
"""

from __future__ import annotations

import copy
import json
import shutil
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
import pytest

from pacslite import samples
from pacslite.errors import Unavailable
from pacslite.samples import ct, identity, ultrasound
from pacslite.ui import viewer_package
from tests.support import browser, data_sets, processes
from tests.support.browser import Exchange
from tests.support.viewer_page import ViewerPage

_CHECKOUT = Path(__file__).resolve().parents[2]
_DRAWN = {"Phantom, Zoë", "Phantom, Ödön", "Phantom, Taro"}
_TOLERANCE = 2
# Of the files that pydicom ships, those that need most of the viewer: a codec, and a palette.
_SHIPPED = {"JPEG2000.dcm", "examples_palette.dcm"}


@dataclass
class Visit:
    """What a browser saw of a server with the sample."""

    names: list[str] = field(default_factory=list)
    isolated: bool = False
    ct_images: int = 0
    greys: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    changed: float = 0.0
    ultrasound_images: int = 0
    flow: tuple[int, int, int] = (0, 0, 0)
    shipped: dict[str, float] = field(default_factory=dict)
    names_after_upload: list[str] = field(default_factory=list)
    found_after_upload: int = 0
    console_errors: list[str] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    root: str = ""


@pytest.fixture(scope="module")
def viewer_files() -> Path:
    """The installed viewer, kept between runs in the checkout."""
    browser.programs()
    kept = _CHECKOUT / ".cache"
    if viewer_package.installed(kept) is None and shutil.which("npm") is None:
        pytest.skip("needs npm on PATH, once, to fetch the viewer")
    try:
        viewer_package.install(kept)
    except Unavailable as error:
        pytest.fail(f"the viewer could not be fetched: {error}")
    return kept / "viewer"


@pytest.fixture(scope="module")
def visit(viewer_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    """The whole visit, once."""
    scratch = tmp_path_factory.mktemp("visit")
    data = scratch / "data"
    data.mkdir()
    (data / "viewer").symlink_to(viewer_files)
    sample = samples.generate(scratch / "sample")
    with processes.serving(data) as server:
        _without_modality(scratch / "sample/bare.dcm")
        taken = processes.pacslite("import", scratch / "sample", "--data", data)
        assert taken.returncode == 0, taken.stderr
        seen = Visit(root=server.url)
        with browser.chromium(scratch) as chromium:
            page = ViewerPage(chromium, server.url)
            _look_at_list(page, seen)
            _look_at_ct(page, seen)
            _look_at_ultrasound(page, seen)
            for path in sample:
                if path.name in _SHIPPED:
                    seen.shipped[path.name] = _brightness(page, path)
            _upload(page, seen, _another_slice(scratch))
            seen.console_errors = chromium.console_errors()
            chromium.quit()
            seen.exchanges = chromium.exchanges()
        yield seen


def _look_at_list(page: ViewerPage, seen: Visit) -> None:
    page.open_list()
    seen.names = page.patient_names(4 + len(samples.SHIPPED))
    seen.isolated = page.browser.script("return crossOriginIsolated && typeof SharedArrayBuffer === 'function';")


def _look_at_ct(page: ViewerPage, seen: Visit) -> None:
    page.open_study(identity.CT_STUDY.uid)
    page.drawn()
    first = page.browser.pixels()
    seen.ct_images = page.images()
    seen.greys[page.position()] = _greys(page, first)
    page.scroll()
    second = page.browser.pixels()
    seen.greys[page.position()] = _greys(page, second)
    seen.changed = float((first != second).any(axis=2).mean())


def _greys(page: ViewerPage, pixels: np.ndarray) -> list[tuple[int, int, int]]:
    corner_x, corner_y, _ = ct.instance(1).ImagePositionPatient
    return [
        page.colour_at(pixels, (corner_x + point.column * ct.SPACING_MM, corner_y + point.row * ct.SPACING_MM, 0.0))
        for point in ct.KNOWN_POINTS
    ]


def _look_at_ultrasound(page: ViewerPage, seen: Visit) -> None:
    page.open_study(identity.US_STUDY.uid)
    page.drawn()
    seen.ultrasound_images = page.images()
    for _ in range(ultrasound.FRAMES - 1):
        page.scroll()
    seen.flow = page.colour_of(page.browser.pixels(), 160, 130)


def _brightness(page: ViewerPage, path: Path) -> float:
    page.open_study(pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID)
    page.drawn()
    return float(page.picture(page.browser.pixels()).std())


def _without_modality(path: Path) -> None:
    """An instance whose study has no modality to show, which once hid all studies."""
    bare = data_sets.image()
    bare.StudyDate = "19990101"
    del bare.Modality
    path.write_bytes(data_sets.part10(bare))


def _another_slice(scratch: Path) -> Path:
    instance = copy.deepcopy(ct.instance(5))
    instance.PatientName, instance.PatientID = "Phantom^Uploaded", "SAMPLE-0009"
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(instance, keyword, identity.stable_uid(f"uploaded {keyword}"))
    instance.file_meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
    instance.save_as(scratch / "uploaded.dcm", enforce_file_format=True)
    return scratch / "uploaded.dcm"


def _upload(page: ViewerPage, seen: Visit, file: Path) -> None:
    page.open_list()
    page.upload(file)
    page.open_list()
    seen.names_after_upload = page.patient_names(len(seen.names) + 1)
    with urllib.request.urlopen(f"{seen.root}/dicom-web/instances?PatientID=SAMPLE-0009", timeout=10) as answer:
        seen.found_after_upload = len(json.load(answer))


def expected_grey(hounsfield: int) -> float:
    """Of 255, by the linear window function of PS3.3 C.11.2.1.2.1."""
    return ((hounsfield - (ct.WINDOW_CENTER - 0.5)) / (ct.WINDOW_WIDTH - 1) + 0.5) * 255


def test_the_first_page_lists_every_study_by_patient_name(visit: Visit) -> None:
    assert set(visit.names) >= _DRAWN
    assert len(visit.names) == 4 + len(samples.SHIPPED)


def test_the_newest_study_comes_first(visit: Visit) -> None:
    assert visit.names[:3] == ["Phantom, Zoë", "Phantom, Ödön", "Phantom, Taro"]


def test_the_page_is_isolated_so_that_memory_can_be_shared(visit: Visit) -> None:
    assert visit.isolated


def test_the_ct_has_the_right_greys_at_all_known_points(visit: Visit) -> None:
    assert visit.ct_images == ct.SLICES
    expected = [expected_grey(point.hounsfield) for point in ct.KNOWN_POINTS]
    for shown in visit.greys.values():
        for colour, grey in zip(shown, expected, strict=True):
            assert colour == pytest.approx((grey, grey, grey), abs=_TOLERANCE)


def test_scrolling_shows_another_picture(visit: Visit) -> None:
    assert sorted(visit.greys) == [0, 1]
    assert visit.changed > 0.02


def test_the_ultrasound_clip_is_in_colour_to_its_last_frame(visit: Visit) -> None:
    assert visit.ultrasound_images == ultrasound.FRAMES
    frame = ultrasound.multi_frame().pixel_array[-1]
    assert visit.flow == pytest.approx(tuple(map(int, frame[130, 160])), abs=_TOLERANCE)


def test_compressed_and_palette_pictures_are_drawn(visit: Visit) -> None:
    assert set(visit.shipped) == _SHIPPED
    assert all(contrast > 5 for contrast in visit.shipped.values()), visit.shipped


def test_a_file_sent_by_the_upload_page_is_there(visit: Visit) -> None:
    assert visit.found_after_upload == 1
    assert "Phantom, Uploaded" in visit.names_after_upload


def test_nothing_the_browser_asked_for_failed(visit: Visit) -> None:
    assert any("/frames/" in exchange.url for exchange in visit.exchanges)
    assert any(exchange.method == "POST" for exchange in visit.exchanges)
    assert [exchange for exchange in visit.exchanges if exchange.failed] == []


def test_the_browser_asked_no_other_host(visit: Visit) -> None:
    assert {exchange.url.split("/")[2] for exchange in visit.exchanges} == {visit.root.split("/")[2]}


def test_the_page_logged_no_error(visit: Visit) -> None:
    assert visit.console_errors == []
