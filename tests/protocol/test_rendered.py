"""Rendered and thumbnail resources over the wire: PS3.18 8.3.5, 8.7.4, 10.4.1.1.3, 10.4.1.1.4, against a real gunicorn."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG4HP41,
    ComprehensiveSRStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from pacslite.dicomweb.media_types import parse_media_type
from tests.support.data_sets import document, image, new_uid, part10
from tests.support.http import Answer
from tests.support.wado import WebArchive, parts, path_of, series_of, study_of, web_archive

ROWS, COLUMNS = 48, 64
REL = "multipart/related; type="
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
VIDEO = b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 40
PDF = b"%PDF-1.4 what it says" + b"x" * 3000
HOSTILE = "<script>alert(1)</script>&\"'"
NAME = "Test^Patient"


def ct(number: int = 1, **uids: str) -> Dataset:
    """A disc of 300 on a ground of -1000."""
    y, x = np.mgrid[0:ROWS, 0:COLUMNS]
    values = np.where(np.hypot(y - 24, x - 32) < 12, 300, -1000) + 1024
    ds = image(values[np.newaxis].astype(np.uint16), number=number, **uids)
    ds.RescaleSlope, ds.RescaleIntercept, ds.WindowCenter, ds.WindowWidth, ds.Modality = 1, -1024, 40, 400, "CT"
    ds.StudyDescription = "Head"
    del ds.NumberOfFrames
    return ds


def loop(frames: int = 5, **uids: str) -> Dataset:
    """Frames that get lighter; 50 ms each."""
    ds = image(np.stack([np.full((ROWS, COLUMNS), 40 * n, np.uint8) for n in range(frames)]), **uids)
    ds.FrameTime, ds.Modality = 50, "US"
    return ds


def coloured(**uids: str) -> Dataset:
    ds = image(np.zeros((1, ROWS, COLUMNS), np.uint8), **uids)
    pixels = np.zeros((ROWS, COLUMNS, 3), np.uint8)
    pixels[:, : COLUMNS // 2], pixels[:, COLUMNS // 2 :] = (200, 40, 40), (40, 40, 200)
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.PixelData = pixels.tobytes()
    return ds


def video(**uids: str) -> Dataset:
    ds = image(np.zeros((1, ROWS, COLUMNS), np.uint8), compressed=[VIDEO], **uids)
    # Two fragments: the stream is one all the same.
    ds.PixelData = encapsulate([VIDEO], fragments_per_frame=2)
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "YBR_PARTIAL_420", 0
    ds.SOPClassUID, ds.NumberOfFrames = "1.2.840.10008.5.1.4.1.1.77.1.1.1", 30
    return ds


def _code(meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99TEST", meaning
    return code


def _item(value_type: str, name: str, **values: object) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType, item.ConceptNameCodeSequence = "CONTAINS", value_type, [_code(name)]
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def report(**uids: str) -> Dataset:
    """One content item of every value type."""
    ds = document(b"")
    for keyword in ("EncapsulatedDocument", "EncapsulatedDocumentLength", "MIMETypeOfEncapsulatedDocument"):
        delattr(ds, keyword)
    for keyword, value in uids.items():
        setattr(ds, {"study": "StudyInstanceUID", "series": "SeriesInstanceUID"}[keyword], value)
    ds.SpecificCharacterSet, ds.SOPClassUID, ds.Modality = "ISO_IR 100", ComprehensiveSRStorage, "SR"
    ds.ValueType, ds.ConceptNameCodeSequence, ds.ContinuityOfContent = "CONTAINER", [_code(f"Report {HOSTILE}")], "SEPARATE"
    ds.CompletionFlag, ds.VerificationFlag, ds.PatientBirthDate = "COMPLETE", "UNVERIFIED", "19700203"
    measured = Dataset()
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = "12.50", [_code("mm")]
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4.5"
    reference.ReferencedFrameNumber = [3, 4]
    space = _item("SCOORD", "Outline", GraphicType="POINT", GraphicData=[1.5, 2.5])
    space.ContentSequence = [_item("IMAGE", "Source", ReferencedSOPSequence=[reference])]
    space.ContentSequence[0].RelationshipType = "SELECTED FROM"
    ds.ContentSequence = [
        _item("TEXT", "Finding", TextValue=HOSTILE),
        _item("TEXT", "Long text", TextValue="Größe " * 400),
        _item("NUM", "Diameter", MeasuredValueSequence=[measured]),
        _item("CODE", "Side", ConceptCodeSequence=[_code("Left")]),
        _item("DATETIME", "When", DateTime="20260102030405"),
        _item("DATE", "Day", Date="20260103"),
        _item("TIME", "Hour", Time="040506"),
        _item("PNAME", "Observer", PersonName="Reader^One"),
        _item("UIDREF", "Identity", UID="1.2.3.9"),
        _item("COMPOSITE", "Object", ReferencedSOPSequence=[reference]),
        _item("WAVEFORM", "Wave", ReferencedSOPSequence=[reference]),
        space,
        _item("SCOORD3D", "Volume", GraphicType="POINT", GraphicData=[1.0, 2.0, 3.0]),
        _item("TCOORD", "Moment", TemporalRangeType="POINT", ReferencedTimeOffsets=[7]),
        _item("CONTAINER", "Section", ContinuityOfContent="SEPARATE", ContentSequence=[_item("TEXT", "Inner", TextValue="deep down")]),
    ]
    return ds


def compressed(ds: Dataset, syntax: str) -> Dataset:
    ds.ensure_file_meta()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.compress(syntax, generate_instance_uid=False)
    return ds


@dataclass(frozen=True)
class Stored:
    """What there is to look at."""

    archive: WebArchive
    ct: Dataset
    loop: Dataset
    colour: Dataset
    video: Dataset
    pdf: Dataset
    report: Dataset
    compressed: Dataset
    broken: Dataset
    odd: Dataset
    study: tuple[Dataset, ...]

    def get(self, path: str, accept: str | None = None, **headers: str) -> Answer:
        return self.archive.get(path, accept, **headers)

    def rendered(self, ds: Dataset, query: str = "", accept: str = "image/png") -> Answer:
        return self.get(f"{path_of(ds)}/rendered{query}", accept)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    with web_archive(tmp_path_factory.mktemp("rendered"), max_rendered_pixels="1000000") as archive:
        study, series = new_uid(), new_uid()
        together = (*(ct(n, study=study, series=series) for n in (1, 2, 3)), report(study=study, series=new_uid()))
        rle = compressed(ct(), RLELossless)
        broken = image(np.zeros((1, ROWS, COLUMNS), np.uint8), compressed=[b"\xff\x4f\xff\x51 no picture \0"])
        odd = ct()
        odd.PhotometricInterpretation = "CMYK"
        one = Stored(archive, ct(), loop(), coloured(), video(), document(PDF), report(), rle, broken, odd, together)
        archive.store(*(part10(ds) for ds in (one.ct, one.loop, one.colour, one.pdf, one.report, odd, *together)))
        archive.store(part10(one.video, MPEG4HP41), part10(rle, RLELossless), part10(broken, JPEG2000Lossless))
        yield one


def pixels(answer: Answer | bytes) -> np.ndarray:
    if isinstance(answer, Answer):
        assert answer.status == 200, answer.body
        assert Image.open(io.BytesIO(answer.body)).get_format_mimetype() == answer.headers["content-type"]
    data = answer.body if isinstance(answer, Answer) else answer
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


# Media types


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, "image/jpeg"),
        ("*/*", "image/jpeg"),
        ("image/*", "image/jpeg"),
        ("image/png", "image/png"),
        ("image/gif", "image/gif"),
        ("image/webp", "image/webp"),
        ("image/jp2", "image/jp2"),
        ("image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", "image/jpeg"),
        ("image/jpeg;q=0.2, image/png;q=0.7", "image/png"),
        ("image/tiff, image/gif", "image/gif"),
    ],
)
def test_a_single_frame_is_jpeg_unless_asked_otherwise(stored: Stored, accept: str | None, media_type: str) -> None:
    """Checklist 99: JPEG is the default; GIF and PNG are there too (Table 8.7.4-1)."""
    for path in (f"{path_of(stored.ct)}/rendered", f"{path_of(stored.ct)}/frames/1/rendered"):
        answer = stored.get(path, accept)
        assert answer.headers["content-type"] == media_type
        picture = pixels(answer)
        assert picture.shape == (ROWS, COLUMNS, 3)
        assert picture[24, 32].min() > 245
        assert picture[2, 2].max() < 10


@pytest.mark.parametrize("accept", ["image/tiff", "application/dicom", "text/html", "video/mp4"])
def test_what_a_picture_is_not_is_not_acceptable(stored: Stored, accept: str) -> None:
    answer = stored.rendered(stored.ct, accept=accept)
    assert answer.status == 406
    assert b"image/jpeg" in answer.body


@pytest.mark.parametrize("parameter", ["transfer-syntax=*", f"transfer-syntax={ExplicitVRLittleEndian}"])
def test_rendered_media_types_have_no_transfer_syntax(stored: Stored, parameter: str) -> None:
    """Checklist 15: a media type with such a parameter is none of the rendered ones, and none is sent."""
    assert stored.rendered(stored.ct, accept=f"image/jpeg; {parameter}").status == 406
    assert "transfer-syntax" not in stored.rendered(stored.ct).headers["content-type"]


def test_dicom_and_rendered_types_do_not_mix(stored: Stored) -> None:
    assert stored.rendered(stored.ct, accept="application/dicom, image/jpeg").status == 400


def test_the_accept_parameter_goes_first(stored: Stored) -> None:
    answer = stored.rendered(stored.ct, "?accept=image/png", "*/*")
    assert answer.headers["content-type"] == "image/png"


def test_an_instance_can_be_one_part(stored: Stored) -> None:
    [(headers, data)] = parts(stored.rendered(stored.ct, accept=f"{REL}image/png"))
    assert headers["content-location"].endswith(f"{path_of(stored.ct)}/rendered")
    assert pixels(data).shape == (ROWS, COLUMNS, 3)


# Frames


def test_frames_are_rendered_one_by_one(stored: Stored) -> None:
    for number in (1, 3, 5):
        picture = pixels(stored.get(f"{path_of(stored.loop)}/frames/{number}/rendered", "image/png"))
        assert np.abs(picture - 40 * (number - 1)).max() == 0


def test_several_frames_are_parts_or_an_animation(stored: Stored) -> None:
    path = f"{path_of(stored.loop)}/frames/2,4/rendered"
    found = parts(stored.get(path, f"{REL}image/png"))
    assert [pixels(data)[0, 0, 0] for _, data in found] == [40, 120]
    assert [headers["content-location"].rsplit("/instances/")[1].split("/", 1)[1] for headers, _ in found] == [
        "frames/2/rendered",
        "frames/4/rendered",
    ]
    assert Image.open(io.BytesIO(stored.get(path, "image/gif").body)).n_frames == 2
    assert stored.get(path, "image/png").status == 406


def test_a_loop_as_gif_moves(stored: Stored) -> None:
    answer = stored.rendered(stored.loop, accept="image/gif")
    animation = Image.open(io.BytesIO(answer.body))
    assert (animation.n_frames, animation.info["duration"], animation.info["loop"]) == (5, 50, 0)
    assert pixels(stored.rendered(stored.loop)).max() == 0  # as a still picture, the first frame


@pytest.mark.parametrize(
    ("frames", "status"), [("0", 400), ("-1", 400), ("x", 400), ("2,1", 400), ("6", 404), ("5,6", 404), ("999999999", 404)]
)
def test_missing_frames_are_404_and_malformed_ones_400(stored: Stored, frames: str, status: int) -> None:
    """Checklist B35: a frame that is not there is 404 with a status report, rendered as well."""
    for resource in ("rendered", "thumbnail"):
        answer = stored.get(f"{path_of(stored.loop)}/frames/{frames}/{resource}", "*/*")
        assert answer.status == status
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("kind", ["pdf", "report", "video"])
def test_frames_of_what_has_none_are_404(stored: Stored, kind: str) -> None:
    """Checklist 91: frames of a non-image are 404."""
    assert stored.get(f"{path_of(getattr(stored, kind))}/frames/2/rendered", "*/*").status == 404


# Parameters


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("viewport=32,32", 200),
        ("viewport=32,32,0,0", 200),
        ("viewport=32,32,8,8,16,16", 200),
        ("viewport=32,32,,,16,16", 200),
        ("viewport=32,32,1.5,2.25,-16.5,8e0", 200),
        ("viewport=", 400),
        ("viewport=32", 400),
        ("viewport=32,32,1", 400),
        ("viewport=32,32,1,1,1", 400),
        ("viewport=32,32,1,1,1,1,1", 400),
        ("viewport=0,32", 400),
        ("viewport=-32,32", 400),
        ("viewport=3.5,32", 400),
        ("viewport=a,b", 400),
        ("viewport=32,32,nan,0", 400),
        ("viewport=32,32,0,0,inf,5", 400),
        ("viewport=32,32,0,0,0,5", 400),
        ("viewport=32,32,-1,0", 400),
        ("viewport=32,32,64,0", 400),
        ("viewport=65536,1", 400),
        ("viewport=65535,65535", 413),
        ("viewport=%D9%A3,32", 400),
        ("viewport=32,32&viewport=16,16", 400),
    ],
)
def test_viewports(stored: Stored, query: str, status: int) -> None:
    """Checklist 95: vw and vh are needed; malformed viewports are 400; hostile sizes are bounded."""
    assert stored.rendered(stored.ct, f"?{query}").status == status


def test_a_viewport_keeps_the_aspect_and_flips(stored: Stored) -> None:
    """Checklist 95: the region is scaled to fit, its aspect kept; negative sizes flip it."""
    assert pixels(stored.rendered(stored.colour, "?viewport=32,100")).shape == (24, 32, 3)
    assert pixels(stored.rendered(stored.colour, "?viewport=640,96")).shape == (96, 128, 3)
    plain = pixels(stored.rendered(stored.colour))
    assert np.array_equal(pixels(stored.rendered(stored.colour, "?viewport=64,48,0,0,-64,48")), plain[:, ::-1])
    assert np.array_equal(pixels(stored.rendered(stored.colour, "?viewport=32,48,32,0,32,48")), plain[:, 32:])


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("window=40,400,linear", 200),
        ("window=-40.5,4e2,linear-exact", 200),
        ("window=40,0.5,sigmoid", 200),
        ("window=40", 400),
        ("window=40,400", 400),
        ("window=40,400,", 400),
        ("window=,400,linear", 400),
        ("window=40,400,LINEAR", 400),
        ("window=40,400,cubic", 400),
        ("window=40,400,linear,1", 400),
        ("window=40,0.5,linear", 400),
        ("window=40,0,sigmoid", 400),
        ("window=nan,400,linear", 400),
        ("window=40,1e999,linear", 400),
        ("window=", 400),
    ],
)
def test_windows(stored: Stored, query: str, status: int) -> None:
    """Checklist 96: center, width and function are all needed; a partial window is 400."""
    assert stored.rendered(stored.ct, f"?{query}").status == status


def test_a_window_replaces_that_of_the_image(stored: Stored) -> None:
    """Checklist 96: the function is one of linear, linear-exact, sigmoid (PS3.3 C.11.2.1)."""
    for function, disc in (("linear", 127.5 + 255 / 1999 / 2), ("linear-exact", 127.5), ("sigmoid", 127.5)):
        assert abs(pixels(stored.rendered(stored.ct, f"?window=300,2000,{function}"))[24, 32, 0] - disc) <= 1
    ground = pixels(stored.rendered(stored.ct, "?window=300,2000,sigmoid"))[0, 0, 0]
    assert abs(ground - 255 / (1 + np.exp(4 * 1300 / 2000))) <= 1


@pytest.mark.parametrize(
    ("quality", "status"), [("1", 200), ("100", 200), ("0", 400), ("101", 400), ("", 400), ("7.5", 400), ("best", 400), ("-5", 400)]
)
def test_quality_is_a_whole_number_from_1_to_100(stored: Stored, quality: str, status: int) -> None:
    """Checklist 97: quality is an integer in range."""
    assert stored.rendered(stored.colour, f"?quality={quality}", "image/jpeg").status == status


def test_quality_is_heeded(stored: Stored) -> None:
    low, high = (stored.rendered(stored.ct, f"?quality={q}", "image/jpeg").body for q in (5, 95))
    assert len(low) < len(high)


def test_annotations_are_burnt_in_on_request_only(stored: Stored) -> None:
    """Checklist 97: annotation is patient, technique or both; others are ignored with a Warning; empty is 400."""
    large = "viewport=640,480"
    plain = pixels(stored.rendered(stored.ct, f"?{large}"))
    pictures = []
    for value in ("patient", "technique", "patient,technique"):
        answer = stored.rendered(stored.ct, f"?{large}&annotation={value}")
        assert "warning" not in answer.headers
        pictures.append(pixels(answer))
    assert all(not np.array_equal(plain, picture) for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == 3
    answer = stored.rendered(stored.ct, f"?{large}&annotation=horoscope%0d%0a%22")
    assert answer.headers["warning"].startswith("299 ")
    assert "horoscope" in answer.headers["warning"]
    assert np.array_equal(pixels(answer), plain)
    for empty in ("annotation=", "annotation=patient,"):
        assert stored.rendered(stored.ct, f"?{empty}").status == 400


@pytest.mark.parametrize(
    ("media_type", "value", "status"),
    [
        ("image/jpeg", "no", 200),
        ("image/gif", "no", 200),
        ("image/jpeg", "yes", 200),
        ("image/png", "srgb", 200),
        ("image/webp", "adobergb", 200),
        ("image/jpeg", "rommrgb", 200),
        ("image/gif", "yes", 400),
        ("image/jp2", "srgb", 400),
        ("image/jpeg", "", 400),
        ("image/jpeg", "cmyk", 400),
    ],
)
def test_icc_profiles(stored: Stored, media_type: str, value: str, status: int) -> None:
    """Checklist 98: anything but `no` with a format that has no ICC profile is 400."""
    answer = stored.rendered(stored.colour, f"?iccprofile={value}", media_type)
    assert answer.status == status
    if status == 200:
        assert bool(Image.open(io.BytesIO(answer.body)).info.get("icc_profile")) == (value != "no")


# Studies and series


def test_a_study_is_rendered_as_parts(stored: Stored) -> None:
    """Checklist 100: rendered studies and series hold all instances as parts."""
    for path, count in ((series_of(stored.study[0]), 3), (study_of(stored.study[0]), 3)):
        answer = stored.get(f"{path}/rendered?viewport=32,32", f"{REL}image/jpeg")
        found = parts(answer)
        assert len(found) == count
        assert all(pixels(data).shape == (24, 32, 3) for _, data in found)
        assert [h["content-location"].rsplit("/", 2)[1] for h, _ in found] == [ds.SOPInstanceUID for ds in stored.study[:3]]
    assert answer.headers["warning"].startswith("299 ")  # the report is no picture


def test_a_study_is_rendered_without_what_cannot_be_decoded(stored: Stored) -> None:
    """Checklist 100: damaged pixels, a syntax nobody here decodes, frames that are missing, and pictures that are too large."""
    study = new_uid()
    good = [ct(number, study=study) for number in (1, 2)]
    damaged = image(np.zeros((1, ROWS, COLUMNS), np.uint8), compressed=[b"\xff\x4f\xff\x51 no picture \0"], study=study)
    unknown = image(np.zeros((1, ROWS, COLUMNS), np.uint8), compressed=[b"\xff\xd8 something \0"], study=study)
    short, large = ct(3, study=study), image(np.zeros((1, 1001, 1000), np.uint8), study=study)
    short.PixelData = short.PixelData[:100]
    stored.archive.store(part10(damaged, JPEG2000Lossless), part10(unknown, "1.2.840.10008.1.2.4.53"), part10(short), part10(large))
    stored.archive.store(*(part10(compressed(ds, RLELossless), RLELossless) for ds in good))
    for accept in (None, 'multipart/related; type="image/png"', 'multipart/related; type="image/gif"'):
        answer = stored.get(f"/studies/{study}/rendered", accept)
        assert answer.status == 200
        assert {headers["content-location"].split("/")[-2] for headers, _ in parts(answer)} == {ds.SOPInstanceUID for ds in good}
        assert "4 of 6 instances" in answer.headers["warning"]
        assert stored.get(f"/studies/{study}/rendered", accept, **{"If-None-Match": answer.headers["etag"]}).status == 304


def test_a_study_of_very_many_images_says_that_not_all_were_tried(stored: Stored) -> None:
    """Checklist 23: what is left out while the answer is sent cannot be told of then, so its head says that it may be."""
    study, series = new_uid(), new_uid()
    tiny = [compressed(image(study=study, series=series, number=number), RLELossless) for number in range(1, 203)]
    damaged = image(compressed=[b"no run lengths \0"], study=study, series=series, number=203)
    stored.archive.store(*(part10(ds, RLELossless) for ds in (*tiny, damaged)))
    answer = stored.get(f"/studies/{study}/rendered", f"{REL}image/png")
    assert (answer.status, len(parts(answer))) == (200, 202)
    assert "3 of 203 instances are decoded while this is sent" in answer.headers["warning"]


def test_a_study_may_mix_pictures_and_text(stored: Stored) -> None:
    for accept in ("*/*", f"{REL}image/jpeg, {REL}text/html", "multipart/related"):
        answer = stored.get(f"{study_of(stored.study[0])}/rendered", accept)
        assert answer.status == 200
        assert "warning" not in answer.headers
        assert answer.body.count(b"Content-Type: image/jpeg\r\n") == 3
        assert answer.body.count(b"Content-Type: text/html") == 1


@pytest.mark.parametrize("accept", ["image/jpeg", "text/html, image/png"])
def test_a_study_is_no_single_part(stored: Stored, accept: str) -> None:
    """Checklist 100: a single-part-only Accept is 406 (10.4.4 note 3)."""
    for path in (study_of(stored.study[0]), series_of(stored.study[0])):
        assert stored.get(f"{path}/rendered", accept).status == 406


# Conditional requests


@pytest.mark.parametrize("resource", ["rendered", "thumbnail", "frames/1/rendered", "frames/1/thumbnail"])
def test_what_the_caller_has_is_not_rendered_again(stored: Stored, resource: str) -> None:
    """Checklist 32: HEAD equals GET without body; conditional GET gives 304."""
    path = f"{path_of(stored.ct)}/{resource}"
    first = stored.get(path, "image/png")
    assert stored.get(path, "image/png", If_None_Match=first.headers["etag"]).status == 304
    others = [
        stored.get(f"{path}?viewport=20,20", "image/png"),
        stored.get(path, "image/jpeg"),
        stored.get(path.replace(str(stored.ct.SOPInstanceUID), str(stored.colour.SOPInstanceUID)), "image/png"),
    ]
    assert all(answer.headers.get("etag") != first.headers["etag"] for answer in others)
    head = stored.archive.server.request("HEAD", path, headers={"Accept": "image/png"})
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(first.body)), b"")


# Videos and documents


@pytest.mark.parametrize("accept", ["video/mp4", "*/*", BROWSER, "video/*"])
def test_videos_pass_as_they_are(stored: Stored, accept: str) -> None:
    """Checklist B33: ranges, suffix ranges too, on videos."""
    answer = stored.rendered(stored.video, accept=accept)
    assert (answer.status, answer.headers["content-type"], answer.headers["accept-ranges"]) == (200, "video/mp4", "bytes")
    assert answer.body == VIDEO
    path = f"{path_of(stored.video)}/rendered"
    part = stored.get(path, accept, Range="bytes=5000-5999")
    assert (part.status, part.body) == (206, VIDEO[5000:6000])
    assert part.headers["content-range"] == f"bytes 5000-5999/{len(VIDEO)}"
    assert stored.get(path, accept, Range="bytes=-7").body == VIDEO[-7:]
    assert stored.get(path, accept, Range="bytes=99999-").status == 416


def test_a_video_is_no_picture(stored: Stored) -> None:
    assert stored.rendered(stored.video, accept="image/jpeg").status == 406


@pytest.mark.parametrize("accept", ["application/pdf", "*/*", BROWSER, None])
def test_an_encapsulated_pdf_is_a_pdf(stored: Stored, accept: str | None) -> None:
    answer = stored.get(f"{path_of(stored.pdf)}/rendered", accept)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/pdf")
    assert answer.body == PDF  # without the byte that pads it
    assert "object-src 'self'" in answer.headers["content-security-policy"]
    part = stored.get(f"{path_of(stored.pdf)}/rendered", accept, Range="bytes=1-3")
    assert (part.status, part.body) == (206, b"PDF")


@pytest.mark.parametrize(
    ("mime_type", "accept", "sent"),
    [
        ("text/xml", "text/xml", "text/xml"),
        ("text/xml", BROWSER, "text/xml"),
        ("model/stl", "*/*", "model/stl"),
        ("model/obj", "model/obj", "model/obj"),
        ("model/mtl", "*/*", "model/mtl"),
        ("text/html", "*/*", "application/octet-stream"),
        ("image/svg+xml", "*/*", "application/octet-stream"),
        ("no type\r\nX-Evil: 1", "*/*", "application/octet-stream"),
    ],
)
def test_documents_have_their_own_type_unless_a_browser_would_run_them(stored: Stored, mime_type: str, accept: str, sent: str) -> None:
    ds = document(b"<x/>", "x")
    ds.MIMETypeOfEncapsulatedDocument = mime_type
    stored.archive.store(part10(ds))
    answer = stored.rendered(ds, accept=accept)
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, sent, b"<x/>")
    assert "sandbox" in answer.headers["content-security-policy"]
    assert "x-evil" not in answer.headers


def test_a_document_in_fragments_is_whole(stored: Stored) -> None:
    ds = document(b"", "application/pdf")
    marker = b"FRAGMENTS HERE" * 2
    ds.EncapsulatedDocument, ds.EncapsulatedDocumentLength = marker, len(PDF)
    whole, pieces = part10(ds), (b"", PDF[:1000], PDF[1000:] + b"\0" * (len(PDF) % 2))
    start, end = whole.index(marker) - 4, whole.index(marker) + len(marker)
    items = b"".join(b"\xfe\xff\x00\xe0" + len(piece).to_bytes(4, "little") + piece for piece in pieces)
    stored.archive.store(whole[:start] + b"\xff" * 4 + items + b"\xfe\xff\xdd\xe0" + bytes(4) + whole[end:])
    answer = stored.rendered(ds, accept="*/*")
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, "application/pdf", PDF)
    part = stored.get(f"{path_of(ds)}/rendered", Range="bytes=998-1001")
    assert (part.status, part.body) == (206, PDF[998:1002])


def test_a_document_in_a_deflated_data_set_ends_where_it_says(stored: Stored) -> None:
    ds = document(PDF + bytes(len(PDF) % 2), "application/pdf")
    ds.EncapsulatedDocumentLength = len(PDF)
    stored.archive.store(part10(ds, DeflatedExplicitVRLittleEndian))
    assert stored.rendered(ds, accept="*/*").body == PDF


def test_an_empty_document_is_not_rendered(stored: Stored) -> None:
    ds = document(b"", "model/stl")
    stored.archive.store(part10(ds))
    assert stored.rendered(ds, accept="*/*").status == 406
    study = stored.get(f"{study_of(ds)}/rendered")
    assert study.status in (404, 406)
    assert stored.get(f"{path_of(ds)}/thumbnail").status == 200


# Reports


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [(None, "text/html"), ("*/*", "text/html"), (BROWSER, "text/html"), ("text/plain", "text/plain"), ("text/xml", "text/xml")],
)
def test_reports_are_html_plain_text_and_xml(stored: Stored, accept: str | None, media_type: str) -> None:
    """Checklist 99: of text, HTML is the default; plain text and XML are there too (Table 8.7.4-1)."""
    answer = stored.get(f"{path_of(stored.report)}/rendered", accept)
    assert (answer.status, parse_media_type(answer.headers["content-type"]).name) == (200, media_type)
    assert answer.headers["content-type"].endswith("; charset=utf-8")
    text = answer.body.decode()
    shown = (
        *(
            "Test, Patient",
            "1970-02-03",
            "COMPLETE",
            "Größe Größe",
            "12.50 mm",
            "Left",
            "2026-01-02 03:04:05",
            "2026-01-03",
            "04:05:06",
        ),
        *("Reader, One", "1.2.3.9", "CT Image 1.2.3.4.5, frames 3, 4", "POINT 1.5, 2.5", "POINT 1.0, 2.0, 3.0", "POINT 7", "deep down"),
    )
    assert [value for value in shown if value not in text] == []
    if media_type == "text/plain":
        assert HOSTILE in text
    else:
        assert "<script" not in text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in text
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_a_report_is_no_picture(stored: Stored) -> None:
    assert stored.rendered(stored.report, accept="image/png").status == 406


# What cannot be shown


def test_compressed_frames_are_decoded(stored: Stored) -> None:
    native = pixels(stored.rendered(stored.ct))
    assert np.array_equal(pixels(stored.rendered(stored.compressed)), native)
    assert pixels(stored.rendered(stored.compressed, "?viewport=32,32&annotation=patient", "image/jpeg")).shape == (24, 32, 3)


def test_what_had_to_be_decoded_is_kept(stored: Stored) -> None:
    """Checklist B4: what took long is made once, and given again as a file."""
    kept = stored.archive.server.data / "cache" / "transcoded"
    before = set(kept.glob("*rendered-*"))
    first = stored.rendered(stored.compressed, "?quality=37", "image/jpeg")
    made = set(kept.glob("*rendered-*")) - before
    assert [file.read_bytes() for file in made] == [first.body]
    assert stored.rendered(stored.compressed, "?quality=37", "image/jpeg").body == first.body
    assert set(kept.glob("*rendered-*")) - before == made
    stored.rendered(stored.ct, "?quality=37", "image/jpeg")
    assert set(kept.glob("*rendered-*")) - before == made


@pytest.mark.parametrize("kind", ["broken", "odd"])
def test_what_cannot_be_rendered_is_406_with_a_reason(stored: Stored, kind: str) -> None:
    answer = stored.rendered(getattr(stored, kind), accept="*/*")
    assert answer.status == 406
    assert answer.headers["content-type"] == "application/problem+json"
    assert b"Traceback" not in answer.body


def test_huge_pictures_are_refused_before_they_are_read(stored: Stored) -> None:
    """65535 by 65535 by what the header says, while the file holds next to nothing; and one that is a little too large."""
    claims = [image(np.zeros((1, 4, 6), np.uint16)), image(np.zeros((1, 4, 6), np.uint16), compressed=[b"\xff\x4f\xff\x51\0\0"])]
    for ds in claims:
        ds.Rows = ds.Columns = 65535
    real = image(np.zeros((1, 1001, 1000), np.uint8))
    for ds, syntax, status in (
        (claims[0], ExplicitVRLittleEndian, 406),
        (claims[1], JPEG2000Lossless, 413),
        (real, ExplicitVRLittleEndian, 413),
    ):
        stored.archive.store(part10(ds, syntax))
        for query in ("", "?viewport=10,10"):
            answer = stored.rendered(ds, query, "*/*")
            assert answer.status == status
        assert (b"max_rendered_pixels" in answer.body) == (status == 413)
        assert pixels(stored.get(f"{path_of(ds)}/thumbnail")).shape == (256, 256, 3)


@pytest.mark.parametrize("resource", ["rendered", "thumbnail"])
def test_unknown_deleted_and_malformed_resources(stored: Stored, resource: str) -> None:
    """Checklist 24, 31: 404 unknown, 410 deleted, 400 malformed."""
    gone = ct()
    stored.archive.store(part10(gone))
    assert stored.archive.server.request("DELETE", path_of(gone)).status == 204
    for path in (path_of(gone), series_of(gone), study_of(gone)):
        assert stored.get(f"{path}/{resource}", "*/*").status == 410
    assert stored.get(f"/studies/1.2.3/{resource}", "*/*").status == 404
    assert stored.get(f"/studies/1.2.3/series/1.2/instances/5/{resource}", "*/*").status == 404
    assert stored.get(f"/studies/x/{resource}", "*/*").status == 400


def test_lost_bytes_are_told(stored: Stored) -> None:
    lost = ct()
    stored.archive.store(part10(lost))
    stored.archive.lose(lost)
    assert stored.rendered(lost).status == 500


# Thumbnails


@pytest.mark.parametrize(
    "level", [study_of, series_of, path_of, lambda ds: f"{path_of(ds)}/frames/1"], ids=["study", "series", "instance", "frame"]
)
def test_thumbnails_on_all_levels(stored: Stored, level: object) -> None:
    """Checklist 101: thumbnails on all four levels, one image, JPEG by default."""
    path = f"{level(stored.study[0])}/thumbnail"  # type: ignore[operator]
    for accept, media_type in ((None, "image/jpeg"), ("*/*", "image/jpeg"), ("image/png", "image/png"), ("image/gif", "image/gif")):
        answer = stored.get(path, accept)
        assert answer.headers["content-type"] == media_type
        assert pixels(answer).shape == (192, 256, 3)
    assert pixels(stored.get(f"{path}?viewport=64,64", "image/png")).shape == (48, 64, 3)
    assert stored.get(f"{path}?viewport=64", "image/png").status == 400
    assert stored.get(path, "text/html").status == 406
    assert stored.get(f"{path}?accept=image/jpeg", "*/*").headers["content-type"] == "image/jpeg"


def test_thumbnails_name_nobody(stored: Stored) -> None:
    """Checklist 101: no patient identity is burnt in, even when asked for."""
    path = f"{path_of(stored.ct)}/thumbnail"
    assert stored.get(f"{path}?annotation=patient", "image/png").body == stored.get(path, "image/png").body


def test_a_thumbnail_of_a_loop_is_of_its_middle(stored: Stored) -> None:
    assert pixels(stored.get(f"{path_of(stored.loop)}/thumbnail", "image/png"))[0, 0, 0] == 80
    assert Image.open(io.BytesIO(stored.get(f"{path_of(stored.loop)}/thumbnail", "image/gif").body)).n_frames == 1


@pytest.mark.parametrize("kind", ["report", "pdf", "video", "broken", "odd"])
def test_what_has_no_picture_has_an_icon(stored: Stored, kind: str) -> None:
    """Checklist B32: the thumbnail of a report, document or video is a valid picture."""
    ds = getattr(stored, kind)
    for path in (study_of(ds), series_of(ds), path_of(ds)):
        answer = stored.get(f"{path}/thumbnail")
        assert (answer.status, answer.headers["content-type"]) == (200, "image/jpeg")
        assert pixels(answer).shape == (256, 256, 3)


def test_a_study_is_shown_by_a_picture_and_not_by_its_report(stored: Stored) -> None:
    study = new_uid()
    first, second = report(study=study, series=new_uid()), coloured(study=study, series=new_uid())
    stored.archive.store(part10(first), part10(second))
    assert np.array_equal(
        stored.get(f"{study_of(second)}/thumbnail", "image/png").body, stored.get(f"{path_of(second)}/thumbnail", "image/png").body
    )


def test_a_version_is_rendered_as_it_was(stored: Stored, tmp_path: Path) -> None:
    ds = ct()
    stored.archive.store(part10(ds))
    before = pixels(stored.rendered(ds))
    ds.PhotometricInterpretation = "MONOCHROME1"
    stored.archive.store(part10(ds))
    assert np.array_equal(pixels(stored.rendered(ds)), 255 - before)
    assert np.array_equal(pixels(stored.rendered(ds, "?version=1")), before)
