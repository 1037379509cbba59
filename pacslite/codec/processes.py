"""Codec processes: where frames are decoded and encoded, so that hostile data can crash no process that serves.

A bounded number for each serving process, started when first needed by a program of their own (`pacslite.codec.process`; a fork
would copy the locks of other threads), ended when idle, killed when stuck. A task is named `module:function`; its arguments go
there pickled, its result comes back as builtin values.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from pacslite import errors, metrics
from pacslite.codec.process import FAILED, LEAVING, plain
from pacslite.errors import Busy, PacsliteError, Unavailable, UndecodablePixels

Task = tuple[Any, ...]
"""`module:function` and its arguments."""
_GRACE_S = 5.0
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR")
_log = logging.getLogger(__name__)


class _Left(Exception):
    """The process ended between two tasks."""


class _Process:
    """One codec process; one thread uses it at a time."""

    def __init__(self, timeout_s: float) -> None:
        ours, theirs = socket.socketpair()
        self._timeout_s = timeout_s
        self._is_lost = False
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "pacslite.codec.process", str(theirs.fileno()), str(timeout_s)]
        try:
            with theirs:
                self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, pass_fds=[theirs.fileno()])
        except OSError as error:
            ours.close()
            raise Unavailable(f"No codec process can be started: {error.strerror}") from error
        self._connection = Connection(ours.detach())

    def is_there(self) -> bool:
        """Whether it waits for a task: one that has left, or died, has something to read."""
        return not self._is_lost and not self._connection.closed and not self._connection.poll(0)

    def send(self, task: Task) -> None:
        """Give it a task; a process that has ended shows when the answer is read."""
        with suppress(OSError):
            self._connection.send_bytes(pickle.dumps((task[0], task[1:]), protocol=5))

    def receive(self) -> Any:
        """The result; raises UndecodablePixels and other leaves, and _Left."""
        try:
            if not self._connection.poll(self._timeout_s + _GRACE_S):
                self._is_lost = True  # its alarm should have ended it; whoever gives it back does
                raise UndecodablePixels(f"The pixels were not done within {self._timeout_s:g} s.")
            kind, value = plain(self._connection.recv_bytes())
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise self._ended() from error
        if kind == LEAVING:
            raise _Left
        if kind == FAILED:
            raise _error(*value)
        return value

    def _ended(self) -> PacsliteError:
        code = self._wait(_GRACE_S)
        if code == -14:  # SIGALRM
            return UndecodablePixels(f"The pixels were not done within {self._timeout_s:g} s.")
        _log.warning("a codec process died at its task", extra={"action": "codec", "outcome": "died", "exit_code": code})
        return UndecodablePixels("The pixels cannot be decoded: the codec died of them.")

    def _wait(self, seconds: float) -> int | None:
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """End it, whatever it does."""
        self._connection.close()
        self._process.kill()
        self._process.wait()


def _error(name: str, text: str) -> PacsliteError:
    kind = getattr(errors, name, None) if name else None
    if isinstance(kind, type) and issubclass(kind, PacsliteError):
        return kind(text)
    _log.error("a codec task failed: %s", text, extra={"action": "codec", "outcome": "failed"})
    return UndecodablePixels("The pixels cannot be decoded.")


class CodecProcesses:
    """At most `limit` codec processes of this process; a task gets `timeout_s` and waits no longer than that for its turn."""

    def __init__(self, limit: int, timeout_s: float) -> None:
        self.limit = limit
        self._timeout_s = timeout_s
        self._idle: list[_Process] = []
        self._started = 0
        self._closed = False
        self._changed = threading.Condition()

    def run(self, task: str, *arguments: Any) -> Any:
        """The result of one task; raises UndecodablePixels, Busy and what the task raised of the errors tree."""
        return next(iter(self.run_each([(task, *arguments)])))

    def run_each(self, tasks: Iterable[Task]) -> Iterator[Any]:
        """The results of the tasks in order. As many are under way as there are processes free at the moment."""
        waiting: deque[tuple[_Process, Task]] = deque()
        try:
            for task in tasks:
                while (process := self._take(wait=not waiting)) is None:
                    yield self._finish(waiting)
                waiting.append((process, task))
                process.send(task)
            while waiting:
                yield self._finish(waiting)
        finally:
            for process, _ in waiting:
                self._drop(process)

    def _finish(self, waiting: deque[tuple[_Process, Task]]) -> Any:
        """The result of the oldest task under way."""
        process, task = waiting[0]
        began, name = time.perf_counter(), task[0].rpartition(":")[2]
        try:
            while True:
                try:
                    result = process.receive()
                    break
                except _Left:
                    process = self._replaced(process)
                    waiting[0] = process, task
                    process.send(task)
        except PacsliteError:
            metrics.CODEC_SECONDS.observe(time.perf_counter() - began, name, "failed")
            waiting.popleft()
            self._give_back(process)
            raise
        metrics.CODEC_SECONDS.observe(time.perf_counter() - began, name, "success")
        waiting.popleft()
        self._give_back(process)
        return result

    def _replaced(self, process: _Process) -> _Process:
        process.close()
        return _Process(self._timeout_s)

    def _take(self, wait: bool) -> _Process | None:
        """A process that is free; None when there is none and `wait` is not set. Raises Busy, Unavailable."""
        with self._changed:
            while True:
                while self._idle:
                    process = self._idle.pop()
                    if process.is_there():
                        return process
                    self._started -= 1
                    process.close()
                if self._closed:
                    raise Unavailable("This process is about to end.")
                if self._started < self.limit:
                    self._started += 1
                    break
                if not wait:
                    return None
                if not self._changed.wait(self._timeout_s):
                    raise Busy("All codec processes are busy.")
        try:
            return _Process(self._timeout_s)
        except BaseException:
            with self._changed:
                self._started -= 1
                self._changed.notify()
            raise

    def _give_back(self, process: _Process) -> None:
        with self._changed:
            if not self._closed and process.is_there():
                self._idle.append(process)
                self._changed.notify()
                return
        self._drop(process)

    def _drop(self, process: _Process) -> None:
        process.close()
        with self._changed:
            self._started -= 1
            self._changed.notify()

    def close(self) -> None:
        """End those that are idle; the others when their task is over."""
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            self._started -= len(idle)
            self._changed.notify_all()
        for process in idle:
            process.close()
