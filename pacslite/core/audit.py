"""What was done and refused, on record before it is answered (docs/decisions, "The audit log").

A change is noted by its own transaction (`note`, or the feed of changes). Everything else goes through the `Recorder` of the
process: the first of its kind is committed before `record` returns, further ones of the same kind within `audit_repeat_s`
are counted, and the count is written when that time is over. Nothing is dropped: what finds no room waits.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pacslite.catalog import audit as rows
from pacslite.catalog.audit import Entry, Event, Filter, note
from pacslite.catalog.statements import now_text
from pacslite.errors import PacsliteError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pacslite.catalog.database import Catalog

__all__ = [
    "FAILED",
    "NOBODY",
    "REFUSED",
    "SUCCESS",
    "Entry",
    "Event",
    "Filter",
    "Recorder",
    "change_of",
    "close_all",
    "note",
    "outcome_of_status",
    "page",
    "record",
]

SUCCESS, REFUSED, FAILED = "success", "refused", "failed"
NOBODY = Event("", protocol="server")
"""Whence a change comes that no caller has asked for."""
_log = logging.getLogger(__name__)
_WRITE_S = 0.5
_MOST_WINDOWS = 10_000
_MOST_WAITING = 2_000
_REFUSALS = frozenset({401, 403, 421, 429})


def outcome_of_status(status: int) -> str:
    """The outcome of an HTTP status: who may not is refused, what went wrong has failed."""
    if status < 400:
        return SUCCESS
    return REFUSED if status in _REFUSALS else FAILED


def change_of(origin: Event, action: str, object_id: object = "", **detail: Any) -> Event:
    """The event of a change, for `note` in its transaction; `origin` tells at whose wish, and from where."""
    return replace(origin, action=action, object_type=action.partition(".")[0], object_id=str(object_id), detail=detail)


def record(catalog: Catalog, event: Event) -> None:
    """Record one event for certain, each by itself: logins, and what must not be counted together."""
    catalog.write(lambda conn: note(conn, event))


def page(catalog: Catalog, wanted: Filter, before: int | None, limit: int) -> tuple[list[Entry], int]:
    """A page of the log, newest first, and how many entries there are in all."""
    with catalog.read() as conn:
        return rows.page(conn, wanted, before, limit), rows.count(conn, wanted)


@dataclass(slots=True)
class _Window:
    """Repetitions of an event that is on record: how many came since."""

    event: Event
    until: float
    repeats: int = 0


class Recorder:
    """Records for one process. Safe for threads; to be made after a fork, not before."""

    def __init__(self, catalog: Catalog, repeat_s: float = 300.0, write_s: float = _WRITE_S) -> None:
        self._catalog, self._repeat_s, self._write_s = catalog, repeat_s, write_s
        self._windows: OrderedDict[Kind, _Window] = OrderedDict()
        self._waiting: list[Event] = []
        self._lock, self._flushing = threading.Lock(), threading.Lock()
        self._writer: threading.Thread | None = None
        self._wake = threading.Event()
        self._closed = False
        _recorders.add(self)

    def record(self, event: Event, *, later: bool = False) -> None:
        """Record an event before it is answered; with `later` within a second, for what has other evidence.

        Raises what the catalog raises: who asks for something that cannot be recorded does not get it.
        """
        key = kind_of(event)
        if self.is_repeated(key):
            return
        event = replace(event, at=event.at or now_text())
        if later:
            later = self._put_off(event)
        if not later:
            self._catalog.write(lambda conn: note(conn, event))
        self._open_window(key, event)

    def record_if_room(self, event: Event) -> bool:
        """Record an event within a second, without any wait for the catalog; whether there was room for it."""
        key = kind_of(event)
        if self.is_repeated(key):
            return True
        event = replace(event, at=event.at or now_text())
        is_taken = self._put_off(event)
        if is_taken:
            self._open_window(key, event)
        return is_taken

    def is_repeated(self, kind: Kind) -> bool:
        """Whether an event of this kind is on record and this one is counted with it: then there is nothing more to do."""
        with self._lock:
            window = self._windows.get(kind)
            if window is None or time.monotonic() >= window.until:
                return False
            window.repeats += 1
            return True

    def record_all(self, events: Iterable[Event]) -> None:
        """Record several before they are answered, in one transaction."""
        new: dict[Kind, Event] = {}
        now = time.monotonic()
        with self._lock:
            for event in events:
                key = kind_of(event)
                window = self._windows.get(key)
                if window is not None and now < window.until:
                    window.repeats += 1
                else:
                    new[key] = replace(event, at=event.at or now_text())
        if not new:
            return
        self._catalog.write(lambda conn: rows.note_all(conn, new.values()))
        for key, event in new.items():
            self._open_window(key, event)

    def once(self, event: Event) -> None:
        """Record an event by itself within a second: no other is counted with it."""
        event = replace(event, at=event.at or now_text())
        if not self._put_off(event):
            self._catalog.write(lambda conn: note(conn, event))

    def _put_off(self, event: Event) -> bool:
        """Leave it to the writer; False when there is no room, and the caller has to write."""
        with self._lock:
            if self._closed or len(self._waiting) >= _MOST_WAITING:
                return False
            self._waiting.append(event)
            self._start_writer()
        return True

    def _open_window(self, key: Kind, event: Event) -> None:
        if self._repeat_s <= 0:
            return
        with self._lock:
            old = self._windows.pop(key, None)
            self._windows[key] = _Window(event, time.monotonic() + self._repeat_s)
            ended = [old] if old is not None else []
            if len(self._windows) > _MOST_WINDOWS:
                ended.append(self._windows.popitem(last=False)[1])
            self._waiting += [_counted(window) for window in ended if window.repeats]
            self._start_writer()

    def _start_writer(self) -> None:
        if self._writer is None and not self._closed:
            writer = threading.Thread(target=self._write_now_and_then, name="audit-writer", daemon=True)
            with suppress(RuntimeError):  # the system has no thread left: the next event tries again
                writer.start()
                self._writer = writer

    def _write_now_and_then(self) -> None:
        while not self._wake.wait(self._write_s):
            try:
                self.flush()
            except Exception as error:  # noqa: BLE001 - whatever it is: nobody else would write them
                _log.error("audit events wait to be written", extra={"reason": str(error), "waiting": len(self._waiting)})

    def flush(self, *, everything: bool = False) -> None:
        """Write what waits, and the counts of windows that are over; `everything`: of all.

        Returns after whatever another thread was writing is written too.
        """
        with self._flushing:
            self._flush(everything)

    def _flush(self, everything: bool) -> None:
        now = time.monotonic()
        with self._lock:
            # All windows are of one length, so the first to open is the first to end.
            while self._windows and (everything or next(iter(self._windows.values())).until <= now):
                window = self._windows.popitem(last=False)[1]
                if window.repeats:
                    self._waiting.append(_counted(window))
            waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        try:
            self._catalog.write(lambda conn: rows.note_all(conn, waiting))
        except Exception:
            with self._lock:
                self._waiting = waiting + self._waiting
            raise

    def close(self) -> None:
        """Write everything; nothing is put off any more."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._wake.set()
        if self._writer is not None:
            self._writer.join(5)
        try:
            self.flush(everything=True)
        except PacsliteError as error:
            _log.error("counts of the audit log were lost", extra={"reason": str(error)})


Kind = tuple[str, str, str, str, str, str, str, str]


def kind_of(event: Event) -> Kind:
    """What makes two events the same kind: what, with which outcome, who, from where, about which study, by which AE, with which detail."""
    about, detail = event.study_instance_uid or event.object_id, repr(event.detail) if event.detail else ""
    return event.action, event.outcome, event.actor, event.address, about, event.object_type, event.calling_aet, detail


def _counted(window: _Window) -> Event:
    """The event that tells how often another was repeated."""
    detail = {**window.event.detail, "repeats": window.repeats, "since": window.event.at}
    return replace(window.event, detail=detail, at=now_text())


_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()


@atexit.register
def close_all() -> None:
    """Write everything that recorders of this process hold; a process that ends in order calls it."""
    for recorder in list(_recorders):
        recorder.close()
