"""Clauses of PS3.18 that no other file shows over the wire: what is too large, several warnings, date-times with offsets."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from pacslite.codec.encoders import encode_frame
from pacslite.codec.pixels import PixelDescription
from pacslite.dicom.syntaxes import EXPLICIT, JPEG_2000_REVERSIBLE
from tests.support.data_sets import document, image, new_uid, part10
from tests.support.wado import WebArchive, path_of, study_of, web_archive

DICOM_JSON = "application/dicom+json"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebArchive]:
    with web_archive(tmp_path_factory.mktemp("web")) as started:
        yield started


def test_what_would_be_too_large_decompressed_is_not_acceptable(archive: WebArchive) -> None:
    """Checklist 11: 5 GB of pixels in some kilobytes; 406 and no file cut short (8.7.8.1)."""
    side = 4096
    white = np.full((side, side), 255, np.uint8)
    frame = encode_frame(white, "MONOCHROME2", PixelDescription(side, side, 8, 8), JPEG_2000_REVERSIBLE).data
    ds = image(white[None, :1, :1], compressed=[frame] * 300)
    ds.Rows = ds.Columns = side
    archive.store(part10(ds, JPEG_2000_REVERSIBLE))
    for suffix, accept in (
        ("", f"application/dicom; transfer-syntax={EXPLICIT}"),
        ("", f'multipart/related; type="application/dicom"; transfer-syntax={EXPLICIT}'),
    ):
        assert archive.get(path_of(ds) + suffix, accept).status == 406
    assert archive.get(path_of(ds), "application/dicom; transfer-syntax=*").body == part10(ds, JPEG_2000_REVERSIBLE)


def test_several_warnings_are_several_headers(archive: WebArchive) -> None:
    """Checklist 55: an annotation that is not known, and an instance that is no picture."""
    ds, study = image(np.zeros((1, 8, 8), np.uint8)), new_uid()
    pdf = document(b"%PDF-1.4 nothing")
    ds.StudyInstanceUID = pdf.StudyInstanceUID = study
    archive.store(part10(ds), part10(pdf))
    url = f"{archive.server.url}{study_of(ds)}/rendered?annotation=patient,shoe-size"
    request = urllib.request.Request(url, headers={"Accept": 'multipart/related; type="image/png"'})
    with urllib.request.urlopen(request, timeout=30) as answer:
        warnings = answer.headers.get_all("Warning")
    assert len(warnings) == 2
    assert all(text.startswith("299 ") for text in warnings)
    assert ["shoe-size" in text for text in warnings].count(True) == 1


STAMPS = {
    "plain": "20240301120000",
    "ahead": "20240301120000+0200",
    "behind": "20240301120000-0500",
    "day": "20240305",
    "fine": "20240307101112.250000",
}


@pytest.fixture(scope="module")
def stamped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WebArchive, dict[str, str]]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        yield from _stamped(tmp_path_factory.mktemp("stamped"))


def _stamped(data: Path) -> Iterator[tuple[WebArchive, dict[str, str]]]:
    with web_archive(data) as archive:
        uids = {}
        for name, stamp in STAMPS.items():
            ds = image(study="1.2.3.64")
            ds.AcquisitionDateTime = stamp
            archive.store(part10(ds))
            uids[str(ds.SOPInstanceUID)] = name
        yield archive, uids


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("20240301120000+0000", {"plain"}),
        ("20240301100000+0000", {"ahead"}),
        ("20240301120000+0200", {"ahead"}),
        ("20240301170000+0000-20240301180000+0000", {"behind"}),
        ("20240301190000+0200-20240301190000+0200", {"behind"}),
        ("20240301-20240301", {"plain", "ahead", "behind"}),
        ("20240305", {"day"}),
        ("202403", set(STAMPS)),
        ("20240305100000-20240305110000", {"day"}),
        ("20240307101112", {"fine"}),
        ("20240307101112.25", {"fine"}),
        ("20240307101112.26-", set()),
        ("20240306-", {"fine"}),
        ("-20240301110000", {"ahead"}),
    ],
)
def test_date_times_are_intervals_with_offsets(stamped: tuple[WebArchive, dict[str, str]], value: str, names: set[str]) -> None:
    """Checklist 64: offsets count, and a date-time of less precision is an interval (PS3.4 C.2.2.2.5)."""
    archive, uids = stamped
    answer = archive.get(f"/studies/1.2.3.64/instances?AcquisitionDateTime={quote(value)}", DICOM_JSON)
    assert answer.status in (200, 204), answer.body
    found = json.loads(answer.body or b"[]")
    assert {uids[one["00080018"]["Value"][0]] for one in found} == names
