"""Bytes that are about to be sent: a range of a file on this machine, or a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pacslite.errors import BlobMissing

_PIECE_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class FileBody:
    """A range of a file on this machine; sent without copying where the receiver's side can.

    `file` is given when it is open already and may have lost its name meanwhile; whoever sends it closes it.
    """

    path: Path
    offset: int
    length: int
    file: BinaryIO | None = None


@dataclass(frozen=True, slots=True)
class StreamBody:
    """Bytes that are made or fetched while they are sent; `chunks` is called once, its iterator is closed at the end.

    The length is None when it is not known before the end. `part(offset, length)` gives a range of the bytes where that
    costs no more than the range.
    """

    length: int | None
    chunks: Callable[[], Iterator[bytes]]
    part: Callable[[int, int], Iterator[bytes]] | None = None


def pieces_of(body: bytes | FileBody | StreamBody) -> Iterator[bytes]:
    """The bytes in pieces; raises BlobMissing when a file is not there or ends early."""
    if isinstance(body, bytes):
        yield body
    elif isinstance(body, StreamBody):
        yield from body.chunks()
    else:
        try:
            file = body.file or open(body.path, "rb", buffering=0)  # noqa: SIM115 - closed below
        except FileNotFoundError:
            raise BlobMissing("The stored bytes are missing.") from None
        with file:
            file.seek(body.offset)
            left = body.length
            while left > 0:
                piece = file.read(min(left, _PIECE_BYTES))
                if not piece:
                    raise BlobMissing("The stored bytes are shorter than the catalog says.")
                left -= len(piece)
                yield piece
