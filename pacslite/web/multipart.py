"""Reading multipart bodies (RFC 2046 5.1), of forms as of DICOMweb: a streaming reader.

It holds one piece of the body in memory and no more, whatever the body is. It takes quoted and unquoted boundaries, preamble,
epilogue and lines that end in LF only. Data may hold anything but the delimiter line itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pacslite.errors import InvalidMultipart, TooLarge
from pacslite.web.messages import BodyStream

# RFC 2046 5.1.1: bchars; a space is legal inside. Longer ones are refused.
# RFC 2046 5.1.1 allows 70 characters; Orthanc's DICOMweb plugin (1.7) sends 73.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,199}[0-9A-Za-z'()+_,\-./:=?]")
# After the delimiter: two hyphens (the end), or optional padding and the end of the line.
_AFTER = re.compile(rb"(--)|[ \t]*\r?\n")
_MAYBE_AFTER = re.compile(rb"-|[ \t]*\r?")
_EMPTY_LINE = re.compile(rb"\r?\n")
_HEADERS_END = re.compile(rb"\r?\n\r?\n")
_HEADER_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

PIECE_BYTES = 1024 * 1024
MOST_HEADER_BYTES = 16 * 1024
MOST_PADDING_BYTES = 256


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one body."""

    max_bytes: int
    max_parts: int


def checked_boundary(text: str | None) -> bytes:
    """The boundary parameter of a Content-Type; raises InvalidMultipart when it is missing or illegal."""
    if not text or not _BOUNDARY.fullmatch(text):
        raise InvalidMultipart("The boundary parameter is missing or is not 1 to 200 legal characters.")
    return text.encode("ascii")


class MultipartReader:
    """Reads the parts of one body in order. What the caller leaves unread of a part is skipped.

    Raises InvalidMultipart for a body that is no multipart body or ends inside a part, TooLarge past a limit.
    """

    def __init__(self, stream: BodyStream, boundary: bytes, limits: Limits) -> None:
        self._stream = stream
        self._delimiter = b"\n--" + boundary
        self._limits = limits
        # A delimiter at the very start of the body has no line before it.
        self._buffer = b"\n"
        self._position = 0
        self._received_bytes = 0
        # Bytes at the position that are not data: the line feed before data may open a delimiter, when there is no data.
        self._not_data = 1
        self._in_data = True
        self._at_end = False

    def parts(self) -> Iterator[Part]:
        """Every part. Raises InvalidMultipart for a body without any."""
        self._skip()  # the preamble
        number = 0
        while not self._at_end:
            number += 1
            if number > self._limits.max_parts:
                raise TooLarge(f"The body has more than {self._limits.max_parts} parts.")
            part = Part(self._headers(), self)
            self._in_data = True
            yield part
            self._skip()
        if not number:
            raise InvalidMultipart("The body has no part.")

    def data(self) -> Iterator[memoryview]:
        """What is left before the next delimiter line, in pieces; consumes that line."""
        searched = self._position
        while self._in_data:
            buffer = self._buffer
            found = buffer.find(self._delimiter, searched)
            if found < 0:
                # Held back: what may be the start of a delimiter, and the CR before it.
                end = len(buffer) - len(self._delimiter)
                if end > self._position:
                    yield from self._consume(end, end)
                yield from self._next_piece()
                searched = self._position
                continue
            line_end = found + len(self._delimiter)
            after = _AFTER.match(buffer, line_end)
            if after is not None:
                self._in_data, self._at_end = False, after[1] is not None
                end = found - 1 if found > self._position and buffer[found - 1] == 0x0D else found
                yield from self._consume(end, after.end())
            elif _MAYBE_AFTER.fullmatch(buffer, line_end) and len(buffer) - line_end <= MOST_PADDING_BYTES:
                searched = found - self._position
                self._append(self._receive())
            else:
                searched = found + 1  # a longer line that only begins like a delimiter

    def _consume(self, end: int, position: int) -> Iterator[memoryview]:
        """Gives out the data before `end` and goes on to `position`."""
        start, self._position = self._position + self._not_data, position
        self._not_data = 0
        if end > start:
            yield memoryview(self._buffer)[start:end]

    def _next_piece(self) -> Iterator[memoryview]:
        """Goes on to the next piece of the body; gives out what was held back unless a delimiter lies across the seam."""
        piece = self._receive()
        width = len(self._delimiter)
        held = self._buffer[self._position :]
        if len(piece) > width and self._delimiter not in held + piece[:width]:
            start, self._not_data = self._not_data, 0
            self._buffer, self._position = piece, 0
            if len(held) > start:
                yield memoryview(held)[start:]
        else:
            self._append(piece)

    def _receive(self) -> bytes:
        try:
            piece = self._stream.read(PIECE_BYTES)
        except OSError:  # the client has gone, or its chunks are malformed
            piece = b""
        if not piece:
            raise InvalidMultipart("The body ends without its closing boundary.")
        self._received_bytes += len(piece)
        if self._received_bytes > self._limits.max_bytes:
            raise TooLarge(f"The body is larger than {self._limits.max_bytes} bytes.")
        return piece

    def _append(self, piece: bytes) -> None:
        self._buffer = self._buffer[self._position :] + piece
        self._position = 0

    def _skip(self) -> None:
        for _ in self.data():
            pass

    def _headers(self) -> dict[str, str]:
        """The header lines of a part; names in lower case."""
        while True:
            start = self._position
            # A part without headers begins with the empty line itself.
            found = _EMPTY_LINE.match(self._buffer, start) or _HEADERS_END.search(self._buffer, start, start + MOST_HEADER_BYTES)
            if found:
                self._position, self._not_data = found.end() - 1, 1
                return _parse_headers(self._buffer[start : found.start()])
            if len(self._buffer) - start >= MOST_HEADER_BYTES:
                raise InvalidMultipart("The headers of a part are too long.")
            self._append(self._receive())


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its headers, and its data once."""

    headers: dict[str, str]
    reader: MultipartReader

    def data(self) -> Iterator[memoryview]:
        """The data in pieces, each valid until the next is asked for."""
        return self.reader.data()


def _parse_headers(block: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    # Folded lines are obsolete but legal (RFC 5322 2.2.3).
    for line in re.sub(rb"\r?\n[ \t]+", b" ", block).splitlines():
        name, colon, value = line.partition(b":")
        if not colon or not _HEADER_NAME.fullmatch(name.strip()):
            raise InvalidMultipart("A header line of a part is malformed.")
        headers[name.strip().decode("ascii").lower()] = value.strip().decode("latin-1")
    return headers
