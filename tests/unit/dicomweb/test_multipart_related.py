"""multipart/related both ways: RFC 2046 5.1, PS3.18 8.6.1.2."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacslite.dicomweb import multipart_related
from pacslite.dicomweb.media_types import parse_media_type
from pacslite.dicomweb.multipart_related import Limits, MultipartReader, OutgoingPart, boundary_of
from pacslite.errors import InvalidMultipart, TooLarge
from pacslite.web.messages import SegmentsBody

LIMITS = Limits(max_bytes=10_000_000, max_parts=100)


class Pieces:
    """A body that arrives in the pieces it was cut into."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = [piece for piece in pieces if piece]

    def read(self, size: int = -1) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


def read(body: bytes | list[bytes], boundary: bytes = b"b", limits: Limits = LIMITS) -> list[tuple[dict[str, str], bytes]]:
    reader = MultipartReader(Pieces(body if isinstance(body, list) else [body]), boundary, limits)
    return [(part.headers, b"".join(bytes(piece) for piece in part.data())) for part in reader.parts()]


# Everything that broke parsers of other servers: blank lines in data, lines that begin like the delimiter, LF in data.
NASTY = b"\r\n\r\nPixels\r\n--not\r\n--b7\n--bx--\r\n-\r--b\r\n\r\n--B\r\n"
BODY = (
    b"a preamble\r\n--b\r\nContent-Type: application/dicom\r\nX: 1\r\n\r\n"
    + NASTY
    + b"\r\n--b  \t\r\ncontent-TYPE:text/plain\r\n\r\nsecond\r\n--b\r\n\r\nno headers"
    + b"\r\n--b\r\nY: empty\r\n\r\n--b--\r\nan epilogue\r\n--b\r\nZ: 1\r\n\r\nnot a part"
)
PARTS = [
    ({"content-type": "application/dicom", "x": "1"}, NASTY),
    ({"content-type": "text/plain"}, b"second"),
    ({}, b"no headers"),
    ({"y": "empty"}, b""),
]


def test_parts_are_the_same_wherever_the_body_is_split() -> None:
    for cut in range(len(BODY) + 1):
        assert read([BODY[:cut], BODY[cut:]]) == PARTS, cut


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 11])
def test_parts_are_the_same_in_pieces_of_any_size(size: int) -> None:
    assert read([BODY[at : at + size] for at in range(0, len(BODY), size)]) == PARTS


def test_a_body_of_lf_only_lines_is_read() -> None:
    body = b"--b\nContent-Type: application/dicom\n\none\ntwo\n--b\n\nthree\n--b--\n"
    for cut in range(len(body)):
        assert read([body[:cut], body[cut:]]) == [({"content-type": "application/dicom"}, b"one\ntwo"), ({}, b"three")]


FRAGMENTS = [b"\r", b"\n", b"--", b"-", b"boundary", b"bound", b" ", b"\x00x"]


@settings(max_examples=150, deadline=None)
@given(
    data=st.lists(st.lists(st.sampled_from(FRAGMENTS), max_size=12), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 400), max_size=6),
)
def test_any_data_comes_back_byte_for_byte(data: list[list[bytes]], cuts: list[int]) -> None:
    parts = [b"".join(pieces) for pieces in data]
    # A delimiter line inside data is no data; a sender picks another boundary.
    parts = [p for p in parts if not re.search(rb"(?:^|\n)--boundary(?:--|[ \t]*(?:\r?\n|\r?$))", p)] or [b""]
    body = b"".join(b"--boundary\r\nA: b\r\n\r\n" + p + b"\r\n" for p in parts) + b"--boundary--"
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [body[a:b] for a, b in pairwise(edges)]
    assert [found for _, found in read(pieces, b"boundary")] == parts


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no boundary at all",
        b"--b--",
        b"--b\r\n",
        b"--b\r\nContent-Type: application/dicom\r\n",
        b"--b\r\nContent-Type: application/dicom\r\n\r\ndata",
        b"--b\r\nContent-Type: application/dicom\r\n\r\ndata\r\n--",
        b"--b\r\nno colon\r\n\r\ndata\r\n--b--",
        b"--b\r\nbad name: 1\r\n\r\ndata\r\n--b--",
        b"--b\r\nA: " + b"x" * 20_000 + b"\r\n\r\n\r\n--b--",
    ],
)
def test_a_malformed_body_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidMultipart):
        read(body)


def test_the_bounds_of_bytes_and_parts_hold() -> None:
    with pytest.raises(TooLarge):
        read([b"--b\r\n\r\n", b"x" * 2000], limits=Limits(1000, 10))
    with pytest.raises(TooLarge):
        read(b"--b\r\n\r\n1\r\n--b\r\n\r\n2\r\n--b--", limits=Limits(1000, 1))


def test_memory_is_bounded_by_the_piece_not_by_the_part() -> None:
    class Endless:
        sent = 0

        def read(self, size: int = -1) -> bytes:
            self.sent += 1
            return b"--b\r\n\r\n" if self.sent == 1 else b"x" * size if self.sent < 200 else b"\r\n--b--"

    reader = MultipartReader(Endless(), b"b", Limits(1 << 40, 1))
    sizes = [len(piece) for part in reader.parts() for piece in part.data()]
    assert sum(sizes) == 198 * multipart_related.PIECE_BYTES
    assert max(sizes) <= multipart_related.PIECE_BYTES


def test_what_is_left_unread_of_a_part_is_skipped() -> None:
    reader = MultipartReader(io.BytesIO(BODY), b"b", LIMITS)
    assert [part.headers for part in reader.parts()] == [headers for headers, _ in PARTS]


@pytest.mark.parametrize("text", ['boundary="a b"', "boundary=a-b", 'boundary="' + "x" * 200 + '"', "boundary=a=b"])
def test_a_legal_boundary_is_taken_quoted_or_not(text: str) -> None:
    assert boundary_of(parse_media_type(f"multipart/related; {text}")) == text.removeprefix("boundary=").strip('"').encode()


@pytest.mark.parametrize("text", ["", "; boundary=", '; boundary="' + "x" * 201 + '"', '; boundary="a\u00e9"', '; boundary="a "'])
def test_an_illegal_boundary_is_refused(text: str) -> None:
    with pytest.raises(InvalidMultipart):
        boundary_of(parse_media_type("multipart/related" + text))


def test_what_is_encoded_is_read_back_and_its_length_is_known() -> None:
    parts = [OutgoingPart("image/jls; transfer-syntax=1.2", [b"abc", b"def"], "http://h/frames/1"), OutgoingPart("text/plain", [b""])]
    reply = multipart_related.encode(parts, "image/jls")
    assert isinstance(reply.body, SegmentsBody)
    raw = b"".join(_bytes_of(reply.body))
    assert reply.body.length == len(raw)
    assert b"\r\nContent-Type: image/jls" in raw  # viewers compare the name with regard to case
    boundary = boundary_of(parse_media_type(reply.header("content-type") or ""))
    assert read(raw, boundary) == [
        ({"content-type": "image/jls; transfer-syntax=1.2", "content-length": "6", "content-location": "http://h/frames/1"}, b"abcdef"),
        ({"content-type": "text/plain", "content-length": "0"}, b""),
    ]


def _bytes_of(body: SegmentsBody) -> Iterator[bytes]:
    for segment in body.segments:
        assert isinstance(segment, bytes)
        yield segment
