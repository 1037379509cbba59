"""WADO-RS over the wire: PS3.18 10.4, against a real gunicorn."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import (
    JPEG2000,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from pacslite.dicomweb import native_xml_reader
from tests.support.data_sets import CONTENT_TYPE, NATIVE, body, document, image, new_uid, part10, read
from tests.support.http import Answer, WebServer, running
from tests.support.wado import parts, path_of

REL = "multipart/related; type="
STAR = "; transfer-syntax=*"
DICOM_JSON = "application/dicom+json"
RAMP = np.arange(2 * 4 * 6, dtype=np.uint16).reshape(2, 4, 6) * 321
CODE_STREAMS = [b"\xff\x4f\xff\x51first\0", b"\xff\x4f\xff\x51second frame"]


@dataclass
class Archive:
    """A server and what was stored in it: by transfer syntax, the same picture."""

    server: WebServer
    native: dict[str, Dataset]
    study: list[Dataset]
    compressed: dict[str, Dataset]

    def get(self, path: str, accept: str | None = None, **headers: str) -> Answer:
        return self.server.get(path, accept, **headers)

    def store(self, *files: bytes) -> None:
        answer = self.server.request("POST", "/studies", body(files), {"Content-Type": CONTENT_TYPE})
        assert answer.status == 200, answer.body


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    with running(tmp_path_factory.mktemp("wado"), allowed_hosts="*") as server:
        study = new_uid()
        series = [new_uid(), new_uid()]
        made = Archive(
            server,
            {syntax: image(RAMP) for syntax in NATIVE},
            [image(study=study, series=series[n % 2], number=n) for n in range(4)],
            {syntax: image(RAMP, compressed=CODE_STREAMS) for syntax in (JPEG2000, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless)},
        )
        stored = [(ds, syntax) for group in (made.native, made.compressed) for syntax, ds in group.items()]
        made.store(*(part10(ds, syntax) for ds, syntax in stored), *(part10(ds) for ds in made.study))
        yield made


# Instances


@pytest.mark.parametrize("syntax", NATIVE)
def test_an_instance_is_explicit_little_endian_unless_asked_otherwise(archive: Archive, syntax: str) -> None:
    """Checklist 3, 10: multipart application/dicom in Explicit VR Little Endian is the default, whatever is stored."""
    sent = archive.native[syntax]
    for accept in (f'{REL}"application/dicom"', "*/*", None):
        [(headers, file)] = parts(archive.get(path_of(sent), accept))
        assert headers["content-type"] == f"application/dicom; transfer-syntax={ExplicitVRLittleEndian}"
        assert headers["content-location"].endswith(path_of(sent))
        got = read(file)
        assert got.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert got == sent
        assert got.PixelData == RAMP.tobytes()


@pytest.mark.parametrize("syntax", NATIVE)
def test_an_instance_comes_as_stored_when_asked(archive: Archive, syntax: str) -> None:
    """Checklist 9, 12: transfer-syntax=* is what is stored, implicit and big endian too, without transcoding."""
    sent = archive.native[syntax]
    answer = archive.get(path_of(sent), "application/dicom" + STAR)
    assert (answer.status, answer.headers["content-type"]) == (200, f"application/dicom; transfer-syntax={syntax}")
    assert answer.body == part10(sent, syntax)
    assert parts(archive.get(path_of(sent), f"{REL}application/dicom{STAR}"))[0][1] == part10(sent, syntax)


@pytest.mark.parametrize(
    ("syntax", "accept", "status"),
    [
        (JPEG2000, f"{REL}application/dicom", 200),  # lossy: what is lost stays lost
        (JPEG2000, f"{REL}application/dicom; transfer-syntax={JPEG2000}", 200),
        (JPEG2000, f"{REL}application/dicom; transfer-syntax={ExplicitVRLittleEndian}", 406),
        (JPEG2000Lossless, f"{REL}application/dicom", 200),  # to be decompressed, which these pixels cannot be
        (JPEG2000Lossless, f"{REL}application/dicom; transfer-syntax={ExplicitVRLittleEndian}", 406),
        (JPEG2000Lossless, f"{REL}application/dicom{STAR}", 200),
        (JPEG2000Lossless, "*/*", 200),
        (RLELossless, "application/octet-stream", 406),
        (RLELossless, "application/dicom+json", 406),
        (RLELossless, "nonsense", 406),
    ],
)
def test_a_compressed_instance_is_given_as_stored_or_not_at_all(archive: Archive, syntax: str, accept: str, status: int) -> None:
    answer = archive.get(path_of(archive.compressed[syntax]), accept)
    assert answer.status == status
    if status == 200:
        assert parts(answer)[0][1] == part10(archive.compressed[syntax], syntax)
    else:
        assert answer.headers["content-type"] == "application/problem+json"


def test_an_implicit_or_big_endian_syntax_cannot_be_named(archive: Archive) -> None:
    """Checklist 12: Implicit VR Little Endian and Explicit VR Big Endian are not given by name."""
    for syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian):
        accept = f"{REL}application/dicom; transfer-syntax={syntax}"
        assert archive.get(path_of(archive.native[syntax]), accept).status == 406


def test_a_study_and_a_series_come_as_one_part_per_instance(archive: Archive) -> None:
    """Checklist 17: single-part application/dicom is for an instance only; on study and series it is 406."""
    first = archive.study[0]
    for path, expected in (
        (f"/studies/{first.StudyInstanceUID}", archive.study),
        (f"/studies/{first.StudyInstanceUID}/series/{first.SeriesInstanceUID}", archive.study[::2]),
    ):
        found = parts(archive.get(path, f"{REL}application/dicom"))
        assert sorted(read(file).SOPInstanceUID for _, file in found) == sorted(ds.SOPInstanceUID for ds in expected)
        numbers = [read(file).InstanceNumber for _, file in found]
        assert numbers == sorted(numbers) or path.count("/") == 2
        assert archive.get(path, "application/dicom").status == 406  # a single part is for one instance (10.4.4)


def test_mixed_dicom_and_rendered_types_are_400(archive: Archive) -> None:
    """Checklist 4: DICOM and rendered media types in one list."""
    assert archive.get(path_of(archive.study[0]), "application/dicom, image/png").status == 400


def test_the_accept_parameter_goes_before_the_header(archive: Archive) -> None:
    """Checklist 6: the accept parameter is tried before the header."""
    answer = archive.get(path_of(archive.study[0]) + "?accept=application/dicom;transfer-syntax=*", "text/html")
    assert (answer.status, answer.headers["content-type"].split(";")[0]) == (200, "application/dicom")


@pytest.mark.parametrize("suffix", ["", "/metadata", "/frames/1"])
def test_unknown_is_404_and_malformed_is_400(archive: Archive, suffix: str) -> None:
    """Checklist 31: 400 for a malformed UID in the path, 404 for one that is not known."""
    known = archive.study[0]
    for path in (f"/studies/1.2.3/series/{known.SeriesInstanceUID}/instances/{known.SOPInstanceUID}", path_of(known)[:-3] + "999"):
        answer = archive.get(path + suffix)
        assert (answer.status, json.loads(answer.body)["type"]) == (404, "not-found")
    for path in ("/studies/1.2.x/series/1/instances/1", "/studies/1/series/1..2/instances/1", "/studies/1/series/1/instances/" + "1" * 65):
        answer = archive.get(path + suffix)
        assert (answer.status, json.loads(answer.body)["type"]) == (400, "invalid-uid")


def test_a_wrong_method_is_405_with_the_right_ones(archive: Archive) -> None:
    """Checklist 25: 405 carries Allow."""
    answer = archive.server.request("PUT", path_of(archive.study[0]))
    assert answer.status == 405
    assert "GET" in answer.headers["allow"]


def test_head_conditional_and_range_requests(archive: Archive) -> None:
    """Checklist 22, 32: HEAD, If-None-Match and byte ranges with 206, 416 and suffixes."""
    path, file = path_of(archive.study[0]), part10(archive.study[0])
    single = "application/dicom" + STAR
    whole = archive.get(path, single)
    head = archive.server.request("HEAD", path, headers={"Accept": single})
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(file)))
    assert archive.get(path, single, If_None_Match=whole.headers["etag"]).status == 304
    assert archive.get(path, single, If_None_Match='"other"').status == 200
    some = archive.get(path, single, Range="bytes=128-131")
    assert (some.status, some.body, some.headers["content-range"]) == (206, b"DICM", f"bytes 128-131/{len(file)}")
    assert archive.get(path, single, Range="bytes=-7").body == file[-7:]
    past = archive.get(path, single, Range=f"bytes={len(file)}-")
    assert (past.status, past.headers["content-range"]) == (416, f"bytes */{len(file)}")
    # A multipart body has another boundary each time: no ranges, but it is not sent again either.
    several = archive.get(path, f"{REL}application/dicom", Range="bytes=0-1")
    assert several.status == 200
    assert archive.get(path, f"{REL}application/dicom", If_None_Match=several.headers["etag"]).status == 304


# Frames


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize("accept", [f"{REL}application/octet-stream{STAR}", f'{REL}"application/octet-stream"', "*/*", None])
def test_native_frames_are_little_endian_octets(archive: Archive, syntax: str, accept: str | None) -> None:
    """Checklist 3, 86, 87: parts in the order of the list, each with its location; little endian octets, big endian ones swapped."""
    path = path_of(archive.native[syntax])
    [(headers, second)] = parts(archive.get(f"{path}/frames/2", accept))
    assert headers["content-type"] == f"application/octet-stream; transfer-syntax={ExplicitVRLittleEndian}"
    assert headers["content-location"].endswith(f"{path}/frames/2")
    assert second == RAMP[1].tobytes()
    assert [data for _, data in parts(archive.get(f"{path}/frames/1,2", accept))] == [RAMP[0].tobytes(), RAMP[1].tobytes()]


@pytest.mark.parametrize("syntax", NATIVE)
def test_a_native_frame_as_a_single_part(archive: Archive, syntax: str) -> None:
    path = path_of(archive.native[syntax])
    answer = archive.get(f"{path}/frames/2", "application/octet-stream")
    assert (answer.status, answer.body) == (200, RAMP[1].tobytes())
    assert archive.get(f"{path}/frames/2", "application/octet-stream", Range="bytes=2-5").body == RAMP[1].tobytes()[2:6]


@pytest.mark.parametrize(
    ("syntax", "media_type"), [(JPEG2000, "image/jp2"), (JPEGBaseline8Bit, "image/jpeg"), (RLELossless, "image/dicom-rle")]
)
def test_compressed_frames_are_the_stored_code_streams(archive: Archive, syntax: str, media_type: str) -> None:
    path = path_of(archive.compressed[syntax])
    for accept in (f"{REL}application/octet-stream{STAR}", f"{REL}{media_type}; transfer-syntax={syntax}", "*/*"):
        answer = archive.get(f"{path}/frames/1,2", accept)
        # Viewers compare the name of the header with regard to case, and take the decoder from its parameter.
        assert f"\r\nContent-Type: {media_type}; transfer-syntax={syntax}\r\n".encode() in answer.body
        assert [data.rstrip(b"\0") for _, data in parts(answer)] == [stream.rstrip(b"\0") for stream in CODE_STREAMS]
    for accept in (f"{REL}application/octet-stream", f"{REL}application/octet-stream; transfer-syntax={ExplicitVRLittleEndian}"):
        assert archive.get(f"{path}/frames/1", accept).status == 406


@pytest.mark.parametrize("frame_list", ["0", "-1", "x", "1,,2", "2,1", "1,1", "1.5", ",1", "1,", "1 ", "9" * 12])
def test_a_malformed_frame_list_is_400(archive: Archive, frame_list: str) -> None:
    """Checklist 85: ascending positive integers joined by commas."""
    answer = archive.get(f"{path_of(archive.study[0])}/frames/{frame_list.replace(' ', '%20')}")
    assert (answer.status, json.loads(answer.body)["type"]) == (400, "invalid-frame-number")


def test_a_frame_that_is_not_there_is_404(archive: Archive) -> None:
    """Checklist 85, 91: frames beyond the last, and of what is no image."""
    assert archive.get(f"{path_of(archive.study[0])}/frames/2").status == 404
    assert archive.get(f"{path_of(archive.native[ExplicitVRLittleEndian])}/frames/1,3").status == 404
    coded = f'{REL}"image/jls"; transfer-syntax=1.2.840.10008.1.2.4.80'
    assert archive.get(f"{path_of(archive.native[ExplicitVRLittleEndian])}/frames/1,3", coded).status == 404  # before anything is sent
    pdf = document(b"%PDF-1.4 x")
    archive.store(part10(pdf))
    assert archive.get(f"{path_of(pdf)}/frames/1").status == 404


def test_frames_of_single_bits_begin_at_their_first_bit(archive: Archive) -> None:
    """Checklist 88: a part of a frame of single bits begins with the first of them."""
    bits = np.random.default_rng(1).integers(0, 2, (3, 5, 7), dtype=np.uint8)
    ds = image(bits, bits=1)
    archive.store(part10(ds))
    for number in (1, 2, 3):
        [(_, data)] = parts(archive.get(f"{path_of(ds)}/frames/{number}"))
        assert data == np.packbits(bits[number - 1].ravel(), bitorder="little").tobytes()


@pytest.mark.parametrize("syntax", NATIVE)
def test_several_frames_in_a_single_part_follow_each_other_without_padding(archive: Archive, syntax: str) -> None:
    """Checklist 88: single bits of the frames chosen are concatenated without padding (PS3.18 8.7.3.3.1)."""
    both = archive.get(f"{path_of(archive.native[syntax])}/frames/1,2", "application/octet-stream")
    assert (both.status, both.body, both.headers["content-length"]) == (200, RAMP.tobytes(), str(RAMP.nbytes))
    bits = np.random.default_rng(4).integers(0, 2, (4, 5, 7), dtype=np.uint8)
    ds = image(bits, bits=1)
    archive.store(part10(ds, syntax))
    for chosen in ([1, 3], [2, 3, 4], [1, 2, 3, 4]):
        answer = archive.get(f"{path_of(ds)}/frames/{','.join(map(str, chosen))}", "application/octet-stream")
        wanted = np.packbits(np.concatenate([bits[n - 1].ravel() for n in chosen]), bitorder="little")
        assert answer.body == wanted.tobytes()
    assert archive.get(f"{path_of(ds)}/frames/1,5", "application/octet-stream").status == 404


def test_long_frame_lists_have_tags_of_their_own(archive: Archive) -> None:
    """Checklist 32: a tag names one answer, however long the list of frames is."""
    ds = image(np.arange(60 * 4, dtype=np.uint8).reshape(60, 2, 2))
    archive.store(part10(ds))
    first, second = (",".join(map(str, [*range(1, 40), last])) for last in (50, 60))
    answer = archive.get(f"{path_of(ds)}/frames/{first}")
    assert archive.get(f"{path_of(ds)}/frames/{first}", If_None_Match=answer.headers["etag"]).status == 304
    assert archive.get(f"{path_of(ds)}/frames/{second}", If_None_Match=answer.headers["etag"]).status == 200


def test_large_frames_are_whole(archive: Archive) -> None:
    pixels = np.random.default_rng(2).integers(0, 65536, (2, 700, 900), dtype=np.uint16)
    for syntax in NATIVE:
        ds = image(pixels)
        archive.store(part10(ds, syntax))
        found = parts(archive.get(f"{path_of(ds)}/frames/1,2"))
        assert [data for _, data in found] == [frame.tobytes() for frame in pixels]
        [(_, file)] = parts(archive.get(path_of(ds), f"{REL}application/dicom"))
        assert read(file).PixelData == pixels.tobytes()


def test_a_large_frame_of_several_fragments_is_joined(archive: Archive) -> None:
    """Checklist 89: fragments of one frame are joined, without item tags."""
    pieces = [b"\xff\x4f\xff\x51" + b"a" * 200_000, b"b" * 200_000, b"c" * 200_000]
    ds = image(RAMP[:1], compressed=pieces)
    ds.NumberOfFrames = 1
    archive.store(part10(ds, JPEG2000))
    whole = b"".join(pieces)
    assert parts(archive.get(f"{path_of(ds)}/frames/1", "*/*"))[0][1] == whole
    single = archive.get(f"{path_of(ds)}/frames/1", f"image/jp2; transfer-syntax={JPEG2000}")
    assert (single.headers["content-type"], single.body) == (f"image/jp2; transfer-syntax={JPEG2000}", whole)


@pytest.mark.parametrize("table", ["none", "basic", "extended"])
@pytest.mark.parametrize("fragments", [1, 3])
def test_frames_are_found_with_every_kind_of_offset_table(archive: Archive, table: str, fragments: int) -> None:
    """Checklist 89: empty, basic and extended offset tables, frames of one fragment and of several: the code streams, nothing else."""
    if table == "extended" and fragments > 1:
        pytest.skip("an extended offset table is for frames of one fragment each (PS3.3 C.7.6.3)")
    streams = [b"\xff\x4f\xff\x51" + bytes([n]) * (500 + n) + b"\xff\xd9" for n in range(4)]
    ds = image(np.zeros((4, 4, 4), np.uint8), compressed=streams)
    if table == "extended":
        ds.PixelData, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = encapsulate_extended(streams)
    else:
        ds.PixelData = encapsulate(streams, fragments_per_frame=fragments, has_bot=table == "basic")
    archive.store(part10(ds, JPEG2000))
    answer = archive.get(f"{path_of(ds)}/frames/1,2,4", f'{REL}"image/jp2"; transfer-syntax={JPEG2000}')
    assert [data.rstrip(b"\0") for _, data in parts(answer)] == [streams[0], streams[1], streams[3]]
    assert archive.get(f"{path_of(ds)}/frames/5", "*/*").status == 404


def test_every_part_tells_type_length_and_place(archive: Archive) -> None:
    """Checklist 18: each part has Content-Type, Content-Length and, naming a resource, Content-Location (B43)."""
    first, compressed = archive.study[0], archive.compressed[JPEG2000]
    study = f"/studies/{first.StudyInstanceUID}"
    for path in (study, path_of(first), f"{path_of(first)}/frames/1", f"{path_of(first)}/bulkdata", f"{path_of(first)}/pixeldata"):
        for headers, data in parts(archive.get(path, f"{REL}*/*")):
            assert headers["content-length"] == str(len(data))
            assert headers["content-location"].startswith(archive.server.url + study)
            assert "transfer-syntax=" in headers["content-type"]
    for headers, _ in parts(archive.get(f"{path_of(compressed)}/frames/1,2", "*/*")):
        assert headers["content-type"] == f"image/jp2; transfer-syntax={JPEG2000}"
        assert archive.get(headers["content-location"].removeprefix(archive.server.url), "*/*").status == 200


# Metadata


def metadata(archive: Archive, path: str, **headers: str) -> list[dict[str, Any]]:
    answer = archive.get(path + "/metadata", DICOM_JSON, **headers)
    assert (answer.status, answer.headers["content-type"]) == (200, DICOM_JSON)
    found: list[dict[str, Any]] = json.loads(answer.body)
    return found


def test_metadata_on_all_levels_is_the_data_set_without_bulk(archive: Archive) -> None:
    """Checklist 72, 73: an array, keys ascending."""
    first = archive.study[0]
    study, series = f"/studies/{first.StudyInstanceUID}", f"/studies/{first.StudyInstanceUID}/series/{first.SeriesInstanceUID}"
    [one] = metadata(archive, path_of(first))
    uri = f"{archive.server.url}{path_of(first)}/bulkdata/7FE00010"
    assert one["7FE00010"] == {"vr": "OW", "BulkDataURI": uri}
    assert one["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "Test^Patient"}]}
    assert list(one) == sorted(one)
    for path, count in ((study, 4), (series, 2)):
        found = metadata(archive, path)
        assert len(found) == count
        assert one in found


def test_series_metadata_follows_every_change_at_once(archive: Archive) -> None:
    """Checklist 32: the tag changes with every version."""
    study, series = new_uid(), new_uid()
    path = f"/studies/{study}/series/{series}"
    for count in (1, 2, 3):
        archive.store(part10(image(study=study, series=series, number=count)))
        answer = archive.get(path + "/metadata", DICOM_JSON)
        assert len(json.loads(answer.body)) == count
        assert archive.get(path + "/metadata", DICOM_JSON).body == answer.body
        assert archive.get(path + "/metadata", DICOM_JSON, If_None_Match=answer.headers["etag"]).status == 304
        assert len(metadata(archive, f"/studies/{study}")) == count
    ds = image(study=study, series=series, number=1)
    archive.store(part10(ds))
    before = archive.get(path + "/metadata", DICOM_JSON).headers["etag"]
    ds.PatientComments = "changed"
    archive.store(part10(ds))
    after = archive.get(path + "/metadata", DICOM_JSON)
    assert b"changed" in after.body
    assert after.headers["etag"] != before


def test_metadata_is_compressed_for_those_who_take_it(archive: Archive) -> None:
    first = archive.study[0]
    path = f"/studies/{first.StudyInstanceUID}/metadata"
    plain, packed = archive.get(path, DICOM_JSON), archive.get(path, DICOM_JSON, Accept_Encoding="gzip, deflate, br")
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert packed.headers["etag"] != plain.headers["etag"]
    assert "content-encoding" not in archive.get(path, DICOM_JSON, Accept_Encoding="gzip;q=0").headers


def test_urls_in_metadata_are_those_the_caller_reaches(archive: Archive) -> None:
    """Checklist 84: BulkDataURIs are absolute URLs under which the caller reaches the server."""
    first = archive.study[0]
    path = f"/studies/{first.StudyInstanceUID}/series/{first.SeriesInstanceUID}"
    for host in ("pacs.example", "other.example:8443"):
        found = metadata(archive, path, Host=host)
        assert all(ds["7FE00010"]["BulkDataURI"].startswith(f"http://{host}/dicom-web/studies/") for ds in found)
    assert archive.get(path + "/metadata", DICOM_JSON, Host='evil"').status == 400


@pytest.mark.parametrize("level", ["study", "instance"])
def test_metadata_in_xml_is_one_part_per_instance(archive: Archive, level: str) -> None:
    first = archive.study[0]
    path = path_of(first) if level == "instance" else f"/studies/{first.StudyInstanceUID}"
    found = parts(archive.get(path + "/metadata", f"{REL}application/dicom+xml"))
    assert len(found) == (1 if level == "instance" else 4)
    root = ElementTree.fromstring(found[0][1])
    keywords = [element.get("keyword") for element in root]
    assert {"PatientName", "SOPInstanceUID", "PixelData"} <= set(keywords)


def test_metadata_is_the_same_in_xml_and_json(archive: Archive) -> None:
    """Checklist 103: the full data set, identical for every representation."""
    ds, table, empty = image(), Dataset(), Dataset()
    table.LUTData, table.LUTDescriptor = list(range(4000)), [4000, 0, 16]
    table["LUTData"].VR, table["LUTDescriptor"].VR = "US", "US"
    ds.ModalityLUTSequence, ds.OtherPatientNames = [table, empty], ["Yamada^Tarou=山田^太郎", "Other"]
    ds.SpecificCharacterSet, ds.ImageComments, ds.PixelSpacing, ds.ImageType = (
        "ISO_IR 192",
        "a <b> & c",
        ["0.5", "0.25"],
        ["ORIGINAL", "", "AXIAL"],
    )
    ds.FrameOfReferenceUID, ds.AccessionNumber = new_uid(), ""
    archive.store(part10(ds))
    [found] = metadata(archive, path_of(ds))
    [(_, xml)] = parts(archive.get(path_of(ds) + "/metadata", f"{REL}application/dicom+xml"))
    assert texts(native_xml_reader.decode(xml, 10)) == texts(found)


def texts(value: Any) -> Any:
    """A document with numbers as text, as XML has them."""
    if isinstance(value, dict):
        return {key: texts(inner) for key, inner in value.items()}
    return [texts(inner) for inner in value] if isinstance(value, list) else value if value is None else str(value)


def test_only_values_that_may_be_bulk_data_are_left_out(archive: Archive) -> None:
    """Checklist 78: BulkDataURI for the VRs of PS3.18 10.4.3.3.2 only; long names, UIDs, codes and dates stay in the metadata."""
    ds, long = image(), 3000
    ds.ImageComments, ds.TextValue = "x" * long, "y" * long  # LT, UT
    ds.OtherPatientNames = [f"Name^Number {n}" for n in range(long // 10)]
    ds.OtherPatientIDs = [f"id {n}" for n in range(long // 4)]
    ds.RelatedGeneralSOPClassUID = [f"1.2.{n}" for n in range(long // 4)]
    ds.ImageType = ["ORIGINAL"] * (long // 8)
    ds.DateOfLastCalibration = ["20260102"] * (long // 8)
    ds.FrameTimeVector = ["0.125"] * long
    ds.SimpleFrameList = list(range(long))
    archive.store(part10(ds))
    [found] = metadata(archive, path_of(ds))
    left_out = {key: element["vr"] for key, element in found.items() if "BulkDataURI" in element}
    assert {"00204000", "0040A160", "00181065", "00081161", "7FE00010"} == set(left_out)
    assert set(left_out.values()) <= {"LT", "UT", "DS", "UL", "OW"}
    assert len(found["00101001"]["Value"]) == long // 10
    for key in left_out:
        answer = archive.get(f"{path_of(ds)}/bulkdata/{key}", "*/*")
        assert (answer.status, answer.headers["content-type"]) == (200, "application/octet-stream")


def test_metadata_in_another_type_is_406(archive: Archive) -> None:
    assert archive.get(path_of(archive.study[0]) + "/metadata", "image/jpeg").status == 406


# Bulk data


@pytest.mark.parametrize("syntax", NATIVE)
def test_pixel_data_as_bulk_data_is_little_endian(archive: Archive, syntax: str) -> None:
    """Checklist 22, 87: a bulk value with byte ranges, little endian whatever is stored."""
    [ds] = metadata(archive, path_of(archive.native[syntax]))
    path = ds["7FE00010"]["BulkDataURI"].removeprefix(archive.server.url)
    raw = archive.get(path, "*/*")
    assert (raw.status, raw.headers["content-type"], raw.body) == (200, "application/octet-stream", RAMP.tobytes())
    assert parts(archive.get(path, f'{REL}"application/octet-stream"'))[0][1] == RAMP.tobytes()
    assert archive.get(path, "*/*", Range="bytes=2-3").body == RAMP.tobytes()[2:4]


def test_compressed_pixel_data_as_bulk_data_is_its_frames(archive: Archive) -> None:
    path = path_of(archive.compressed[JPEG2000]) + "/bulkdata/7FE00010"
    assert len(parts(archive.get(path, "*/*"))) == 2


def test_long_values_inside_sequences_are_bulk_data(archive: Archive) -> None:
    """Checklist 84: BulkDataURIs inside sequences open."""
    ds, item = image(), Dataset()
    item.LUTData = list(range(4000))
    item["LUTData"].VR = "US"
    ds.ModalityLUTSequence = [Dataset(), item]
    for syntax in NATIVE:
        ds.SOPInstanceUID = new_uid()
        archive.store(part10(ds, syntax))
        [found] = metadata(archive, path_of(ds))
        uri = found["00283000"]["Value"][1]["00283006"]["BulkDataURI"]
        assert uri.endswith("/bulkdata/00283000/2/00283006")
        answer = archive.get(uri.removeprefix(archive.server.url), "*/*")
        assert answer.body == np.arange(4000, dtype="<u2").tobytes()


def test_an_encapsulated_document_comes_under_its_own_media_type(archive: Archive) -> None:
    """Checklist 93: the bulk part of a document has the media type of the document."""
    content = b"%PDF-1.4 " + b"x" * 3000
    pdf = document(content)
    archive.store(part10(pdf))
    [found] = metadata(archive, path_of(pdf))
    path = found["00420011"]["BulkDataURI"].removeprefix(archive.server.url)
    raw = archive.get(path, "*/*")
    assert (raw.headers["content-type"], raw.body.rstrip(b"\0")) == ("application/pdf", content)
    [(headers, data)] = parts(archive.get(path, f'{REL}"application/pdf", {REL}"application/octet-stream"'))
    assert (headers["content-type"], data.rstrip(b"\0")) == ("application/pdf", content)
    assert archive.get(path, "application/octet-stream").headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize("bulk_path", ["00100010", "7FE00011", "nonsense", "00283000/1/00283006", "../metadata"])
def test_bulk_data_that_is_none_is_404(archive: Archive, bulk_path: str) -> None:
    """Checklist 24: 404 for bulk data that is not there."""
    assert archive.get(f"{path_of(archive.study[0])}/bulkdata/{bulk_path}").status == 404


def test_bytes_that_are_lost_are_500_and_named_so(archive: Archive) -> None:
    ds = image(RAMP)
    archive.store(part10(ds))
    for file in (archive.server.data / "storage").rglob("*.dcm"):
        if str(ds.SOPInstanceUID) in str(file):
            file.unlink()
    for suffix, accept in (("", "application/dicom"), ("", f"{REL}application/dicom"), ("/frames/1", "*/*")):
        answer = archive.get(path_of(ds) + suffix, accept)
        assert (answer.status, json.loads(answer.body)["type"]) == (500, "blob-missing")
