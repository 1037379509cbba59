"""Where frames lie: PS3.5 8.2 for native pixels, A.4 for encapsulated ones."""

from __future__ import annotations

import struct
from array import array
from itertools import pairwise
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames

from pacslite.codec.codestreams import codestream_of
from pacslite.codec.transfer_syntax import frame_bytes
from pacslite.dicom.data_set import open_data_set
from pacslite.dicom.frame_index import FrameIndex, decode
from pacslite.dicom.instance import Limits, read_instance
from pacslite.errors import FrameNotFound
from tests.support.dicom_files import SEQUENCE_END, UNDEFINED, corpus_files, element, item, part10

JPEG, RLE, MPEG4 = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.102"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
LIMITS = Limits()


def read_frames(path: Path, raw: bytes) -> tuple[FrameIndex | None, list[bytes]]:
    """The index of a file, and its frames read by it."""
    path.write_bytes(raw)
    index = read_instance(path, LIMITS).frame_index
    if index is None:
        return None, []
    with open_data_set(path, LIMITS) as opened:
        return index, [frame_bytes(opened.source.read, index, n) for n in range(1, index.number_of_frames + 1)]


def compressed(frames: int, value: bytes, syntax: str = JPEG, *extra: bytes) -> bytes:
    """A file with an encapsulated value."""
    count = element(0x00280008, "IS", f"{frames:2}".encode())
    return part10([count, *extra, element(0x7FE00010, "OB", value, length=UNDEFINED)], syntax)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "instance.dcm"


FRAMES = [b"\xff\xd8\xff\xe0" + bytes([n]) * (20 + 10 * n) for n in range(4)]


@pytest.mark.parametrize("table", [True, False])
def test_one_fragment_a_frame(file: Path, table: bool) -> None:
    index, frames = read_frames(file, compressed(4, encapsulate(FRAMES, has_bot=table) + SEQUENCE_END))
    assert frames == FRAMES
    assert index is not None
    assert [len(index.segments(n)) for n in range(1, 5)] == [1] * 4


@pytest.mark.parametrize("table", [True, False])
def test_frames_of_several_fragments(file: Path, table: bool) -> None:
    """By the table, or by the bytes that begin a codestream when there is none."""
    _, frames = read_frames(file, compressed(4, encapsulate(FRAMES, fragments_per_frame=3, has_bot=table) + SEQUENCE_END))
    assert frames == FRAMES


def test_a_single_frame_takes_all_fragments(file: Path) -> None:
    value = item(b"") + item(b"\xff\xd8\xff\xe0") + item(b"\xff\xd8\xff\xe1") + item(b"ab") + SEQUENCE_END
    _, frames = read_frames(file, compressed(1, value))
    assert frames == [b"\xff\xd8\xff\xe0\xff\xd8\xff\xe1ab"]


def test_the_extended_offset_table_gives_true_lengths(file: Path) -> None:
    odd = [frame[:-1] for frame in FRAMES]
    value, offsets, _ = encapsulate_extended(odd)
    tables = element(0x7FE00001, "OV", offsets) + element(0x7FE00002, "OV", struct.pack("<4Q", *map(len, odd)))
    _, frames = read_frames(file, compressed(4, value + SEQUENCE_END, JPEG, tables))
    assert frames == odd


@pytest.mark.parametrize("entries", [(0, 28, 66, 5000), (4, 28, 66, 114), (0, 0, 0, 0), (66, 28, 0, 4), (0, 28)])
def test_a_wrong_table_is_not_trusted(file: Path, entries: tuple[int, ...]) -> None:
    value = item(struct.pack(f"<{len(entries)}I", *entries)) + b"".join(map(item, FRAMES)) + SEQUENCE_END
    _, frames = read_frames(file, compressed(4, value))
    assert frames == FRAMES


def test_frames_told_but_absent_are_not_counted(file: Path) -> None:
    value = item(b"") + b"".join(map(item, FRAMES[:2])) + SEQUENCE_END
    index, frames = read_frames(file, compressed(3, value))
    assert frames == FRAMES[:2]
    assert index is not None
    with pytest.raises(FrameNotFound):
        index.segments(3)


def jp2(code_stream: bytes, wide: bool = False, after: bytes = b"") -> bytes:
    """A JP2 file: signature, file type, header, code stream (ISO/IEC 15444-1 I.4)."""
    size = len(code_stream) + (16 if wide else 8)
    head = b"\0\0\0\1jp2c" + size.to_bytes(8, "big") if wide else size.to_bytes(4, "big") + b"jp2c"
    return b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 \0\0\0\0jp2 \0\0\0\x0ajp2h\xff\x4f" + head + code_stream + after


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("fragments", [1, 2])
def test_of_a_jp2_file_the_code_stream_is_the_frame(file: Path, table: bool, fragments: int) -> None:
    """PS3.5 A.4.4, PS3.18 8.7.3.3.2."""
    streams = [b"\xff\x4f\xff\x51" + bytes([n]) * (98 + n * 2) for n in range(3)]
    boxed = [jp2(streams[0]), jp2(streams[1], wide=True), streams[2]]
    value = encapsulate(boxed, fragments_per_frame=fragments, has_bot=table)
    _, frames = read_frames(file, compressed(3, value + SEQUENCE_END, JPEG_2000))
    assert frames == streams


@pytest.mark.parametrize("after", [b"", b"\0\0\0\x0cuuid1234"])
def test_what_follows_the_code_stream_of_a_jp2_file_is_left_out(file: Path, after: bytes) -> None:
    stream = b"\xff\x4f\xff\x51" + bytes(100)
    _, frames = read_frames(file, compressed(1, encapsulate([jp2(stream, after=after)]) + SEQUENCE_END, JPEG_2000))
    assert frames == [stream]


@pytest.mark.parametrize("broken", [jp2(b"")[:-8], jp2(bytes(8))[:20], jp2(b"")[:12] + b"\0\0\0\0free"])
def test_a_jp2_file_without_code_stream_is_left_alone(file: Path, broken: bytes) -> None:
    _, frames = read_frames(file, compressed(1, encapsulate([broken]) + SEQUENCE_END, JPEG_2000))
    assert frames == [broken]


def test_a_video_is_one_stream(file: Path) -> None:
    index, frames = read_frames(file, compressed(90, item(b"") + item(b"abcd") + item(b"efgh") + SEQUENCE_END, MPEG4))
    assert index is not None
    assert index.video
    assert frames == [b"abcdefgh"]


def test_no_fragments_no_frames(file: Path) -> None:
    assert read_frames(file, compressed(1, item(b"") + SEQUENCE_END)) == (None, [])


@pytest.mark.parametrize("number", [0, -1, 5])
def test_only_the_frames_that_are_there(file: Path, number: int) -> None:
    index, _ = read_frames(file, compressed(4, encapsulate(FRAMES) + SEQUENCE_END))
    assert index is not None
    with pytest.raises(FrameNotFound):
        index.segments(number)


def native(
    rows: int, columns: int, bits: int, frames: int, value: bytes, vr: str = "OB", photometric: bytes = b"MONOCHROME2 ", samples: int = 1
) -> bytes:
    """A file with native pixels."""
    return part10(
        [
            element(0x00280002, "US", struct.pack("<H", samples)),
            element(0x00280004, "CS", photometric),
            element(0x00280008, "IS", f"{frames:2}".encode()),
            element(0x00280010, "US", struct.pack("<H", rows)),
            element(0x00280011, "US", struct.pack("<H", columns)),
            element(0x00280100, "US", struct.pack("<H", bits)),
            element(0x7FE00010, vr, value),
        ]
    )


def test_native_frames_follow_each_other(file: Path) -> None:
    value = bytes(range(48))
    _, frames = read_frames(file, native(3, 4, 16, 2, value, "OW"))
    assert frames == [value[:24], value[24:]]


def test_bits_are_not_padded_between_frames(file: Path) -> None:
    value = bytes((37 * n) & 0xFF for n in range(8))
    _, frames = read_frames(file, native(3, 5, 1, 4, value))
    whole = int.from_bytes(value, "little")
    assert [int.from_bytes(frame, "little") for frame in frames] == [(whole >> 15 * n) & 0x7FFF for n in range(4)]


def test_subsampled_colour_has_two_samples_a_pixel(file: Path) -> None:
    _, frames = read_frames(file, native(2, 2, 8, 2, bytes(range(16)), photometric=b"YBR_FULL_422", samples=3))
    assert frames == [bytes(range(8)), bytes(range(8, 16))]


def test_native_frames_that_are_cut_off_are_not_counted(file: Path) -> None:
    index, frames = read_frames(file, native(2, 2, 8, 5, bytes(10)))
    assert len(frames) == 2
    assert index is not None
    assert index.number_of_frames == 2


def test_words_of_big_endian_frames_are_turned_even_when_frames_are_odd() -> None:
    """BitsAllocated 8 in OW: a frame of nine bytes ends in the middle of a word."""
    pixels = bytes(range(27)) + b"\0"
    stored = array("H", pixels)
    stored.byteswap()
    raw = stored.tobytes()
    index = FrameIndex("1.2.840.10008.1.2.2", 3, offset=0, length=28, frame_bits=72, swap_bytes=2)
    frames = [frame_bytes(lambda offset, length: raw[offset : offset + length], index, n) for n in (1, 2, 3)]
    assert frames == [pixels[:9], pixels[9:18], pixels[18:27]]


@given(
    st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 2**33)), max_size=30),
    st.booleans(),
    st.sampled_from(["", JPEG, RLE]),
)
def test_an_index_is_the_same_after_encoding(fragments: list[tuple[int, int]], grouped: bool, uid: str) -> None:
    firsts = array("Q", range(len(fragments) + 1)) if grouped else array("Q")
    offsets, lengths = (array("Q", (pair[i] for pair in fragments)) for i in (0, 1))
    index = FrameIndex(uid, len(fragments), offsets=offsets, lengths=lengths, firsts=firsts)
    assert decode(index.encode()) == index


@pytest.mark.parametrize("raw", [b"", b"x", bytes(100)])
def test_other_bytes_are_no_index(raw: bytes) -> None:
    with pytest.raises(ValueError, match="not a frame index"):
        decode(raw)


def test_a_large_index_is_small() -> None:
    offsets = array("Q", range(1000, 1000 + 40_000 * 10_000, 40_000))
    index = FrameIndex(JPEG, 10_000, offsets=offsets, lengths=array("Q", [39_992] * 10_000))
    assert len(index.encode()) < 90_000


def test_frames_of_real_files_are_those_of_pydicom(corpus: Path) -> None:
    for path in corpus_files(corpus):
        index = read_instance(path, LIMITS).frame_index
        if index is None or index.video or path.stat().st_size > 2_000_000:
            continue
        with pydicom.config.disable_value_validation():
            ds = pydicom.dcmread(path)
        with open_data_set(path, LIMITS) as opened:
            frames = [frame_bytes(opened.source.read, index, n) for n in range(1, index.number_of_frames + 1)]
        if index.encapsulated:
            expected = [
                codestream_of(frame) for frame in generate_frames(ds.PixelData, number_of_frames=int(ds.get("NumberOfFrames", 1) or 1))
            ]
            assert [frame.rstrip(b"\0") for frame in frames] == [frame.rstrip(b"\0") for frame in expected], path.name
        elif index.frame_bits % 8 == 0:
            whole = next(ds[key].value for key in ("PixelData", "FloatPixelData", "DoubleFloatPixelData") if key in ds)
            if index.swap_bytes:
                words = array("H", whole)
                words.byteswap()
                whole = words.tobytes()
            size = index.frame_bits // 8
            ends = range(0, size * (len(frames) + 1), size)
            assert frames == [whole[a:b] for a, b in pairwise(ends)], path.name
