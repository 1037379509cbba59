"""The processes of the server, seen from inside."""

from __future__ import annotations

import resource
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


@pytest.mark.parametrize(
    ("soft", "hard", "wanted"),
    [
        (1024, 4096, 4096),
        (1024, resource.RLIM_INFINITY, 65536),
        (1024, 1_000_000, 65536),
        (100_000, 200_000, None),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None),
    ],
)
def test_the_bound_of_open_files_is_raised_as_far_as_it_may(
    soft: int, hard: int, wanted: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: told.append(limits))
    roles._allow_descriptors()
    assert told == ([] if wanted is None else [(wanted, hard)])
