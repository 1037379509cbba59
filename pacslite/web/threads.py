"""The threads of a web process. One that waits for its client does not count, so that clients who stop end nothing.

A request holds a thread until its body is there and its answer is taken. With a fixed number of threads, that many uploads which
broke off without a word, or downloads over slow lines, end the service. Here a thread that waits says so (`waiting`, `sending`),
and another takes its place. How many may wait is bounded; beyond that an upload is refused with `Busy`, and everything else is served.

One that has answered stays with its connection for a moment (`linger`), since most clients ask again at once: handing a connection to
the main thread and back costs as much as a third of a small answer. Whoever comes meanwhile calls it away.
"""

from __future__ import annotations

import os
import select
import socket
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


class _Places:
    """Waits of one kind: how many there are, and for whom."""

    def __init__(self, patience: Patience) -> None:
        self.taken = 0
        self._patience, self._of = patience, Counter[str]()

    def take(self, address: str) -> bool:
        """Whether there was one left."""
        if self.taken >= self._patience.most or self._of[address] >= self._patience.most_of_one:
            return False
        self.taken += 1
        self._of[address] += 1
        return True

    def give_back(self, address: str) -> None:
        """One more is left."""
        self.taken -= 1
        self._of[address] -= 1
        if not self._of[address]:
            del self._of[address]


class Threads(Executor):
    """`size` threads that work, and more while some of them wait."""

    def __init__(self, size: int, patience: Patience) -> None:
        self.patience = patience
        self._size = size
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._bodies, self._answers = _Places(patience), _Places(patience)
        # A job is open until the thread that has it is no longer idle: the queue alone would count such a thread as free.
        self._count = self._idle = self._open_jobs = self._lingering = self._calls = 0
        self._call = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._ended = False

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self._call)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Runs the function in one of the threads."""
        future: Future[Any] = Future()
        with self._lock:
            if self._ended:
                raise RuntimeError("the threads have ended")
            self._open_jobs += 1
            try:
                has_grown = self._grow()
            except RuntimeError:
                self._open_jobs -= 1
                raise
            if self._lingering and not has_grown and self._idle < self._open_jobs:
                os.eventfd_write(self._call, 1)
                self._calls += 1
            self._queue.put((future, fn, args, kwargs))
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
        with self._aside(self._bodies, address) as is_aside:
            if not is_aside:
                raise Busy("Too many clients are waited for at once. Try again later.")
            yield

    @contextmanager
    def sending(self, address: str) -> Iterator[None]:
        """While the calling thread, one of these, waits for its client to take more; when too many do, it counts as working."""
        with self._aside(self._answers, address):
            yield

    @contextmanager
    def _aside(self, places: _Places, address: str) -> Iterator[bool]:
        """Whether another thread may take the place of this one meanwhile."""
        with self._lock:
            is_aside = places.take(address)
            if is_aside:
                self._grow()
        try:
            yield is_aside
        finally:
            if is_aside:
                with self._lock:
                    places.give_back(address)

    @property
    def _working(self) -> int:
        return self._count - self._bodies.taken - self._answers.taken

    @property
    def is_full(self) -> bool:
        """Whether another job would wait for one of those that are under way."""
        with self._lock:
            return self._idle + self._lingering <= self._open_jobs and self._working >= self._size

    def linger(self, sock: socket.socket, most_ms: int) -> bool:
        """Whether something has come on a connection; the calling thread waits for it until somebody else needs a thread."""
        with self._lock:
            if self._idle < self._open_jobs or self._ended:
                return False
            while self._take_call():  # for work that others have done meanwhile
                pass
            self._lingering += 1
        try:
            return self._has_come(sock, time.monotonic() + most_ms / 1000)
        finally:
            with self._lock:
                self._lingering -= 1

    def _has_come(self, sock: socket.socket, until: float) -> bool:
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        poll.register(self._call, select.POLLIN)
        while True:
            ready = poll.poll(max(0, (until - time.monotonic()) * 1000))
            if len(ready) == 1 and ready[0][0] != self._call:
                return True
            if not ready:
                return False
            with self._lock:
                if self._take_call():
                    return False

    def _take_call(self) -> bool:
        if not self._calls:
            return False
        os.eventfd_read(self._call)
        self._calls -= 1
        return True

    def _grow(self) -> bool:
        """Starts a thread if one is needed and may be; whether it did."""
        if self._idle >= self._open_jobs or self._working >= self._size or self._ended:
            return False
        try:
            _Thread(self).start()
        except RuntimeError:  # the system has no thread left: those that are there come to it
            if not self._count:
                raise
            return False
        self._count += 1
        return True

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._working > self._size:
                    self._count -= 1
                    return
                self._idle += 1
            job = self._queue.get()
            with self._lock:
                self._idle -= 1
                if job is not None:
                    self._open_jobs -= 1
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


def sending(address: str) -> AbstractContextManager[None]:
    """While the calling thread waits for its client to take more of an answer, another works in its place."""
    thread = threading.current_thread()
    return thread.pool.sending(address) if isinstance(thread, _Thread) else nullcontext()


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
