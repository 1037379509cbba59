"""pacslite as SCU: query, retrieve, store and storage commitment with peers, as jobs; against dcmtk, pynetdicom and another pacslite."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless
from pynetdicom import AE, evt
from sqlalchemy import update

from pacslite import app, job_kinds
from pacslite.catalog import models
from pacslite.core import jobs, peers, remote, remote_commit, remote_retrieve, remote_store
from pacslite.core.jobs import Job
from pacslite.core.retrieve import Resource, plan
from pacslite.dimse import commands
from pacslite.errors import Conflict, Gone, InvalidForm, NotFound, PeerError
from pacslite.settings import Address, Settings
from tests.support.data_sets import image
from tests.support.dimse import CT, EXPLICIT_LE, IMPLICIT_LE, SECONDARY_CAPTURE, Listener, listening, sink_pacs
from tests.support.processes import until
from tests.support.retrieval import Receiver, keep, keep_images, receiving

STUDY = "1.2.30"
LONG_AGO = "2020-01-01T00:00:00.000000Z"


@contextmanager
def archive(data: Path, aet: str) -> Iterator[Listener]:
    """A listener with everything behind it, of that title."""
    pacs = app.build(Settings(data=data, dicom=Address("127.0.0.1", 0), aet=aet, network_timeout_s=10, acse_timeout_s=10))
    pacs.catalog.migrate()
    try:
        with listening(pacs) as running:
            yield running
    finally:
        pacs.close()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Listener]:
    """We; our title is HERE."""
    with archive(tmp_path / "here", "HERE") as running:
        yield running


@pytest.fixture
def there(tmp_path: Path, here: Listener) -> Iterator[Listener]:
    """Another pacslite, THERE; each knows the other."""
    with archive(tmp_path / "there", "THERE") as running:
        know(here, "THERE", running.address.port)
        know(running, "HERE", here.address.port)
        yield running


def know(listener: Listener, aet: str, port: int, **more: Any) -> None:
    peers.put(listener.pacs.catalog, peers.Peer(aet, "127.0.0.1", port, **more))


def run(pacs: Any, job: Job) -> Job:
    """Have the job done by a worker of these parts."""
    runner = job_kinds.runner(pacs, threading.Event())
    taken = runner.take(job.id)
    assert taken is not None
    runner.run(taken)
    return jobs.get(pacs.catalog, job.uid)


def retrieve(pacs: Any, aet: str, *resources: Resource, method: str = "auto") -> Job:
    return run(pacs, remote_retrieve.queue(pacs, aet, resources or [Resource(STUDY)], method, "ann"))


def store(pacs: Any, aet: str, *resources: Resource) -> Job:
    return run(pacs, remote_store.queue(pacs, aet, resources or [Resource(STUDY)], "ann"))


def held(pacs: Any, study: str = STUDY) -> set[str]:
    with contextlib.suppress(NotFound, Gone):
        return {item.sop_instance_uid for item in plan(pacs.catalog, Resource(study))}
    return set()


def outcomes(pacs: Any, job: Job) -> dict[str, str]:
    return {one.item: one.outcome for one in jobs.items(pacs.catalog, job.uid, outcome="", after="", limit=1000)[0]}


# Query


def test_a_peer_is_queried_at_each_level_with_its_own_charset(here: Listener, there: Listener) -> None:
    ds = image(study=STUDY, series=f"{STUDY}.1", instance=f"{STUDY}.1.1")
    ds.SpecificCharacterSet, ds.PatientName, ds.PatientID = "ISO_IR 192", "Müller^Jürgen", "P-1"
    keep(there.pacs, ds)
    keep_images(there.pacs, 3, "1.2.31")

    def find(level: str, keys: dict[str, str], *fields: str, limit: int = 100) -> remote.Found:
        return remote.query(here.pacs, "THERE", level, keys, fields, limit)

    (patient,) = find("patient", {"PatientName": "müller*"}).records
    assert (patient["PatientID"], patient["PatientName"]) == ("P-1", "Müller^Jürgen")
    (study,) = find("study", {"PatientID": "P-1"}, "StudyID").records
    assert (study["StudyInstanceUID"], study["NumberOfStudyRelatedInstances"], study["StudyID"]) == (STUDY, "1", "")
    (series,) = find("series", {"StudyInstanceUID": STUDY}).records
    assert series["SeriesInstanceUID"] == f"{STUDY}.1"
    page = find("instance", {"StudyInstanceUID": "1.2.31", "SeriesInstanceUID": "1.2.31.1"}, limit=2)
    assert (len(page.records), page.truncated) == (2, True)
    with pytest.raises(InvalidForm, match=r"keys\.Nonsense"):
        find("study", {"Nonsense": "1"})
    with pytest.raises(NotFound, match="NOBODY"):
        remote.query(here.pacs, "NOBODY", "study", {}, [], 1)


def test_a_refused_query_is_told_with_its_status(here: Listener, there: Listener) -> None:
    know(there, "HERE", here.address.port, allow=("store",))
    with pytest.raises(PeerError, match=r"C-FIND was answered with status 0124H \(HERE may not find\)"):
        remote.query(here.pacs, "THERE", "study", {}, [], 1)


# Retrieve


@pytest.mark.parametrize("method", ["get", "move"])
def test_a_study_is_brought_and_what_is_here_is_not_asked_for_again(here: Listener, there: Listener, method: str) -> None:
    sent = keep_images(there.pacs, 5, STUDY)
    keep(here.pacs, image(study=STUDY, series=f"{STUDY}.1", instance=f"{STUDY}.1.2", number=2))
    job = retrieve(here.pacs, "THERE", method=method)
    assert (job.state, job.error) == ("succeeded", "")
    assert held(here.pacs) == set(sent)
    assert job.result == {"peer": "THERE", "method": method, "present": 1, "total": 5, "received": 4, "failed": 0}
    assert (job.progress_done, job.progress_total) == (5, 5)
    assert sorted(outcomes(here.pacs, job).values()) == ["present", *["received"] * 4]
    again = retrieve(here.pacs, "THERE", method=method)
    assert again.result == {"peer": "THERE", "method": method, "present": 5, "total": 5, "received": 0, "failed": 0}


def test_a_series_and_an_instance_are_brought_alone(here: Listener, there: Listener) -> None:
    keep_images(there.pacs, 3, STUDY)
    keep(there.pacs, image(study=STUDY, series=f"{STUDY}.2", instance=f"{STUDY}.2.1"))
    job = retrieve(here.pacs, "THERE", Resource(STUDY, f"{STUDY}.2"), Resource(STUDY, f"{STUDY}.1", f"{STUDY}.1.3"))
    assert (job.state, held(here.pacs)) == ("succeeded", {f"{STUDY}.2.1", f"{STUDY}.1.3"})


def test_a_compressed_instance_comes_by_get_as_it_is_stored(here: Listener, there: Listener) -> None:
    ds = image(compressed=[b"\xff\x4f\xff\x51" + bytes(60)], study=STUDY)
    keep(there.pacs, ds, JPEG2000Lossless)
    assert retrieve(here.pacs, "THERE", method="get").state == "succeeded"
    (item,) = plan(here.pacs.catalog, Resource(STUDY))
    assert item.transfer_syntax_uid == JPEG2000Lossless


def test_what_nobody_has_fails_and_a_peer_that_is_away_is_tried_again(here: Listener, there: Listener) -> None:
    job = retrieve(here.pacs, "THERE", Resource("1.2.99"))
    assert (job.state, job.error) == ("failed", "THERE has nothing of what is asked for.")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    know(here, "AWAY", port)
    job = retrieve(here.pacs, "AWAY")
    assert (job.state, job.error) == ("queued", f"AWAY at 127.0.0.1:{port}: Connection refused")


def test_what_did_not_arrive_is_listed_and_brought_by_a_retry(here: Listener, there: Listener) -> None:
    keep_images(there.pacs, 4, STUDY)
    lost = plan(there.pacs.catalog, Resource(STUDY))[1]
    path = there.pacs.store.local_path(lost.storage_key)
    os.rename(path, path.with_suffix(".away"))
    job = retrieve(here.pacs, "THERE", method="get")
    assert (job.state, outcomes(here.pacs, job)[lost.sop_instance_uid]) == ("queued", "failed")
    assert "1 of 4 instances were not received" in job.error
    assert len(held(here.pacs)) == 3
    os.rename(path.with_suffix(".away"), path)
    here.pacs.catalog.write(lambda conn: conn.execute(update(models.job).values(run_after_at=LONG_AGO)))
    job = run(here.pacs, job)
    assert (job.state, len(held(here.pacs))) == ("succeeded", 4)
    assert (job.result or {})["received"] == 4


def test_a_cancelled_retrieval_stops(here: Listener, there: Listener) -> None:
    keep_images(there.pacs, 3, STUDY)
    job = remote_retrieve.queue(here.pacs, "THERE", [Resource(STUDY)], "get", "")
    runner = job_kinds.runner(here.pacs, threading.Event())
    taken = runner.take(job.id)
    assert taken is not None
    jobs.cancel(here.pacs.catalog, job.uid)
    runner.run(taken)
    assert jobs.get(here.pacs.catalog, job.uid).state == "cancelled"
    assert held(here.pacs) == set()


# Store


def test_a_study_is_sent_once_and_counted(here: Listener, there: Listener) -> None:
    sent = keep_images(here.pacs, 5, STUDY)
    job = store(here.pacs, "THERE")
    assert (job.state, job.result) == ("succeeded", {"peer": "THERE", "total": 5, "sent": 5, "failed": 0})
    assert held(there.pacs) == set(sent)
    for one in (here, there):
        one.pacs.peer_counts.write()
    mine, theirs = peers.statistics(here.pacs.catalog, "THERE"), peers.statistics(there.pacs.catalog, "HERE")
    assert (mine.instances_sent, mine.failures, mine.last_seen_at is not None) == (5, 0, True)
    assert mine.bytes_sent == sum(item.size_bytes for item in plan(here.pacs.catalog, Resource(STUDY)))
    until(lambda: there.server.associations == 0)
    assert theirs.instances_received in (0, 5)
    there.pacs.peer_counts.write()
    theirs = peers.statistics(there.pacs.catalog, "HERE")
    assert (theirs.associations_received, theirs.instances_received) == (1, 5)
    assert theirs.bytes_received > 0


def test_only_what_failed_is_sent_again(here: Listener) -> None:
    keep_images(here.pacs, 4, STUDY)
    with receiving(Receiver(answer=lambda number: 0xA900 if number == 2 else 0xB000 if number == 3 else 0)) as receiver:
        know(here, "PEER", receiver.port)
        job = store(here.pacs, "PEER")
        assert (job.state, job.error) == ("failed", "1 of 4 instances were not sent: the receiver answered A900H")
        result = job.result or {}
        assert (result["sent"], result["failed"]) == (3, 1)
        assert result["failures"] == [{"sop_instance_uid": f"{STUDY}.1.2", "reason": "the receiver answered A900H"}]
        assert jobs.items(here.pacs.catalog, job.uid, outcome="sent", after="", limit=9)[0][1].detail == "warning B000H"
        before = len(receiver.commands)
        job = run(here.pacs, jobs.retry(here.pacs.catalog, job.uid))
    assert (job.state, len(receiver.commands) - before) == ("succeeded", 1)


def test_a_receiver_out_of_resources_is_tried_again_later(here: Listener) -> None:
    keep_images(here.pacs, 1, STUDY)
    with receiving(Receiver(answer=lambda number: 0xA700)) as receiver:
        know(here, "PEER", receiver.port)
        job = store(here.pacs, "PEER")
    assert (job.state, job.attempts) == ("queued", 1)
    assert job.error == "1 of 1 instances were not sent: the receiver answered A700H"


def test_the_transfer_syntax_that_a_peer_prefers_is_sent(here: Listener) -> None:
    keep_images(here.pacs, 1, STUDY)
    seen: list[str] = []
    entity = AE("PEER")
    entity.add_supported_context(SECONDARY_CAPTURE, [EXPLICIT_LE, IMPLICIT_LE])

    def remember(event: evt.Event) -> int:
        seen.append(str(event.context.transfer_syntax))
        return 0

    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, remember)])
    try:
        know(here, "PEER", server.server_address[1])
        assert store(here.pacs, "PEER").state == "succeeded"
        know(here, "PEER", server.server_address[1], transfer_syntaxes=(IMPLICIT_LE,))
        assert store(here.pacs, "PEER").state == "succeeded"
    finally:
        server.shutdown()
    assert seen == [EXPLICIT_LE, IMPLICIT_LE]


def test_transfers_with_one_peer_take_turns_and_those_with_another_go_on(here: Listener) -> None:
    """Beyond `peer_jobs` a job waits without an attempt; when the one before it is over, or its worker is lost, it runs."""
    pacs, entered, leave = here.pacs, threading.Event(), threading.Event()
    keep_images(pacs, 1, STUDY)

    def slow(event: evt.Event) -> int:
        entered.set()
        assert leave.wait(20)
        return 0

    def entity(handler: Any) -> Any:
        ae = AE("PEER")
        ae.add_supported_context(SECONDARY_CAPTURE, [EXPLICIT_LE])
        return ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, handler)])

    stuck, other = entity(slow), entity(lambda event: 0)
    try:
        know(here, "STUCK", stuck.server_address[1])
        know(here, "OTHER", other.server_address[1])
        first = threading.Thread(target=store, args=(pacs, "STUCK"))
        first.start()
        assert entered.wait(20)
        waiting = store(pacs, "STUCK")
        assert (waiting.state, waiting.attempts, waiting.error) == ("queued", 0, "")
        assert retrieve(pacs, "STUCK").state == "queued"
        assert store(pacs, "OTHER").state == "succeeded"
        leave.set()
        first.join(20)
        waiting = run(pacs, waiting)
        assert (waiting.state, waiting.attempts) == ("succeeded", 1)
    finally:
        leave.set()
        stuck.shutdown()
        other.shutdown()


def test_a_refused_class_and_an_unknown_study_are_told(here: Listener) -> None:
    keep_images(here.pacs, 1, STUDY)
    with receiving(Receiver(refuse=frozenset({SECONDARY_CAPTURE}))) as receiver:
        know(here, "PEER", receiver.port)
        job = store(here.pacs, "PEER")
    assert (job.state, job.error) == ("failed", f"1 of 1 instances were not sent: SOP class not accepted: {SECONDARY_CAPTURE}")
    with pytest.raises(NotFound, match="no such study"):
        remote_store.queue(here.pacs, "PEER", [Resource("1.2.99")], "")
    with pytest.raises(InvalidForm):
        remote_store.queue(here.pacs, "PEER", [], "")


# Storage commitment


def commit(pacs: Any, aet: str, *, remove: bool = False) -> Job:
    return remote_commit.queue(pacs, aet, [Resource(STUDY)], remove, "ann")


def test_commitment_130_is_asked_of_a_peer_that_reports_on_an_association_of_its_own(here: Listener, there: Listener) -> None:
    """Checklist 130: as SCU: N-ACTION answered at once, the report on a new association with the roles reversed."""
    from pacslite.dimse.commitment import report_due

    keep_images(here.pacs, 3, STUDY)
    store(here.pacs, "THERE", Resource(STUDY, f"{STUDY}.1", f"{STUDY}.1.1"), Resource(STUDY, f"{STUDY}.1", f"{STUDY}.1.2"))
    job = run(here.pacs, commit(here.pacs, "THERE", remove=True))
    assert (job.state, job.attempts) == ("queued", 0)
    there.pacs.catalog.write(lambda conn: conn.execute(update(models.job).values(run_after_at=LONG_AGO)))
    report_due(there.pacs)
    job = run(here.pacs, job)
    result = job.result or {}
    assert (job.state, result["committed"], result["removed"], result["failed"]) == ("failed", 2, 2, 1)
    assert result["failures"] == [{"sop_instance_uid": f"{STUDY}.1.3", "reason": "no such instance (0112H)"}]
    assert held(here.pacs) == {f"{STUDY}.1.3"}
    # Once the last one is there too, the same job ends well.
    assert store(here.pacs, "THERE").state == "succeeded"
    job = run(here.pacs, jobs.retry(here.pacs.catalog, job.uid))
    there.pacs.catalog.write(lambda conn: conn.execute(update(models.job).values(run_after_at=LONG_AGO)))
    report_due(there.pacs)
    job = run(here.pacs, job)
    assert (job.state, (job.result or {})["removed"], held(here.pacs)) == ("succeeded", 3, set())


class Committer:
    """A pynetdicom SCP of storage commitment that reports on the same association, or not at all."""

    def __init__(self, reports: bool) -> None:
        self.reports, self.asked = reports, []
        self.entity = AE("PEER")
        self.entity.add_supported_context("1.2.840.10008.1.20.1", [EXPLICIT_LE])

    def action(self, event: evt.Event) -> tuple[int, None]:
        self.asked.append(event.action_information)
        if self.reports:
            threading.Thread(target=self.report, args=(event.assoc, event.action_information)).start()
        return 0, None

    def report(self, association: Any, asked: Dataset) -> None:
        told = Dataset()
        told.TransactionUID, told.ReferencedSOPSequence = asked.TransactionUID, asked.ReferencedSOPSequence
        association.send_n_event_report(told, 1, "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1")


@contextmanager
def committing(here: Listener, *, reports: bool) -> Iterator[Committer]:
    scp = Committer(reports)
    server = scp.entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_ACTION, scp.action)])
    try:
        know(here, "PEER", server.server_address[1])
        yield scp
    finally:
        server.shutdown()


def test_commitment_130_may_be_reported_on_the_association_of_the_request(here: Listener) -> None:
    """Checklist 130: as SCU: the report on the same association."""
    keep_images(here.pacs, 2, STUDY)
    with committing(here, reports=True) as scp:
        job = run(here.pacs, commit(here.pacs, "PEER"))
    assert (job.state, (job.result or {})["committed"]) == ("succeeded", 2)
    assert [str(one.ReferencedSOPClassUID) for one in scp.asked[0].ReferencedSOPSequence] == [SECONDARY_CAPTURE] * 2
    assert len(held(here.pacs)) == 2


def test_only_the_version_that_was_asked_for_is_removed(here: Listener) -> None:
    keep_images(here.pacs, 2, STUDY)
    with committing(here, reports=False) as scp:
        job = run(here.pacs, commit(here.pacs, "PEER", remove=True))
    other = image(study=STUDY, series=f"{STUDY}.1", instance=f"{STUDY}.1.1")
    other.PatientComments = "another version"
    keep(here.pacs, other)
    told = remote_commit.Verdict(tuple(remote_commit.Reference(SECONDARY_CAPTURE, f"{STUDY}.1.{n}") for n in (1, 2)), ())
    uid = str(scp.asked[0].TransactionUID)
    for aet, transaction in (("STRANGER", uid), ("PEER", "1.2.3")):
        with pytest.raises(NotFound):
            remote_commit.reported(here.pacs.catalog, aet, transaction, told)
    remote_commit.reported(here.pacs.catalog, "PEER", uid, told)
    job = run(here.pacs, job)
    assert (job.state, (job.result or {})["removed"], (job.result or {})["kept"]) == ("succeeded", 1, 1)
    assert held(here.pacs) == {f"{STUDY}.1.1"}


def test_a_report_that_never_comes_fails_the_job_and_a_retry_asks_anew(here: Listener) -> None:
    keep_images(here.pacs, 1, STUDY)
    with committing(here, reports=False) as scp:
        job = run(here.pacs, commit(here.pacs, "PEER", remove=True))
        memo = json.dumps({**job.memo, "asked_at": LONG_AGO})
        here.pacs.catalog.write(lambda conn: conn.execute(update(models.job).where(models.job.c.id == job.id).values(memo=memo)))
        job = run(here.pacs, job)
        assert (job.state, held(here.pacs)) == ("failed", {f"{STUDY}.1.1"})
        assert job.error == "PEER has not reported within 24 hours"
        assert run(here.pacs, jobs.retry(here.pacs.catalog, job.uid)).state == "queued"
    assert len({str(one.TransactionUID) for one in scp.asked}) == 2


def test_a_dicomweb_peer_is_not_asked_for_commitment(here: Listener) -> None:
    keep_images(here.pacs, 1, STUDY)
    peers.put(here.pacs.catalog, peers.Peer("web", "", 0, (), kind="dicomweb", url="http://127.0.0.1:9/dicom-web"))
    with pytest.raises(Conflict, match="storage commitment"):
        commit(here.pacs, "web")


# dcmtk


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def reachable(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.fixture
def dcmqrscp(tmp_path: Path, here: Listener) -> Iterator[int]:
    """dcmtk's archive, known to us as DCMQR, which knows us as HERE; its port."""
    if not shutil.which("dcmqrscp"):
        pytest.skip("dcmtk is not installed")
    folder, port = tmp_path / "dcmqr", free_port()
    (folder / "db").mkdir(parents=True)
    (folder / "cfg").write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        f"HostTable BEGIN\nhere = (HERE, 127.0.0.1, {here.address.port})\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nDCMQR {folder}/db RW (200, 1024mb) ANY\nAETable END\n"
    )
    process = subprocess.Popen(["dcmqrscp", "-c", str(folder / "cfg")], cwd=folder, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        until(lambda: reachable(port))
        know(here, "DCMQR", port)
        yield port
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize("method", ["get", "move"])
def test_dcmtk_as_an_archive_is_sent_to_queried_and_retrieved_from(here: Listener, dcmqrscp: int, method: str) -> None:
    sent = keep_images(here.pacs, 4, STUDY)
    job = store(here.pacs, "DCMQR")
    assert (job.state, job.error) == ("succeeded", "")
    from pacslite.core.removal import Origin, remove, target_of

    remove(here.pacs.catalog, target_of(STUDY), Origin("api"))
    found = remote.query(here.pacs, "DCMQR", "study", {"PatientID": "T-1"}, [], 10)
    assert [record["StudyInstanceUID"] for record in found.records] == [STUDY]
    job = retrieve(here.pacs, "DCMQR", method=method)
    assert (job.state, job.error) == ("succeeded", "")
    assert held(here.pacs) == set(sent)


@pytest.mark.skipif(not shutil.which("storescp"), reason="dcmtk is not installed")
def test_dcmtk_as_a_receiver_gets_files(here: Listener, tmp_path: Path) -> None:
    keep_images(here.pacs, 3, STUDY)
    port, folder = free_port(), tmp_path / "received"
    folder.mkdir()
    process = subprocess.Popen(["storescp", "-od", str(folder), str(port)])
    try:
        until(lambda: reachable(port))
        know(here, "STORESCP", port)
        assert store(here.pacs, "STORESCP").state == "succeeded"
    finally:
        process.terminate()
        process.wait()
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize(
    ("setting", "of_peer", "warned"), [(False, True, True), (True, False, False), (True, None, True), (False, None, False)]
)
def test_coercion_warnings_are_given_as_the_peer_says_else_as_the_setting(
    tmp_path: Path, setting: bool, of_peer: bool | None, warned: bool
) -> None:
    pacs = sink_pacs(tmp_path, coercion_warnings=setting)
    pacs.ingest.warnings = ("odd",)
    peer = peers.Peer("TESTER", "127.0.0.1", 104, coercion_warnings=of_peer)
    with listening(pacs, find_peer=lambda aet: peer) as listener, listener.peer() as modality:
        modality.associate([(CT, (EXPLICIT_LE,))])
        assert modality.store(b"").number(commands.STATUS) == (0xB000 if warned else 0)
        modality.release()


def test_the_name_of_a_dicomweb_peer_is_no_title_to_call_by_or_to_move_to(here: Listener, there: Listener) -> None:
    keep_images(here.pacs, 1, STUDY)
    web = peers.Peer("THERE", "", 0, peers.SERVICES, kind="dicomweb", url="http://127.0.0.1:9/")
    peers.put(here.pacs.catalog, web)
    assert peers.find_entity(here.pacs.catalog, "THERE") is None
    # THERE asks us to send it what it lacks: its title means nobody here now.
    job = retrieve(there.pacs, "HERE", method="move")
    assert (job.state, job.error.partition("HERE at")[0]) == ("queued", "1 of 1 instances were not received: ")
    assert "C-MOVE was answered with status A801H" in job.error
