"""How web processes tell each other what they have to do."""

from __future__ import annotations

import errno
import os
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from pacslite.web import balance, gunicorn_worker
from pacslite.web.balance import Board


def test_whoever_has_less_to_do_is_known() -> None:
    board = Board()
    board.tell(1, 3)
    assert not board.has_idler(1, 3), "nobody else is there"
    board.tell(2, 2)
    assert board.has_idler(1, 3)
    assert not board.has_idler(2, 2)
    board.tell(2, 3)
    assert not board.has_idler(1, 3), "as much is not less"


def test_who_has_ended_or_is_silent_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board()
    board.tell(2, 0)
    board.leave(2)
    assert not board.has_idler(1, 3)
    board.tell(2, 0)
    assert board.has_idler(1, 3)
    monkeypatch.setattr(balance, "_SILENCE_S", 0.0)
    assert not board.has_idler(1, 3)


def test_any_number_of_restarts_has_a_place() -> None:
    board = Board()
    board.tell(100_000, 1)
    board.tell(100_001, 0)
    assert board.has_idler(100_000, 1)


def test_processes_made_later_share_it() -> None:
    board = Board()
    child = os.fork()
    if not child:
        board.tell(2, 0)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert board.has_idler(1, 1)


class Poller:
    """What is watched; `select` finds nothing."""

    def __init__(self) -> None:
        self.watched: set[Any] = set()
        self.timeouts: list[float] = []

    def register(self, what: Any, _events: int, _callback: object) -> None:
        self.watched.add(what)

    def unregister(self, what: Any) -> None:
        self.watched.remove(what)

    def select(self, timeout: float) -> list[Any]:
        self.timeouts.append(timeout)
        return []


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A worker of place 1 that works for one connection and has a listener, without the rest of gunicorn."""
    made: Any = object.__new__(gunicorn_worker.Worker)
    listener = socket.create_server(("127.0.0.1", 0))
    made.__dict__ |= {"age": 1, "alive": True, "nr_conns": 1, "keepalived_conns": [], "pending_conns": [], "_accepting": False}
    made.__dict__ |= {"board": Board(), "sockets": [listener], "poller": Poller(), "cfg": SimpleNamespace(), "taken": []}
    monkeypatch.setattr(gunicorn_worker.ThreadWorker, "accept", lambda worker, listener: worker.taken.append(listener))
    made.set_accept_enabled(True)
    yield made
    listener.close()


def test_a_connection_is_left_to_an_idler_and_taken_after_a_moment(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = worker.sockets[0]
    worker.board.tell(2, 0)
    worker.accept(listener)
    assert (worker.taken, worker.poller.watched) == ([], set())
    worker.set_accept_enabled(True)  # as gunicorn does each time round
    assert worker.poller.watched == set()
    worker.wait_for_and_dispatch_events(1.0)
    assert worker.poller.timeouts[-1] <= balance.STEP_BACK_S
    now = gunicorn_worker.time.monotonic()
    monkeypatch.setattr(gunicorn_worker.time, "monotonic", lambda: now + 1)
    worker.wait_for_and_dispatch_events(1.0)
    assert worker.poller.watched == {listener}
    worker.board.tell(2, 0)
    worker.accept(listener)
    assert worker.taken == [listener], "whoever did not come for it may be stuck"


def test_a_connection_is_taken_when_nobody_has_less_to_do(worker: Any) -> None:
    worker.board.tell(2, 1)
    worker.accept(worker.sockets[0])
    assert worker.taken == worker.sockets


def test_without_descriptors_a_worker_goes_on_and_tries_again(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(_worker: object, _listener: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(gunicorn_worker.ThreadWorker, "accept", exhausted)
        worker.accept(worker.sockets[0])
    assert worker.poller.watched == set(), "the connection waits, and does not wake the worker all the time"
    now = gunicorn_worker.time.monotonic()
    monkeypatch.setattr(gunicorn_worker.time, "monotonic", lambda: now + 1)
    worker.wait_for_and_dispatch_events(1.0)
    worker.accept(worker.sockets[0])
    assert worker.taken == worker.sockets


def test_a_worker_that_ends_takes_nothing_more(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    worker.board.tell(2, 0)
    worker.accept(worker.sockets[0])
    worker.alive = False
    now = gunicorn_worker.time.monotonic()
    monkeypatch.setattr(gunicorn_worker.time, "monotonic", lambda: now + 1)
    worker.wait_for_and_dispatch_events(1.0)
    assert worker.poller.watched == set()
