"""Jobs are done by one worker at a time, taken over from a dead one, and given up after the last attempt."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, update

from pacslite.catalog import jobs, models
from pacslite.catalog.database import Catalog
from pacslite.catalog.jobs import Job
from pacslite.errors import Conflict

LONG_AGO = "2020-01-01T00:00:00.000000Z"


def add(catalog: Catalog, kind: str = "verify", **kw: Any) -> int:
    return catalog.write(lambda conn: jobs.add(conn, kind, {"n": 1}, **kw))


def claim(catalog: Catalog, owner: str = "w1", lease_s: float = 60) -> Job | None:
    return catalog.write(lambda conn: jobs.claim(conn, owner, ["verify"], lease_s))


def found(catalog: Catalog, job_id: int) -> Job:
    with catalog.read() as conn:
        job = jobs.find(conn, job_id)
    assert job is not None
    return job


def lapse(catalog: Catalog) -> None:
    """The time of every lease and every pause is over."""
    past = {"lease_until_at": LONG_AGO, "run_after_at": LONG_AGO}
    catalog.write(lambda conn: conn.execute(update(models.job).values(past)))


def test_a_job_is_claimed_once_in_the_order_of_queueing(catalog: Catalog) -> None:
    first, second = add(catalog), add(catalog)
    add(catalog, "other")
    add(catalog, delay_s=60)
    claimed = [claim(catalog), claim(catalog, "w2"), claim(catalog, "w3")]
    assert [job.id if job else None for job in claimed] == [first, second, None]
    assert found(catalog, first).state == "running"
    assert found(catalog, first).payload == {"n": 1}


def test_one_job_can_be_taken_by_its_number_while_it_is_queued(catalog: Catalog) -> None:
    other, mine = add(catalog), add(catalog)
    taken = catalog.write(lambda conn: jobs.take(conn, mine, "a", 60))
    assert taken is not None
    assert (taken.id, taken.state, taken.attempts) == (mine, "running", 1)
    assert catalog.write(lambda conn: jobs.take(conn, mine, "b", 60)) is None
    assert catalog.write(lambda conn: jobs.finish(conn, mine, "a"))
    assert found(catalog, other).state == "queued"


def test_a_job_is_due_when_it_could_be_claimed(catalog: Catalog) -> None:
    def is_due() -> bool:
        with catalog.read() as conn:
            return jobs.is_due(conn, ["verify"])

    add(catalog, "other")
    add(catalog, delay_s=60)
    assert not is_due()
    add(catalog)
    assert is_due()
    claim(catalog)
    assert not is_due()
    lapse(catalog)
    assert is_due()


def test_a_job_is_queued_only_if_its_cause_is_committed(catalog: Catalog) -> None:
    def cause(conn: Connection) -> None:
        jobs.add(conn, "verify", {})
        raise Conflict("no")

    with pytest.raises(Conflict):
        catalog.write(cause)
    assert claim(catalog) is None


def test_the_same_work_is_queued_once_while_it_is_not_over(catalog: Catalog) -> None:
    first = add(catalog, dedupe_key="k")
    assert add(catalog, dedupe_key="k") == first
    claim(catalog)
    assert add(catalog, dedupe_key="k") == first
    catalog.write(lambda conn: jobs.finish(conn, first, "w1", {"ok": True}))
    assert add(catalog, dedupe_key="k") != first
    assert found(catalog, first).result == {"ok": True}


def test_the_job_of_a_dead_worker_is_taken_over_and_the_dead_one_cannot_finish_it(catalog: Catalog) -> None:
    job_id = add(catalog)
    claim(catalog, "dead")
    lapse(catalog)
    taken = claim(catalog, "w2")
    assert taken is not None
    assert (taken.id, taken.attempts) == (job_id, 2)
    assert not catalog.write(lambda conn: jobs.renew(conn, job_id, "dead", 60))
    assert not catalog.write(lambda conn: jobs.finish(conn, job_id, "dead"))
    assert catalog.write(lambda conn: jobs.renew(conn, job_id, "w2", 60, 1, 2))
    assert found(catalog, job_id).progress_done == 1


def test_a_job_whose_worker_dies_each_time_is_given_up(catalog: Catalog) -> None:
    job_id = add(catalog, max_attempts=2)
    for _ in range(2):
        assert claim(catalog) is not None
        lapse(catalog)
    assert claim(catalog) is None
    assert found(catalog, job_id).state == "failed"


def test_a_failed_attempt_is_repeated_after_a_pause_and_at_last_fails(catalog: Catalog) -> None:
    job_id = add(catalog, max_attempts=2)
    claim(catalog)
    assert catalog.write(lambda conn: jobs.fail(conn, job_id, "w1", "no route"))
    assert claim(catalog) is None
    lapse(catalog)
    assert claim(catalog) is not None
    catalog.write(lambda conn: jobs.fail(conn, job_id, "w1", "no route"))
    assert (found(catalog, job_id).state, found(catalog, job_id).error) == ("failed", "no route")


def test_a_cancelled_job_tells_its_worker_at_the_next_renewal(catalog: Catalog) -> None:
    job_id = add(catalog)
    claim(catalog)
    assert catalog.write(lambda conn: jobs.cancel(conn, job_id))
    assert not catalog.write(lambda conn: jobs.renew(conn, job_id, "w1", 60))
    assert not catalog.write(lambda conn: jobs.cancel(conn, job_id))
    with catalog.read() as conn:
        assert [job.state for job in jobs.listed(conn)] == ["cancelled"]
