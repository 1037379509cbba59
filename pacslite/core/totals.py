"""How much is stored, added up by the worker bit by bit, for everybody who asks for the metrics.

A sum over a large catalog takes a while. So a look goes on for `_LOOK_S` at a time, and the next begins when a multiple of the
time it took has passed: the figures of a large archive are minutes old, and cost little.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pacslite import metrics
from pacslite.catalog import statistics

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.catalog.database import Catalog

_LOOK_S = 0.5
_PAUSES = 20


class Totals:
    """The state of the look."""

    def __init__(self, *store_names: str) -> None:
        self._look: Iterator[None] | None = None
        self._spent_s = 0.0
        self._next_at = 0.0
        self._known: set[tuple[str, ...]] = {name for store in store_names for name in (("bytes", store), ("count", store, "live"))}

    def go_on(self, catalog: Catalog) -> None:
        """Look on, or begin anew when it is time."""
        if self._look is None and time.monotonic() < self._next_at:
            return
        began = time.monotonic()
        if self._look is None:
            self._look, self._spent_s = self._looking(catalog), 0.0
        try:
            while time.monotonic() - began < _LOOK_S:
                next(self._look)
        except StopIteration:
            self._look = None
        finally:
            self._spent_s += time.monotonic() - began
            self._next_at = time.monotonic() + _PAUSES * self._spent_s

    def _looking(self, catalog: Catalog) -> Iterator[None]:
        sums: Counter[tuple[str, ...]] = Counter()
        for page_after in (statistics.blobs_after, statistics.studies_after, statistics.files_after):
            pk: int | None = 0
            while pk is not None:
                pk = self._add(catalog, page_after, pk, sums)
                yield
        with catalog.read() as conn:
            sums["patients",] = statistics.count_patients(conn)
        self._tell(sums)

    def _add(
        self, catalog: Catalog, page_after: Callable[[Connection, int], statistics.Page], pk: int, sums: Counter[tuple[str, ...]]
    ) -> int | None:
        with catalog.read() as conn:
            page = page_after(conn, pk)
        for name, amount in page.sums.items():
            sums[name] += amount
        return page.last_pk

    def _tell(self, sums: Counter[tuple[str, ...]]) -> None:
        self._known |= set(sums)
        for name in self._known:  # what was there and is not any more is 0
            metric, labels = _METRICS[name[0]], name[1:]
            metric.set(sums[name], *labels)


_METRICS = {
    "count": metrics.STORAGE_BLOBS,
    "bytes": metrics.STORAGE_BYTES,
    "files": metrics.FILES,
    "studies": metrics.STUDIES,
    "series": metrics.SERIES,
    "instances": metrics.INSTANCES,
    "patients": metrics.PATIENTS,
}
