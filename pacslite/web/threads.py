"""The threads of a web process. One that waits for its client does not count, so that clients who stop end nothing.

A request holds a thread until its body is there. With a fixed number of threads, that many uploads which broke off without a
word end the service until they are given up. Here a thread that waits says so (`waiting`), and another takes its
place. How many may wait is bounded; beyond that an upload is refused with `Busy`, and everything else is served.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from pacslite.errors import Busy

_Job = tuple[Future[Any], Callable[..., Any], tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long clients are waited for: `most` at once, half of them for one address, each for `silence_s` at a time.

    Once `silence_s` was spent waiting for one body, it must have come by `min_bytes_per_s` on average.
    """

    most: int
    silence_s: int
    min_bytes_per_s: int

    @property
    def most_of_one(self) -> int:
        """Most waits for one address."""
        return max(1, self.most // 2)

    def is_exhausted(self, waited_s: float, received_bytes: int) -> bool:
        """Whether a body comes too slowly."""
        return waited_s > self.silence_s and received_bytes < waited_s * self.min_bytes_per_s


class Threads(Executor):
    """`size` threads that work, and more while some of them wait."""

    def __init__(self, size: int, patience: Patience) -> None:
        self.patience = patience
        self._size = size
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._count = self._idle = self._waiting = 0
        self._waiting_of: Counter[str] = Counter()
        self._ended = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Runs the function in one of the threads."""
        future: Future[Any] = Future()
        with self._lock:
            if self._ended:
                raise RuntimeError("the threads have ended")
            self._queue.put((future, fn, args, kwargs))
            self._grow()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """No more work; threads end when theirs is done. Nobody is waited for: they are daemons, and the process ends."""
        with self._lock:
            self._ended = True
            for _ in range(self._count):
                self._queue.put(None)

    @contextmanager
    def waiting(self, address: str) -> Iterator[None]:
        """While the calling thread, one of these, waits for its client; raises Busy when too many do."""
        with self._lock:
            if self._waiting >= self.patience.most or self._waiting_of[address] >= self.patience.most_of_one:
                raise Busy("Too many clients are waited for at once. Try again later.")
            self._waiting += 1
            self._waiting_of[address] += 1
            self._grow()
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1
                self._waiting_of[address] -= 1
                if not self._waiting_of[address]:
                    del self._waiting_of[address]

    def _grow(self) -> None:
        if self._idle < self._queue.qsize() and self._count - self._waiting < self._size and not self._ended:
            self._count += 1
            _Thread(self).start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._count - self._waiting > self._size:
                    self._count -= 1
                    return
                self._idle += 1
            job = self._queue.get()
            with self._lock:
                self._idle -= 1
            if job is None:
                return
            _do(*job)
            del job


class _Thread(threading.Thread):
    def __init__(self, pool: Threads) -> None:
        super().__init__(target=pool._run, name="web", daemon=True)
        self.pool = pool
        self.gave_up = False


def _do(future: Future[Any], fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = fn(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - as every executor does
        future.set_exception(error)
    else:
        future.set_result(result)


def gave_up() -> bool:
    """Whether this thread has given up a client since that was asked last: the rest of its request is not waited for."""
    thread = threading.current_thread()
    given_up = isinstance(thread, _Thread) and thread.gave_up
    if given_up:
        thread.gave_up = False  # type: ignore[attr-defined]
    return given_up


def aside() -> AbstractContextManager[None]:
    """While the calling thread waits for its turn at what is bounded (hashing passwords), another works in its place.

    However many addresses ask, they count as one: half of the waits are left to uploads. Raises Busy when too many wait.
    """
    thread = threading.current_thread()
    return thread.pool.waiting("") if isinstance(thread, _Thread) else nullcontext()


class Wait:
    """The waits for one body."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._waited_s = 0.0
        self.received_bytes = 0

    def receive(self, receive: Callable[[], bytes]) -> bytes:
        """What `receive` gives, which may wait for the client; raises Busy, and TimeoutError when the body comes too slowly."""
        thread = threading.current_thread()
        if not isinstance(thread, _Thread):
            return receive()
        try:
            if thread.pool.patience.is_exhausted(self._waited_s, self.received_bytes):
                raise TimeoutError("the body comes too slowly")
            since = time.monotonic()
            with thread.pool.waiting(self._address):
                data = receive()
        except (OSError, Busy):
            thread.gave_up = True
            raise
        self._waited_s += time.monotonic() - since
        return data
