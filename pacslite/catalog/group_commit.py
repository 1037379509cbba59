"""Writes of many threads in few transactions.

A thread that comes when nobody commits becomes the leader: it takes all that has queued up, runs it in one transaction,
commits once, and wakes the others; the next in the queue leads then. One sync of the disk serves them all, and on SQLite
no thread ever waits inside the database. PostgreSQL has several leaders at once, whose batches meet only at advisory locks.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any

from pacslite import metrics
from pacslite.errors import Busy, OutcomeUnknown

MAX_BATCH = 64


class Item:
    """One piece of work and what became of it."""

    __slots__ = ("deadline", "error", "finished", "keys", "leads", "ready", "result", "woken", "work")

    def __init__(self, work: Callable[[Any], Any], keys: tuple[str, ...], ready: Callable[[], None] | None, deadline: float) -> None:
        self.work = work
        self.ready = ready
        self.keys = keys
        self.deadline = deadline
        self.woken: threading.Event | None = None  # of those who have to wait
        self.leads = False
        self.finished = False
        self.result: Any = None
        self.error: BaseException | None = None

    def __enter__(self) -> None:
        self.error = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        """Keeps what the work raises: it is for the thread that asked, and no concern of the rest of the batch."""
        self.error = error
        return isinstance(error, Exception)

    def fail(self, error: BaseException) -> None:
        """Nothing of the work is kept, or nobody knows."""
        self.finished, self.error = True, error

    def outcome(self) -> Any:
        """The result, or raises what the work raised."""
        if self.error is not None:
            raise self.error
        return self.result


Take = Callable[[], list[Item]]


class GroupCommit:
    """The queue of writes of one process; `commit` runs a batch in one transaction and finishes every item of it.

    Where a commit alone is not durable, `sync` makes it so; nobody learns of a result before.
    """

    def __init__(self, commit: Callable[[Take, float], None], leaders: int, sync: Callable[[], None] | None = None) -> None:
        self._commit = commit
        self._sync = sync
        self._idle_leaders = leaders
        self._queue: deque[Item] = deque()
        self._mutex = threading.Lock()
        self._told_queued = 0

    def run(self, work: Callable[[Any], Any], keys: tuple[str, ...], timeout_s: float, ready: Callable[[], None] | None = None) -> Any:
        """The result of the work once it is committed; raises Busy when its turn does not come in time."""
        item = Item(work, keys, ready, time.monotonic() + timeout_s)
        with self._mutex:
            self._queue.append(item)
            if self._idle_leaders:
                self._idle_leaders -= 1
                item.leads = True
            else:
                item.woken = threading.Event()
        if item.woken is not None:
            self._wait(item, item.woken, timeout_s)
        if item.leads:
            self._lead(item)
        return item.outcome()

    def _wait(self, item: Item, woken: threading.Event, timeout_s: float) -> None:
        if woken.wait(timeout_s):
            return
        with self._mutex:
            if item in self._queue and not item.leads:
                self._queue.remove(item)
                item.fail(Busy("the catalog is busy"))
                return
        # Its transaction is under way (or it was asked to lead just now): what comes of it has to be known.
        woken.wait()

    def _lead(self, item: Item) -> None:
        batch: list[Item] = []

        def take() -> list[Item]:
            with self._mutex:
                self._queue.remove(item)
                # Those asked to lead come with batches of their own.
                batch.extend(one for one in (item, *self._queue) if one is item or not one.leads)
                del batch[MAX_BATCH:]
                for one in batch[1:]:
                    self._queue.remove(one)
                if len(self._queue) != self._told_queued:
                    metrics.WRITES_QUEUED.add(amount=len(self._queue) - self._told_queued)
                    self._told_queued = len(self._queue)
            return batch

        try:
            self._commit(take, item.deadline)
        finally:
            with self._mutex:
                if not batch:
                    self._queue.remove(item)
            self._hand_over()  # the next batch is written while this one is synced
            try:
                self._make_durable(batch)
            finally:
                for one in batch:
                    if not one.finished:
                        one.fail(OutcomeUnknown("the commit of the catalog was interrupted; nobody knows its outcome"))
                    if one.woken is not None and one is not item:
                        one.woken.set()

    def _make_durable(self, batch: list[Item]) -> None:
        kept = [one for one in batch if one.finished and one.error is None]
        if self._sync is None or not kept:
            return
        for one in kept:
            one.finished = False
        try:
            self._sync()
        except OSError as error:
            for one in kept:
                one.fail(OutcomeUnknown(f"the catalog could not be synced ({error.strerror}); nobody knows the outcome"))
        else:
            for one in kept:
                one.finished = True

    def _hand_over(self) -> None:
        with self._mutex:
            for following in self._queue:
                if following.woken is not None and not following.leads:
                    following.leads = True
                    following.woken.set()
                    return
            self._idle_leaders += 1
