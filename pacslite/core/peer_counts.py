"""What passes between us and each peer, counted in memory and written to the catalog every few seconds."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

from pacslite.catalog import peers as rows
from pacslite.catalog.statements import time_text
from pacslite.errors import PacsliteError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.catalog.database import Catalog

_log = logging.getLogger(__name__)
_WRITE_S = 2.0
_NOTHING: Mapping[str, int] = MappingProxyType({})
# Strangers may call themselves anything; what they are called is kept no longer than until the next write.
_MOST_TITLES = 1000


class PeerCounts:
    """The counts of one process. Safe for threads."""

    def __init__(self, catalog: Catalog, write_s: float = _WRITE_S) -> None:
        self._catalog, self._write_s = catalog, write_s
        self._counts: dict[str, Counter[str]] = {}
        self._seen: dict[str, str] = {}
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def note(self, ae_title: str, counts: Mapping[str, int] = _NOTHING, *, seen: bool = True) -> None:
        """Add to the counts of a peer (`catalog.models.PEER_COUNTS`); `seen` tells that it was there."""
        with self._lock:
            if ae_title not in self._counts and len(self._counts) >= _MOST_TITLES:
                return
            self._counts.setdefault(ae_title, Counter()).update(counts)
            if seen:
                self._seen[ae_title] = time_text(datetime.now(UTC))
            if self._timer is None:
                timer = threading.Timer(self._write_s, self._write_quietly)
                timer.name, timer.daemon = "peer-counts", True
                with suppress(RuntimeError):  # the system has no thread left: the next one who notes something tries again
                    timer.start()
                    self._timer = timer

    def write(self) -> None:
        """Write what has come together."""
        with self._lock:
            counts, self._counts = self._counts, {}
            seen, self._seen = self._seen, {}
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def work(conn: Connection) -> None:
            for ae_title, numbers in counts.items():
                rows.count(conn, ae_title, numbers, seen.get(ae_title))

        if counts:
            self._catalog.write(work)

    def _write_quietly(self) -> None:
        try:
            self.write()
        except PacsliteError as error:
            _log.warning("counts of peers were lost", extra={"reason": str(error)})
