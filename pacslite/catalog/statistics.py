"""How much there is in the catalog, for metrics; and what it says of the time.

Sums are taken page by page in the order of primary keys, so that no transaction is long, however much there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, func, select, text

from pacslite.catalog.models import blob, change, job, patient, study

PAGE_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Page:
    """What a page of rows adds up to, by name; `last_pk` is None when it was the last one."""

    last_pk: int | None
    sums: Mapping[tuple[str, ...], int]


def _page_of(table: Any, *columns: Any) -> Any:
    return select(table.c.pk, *columns).where(table.c.pk > bindparam("after")).order_by(table.c.pk).limit(PAGE_ROWS).subquery().c


_BLOBS = _page_of(blob, blob.c.store_name, blob.c.state, blob.c.size_bytes)
_SUM_BLOBS = select(_BLOBS.store_name, _BLOBS.state, func.count(), func.sum(_BLOBS.size_bytes), func.max(_BLOBS.pk)).group_by(
    _BLOBS.store_name, _BLOBS.state
)
_STUDIES = _page_of(study, study.c.number_of_study_related_series, study.c.number_of_study_related_instances)
_SUM_STUDIES = select(
    func.count(),
    func.sum(_STUDIES.number_of_study_related_series),
    func.sum(_STUDIES.number_of_study_related_instances),
    func.max(_STUDIES.pk),
)


def blobs_after(conn: Connection, pk: int) -> Page:
    """Number (`count, store, state`) and bytes (`bytes, store`) of a page of blobs."""
    rows = conn.execute(_SUM_BLOBS, {"after": pk}).all()
    sums: dict[tuple[str, ...], int] = {}
    for store, state, count, size, _ in rows:
        sums["count", store, state] = count
        sums["bytes", store] = sums.get(("bytes", store), 0) + int(size)
    total = sum(row[2] for row in rows)
    return Page(max(row[4] for row in rows) if total == PAGE_ROWS else None, sums)


def studies_after(conn: Connection, pk: int) -> Page:
    """Number of studies of a page, of their series and of their instances."""
    count, series, instances, last = conn.execute(_SUM_STUDIES, {"after": pk}).one()
    sums: dict[tuple[str, ...], int] = {("studies",): count, ("series",): int(series or 0), ("instances",): int(instances or 0)}
    return Page(last if count == PAGE_ROWS else None, sums)


def count_patients(conn: Connection) -> int:
    """How many patients there are."""
    return conn.execute(select(func.count()).select_from(patient)).scalar_one()


def jobs_by_state(conn: Connection) -> dict[str, int]:
    """How many jobs are in each state."""
    rows = conn.execute(select(job.c.state, func.count()).group_by(job.c.state))
    return dict(rows.tuples().all())


def first_due_at(conn: Connection) -> str | None:
    """Since when the queued job is due that is due longest; None when none is queued."""
    return conn.execute(select(func.min(job.c.run_after_at)).where(job.c.state == "queued")).scalar()


def count_doomed(conn: Connection) -> int:
    """Blobs that wait for their erasure."""
    return conn.execute(select(func.count()).select_from(blob).where(text("state = 'doomed'"))).scalar_one()


def database_time(conn: Connection) -> float | None:
    """The clock of the database server, in seconds since 1970; None where the database has none of its own."""
    if conn.dialect.name != "postgresql":
        return None
    return float(conn.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())


def last_change_at(conn: Connection) -> str | None:
    """When the newest change happened."""
    return conn.execute(select(change.c.at).order_by(change.c.seq.desc()).limit(1)).scalar()
