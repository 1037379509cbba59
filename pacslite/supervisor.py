"""Runs the processes of the roles: starts them, restarts what crashed, tells their state, stops them all.

One thread, one loop: it waits for signals, for what the processes tell, and for the time of the next restart. It keeps
the sockets, so that a restarted process has the port of the one before. It loads the code of the roles and forks them:
they share its memory, and a restart takes no time. It makes no thread and no connection itself. See docs/operations.md.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import pickle
import selectors
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TypeVar

from pacslite import __version__, listeners, roles, run_state
from pacslite.errors import PacsliteError, Unavailable
from pacslite.roles import EXIT_OF_NO_USE, Assignment
from pacslite.run_state import BACKOFF, FAILED, READY, STARTING, STOPPED, RoleState, RunState
from pacslite.settings import Settings

_GRACE_S = 20.0
_BACKOFF_S = (0.0, 0.25, 1.0, 2.0, 5.0, 10.0, 30.0)
_STABLE_AFTER_S = 60.0
_EXIT_STOPPED, _EXIT_USELESS = 0, 3

T = TypeVar("T")
_log = logging.getLogger(__name__)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(slots=True)
class _Child:
    """One process of a role over its lives."""

    name: str
    role: str
    listen_fd: int | None = None
    expected_workers: int = 1
    process: roles.Process | None = None
    pipe: IO[bytes] | None = None
    state: str = STARTING
    since: str = field(default_factory=_now)
    started_at: float = 0.0
    starts_at: float | None = 0.0
    restarts: int = 0
    quick_exits: int = 0
    last_exit: str | None = None
    workers: list[int] = field(default_factory=list)

    def become(self, state: str) -> None:
        if state != self.state:
            self.state, self.since = state, _now()

    def shown(self) -> RoleState:
        pid = self.process.pid if self.process else None
        workers = tuple(self.workers) if self.role == "web" else ()
        return RoleState(self.name, self.role, pid, self.state, self.restarts, self.since, self.last_exit, workers)


class Supervisor:
    """Runs `scope`: all, or one role. `on_ready(state)` is called once, when every process serves for the first time."""

    def __init__(self, settings: Settings, scope: str, on_ready: Callable[[RunState], None]) -> None:
        self._roles = roles.of_scope(scope)
        self._settings = settings
        self._on_ready = on_ready
        self._announced = False
        self._told: RunState | None = None
        self._children: list[_Child] = []
        self._sockets: list[socket.socket] = []
        self._selector = selectors.DefaultSelector()
        self._path = run_state.path_of(settings.data, scope)
        self._started_at = _now()
        self._stopping_since: float | None = None
        self._exit_code = _EXIT_STOPPED

    def run(self) -> int:
        """Serves until a signal or until going on is of no use; the exit code of the command."""
        with _only_one(self._path), self._signals():
            try:
                self._open_sockets()
                self._plan()
                self._loop()
            finally:
                self._kill_all()
                self._path.unlink(missing_ok=True)
                for bound in self._sockets:
                    bound.close()
        return self._exit_code

    # --- start ---------------------------------------------------------------------------------------------------

    def _open_sockets(self) -> None:
        settings = self._settings
        if "web" in self._roles:
            web = listeners.listen(settings.http)
            self._sockets.append(web)
            settings = replace(settings, http=listeners.real_address(settings.http, web))
        if "dimse" in self._roles:
            dicom = listeners.bind(settings.dicom, shared=True)
            self._sockets.append(dicom)
            tls_only = settings.dicom_tls == settings.dicom and settings.dicom.port != 0
            settings = replace(settings, dicom=listeners.real_address(settings.dicom, dicom))
            if settings.dicom_tls is not None and not tls_only:
                secure = listeners.bind(settings.dicom_tls, shared=True)
                self._sockets.append(secure)
                settings = replace(settings, dicom_tls=listeners.real_address(settings.dicom_tls, secure))
        self._settings = settings

    def _plan(self) -> None:
        if "web" in self._roles:
            self._children.append(_Child("web", "web", self._sockets[0].fileno(), self._settings.web_processes))
        if "dimse" in self._roles:
            self._children += [_Child(f"dimse-{n}", "dimse") for n in range(1, self._settings.dimse_processes + 1)]
        if "worker" in self._roles:
            self._children.append(_Child("worker", "worker"))

    def _start(self, child: _Child) -> None:
        ours, theirs = os.pipe()
        assignment = Assignment(child.role, self._settings, os.getpid(), theirs, child.listen_fd)
        child.process = roles.start(assignment)
        os.close(theirs)
        child.pipe = os.fdopen(ours, "rb", buffering=0)
        os.set_blocking(ours, False)
        self._selector.register(child.pipe, selectors.EVENT_READ, child)
        child.started_at, child.starts_at, child.workers = time.monotonic(), None, []
        child.become(STARTING)

    # --- loop ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        before = {s: signal.signal(s, lambda *_: None) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)}
        old_fd = signal.set_wakeup_fd(writer.fileno())
        self._selector.register(reader, selectors.EVENT_READ, None)
        try:
            yield
        finally:
            signal.set_wakeup_fd(old_fd)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._selector.close()
            reader.close()
            writer.close()

    def _loop(self) -> None:
        while True:
            now = time.monotonic()
            for child in self._children:
                if child.starts_at is not None and child.starts_at <= now and self._stopping_since is None:
                    self._start(child)
            self._tell()
            if self._stopping_since is not None and not any(c.process for c in self._children):
                return
            for key, _ in self._selector.select(self._wait_s()):
                if key.data is None:
                    self._take_signals(key.fileobj)  # type: ignore[arg-type]
                else:
                    self._listen_to(key.data)
            self._reap()
            if self._stopping_since is not None and time.monotonic() - self._stopping_since > _GRACE_S:
                _log.warning("some processes did not stop within %d s and are killed", _GRACE_S)
                return

    def _wait_s(self) -> float | None:
        if self._stopping_since is not None:
            return max(0.0, self._stopping_since + _GRACE_S - time.monotonic()) + 0.01
        times = [c.starts_at for c in self._children if c.starts_at is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _take_signals(self, reader: socket.socket) -> None:
        for number in reader.recv(256):
            if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                if self._stopping_since is not None:
                    self._kill_all()  # asked twice: at once
                self._stop(f"{signal.Signals(number).name} received")

    def _stop(self, reason: str) -> None:
        if self._stopping_since is not None:
            return
        _log.info("stopping: %s", reason)
        self._stopping_since = time.monotonic()
        for child in self._children:
            child.starts_at = None
            if child.process:
                child.process.terminate()

    def _listen_to(self, child: _Child) -> None:
        said = child.pipe.read(4096) if child.pipe else None
        if not said:
            self._drop_pipe(child)
            return
        for line in said.decode().splitlines():
            word, _, pid = line.partition(" ")
            if word == "ready":
                child.workers.append(int(pid))
            elif int(pid) in child.workers:
                child.workers.remove(int(pid))
                if self._stopping_since is None:
                    child.restarts += 1
                    child.last_exit = f"worker {pid} ended"
                    _log.warning("a %s worker (%s) ended and is replaced", child.name, pid)
        child.become(READY if len(child.workers) >= child.expected_workers else STARTING)

    def _reap(self) -> None:
        for child in self._children:
            if child.process is None or child.process.poll() is None:
                continue
            code = child.process.exit_code or 0
            child.process = None
            child.workers = []
            self._drop_pipe(child)
            if self._stopping_since is not None:
                child.become(STOPPED)
            elif code == EXIT_OF_NO_USE and not self._announced:
                # Later it is tried again: the others serve, and what keeps one from starting, as a database that restarts, may pass.
                child.become(FAILED)
                self._exit_code = _EXIT_USELESS
                self._stop(f"{child.name} cannot run as things are; its last message says why")
            else:
                self._restart_later(child, code)

    def _drop_pipe(self, child: _Child) -> None:
        if child.pipe:
            self._selector.unregister(child.pipe)
            child.pipe.close()
            child.pipe = None

    def _restart_later(self, child: _Child, code: int) -> None:
        now = time.monotonic()
        child.quick_exits = child.quick_exits + 1 if now - child.started_at < _STABLE_AFTER_S else 1
        wait_s = _BACKOFF_S[min(child.quick_exits, len(_BACKOFF_S)) - 1]
        child.starts_at = now + wait_s
        child.restarts += 1
        child.last_exit = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        child.become(BACKOFF)
        _log.error("%s ended (%s) and starts again in %.2f s", child.name, child.last_exit, wait_s)

    # --- tell and end --------------------------------------------------------------------------------------------

    def _state(self) -> RunState:
        http = self._settings.http.text if "web" in self._roles else None
        dicom = self._settings.dicom.text if "dimse" in self._roles else None
        secure = self._settings.dicom_tls
        dicom_tls = secure.text if secure is not None and "dimse" in self._roles else None
        roles = tuple(child.shown() for child in self._children)
        return RunState(os.getpid(), __version__, self._started_at, self._settings.aet, http, dicom, roles, dicom_tls)

    def _tell(self) -> None:
        state = self._state()
        if state != self._told:
            run_state.write(self._path, state)
            self._told = state
        if state.is_ready and not self._announced:
            self._announced = True
            self._on_ready(state)

    def _kill_all(self) -> None:
        for child in self._children:
            if child.process:
                child.process.kill()
                child.process.wait()
                child.process = None


def in_child(work: Callable[[], T]) -> T:
    """What work gives, done in a forked process, or raises what it raises; the memory of what it imports goes with it."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        told = False
        try:
            os.write(writer, pickle.dumps(_outcome_of(work)))
            told = True
        finally:
            if not told:
                traceback.print_exc()
            os._exit(0 if told else 1)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        outcome = pipe.read()
    os.waitpid(pid, 0)
    if not outcome:
        raise Unavailable("the preparation of the catalog broke off")
    result, error = pickle.loads(outcome)
    if error is not None:
        raise error
    made: T = result
    return made


def _outcome_of(work: Callable[[], T]) -> tuple[T | None, PacsliteError | None]:
    try:
        return work(), None
    except PacsliteError as error:
        return None, error


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Holds the lock of this scope on this data; raises Unavailable when another supervisor has it."""
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            running = run_state.read(path)
            who = f"process {running.pid}" if running else "another process"
            raise Unavailable(f"{who} already serves {path.parent.parent}; stop it first, or give another --data") from None
        yield
