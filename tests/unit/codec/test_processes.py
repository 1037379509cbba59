"""Codec processes: what they do with tasks that die, hang or fail, and that nothing but plain values comes back."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pacslite.codec import processes
from pacslite.codec.process import plain
from pacslite.codec.processes import CodecProcesses
from pacslite.errors import Busy, Unavailable, UndecodablePixels
from tests.support.processes import until


@pytest.fixture(scope="module")
def codecs() -> Iterator[CodecProcesses]:
    made = CodecProcesses(2, 20)
    yield made
    made.close()


@pytest.fixture
def hasty() -> Iterator[CodecProcesses]:
    made = CodecProcesses(1, 0.5)
    yield made
    made.close()


def test_tasks_run_elsewhere_and_in_the_same_process_again(codecs: CodecProcesses) -> None:
    first = codecs.run("os:getpid")
    assert first != os.getpid()
    assert codecs.run("os:getpid") == first
    assert list(codecs.run_each([("builtins:abs", -n) for n in range(7)])) == list(range(7))


def test_the_memory_of_the_process_that_starts_a_codec_is_not_its_own() -> None:
    """Or each process that a large one starts would be ended after one task."""
    usage = "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss"
    child = f"import resource; from pacslite.codec.process import peak_kib; print(peak_kib(), {usage})"
    parent = f"import subprocess, sys; held = bytearray(b'1') * 400_000_000; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    told = subprocess.run([sys.executable, "-c", parent], check=True, capture_output=True, text=True).stdout
    own, inherited = map(int, told.split())
    assert 5_000 < own < 300_000 < inherited


def test_the_death_of_a_codec_is_an_error_of_its_frame_only(codecs: CodecProcesses, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UndecodablePixels, match="died"):
        codecs.run("os:abort")
    assert codecs.run("builtins:abs", -3) == 3
    assert [record.exit_code for record in caplog.records] == [-6]  # type: ignore[attr-defined]


def test_a_stuck_codec_is_ended(hasty: CodecProcesses) -> None:
    with pytest.raises(UndecodablePixels, match=r"within 0\.5 s"):
        hasty.run("time:sleep", 60)
    assert hasty.run("builtins:abs", -3) == 3


def test_who_finds_no_process_free_in_time_is_told(hasty: CodecProcesses) -> None:
    def tasks() -> Iterator[tuple[str, int]]:
        yield "builtins:abs", -1
        with pytest.raises(Busy):  # the first task has the only process
            hasty.run("builtins:abs", -3)

    assert list(hasty.run_each(tasks())) == [1]
    assert hasty.run("builtins:abs", -3) == 3


def test_what_is_given_up_in_the_middle_frees_its_process(hasty: CodecProcesses) -> None:
    taken = hasty.run_each([("builtins:abs", -1), ("builtins:abs", -2)])
    next(taken)
    taken.close()  # type: ignore[attr-defined]
    assert hasty.run("builtins:abs", -3) == 3


def test_errors_of_the_tree_pass_and_others_are_not_told(codecs: CodecProcesses) -> None:
    with pytest.raises(UndecodablePixels, match="no JPEG 2000 code stream"):
        codecs.run("pacslite.codec.codestreams:read_jpeg2000_head", b"")
    with pytest.raises(UndecodablePixels, match=r"^The pixels cannot be decoded\.$"):
        codecs.run("builtins:int", "no number")


def test_no_secret_of_the_parent_is_there(codecs: CodecProcesses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACSLITE_SECRET_KEY", "secret")
    fresh = CodecProcesses(1, 10)
    assert fresh.run("os:getenv", "PACSLITE_SECRET_KEY") is None
    fresh.close()


def test_only_plain_values_are_believed() -> None:
    assert plain(pickle.dumps(("ok", (b"x", 1, "s", None)))) == ("ok", (b"x", 1, "s", None))
    with pytest.raises(pickle.UnpicklingError, match="no plain value"):
        plain(pickle.dumps(("ok", os.system)))


def test_many_threads_share_the_processes(codecs: CodecProcesses) -> None:
    found: list[int] = []
    threads = [threading.Thread(target=lambda n=n: found.append(codecs.run("builtins:abs", -n))) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(20))


def test_after_the_end_nothing_is_started() -> None:
    processes = CodecProcesses(1, 1)
    processes.run("os:getpid")
    processes.close()
    with pytest.raises(Unavailable):
        processes.run("os:getpid")


def test_a_process_that_cannot_be_replaced_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The place of one that had left was lost when the system had no process for another."""
    codecs = CodecProcesses(1, 20)
    with monkeypatch.context() as patched:

        def refuse(*_: object, **__: object) -> None:
            raise OSError(11, "Resource temporarily unavailable")

        def leave(process: processes._Process) -> None:
            patched.setattr(processes.subprocess, "Popen", refuse)
            raise processes._Left

        patched.setattr(processes._Process, "receive", leave)
        with pytest.raises(Unavailable, match="No codec process can be started"):
            codecs.run("os:getpid")
    assert codecs.run("builtins:abs", -3) == 3
    codecs.close()


def test_who_waits_for_a_place_hears_of_one_that_no_process_could_take(monkeypatch: pytest.MonkeyPatch) -> None:
    codecs, starting, go_on = CodecProcesses(1, 20), threading.Event(), threading.Event()
    real = processes._Process.__init__

    def slowly(process: processes._Process, timeout_s: float) -> None:
        monkeypatch.setattr(processes._Process, "__init__", real)
        starting.set()
        assert go_on.wait(20)
        raise Unavailable("no process")

    monkeypatch.setattr(processes._Process, "__init__", slowly)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(codecs.run, "os:getpid")
        assert starting.wait(20)
        second = pool.submit(codecs.run, "builtins:abs", -3)
        until(lambda: codecs._changed._waiters, 20, "somebody waited for a place")  # type: ignore[attr-defined]
        go_on.set()
        with pytest.raises(Unavailable):
            first.result(20)
        assert second.result(20) == 3
    codecs.close()
