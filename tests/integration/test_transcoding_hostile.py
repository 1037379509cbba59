"""Pixels made to do harm: few bytes that would become very many, damaged tables, streams that lie about themselves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from pacslite.codec.codestreams import read_jpeg2000_head, read_jpeg_head
from pacslite.codec.encoders import encode_frame
from pacslite.codec.pixels import PixelDescription, decode_frame
from pacslite.codec.processes import CodecProcesses
from pacslite.codec.transcode import transcode
from pacslite.dicom.limits import Limits
from pacslite.dicom.syntaxes import DECODABLE, EXPLICIT, JPEG_2000_REVERSIBLE, JPEG_LOSSLESS_SV1, NATIVE, REVERSIBLE, RLE
from pacslite.errors import PacsliteError, UndecodablePixels
from tests.support.data_sets import image, part10

GREY = PixelDescription(64, 64, 16, 16)
PICTURE = np.random.default_rng(3).integers(0, 65536, (64, 64)).astype(np.uint16)


@pytest.fixture(scope="module")
def codecs() -> Iterator[CodecProcesses]:
    processes = CodecProcesses(2, 30)
    yield processes
    processes.close()


def result(ds: Dataset, syntax: str, codecs: CodecProcesses, folder: Path, target: str = EXPLICIT) -> Iterator[bytes]:
    path = folder / "image.dcm"
    path.write_bytes(part10(ds, syntax))
    return transcode(path, target, Limits(scratch=folder), codecs)


def test_more_than_a_native_element_holds_is_refused_before_anything_is_sent(codecs: CodecProcesses, tmp_path: Path) -> None:
    """Checklist 11: 300 frames of 16 MiB in some kilobytes."""
    side = 4096
    white = np.full((side, side), 255, np.uint8)
    frame = encode_frame(white, "MONOCHROME2", PixelDescription(side, side, 8, 8), JPEG_2000_REVERSIBLE).data
    ds = image(white[None, :1, :1], compressed=[frame] * 300)
    ds.Rows = ds.Columns = side
    with pytest.raises(UndecodablePixels, match="more than a native element holds"):
        list(result(ds, JPEG_2000_REVERSIBLE, codecs, tmp_path))


@pytest.mark.parametrize("syntax", sorted(REVERSIBLE))
def test_no_flipped_byte_does_more_than_change_or_refuse_a_frame(syntax: str, codecs: CodecProcesses) -> None:
    data = encode_frame(PICTURE, "MONOCHROME2", GREY, syntax).data
    random = np.random.default_rng(5)
    for round_number in range(40):
        harmed = bytearray(data)
        for at in random.integers(0, min(len(data), 200 if round_number % 2 else len(data)), 3):
            harmed[at] = random.integers(0, 256)
        try:
            decoded, _ = codecs.run("pacslite.codec.encoders:transcode_frame", bytes(harmed), GREY, syntax, EXPLICIT)
        except UndecodablePixels:
            continue
        assert len(decoded) == PICTURE.nbytes


@pytest.mark.parametrize("syntax", sorted(DECODABLE - NATIVE))
@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"\xff\xd8\xff\xd9", b"\xff\x4f\xff\x51\0\0", bytes(64), b"\xff" * 5000, b"\xff\xd8" + b"\xff\xe0\0\0" * 9]
)
def test_what_is_no_code_stream_is_an_error(syntax: str, data: bytes) -> None:
    with pytest.raises(UndecodablePixels):
        decode_frame(data, GREY, syntax)


def test_a_head_that_asks_for_a_huge_picture_is_not_believed() -> None:
    """Without a description that says the same no codec sees it; with one it is above the bound of a frame."""
    began = time.process_time()
    for syntax in sorted(DECODABLE):
        with pytest.raises(UndecodablePixels, match="bytes; no more than"):
            decode_frame(b"x" * 100, PixelDescription(65535, 65535, 16, 16), syntax)
    for syntax, read in ((JPEG_2000_REVERSIBLE, read_jpeg2000_head), (JPEG_LOSSLESS_SV1, read_jpeg_head)):
        data = bytearray(encode_frame(PICTURE, "MONOCHROME2", GREY, syntax).data)
        at = data.index((64).to_bytes(4 if read is read_jpeg2000_head else 2, "big"))
        data[at : at + 2] = b"\x7f\xff"
        assert max(read(bytes(data)).rows, read(bytes(data)).columns) > 32000
        with pytest.raises(UndecodablePixels, match="The code stream has"):
            decode_frame(bytes(data), GREY, syntax)
    assert time.process_time() - began < 30


def test_an_rle_bomb_stays_within_its_frame(codecs: CodecProcesses, tmp_path: Path) -> None:
    header = (2).to_bytes(4, "little") + (64).to_bytes(4, "little") + (100_064).to_bytes(4, "little") + bytes(52)
    bomb = header + b"\x81\0" * 100_000
    with pytest.raises(PacsliteError):
        list(result(image(PICTURE[None], compressed=[bomb]), RLE, codecs, tmp_path))


@pytest.mark.parametrize(
    "wrong", [{"SamplesPerPixel": 2}, {"BitsAllocated": 24}, {"BitsAllocated": 0}, {"Rows": 0}, {"SamplesPerPixel": 0}]
)
def test_an_image_module_that_makes_no_sense_is_an_error(wrong: dict[str, int], codecs: CodecProcesses, tmp_path: Path) -> None:
    frame = encode_frame(PICTURE, "MONOCHROME2", GREY, RLE).data
    ds = image(PICTURE[None], compressed=[frame])
    for keyword, value in wrong.items():
        setattr(ds, keyword, value)
    with pytest.raises(PacsliteError):
        list(result(ds, RLE, codecs, tmp_path))
