"""Single bits (Bits Allocated 1), as in binary segmentations, in every form they are stored in: frames, instances and pictures of them.

PS3.5 8.2.2 and annex G (run lengths: a byte for each pixel), 8.2.4 (JPEG 2000), 8.2.16 (deflated frames: bits packed).
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

from pacslite.codec.encoders import encode_frame
from pacslite.codec.pixels import PixelDescription
from pacslite.dicom.syntaxes import (
    DEFLATED_FRAMES,
    EXPLICIT,
    HTJ2K_REVERSIBLE,
    IMPLICIT,
    JPEG_2000_REVERSIBLE,
    JPEG_LS,
    RLE,
)
from tests.support.data_sets import CONTENT_TYPE, body, image, part10
from tests.support.data_sets import read as read_file
from tests.support.http import WebServer, running
from tests.support.wado import parts, path_of

# 299 pixels: a frame ends in the midst of a byte, and the next one begins there.
BITS = np.random.default_rng(11).integers(0, 2, (4, 13, 23), dtype=np.uint8)
OCTETS = 'multipart/related; type="application/octet-stream"'
SHAPE = PixelDescription(13, 23, 1, 1)


def packed(frame: np.ndarray) -> bytes:
    return np.packbits(frame.ravel(), bitorder="little").tobytes()


def run_length(octets: np.ndarray) -> bytes:
    return encode_frame(octets, "MONOCHROME2", PixelDescription(*octets.shape, 8, 8), RLE).data


def code_stream(frame: np.ndarray) -> bytes:
    return encode_frame(frame, "MONOCHROME2", SHAPE, JPEG_2000_REVERSIBLE).data


def deflated(frame: np.ndarray) -> bytes:
    return zlib.compress(packed(frame), wbits=-15)


FORMS: dict[str, tuple[str, Callable[[np.ndarray], bytes] | None]] = {
    "native": (EXPLICIT, None),
    "implicit": (IMPLICIT, None),
    "run lengths of bytes": (RLE, run_length),
    "run lengths of packed bits": (RLE, lambda frame: run_length(np.frombuffer(packed(frame), "u1").reshape(1, -1))),
    "JPEG 2000": (JPEG_2000_REVERSIBLE, code_stream),
    "deflated frames": (DEFLATED_FRAMES, deflated),
}


def file_of(ds: Dataset, syntax: str) -> bytes:
    """pydicom does not know the newest transfer syntax, and that its data sets are explicit little endian."""
    if syntax != DEFLATED_FRAMES:
        return part10(ds, syntax)
    other = "1.2.840.10008.1.2.4.90"
    return part10(ds, other).replace(other.encode(), DEFLATED_FRAMES.encode() + b"\0", 1)


@dataclass(frozen=True)
class Stored:
    server: WebServer
    by_form: dict[str, Dataset]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    with running(tmp_path_factory.mktemp("bits")) as server:
        by_form = {}
        for name, (syntax, encode) in FORMS.items():
            ds = image(BITS, bits=1, compressed=[encode(frame) for frame in BITS] if encode else ())
            answer = server.request("POST", "/studies", body([file_of(ds, syntax)]), {"Content-Type": CONTENT_TYPE})
            assert answer.status == 200, answer.body
            by_form[name] = ds
        yield Stored(server, by_form)


@pytest.mark.parametrize("name", FORMS)
def test_each_frame_of_single_bits_is_given_alone_and_packed(stored: Stored, name: str) -> None:
    """Checklist 87, 88, 90: first and last too; several ones in a multipart answer."""
    path = path_of(stored.by_form[name])
    for number in range(1, 5):
        [(headers, data)] = parts(stored.server.get(f"{path}/frames/{number}", OCTETS))
        assert (headers["content-type"], data) == (f"application/octet-stream; transfer-syntax={EXPLICIT}", packed(BITS[number - 1]))
    several = parts(stored.server.get(f"{path}/frames/2,4", OCTETS))
    assert [data for _, data in several] == [packed(BITS[1]), packed(BITS[3])]


@pytest.mark.parametrize("name", FORMS)
def test_an_instance_of_single_bits_is_given_natively(stored: Stored, name: str) -> None:
    """Checklist 10: frames follow each other bit by bit (PS3.5 8.1.1)."""
    answer = stored.server.get(path_of(stored.by_form[name]), "application/dicom")
    assert (answer.status, answer.headers["content-type"]) == (200, f"application/dicom; transfer-syntax={EXPLICIT}")
    ds = read_file(answer.body)
    raw = packed(BITS)
    assert (ds.BitsAllocated, ds.BitsStored, ds.PixelData) == (1, 1, raw + b"\0" * (len(raw) % 2))


@pytest.mark.parametrize("name", FORMS)
def test_frames_of_single_bits_are_rendered(stored: Stored, name: str) -> None:
    """Checklist 99: each frame is its own picture, black and white."""
    for number in range(1, 5):
        answer = stored.server.get(f"{path_of(stored.by_form[name])}/frames/{number}/rendered", "image/png")
        assert answer.status == 200, answer.body
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.body)).convert("L")), BITS[number - 1] * 255)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("target", [RLE, JPEG_2000_REVERSIBLE, HTJ2K_REVERSIBLE, DEFLATED_FRAMES])
def test_single_bits_are_given_in_what_knows_them(stored: Stored, name: str, target: str) -> None:
    """Checklist 90: and never in JPEG-LS, whose samples have two bits at least."""
    answer = stored.server.get(path_of(stored.by_form[name]), f"application/dicom; transfer-syntax={target}")
    assert (answer.status, answer.headers["content-type"]) == (200, f"application/dicom; transfer-syntax={target}")
    if name != "run lengths of packed bits" or target != RLE:
        pixels = read_file(answer.body.replace(DEFLATED_FRAMES.encode() + b"\0", b"1.2.840.10008.1.2.4.90", 1)).PixelData
        assert len(list(generate_frames(pixels, number_of_frames=4))) == 4
        if target == DEFLATED_FRAMES:
            assert [zlib.decompress(data, wbits=-15) for data in generate_frames(pixels, number_of_frames=4)] == [packed(f) for f in BITS]
    assert stored.server.get(path_of(stored.by_form[name]), f"application/dicom; transfer-syntax={JPEG_LS}").status == 406


def test_deflated_frames_are_given_as_stored_to_those_who_ask_for_that(stored: Stored) -> None:
    """Checklist 3, 9: they have no media type of their own; without any demand they are octets of pixels."""
    path = f"{path_of(stored.by_form['deflated frames'])}/frames/2"
    for accept, wanted, data in (
        (None, EXPLICIT, packed(BITS[1])),
        (f"{OCTETS}; transfer-syntax=*", DEFLATED_FRAMES, deflated(BITS[1])),
        (f"{OCTETS}; transfer-syntax={DEFLATED_FRAMES}", DEFLATED_FRAMES, deflated(BITS[1])),
    ):
        [(headers, got)] = parts(stored.server.get(path, accept))
        assert headers["content-type"] == f"application/octet-stream; transfer-syntax={wanted}"
        assert got.rstrip(b"\0") == data.rstrip(b"\0")


def test_a_deflated_frame_is_inflated_no_further_than_the_image_reaches(stored: Stored) -> None:
    for bad in (zlib.compress(b"\0" * 100_000_000, 9, wbits=-15), deflated(BITS[0])[:-9], b"\xff" * 40):
        ds = image(BITS[:1], bits=1, compressed=[bad + b"\0" * (len(bad) % 2)])
        file = file_of(ds, DEFLATED_FRAMES)
        stored.server.request("POST", "/studies", body([file]), {"Content-Type": CONTENT_TYPE})
        assert stored.server.get(f"{path_of(ds)}/frames/1", OCTETS).status == 406
        assert stored.server.get(path_of(ds), "application/dicom; transfer-syntax=*").body == file
