"""Bounds for waits for PostgreSQL: a server that is frozen or cannot be reached answers nothing, and its kernel may go on acknowledging.

No timeout of TCP ends such a wait. Here a statement that is not answered for a while has the server asked for a new connection; when
that is not answered either, all statements under way end, and new ones fail at once until the server answers again. A server that is
only slow answers, and its statements go on, up to a bound.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import psycopg
from psycopg.errors import ConnectionTimeout

from pacslite.errors import Unavailable

_PAUSE_S = 2.0
_QUIET_S, _QUESTION_S = 5.0, 10
_UNANSWERED = "the database does not answer"


class Silence:
    """What the connections of one process know of whether the server answers. A statement may take `bound_s`."""

    def __init__(self, bound_s: float, on_silence: Callable[[], None]) -> None:
        self.bound_s = bound_s
        self.quiet_s = min(_QUIET_S, bound_s / 3)
        self.question_s = max(2, min(_QUESTION_S, int(bound_s / 3)))  # libpq knows no shorter one than 2 s
        self.met_at = 0.0
        self._until: float | None = None  # None: it answers
        self._heard_at = 0.0
        self._lock, self._asking = threading.Lock(), threading.Lock()
        self._on_silence = on_silence

    def check(self) -> None:
        """Raises Unavailable while the server is silent; now and then one caller is let through to try."""
        if self._until is None:
            return
        with self._lock:
            until, now = self._until, time.monotonic()
            if until is None or now >= until:
                self._until = None if until is None else now + _PAUSE_S
                return
        raise Unavailable(_UNANSWERED)

    def met(self) -> None:
        """The server has not answered."""
        with self._lock:
            self.met_at = time.monotonic()
            self._until = self.met_at + _PAUSE_S
        self._on_silence()

    def heard(self) -> None:
        """The server has answered."""
        self._heard_at = time.monotonic()
        if self._until is not None:
            with self._lock:
                self._until = None

    def connect(self, *arguments: Any, **parameters: Any) -> psycopg.Connection[Any]:
        """A connection whose waits are bounded; raises psycopg.Error."""
        try:
            made = _Connection.connect(*arguments, **parameters)
        except ConnectionTimeout:
            self.met()
            raise
        self.heard()
        made.silence, made.bound_s = self, self.bound_s
        made.question = lambda: self._ask(arguments, parameters)
        return made

    def _ask(self, arguments: tuple[Any, ...], parameters: dict[str, Any]) -> None:
        """See whether the server answers; only one thread does, and not again at once."""
        if time.monotonic() - self._heard_at < self.quiet_s or not self._asking.acquire(blocking=False):
            return
        try:
            psycopg.connect(*arguments, **(parameters | {"connect_timeout": self.question_s})).close()
        except ConnectionTimeout:
            self.met()
        except psycopg.Error:  # no connection left, or shutting down: an answer
            self.heard()
        else:
            self.heard()
        finally:
            self._asking.release()


class _Connection(psycopg.Connection[Any]):
    """A connection whose waits end; it is closed then, since what comes later would answer something else."""

    silence: Silence | None = None
    bound_s: float | None = None
    question: Callable[[], None]

    def wait(self, gen: Generator[Any, Any, Any], *arguments: Any, **more: Any) -> Any:
        """What psycopg waits with; every tenth of a second without an answer comes to `_check`."""
        return super().wait(self._watched(gen), *arguments, **more)

    def _watched(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        began = 0.0
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready:
                    began = began or time.monotonic()
                    self._check(began)
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value

    def _check(self, began: float) -> None:
        silence = self.silence
        if silence is None:
            return
        waited = time.monotonic() - began
        if waited > silence.quiet_s:
            self.question()
        if silence.met_at > began or (self.bound_s is not None and waited > self.bound_s):
            self.pgconn.finish()
            raise psycopg.OperationalError(_UNANSWERED)
