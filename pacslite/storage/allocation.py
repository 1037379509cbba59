"""Directories that a file system keeps apart from their neighbours.

ext4 puts a new file beside the others of its directory, a directory beside its parent, and takes the first free inode there is: what else
happens in that corner of the disk (many files deleted a moment ago, above all) makes every new file dearer. Below a directory that has
the attribute `T` (chattr(1): "not related") new directories go each to a corner of their own. Others ignore the hint.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# linux/fs.h; the numbers of 64-bit systems
_GET_FLAGS, _SET_FLAGS, _TOP_OF_HIERARCHIES = 0x80086601, 0x40086602, 0x00020000


def make_apart(path: Path, mode: int = 0o750) -> None:
    """Make the directory, below one that is there, unless it is there too; raises OSError."""
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(parent, fcntl.LOCK_EX)  # of two that start at once, none takes away what the other has opened
        if not path.exists():
            # The corner is chosen by the name: with a new one each time it is not that of a directory deleted just now.
            passing = path.with_name(f".{os.urandom(8).hex()}")
            with _spreading(parent):
                passing.mkdir(mode)
            passing.rename(path)
    finally:
        os.close(parent)


@contextmanager
def _spreading(directory: int) -> Iterator[None]:
    flags = None
    with suppress(OSError):  # a hint, and not every file system or account may give it
        flags = struct.unpack("I", fcntl.ioctl(directory, _GET_FLAGS, bytes(4)))[0]
        fcntl.ioctl(directory, _SET_FLAGS, struct.pack("I", flags | _TOP_OF_HIERARCHIES))
    try:
        yield
    finally:
        if flags is not None:
            with suppress(OSError):
                fcntl.ioctl(directory, _SET_FLAGS, struct.pack("I", flags))
