"""multipart/related (RFC 2387, PS3.18 8.6.1.2): answers of several parts. Bodies of requests are read by `web.multipart`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pacslite.core.content import pieces_of
from pacslite.dicomweb.media_types import MediaType
from pacslite.web.messages import Headers, Reply, Segment, SegmentsBody, StreamBody, length_of
from pacslite.web.multipart import PIECE_BYTES as PIECE_BYTES
from pacslite.web.multipart import Limits as Limits
from pacslite.web.multipart import MultipartReader as MultipartReader
from pacslite.web.multipart import Part as Part
from pacslite.web.multipart import checked_boundary


def boundary_of(media_type: MediaType) -> bytes:
    """The boundary parameter; raises InvalidMultipart when it is missing or illegal."""
    return checked_boundary(media_type.parameter("boundary"))


@dataclass(frozen=True, slots=True)
class OutgoingPart:
    """One part of an answer: a segment or several, under a Content-Type, of a resource."""

    content_type: str
    segments: Sequence[Segment]
    location: str | None = None


def new_boundary() -> str:
    """A boundary that occurs in no data: 128 random bits. Viewers search the bytes for it."""
    return f"pacslite-{os.urandom(16).hex()}"


def encode(parts: Sequence[OutgoingPart], root_type: str) -> Reply:
    """The reply that carries the parts; its length is known whenever those of the segments are."""
    boundary = new_boundary()
    segments: list[Segment] = []
    start = f"--{boundary}\r\n"
    for part in parts:
        segments.append(_head(start, part))
        segments.extend(part.segments)
        start = f"\r\n--{boundary}\r\n"
    segments.append(f"\r\n--{boundary}--\r\n".encode("ascii"))
    return Reply(200, _content_type(root_type, boundary), SegmentsBody(segments))


def stream(parts: Iterable[OutgoingPart], root_type: str) -> Reply:
    """The reply that carries parts which are made while it is sent; each part has its length, the whole has none."""
    boundary = new_boundary()

    def pieces() -> Iterator[bytes]:
        start = f"--{boundary}\r\n"
        for part in parts:
            yield _head(start, part)
            for segment in part.segments:
                yield from pieces_of(segment)
            start = f"\r\n--{boundary}\r\n"
        yield f"\r\n--{boundary}--\r\n".encode("ascii")

    return Reply(200, _content_type(root_type, boundary), StreamBody(None, pieces))


def _content_type(root_type: str, boundary: str) -> Headers:
    return [("Content-Type", f'multipart/related; type="{root_type}"; boundary={boundary}')]


def _head(start: str, part: OutgoingPart) -> bytes:
    lengths = [length_of(segment) for segment in part.segments]
    # `Content-Type` is spelled so because viewers compare it with regard to case.
    head = f"{start}Content-Type: {part.content_type}\r\n"
    if None not in lengths:
        head += f"Content-Length: {sum(length or 0 for length in lengths)}\r\n"
    if part.location:
        head += f"Content-Location: {part.location}\r\n"
    return (head + "\r\n").encode("latin-1")
