"""Brings back what was deleted, as long as its bytes are not erased.

The catalog has forgotten a deleted instance, so it is read from its bytes once more and recorded like an arrival, with the
bytes where they are. All versions of an instance come back in one transaction. An instance that has arrived anew
meanwhile stays as it is. Cut short, it goes on when it is asked for again.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from pacslite.catalog import deletions, instances
from pacslite.catalog.arrival import NewBlob
from pacslite.catalog.instances import Intent
from pacslite.catalog.statements import time_text
from pacslite.core.ingest import arrival_of, read_limits
from pacslite.core.parts import WithCatalog, WithSettings, WithSpool, WithStores
from pacslite.core.removal import Origin, Target, absent
from pacslite.core.stocktaking import as_file
from pacslite.dicom.instance import read_instance
from pacslite.errors import BlobMissing, InstanceRefused
from pacslite.storage.keys import RADIOLOGY

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.catalog.arrival import Arrival
    from pacslite.catalog.deletions import Kept

_THREADS = 4  # hide the waits of an object store
_BATCH = 50  # instances of one transaction


class Parts(WithSettings, WithCatalog, WithStores, WithSpool, Protocol):
    """What undeleting needs of a process."""


@dataclass(frozen=True, slots=True)
class Undeleted:
    """What came back, and what did not: `arrived_anew` are instances, `lost` versions that are damaged or erased."""

    instances: int = 0
    versions: int = 0
    arrived_anew: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class _Version:
    arrival: Arrival
    blob: NewBlob


def count(parts: Parts, target: Target, now: datetime | None = None) -> int:
    """How many instances `undelete` would have to read; 0 also when there is nothing to bring back."""
    return len(_by_instance(_kept(parts, target, now)[0]))


def _kept(parts: Parts, target: Target, now: datetime | None) -> tuple[list[Kept], bool]:
    """What can come back, and whether something of the target is there."""
    since = time_text((now or datetime.now(UTC)) - timedelta(seconds=parts.settings.removal_grace_s))
    prefix = RADIOLOGY + "/".join(target.uids.values()) + "/"
    with parts.catalog.read() as conn:
        sight = parts.catalog.sight(conn)
        return deletions.kept_of(conn, target, since, prefix, sight), deletions.is_there(conn, target, sight)


def undelete(
    parts: Parts,
    target: Target,
    origin: Origin,
    now: datetime | None = None,
    go_on: Callable[[Undeleted, int, int], object] = lambda so_far, done, total: None,
) -> Undeleted:
    """Bring back what was deleted of a study, series or instance within the time of grace.

    Nothing comes back, and that is told, where nothing is missing. `go_on` is told between batches what has come back so
    far, and how many instances of how many were read; it may raise. Raises NotFound, and Gone when it is too late.
    """
    kept, is_there = _kept(parts, target, now)
    groups, total = _by_instance(kept), Undeleted()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="undelete") as pool:
        for start in range(0, len(groups), _BATCH):
            found = list(pool.map(lambda group: [_read(parts, one, origin) for one in group], groups[start : start + _BATCH]))
            lost = sum(version is None for group in found for version in group)
            batch = [whole for group in found if (whole := [version for version in group if version is not None])]
            keys = {key for group in batch for version in group for key in version.arrival.keys}
            outcomes = parts.catalog.write(lambda conn, b=batch: [_restore(conn, group) for group in b], tuple(keys))  # type: ignore[misc]
            total = sum_of([total, Undeleted(lost=lost), *outcomes])
            go_on(total, min(start + _BATCH, len(groups)), len(groups))
    if not total.versions and not is_there:
        raise absent(parts.catalog, target)
    return total


def _by_instance(kept: list[Kept]) -> list[list[Kept]]:
    """The versions of each instance, oldest first; of one that was deleted several times, what the last deletion took.

    The instance stored last comes last: a study has the attributes of what was recorded last.
    """
    groups: dict[str, list[Kept]] = {}
    for one in kept:
        groups.setdefault(one.storage_key.rpartition("/")[0], []).append(one)
    return sorted((_last_deleted(group) for group in groups.values()), key=lambda group: group[-1].uid)


def _last_deleted(group: list[Kept]) -> list[Kept]:
    last = max(one.doomed_at for one in group)
    return [one for one in group if one.doomed_at == last]


def _read(parts: Parts, kept: Kept, origin: Origin) -> _Version | None:
    """A deleted version from its bytes; None when they are not what they were."""
    if not parts.stores.knows(kept.store_name):
        return None
    try:
        with as_file(parts.stores, parts.spool, kept) as (path, digests):
            if digests.sha256 != kept.sha256:
                return None
            read = read_instance(path, read_limits(parts.settings, parts.spool.directory))
    except (BlobMissing, InstanceRefused):
        return None
    arrival = arrival_of(read, digests.data_set_digest or digests.sha256, origin, parts.settings)
    return _Version(arrival, NewBlob(kept.uid, kept.storage_key, kept.store_name, kept.size_bytes, kept.sha256))


def _restore(conn: Connection, group: list[_Version]) -> Undeleted:
    """All versions of one instance. Nothing but SQL: a transaction may run more than once."""
    uids, seen, versions = group[0].arrival.uids, None, 0
    if instances.find_version(conn, *uids) is not None:
        return Undeleted(arrived_anew=1)
    for one in group:
        if instances.record(conn, one.arrival, one.blob, seen, Intent.RESTORE) != instances.OVERTAKEN:
            versions += 1
            newest = instances.find_version(conn, *uids)
            seen = newest.version_pk if newest else None
    return Undeleted(min(versions, 1), versions, 0, len(group) - versions)


def sum_of(outcomes: list[Undeleted]) -> Undeleted:
    """All of them together."""
    return Undeleted(
        sum(one.instances for one in outcomes),
        sum(one.versions for one in outcomes),
        sum(one.arrived_anew for one in outcomes),
        sum(one.lost for one in outcomes),
    )
