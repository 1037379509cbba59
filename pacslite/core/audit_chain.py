"""The audit log grows: pending events and the feed of changes get their places in the chain, and its head is anchored.

The anchor is a file outside of the catalog that names entries by number and hash. Who changes the catalog, or takes the end of
the log away, does not reach it; `core.audit_verify` compares.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pacslite.catalog import audit as rows
from pacslite.catalog import changes
from pacslite.catalog.audit import CHAIN_KEYS, Entry, Event, Head
from pacslite.catalog.changes import Change, Kind
from pacslite.catalog.statements import now_text

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.catalog.database import Catalog

CHANGES = "changes"
REBUILT = "catalog.reindex"
_log = logging.getLogger(__name__)
_CHANGES_AT_ONCE = 2000
_NONE_AFTER = 2**62
_CHECKPOINT, _MOST_LINES = 1000, 2000

_STORED = {Kind.INSTANCE_STORED, Kind.VERSION_ADDED, Kind.INSTANCE_REPAIRED}
_ACTIONS = {
    **dict.fromkeys(map(str, _STORED), "study.store"),
    Kind.CONFLICT_NOTED: "study.conflict",
    Kind.PATIENT_UPDATED: "patient.update",
    Kind.STUDY_DELETED: "study.delete",
    Kind.SERIES_DELETED: "series.delete",
    Kind.INSTANCE_DELETED: "instance.delete",
}
_LATER = ("file_id", "patient_id")  # columns that changes did not have when the first logs were written
# Noted by the transactions themselves, with who did it.
_NOTED = frozenset({Kind.PATIENT_CREATED, Kind.PATIENT_EDITED, Kind.PATIENT_MERGED, Kind.PATIENT_UNMERGED})
# A job that runs has been queued; that it was taken up, or put back, is no event of its own.
_JOB_STATES = frozenset({"queued", "succeeded", "failed", "cancelled"})


class Anchor:
    """The file that names entries: one in a thousand, and the newest. Safe for several processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._complained = False

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._path

    def read(self) -> list[Head]:
        """The entries it names, in order; raises ValueError for a file that is no anchor."""
        try:
            lines = self._path.read_text().splitlines()
        except FileNotFoundError:
            return []
        return [Head(int(one["seq"]), str(one["hash"])) for one in map(json.loads, lines)]

    def advance(self, catalog: Catalog) -> None:
        """Name the newest entry, if the log still goes on from what is named already."""
        with self._held():
            named = self._read_or_complain()
            if named is None:
                return
            with catalog.read() as conn:
                head = rows.head(conn)
                continues = head is not None and (not named or _is_in(conn, named[-1]))
            if head is None or not continues:
                if named:
                    self._complain(f"the audit log does not go on from entry {named[-1].seq}: `pacslite audit verify` tells more")
            elif not named or head.seq > named[-1].seq:
                self._write([*named, head])

    def replace(self, head: Head | None) -> Path | None:
        """Begin anew with this entry; where what was named before is kept."""
        with self._held():
            kept = None
            if self._path.exists():
                kept = self._path.with_name(f"{self._path.name}.{now_text()[:19].replace(':', '')}")
                self._path.rename(kept)
            if head is not None:
                self._write([head])
            return kept

    def _read_or_complain(self) -> list[Head] | None:
        try:
            return self.read()
        except (ValueError, KeyError, TypeError):
            self._complain(f"{self._path.name} is damaged")
            return None

    def _complain(self, what: str) -> None:
        if not self._complained:
            self._complained = True
            _log.error(what, extra={"action": "audit.anchor", "outcome": "failed"})

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        descriptor = os.open(self._path.with_name(self._path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _write(self, heads: Sequence[Head]) -> None:
        kept = [one for one, following in itertools.pairwise(heads) if one.seq // _CHECKPOINT != following.seq // _CHECKPOINT]
        kept = [*kept, heads[-1]][-_MOST_LINES:]
        new = self._path.with_name(self._path.name + ".new")
        with new.open("w") as file:
            for head in kept:
                file.write(json.dumps({"seq": head.seq, "hash": head.hash}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        new.rename(self._path)
        if len(kept) == 1 or kept[-2] in heads[-2:-1]:  # a thousand is full: outside of this machine too, where logs are collected
            _log.info("audit log anchored", extra={"action": "audit.anchor", "seq": heads[-1].seq, "hash": heads[-1].hash})


def _is_in(conn: Connection, head: Head) -> bool:
    """Whether the log has this entry, or has closed the segment that it was in."""
    found = rows.after(conn, head.seq - 1, 1)
    if found and found[0].seq == head.seq:
        return found[0].hash == head.hash
    first, _ = rows.bounds(conn)
    return 0 < head.seq < first


def anchor_of(data: Path) -> Anchor:
    """The anchor in a directory of data."""
    return Anchor(data / "audit.anchor")


def advance(catalog: Catalog, anchor: Anchor) -> int:
    """Chain everything that has happened; how many entries are new. Any process may, at any time."""
    chained = 0
    while new := _step(catalog):
        chained += new
    if chained:
        anchor.advance(catalog)
    return chained


def _step(catalog: Catalog) -> int:
    until = changes.settled(catalog)
    with catalog.read() as conn:
        cursor = rows.state(conn, CHANGES)
        new = changes.after(conn, cursor, _CHANGES_AT_ONCE, until=until)
        if not new and not rows.is_pending(conn):
            return 0
    events = derived(new)

    def work(conn: Connection) -> int:
        mine = rows.state(conn, CHANGES) == cursor  # else another process was faster
        if mine and new:
            rows.set_state(conn, CHANGES, new[-1].seq)
        return len(rows.chain(conn, events if mine else ())) + (len(new) if mine else 0)

    return catalog.write(work, CHAIN_KEYS)


@dataclass(slots=True)
class _Group:
    """Changes of one kind, cause and study."""

    last: Change
    kinds: dict[str, int] = field(default_factory=dict)
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, change: Change) -> None:
        self.last = change
        self.kinds[change.kind] = self.kinds.get(change.kind, 0) + 1
        self.digest.update(canonical(change))


def group_of(change: Change) -> tuple[str, ...]:
    """What the changes of one event have in common."""
    target = change.sop_instance_uid or change.series_instance_uid if change.kind not in _STORED else ""
    of_job = str(change.detail.get("job", "")) + str(change.detail.get("state", ""))
    origin = change.protocol, change.calling_aet, change.address, change.actor, change.request_id
    return _ACTIONS.get(change.kind, change.kind), change.study_instance_uid, target, of_job, *origin


def canonical(change: Change) -> bytes:
    """A change as it goes into the digest of its event."""
    values = [getattr(change, name) for name in change.__slots__ if name not in _LATER and name != "detail"]
    later = {name: value for name in _LATER if (value := getattr(change, name))}
    values += [later] if later else []
    return json.dumps([*values, dict(change.detail)], sort_keys=True, separators=(",", ":")).encode() + b"\n"


def derived(new: Sequence[Change]) -> list[Event]:
    """The events that changes tell of: instances stored, together for each association or request and study; all others one by one."""
    groups: dict[tuple[str, ...], _Group] = {}
    for change in new:
        if change.kind == Kind.JOB_CHANGED and change.detail.get("state") not in _JOB_STATES:
            continue
        if change.file_id or change.kind in _NOTED:
            continue
        groups.setdefault(group_of(change), _Group(change)).add(change)
    return [_event(group, new[0].seq, new[-1].seq) for group in groups.values()]


def _event(group: _Group, first: int, last: int) -> Event:
    change = group.last
    proof = {"changes": [first, last], "digest": group.digest.hexdigest()}
    origin: dict[str, Any] = {
        "address": change.address,
        "request_id": change.request_id,
        "protocol": change.protocol,
        "calling_aet": change.calling_aet,
    }
    if change.kind == Kind.JOB_CHANGED:
        state = str(change.detail["state"])
        outcome = "failed" if state == "failed" else "success"
        detail = {"kind": change.detail.get("kind", ""), **proof}
        job = str(change.detail.get("job", ""))
        return Event(f"job.{state}", outcome, change.actor, None, "job", job, None, detail=detail, at=change.at, **origin)
    action = _ACTIONS.get(change.kind, change.kind)
    uid = change.study_instance_uid
    object_type = "study"
    if action in ("series.delete", "instance.delete"):
        object_type, uid = action.partition(".")[0], change.sop_instance_uid or change.series_instance_uid
    # Who a patient was before stays in the feed of changes.
    told = {name: value for name, value in change.detail.items() if name in ("instances", "versions") and isinstance(value, int)}
    detail = {**group.kinds, **told, **proof}
    return Event(
        action,
        actor=change.actor,
        object_type=object_type,
        object_id=uid,
        study_instance_uid=change.study_instance_uid,
        detail=detail,
        at=change.at,
        **origin,
    )


def begin_rebuilding(catalog: Catalog) -> None:
    """The catalog is about to be made anew: what it tells of changes is not news until `end_rebuilding`."""

    def work(conn: Connection) -> None:
        rows.set_state(conn, CHANGES, _NONE_AFTER)

    catalog.write(work, CHAIN_KEYS)


def end_rebuilding(catalog: Catalog, origin: Event) -> None:
    """The catalog is whole again: changes are numbered anew, and followed from here."""

    def work(conn: Connection) -> list[Entry]:
        rows.set_state(conn, CHANGES, changes.last(conn))
        return rows.chain(conn, [origin])

    catalog.write(work, CHAIN_KEYS)


def accept(catalog: Catalog, anchor: Anchor, actor: str, problem: str) -> Path | None:
    """Go on from the log as it is, on record; where the old anchor is kept."""
    event = Event("audit.accept", actor=actor, object_type="audit", protocol="cli", detail={"reason": problem})
    catalog.write(lambda conn: rows.chain(conn, [event]), CHAIN_KEYS)
    with catalog.read() as conn:
        return anchor.replace(rows.head(conn))
