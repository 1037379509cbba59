"""Audit entries as files: exports for whoever asks, and closed segments that leave the log after `audit_keep_days`.

A file holds one entry a line with its hash. What leaves the log is written and synced first; then one transaction removes it and
chains an entry that names the file and the last hash in it, so that the log still proves where it goes on from.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pacslite.catalog import audit as rows
from pacslite.catalog.audit import CHAIN_KEYS, Entry, Event, Filter
from pacslite.catalog.statements import time_text
from pacslite.core.audit_verify import PRUNED
from pacslite.durability import sync_directory

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.catalog.database import Catalog

SYSLOG = "syslog"
_PAGE = 1000
_OF_ONE_FILE = 100_000


def plain(entry: Entry) -> dict[str, Any]:
    """An entry as it is shown and exported: fields that do not apply are null or empty."""
    event = entry.event
    return {
        "id": entry.seq,
        "at": event.at,
        "actor": event.actor,
        "actor_id": event.actor_id,
        "action": event.action,
        "object_type": event.object_type,
        "object_id": event.object_id,
        "study_instance_uid": event.study_instance_uid,
        "patient_id": event.patient_id,
        "address": event.address,
        "protocol": event.protocol,
        "calling_aet": event.calling_aet,
        "outcome": event.outcome,
        "request_id": event.request_id,
        "detail": dict(event.detail),
        "hash": entry.hash,
    }


def entries(catalog: Catalog, wanted: Filter, last: int | None = None) -> Iterator[Entry]:
    """All entries that fit, oldest first; of a filter newest first would be `core.audit.page`."""
    seq = 0
    while True:
        with catalog.read() as conn:
            page = rows.page_after(conn, wanted, seq, _PAGE)
        for entry in page:
            if last is not None and entry.seq > last:
                return
            yield entry
        if len(page) < _PAGE:
            return
        seq = page[-1].seq


def close_old(catalog: Catalog, directory: Path, keep_days: int, *, wait_for_syslog: bool) -> int:
    """Move entries older than so many days into files; how many. What the syslog server has not got yet stays."""
    moved = 0
    if keep_days <= 0:
        return 0
    until = time_text(datetime.now(UTC) - timedelta(days=keep_days))
    while True:
        with catalog.read() as conn:
            first, _ = rows.bounds(conn)
            last = min(rows.last_before(conn, until), first + _OF_ONE_FILE - 1)
            if wait_for_syslog:
                last = min(last, rows.state(conn, SYSLOG))
        # An entry that closes a segment is not worth closing one for.
        if not first or last <= first:
            return moved
        moved += _close(catalog, directory, first, last)


def _close(catalog: Catalog, directory: Path, first: int, last: int) -> int:
    directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    path = directory / f"audit-{first:012d}-{last:012d}.jsonl.gz"
    count, last_hash = _write(path, entries(catalog, Filter(), last))
    detail = {"first": first, "last": last, "last_hash": last_hash, "entries": count, "file": path.name, "sha256": _sha256(path)}

    def work(conn: Connection) -> None:
        if rows.bounds(conn)[0] != first:
            return  # somebody else has closed it
        rows.chain(conn, [Event(PRUNED, object_type="audit", object_id=path.name, protocol="job", detail=detail)])
        rows.remove_until(conn, last)

    catalog.write(work, CHAIN_KEYS)
    return count


def _write(path: Path, found: Iterator[Entry]) -> tuple[int, str]:
    new, count, last_hash = path.with_name(path.name + ".new"), 0, ""
    with new.open("wb") as file:
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
            for entry in found:
                packed.write(json.dumps(plain(entry), ensure_ascii=False).encode() + b"\n")
                count, last_hash = count + 1, entry.hash
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
    sync_directory(path.parent)
    return count, last_hash


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
