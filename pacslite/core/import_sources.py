"""The files of a foreign tree: found without following links, read once into the spool, erased only as they were read."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pacslite.errors import BadRequest

if TYPE_CHECKING:
    from pacslite.storage.spool import Spool, SpoolFile

_PIECE_BYTES = 1024 * 1024
_DEEPEST = 100
# Of what is no regular file nothing is opened: a pipe would wait for its writer.
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Unusable(BadRequest):
    """A file that cannot be taken as it is; the text says why."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file of the tree, by its parts below the folder that was given; `problem` says why it is none to be taken."""

    path: Path
    parts: tuple[str, ...]
    problem: str = ""

    @property
    def name(self) -> str:
        """Its path for people, safe to print whatever bytes it is made of."""
        return printable("/".join(self.parts))

    @property
    def filename(self) -> str:
        """The name it came with, as text."""
        return self.parts[-1].encode("utf-8", "surrogateescape").decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Reading:
    """A copy in the spool, and what the file was when it was made."""

    source: Source
    spool_file: SpoolFile
    state: tuple[int, int, int, int]
    modified_at: float


def printable(text: str) -> str:
    """Text without controls and broken characters."""
    whole = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in whole)


def walk(root: Path, avoid: Collection[Path] = ()) -> Iterator[Source]:
    """Every regular file at or below `root`, in the order of names, folder by folder; links and what is none are told with a problem."""
    kept = {identity for path in avoid if (identity := _identity(path)) is not None}
    found = os.lstat(root)
    if stat.S_ISREG(found.st_mode):
        yield Source(root, (root.name,))
    elif stat.S_ISDIR(found.st_mode):
        yield from _walk(root, (), kept)
    else:
        yield Source(root, (root.name,), _kind_of(found.st_mode))


def _walk(folder: Path, parts: tuple[str, ...], kept: set[tuple[int, int]]) -> Iterator[Source]:
    if len(parts) >= _DEEPEST:
        yield Source(folder, parts, f"more than {_DEEPEST} folders deep")
        return
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
    except OSError as error:
        yield Source(folder, parts or (folder.name,), f"cannot be read: {error.strerror}")
        return
    for name in names:
        path, below = folder / name, (*parts, name)
        try:
            found = os.lstat(path)
        except OSError as error:
            yield Source(path, below, f"cannot be read: {error.strerror}")
            continue
        if stat.S_ISDIR(found.st_mode):
            if (found.st_dev, found.st_ino) not in kept:
                yield from _walk(path, below, kept)
        else:
            yield Source(path, below, "" if stat.S_ISREG(found.st_mode) else _kind_of(found.st_mode))


def _kind_of(mode: int) -> str:
    return "a link, which is not followed" if stat.S_ISLNK(mode) else "not a regular file"


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def read(source: Source, spool: Spool, most: int) -> Reading:
    """A copy of the file in the spool; raises Unusable when it cannot be read or changes meanwhile, TooLarge above `most` bytes."""
    descriptor = _opened(source)
    with open(descriptor, "rb", buffering=0) as file:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise Unusable("not a regular file")
        spool.check_space(before.st_size)
        with spool.create("", most) as writer:
            try:
                while piece := file.read(_PIECE_BYTES):
                    writer.write(piece)
            except OSError as error:
                raise Unusable(f"cannot be read: {error.strerror}") from None
            if _state_of(os.fstat(descriptor)) != _state_of(before):
                raise Unusable("changed while it was read")
            return Reading(source, writer.finish(), _state_of(before), before.st_mtime)


def _opened(source: Source) -> int:
    """A descriptor of the file; raises Unusable when it cannot be opened, or is not where the tree had it.

    `O_NOFOLLOW` is about the last name only: whoever may write to the tree could put a link in the place of a folder meanwhile, and
    have files from elsewhere taken in, and erased there. So the kernel is asked which file it is that was opened.
    """
    root = os.path.realpath(source.path.parents[len(source.parts) - 1])
    try:
        descriptor = os.open(source.path, _OPEN)
        try:
            if os.readlink(f"/proc/self/fd/{descriptor}") == os.path.join(root, *source.parts):
                return descriptor
        except OSError:
            os.close(descriptor)
            raise
    except OSError as error:
        raise Unusable(f"cannot be read: {error.strerror}") from None
    os.close(descriptor)
    raise Unusable("cannot be read: a folder above it became a link")


def digest(source: Source) -> tuple[str, int]:
    """SHA-256 and size of the file, for those who take nothing; raises Unusable."""
    descriptor = _opened(source)
    try:
        with open(descriptor, "rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
    except OSError as error:
        raise Unusable(f"cannot be read: {error.strerror}") from None


def erase(reading: Reading) -> None:
    """Removes the file, if it is still the one that was read; raises Unusable when it is not, or cannot be removed."""
    path = reading.source.path
    try:
        if _state_of(os.lstat(path)) != reading.state:
            raise Unusable("was taken in, and stays where it is: it changed since it was read")
        os.unlink(path)
    except OSError as error:
        raise Unusable(f"was taken in, and stays where it is: {error.strerror}") from None


def _state_of(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
