"""Takes away what uploads, deletions and other files have left behind: on demand, by command, and by itself once a day."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from pacslite.core import renditions, uploads
from pacslite.core.erasure import erase
from pacslite.core.parts import WithCatalog, WithSettings, WithSpool, WithStores
from pacslite.errors import StorageError

DAILY_HOURS = 24.0
LOOK_INTERVAL_S = 900


class Parts(WithSettings, WithCatalog, WithStores, WithSpool, Protocol):
    """What this needs of a process."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What went: files of the spool, uploads that were never finished, and blobs; `results` of renditions were given up."""

    spool_files: int
    uploads: int
    erased: int
    results: int
    freed_bytes: int

    @property
    def deleted_count(self) -> int:
        """All that had bytes of its own."""
        return self.spool_files + self.uploads + self.erased

    def told(self) -> dict[str, int]:
        """For programs."""
        return {"deleted_count": self.deleted_count, **asdict(self)}


def cleanup(parts: Parts, older_than_hours: float) -> Cleaned:
    """Take away what is older; 0 takes all, what was deleted too, whose time of grace counts otherwise. May run beside a server."""
    older_than_s = older_than_hours * 3600
    ended, files, freed = unfinished(parts, older_than_s)
    results = renditions.sweep(parts)
    grace_s = parts.settings.removal_grace_s if older_than_s else -1.0
    erased = [erase(parts.catalog, store, grace_s) for store in parts.stores.all]
    freed += sum(one.size_bytes for one in erased)
    return Cleaned(files, ended, sum(one.count for one in erased), results, freed)


def unfinished(parts: Parts, older_than_s: float) -> tuple[int, int, int]:
    """Take away what was begun and not gone on with for that long: how many uploads and files of the spools, and their bytes."""
    ended, freed = uploads.expire(parts, older_than_s)
    files = 0
    for spool in (parts.spool, *parts.stores.spools):
        removed, size = spool.clear(older_than_s)
        files, freed = files + removed, freed + size
    return ended, files, freed


class Daily:
    """Tells whether a day has passed, also over restarts: the time of a file is that of the last time."""

    def __init__(self, memory: Path) -> None:
        self._memory = memory

    def is_due(self, now: float | None = None) -> bool:
        """Whether the last time is a day ago, or nobody knows of one."""
        try:
            return (now or time.time()) - self._memory.stat().st_mtime >= DAILY_HOURS * 3600
        except OSError:
            return True

    def done(self) -> None:
        """Now was the last time."""
        try:
            self._memory.touch()
            os.utime(self._memory)
        except OSError as error:
            raise StorageError(f"{self._memory.name} cannot be written: {error.strerror}") from error
