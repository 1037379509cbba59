"""STOW-RS with metadata and bulk data apart, over the wire: PS3.18 10.5.1.1, 10.5.2 and Annex F."""

from __future__ import annotations

import base64
import io
import json
import socket
from collections.abc import Iterator
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

from pacslite.dicomweb import native_xml
from tests.support.http import Answer, WebServer, running
from tests.support.stow import JSON_TYPE, XML_TYPE, Bulk, json_body, metadata, mp4, mpeg2, part, path_of, uid_of, xml_body

SYNTAX = "1.2.840.10008.1.2.4."
COLOUR = np.arange(24 * 16 * 3, dtype=np.uint8).reshape(24, 16, 3)
GREY = np.arange(24 * 16, dtype=np.uint16).reshape(24, 16)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    settings = {"max_stow_metadata_bytes": "200000", "max_upload_bytes": "4000000", "coercion_warnings": "1", "max_stow_parts": "2000"}
    with running(tmp_path_factory.mktemp("stow"), **settings) as started:
        yield started


@pytest.fixture(autouse=True)
def nothing_left_in_the_spool(server: WebServer) -> Iterator[None]:
    yield
    assert list((server.data / "spool").iterdir()) == []


def post(server: WebServer, content: bytes | Iterator[bytes], content_type: str = JSON_TYPE, path: str = "/studies") -> Answer:
    return server.request("POST", path, content, {"Content-Type": content_type})


def stored(server: WebServer, data_set: dict[str, Any]) -> Dataset:
    answer = server.get(path_of(data_set), "application/dicom; transfer-syntax=*")
    assert answer.status == 200, answer.body
    return dcmread(io.BytesIO(answer.body))


def reasons(answer: Answer, tag: str) -> list[int]:
    return [item["00081197"]["Value"][0] for item in json.loads(answer.body).get(tag, {}).get("Value", [])]


def pillow(array: np.ndarray, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, kind, **options)
    return out.getvalue()


def jpeg(array: np.ndarray, **options: Any) -> bytes:
    return pillow(array, "JPEG", **options)


def wide(array: np.ndarray) -> bytes:
    return bytes(imagecodecs.ljpeg_encode(array, bitspersample=12))


LOSSY = [
    ("image/jpeg", jpeg(COLOUR), "50", (3, 8, "YBR_FULL_422")),
    ("image/jpeg", jpeg(COLOUR, subsampling=0), "50", (3, 8, "YBR_FULL")),
    ("image/jpeg", jpeg(COLOUR[..., 0]), "50", (1, 8, "MONOCHROME2")),
    ("image/jp2", bytes(imagecodecs.jpeg2k_encode(COLOUR, codecformat="j2k", reversible=True)), "90", (3, 8, "YBR_RCT")),
    ("image/jp2", bytes(imagecodecs.jpeg2k_encode(GREY, codecformat="j2k", level=20)), "91", (1, 16, "MONOCHROME2")),
    ("image/jphc", bytes(imagecodecs.htj2k_encode(GREY)), "201", (1, 16, "MONOCHROME2")),
    ("image/jls", bytes(imagecodecs.jpegls_encode(GREY)), "80", (1, 16, "MONOCHROME2")),
    ("image/x-jls", bytes(imagecodecs.jpegls_encode(COLOUR, level=2)), "81", (3, 8, "RGB")),
]


@pytest.mark.parametrize(("media_type", "content", "number", "description"), LOSSY, ids=[f"{row[2]}-{row[3][0]}" for row in LOSSY])
def test_compressed_pixels_are_encapsulated_as_they_came_and_described(
    server: WebServer, media_type: str, content: bytes, number: str, description: tuple[int, int, str]
) -> None:
    """Checklist 112: lossy bulk data is encapsulated unchanged, the pixel description derived where it is left out."""
    data_set = metadata(uri="pixels/1")
    answer = post(server, json_body([data_set], [Bulk("pixels/1", content, media_type)]))
    assert answer.status == 200, answer.body
    ds = stored(server, data_set)
    assert ds.file_meta.TransferSyntaxUID == SYNTAX + number
    assert next(generate_frames(ds.PixelData, number_of_frames=1)).rstrip(b"\0") == content.rstrip(b"\0")
    assert (ds.Rows, ds.Columns, ds.PixelRepresentation) == (24, 16, 0)
    assert (ds.SamplesPerPixel, ds.BitsStored, ds.PhotometricInterpretation) == description
    assert (ds.BitsAllocated, ds.HighBit) == (description[1], description[1] - 1)
    assert ds.get("LossyImageCompression", "00") == ("01" if number in ("50", "81", "91") else "00")


def test_a_jp2_file_gives_its_code_stream(server: WebServer) -> None:
    data_set = metadata(uri="a")
    content = bytes(imagecodecs.jpeg2k_encode(COLOUR, codecformat="jp2", reversible=True))
    assert content[4:8] == b"jP  "
    assert post(server, json_body([data_set], [Bulk("a", content, "image/jp2")])).status == 200
    ds = stored(server, data_set)
    frame = next(generate_frames(ds.PixelData, number_of_frames=1))
    assert frame.startswith(b"\xff\x4f\xff\x51")
    assert frame.rstrip(b"\0") in content
    assert np.array_equal(imagecodecs.jpeg2k_decode(frame), COLOUR)


def test_rle_is_taken_with_its_description_and_refused_without_the_header(server: WebServer) -> None:
    source = Dataset()
    source.ensure_file_meta()
    source.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    source.Rows, source.Columns, source.BitsAllocated, source.BitsStored, source.HighBit = 24, 16, 16, 16, 15
    source.SamplesPerPixel, source.PhotometricInterpretation, source.PixelRepresentation = 1, "MONOCHROME2", 0
    source.PixelData = GREY.tobytes()
    source["PixelData"].VR = "OW"
    source.SOPClassUID, source.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2"
    source.compress("1.2.840.10008.1.2.5", generate_instance_uid=False)
    frame = next(generate_frames(source.PixelData, number_of_frames=1))
    described = {
        k: v for k, v in source.to_json_dict(bulk_data_threshold=0, bulk_data_element_handler=lambda _: "p").items() if k[:4] == "0028"
    }
    data_set = metadata(uri="p", **described)
    assert post(server, json_body([data_set], [Bulk("p", frame, "image/dicom-rle")])).status == 200
    assert np.array_equal(stored(server, data_set).pixel_array, GREY)
    assert reasons(post(server, json_body([metadata(uri="p")], [Bulk("p", b"\0" * 80, "image/dicom-rle")])), "00081198") == [0xC000]


@pytest.mark.parametrize("separate", [True, False], ids=["one-part-each", "one-part"])
@pytest.mark.parametrize("by_frame", [True, False], ids=["frame-resources", "same-location"])
def test_frames_come_in_parts_of_their_own_or_in_one(server: WebServer, separate: bool, by_frame: bool) -> None:
    frames = [jpeg(COLOUR[..., n % 3] + n) for n in range(5)]
    data_set = metadata(uri="p", t00280008={"vr": "IS", "Value": [5]})
    if separate:
        bulk = [Bulk(f"p/frames/{n}" if by_frame else "p", frame, "image/jpeg") for n, frame in enumerate(frames, 1)]
    else:
        bulk = [Bulk("p", b"".join(frames), "image/jpeg")]
    assert post(server, json_body([data_set], bulk)).status == 200
    ds = stored(server, data_set)
    assert [f.rstrip(b"\0") for f in generate_frames(ds.PixelData, number_of_frames=5)] == [f.rstrip(b"\0") for f in frames]
    third = server.get(f"{path_of(data_set)}/frames/3", "image/jpeg; transfer-syntax=*")
    assert third.body.rstrip(b"\0") == frames[2].rstrip(b"\0")


def test_other_than_the_announced_frames_are_a_failure(server: WebServer) -> None:
    data_set = metadata(uri="p", t00280008={"vr": "IS", "Value": [3]})
    answer = post(server, json_body([data_set], [Bulk("p", jpeg(COLOUR), "image/jpeg")]))
    assert (answer.status, reasons(answer, "00081198")) == (409, [0xC000])


PALETTE = Image.fromarray(COLOUR).quantize(16)
CONVERTED = [
    ("image/png", pillow(COLOUR, "PNG"), COLOUR[None]),
    ("image/png", pillow(COLOUR[..., 0], "PNG"), COLOUR[None, ..., 0]),
    ("image/png", pillow(GREY, "PNG"), GREY[None]),
    ("image/png", pillow(np.dstack([COLOUR, np.full((24, 16), 255, np.uint8)]), "PNG"), COLOUR[None]),
    ("image/png", pillow(np.asarray(PALETTE.convert("RGB")), "PNG"), np.asarray(PALETTE.convert("RGB"))[None]),
]


@pytest.mark.parametrize(("media_type", "content", "pixels"), CONVERTED, ids=range(len(CONVERTED)))
def test_png_becomes_the_same_pixels(server: WebServer, media_type: str, content: bytes, pixels: np.ndarray) -> None:
    """Checklist 112: PNG and GIF are converted losslessly."""
    data_set = metadata(uri="p")
    answer = post(server, json_body([data_set], [Bulk("p", content, media_type)]))
    assert answer.status == 200, answer.body
    ds = stored(server, data_set)
    assert ds.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert np.array_equal(ds.pixel_array, pixels[0])


def test_an_animated_gif_becomes_all_its_frames(server: WebServer) -> None:
    pictures = [Image.fromarray(np.full((8, 6), 40 * n, np.uint8)) for n in range(4)]
    out = io.BytesIO()
    pictures[0].save(out, "GIF", save_all=True, append_images=pictures[1:], duration=80)
    data_set = metadata(uri="p")
    assert post(server, json_body([data_set], [Bulk("p", out.getvalue(), "image/gif")])).status == 200
    ds = stored(server, data_set)
    assert (ds.NumberOfFrames, ds.FrameTime, ds.PhotometricInterpretation) == (4, 80, "RGB")
    assert [frame[0, 0].tolist() for frame in ds.pixel_array] == [[40 * n] * 3 for n in range(4)]


def test_a_picture_that_would_lose_something_is_refused(server: WebServer) -> None:
    transparent = pillow(np.dstack([COLOUR, np.full((24, 16), 7, np.uint8)]), "PNG")
    deep = bytes(imagecodecs.png_encode(COLOUR.astype(np.uint16) * 257))
    disagreeing = metadata(uri="p", t00280010={"vr": "US", "Value": [99]})
    for data_set, content in ((metadata(uri="p"), transparent), (metadata(uri="p"), deep), (disagreeing, CONVERTED[0][1])):
        answer = post(server, json_body([data_set], [Bulk("p", content, "image/png")]))
        assert (answer.status, reasons(answer, "00081198")) == (409, [0xC000])


VIDEOS = [
    ("video/mp4", mp4(), "102", 25, 48, 64),
    ("video/mp4", mp4(level=42, columns=1920, rows=1080), "104", 25, 1080, 1920),
    ("video/mp4", mp4(codec=b"hvc1"), "107", 25, 48, 64),
    ("video/mpeg", mpeg2(), "100", 3, 576, 720),
    ("video/mpeg2", mpeg2(columns=1920, rows=1080), "101", 3, 1080, 1920),
]


@pytest.mark.parametrize(("media_type", "content", "number", "frames", "rows", "columns"), VIDEOS, ids=[row[2] for row in VIDEOS])
def test_video_is_kept_as_one_stream(
    server: WebServer, media_type: str, content: bytes, number: str, frames: int, rows: int, columns: int
) -> None:
    data_set = metadata("1.2.840.10008.5.1.4.1.1.77.1.1.1", uri="v")
    answer = post(server, json_body([data_set], [Bulk("v", content, media_type)]))
    assert answer.status == 200, answer.body
    ds = stored(server, data_set)
    assert ds.file_meta.TransferSyntaxUID == SYNTAX + number
    assert (ds.NumberOfFrames, ds.Rows, ds.Columns, ds.PhotometricInterpretation) == (frames, rows, columns, "YBR_PARTIAL_420")
    assert (ds.FrameTime, ds.FrameIncrementPointer) == (40, 0x00181063)
    assert next(generate_frames(ds.PixelData, number_of_frames=1)).rstrip(b"\0") == content.rstrip(b"\0")


DOCUMENTS = [
    ("application/pdf", "application/pdf", b"%PDF-1.7 odd", "104.1"),
    ("text/xml", "text/xml", b"<ClinicalDocument/>", "104.2"),
    ("model/stl", "model/stl", b"solid x", "104.3"),
    ("application/vnd.ms-pki.stl", "model/stl", b"solid y", "104.3"),
    ("model/obj", "model/obj", b"v 0 0 0\n", "104.4"),
]


@pytest.mark.parametrize(("media_type", "kept_as", "content", "number"), DOCUMENTS, ids=[row[0].replace("/", "-") for row in DOCUMENTS])
def test_documents_keep_their_bytes_type_and_length(server: WebServer, media_type: str, kept_as: str, content: bytes, number: str) -> None:
    data_set = metadata(f"1.2.840.10008.5.1.4.1.1.{number}", t00420011={"vr": "OB", "BulkDataURI": "doc"})
    assert post(server, json_body([data_set], [Bulk("doc", content, media_type)])).status == 200
    ds = stored(server, data_set)
    assert (ds.MIMETypeOfEncapsulatedDocument, ds.EncapsulatedDocument[: len(content)]) == (kept_as, content)
    assert ds.get("EncapsulatedDocumentLength", len(content)) == len(content)
    assert server.get(f"{path_of(data_set)}/bulkdata/00420011").body.rstrip(b"\0") == content


def described(**more: Any) -> dict[str, Any]:
    numbers = {"00280002": 1, "00280010": 24, "00280011": 16, "00280100": 16, "00280101": 16, "00280102": 15, "00280103": 0}
    elements = {tag: {"vr": "US", "Value": [number]} for tag, number in numbers.items()}
    return metadata(**elements, t00280004={"vr": "CS", "Value": ["MONOCHROME2"]}, **more)


def test_octets_and_inline_binary_inside_sequences_too(server: WebServer) -> None:
    item = {"00420011": {"vr": "OB", "BulkDataURI": "b"}, "00282000": {"vr": "OB", "InlineBinary": base64.b64encode(b"abcd").decode()}}
    data_set = described(t7FE00010={"vr": "OW", "BulkDataURI": "a"}, t00400275={"vr": "SQ", "Value": [item, {}, None]})
    answer = post(server, json_body([data_set], [Bulk("a", GREY.tobytes()), Bulk("b", b"inner!")]))
    assert answer.status == 200, answer.body
    ds = stored(server, data_set)
    assert np.array_equal(ds.pixel_array, GREY)
    assert len(ds[0x00400275].value) == 3
    assert (ds[0x00400275].value[0].EncapsulatedDocument, ds[0x00400275].value[0].ICCProfile) == (b"inner!", b"abcd")


@pytest.mark.parametrize(("location", "uri"), [("a/b", "a/b"), (" a/b ", "a/b"), ("/dicom-web/a", "a"), ("urn:uuid:1", "urn:uuid:1")])
def test_bulk_data_is_found_by_its_location(server: WebServer, location: str, uri: str) -> None:
    """Checklist 21: Content-Location equals BulkDataURI, absolute or relative."""
    data_set = described(t7FE00010={"vr": "OW", "BulkDataURI": uri})
    assert post(server, json_body([data_set], [Bulk(location, GREY.tobytes())])).status == 200
    absolute = described(t7FE00010={"vr": "OW", "BulkDataURI": f"http://127.0.0.1:{server.port}/dicom-web/x"})
    assert post(server, json_body([absolute], [Bulk("x", GREY.tobytes())])).status == 200


def test_missing_bulk_data_fails_its_instance_alone(server: WebServer) -> None:
    """Checklist 111: JSON metadata is one array part, and missing bulk data fails one instance."""
    lacking, whole = described(t7FE00010={"vr": "OW", "BulkDataURI": "gone"}), described(t7FE00010={"vr": "OW", "BulkDataURI": "here"})
    answer = post(server, json_body([lacking, whole], [Bulk("here", GREY.tobytes())]))
    assert answer.status == 202
    response = json.loads(answer.body)
    assert response["00081198"]["Value"][0]["00081155"]["Value"] == [uid_of(lacking)]
    assert response["00081199"]["Value"][0]["00081155"]["Value"] == [uid_of(whole)]
    assert server.get(path_of(lacking)).status == 404


def test_xml_metadata_is_one_part_for_each_instance(server: WebServer) -> None:
    """Checklist 111: XML metadata is one part per instance."""
    data_sets = [described(t7FE00010={"vr": "OW", "BulkDataURI": f"p{n}"}, t00100010=name("Müller^Jörg^A^Dr^MD")) for n in range(2)]
    documents = [native_xml.encode(data_set) for data_set in data_sets]
    answer = post(server, xml_body(documents, [Bulk(f"p{n}", GREY.tobytes()) for n in range(2)]), XML_TYPE)
    assert answer.status == 200, answer.body
    ds = stored(server, data_sets[1])
    assert np.array_equal(ds.pixel_array, GREY)
    assert (ds.PatientName, ds.SpecificCharacterSet) == ("Müller^Jörg^A^Dr^MD", "ISO_IR 192")


def name(alphabetic: str, **groups: str) -> dict[str, Any]:
    return {"vr": "PN", "Value": [{"Alphabetic": alphabetic, **groups}]}


def test_text_of_any_script_is_kept(server: WebServer) -> None:
    charset = {"vr": "CS", "Value": ["ISO_IR 100"]}
    person = name("Yamada^Tarou", Ideographic="山田^太郎", Phonetic="やまだ^たろう")
    data_set = metadata(t00080005=charset, t00100010=person, t00104000={"vr": "LT", "Value": ["a\\b\r\nc"]})
    assert post(server, json_body([data_set])).status == 200
    ds = stored(server, data_set)
    assert (str(ds.PatientName), ds.PatientComments) == ("Yamada^Tarou=山田^太郎=やまだ^たろう", "a\\b\r\nc")
    found = json.loads(server.get(f"{path_of(data_set)}/metadata", "application/dicom+json").body)[0]
    assert found["00100010"] == person


def test_numbers_keep_their_digits_and_need_no_quotes(server: WebServer) -> None:
    data_set = metadata(
        t00180050={"vr": "DS", "Value": [0.142999999, "1.50"]},
        t00209161={"vr": "UV", "Value": [2**64 - 1]},
        t0018605A={"vr": "FL", "Value": [1.5, "NaN"]},
        t00280009={"vr": "AT", "Value": ["00181063"]},
        t00280103={"vr": "US", "Value": ["1"]},
    )
    assert post(server, json_body([data_set])).status == 200
    ds = stored(server, data_set)
    assert [str(v) for v in ds.SliceThickness] == ["0.142999999", "1.50"]
    assert (ds[0x00209161].value, ds.FrameIncrementPointer, ds.PixelRepresentation) == (2**64 - 1, 0x00181063, 1)


def test_group_2_of_metadata_is_left_out_and_file_meta_made_anew(server: WebServer) -> None:
    """Checklist 114: group 0002 in supplied metadata is ignored, with a warning where warnings are wanted."""
    data_set = metadata(t00020010={"vr": "UI", "Value": ["1.2.840.10008.1.2.2"]}, t00020016={"vr": "AE", "Value": ["EVIL"]})
    answer = post(server, json_body([data_set]))
    assert answer.status == 202
    assert json.loads(answer.body)["00081199"]["Value"][0]["00081196"]["Value"] == [0xB006]
    ds = stored(server, data_set)
    assert ds.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert ds.file_meta.MediaStorageSOPInstanceUID == uid_of(data_set)
    assert "SourceApplicationEntityTitle" not in ds.file_meta


@pytest.mark.parametrize("content_type", ["application/dicom+json", "application/dicom+xml"])
def test_metadata_alone_may_be_the_whole_body(server: WebServer, content_type: str) -> None:
    data_set = metadata()
    document = json.dumps([data_set]).encode() if content_type.endswith("json") else native_xml.encode(data_set)
    assert post(server, document, content_type).status == 200
    assert stored(server, data_set).PatientID == "T-1"


def test_bulk_data_for_nobody_and_without_a_location_is_told(server: WebServer) -> None:
    bulk = [Bulk("unknown", b"1234")]
    content = part(b"[]"[:0] + json.dumps([metadata()]).encode(), "Content-Type: application/dicom+json") + part(b"nowhere")
    answer = post(server, content + json_body([metadata()], bulk))
    assert answer.status == 202
    assert reasons(answer, "0008119A") == [0xC000, 0xC000]


def test_the_transfer_syntax_of_a_part_has_to_fit_its_bytes(server: WebServer) -> None:
    picture = jpeg(COLOUR)
    for named, status in (("50", 200), ("51", 200), ("70", 409), ("90", 409)):
        data_set = metadata(uri="p")
        answer = post(server, json_body([data_set], [Bulk("p", picture, f"image/jpeg; transfer-syntax={SYNTAX}{named}")]))
        assert answer.status == status, named
        if status == 409:
            assert reasons(answer, "00081198") == [0xC122]
        else:
            assert stored(server, data_set).file_meta.TransferSyntaxUID == SYNTAX + named


@pytest.mark.parametrize(
    ("media_type", "reason"),
    [("text/plain", 0xC122), ("image/jpeg", 0xC000), ("image/jp2", 0xC000), ("image/png", 0xC000), ("video/mp4", 0xC000)],
)
def test_pixels_of_another_type_than_said_are_refused(server: WebServer, media_type: str, reason: int) -> None:
    answer = post(server, json_body([metadata(uri="p")], [Bulk("p", b"nonsense" * 10, media_type)]))
    assert (answer.status, reasons(answer, "00081198")) == (409, [reason])


DEEP = b'[{"00400275":' + b'{"vr":"SQ","Value":[{"00400275":' * 50_000


@pytest.mark.parametrize(
    "document",
    [b"", b"{", b"[]", b"[1]", b"7", b"\xff\xfe", b'[{"a":1,"a":2}]', DEEP, b"[" * 100_000, b'[{"00100020":' + b"9" * 5000 + b"}]"],
    ids=range(10),
)
def test_hostile_json_is_400_or_fails_its_instance(server: WebServer, document: bytes) -> None:
    """Checklist B41: depth, size and forms of JSON that nobody writes in good faith."""
    answer = post(server, json_body(document[:190_000]))
    assert answer.status in (400, 409), answer.body


WRONG = [
    ("00100020", {"vr": "LO", "Value": "T-1"}),
    ("00100020", {"vr": "LO", "Value": [{"a": 1}]}),
    ("00100020", {"vr": "ZZ", "Value": ["x"]}),
    ("00100020", {"Value": ["x"]}),
    ("00100020", ["x"]),
    ("0010002", {"vr": "LO"}),
    ("FFFEE000", {"vr": "UN"}),
    ("00000002", {"vr": "UI", "Value": ["1.2"]}),
    ("00280010", {"vr": "US", "Value": [65536]}),
    ("00280010", {"vr": "US", "Value": ["x"]}),
    ("00280010", {"vr": "US", "Value": [None]}),
    ("00280009", {"vr": "AT", "Value": ["nonsense"]}),
    ("00420011", {"vr": "OB", "InlineBinary": "!!!"}),
    ("00420011", {"vr": "OB", "Value": [1]}),
    ("00420011", {"vr": "OB", "InlineBinary": "AAA=", "BulkDataURI": "a"}),
    ("00100010", {"vr": "PN", "BulkDataURI": "a"}),
    ("00400275", {"vr": "SQ", "Value": [7]}),
    ("00100020", {"vr": "LO", "Value": ["\ud800"]}),
]


@pytest.mark.parametrize(("tag", "element"), WRONG, ids=range(len(WRONG)))
def test_a_value_that_cannot_be_written_fails_its_instance(server: WebServer, tag: str, element: Any) -> None:
    answer = post(server, json_body([{**metadata(), tag: element}, metadata()]))
    assert (answer.status, reasons(answer, "00081198")) == (202, [0xC000])


def test_metadata_nested_deeper_than_the_bound_fails_its_instance(server: WebServer) -> None:
    item: dict[str, Any] = {}
    for _ in range(100):
        item = {"00400275": {"vr": "SQ", "Value": [item]}}
    answer = post(server, json_body([{**metadata(), **item}]))
    assert (answer.status, reasons(answer, "00081198")) == (409, [0xC000])


MODEL = b'<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM">%s</NativeDicomModel>'
BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>' + MODEL % b"&b;"
HOSTILE_XML = [
    b"",
    b"<NativeDicomModel>",
    b"<html/>",
    b"no XML",
    BOMB,
    b'<!DOCTYPE x SYSTEM "file:///etc/passwd">' + MODEL % b"",
    MODEL % b"text",
    MODEL % b"<Item/>",
    MODEL % b'<DicomAttribute vr="LO"/>',
    MODEL % b'<DicomAttribute tag="00100020" vr="LO"><Value number="0">x</Value></DicomAttribute>',
    MODEL % b'<DicomAttribute tag="00100020" vr="LO"><Value number="999999">x</Value></DicomAttribute>',
    MODEL % (b'<DicomAttribute tag="00100020" vr="LO"/>' * 2),
    MODEL % (b'<DicomAttribute tag="00400275" vr="SQ"><Item number="1">' * 2000),
    b'<?xml version="1.0" encoding="nonsense"?>' + MODEL % b"",
]


@pytest.mark.parametrize("document", HOSTILE_XML, ids=range(len(HOSTILE_XML)))
def test_hostile_xml_is_400(server: WebServer, document: bytes) -> None:
    """Checklist B41: no document type and so no entity; bounded depth."""
    answer = post(server, xml_body([document]), XML_TYPE)
    assert answer.status == 400, answer.body


def test_private_elements_of_xml_get_the_block_of_their_creator(server: WebServer) -> None:
    data_set = metadata()
    private = b"".join(
        b'<DicomAttribute tag="%s" vr="LO" privateCreator="%s"><Value number="1">%s</Value></DicomAttribute>' % row
        for row in ((b"00990001", b"ONE", b"a"), (b"00990001", b"TWO", b"b"), (b"00991202", b"THREE", b"c"))
    )
    document = native_xml.encode(data_set).replace(b"</NativeDicomModel>", private + b"</NativeDicomModel>")
    assert post(server, xml_body([document]), XML_TYPE).status == 200
    ds = stored(server, data_set)
    assert [ds.private_block(0x0099, creator)[n].value for creator, n in (("ONE", 1), ("TWO", 1), ("THREE", 2))] == ["a", "b", "c"]


def test_metadata_beyond_its_bound_is_413(server: WebServer) -> None:
    data_set = metadata(t00104000={"vr": "LT", "Value": ["x" * 200_000]})
    assert post(server, json_body([data_set])).status == 413
    assert post(server, json.dumps([data_set]).encode(), "application/dicom+json").status == 413
    assert post(server, json_body([metadata()], [Bulk("p", b"x" * 4_000_000)])).status == 413


def test_more_instances_or_values_than_the_bounds_are_413(server: WebServer) -> None:
    assert post(server, json_body(b"[" + b"{}," * 30_000 + b"{}]")).status == 413


def test_pixels_that_do_not_tell_their_size_need_it_from_the_metadata(server: WebServer) -> None:
    jxl = bytes(imagecodecs.jpegxl_encode(COLOUR, lossless=True))
    for content, media_type in ((jxl, "image/jxl"), (bytes.fromhex("0100000040000000") + bytes(60), "image/dicom-rle")):
        answer = post(server, json_body([metadata(uri="p")], [Bulk("p", content, media_type)]))
        assert (answer.status, reasons(answer, "00081198")) == (409, [0xC000])
    data_set = {**described(), "7FE00010": {"vr": "OB", "BulkDataURI": "p"}}
    assert post(server, json_body([data_set], [Bulk("p", jxl, "image/jxl")])).status == 200
    assert stored(server, data_set).file_meta.TransferSyntaxUID == SYNTAX + "112"


def test_a_client_that_vanishes_in_its_bulk_data_leaves_nothing(server: WebServer) -> None:
    data_set = described(t7FE00010={"vr": "OW", "BulkDataURI": "a"})
    content = json_body([data_set], [Bulk("a", bytes(2_000_000))])
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: h\r\nContent-Type: {JSON_TYPE}\r\nContent-Length: {len(content)}\r\n\r\n"
        connection.sendall(head.encode() + content[:-100])
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
    assert server.get(path_of(data_set)).status == 404


def test_metadata_of_another_study_than_the_url_names_fails_alone(server: WebServer) -> None:
    """Checklist 108: mismatching instances fail one by one."""
    right, wrong = metadata(), metadata()
    answer = post(server, json_body([wrong, right]), path=f"/studies/{uid_of(right, '0020000D')}")
    assert (answer.status, reasons(answer, "00081198")) == (202, [0xA900])


def test_metadata_without_uids_is_told_without_them(server: WebServer) -> None:
    """Checklist 106: what cannot be told apart goes to Other Failures."""
    answer = post(server, json_body([{"00100020": {"vr": "LO"}}]))
    assert (answer.status, reasons(answer, "0008119A")) == (409, [0xA900])


def test_a_body_that_breaks_off_leaves_nothing(server: WebServer) -> None:
    data_set = described(t7FE00010={"vr": "OW", "BulkDataURI": "a"})
    assert post(server, json_body([data_set], [Bulk("a", GREY.tobytes())])[:-40]).status == 400
    assert server.get(path_of(data_set)).status == 404


def test_a_chunked_body_with_metadata_is_taken(server: WebServer) -> None:
    """Checklist B15: chunked bodies store what they bring."""
    data_set = described(t7FE00010={"vr": "OW", "BulkDataURI": "a"})
    whole = json_body([data_set], [Bulk("a", GREY.tobytes())])
    assert post(server, (whole[at : at + 77] for at in range(0, len(whole), 77))).status == 200
    assert np.array_equal(stored(server, data_set).pixel_array, GREY)
