"""Retention policies, the emptying of the trash, verification bit by bit, and what is done once a day."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from pacslite import app, job_kinds, worker
from pacslite.catalog import inventory, legal_holds
from pacslite.catalog.database import Catalog
from pacslite.catalog.file_models import file, file_version
from pacslite.catalog.models import series
from pacslite.core import jobs, retention
from pacslite.core.cleanup import Daily, cleanup
from pacslite.core.ingest import Ingest
from pacslite.core.retention import empty_trash
from pacslite.core.stocktaking import rows_of
from pacslite.core.verification import Slices, find_orphans, queue_verify, verify
from pacslite.errors import ConfigurationError
from pacslite.settings import Settings, load
from pacslite.storage.filesystem import FilesystemStore
from pacslite.storage.spool import Spool
from tests.support.archive import archive as over
from tests.support.archive import slice_of
from tests.support.upkeep import GRACE_S, Held, Watching

LONG_AGO = "2020-01-01T00:00:00.000000Z"


@pytest.fixture
def held(tmp_path: Path, catalog: Catalog) -> Held:
    settings = Settings(data=tmp_path, removal_grace_s=GRACE_S)
    local, far = FilesystemStore(tmp_path / "storage", "local"), FilesystemStore(tmp_path / "far", "far")
    return Held(settings, catalog, local, far, Spool(tmp_path / "spool"))


def with_policy(held: Held, **policy: Any) -> Held:
    return replace(held, settings=replace(held.settings, retention_policies={"one": policy}))


def apply(held: Held, *, dry_run: bool = False) -> dict[str, Any]:
    (told,) = retention.apply(held, Watching(), dry_run=dry_run)["policies"]
    return {name: told[name] for name in ("done", "held")}


def age(held: Held, *uids: str) -> None:
    """Make the newest versions of files old, and all series."""

    def work(conn: Any) -> None:
        pks = select(file.c.pk).where(file.c.uid.in_(uids))
        conn.execute(update(file_version).where(file_version.c.file_pk.in_(pks)).values(created_at=LONG_AGO))
        conn.execute(update(series).values(updated_at=LONG_AGO))

    held.catalog.write(work)


def states(held: Held) -> dict[str, str]:
    with held.catalog.read() as conn:
        return {row[0]: row[1] for row in conn.execute(select(file.c.uid, file.c.state))}


def now(held: Held) -> None:
    """Files of these tests are made at no time; the newest versions of files that are not old are of now."""
    held.catalog.write(lambda conn: conn.execute(update(file_version).where(file_version.c.created_at == "").values(created_at="9999")))


def test_old_files_go_to_the_trash_and_those_on_hold_stay(held: Held) -> None:
    old, young, kept = held.add(file_type="report"), held.add(file_type="report"), held.add(file_type="report", legal_hold=True)
    photo = held.add(file_type="photo")
    age(held, old, kept, photo)
    now(held)
    ruled = with_policy(held, action="trash", older_than_days=30, file_types=["report"])
    assert apply(ruled, dry_run=True) == {"done": 1, "held": 1}
    assert set(states(held).values()) == {"live"}
    assert apply(ruled) == {"done": 1, "held": 1}
    assert states(held) == {old: "trash", young: "live", kept: "live", photo: "live"}
    assert apply(ruled) == {"done": 0, "held": 1}


def test_old_files_are_purged_from_the_trash_too(held: Held) -> None:
    old, trashed, other = held.add(), held.add(state="trash", deleted_at=LONG_AGO), held.add(file_type="photo")
    age(held, old, trashed, other)
    assert apply(with_policy(held, action="purge", older_than_days=30, file_types=["document"])) == {"done": 2, "held": 0}
    assert states(held) == {other: "live"}
    assert held.row(old).state == inventory.DOOMED


def test_old_series_of_a_modality_are_deleted_unless_their_study_is_on_hold(held: Held) -> None:
    of = over(held.settings.data, held.catalog, held.store)
    of = replace(of, ingest=Ingest(held.settings, held.catalog, held.store, held.spool, held.stores))
    for study in ("1.1", "1.2"):
        of.accept(slice_of(study, f"{study}.1", f"{study}.1.1", Modality="CT"))
        of.accept(slice_of(study, f"{study}.2", f"{study}.2.1", Modality="SR"))
    age(held)
    held.catalog.write(lambda conn: legal_holds.place(conn, legal_holds.Hold("1.2", "ann", "")))
    assert apply(with_policy(held, action="purge", older_than_days=30, modalities=["CT"])) == {"done": 1, "held": 1}
    with held.catalog.read() as conn:
        assert set(conn.execute(select(series.c.series_instance_uid)).scalars()) == {"1.1.2", "1.2.1", "1.2.2"}


def test_a_policy_archives_what_is_old(held: Held) -> None:
    held.add(b"a report " * 2000, file_type="report")
    held.catalog.write(lambda conn: conn.exec_driver_sql(f"UPDATE blob SET created_at = '{LONG_AGO}'"))
    assert apply(with_policy(held, action="archive", older_than_days=30, to="far")) == {"done": 1, "held": 0}
    held.check_whole()
    assert {row.store_name for row in rows_of(held.catalog) if row.state == inventory.LIVE} == {"far"}


def test_the_trash_is_emptied_after_its_time(held: Held) -> None:
    old, young = held.add(state="trash", deleted_at=LONG_AGO), held.add(state="trash", deleted_at="9999")
    kept = held.add(state="trash", deleted_at=LONG_AGO, legal_hold=True)
    assert empty_trash(replace(held, settings=replace(held.settings, trash_days=0))) == 0
    assert empty_trash(held) == 1
    assert set(states(held)) == {young, kept}
    assert held.row(old).state == inventory.DOOMED


@pytest.mark.parametrize(
    "policy",
    [
        {},
        {"action": "burn", "older_than_days": 1},
        {"action": "archive"},
        {"action": "archive", "older_than_days": 0},
        {"action": "archive", "older_than_days": True},
        {"action": "purge", "older_than_days": 1},
        {"action": "trash", "older_than_days": 1, "file_types": "report"},
        {"action": "archive", "older_than_days": 1, "after": 1},
        ["archive"],
    ],
)
def test_policies_that_mean_nothing_are_refused_at_the_start(policy: Any) -> None:
    with pytest.raises(ConfigurationError, match="retention_policies: old"):
        load(environment={"PACSLITE_RETENTION_POLICIES": json.dumps({"old": policy})})


def damage(held: Held, uid: str) -> None:
    path = held.store.local_path(held.row(uid).storage_key)
    assert path is not None
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_everything_is_verified_bit_by_bit_and_a_restart_goes_on(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    uids = [held.add(b"%d" % number * 100) for number in range(5)]
    damage(held, uids[3])
    memory = held.settings.data / "verify.json"
    checked, damaged = [], []
    for _ in range(6):  # a new process each
        found = Slices(memory).go_on(held)
        assert found is not None
        checked.append(found["checked"])
        damaged += found["damaged"]
    assert checked == [1, 1, 1, 1, 1, 0]
    assert [(one["file_id"], one["problem"]) for one in damaged] == [(uids[3], "hash")]
    assert held.row(uids[3]).state == inventory.QUARANTINED
    assert Slices(memory).go_on(held) is not None
    assert Slices(memory).go_on(replace(held, settings=replace(held.settings, verify_days=0))) is None


class Stopping(Watching):
    """Stops after so many."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise jobs.Stopped


def test_a_verification_that_was_stopped_goes_on_where_it_was(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pacslite.core.verification._REMEMBER_S", -1)
    uids = [held.add(b"%d" % number * 100) for number in range(6)]
    damage(held, uids[0])
    first, second = Stopping(4), Watching()
    with pytest.raises(jobs.Stopped):
        verify(held, first)
    second.memo = json.loads(json.dumps(first.memo))
    found = verify(held, second)
    assert (found["checked"], [one["problem"] for one in found["damaged"]], found["quarantined"]) == (6, ["hash"], 1)
    assert second.told[0] == (5, 6)


def test_the_same_verification_is_not_queued_twice_and_can_be_cancelled(held: Held) -> None:
    first = queue_verify(held, deep=True, repair=True, actor="ann")
    assert queue_verify(held, deep=True, repair=True).uid == first.uid
    assert queue_verify(held, deep=False, repair=True).uid != first.uid
    assert jobs.cancel(held.catalog, first.uid).state == "cancelled"
    assert jobs.retry(held.catalog, first.uid).uid == first.uid


def test_an_orphan_search_finds_what_is_in_no_row_of_either_storage(held: Held) -> None:
    uid = held.add()
    for store in held.stores.all:
        with held.spool.create() as writer:
            writer.write(b"lost")
            store.put(writer.finish().path, "radiology/1.9/1.9.1/1.9.1.1/lost.dcm")
    assert find_orphans(held, Watching())["orphans"] == []  # too young
    for root in ("storage", "far"):
        os.utime(held.settings.data / root / "radiology/1.9/1.9.1/1.9.1.1/lost.dcm", (time.time() - 7200,) * 2)
    assert [one["storage"] for one in find_orphans(held, Watching())["orphans"]] == ["local", "far"]
    held.store.delete(held.row(uid).storage_key)
    found = find_orphans(held, Watching(), remove=True)
    assert (found["removed"], [one["file_id"] for one in found["missing"]]) == (2, [uid])
    assert not find_orphans(held, Watching())["orphans"]


def test_a_day_is_a_day_also_over_restarts(tmp_path: Path) -> None:
    assert Daily(tmp_path / "stamp").is_due()
    Daily(tmp_path / "stamp").done()
    assert not Daily(tmp_path / "stamp").is_due()
    assert not Daily(tmp_path / "stamp").is_due(time.time() + 23 * 3600)
    assert Daily(tmp_path / "stamp").is_due(time.time() + 24 * 3600)


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Any]:
    policies = {"old": {"action": "archive", "older_than_days": 1, "to": "archive"}}
    settings = Settings(data=tmp_path / "data", archive_root=tmp_path / "archive", retention_policies=policies)
    app.prepare_directories(settings)
    app.migrate(settings)
    opened = app.build(settings)
    yield opened
    opened.close()


def test_the_worker_cleans_up_once_a_day_and_does_the_policies(pacs: Any) -> None:
    left = pacs.spool.directory / "left.dcm"
    left.write_bytes(b"x")
    os.utime(left, (time.time() - 25 * 3600,) * 2)
    worker.daily(pacs)
    assert not left.exists()
    found, total = jobs.page(pacs.catalog, before=None, limit=10, kind="storage.policies")
    assert (total, found[0].state) == (1, "queued")
    runner = job_kinds.runner(pacs, threading.Event())
    assert runner.run_next()
    assert jobs.get(pacs.catalog, found[0].uid).state == "succeeded"
    left.write_bytes(b"x")
    os.utime(left, (time.time() - 25 * 3600,) * 2)
    worker.daily(pacs)  # the same day
    assert left.exists()
    tasks = {task.name for task in worker.tasks_of(pacs)}
    assert {"storage.verify", "storage.cleanup", "storage.sweep", "blobs.erase"} <= tasks
    for task in worker.tasks_of(pacs):
        if task.name in ("storage.verify", "storage.sweep", "blobs.erase"):
            task.run(pacs)
    assert (pacs.settings.data / "sweep-archive.json").exists()
    assert cleanup(pacs, 0).spool_files == 1
