"""Windows of the `limits` library in a small SQLite file, so that all processes of a host count together without another service.

The file is a cache: nothing is synced, and it begins anew with each start of the machine. A hit is one statement.
"""

from __future__ import annotations

import fcntl
import math
import os
import sqlite3
import threading
import time
from pathlib import Path

from limits.storage import Storage
from limits.storage.base import SlidingWindowCounterSupport

_SCHEMA = """CREATE TABLE IF NOT EXISTS hits (key TEXT PRIMARY KEY, span INTEGER, expiry INTEGER, count INTEGER, previous INTEGER)
WITHOUT ROWID"""
# The hits of the window before count by the part of it that is still within one length of now. Nothing is written for a refused hit.
_HIT = """INSERT INTO hits (key, span, expiry, count, previous) VALUES (:key, :span, :expiry, :amount, 0)
ON CONFLICT (key) DO UPDATE SET
  previous = CASE span WHEN :span THEN previous WHEN :span - 1 THEN count ELSE 0 END,
  count = CASE span WHEN :span THEN count ELSE 0 END + :amount,
  span = :span
WHERE CASE span WHEN :span THEN previous WHEN :span - 1 THEN count ELSE 0 END * :weight
  + CASE span WHEN :span THEN count ELSE 0 END + :amount <= :most"""
_COUNTED_HIT = _HIT + " RETURNING count"  # dearer by a fifth
_BUSY_S = 1.0
_SWEPT_EVERY = 5000


class WindowFile(Storage, SlidingWindowCounterSupport):
    """The storage of sliding windows, and of fixed ones; safe for threads and for processes, opened when first used."""

    STORAGE_SCHEME = ["sqlite-windows"]  # noqa: RUF012 - the library wants a list

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        # Processes queue here: SQLite's own busy handler sleeps, 0.3 s were seen.
        self._turn = -1
        self._hits = 0

    @property
    def base_exceptions(self) -> type[Exception]:
        """What may go wrong below."""
        return sqlite3.Error

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o640))
            self._turn = os.open(self._path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o640)
            connection = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute(_SCHEMA)
            self._connection = connection
        return self._connection

    def _hit(self, statement: str, key: str, expiry: int, amount: int, most: float) -> tuple[bool, list[tuple[int]]]:
        """Whether hits were counted, or are too many together with those of the window before; and what the statement returns."""
        now = time.time()
        span, gone = divmod(now, expiry)
        values = {"key": key, "span": int(span), "expiry": expiry, "amount": amount, "most": most, "weight": 1 - gone / expiry}
        with self._lock:
            connection = self._open()
            fcntl.flock(self._turn, fcntl.LOCK_EX)
            try:
                cursor = connection.execute(statement, values)
                rows: list[tuple[int]] = cursor.fetchall()
                self._hits += 1
                if self._hits % _SWEPT_EVERY == 1:
                    connection.execute("DELETE FROM hits WHERE (span + 2) * expiry < ?", (now,))
            finally:
                fcntl.flock(self._turn, fcntl.LOCK_UN)
        return cursor.rowcount == 1, rows

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Counts a hit unless it is beyond the limit."""
        return amount <= limit and self._hit(_HIT, key, expiry, amount, limit)[0]

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Hits and remaining life of the window before and of this one."""
        span, gone = divmod(time.time(), expiry)
        with self._lock:
            row = self._open().execute("SELECT span, count, previous FROM hits WHERE key = ?", (key,)).fetchone()
        found, count, previous = row or (0, 0, 0)
        left = expiry - gone
        if found == span:
            return previous, left, count, left + expiry
        return (count if found == span - 1 else 0), left, 0, left + expiry

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Forgets a key."""
        self.clear(key)

    def clear(self, key: str) -> None:
        """Forgets a key."""
        with self._lock:
            self._open().execute("DELETE FROM hits WHERE key = ?", (key,))

    def reset(self) -> int | None:
        """Forgets everything."""
        with self._lock:
            return self._open().execute("DELETE FROM hits").rowcount

    def check(self) -> bool:
        """Whether the file can be used."""
        with self._lock:
            return bool(self._open().execute("SELECT 1").fetchone() == (1,))

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Counts a hit in any case; the hits of this window."""
        ((count,),) = self._hit(_COUNTED_HIT, key, expiry, amount, math.inf)[1]
        return count

    def get(self, key: str) -> int:
        """Hits of this window."""
        with self._lock:
            row = self._open().execute("SELECT count FROM hits WHERE key = ? AND (span + 1) * expiry > ?", (key, time.time())).fetchone()
        return row[0] if row else 0

    def get_expiry(self, key: str) -> float:
        """When the window of the last hit ends; now when there is none."""
        with self._lock:
            row = self._open().execute("SELECT (span + 1) * expiry FROM hits WHERE key = ?", (key,)).fetchone()
        return float(row[0]) if row else time.time()

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                os.close(self._turn)
                self._connection = None
