"""Verification by jobs, on demand and bit by bit, and the search for bytes without rows and rows without bytes.

Damage is reported, put right from a second copy where there is one, and put out of use where there is none.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pacslite import metrics
from pacslite.catalog import inventory
from pacslite.core import audit, jobs
from pacslite.core.ingest import read_limits
from pacslite.core.jobs import Handler, Job, Run
from pacslite.core.parts import WithCatalog, WithSettings, WithSpool, WithStores
from pacslite.core.repair import Outcome
from pacslite.core.stocktaking import rows_of
from pacslite.core.sweep import quarantine
from pacslite.core.verify import Problem, Verifier
from pacslite.errors import StorageError
from pacslite.storage.keys import quarantine_key

if TYPE_CHECKING:
    from pacslite.catalog.inventory import BlobRow
    from pacslite.core.archival import Watcher
    from pacslite.core.verify import Damage, Orphan
    from pacslite.storage.blob_store import BlobStore

VERIFY, ORPHANS = "storage.verify", "storage.orphans"
SLICE_INTERVAL_S = 600
_SLICE_S = 120.0
_LISTED = 10_000
_REMEMBER_S = 5.0
_log = logging.getLogger(__name__)


class Parts(WithSettings, WithCatalog, WithStores, WithSpool, Protocol):
    """What this needs of a process."""


def verifier_of(parts: Parts) -> Verifier:
    """A verifier over the parts of a process."""
    return Verifier(parts.catalog, parts.stores, parts.spool, read_limits(parts.settings, parts.spool.directory))


def verify(parts: Parts, watcher: Watcher, *, deep: bool = True, repair: bool = True) -> dict[str, Any]:
    """Look at every blob; goes on where an earlier run of the same job stopped."""
    verifier, memo = verifier_of(parts), watcher.memo
    found: dict[str, Any] = memo.get("found") or {"checked": 0, "damaged": [], "differing": [], "repaired": 0, "quarantined": 0}
    with parts.catalog.read() as conn:
        total = inventory.count_blobs(conn)
    seen, remembered_at = memo.get("seen", 0), time.monotonic()
    for row in rows_of(parts.catalog, memo.get("after", 0)):
        watcher.check()
        seen += 1
        if verifier.concerns(row):
            found["checked"] += 1
            _look(verifier, row, found, deep=deep, repair=repair)
        if time.monotonic() - remembered_at > _REMEMBER_S:
            watcher.remember(found=found, after=row.pk, seen=seen)
            remembered_at = time.monotonic()
        watcher.progress(min(seen, total), total)
    return found


def _look(verifier: Verifier, row: BlobRow, found: dict[str, Any], *, deep: bool, repair: bool) -> None:
    damage = verifier.check(row, deep)
    if damage is None:
        return
    became = verifier.treat(row, damage) if repair else Outcome.LEFT
    _tell(damage, became)
    if became is not Outcome.LEFT:
        found[str(became)] += 1
    listed = found["differing" if damage.problem is Problem.HEADER else "damaged"]
    if len(listed) < _LISTED:
        listed.append(entry_of(damage))


def entry_of(damage: Damage) -> dict[str, str]:
    """A damage as results list it."""
    whose = {"sop_instance_uid": damage.sop_instance_uid, "file_id": damage.file_id}
    return {"key": damage.key, **{name: uid for name, uid in whose.items() if uid}, "problem": str(damage.problem)}


def _tell(damage: Damage, became: Outcome) -> None:
    metrics.DAMAGED.add(str(damage.problem), str(became))
    about = {"action": VERIFY, "object_id": damage.key, "outcome": "failed", "reason": damage.detail, "became": str(became)}
    _log.error("stored bytes are not what the catalog says: %s", damage.problem, extra=about)


def find_orphans(parts: Parts, watcher: Watcher, *, remove: bool = False) -> dict[str, Any]:
    """Bytes that no row names, and live rows whose bytes are missing or too short; with `remove` the first are erased."""
    verifier, removed, freed, looked = verifier_of(parts), 0, 0, 0
    orphans: list[dict[str, Any]] = []
    missing: list[dict[str, str]] = []
    for store, orphan in verifier.look_through_storages():
        watcher.check()
        looked += 1
        watcher.progress(looked)
        if orphan is None:
            continue
        if len(orphans) < _LISTED:
            orphans.append(asdict(orphan))
        if remove and _erase(parts, store, orphan):
            removed, freed = removed + 1, freed + orphan.size_bytes
    for row in rows_of(parts.catalog):
        watcher.check()
        if row.state == inventory.LIVE and verifier.concerns(row) and (damage := verifier.check(row, deep=False)) is not None:
            missing.append(entry_of(damage))
    watcher.progress(looked, looked)
    return {"orphans": orphans, "missing": missing[:_LISTED], "removed": removed, "freed_bytes": freed}


def _erase(parts: Parts, store: BlobStore, orphan: Orphan) -> bool:
    """By way of quarantine, which asks twice whether nobody needs them."""
    if not quarantine(parts.catalog, store, orphan.key):
        return False
    store.delete(quarantine_key(orphan.key))
    return True


def queue_verify(parts: Parts, *, deep: bool, repair: bool, actor: str = "") -> Job:
    """Verify by a job; while the same is under way, that is meant."""
    return jobs.queue(parts.catalog, VERIFY, {"deep": deep, "repair": repair}, VERIFY_HANDLER, actor, f"{VERIFY}:{deep}:{repair}")


def queue_orphans(parts: Parts, *, remove: bool, actor: str = "") -> Job:
    """Look for orphans by a job; while the same is under way, that is meant."""
    return jobs.queue(parts.catalog, ORPHANS, {"remove": remove}, ORPHANS_HANDLER, actor, f"{ORPHANS}:{remove}")


def _run_verify(parts: Parts, run: Run) -> Mapping[str, Any]:
    return verify(parts, run, deep=bool(run.payload.get("deep", True)), repair=bool(run.payload.get("repair", True)))


def _run_orphans(parts: Parts, run: Run) -> Mapping[str, Any]:
    return find_orphans(parts, run, remove=bool(run.payload.get("remove")))


VERIFY_HANDLER = Handler(_run_verify, "blobs")
ORPHANS_HANDLER = Handler(_run_orphans, "blobs")


class Slices:
    """Looks at every blob once in `verify_days`, some at a time; how far it is stays in a file, so that a restart goes on."""

    def __init__(self, memory: Path) -> None:
        self._memory = memory

    def go_on(self, parts: Parts) -> dict[str, Any] | None:
        """The next slice; None when nothing is to be verified by itself."""
        days = parts.settings.verify_days
        if not days:
            return None
        with parts.catalog.read() as conn:
            if inventory.is_rebuilding(conn):
                return None
            total = inventory.count_blobs(conn)
        after, count = self._read(), -(-total * SLICE_INTERVAL_S // (days * 86400))
        found: dict[str, Any] = {"checked": 0, "damaged": [], "differing": [], "repaired": 0, "quarantined": 0}
        verifier, until = verifier_of(parts), time.monotonic() + _SLICE_S
        for row in rows_of(parts.catalog, after):
            if verifier.concerns(row):
                found["checked"] += 1
                _look(verifier, row, found, deep=True, repair=True)
            after = row.pk
            if found["checked"] >= count or time.monotonic() > until:
                break
        else:
            after = 0  # from the beginning
        self._write(after)
        if found["damaged"]:
            detail = {"damaged": len(found["damaged"]), "repaired": found["repaired"], "quarantined": found["quarantined"]}
            audit.record(parts.catalog, audit.Event("storage.damaged", audit.FAILED, object_type="storage", protocol="job", detail=detail))
        return found

    def _read(self) -> int:
        try:
            return int(json.loads(self._memory.read_text())["after"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def _write(self, after: int) -> None:
        written = self._memory.with_suffix(".new")
        try:
            written.write_text(json.dumps({"after": after}))
            os.replace(written, self._memory)
        except OSError as error:
            raise StorageError(f"{self._memory.name} cannot be written: {error.strerror}") from error
