"""DELETE of studies, series and instances over the wire: what it answers, and what every other service says afterwards."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from pydicom.dataset import Dataset

from pacslite import job_kinds
from pacslite.catalog import changes
from pacslite.core import jobs, restoration, restoration_job
from pacslite.core.erasure import erase_doomed
from pacslite.dimse import commands
from tests.support.data_sets import CONTENT_TYPE, body, image, new_uid, part10
from tests.support.dimse import EXPLICIT_LE, STUDY_ROOT_FIND, STUDY_ROOT_MOVE, Listener, find_rq
from tests.support.http import Answer, WebServer, running
from tests.support.retrieval import Receiver, converse, keys, known, move_rq, receiving, retrieving

AS_STORED = "application/dicom; transfer-syntax=*"


@dataclass
class Archive:
    """A web server and a DICOM listener over the same data."""

    server: WebServer
    listener: Listener

    def store(self, *data_sets: Dataset) -> None:
        answer = self.server.request("POST", "/studies", body(map(part10, data_sets)), {"Content-Type": CONTENT_TYPE})
        assert answer.status == 200, answer.body

    def delete(self, path: str) -> Answer:
        return self.server.request("DELETE", path)

    def undelete(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and body of undeleting over REST."""
        answer = replace(self.server, root="/api/v1").request("POST", path + "/undelete")
        found: dict[str, Any] = json.loads(answer.body)
        return answer.status, found

    def status(self, path: str, accept: str | None = None) -> int:
        return self.server.get(path, accept).status

    def found(self, path: str) -> list[dict[str, Any]]:
        """What a search gives."""
        answer = self.server.get(path)
        assert (answer.status == 204) == (answer.body == b"")
        found: list[dict[str, Any]] = json.loads(answer.body or b"[]")
        return found

    def c_find(self, study: str) -> int:
        """How many studies C-FIND has of this UID."""
        with self.listener.peer() as peer:
            peer.associate([(STUDY_ROOT_FIND, (EXPLICIT_LE,))])
            peer.request(1, find_rq(), keys("STUDY", study=study))
            outcome = converse(peer)
            peer.release()
        assert outcome.status == commands.SUCCESS
        return len(outcome.pending)

    def c_move(self, study: str) -> set[str]:
        """The instances that C-MOVE sends of a study."""
        receiver = Receiver()
        with receiving(receiver):
            known(self.listener.pacs, "RECEIVER", receiver.port)
            with self.listener.peer() as peer:
                peer.associate([(STUDY_ROOT_MOVE, (EXPLICIT_LE,))])
                peer.request(1, move_rq("RECEIVER", STUDY_ROOT_MOVE), keys("STUDY", study=study))
                assert converse(peer).status == commands.SUCCESS
                peer.release()
        return set(receiver.stored)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    data = tmp_path_factory.mktemp("delete")
    with running(data) as server, retrieving(data) as listener:
        yield Archive(server, listener)


def study_path(ds: Dataset) -> str:
    return f"/studies/{ds.StudyInstanceUID}"


def series_path(ds: Dataset) -> str:
    return f"{study_path(ds)}/series/{ds.SeriesInstanceUID}"


def instance_path(ds: Dataset) -> str:
    return f"{series_path(ds)}/instances/{ds.SOPInstanceUID}"


def stored_study(archive: Archive) -> list[Dataset]:
    """A study of two series of two instances."""
    study, series = new_uid(), [new_uid(), new_uid()]
    made = [image(study=study, series=series[number // 2], number=number) for number in range(4)]
    archive.store(*made)
    return made


def resources_of(ds: Dataset) -> list[str]:
    """Everything that WADO-RS has of an instance."""
    return [instance_path(ds) + end for end in ("", "/metadata", "/frames/1", "/bulkdata/7FE00010")]


def test_a_deleted_study_is_410_everywhere_and_found_by_nobody(archive: Archive) -> None:
    made = stored_study(archive)
    study, uid = study_path(made[0]), made[0].StudyInstanceUID
    resources = [study, study + "/metadata"]
    resources += [path + end for path in {series_path(ds) for ds in made} for end in ("", "/metadata")]
    resources += [path for ds in made for path in resources_of(ds)]
    assert {archive.status(path) for path in resources} == {200}
    assert (archive.c_find(uid), len(archive.c_move(uid))) == (1, 4)
    answer = archive.delete(study)
    assert (answer.status, answer.body) == (204, b"")
    for path in resources:
        gone = archive.server.get(path)
        assert (gone.status, json.loads(gone.body)["type"]) == (410, "gone"), path
    searches = [f"/studies?StudyInstanceUID={uid}", study + "/series", study + "/instances", series_path(made[0]) + "/instances"]
    assert [archive.found(path) for path in searches] == [[]] * 4
    assert (archive.c_find(uid), archive.c_move(uid)) == (0, set())


def test_a_deleted_series_leaves_the_rest_of_its_study(archive: Archive) -> None:
    made = stored_study(archive)
    assert archive.delete(series_path(made[0])).status == 204
    assert [archive.status(instance_path(ds), AS_STORED) for ds in made] == [410, 410, 200, 200]
    assert [archive.status(series_path(ds) + "/metadata") for ds in made] == [410, 410, 200, 200]
    [found] = archive.found(f"/studies?StudyInstanceUID={made[0].StudyInstanceUID}")
    assert (found["00201206"]["Value"], found["00201208"]["Value"]) == ([1], [2])
    assert len(archive.found(study_path(made[0]) + "/instances")) == 2
    assert archive.c_move(made[0].StudyInstanceUID) == {ds.SOPInstanceUID for ds in made[2:]}


def test_a_deleted_instance_leaves_its_siblings_and_the_last_one_takes_the_study_along(archive: Archive) -> None:
    made = stored_study(archive)
    study = study_path(made[0])
    before = archive.server.get(study + "/metadata")
    assert archive.delete(instance_path(made[0])).status == 204
    assert [archive.status(instance_path(ds)) for ds in made] == [410, 200, 200, 200]
    changed = archive.server.get(study + "/metadata", If_None_Match=before.headers["etag"])
    assert (changed.status, len(json.loads(changed.body))) == (200, 3)
    for ds in made[1:]:
        assert archive.delete(instance_path(ds)).status == 204
    assert {archive.status(path) for path in (study, study + "/metadata", series_path(made[0]), series_path(made[2]))} == {410}
    assert archive.found(f"/studies?StudyInstanceUID={made[0].StudyInstanceUID}") == []
    assert archive.delete(study).status == 410


@pytest.mark.parametrize("path_of", [study_path, series_path, instance_path])
def test_unknown_is_404_deleted_before_is_410_malformed_is_400(archive: Archive, path_of: Any) -> None:
    [ds, *_] = stored_study(archive)
    path = path_of(ds)
    unknown = archive.delete(path[:-4] + "9999")
    assert (unknown.status, json.loads(unknown.body)["type"]) == (404, "not-found")
    for wrong in ("1.2.x", "1..2", "1" * 65):
        answer = archive.delete(path.rpartition("/")[0] + "/" + wrong)
        assert (answer.status, json.loads(answer.body)["type"]) == (400, "invalid-uid")
    assert archive.status(path) == 200
    assert archive.delete(path).status == 204
    again = archive.delete(path)
    assert (again.status, json.loads(again.body)["type"]) == (410, "gone")


@pytest.mark.parametrize("path", ["/studies", "/series", "/instances", "/studies/1.2/metadata", "/studies/1.2/series"])
def test_nothing_else_can_be_deleted(archive: Archive, path: str) -> None:
    answer = archive.delete(path)
    assert answer.status == 405
    assert "DELETE" not in answer.headers["allow"]


def test_an_instance_sent_again_is_there_again_and_the_rest_stays_deleted(archive: Archive) -> None:
    made = stored_study(archive)
    assert archive.delete(study_path(made[0])).status == 204
    archive.store(made[1])
    assert [archive.status(instance_path(ds)) for ds in made] == [410, 200, 410, 410]
    answer = archive.server.get(instance_path(made[1]), AS_STORED)
    assert answer.body == part10(made[1])
    assert [archive.status(path(made[1])) for path in (study_path, series_path)] == [200, 200]
    assert (archive.c_find(made[1].StudyInstanceUID), len(archive.found(study_path(made[1]) + "/instances"))) == (1, 1)


def test_the_feed_tells_who_deleted_what(archive: Archive) -> None:
    made = stored_study(archive)
    path = instance_path(made[0])
    assert archive.server.request("DELETE", path, headers={"X-Request-ID": "the-request"}).status == 204
    catalog = archive.listener.pacs.catalog
    with catalog.read() as conn:
        last = changes.after(conn, changes.last(conn) - 1)[-1]
    assert (last.kind, last.protocol, last.address, last.request_id) == ("instance_deleted", "dicomweb", "127.0.0.1", "the-request")
    assert (last.study_instance_uid, last.sop_instance_uid) == (made[0].StudyInstanceUID, made[0].SOPInstanceUID)


def test_an_arrival_comes_before_a_deletion_and_goes_along_or_after_it_and_stays(archive: Archive) -> None:
    study, rounds = new_uid(), 6
    path, statuses = f"/studies/{study}", []
    sent = [image(study=study, number=number) for number in range(rounds * 2)]

    def delete() -> None:
        statuses.extend(archive.delete(path).status for _ in range(rounds))

    deleting = threading.Thread(target=delete)
    archive.store(sent[0])
    deleting.start()
    for ds in sent[1:]:
        archive.store(ds)  # acknowledged each time
    deleting.join(timeout=60)
    assert statuses[0] == 204
    assert set(statuses) <= {204, 410}
    there = {ds.SOPInstanceUID for ds in sent if archive.status(instance_path(ds)) == 200}
    assert {archive.status(instance_path(ds)) for ds in sent if ds.SOPInstanceUID not in there} <= {410}
    # All services agree on what is left, and what is sent once the last deletion is answered stays.
    assert {one["00080018"]["Value"][0] for one in archive.found(path + "/instances")} == there
    assert archive.c_move(study) == there
    archive.store(sent[0])
    assert archive.status(instance_path(sent[0])) == 200


@pytest.mark.parametrize(("path_of", "count"), [(study_path, 4), (series_path, 2), (instance_path, 1)])
def test_what_was_deleted_can_be_undeleted_within_the_time_of_grace(archive: Archive, path_of: Any, count: int) -> None:
    made = stored_study(archive)
    path, metadata = path_of(made[0]), study_path(made[0]) + "/metadata"
    before = archive.server.get(metadata)
    assert archive.delete(path).status == 204
    assert archive.undelete(path) == (200, {"instances": count, "versions": count, "arrived_anew": 0, "lost": 0})
    assert {archive.status(resource) for ds in made for resource in resources_of(ds)} == {200}
    assert [archive.server.get(instance_path(ds), AS_STORED).body for ds in made] == [part10(ds) for ds in made]
    assert sorted(json.loads(archive.server.get(metadata).body), key=str) == sorted(json.loads(before.body), key=str)
    assert (archive.c_find(made[0].StudyInstanceUID), len(archive.c_move(made[0].StudyInstanceUID))) == (1, 4)
    assert archive.undelete(path) == (200, {"instances": 0, "versions": 0, "arrived_anew": 0, "lost": 0})
    assert archive.delete(path).status == 204
    assert archive.status(path) == 410


def test_undeleting_is_404_when_unknown_400_when_malformed_and_410_when_the_bytes_are_gone(archive: Archive) -> None:
    [ds, *_] = stored_study(archive)
    assert archive.undelete("/studies/1.2.3.4")[0] == 404
    assert archive.undelete("/studies/1.2.x")[0] == 400
    assert archive.delete(study_path(ds)).status == 204
    pacs = archive.listener.pacs
    erase_doomed(pacs.catalog, pacs.store, grace_s=-1)
    status, problem = archive.undelete(study_path(ds))
    assert (status, problem["type"]) == (410, "gone")


def test_a_large_study_is_undeleted_by_a_job(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    study, series = new_uid(), new_uid()
    made = [image(study=study, series=series, number=number) for number in range(restoration_job.LARGE + 1)]
    archive.store(*made)
    path = f"/studies/{study}"
    assert archive.delete(path).status == 204
    pacs, stop = archive.listener.pacs, threading.Event()
    answer = replace(archive.server, root="/api/v1").request("POST", path + "/undelete")
    job = json.loads(answer.body)
    assert (answer.status, job["kind"], job["state"]) == (202, "studies.undelete", "queued")
    assert answer.headers["location"].endswith(f"/api/v1/jobs/{job['id']}")
    again = replace(archive.server, root="/api/v1").request("POST", path + "/undelete")
    assert json.loads(again.body)["id"] == job["id"]
    # Stopped after the first batch, it goes on with the rest.
    monkeypatch.setattr(restoration, "_BATCH", 150)
    runner, write = job_kinds.runner(pacs, stop), jobs.Run.remember

    def stopping(run: jobs.Run, **memo: Any) -> None:
        write(run, **memo)
        stop.set()

    with monkeypatch.context() as patched:
        patched.setattr(jobs.Run, "remember", stopping)
        assert runner.run_next()
    assert len(archive.found(path + "/instances?limit=1000")) == 150
    stop.clear()
    assert runner.run_next()
    found = json.loads(replace(archive.server, root="/api/v1").get(f"/jobs/{job['id']}").body)
    assert (found["state"], found["progress"]["done"]) == ("succeeded", len(made))
    assert found["result"] == {"instances": len(made), "versions": len(made), "arrived_anew": 0, "lost": 0}
    assert len(archive.found(path + "/instances?limit=1000")) == len(made)
