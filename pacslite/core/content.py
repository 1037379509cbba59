"""Bytes that are about to be sent: a range of a file on this machine, or a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO


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
