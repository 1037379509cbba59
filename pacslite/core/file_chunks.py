"""Files that arrive in numbered chunks, in any order, for callers within this machine; over the network there is tus.

A chunk lies under its final name only when it is whole, and may be sent again. A session is
a folder; one that nobody goes on with is swept by its age.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from pacslite.errors import BadRequest, NotFound, TooLarge
from pacslite.storage.spool import Spool, storage_error

_SESSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_CHUNK = re.compile(r"[0-9]{9}")
_MOST_CHUNKS = 1_000_000
_PIECE_BYTES = 1024 * 1024
_WHOLE = "whole"


class Chunks:
    """The sessions below a folder."""

    def __init__(self, directory: Path, spool: Spool, most_bytes: int) -> None:
        self._directory, self._spool, self._most_bytes = directory, spool, most_bytes

    def save(self, session: str, number: int, pieces: Iterable[bytes]) -> int:
        """Keep a chunk, in place of one of that number; its size. Raises BadRequest, TooLarge, OutOfSpace."""
        if isinstance(number, bool) or not 0 <= number < _MOST_CHUNKS:
            raise BadRequest(f"a chunk has a number from 0 to {_MOST_CHUNKS - 1}")
        folder = self._folder(session)
        self._spool.check_space()
        unfinished, size = folder / f".{os.urandom(8).hex()}", 0
        try:
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            with unfinished.open("xb") as file:
                for piece in pieces:
                    size += len(piece)
                    if size > self._most_bytes:
                        raise TooLarge(f"more than {self._most_bytes} bytes")
                    file.write(piece)
            unfinished.replace(folder / f"{number:09}")
        except OSError as error:
            raise storage_error("the chunk cannot be written", error) from error
        finally:
            unfinished.unlink(missing_ok=True)
        return size

    def numbers(self, session: str) -> list[int]:
        """The chunks that are there, in order; raises NotFound for a session of which there is nothing."""
        folder = self._folder(session)
        if not folder.is_dir():
            raise NotFound("There is no such upload session.")
        return sorted(int(name) for name in os.listdir(folder) if _CHUNK.fullmatch(name))

    def assemble(self, session: str, total: int | None = None) -> Path:
        """All chunks in the order of their numbers as one file, which is there until the session ends.

        Numbers begin with 0 or 1. Raises NotFound, BadRequest when one is missing, TooLarge.
        """
        numbers = self.numbers(session)
        first = numbers[0] if numbers and numbers[0] in (0, 1) else 0
        wanted = range(first, first + (total if total is not None else max(len(numbers), 1)))
        if numbers != list(wanted):
            missing = sorted(set(wanted) - set(numbers))[:10]
            extra = sorted(set(numbers) - set(wanted))[:10]
            raise BadRequest(f"the upload is not whole: chunks {missing} are missing, {extra} are not expected")
        folder = self._folder(session)
        target, unfinished = folder / _WHOLE, folder / f".{os.urandom(8).hex()}"
        try:
            size = sum((folder / f"{number:09}").stat().st_size for number in numbers)
            if size > self._most_bytes:
                raise TooLarge(f"more than {self._most_bytes} bytes")
            self._spool.check_space(size)
            with unfinished.open("xb") as out:
                for number in numbers:
                    with (folder / f"{number:09}").open("rb") as chunk:
                        shutil.copyfileobj(chunk, out, _PIECE_BYTES)
            unfinished.replace(target)
        except OSError as error:
            raise storage_error("the chunks cannot be put together", error) from error
        finally:
            unfinished.unlink(missing_ok=True)
        return target

    def end(self, session: str) -> tuple[int, int]:
        """Remove a session with all it has: how many files, and bytes. Nothing happens when there is none."""
        return _removed(self._folder(session))

    def sweep(self, older_than_s: float) -> tuple[int, int]:
        """Remove sessions to which nothing was added for that long: how many files, and bytes."""
        count = freed = 0
        folders = [path for path in self._directory.iterdir() if _SESSION.fullmatch(path.name)] if self._directory.is_dir() else []
        for folder in folders:
            times = [path.stat().st_mtime for path in (folder, *folder.iterdir())]
            if time.time() - max(times) >= older_than_s:
                removed, size = _removed(folder)
                count, freed = count + removed, freed + size
        return count, freed

    def _folder(self, session: str) -> Path:
        if not _SESSION.fullmatch(session):
            raise BadRequest("an upload session is named by letters, digits, dots, dashes and underscores, 128 at most")
        return self._directory / session


def _removed(folder: Path) -> tuple[int, int]:
    if not folder.is_dir() or folder.is_symlink():
        return 0, 0
    sizes = [path.stat().st_size for path in folder.iterdir() if path.is_file()]
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise storage_error("the upload session cannot be removed", error) from error
    return len(sizes), sum(sizes)
