"""Earlier versions and commitment requests over both databases: which bytes a version is, also after the catalog was made anew."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from pacslite.catalog.database import Catalog
from pacslite.core import commitment_requests, retrieve
from pacslite.core.commitment import Reference, Verdict
from pacslite.core.commitment_requests import HANDLER, KIND
from pacslite.core.jobs import Runner
from pacslite.core.journal import Journal
from pacslite.core.reindex import reindex
from pacslite.core.removal import Origin, Target, remove
from pacslite.core.retrieve import Resource
from pacslite.errors import Conflict, Gone, NotFound
from pacslite.storage.filesystem import FilesystemStore
from tests.support.archive import Archive, archive, slice_of

CLASS = "1.2.840.10008.5.1.4.1.1.7"
INSTANCE = Resource("1.1", "1.1.1", "1.1.1.1")


@pytest.fixture
def held(tmp_path: Path, catalog: Catalog) -> Archive:
    """An instance in three versions, and a sibling that came before the last."""
    made = archive(tmp_path / "data", catalog, FilesystemStore(tmp_path / "storage"))
    for number in (1, 2):
        made.accept(slice_of("1.1", "1.1.1", "1.1.1.1", StudyDescription=f"number {number}"))
    made.accept(slice_of("1.1", "1.1.1", "1.1.1.2"))
    made.accept(slice_of("1.1", "1.1.1", "1.1.1.1", StudyDescription="number 3"))
    return made


def numbers(held: Archive, resource: Resource) -> dict[str, int]:
    return {item.sop_instance_uid: item.version_number for item in retrieve.plan(held.catalog, resource)}


def test_a_version_is_found_by_number_and_by_time(held: Archive) -> None:
    versions = retrieve.versions(held.catalog, INSTANCE)
    assert [version.number for version in versions] == [3, 2, 1]
    assert len({version.sha256 for version in versions}) == 3
    for version in versions:
        for which in (version.number, version.created_at):
            resource = Resource("1.1", "1.1.1", "1.1.1.1", which)
            [item] = retrieve.plan(held.catalog, resource)
            assert (item.version_number, item.sha256) == (version.number, version.sha256)
            with retrieve.documents(held.catalog, resource) as rows:
                [row] = rows
            assert row.version_number == version.number
            assert retrieve.plan_frames(held.catalog, resource).item == item
    for resource in (Resource("1.1"), Resource("1.1", "1.1.1")):
        at_second = Resource(resource.study_instance_uid, resource.series_instance_uid, None, versions[1].created_at)
        assert numbers(held, at_second) == {"1.1.1.1": 2}
        assert numbers(held, resource) == {"1.1.1.1": 3, "1.1.1.2": 1}


@pytest.mark.parametrize("which", [4, "1999-01-01T00:00:00.000000Z"])
def test_a_version_that_never_was_is_not_found_and_one_of_what_is_gone_gone(held: Archive, which: int | str) -> None:
    resource = Resource("1.1", "1.1.1", "1.1.1.1", which)
    for look in (retrieve.plan, retrieve.plan_frames, retrieve.change_number):
        with pytest.raises(NotFound, match="version"):
            look(held.catalog, resource)
    remove(held.catalog, Target("1.1", "1.1.1", "1.1.1.1"), Origin("api"))
    with pytest.raises(Gone):
        retrieve.plan(held.catalog, resource)
    with pytest.raises(Gone):
        retrieve.versions(held.catalog, INSTANCE)


def test_versions_are_the_same_in_a_catalog_made_anew(held: Archive) -> None:
    before = retrieve.versions(held.catalog, INSTANCE)
    Journal(held.store, held.spool).write_new(held.catalog)
    reindex(held)
    after = retrieve.versions(held.catalog, INSTANCE)
    assert after == before


def test_commitment_is_asked_for_once_and_its_result_kept(held: Archive) -> None:
    kept, missing = Reference(CLASS, "1.1.1.1"), Reference(CLASS, "9.9")
    verdict = Verdict((kept,), ((missing, 0x0112),))
    assert commitment_requests.request(held, "2.25.1", [kept, missing, kept]) == verdict
    assert commitment_requests.request(held, "2.25.1", [kept, missing]) == verdict
    assert commitment_requests.result(held.catalog, "2.25.1") == verdict
    with pytest.raises(Conflict):
        commitment_requests.request(held, "2.25.1", [kept])
    with pytest.raises(NotFound):
        commitment_requests.result(held.catalog, "2.25.2")


def test_commitment_that_takes_long_goes_on_in_the_worker(held: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Reference(CLASS, "1.1.1.1")
    monkeypatch.setattr(commitment_requests, "_INLINE_S", 0.0)
    monkeypatch.setattr(commitment_requests.commitment, "check_each", _stubborn(commitment_requests.commitment.check_each))
    assert commitment_requests.request(held, "2.25.1", [kept]) is None
    monkeypatch.undo()
    assert Runner(held, (KIND,), lambda _: HANDLER, threading.Event()).run_next()
    assert commitment_requests.result(held.catalog, "2.25.1") == Verdict((kept,), ())


def _stubborn(check: object) -> object:
    """A check that is not done before it is stopped."""

    def checking(*arguments: object) -> object:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            arguments[3](0)  # type: ignore[operator]
        return check(*arguments)  # type: ignore[operator]

    return checking
