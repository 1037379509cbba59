"""Threads that wait do not count, and how many may wait is bounded."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

import pytest

from pacslite.errors import Busy
from pacslite.web.threads import Patience, Threads, Wait, gave_up, sending
from tests.support.processes import until

DEADLINE_S = 20


@pytest.fixture
def pool() -> Threads:
    return Threads(2, Patience(most=4, silence_s=60, min_bytes_per_s=1000))


def result(future: Future[object]) -> object:
    return future.result(DEADLINE_S)


def test_work_is_done_by_at_most_as_many_threads_as_said(pool: Threads) -> None:
    both, gate = threading.Barrier(3), threading.Event()

    def work() -> int:
        both.wait(DEADLINE_S)
        gate.wait(DEADLINE_S)
        return threading.get_ident()

    first = [pool.submit(work) for _ in range(2)]
    later = [pool.submit(threading.get_ident) for _ in range(20)]
    both.wait(DEADLINE_S)
    assert not any(one.done() for one in later)
    gate.set()
    idents = {result(one) for one in first} | {result(one) for one in later}
    assert len(idents) == 2
    pool.shutdown()


def test_those_that_wait_are_replaced_and_bounded(pool: Threads) -> None:
    gate, waiting = threading.Event(), [threading.Event() for _ in range(5)]

    def wait(number: int, address: str) -> bytes:
        def receive() -> bytes:
            waiting[number].set()
            gate.wait(DEADLINE_S)
            return b"x"

        return Wait(address).receive(receive)

    held = [pool.submit(wait, n, address) for n, address in enumerate(("a", "a", "b", "b"))]
    assert all(one.wait(DEADLINE_S) for one in waiting[:4])
    for address in ("a", "c"):  # two of one address, four in all
        with pytest.raises(Busy):
            result(pool.submit(wait, 4, address))
    assert result(pool.submit(lambda: "served")) == "served"
    gate.set()
    assert [result(one) for one in held] == [b"x"] * 4
    assert result(pool.submit(wait, 4, "a")) == b"x"
    pool.shutdown()


def test_those_whose_answers_are_not_taken_are_replaced_and_never_refused(pool: Threads) -> None:
    gate, waiting = threading.Event(), [threading.Event() for _ in range(5)]

    def send(number: int, address: str) -> str:
        with sending(address):
            waiting[number].set()
            gate.wait(DEADLINE_S)
        return "sent"

    held = [pool.submit(send, n, address) for n, address in enumerate(("a", "a", "b", "b"))]
    assert all(one.wait(DEADLINE_S) for one in waiting[:4])
    assert result(pool.submit(lambda: "served")) == "served"
    held.append(pool.submit(send, 4, "c"))  # has no place, and so counts as a thread that works
    assert waiting[4].wait(DEADLINE_S)
    assert result(pool.submit(lambda: "served")) == "served"
    assert result(pool.submit(lambda: Wait("a").receive(lambda: b"x"))) == b"x"  # who brings something has places of its own
    gate.set()
    assert [result(one) for one in held] == ["sent"] * 5
    pool.shutdown()


class _Held(SimpleQueue[Any]):
    """A queue whose takers stop for a while with what they have taken, as a thread may anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.taken, self.gate = threading.Event(), threading.Event()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        item = super().get(block, timeout)
        if not self.taken.is_set():
            self.taken.set()
            self.gate.wait(DEADLINE_S)
        return item


def test_a_thread_that_has_just_taken_a_job_is_not_counted_as_free(pool: Threads) -> None:
    """The second of two requests at once waited for the first to end, with threads to spare."""
    queue = _Held()
    pool._queue = queue
    first = pool.submit(lambda: "first")
    assert queue.taken.wait(DEADLINE_S)
    assert result(pool.submit(lambda: "second")) == "second"
    assert not first.done()
    queue.gate.set()
    assert result(first) == "first"
    pool.shutdown()


def test_without_a_thread_to_be_had_those_that_are_there_do_the_work(pool: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, begun = threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        gate.wait(DEADLINE_S)
        return "first"

    first = pool.submit(work)
    assert begun.wait(DEADLINE_S)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    later = pool.submit(lambda: "later")
    gate.set()
    assert (result(first), result(later)) == ("first", "later")
    pool.shutdown()
    with pytest.raises(RuntimeError, match="can't start"):
        Threads(1, Patience(1, 1, 1)).submit(lambda: "never")


def test_errors_go_to_whoever_asked_and_the_thread_goes_on(pool: Threads) -> None:
    with pytest.raises(ZeroDivisionError):
        result(pool.submit(lambda: 1 // 0))
    assert result(pool.submit(lambda: 1)) == 1
    pool.shutdown()
    with pytest.raises(RuntimeError):
        pool.submit(lambda: 1)


def test_a_client_given_up_is_told_once(pool: Threads) -> None:
    def broken() -> bytes:
        raise TimeoutError

    def work() -> tuple[bool, bool]:
        with pytest.raises(TimeoutError):
            Wait("a").receive(broken)
        return gave_up(), gave_up()

    assert result(pool.submit(work)) == (True, False)
    pool.shutdown()


@pytest.mark.parametrize(
    ("waited_s", "received", "exhausted"), [(59, 0, False), (61, 60_000, True), (61, 62_000, False), (1000, 10**9, False)]
)
def test_slow_is_what_came_too_slowly_over_the_time_of_waiting(pool: Threads, waited_s: int, received: int, exhausted: bool) -> None:
    assert pool.patience.is_exhausted(waited_s, received) is exhausted


def test_other_threads_wait_as_they_like() -> None:
    assert Wait("a").receive(lambda: b"x") == b"x"
    assert gave_up() is False


def test_a_thread_that_lingers_takes_the_next_request_of_its_connection(pool: Threads) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        lingering = pool.submit(pool.linger, ours, DEADLINE_S * 1000)
        theirs.send(b"GET")
        assert result(lingering) is True
        assert ours.recv(10) == b"GET"
        assert result(pool.submit(pool.linger, ours, 1)) is False
        theirs.close()
        assert result(pool.submit(pool.linger, ours, DEADLINE_S * 1000)) is True  # the end is looked at like a request
    pool.shutdown()


def test_threads_that_linger_are_called_away_by_whoever_needs_one(pool: Threads) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        lingering = [pool.submit(pool.linger, ours, 600_000)]
        until(lambda: pool._lingering == 1)
        for _ in range(20):
            lingering.append(pool.submit(pool.linger, ours, 600_000))  # the other thread, which is new or idle
            until(lambda: pool._lingering == 2)
            assert result(pool.submit(lambda: "served")) == "served"
            until(lambda: pool._lingering == pool._idle == 1)
        theirs.send(b"x")
        assert sorted(result(one) for one in lingering) == [False] * 20 + [True]
        assert result(pool.submit(pool.linger, ours, 600_000)) is True
    pool.shutdown()
