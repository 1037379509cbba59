"""Rates: who comes too often gets 429 with Retry-After, counted together by all web processes; and the bounds of one request."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from limits import RateLimitItemPerYear
from limits.strategies import FixedWindowRateLimiter

from pacslite.core.access import LOCAL_ADMIN, Principal, Right, Role
from pacslite.core.limits import API, DICOMWEB, FILES, Limits, network_of
from pacslite.errors import TooManyRequests
from pacslite.rates.counting import Counting
from pacslite.rates.windows import WindowFile
from pacslite.settings import load
from pacslite.web.rate_limits import kind_of
from tests.support.http import Answer, WebServer, running
from tests.support.processes import children_of, until, within_a_minute

RATE = 20
# The window slides: what is counted in the window before fades, one place every 60 s / RATE.
FADED = 2


@pytest.fixture(autouse=True)
def _nothing_fades() -> None:
    within_a_minute()


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """A server of two processes where nobody is logged in."""
    settings = {"auth": "1", "web_processes": "2", "api_rate_per_minute": str(RATE), "trusted_proxies": "127.0.0.1"}
    with running(tmp_path_factory.mktemp("limits"), **settings) as found:
        found.root = ""
        until(lambda: len(children_of(found.process.pid)) == 2, what="two web processes")
        yield found


def ask(server: WebServer, address: str) -> Answer:
    return server.request("GET", "/api/v1/jobs", headers={"X-Forwarded-For": address})


def test_two_web_processes_count_together(strict: WebServer) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(strict, "192.0.2.1"), range(3 * RATE)))
    statuses = Counter(answer.status for answer in answers)
    assert set(statuses) == {401, 429}
    assert RATE <= statuses[401] <= RATE + FADED


def test_a_refusal_is_a_problem_that_says_when_to_come_again(strict: WebServer) -> None:
    refused = next(answer for answer in (ask(strict, "192.0.2.2") for _ in range(RATE + FADED + 1)) if answer.status == 429)
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["content-type"] == "application/problem+json"
    assert b'"too-many-requests"' in refused.body


def test_one_address_does_not_use_up_what_another_has(strict: WebServer) -> None:
    for _ in range(RATE + FADED + 1):
        ask(strict, "192.0.2.3")
    assert ask(strict, "192.0.2.4").status == 401


def test_an_untold_network_of_ipv6_counts_as_one_address(strict: WebServer) -> None:
    statuses = [ask(strict, f"2001:db8:1:2::{n:x}").status for n in range(1, RATE + FADED + 2)]
    assert 429 in statuses
    assert ask(strict, "2001:db8:1:3::1").status == 401


def test_health_is_never_refused(strict: WebServer) -> None:
    answers = [strict.request("GET", path) for path in ("/health/live", "/api/v1/health/live") for _ in range(RATE + 5)]
    assert {answer.status for answer in answers} == {200}


def test_what_counts_as_what() -> None:
    assert kind_of("/api/v1/files/<id>/content") == FILES
    assert kind_of("/api/v1/jobs") == API
    assert kind_of("/dicom-web/studies") == DICOMWEB
    assert not any(map(kind_of, ("/api/v1/health/live", "/health/ready", "/viewer/<path:path>", "/", "/login")))


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("", ""),
        ("unix", "unix"),
    ],
)
def test_a_site_has_a_whole_network_of_ipv6(address: str, network: str) -> None:
    assert network_of(address) == network


def limits_of(data: Path, **rates: int) -> Limits:
    return Limits(load(environment={}, data=data, **{f"{kind}_rate_per_minute": rate for kind, rate in rates.items()}))


def refused_after(call: Callable[[], None], most: int) -> int:
    waits: list[int] = []
    for done in range(most):  # noqa: B007 - returned below
        try:
            call()
        except TooManyRequests as error:
            waits.append(error.retry_after_s)
            break
    else:
        return most
    assert 1 <= waits[0] <= 60
    return done


def test_logins_are_counted_by_address_and_by_name(tmp_path: Path) -> None:
    limits = limits_of(tmp_path, login=10)
    assert 10 <= refused_after(lambda: limits.login("somebody", "192.0.2.1"), 20) <= 11
    with pytest.raises(TooManyRequests):
        limits.login("somebody else", "192.0.2.1")
    with pytest.raises(TooManyRequests):
        limits.login("SOMEBODY", "192.0.2.2")
    limits.login("somebody else", "192.0.2.3")
    limits.close()


def test_120_logins_a_minute_from_one_address_are_taken(tmp_path: Path) -> None:
    limits = limits_of(tmp_path)
    assert refused_after(lambda: limits.login("somebody", "192.0.2.1"), 120) == 120
    limits.close()


def test_accounts_are_counted_apart_wherever_they_come_from(tmp_path: Path) -> None:
    limits = limits_of(tmp_path, api=5)
    one, other = (Principal(n, "x", Role.VIEWER, frozenset({Right.FILES_READ})) for n in (1, 2))
    addresses = iter(f"192.0.2.{n}" for n in range(250))
    assert 5 <= refused_after(lambda: limits.call(API, one, next(addresses)), 10) <= 6
    limits.call(API, other, "192.0.2.0")
    assert refused_after(lambda: limits.call(API, LOCAL_ADMIN, "127.0.0.1"), 50) == 50
    limits.close()


def test_zero_is_no_limit(tmp_path: Path) -> None:
    limits = limits_of(tmp_path, api=0, login=0)
    assert refused_after(lambda: limits.call(API, None, "192.0.2.1"), 50) == 50
    assert refused_after(lambda: limits.login("x", "192.0.2.1"), 50) == 50
    limits.close()


def test_files_of_a_server_without_accounts_count_by_address(tmp_path: Path) -> None:
    limits = Limits(load(environment={}, data=tmp_path, file_rate_per_minute=5))
    assert 5 <= refused_after(lambda: limits.call(FILES, LOCAL_ADMIN, "127.0.0.1"), 10) <= 6
    limits.close()


def count_as_one(path: Path, barrier: Barrier, counted: multiprocessing.Queue[int]) -> None:
    counting = Counting(path)
    barrier.wait(30)
    counted.put(sum(counting.wait_s("kind", "who", 200) == 0 for _ in range(200)))


def test_processes_and_threads_that_count_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, counted = context.Barrier(2), context.Queue()
    processes = [context.Process(target=count_as_one, args=(tmp_path / "rates.db", barrier, counted)) for _ in range(2)]
    for process in processes:
        process.start()
    totals = [counted.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(30)
    assert 200 <= sum(totals) <= 210


def test_a_file_that_cannot_be_used_limits_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "rates.db").write_bytes(b"no database, but long enough to be taken for one" * 100)
    counting = Counting(tmp_path / "rates.db")
    assert [counting.wait_s("kind", "who", 1) for _ in range(3)] == [0, 0, 0]
    assert len(caplog.records) == 1
    counting.close()


def test_threads_share_one_file(tmp_path: Path) -> None:
    counting = Counting(tmp_path / "rates.db")
    taken: list[bool] = []
    threads = [threading.Thread(target=lambda: taken.extend(counting.wait_s("k", "w", 50) == 0 for _ in range(20))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 50 <= sum(taken) <= 53
    counting.close()


def test_the_file_is_a_whole_storage_of_the_library_with_fixed_windows_too(tmp_path: Path) -> None:
    windows, year = WindowFile(tmp_path / "rates.db"), RateLimitItemPerYear(3)
    limiter = FixedWindowRateLimiter(windows)
    now = time.time()
    assert limiter.get_window_stats(year, "who").remaining == 3
    assert [limiter.hit(year, "who") for _ in range(4)] == [True, True, True, False]
    assert not limiter.test(year, "who")
    assert limiter.test(year, "somebody else")
    stats = limiter.get_window_stats(year, "who")
    assert stats.remaining == 0
    assert now < stats.reset_time <= now + year.get_expiry() + 60
    limiter.clear(year, "who")
    assert limiter.test(year, "who")
    windows.close()


def test_what_is_too_large_for_one_request_is_told(strict: WebServer) -> None:
    assert strict.request("GET", "/health/live", headers={"X-Padding": "x" * 70_000}).status == 431
    assert strict.request("GET", "/health/live?" + "x" * 9000).status == 414
