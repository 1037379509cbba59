"""Transcoding over the wire: WADO-RS (PS3.18 8.7.3) against a real gunicorn, C-GET against a real listener."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

from pacslite.codec.encoders import encode_frame
from pacslite.codec.pixels import PixelDescription, decode_frame
from pacslite.dicom.syntaxes import (
    EXPLICIT,
    HTJ2K_REVERSIBLE,
    IMPLICIT,
    JPEG_2000,
    JPEG_2000_REVERSIBLE,
    JPEG_BASELINE,
    JPEG_LOSSLESS_SV1,
    JPEG_LS,
    REVERSIBLE,
    RLE,
)
from tests.support.data_sets import CONTENT_TYPE, body, document, image, new_uid, part10, read
from tests.support.dimse import EXPLICIT_LE, SECONDARY_CAPTURE, STUDY_ROOT_GET
from tests.support.http import WebServer, running
from tests.support.retrieval import Listener, Outcome, converse, get_rq, keep, keys, receives, retrieving
from tests.support.wado import parts, path_of

REL = 'multipart/related; type="application/dicom"'
RAMP = (np.arange(3 * 40 * 60, dtype=np.uint16).reshape(3, 40, 60) * 7) % 4096
GREY = PixelDescription(40, 60, 16, 12)


def grey(**more: str) -> Dataset:
    ds = image(RAMP, **more)
    ds.BitsStored, ds.HighBit = 12, 11
    return ds


def compressed(syntax: str, **more: str) -> Dataset:
    frames = [encode_frame(frame, "MONOCHROME2", GREY, syntax).data for frame in RAMP]
    ds = image(RAMP, compressed=frames, **more)
    ds.BitsStored, ds.HighBit = 12, 11
    return ds


def lossy_rgb() -> Dataset:
    colours = np.stack([RAMP[0] >> 4, RAMP[0] >> 5, 255 - (RAMP[0] >> 4)], -1).astype("u1")
    frame = encode_frame(colours, "RGB", PixelDescription(40, 60, 8, 8, 3, "RGB"), JPEG_BASELINE)
    ds = image(RAMP[:1].astype("u1"), compressed=[frame.data])
    ds.SamplesPerPixel, ds.PlanarConfiguration, ds.PhotometricInterpretation = 3, 0, frame.photometric_interpretation
    return ds


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with running(tmp_path_factory.mktemp("transcoding")) as running_server:
        yield running_server


def store(server: WebServer, ds: Dataset, syntax: str = EXPLICIT) -> Dataset:
    answer = server.request("POST", "/studies", body([part10(ds, syntax)]), {"Content-Type": CONTENT_TYPE})
    assert answer.status == 200, answer.body
    return ds


@pytest.fixture(scope="module")
def native(server: WebServer) -> Dataset:
    return store(server, grey())


@pytest.fixture(scope="module")
def j2k(server: WebServer) -> Dataset:
    return store(server, compressed(JPEG_2000_REVERSIBLE), JPEG_2000_REVERSIBLE)


def frames_of(ds: Dataset) -> np.ndarray:
    uid = str(ds.file_meta.TransferSyntaxUID)
    if uid == EXPLICIT:
        return ds.pixel_array
    return np.stack([decode_frame(frame, GREY, uid).array for frame in generate_frames(ds.PixelData, number_of_frames=3)])


@pytest.mark.parametrize("target", sorted(REVERSIBLE))
def test_a_native_instance_is_given_in_every_transfer_syntax_that_loses_nothing(server: WebServer, native: Dataset, target: str) -> None:
    """Checklist 90: transcoded when a compressed transfer syntax is asked for; the same instance."""
    answer = server.get(path_of(native), f"application/dicom; transfer-syntax={target}")
    assert answer.headers["content-type"] == f"application/dicom; transfer-syntax={target}"
    got = read(answer.body)
    assert (got.file_meta.TransferSyntaxUID, got.SOPInstanceUID) == (target, native.SOPInstanceUID)
    assert np.array_equal(frames_of(got), RAMP)
    assert answer.headers["content-length"] == str(len(answer.body))
    part = server.get(path_of(native), f"application/dicom; transfer-syntax={target}", Range="bytes=100-199")
    assert (part.status, part.body) == (206, answer.body[100:200])


@pytest.mark.parametrize("syntax", sorted(REVERSIBLE))
def test_without_a_transfer_syntax_what_is_compressed_without_loss_is_explicit_little_endian(server: WebServer, syntax: str) -> None:
    """Checklist 10: the default of PS3.18 8.7.3.4."""
    ds = store(server, compressed(syntax), syntax)
    for accept in (REL, "*/*", None):
        [(headers, file)] = parts(server.get(path_of(ds), accept))
        assert headers["content-type"] == f"application/dicom; transfer-syntax={EXPLICIT}"
        assert int(headers["content-length"]) == len(file)
        assert np.array_equal(read(file).pixel_array, RAMP)
    [(headers, file)] = parts(server.get(path_of(ds), REL + "; transfer-syntax=*"))
    assert file == part10(ds, syntax)


def test_what_is_stored_with_loss_is_sent_as_stored_and_decoded_when_asked(server: WebServer) -> None:
    """Checklist 10, 90: lossy-only originals as they are; Explicit VR Little Endian by name gives marked pixels in RGB."""
    ds = store(server, lossy_rgb(), JPEG_BASELINE)
    [(_, file)] = parts(server.get(path_of(ds), REL))
    assert file == part10(ds, JPEG_BASELINE)
    got = read(server.get(path_of(ds), f"application/dicom; transfer-syntax={EXPLICIT}").body)
    assert (got.PhotometricInterpretation, got.LossyImageCompression, got.SOPInstanceUID) == ("RGB", "01", ds.SOPInstanceUID)
    with Image.open(io.BytesIO(next(generate_frames(ds.PixelData, number_of_frames=1)))) as picture:
        assert np.abs(np.asarray(picture.convert("RGB")).astype(int) - got.pixel_array).max() <= 1


def test_a_transfer_syntax_with_loss_makes_another_instance(server: WebServer, native: Dataset) -> None:
    """PS3.3 C.7.6.1.1.5: of instances only; a frame has no place for the mark."""
    got = read(server.get(path_of(native), f"application/dicom; transfer-syntax={JPEG_2000}").body)
    assert got.SOPInstanceUID != native.SOPInstanceUID
    assert (got.LossyImageCompression, got.ImageType[0]) == ("01", "DERIVED")
    assert got.SourceImageSequence[0].ReferencedSOPInstanceUID == native.SOPInstanceUID
    assert server.get(f"{path_of(native)}/frames/1", f"image/jp2; transfer-syntax={JPEG_2000}").status == 406


@pytest.mark.parametrize(
    ("accept", "syntax"),
    [
        ("image/jls", JPEG_LS),
        ("image/jp2", JPEG_2000_REVERSIBLE),
        ("image/jphc", HTJ2K_REVERSIBLE),
        ("image/jpeg", JPEG_LOSSLESS_SV1),
        ("image/dicom-rle", RLE),
        ("application/octet-stream", EXPLICIT),
    ],
)
@pytest.mark.parametrize("stored", ["native", "j2k"])
def test_frames_come_in_the_media_type_that_is_asked_for(
    server: WebServer, request: pytest.FixtureRequest, stored: str, accept: str, syntax: str
) -> None:
    """Checklist 13, 89, 90: the default of each media type, code streams only, decoded as octets."""
    ds = request.getfixturevalue(stored)
    answer = server.get(f"{path_of(ds)}/frames/2", accept)
    assert (answer.status, answer.headers["content-type"]) == (200, f"{accept}; transfer-syntax={syntax}")
    assert np.array_equal(decode_frame(answer.body, GREY, syntax).array, RAMP[1])
    several = parts(server.get(f"{path_of(ds)}/frames/1,3", f'multipart/related; type="{accept}"'))
    assert [headers["content-location"].rpartition("/")[2] for headers, _ in several] == ["1", "3"]
    for (_, data), expected in zip(several, RAMP[::2], strict=True):
        assert np.array_equal(decode_frame(data, GREY, syntax).array, expected)


def test_a_transfer_syntax_that_nobody_makes_is_406(server: WebServer, native: Dataset) -> None:
    """Checklist 16: nothing is silently substituted."""
    for syntax in ("1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.2", "1.2.3.4"):
        assert server.get(path_of(native), f"application/dicom; transfer-syntax={syntax}").status == 406
    assert server.get(path_of(native), f"application/dicom; transfer-syntax={JPEG_BASELINE}").status == 406  # 12 bits


def test_a_study_is_given_in_one_transfer_syntax(server: WebServer) -> None:
    study = new_uid()
    sent = [store(server, grey(study=study)), store(server, compressed(RLE, study=study), RLE), document(b"%PDF-1.4 text")]
    sent[2].StudyInstanceUID = study
    store(server, sent[2])
    got = parts(server.get(f"/studies/{study}", f"{REL}; transfer-syntax={JPEG_LS}"))
    assert {headers["content-type"] for headers, _ in got} == {f"application/dicom; transfer-syntax={JPEG_LS}"}
    images = [ds for ds in map(read, (file for _, file in got)) if "PixelData" in ds]
    assert len(images) == 2
    assert all(np.array_equal(frames_of(ds), RAMP) for ds in images)
    [pdf] = [ds for ds in map(read, (file for _, file in got)) if "PixelData" not in ds]
    assert pdf.EncapsulatedDocument.startswith(b"%PDF-1.4 text")
    decoded = [read(file) for _, file in parts(server.get(f"/studies/{study}", REL))]
    assert all(ds.file_meta.TransferSyntaxUID == EXPLICIT for ds in decoded)


def test_simultaneous_requests_share_one_run_and_the_next_takes_it_from_the_cache(server: WebServer) -> None:
    ds = store(server, grey())
    answers: list[bytes] = []
    accept = f"application/dicom; transfer-syntax={JPEG_2000_REVERSIBLE}"
    threads = [threading.Thread(target=lambda: answers.append(server.get(path_of(ds), accept).body)) for _ in range(6)]
    before = _results(server)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == 1
    assert len(answers) == 6
    assert len(_results(server) - before) == 1


def _results(server: WebServer) -> set[str]:
    return {path.name for path in (server.data / "cache" / "transcoded").glob("*")}


def hostile() -> Iterator[tuple[str, Dataset, str]]:
    """Streams that are damaged, and images that say of themselves what is not so."""
    for syntax in sorted(REVERSIBLE):
        cut = compressed(syntax)
        frames = [frame[: len(frame) // 2] for frame in generate_frames(cut.PixelData, number_of_frames=3)]
        cut = image(RAMP, compressed=frames)
        yield f"cut {syntax}", cut, syntax
        huge = compressed(syntax)
        huge.Rows = huge.Columns = 65535
        yield f"huge {syntax}", huge, syntax
        wider = compressed(syntax)
        wider.Columns = 61
        yield f"wider {syntax}", wider, syntax
        many = compressed(syntax)
        many.NumberOfFrames = 1_000_000
        yield f"many {syntax}", many, syntax
        yield f"noise {syntax}", image(RAMP, compressed=[np.random.default_rng(1).bytes(500)] * 3), syntax


HOSTILE = {name: (ds, syntax) for name, ds, syntax in hostile()}


@pytest.mark.parametrize("name", HOSTILE)
def test_damaged_pixels_are_406_and_still_there_as_stored(server: WebServer, name: str) -> None:
    ds, syntax = HOSTILE[name]
    store(server, ds, syntax)
    for path in (path_of(ds), f"{path_of(ds)}/frames/1"):
        wanted = "application/octet-stream" if "frames" in path else "application/dicom"
        answer = server.get(path, f"{wanted}; transfer-syntax={EXPLICIT}")
        if name.startswith("many") and "frames" in path:
            assert answer.status == 200  # this one is whole
            continue
        assert answer.status == 406, name
        assert b'"detail"' in answer.body
    assert server.get(path_of(ds), "application/dicom; transfer-syntax=*").body == part10(ds, syntax)


@pytest.mark.parametrize("accept", [None, "*/*", REL, f"{REL}; transfer-syntax={EXPLICIT}, {REL}"])
def test_one_damaged_image_does_not_withhold_its_study(server: WebServer, accept: str | None) -> None:
    """Where no other form was named, what cannot be decoded comes as it is stored, and says so."""
    study, syntax = new_uid(), JPEG_2000_REVERSIBLE
    good = [store(server, compressed(syntax, study=study), syntax) for _ in range(2)]
    damaged = store(server, image(RAMP, compressed=[b"\xff\x4f\xff\x51 no picture \0"] * 3, study=study), syntax)
    answer = server.get(f"/studies/{study}", accept)
    assert answer.status == 200
    got = {read(data).SOPInstanceUID: (headers["content-type"], data) for headers, data in parts(answer)}
    assert got[damaged.SOPInstanceUID] == (f"application/dicom; transfer-syntax={syntax}", part10(damaged, syntax))
    for one in good:
        assert got[one.SOPInstanceUID][0] == f"application/dicom; transfer-syntax={EXPLICIT}"
        assert np.array_equal(read(got[one.SOPInstanceUID][1]).pixel_array, RAMP)
    alone = server.get(path_of(damaged), "application/dicom")
    assert (alone.headers["content-type"], alone.body) == (f"application/dicom; transfer-syntax={syntax}", part10(damaged, syntax))


def damaged_one(study: str) -> Dataset:
    return image(RAMP, compressed=[b"\xff\x4f\xff\x51 no picture \0"] * 3, study=study)


def floats(study: str) -> Dataset:
    ds = image(study=study)
    del ds.PixelData, ds.BitsStored, ds.HighBit, ds.PixelRepresentation
    ds.SOPClassUID, ds.BitsAllocated = "1.2.840.10008.5.1.4.1.1.30", 32
    ds.FloatPixelData = np.linspace(-1, 1, 24, dtype="<f4").tobytes()
    return ds


@pytest.mark.parametrize("first", [True, False], ids=["damaged first", "damaged last"])
def test_a_study_in_a_named_transfer_syntax_is_whole_though_one_image_cannot_be_decoded(server: WebServer, first: bool) -> None:
    """Checklist 23: nothing is missing and the answer is not broken off; the part of that image names what it comes in."""
    study, stored = new_uid(), JPEG_2000_REVERSIBLE
    sent = [compressed(stored, study=study, number=number) for number in (2, 3)]
    bad = damaged_one(study)
    bad.InstanceNumber = 1 if first else 9
    for ds in (bad, *sent) if first else (*sent, bad):
        ds.SeriesInstanceUID = sent[0].SeriesInstanceUID
        store(server, ds, stored)
    answer = server.get(f"/studies/{study}", f"{REL}; transfer-syntax={EXPLICIT}")
    assert answer.status == 200
    got = {read(data).SOPInstanceUID: (headers["content-type"], data) for headers, data in parts(answer)}
    assert len(got) == 3
    assert got[bad.SOPInstanceUID] == (f"application/dicom; transfer-syntax={stored}", part10(bad, stored))
    for ds in sent:
        assert got[ds.SOPInstanceUID][0] == f"application/dicom; transfer-syntax={EXPLICIT}"
        assert np.array_equal(read(got[ds.SOPInstanceUID][1]).pixel_array, RAMP)
    assert ("warning" in answer.headers) == (next(iter(got)) == bad.SOPInstanceUID)


def test_what_cannot_be_written_as_named_comes_natively_beside_the_rest_of_its_study(server: WebServer) -> None:
    """Parametric maps of floats are never compressed; stored in implicit little endian they are sent in explicit (8.7.3.4)."""
    study = new_uid()
    picture = store(server, grey(study=study))
    explicit, implicit = store(server, floats(study)), store(server, floats(study), IMPLICIT)
    answer = server.get(f"/studies/{study}", f"{REL}; transfer-syntax={JPEG_LS}")
    assert answer.status == 200
    got = {read(data).SOPInstanceUID: (headers["content-type"], read(data)) for headers, data in parts(answer)}
    assert got[picture.SOPInstanceUID][0] == f"application/dicom; transfer-syntax={JPEG_LS}"
    for ds in (explicit, implicit):
        kind, data_set = got[ds.SOPInstanceUID]
        assert kind == f"application/dicom; transfer-syntax={EXPLICIT}"
        assert data_set.FloatPixelData == ds.FloatPixelData
    assert all("content-length" in headers for headers, _ in parts(answer))


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
@pytest.mark.parametrize("second", ["application/dicom; q=0.3", f"application/dicom; transfer-syntax={EXPLICIT}; q=0.5", "*/*; q=0.1"])
def test_what_the_caller_likes_less_is_given_where_the_first_choice_is_not_possible(server: WebServer, syntax: str, second: str) -> None:
    """Checklist 5, 12: floats are in no compressed transfer syntax; and implicit little endian is nobody's second choice."""
    ds = store(server, floats(new_uid()), syntax)
    answer = server.get(path_of(ds), f"application/dicom; transfer-syntax={JPEG_LS}, {second}")
    assert (answer.status, answer.headers["content-type"]) == (200, f"application/dicom; transfer-syntax={EXPLICIT}")
    octets = server.get(f"{path_of(ds)}/frames/1", "image/jls, application/octet-stream; q=0.5")
    assert (octets.status, octets.body) == (200, ds.FloatPixelData)
    assert server.get(f"{path_of(ds)}/frames/1", "image/jls, image/jp2; q=0.5").status == 406


def test_of_damaged_frames_the_stored_code_stream_is_given_to_those_who_take_it(server: WebServer) -> None:
    """Checklist 5: what is liked best cannot be made, what is liked less is there."""
    ds = store(server, damaged_one(new_uid()), JPEG_2000_REVERSIBLE)
    answer = server.get(f"{path_of(ds)}/frames/1", "application/octet-stream, image/jp2; q=0.5")
    assert (answer.status, answer.headers["content-type"]) == (200, f"image/jp2; transfer-syntax={JPEG_2000_REVERSIBLE}")


@pytest.mark.parametrize("media_type", ["image/jls", "image/jp2", "image/dicom-rle"])
def test_several_frames_are_no_single_code_stream(server: WebServer, native: Dataset, media_type: str) -> None:
    """Checklist 16, 88: native pixels are sent one behind the other as octets, and never under the name of a code stream."""
    assert server.get(f"{path_of(native)}/frames/1,2", media_type).status == 406
    octets = server.get(f"{path_of(native)}/frames/1,2", f"{media_type}, application/octet-stream")
    assert (octets.headers["content-type"], octets.body) == (f"application/octet-stream; transfer-syntax={EXPLICIT}", RAMP[:2].tobytes())
    assert server.get(f"{path_of(native)}/frames/1", media_type).headers["content-type"].startswith(media_type)


def test_a_study_of_which_nothing_can_be_given_as_named_is_406(server: WebServer) -> None:
    study = new_uid()
    for _ in range(2):
        store(server, damaged_one(study), JPEG_2000_REVERSIBLE)
    answer = server.get(f"/studies/{study}", f"{REL}; transfer-syntax={EXPLICIT}")
    assert (answer.status, b'"detail"' in answer.body) == (406, True)
    assert server.get(f"/studies/{study}", f"{REL}; transfer-syntax=*").status == 200


def test_a_large_image_that_cannot_be_decoded_does_not_break_its_study_off(server: WebServer) -> None:
    """Large ones are sent while they are made: their first frame is made before their part begins."""
    study, stored = new_uid(), JPEG_2000_REVERSIBLE
    good = store(server, compressed(stored, study=study), stored)
    large = image(
        RAMP, compressed=[b"\xff\x4f\xff\x51" + b"no picture" * 300_000] * 3, study=study, series=good.SeriesInstanceUID, number=9
    )
    store(server, large, stored)
    answer = server.get(f"/studies/{study}", f"{REL}; transfer-syntax={EXPLICIT}")
    got = {read(data).SOPInstanceUID: headers["content-type"] for headers, data in parts(answer)}
    assert got == {
        good.SOPInstanceUID: f"application/dicom; transfer-syntax={EXPLICIT}",
        large.SOPInstanceUID: f"application/dicom; transfer-syntax={stored}",
    }


def test_a_receiver_that_takes_no_compressed_instances_gets_them_decoded(tmp_path: Path) -> None:
    """C-GET: the stored transfer syntax where it was accepted, else decoded; a lossless one when only that was."""
    with retrieving(tmp_path) as listener:
        keep(listener.pacs, compressed(RLE, study="1.2.1", instance="1.2.3"), RLE)
        got = _fetch(listener, EXPLICIT)
        assert (got.status, got.counts) == (0, (None, 1, 0, 0))
        assert np.array_equal(_data_set(got.stored["1.2.3"], EXPLICIT_LE).pixel_array, RAMP)
        got = _fetch(listener, JPEG_LS)
        assert (got.status, got.counts) == (0, (None, 1, 0, 0))
        assert np.array_equal(frames_of(_data_set(got.stored["1.2.3"], JPEG_LS)), RAMP)
        refused = _fetch(listener, JPEG_2000)
        assert refused.status == 0xA702  # with loss it would be another instance


def _fetch(listener: Listener, syntax: str) -> Outcome:
    with listener.peer() as peer:
        offer = [(STUDY_ROOT_GET, (EXPLICIT_LE,)), (SECONDARY_CAPTURE, (syntax,))]
        peer.associate(offer, user=receives(SECONDARY_CAPTURE))
        peer.request(1, get_rq(), keys("STUDY", study="1.2.1"))
        outcome = converse(peer)
        peer.release()
    return outcome


def _data_set(data: bytes, syntax: str) -> Dataset:
    from pacslite.dicom.part10 import encode_preamble_and_meta

    return dcmread(io.BytesIO(encode_preamble_and_meta(SECONDARY_CAPTURE, "1.2.3", syntax) + data))
