"""WADO-URI over the wire: PS3.18 9, against a real gunicorn."""

from __future__ import annotations

import io
from collections.abc import Iterator
from urllib.parse import urlencode

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tests.support.data_sets import document, image, new_uid, part10, read
from tests.support.http import Answer
from tests.support.wado import WebArchive, path_of, web_archive

DICOM = "application/dicom"
# Brightness grows from left to right, and by frame.
RAMP = np.stack([np.tile(np.arange(40, dtype=np.uint8) * 4, (20, 1)) + 10 * frame for frame in range(3)])
PDF = b"%PDF-1.4 " + b"x" * 3001


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebArchive]:
    with web_archive(tmp_path_factory.mktemp("uri")) as made:
        yield made


def kept(archive: WebArchive, ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> Dataset:
    archive.store(part10(ds, syntax))
    return ds


@pytest.fixture(scope="module")
def single(archive: WebArchive) -> Dataset:
    return kept(archive, image(RAMP[:1]))


@pytest.fixture(scope="module")
def several(archive: WebArchive) -> Dataset:
    return kept(archive, image(RAMP))


@pytest.fixture(scope="module")
def pdf(archive: WebArchive) -> Dataset:
    return kept(archive, document(PDF))


def ask(archive: WebArchive, ds: Dataset, accept: str | None = None, **parameters: str) -> Answer:
    named = {"requestType": "WADO", "studyUID": ds.StudyInstanceUID, "seriesUID": ds.SeriesInstanceUID, "objectUID": ds.SOPInstanceUID}
    query = {name: value for name, value in {**named, **parameters}.items() if value is not None}
    return archive.get(f"/wado?{urlencode(query)}", accept)


def picture(answer: Answer, kind: str = "PNG") -> np.ndarray:
    assert answer.status == 200, answer.body
    with Image.open(io.BytesIO(answer.body)) as found:
        assert found.format == kind
        return np.asarray(found.convert("L"))


def test_an_instance_as_a_dicom_file(archive: WebArchive, several: Dataset) -> None:
    """Checklist 102: application/dicom, by default in Explicit VR Little Endian; transferSyntax says another."""
    implicit = kept(archive, image(RAMP), ImplicitVRLittleEndian)
    for ds in (several, implicit):
        answer = ask(archive, ds, contentType=DICOM)
        assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (200, DICOM)
        assert read(answer.body).file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert read(answer.body).PixelData == ds.PixelData
    deflated = ask(archive, several, contentType=DICOM, transferSyntax="1.2.840.10008.1.2.1.99")
    assert read(deflated.body).file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1.99"
    assert ask(archive, implicit, contentType=DICOM, transferSyntax="*").body == part10(implicit, ImplicitVRLittleEndian)
    etag = ask(archive, several, contentType=DICOM).headers["etag"]
    named = {"requestType": "WADO", "studyUID": several.StudyInstanceUID, "seriesUID": several.SeriesInstanceUID}
    query = urlencode({**named, "objectUID": several.SOPInstanceUID, "contentType": DICOM})
    assert archive.get(f"/wado?{query}", If_None_Match=etag).status == 304


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, ImplicitVRLittleEndian, "1.2.840.10008.1.2.4.999", "1.2.3"])
def test_a_transfer_syntax_that_is_not_given_is_406(archive: WebArchive, several: Dataset, syntax: str) -> None:
    """Checklist 102: unsupported transferSyntax is 406."""
    assert ask(archive, several, contentType=DICOM, transferSyntax=syntax).status == 406


@pytest.mark.parametrize(
    "changed",
    [
        {"requestType": None},
        {"requestType": "wado"},
        {"requestType": "XDS"},
        {"studyUID": None},
        {"seriesUID": None},
        {"objectUID": ""},
        {"objectUID": "1.2.x"},
        {"contentType": "application/dicom;transfer-syntax=1.2.840.10008.1.2.1"},
        {"contentType": "text/html;charset=utf-8"},
        {"contentType": "application/dicom,image/jpeg"},
        {"contentType": DICOM, "transferSyntax": "x"},
        {"contentType": DICOM, "frameNumber": "1"},
        {"contentType": DICOM, "windowCenter": "1", "windowWidth": "2"},
        {"contentType": DICOM, "anonymize": "no"},
        {"contentType": "image/jpeg", "transferSyntax": "1.2.840.10008.1.2.1"},
        {"contentType": "image/jpeg", "anonymize": "yes"},
        {"contentType": "image/jpeg", "frameNumber": "0"},
        {"contentType": "image/jpeg", "frameNumber": "4"},
        {"contentType": "image/jpeg", "frameNumber": "1,2"},
        {"contentType": "image/jpeg", "windowCenter": "40"},
        {"contentType": "image/jpeg", "windowCenter": "a", "windowWidth": "2"},
        {"contentType": "image/jpeg", "rows": "0"},
        {"contentType": "image/jpeg", "columns": "-2"},
        {"contentType": "image/jpeg", "region": "0,0,1"},
        {"contentType": "image/jpeg", "region": "0,0,2,1"},
        {"contentType": "image/jpeg", "region": "0.5,0,0.5,1"},
        {"contentType": "image/jpeg", "imageQuality": "0"},
        {"contentType": "image/jpeg", "imageQuality": "101"},
        {"contentType": "image/jpeg", "annotation": "everything"},
        {"contentType": "image/jpeg", "presentationUID": "1.2"},
        {"contentType": "image/jpeg", "presentationUID": "1.2", "presentationSeriesUID": "1.3", "windowCenter": "1", "windowWidth": "2"},
    ],
)
def test_a_request_that_is_none_is_400(archive: WebArchive, several: Dataset, changed: dict[str, str]) -> None:
    """Checklist 102: requestType, parameters of contentType, and parameters that do not go together."""
    assert ask(archive, several, **changed).status == 400


def test_a_parameter_given_twice_is_400(archive: WebArchive, several: Dataset) -> None:
    uids = urlencode({"studyUID": several.StudyInstanceUID, "seriesUID": several.SeriesInstanceUID, "objectUID": several.SOPInstanceUID})
    assert archive.get(f"/wado?requestType=WADO&requestType=WADO&{uids}").status == 400


def test_a_frame_number_of_a_single_frame_is_400(archive: WebArchive, single: Dataset, pdf: Dataset) -> None:
    """Checklist 102: frameNumber on what has not several frames."""
    assert ask(archive, single, contentType="image/jpeg", frameNumber="1").status == 400
    assert ask(archive, pdf, contentType="application/pdf", frameNumber="1").status == 400


def test_what_is_not_there_is_404_and_what_was_deleted_410(archive: WebArchive, several: Dataset) -> None:
    """Checklist 24: 404 and 410."""
    assert ask(archive, several, objectUID=new_uid(), contentType=DICOM).status == 404
    gone = kept(archive, image())
    assert archive.server.request("DELETE", path_of(gone)).status == 204
    for content_type in (DICOM, "image/jpeg"):
        assert ask(archive, gone, contentType=content_type).status == 410


@pytest.mark.parametrize(
    "changed",
    [
        {"contentType": "video/mp4"},
        {"contentType": "text/html"},
        {"contentType": "nonsense/type"},
        {"contentType": DICOM, "anonymize": "yes"},
        {"contentType": "image/jpeg", "presentationUID": "1.2", "presentationSeriesUID": "1.3"},
    ],
)
def test_what_cannot_be_given_is_406(archive: WebArchive, single: Dataset, changed: dict[str, str]) -> None:
    """Checklist 16: nothing is silently substituted: neither another type, nor a file with identity, nor a picture without presentation."""
    assert ask(archive, single, **changed).status == 406


@pytest.mark.parametrize(("content_type", "kind"), [("image/jpeg", "JPEG"), ("image/png", "PNG"), ("image/gif", "GIF")])
def test_pictures_come_in_the_type_asked_for(archive: WebArchive, single: Dataset, content_type: str, kind: str) -> None:
    """Checklist 99: JPEG, PNG and GIF."""
    answer = ask(archive, single, contentType=content_type)
    assert answer.headers["content-type"] == content_type
    assert picture(answer, kind).shape == (20, 40)
    assert ask(archive, single, "text/html", contentType=f"video/mp4, {content_type};q=0.5").headers["content-type"] == content_type


def test_without_a_type_a_picture_or_a_file_is_given(archive: WebArchive, single: Dataset, several: Dataset, pdf: Dataset) -> None:
    """Checklist 3: the default of what it is: a picture of one frame, else a DICOM file; documents as they are."""
    assert ask(archive, single).headers["content-type"] == "image/jpeg"
    assert ask(archive, several, frameNumber="2").headers["content-type"] == "image/jpeg"
    assert ask(archive, several).headers["content-type"].startswith(DICOM)
    document = ask(archive, pdf)
    assert (document.headers["content-type"], document.body) == ("application/pdf", PDF)
    assert ask(archive, single, transferSyntax=ExplicitVRLittleEndian).headers["content-type"].startswith(DICOM)


def test_frames_windows_and_qualities(archive: WebArchive, several: Dataset) -> None:
    """Checklist 95, 96, 97: frameNumber, windowCenter and windowWidth, imageQuality."""
    base = {"contentType": "image/png", "frameNumber": "1", "windowCenter": "128", "windowWidth": "256"}
    first, third = (picture(ask(archive, several, **{**base, "frameNumber": number})) for number in ("1", "3"))
    assert np.abs(first.astype(int) - RAMP[0]).max() <= 1
    assert np.abs(third.astype(int) - RAMP[2]).max() <= 1
    narrow = picture(ask(archive, several, **{**base, "windowCenter": "80", "windowWidth": "2"}))
    assert set(np.unique(narrow)) <= {0, 255, 127, 128}
    noisy = kept(archive, image(np.random.default_rng(6).integers(0, 255, (1, 200, 200), dtype=np.uint8)))
    low, high = (len(ask(archive, noisy, contentType="image/jpeg", imageQuality=quality).body) for quality in ("10", "95"))
    assert low < high


def test_rows_columns_and_regions(archive: WebArchive, single: Dataset) -> None:
    """Checklist 95: a picture fits into rows and columns with its aspect kept; region is a part of it in fractions."""
    base = {"contentType": "image/png", "windowCenter": "128", "windowWidth": "256"}
    for given, shape in (
        ({"rows": "10"}, (10, 20)),
        ({"columns": "80"}, (40, 80)),
        ({"rows": "10", "columns": "100"}, (10, 20)),
        ({"region": "0.5,0,1,1"}, (20, 20)),
        ({"region": "0.5,0.5,1,1", "rows": "20"}, (20, 40)),
    ):
        assert picture(ask(archive, single, **base, **given)).shape == shape
    right = picture(ask(archive, single, **base, region="0.5,0,1,1"))
    assert np.abs(right.astype(int) - RAMP[0][:, 20:]).max() <= 1


def test_an_earlier_version_by_uri(archive: WebArchive) -> None:
    ds = kept(archive, image(RAMP[:1]))
    first = part10(ds)
    ds.PixelData = bytes(800)
    kept(archive, ds)
    base = {"windowCenter": "128", "windowWidth": "256", "contentType": "image/png"}
    assert ask(archive, ds, contentType=DICOM, version="1").body == first
    assert picture(ask(archive, ds, **base)).max() == 0
    assert picture(ask(archive, ds, **base, version="1")).max() > 100


def test_reports_are_given_as_text(archive: WebArchive) -> None:
    """Checklist 30, 99: HTML by default and plain text, in UTF-8; a charset that is not given is 406."""
    report, title = image(), Dataset()
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel", "NumberOfFrames"):
        delattr(report, keyword)
    report.SOPClassUID, report.ValueType, report.ContinuityOfContent = "1.2.840.10008.5.1.4.1.1.88.11", "CONTAINER", "SEPARATE"
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = "1", "99T", "A report"
    report.ConceptNameCodeSequence, report.ContentSequence = [title], []
    kept(archive, report)
    assert ask(archive, report).headers["content-type"].startswith("text/html")
    for content_type in ("text/html", "text/plain", "text/xml"):
        answer = ask(archive, report, contentType=content_type, charset="utf-8")
        assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (200, content_type)
        assert b"A report" in answer.body
    assert ask(archive, report, contentType="text/html", charset="iso-8859-1,utf-8;q=0.1").status == 200
    assert ask(archive, report, contentType="text/html", charset="shift_jis").status == 406
    assert ask(archive, report, contentType="image/jpeg").status == 406
