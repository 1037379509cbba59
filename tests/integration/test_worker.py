"""The worker does each task at its time, goes on after a failure, and writes the journal once more when it stops."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from pacslite import worker
from pacslite.errors import StorageError
from pacslite.worker import Task

NOBODY = cast(Any, None)


def test_a_task_that_fails_is_logged_and_done_again(caplog: pytest.LogCaptureFixture) -> None:
    stop, runs = threading.Event(), []

    def task(_: object) -> None:
        runs.append(1)
        if len(runs) == 1:
            raise StorageError("the store is away")
        stop.set()

    worker.run(NOBODY, stop, (Task("x", 0, task),))
    assert len(runs) == 2
    assert [record.getMessage() for record in caplog.records] == ["x failed: the store is away"]


def test_a_long_task_does_not_hold_up_the_quick_ones() -> None:
    stop, begun, released, quick = threading.Event(), threading.Event(), threading.Event(), []

    def long(_: object) -> None:
        begun.set()
        released.wait(30)

    def short(_: object) -> None:
        begun.wait(30)
        quick.append(1)
        if len(quick) == 3:
            released.set()
            stop.set()

    worker.run(NOBODY, stop, (Task("long", 0, long, is_long=True), Task("short", 0, short)))
    assert len(quick) == 3


def test_a_task_that_waits_for_a_peer_holds_up_neither_the_quick_nor_the_long_ones() -> None:
    stop, begun, released, done = threading.Event(), threading.Event(), threading.Event(), set()

    def calling(_: object) -> None:
        begun.set()
        released.wait(30)

    def other(name: str) -> None:
        begun.wait(30)
        done.add(name)
        if len(done) == 2:
            released.set()
            stop.set()

    tasks = Task("quick", 0, lambda _: other("quick")), Task("long", 0, lambda _: other("long"), is_long=True)
    worker.run(NOBODY, stop, (Task("call", 0, calling, calls_peers=True), *tasks))
    assert done == {"quick", "long"}


def test_what_is_due_at_the_end_is_done_when_the_worker_stops() -> None:
    stop, done = threading.Event(), []
    stop.set()
    worker.run(NOBODY, stop, (Task("x", 3600, lambda _: done.append(1), at_end=True), Task("y", 3600, lambda _: done.append(2))))
    assert done == [1]


def test_a_stopped_worker_does_not_wait_for_the_next_interval() -> None:
    stop = threading.Event()
    runner = threading.Thread(target=worker.run, args=(NOBODY, stop, (Task("x", 3600, lambda _: None),)))
    runner.start()
    stop.set()
    runner.join(timeout=10)
    assert not runner.is_alive()


def test_a_fault_in_a_task_ends_neither_its_lane_nor_the_worker(caplog: pytest.LogCaptureFixture) -> None:
    stop, runs, others = threading.Event(), [], threading.Event()

    def faulty(_: object) -> None:
        runs.append(1)
        raise ZeroDivisionError

    def behind(_: object) -> None:
        if len(runs) > 2:
            others.set()

    def quick(_: object) -> None:
        others.wait(20)
        stop.set()

    worker.run(NOBODY, stop, (Task("faulty", 0, faulty, is_long=True), Task("behind", 0, behind, is_long=True), Task("quick", 0, quick)))
    assert others.is_set()
    assert {record.getMessage() for record in caplog.records} == {"faulty failed"}
