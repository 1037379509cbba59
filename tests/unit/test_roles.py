"""The processes of the server, seen from inside."""

from __future__ import annotations

import threading

import pytest

from pacslite import roles


def test_a_thread_that_ends_by_an_error_is_logged_with_its_name(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RecursionError("too deep")

    monkeypatch.setattr(threading, "excepthook", roles._log_thread_end)
    thread = threading.Thread(target=fail, name="dimse-1234")
    thread.start()
    thread.join()
    (record,) = caplog.records
    assert (record.getMessage(), vars(record)["ended_thread"]) == ("a thread ended by an error", "dimse-1234")
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], RecursionError)
