"""Bulk data and pixel data of whole studies, series and instances over the wire: PS3.18 10.4.1.1.5 and 10.4.1.1.6."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import JPEG2000, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from tests.support.data_sets import NATIVE, document, image, new_uid, part10
from tests.support.http import Answer
from tests.support.wado import WebArchive, parts, path_of, series_of, study_of, web_archive

REL = "multipart/related; type="
OCTETS = f'{REL}"application/octet-stream"'
STAR = "; transfer-syntax=*"
RAMP = np.arange(2 * 4 * 6, dtype=np.uint16).reshape(2, 4, 6) * 321
CODE_STREAMS = [b"\xff\x4f\xff\x51first\0", b"\xff\x4f\xff\x51second frame"]
TABLE = list(range(4000))
PDF = b"%PDF-1.4 " + b"x" * 3001


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebArchive]:
    with web_archive(tmp_path_factory.mktemp("bulk")) as made:
        yield made


def rich_image(study: str, series: str, number: int = 1) -> Dataset:
    """An image with an icon and a long table inside sequences."""
    ds, table = image(RAMP, study=study, series=series, number=number), Dataset()
    table.LUTData = TABLE
    table["LUTData"].VR = "US"
    ds.ModalityLUTSequence = [Dataset(), table]
    icon = Dataset()
    icon.Rows, icon.Columns, icon.BitsAllocated, icon.SamplesPerPixel = 64, 64, 8, 1
    icon.PixelData = bytes(range(256)) * 16
    icon["PixelData"].VR = "OB"
    ds.IconImageSequence = [icon]
    return ds


@pytest.fixture(scope="module")
def study(archive: WebArchive) -> list[Dataset]:
    """A rich image in two series, a compressed image and a document in a third."""
    study, made = new_uid(), []
    for syntax in (ExplicitVRLittleEndian, ExplicitVRBigEndian):
        made.append(rich_image(study, new_uid()))
        archive.store(part10(made[-1], syntax))
    third = new_uid()
    made.append(image(RAMP, study=study, series=third, compressed=CODE_STREAMS))
    archive.store(part10(made[-1], JPEG2000))
    pdf = document(PDF)
    pdf.StudyInstanceUID, pdf.SeriesInstanceUID = study, third
    archive.store(part10(pdf))
    return [*made, pdf]


def links(value: object) -> list[str]:
    """All BulkDataURIs of a document in its order."""
    if isinstance(value, dict):
        own = [value["BulkDataURI"]] if "BulkDataURI" in value else []
        return own + [uri for inner in value.values() for uri in links(inner)]
    return [uri for inner in value for uri in links(inner)] if isinstance(value, list) else []


def metadata_links(archive: WebArchive, path: str) -> list[str]:
    return links(json.loads(archive.get(path + "/metadata", "application/dicom+json").body))


def every_part(answer: object) -> list[tuple[str, str]]:
    """Type and end of location of the parts of a mixed answer."""
    body = answer.body.decode("latin-1")  # type: ignore[attr-defined]
    heads = [block.partition("\r\n\r\n")[0] for block in body.split("--pacslite-")[1:-1]]
    named = [dict(line.split(": ", 1) for line in head.split("\r\n")[1:]) for head in heads]
    return [(one["Content-Type"], one["Content-Location"].partition("/instances/")[2].partition("/")[2]) for one in named]


@pytest.mark.parametrize("number", [0, 1])
def test_bulk_data_of_an_instance_is_every_value_that_metadata_names(archive: WebArchive, study: list[Dataset], number: int) -> None:
    """Checklist 84, 92: every BulkDataURI opens, also inside sequences; the bulk data resource has a part for each."""
    uris = metadata_links(archive, path_of(study[number]))
    assert [uri.rpartition("/bulkdata/")[2] for uri in uris] == ["00283000/2/00283006", "00880200/1/7FE00010", "7FE00010"]
    found = parts(archive.get(path_of(study[number]) + "/bulkdata", OCTETS))
    assert [headers["content-location"] for headers, _ in found] == uris
    assert all(headers["content-length"] == str(len(data)) for headers, data in found)
    assert [data for _, data in found] == [np.array(TABLE, "<u2").tobytes(), bytes(range(256)) * 16, RAMP.tobytes()]
    for uri, (_, data) in zip(uris, found, strict=True):
        assert archive.get(uri.removeprefix(archive.server.url), "*/*").body == data


def test_an_instance_asked_for_as_octets_is_its_bulk_data(archive: WebArchive, study: list[Dataset]) -> None:
    """Checklist 94: the instance, series and study resources as octet-stream equal their bulk data (PS3.18 10.4.4 note 2)."""
    for path in (path_of(study[0]), series_of(study[1])):
        direct, resource = parts(archive.get(path, OCTETS)), parts(archive.get(path + "/bulkdata", OCTETS))
        assert direct == resource
    assert len(every_part(archive.get(study_of(study[0]), OCTETS + STAR))) == 9
    # Instances go first where both are as welcome.
    both = archive.get(path_of(study[0]), f'{OCTETS}, {REL}"application/dicom"')
    assert both.headers["content-type"].startswith('multipart/related; type="application/dicom"')


def test_bulk_data_of_a_study_is_that_of_all_instances(archive: WebArchive, study: list[Dataset]) -> None:
    """Checklist 92, 93: bulk data on the study level; a document comes under its own media type, compressed frames under theirs."""
    found = every_part(archive.get(study_of(study[0]) + "/bulkdata", "*/*"))
    octets, jp2 = f"application/octet-stream; transfer-syntax={ExplicitVRLittleEndian}", f"image/jp2; transfer-syntax={JPEG2000}"
    of_rich = [(octets, f"bulkdata/{path}") for path in ("00283000/2/00283006", "00880200/1/7FE00010", "7FE00010")]
    of_compressed = [(jp2, "frames/1"), (jp2, "frames/2")]
    assert sorted(found) == sorted([*of_rich, *of_rich, *of_compressed, ("application/pdf", "bulkdata/00420011")])
    assert len(found) == 9


def test_pixel_data_on_all_levels_leaves_icons_out(archive: WebArchive, study: list[Dataset]) -> None:
    """Checklist 92: pixel data resources on study, series and instance level; pixel data of icons is not in them."""
    for ds in study[:2]:
        for path in (path_of(ds), series_of(ds)):
            [(headers, data)] = parts(archive.get(path + "/pixeldata", OCTETS))
            assert data == RAMP.tobytes()
            assert headers["content-location"].endswith(path_of(ds) + "/bulkdata/7FE00010")
    found = every_part(archive.get(study_of(study[0]) + "/pixeldata", "*/*"))
    assert [end for _, end in found].count("bulkdata/7FE00010") == 2
    assert [end for _, end in found if end.startswith("frames")] == ["frames/1", "frames/2"]
    frames = parts(archive.get(path_of(study[2]) + "/pixeldata", f"{OCTETS}{STAR}"))
    assert [data.rstrip(b"\0") for _, data in frames] == [stream.rstrip(b"\0") for stream in CODE_STREAMS]


def test_compressed_pixel_data_asked_for_as_octets_is_decoded(archive: WebArchive) -> None:
    """Checklist 90, 92: frames of a compressed image as octets, on all levels; as stored with transfer-syntax=*."""
    ds = image(RAMP)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.compress(RLELossless, generate_instance_uid=False)
    archive.store(part10(ds, RLELossless))
    for path in (path_of(ds), series_of(ds), study_of(ds)):
        for resource in ("/pixeldata", "/bulkdata", ""):
            found = parts(archive.get(path + resource, OCTETS))
            assert [data for _, data in found] == [RAMP[0].tobytes(), RAMP[1].tobytes()]
            assert all("1.2.840.10008.1.2.1" in headers["content-type"] for headers, _ in found)
        stored = parts(archive.get(path + "/pixeldata", f"{OCTETS}{STAR}"))
        assert {headers["content-type"] for headers, _ in stored} == {f"image/dicom-rle; transfer-syntax={RLELossless}"}


def test_pixel_data_of_an_instance_in_a_single_part_has_ranges(archive: WebArchive) -> None:
    """Checklist 22, 87: native pixel data as one body, little endian whatever is stored, with byte ranges."""
    for syntax in NATIVE:
        ds = image(RAMP)
        archive.store(part10(ds, syntax))
        path = path_of(ds) + "/pixeldata"
        assert archive.get(path, "application/octet-stream").body == RAMP.tobytes()
        some = archive.get(path, "application/octet-stream", Range="bytes=2-5")
        assert (some.status, some.body) == (206, RAMP.tobytes()[2:6])
        assert archive.get(path, "application/octet-stream", Range="bytes=-4").body == RAMP.tobytes()[-4:]


def test_float_pixel_data_is_pixel_data(archive: WebArchive) -> None:
    """Checklist 92: Float Pixel Data is in the pixel data resource, and is not Pixel Data."""
    ds, values = image(), np.arange(24, dtype="<f4")
    del ds.PixelData
    for keyword in ("BitsStored", "HighBit", "PixelRepresentation"):
        delattr(ds, keyword)
    ds.BitsAllocated, ds.FloatPixelData = 32, values.tobytes()
    archive.store(part10(ds))
    [(headers, data)] = parts(archive.get(path_of(ds) + "/pixeldata", OCTETS))
    assert (data, headers["content-location"].rpartition("/")[2]) == (values.tobytes(), "7FE00008")
    assert archive.get(path_of(ds) + "/bulkdata/7FE00010", "*/*").status == 404


@pytest.mark.parametrize("resource", ["bulkdata", "pixeldata"])
def test_what_is_not_there_is_404_and_what_is_not_acceptable_406(archive: WebArchive, study: list[Dataset], resource: str) -> None:
    """Checklist 24, 31, 91: 404 for unknown resources and those without such data, 400 for malformed UIDs, 406 for other types."""
    assert archive.get(f"/studies/1.2.3/{resource}", "*/*").status == 404
    assert archive.get(f"/studies/1.2.x/{resource}", "*/*").status == 400
    empty = document(b"%PDF")
    archive.store(part10(empty))
    assert archive.get(f"{path_of(empty)}/{resource}", OCTETS).status == 404
    assert archive.get(f"{path_of(study[0])}/{resource}", "application/dicom").status == 406


def test_bulk_data_whose_bytes_are_lost_is_refused_before_it_begins(archive: WebArchive) -> None:
    """Checklist 23: all or nothing: never 200 with something missing."""
    uid = new_uid()
    made = [image(RAMP, study=uid, number=number) for number in range(3)]
    archive.store(*map(part10, made))
    archive.lose(made[2])
    for resource in ("", "/bulkdata", "/pixeldata"):
        answer = archive.get(f"/studies/{uid}{resource}", OCTETS)
        assert (answer.status, json.loads(answer.body)["type"]) == (500, "blob-missing")
        assert made[2].SOPInstanceUID in json.loads(answer.body)["detail"]


@pytest.mark.parametrize("resource", ["bulkdata", "pixeldata", "rendered"])
def test_what_is_deleted_while_an_answer_is_sent_does_not_break_it_off(archive: WebArchive, resource: str) -> None:
    """The answer is held up by a caller who does not read; what is behind is deleted, and left out."""
    study, series = new_uid(), new_uid()
    noise = np.random.default_rng(1).integers(0, 256, (1, 2000, 2000), np.uint8)
    sent = [image(noise + n, study=study, series=series, number=n) for n in range(1, 5)]
    last = image(noise[:, :8, :8], study=study, series=series, number=5)
    archive.store(*(part10(ds) for ds in (*sent, last)))
    accept = f'{REL}"image/png"' if resource == "rendered" else OCTETS
    with closing(http.client.HTTPConnection("127.0.0.1", archive.server.port, timeout=60)) as connection:
        connection.connect()
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.request("GET", f"/dicom-web/studies/{study}/{resource}", headers={"Accept": accept})
        answer = connection.getresponse()
        begun = answer.read(1000)
        assert archive.server.request("DELETE", path_of(last)).status == 204
        whole = Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, begun + answer.read())
    assert [headers["content-location"].split("/")[9] for headers, _ in parts(whole)] == [ds.SOPInstanceUID for ds in sent]


@pytest.mark.parametrize("kind", ["short", "no rows", "two samples"])
def test_pixels_that_are_no_frames_are_bulk_data_all_the_same(archive: WebArchive, kind: str) -> None:
    """Checklist 84: what metadata names can be had, whatever else is wrong with the image."""
    ds = image(np.tile(RAMP, (1, 20, 20)))
    if kind == "short":
        ds.PixelData = ds.PixelData[:2000]
    elif kind == "no rows":
        del ds.Rows
    else:
        ds.SamplesPerPixel = 2
    archive.store(part10(ds))
    (link,) = metadata_links(archive, path_of(ds))
    path = link.partition("/dicom-web")[2]
    assert archive.get(path, "*/*").body == ds.PixelData
    assert parts(archive.get(path, OCTETS))[0][1] == ds.PixelData


@pytest.mark.filterwarnings("ignore:The value length:UserWarning")
@pytest.mark.parametrize(
    ("keyword", "syntax"), [*(("URNCodeValue", syntax) for syntax in NATIVE), ("SeriesDescription", ImplicitVRLittleEndian)]
)
def test_text_that_is_too_long_for_its_vr_is_bulk_data_that_can_be_had(archive: WebArchive, keyword: str, syntax: str) -> None:
    """Checklist 84: what metadata names can be had, in whatever VR its file has it."""
    ds = image()
    setattr(ds, keyword, "y" * 70000)
    archive.store(part10(ds, syntax))
    link, _ = metadata_links(archive, path_of(ds))
    assert archive.get(link.partition("/dicom-web")[2], "*/*").body == b"y" * 70000
    assert [data for _, data in parts(archive.get(path_of(ds) + "/bulkdata", OCTETS))] == [b"y" * 70000, ds.PixelData]
    assert archive.get(path_of(ds) + "/bulkdata/0020000D", "*/*").status == 404


def test_bulk_data_is_not_sent_again(archive: WebArchive, study: list[Dataset]) -> None:
    """Checklist 32: ETag and If-None-Match on bulk data of several instances."""
    for resource in ("bulkdata", "pixeldata"):
        path = f"{series_of(study[0])}/{resource}"
        answer = archive.get(path, OCTETS)
        assert archive.get(path, OCTETS, If_None_Match=answer.headers["etag"]).status == 304
    head = archive.server.request("HEAD", series_of(study[0]) + "/bulkdata", headers={"Accept": OCTETS})
    assert (head.status, head.body) == (200, b"")
