"""The system has no thread left for a moment: what was to be done in one is done later, and no place is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacslite.catalog.audit import Event, count_pending
from pacslite.catalog.database import Catalog
from pacslite.core.audit import Recorder
from pacslite.core.peer_counts import PeerCounts
from pacslite.core.questions import Questions
from pacslite.core.result_cache import ResultCache
from pacslite.dimse import audit
from pacslite.errors import Busy
from tests.support.processes import until


@pytest.fixture
def no_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        yield patched


def test_a_question_is_asked_again(no_thread: pytest.MonkeyPatch) -> None:
    questions: Questions[int] = Questions(20)
    assert isinstance(questions.ask("x", {"a": lambda: 1})["a"], RuntimeError)
    no_thread.undo()
    assert questions.ask("x", {"a": lambda: 1}) == {"a": 1}


def test_results_are_made_as_soon_as_there_are_threads(tmp_path: Path, no_thread: pytest.MonkeyPatch) -> None:
    cache = ResultCache(tmp_path, 10**6)
    for _ in range(20):  # more than may be in the making at once
        with pytest.raises(Busy):
            list(cache.follow("name", lambda: iter([b"data"])))
    no_thread.undo()
    assert b"".join(cache.follow("name", lambda: iter([b"data"]))) == b"data"


def test_counts_and_events_are_written_with_the_next_ones(catalog: Catalog, no_thread: pytest.MonkeyPatch) -> None:
    counts, recorder = PeerCounts(catalog, 0.01), Recorder(catalog, write_s=0.01)
    counts.note("A", {"instances_received": 1})
    recorder.once(Event("one"))
    no_thread.undo()
    counts.note("A", {"instances_received": 2})
    recorder.once(Event("two"))
    until(lambda: _noted(catalog) == 2, 20, "both events were written")
    until(lambda: not counts._counts and all(one.name != "peer-counts" for one in threading.enumerate()), 20, "the counts were written")
    recorder.close()


def test_whoever_accepts_connections_waits_for_no_room_in_the_audit_log(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread of the lobby waited for the catalog, and ended when that could not be written."""
    monkeypatch.setattr("pacslite.core.audit._MOST_WAITING", 1)
    recorder = Recorder(catalog, write_s=3600)
    audit.turned_away(recorder, "127.0.0.1", "no room")
    entered, go_on = threading.Event(), threading.Event()
    busy = [threading.Thread(target=catalog.write, args=(lambda conn: (entered.set(), go_on.wait(30)),)) for _ in range(4)]
    for thread in busy:
        thread.start()
    assert entered.wait(30)
    done = threading.Event()
    other = threading.Thread(target=lambda: (audit.turned_away(recorder, "127.0.0.2", "no room"), done.set()), daemon=True)
    other.start()
    assert done.wait(10)
    assert not go_on.is_set()
    go_on.set()
    for thread in busy:
        thread.join()
    assert [record.getMessage() for record in caplog.records] == ["not in the audit log, which has no room: a connection was turned away"]
    recorder.close()
    assert _noted(catalog) == 1


def _noted(catalog: Catalog) -> int:
    with catalog.read() as conn:
        return count_pending(conn)
