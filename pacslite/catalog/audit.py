"""The audit log: events noted by the transaction that they speak of, then chained by hashes in one order.

`note` puts an event into `audit_pending`, which costs a writer one small row and no wait for others. `chain` moves what is
pending into `audit_event`, where nothing is changed any more: entry n holds the SHA-256 of entry n-1 and of itself.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from pacslite.catalog.file_models import file, purged_file
from pacslite.catalog.models import audit_event as event_table
from pacslite.catalog.models import audit_pending as pending_table
from pacslite.catalog.models import audit_state as state_table
from pacslite.catalog.models import study
from pacslite.catalog.statements import Prepared, now_text

CHAIN_KEYS = ("audit:chain",)
"""For `Catalog.write` of whoever chains: one at a time."""
GENESIS = "0" * 64
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_AT_ONCE = 500
_MOST_TEXT = 1000
_NOT_TEXT = re.compile(r"[^\t\n\r -\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")  # XML 1.0 2.2


@dataclass(frozen=True, slots=True)
class Event:
    """Something somebody did, or was refused. Holds no names of patients: `patient_id` is the catalog's own number.

    `outcome` is success, refused or failed; `request_id` that of the HTTP request, or the id of the association.
    """

    action: str
    outcome: str = "success"
    actor: str = ""
    actor_id: int | None = None
    object_type: str = ""
    object_id: str = ""
    patient_id: int | None = None
    address: str = ""
    request_id: str = ""
    detail: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    study_instance_uid: str = ""
    protocol: str = ""
    calling_aet: str = ""
    at: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """An event in its place in the chain."""

    seq: int
    event: Event
    hash: str


@dataclass(frozen=True, slots=True)
class Head:
    """An entry named by number and hash: the newest one, or one that was anchored."""

    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries are looked for; empty is all. Times are as the catalog writes them, `until` excluded."""

    actor: str = ""
    action: str = ""
    patient_id: int | None = None
    study_instance_uid: str = ""
    outcome: str = ""
    since: str = ""
    until: str = ""


_TEXTS = ("at", "action", "outcome", "actor", "object_type", "object_id", "study_instance_uid", "address", "protocol", "calling_aet")
_COLUMNS = (*_TEXTS, "request_id", "actor_id", "patient_id", "detail")
_NOTE = Prepared(insert(pending_table).values(payload=bindparam("payload")))
_READ = select(event_table.c.seq, *(event_table.c[name] for name in _COLUMNS), event_table.c.hash)
_HEAD = select(event_table.c.seq, event_table.c.hash).order_by(event_table.c.seq.desc()).limit(1)


def note(conn: Connection, event: Event) -> None:
    """Note an event in the transaction of the change it speaks of."""
    _NOTE.do(conn, {"payload": _packed(event)})


def note_all(conn: Connection, events: Iterable[Event]) -> None:
    """Note several."""
    rows = [{"payload": _packed(event)} for event in events]
    if rows:
        conn.execute(insert(pending_table), rows)


def _packed(event: Event) -> str:
    cleaned = clean(event)
    values = {name: getattr(cleaned, name) for name in Event.__slots__} | {"detail": dict(cleaned.detail), "at": event.at or now_text()}
    return json.dumps({name: value for name, value in values.items() if value not in ("", None, {})}, ensure_ascii=False)


def clean(event: Event) -> Event:
    """The event without what databases or XML cannot hold, and not too long: callers send what they like."""
    return Event(**{name: _cleaned(getattr(event, name)) for name in Event.__slots__})


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return _NOT_TEXT.sub("?", value[:_MOST_TEXT])
    if isinstance(value, Mapping):
        return {_cleaned(name): _cleaned(inner) for name, inner in value.items()}
    return [_cleaned(inner) for inner in value] if isinstance(value, list | tuple) else value


def _unpacked(payload: str) -> Event:
    return Event(**json.loads(payload))


def is_pending(conn: Connection) -> bool:
    """Whether events wait for their place in the chain; reads only."""
    return conn.execute(select(pending_table.c.id).limit(1)).first() is not None


def count_pending(conn: Connection) -> int:
    """How many events wait for their place."""
    return int(conn.execute(select(func.count()).select_from(pending_table)).scalar_one())


def head(conn: Connection) -> Head | None:
    """The newest entry."""
    row = conn.execute(_HEAD).first()
    return None if row is None else Head(*row)


def chain(conn: Connection, more: Sequence[Event] = ()) -> list[Entry]:
    """Give pending events, some hundred at most, and `more` their places; the new entries. Under `CHAIN_KEYS`."""
    rows = conn.execute(select(pending_table.c.id, pending_table.c.payload).order_by(pending_table.c.id).limit(_AT_ONCE)).all()
    now = now_text()
    events = [*(_unpacked(payload) for _, payload in rows), *(replace(clean(event), at=event.at or now) for event in more)]
    if not events:
        return []
    patients = _patients(conn, events) | _patients_of_files(conn, events)
    last = head(conn) or Head(0, GENESIS)
    entries: list[Entry] = []
    for event in events:
        known = event if event.patient_id is not None else replace(event, patient_id=patients.get(_about(event)))
        last = Head(last.seq + 1, hash_of(last.seq + 1, _row(known), last.hash))
        entries.append(Entry(last.seq, known, last.hash))
    conn.execute(insert(event_table), [{"seq": one.seq, "hash": one.hash, **_row(one.event)} for one in entries])
    if rows:
        conn.execute(delete(pending_table).where(pending_table.c.id.in_([row.id for row in rows])))
    return entries


def hash_of(seq: int, row: Mapping[str, Any], previous: str) -> str:
    """The hash of an entry: of its columns in a fixed order, its number, and the hash of the one before."""
    canonical = json.dumps([previous, seq, *(row[name] for name in _COLUMNS)], ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _row(event: Event) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(event, name) for name in (*_TEXTS, "request_id", "actor_id", "patient_id")}
    values["detail"] = json.dumps(dict(event.detail), ensure_ascii=False, sort_keys=True) if event.detail else ""
    return values


def _patients(conn: Connection, events: Iterable[Event]) -> dict[str, int]:
    """The patients of studies: by the catalog, or by what the log says of a study that is gone."""
    uids = {event.study_instance_uid for event in events if event.study_instance_uid and event.patient_id is None}
    if not uids:
        return {}
    known: dict[str, int] = {}
    of_study = select(study.c.study_instance_uid, study.c.patient_pk).where(study.c.study_instance_uid.in_(sorted(uids)))
    known.update((uid, pk) for uid, pk in conn.execute(of_study))
    for uid in sorted(uids - known.keys()):
        named = event_table.c.study_instance_uid == uid, event_table.c.patient_id.is_not(None)
        found = conn.execute(select(event_table.c.patient_id).where(*named).order_by(event_table.c.seq.desc()).limit(1)).scalar()
        if found is not None:
            known[uid] = found
    return known


def _about(event: Event) -> str:
    """By what the patient of an event is found: a study, or a file."""
    file_id = event.object_id if event.object_type == "file" else str(event.detail.get("file_id", ""))
    return event.study_instance_uid or file_id


def _patients_of_files(conn: Connection, events: Iterable[Event]) -> dict[str, int]:
    """The patients of files, purged ones as well, by the ids of the files."""
    ids = sorted({about for event in events if event.patient_id is None and "-" in (about := _about(event))})
    if not ids:
        return {}
    there = select(file.c.uid, file.c.patient_pk).where(file.c.uid.in_(ids))
    gone = select(purged_file.c.uid, purged_file.c.patient_id).where(purged_file.c.uid.in_(ids))
    return {uid: pk for statement in (gone, there) for uid, pk in conn.execute(statement)}


def after(conn: Connection, seq: int, limit: int) -> list[Entry]:
    """The entries that follow a number, in order."""
    return [_entry(row) for row in conn.execute(_READ.where(event_table.c.seq > seq).order_by(event_table.c.seq).limit(limit))]


def rows_after(conn: Connection, seq: int, limit: int) -> list[Mapping[str, Any]]:
    """The entries that follow a number as they stand in the table, for whoever recomputes their hashes."""
    found = conn.execute(_READ.where(event_table.c.seq > seq).order_by(event_table.c.seq).limit(limit))
    return [dict(row._mapping) for row in found]


def page(conn: Connection, wanted: Filter, before: int | None, limit: int) -> list[Entry]:
    """Entries, newest first, from below a number on."""
    statement = _READ.where(*_conditions(wanted)).order_by(event_table.c.seq.desc()).limit(limit)
    if before is not None:
        statement = statement.where(event_table.c.seq < before)
    return [_entry(row) for row in conn.execute(statement)]


def page_after(conn: Connection, wanted: Filter, seq: int, limit: int) -> list[Entry]:
    """Entries that fit, oldest first, from behind a number on."""
    statement = _READ.where(*_conditions(wanted), event_table.c.seq > seq).order_by(event_table.c.seq).limit(limit)
    return [_entry(row) for row in conn.execute(statement)]


def count(conn: Connection, wanted: Filter) -> int:
    """How many entries there are."""
    return int(conn.execute(select(func.count()).select_from(event_table).where(*_conditions(wanted))).scalar_one())


def _conditions(wanted: Filter) -> list[Any]:
    columns = event_table.c
    chosen = [
        columns[name] == value
        for name in ("actor", "patient_id", "study_instance_uid", "outcome")
        if (value := getattr(wanted, name)) not in ("", None)
    ]
    if wanted.action.endswith(".*"):
        chosen.append(columns.action.startswith(wanted.action[:-1], autoescape=True))
    elif wanted.action:
        chosen.append(columns.action == wanted.action)
    if wanted.since:
        chosen.append(columns.at >= wanted.since)
    if wanted.until:
        chosen.append(columns.at < wanted.until)
    return chosen


def last_before(conn: Connection, at: str) -> int:
    """The number up to which every entry is older than a time; 0 when there is none."""
    younger = conn.execute(select(func.min(event_table.c.seq)).where(event_table.c.at >= at)).scalar()
    newest = conn.execute(select(func.max(event_table.c.seq))).scalar() or 0
    return int(newest if younger is None else younger - 1)


def bounds(conn: Connection) -> tuple[int, int]:
    """The numbers of the first and the last entry, (0, 0) without any."""
    first, last = conn.execute(select(func.min(event_table.c.seq), func.max(event_table.c.seq))).one()
    return first or 0, last or 0


def remove_until(conn: Connection, seq: int) -> int:
    """Take the entries up to a number out of the log; how many."""
    return int(conn.execute(delete(event_table).where(event_table.c.seq <= seq)).rowcount)


def state(conn: Connection, name: str) -> int:
    """A number that is kept beside the log, 0 when it never was."""
    return int(conn.execute(select(state_table.c.value).where(state_table.c.name == name)).scalar() or 0)


def set_state(conn: Connection, name: str, value: int) -> None:
    """Keep a number beside the log."""
    if not conn.execute(update(state_table).where(state_table.c.name == name).values(value=value)).rowcount:
        conn.execute(insert(state_table).values(name=name, value=value))


def newest_of(conn: Connection, action: str) -> Entry | None:
    """The newest entry of an action."""
    row = conn.execute(_READ.where(event_table.c.action == action).order_by(event_table.c.seq.desc()).limit(1)).first()
    return None if row is None else _entry(row)


def _entry(row: Sequence[Any]) -> Entry:
    seq, *values, found = row
    named = dict(zip(_COLUMNS, values, strict=True))
    named["detail"] = parsed_detail(named["detail"])
    return Entry(seq, Event(**named), found)


def parsed_detail(detail: str) -> Mapping[str, Any]:
    """The detail of an entry; what somebody has made unreadable is shown as it is."""
    if not detail:
        return {}
    try:
        parsed = json.loads(detail)
    except ValueError:
        return {"unreadable": detail}
    return parsed if isinstance(parsed, dict) else {"unreadable": detail}
