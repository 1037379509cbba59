"""Storage Commitment Push Model as SCP (PS3.4 annex J): requests are kept, instances checked, reports sent until acknowledged."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.dsutils import decode, encode
from sqlalchemy import update

from pacslite import app, worker
from pacslite.catalog import inventory, jobs, models
from pacslite.catalog.jobs import Job
from pacslite.core import commitment as core
from pacslite.core import peers
from pacslite.core.commitment import Reference
from pacslite.dimse import commands, pdus
from pacslite.dimse.commands import Command
from pacslite.dimse.commitment import report_due
from pacslite.dimse.commitment_data import decode_action
from pacslite.errors import StorageError
from pacslite.settings import Address, Settings
from tests.support.data_sets import image
from tests.support.dicom_files import element
from tests.support.dimse import (
    CT,
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    SECONDARY_CAPTURE,
    VERIFICATION,
    Listener,
    Peer,
    accepted,
    echo_rq,
    uid_value,
)
from tests.support.processes import until
from tests.support.retrieval import keep, keep_images, known, retrieving

COMMITMENT, WELL_KNOWN = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
STUDY = "1.2.9"
FIRST, SECOND, THIRD = (f"{STUDY}.1.{number}" for number in (1, 2, 3))
LONG_AGO = "2020-01-01T00:00:00.000000Z"
_transactions = iter(range(1, 1000))


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    """Three instances are there; the requester MODALITY is unknown."""
    with retrieving(tmp_path, network_timeout_s=5, acse_timeout_s=5) as running:
        keep_images(running.pacs, 3, STUDY)
        yield running


def transaction() -> str:
    return f"1.2.3.{next(_transactions)}"


def action(transaction_uid: str | None, *instances: str, sop_class: str = SECONDARY_CAPTURE, implicit: bool = False) -> bytes:
    """Action Information, by pydicom."""
    return information(transaction_uid, [(sop_class, uid) for uid in instances], implicit)


def information(transaction_uid: str | None, references: list[tuple[str, str]], implicit: bool = False) -> bytes:
    ds = Dataset()
    if transaction_uid is not None:
        ds.TransactionUID = transaction_uid
    ds.ReferencedSOPSequence = []
    for sop_class, sop_instance in references:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
        ds.ReferencedSOPSequence.append(item)
    encoded = encode(ds, implicit, True)
    assert encoded is not None
    return encoded


def action_rq(**changed: Any) -> dict[int, bytes | int]:
    values: dict[int, bytes | int] = {0x0003: uid_value(COMMITMENT), 0x0100: 0x0130, 0x0110: 7, 0x0800: 1}
    values |= {0x1001: uid_value(WELL_KNOWN), 0x1008: 1}
    return {tag: value for tag, value in (values | {int(k[1:], 16): v for k, v in changed.items()}).items() if value is not None}


def ask(listener: Listener, data_set: bytes | None, calling: str = "MODALITY", **changed: Any) -> Command:
    """One N-ACTION in an association of its own; the response."""
    with listener.peer() as peer:
        peer.associate([(COMMITMENT, (EXPLICIT_LE,))], calling=calling)
        peer.request(1, action_rq(**changed), data_set)
        response, _ = peer.response()
        peer.release()
    return response


def all_jobs(pacs: Any) -> list[Job]:
    with pacs.catalog.read() as conn:
        return jobs.listed(conn)


def the_job(pacs: Any) -> Job:
    (job,) = all_jobs(pacs)
    return job


def lapse(pacs: Any) -> None:
    """The time of every lease and every pause is over."""
    past = {"lease_until_at": LONG_AGO, "run_after_at": LONG_AGO}
    pacs.catalog.write(lambda conn: conn.execute(update(models.job).values(past)))


def work(pacs: Any) -> None:
    """One turn of the worker, long enough after."""
    lapse(pacs)
    report_due(pacs)


@dataclass
class Report:
    """One N-EVENT-REPORT as a requester got it."""

    event_type: int
    data_set: Dataset
    called_role: tuple[Any, Any] = (None, None)

    @property
    def committed(self) -> list[str]:
        return [str(item.ReferencedSOPInstanceUID) for item in self.data_set.get("ReferencedSOPSequence", [])]

    @property
    def failed(self) -> dict[str, int]:
        return {str(item.ReferencedSOPInstanceUID): item.FailureReason for item in self.data_set.get("FailedSOPSequence", [])}


@dataclass
class Modality:
    """The listener of a requester, pynetdicom's; answers reports with `status`."""

    port: int = 0
    status: int = 0
    reports: list[Report] = field(default_factory=list)

    def handle(self, event: Any) -> tuple[int, None]:
        context = next(cx for cx in event.assoc.accepted_contexts if cx.context_id == event.context.context_id)
        self.reports.append(Report(event.request.EventTypeID, event.event_information, (context.as_scu, context.as_scp)))
        assert event.request.AffectedSOPInstanceUID == WELL_KNOWN
        return self.status, None


@contextmanager
def modality(pacs: Any = None, roles: bool = True, syntax: str = EXPLICIT_LE) -> Iterator[Modality]:
    """A requester that listens; known to `pacs` as MODALITY."""
    it = Modality()
    entity = AE("MODALITY")
    entity.add_supported_context(COMMITMENT, syntax, **({"scu_role": False, "scp_role": True} if roles else {}))
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, it.handle)])
    it.port = server.socket.getsockname()[1]
    if pacs is not None:
        known(pacs, "MODALITY", it.port)
    try:
        yield it
    finally:
        server.shutdown()


# The request


def test_a_request_is_queued_before_it_is_answered_and_its_response_names_the_well_known_instance(listener: Listener) -> None:
    """Checklist 130: N-ACTION is answered 0000H at once."""
    known(listener.pacs, "MODALITY", 1)
    uid = transaction()
    response = ask(listener, action(uid, FIRST, SECOND))
    assert response.number(commands.STATUS) == 0
    assert response.field == 0x8130
    assert response.uid(commands.AFFECTED_SOP_CLASS_UID) == COMMITMENT
    assert response.uid(commands.AFFECTED_SOP_INSTANCE_UID) == WELL_KNOWN
    job = the_job(listener.pacs)
    assert (job.kind, job.state, job.actor) == (core.KIND, "queued", "MODALITY")
    assert job.payload["transaction_uid"] == uid
    assert job.payload["references"] == [[SECONDARY_CAPTURE, FIRST], [SECONDARY_CAPTURE, SECOND]]


@pytest.mark.parametrize(
    ("data_set", "changed", "status", "comment"),
    [
        (action(None, FIRST), {}, 0x0115, "TransactionUID is missing"),
        (action("", FIRST), {}, 0x0115, "TransactionUID is missing"),
        (element(0x00081195, "UI", b"not.a.uid\0"), {}, 0x0115, "TransactionUID is no UID"),
        (action("1.2.3"), {}, 0x0115, "ReferencedSOPSequence is missing or empty"),
        (element(0x00081195, "UI", b"1.2.3\0"), {}, 0x0115, "ReferencedSOPSequence is missing or empty"),
        (action("1.2.3", ""), {}, 0x0115, "ReferencedSOPInstanceUID of item 1 is missing"),
        (information("1.2.3", [(CT, FIRST), ("", FIRST)]), {}, 0x0115, "ReferencedSOPClassUID of item 2 is missing"),
        (action("1.2.3", FIRST)[:-3], {}, 0x0115, "the data set cannot be read"),
        (None, {"x0800": 0x0101}, 0x0115, "TransactionUID and ReferencedSOPSequence are missing"),
        (action("1.2.3", FIRST), {"x1001": uid_value("1.2.3.4")}, 0x0112, "RequestedSOPInstanceUID is not the well-known one"),
        (action("1.2.3", FIRST), {"x1001": None}, 0x0115, "command element (0000,1001) is not a UID"),
        (action("1.2.3", FIRST), {"x0003": uid_value(CT)}, 0x0118, "RequestedSOPClassUID is not Storage Commitment"),
        (action("1.2.3", FIRST), {"x1008": 2}, 0x0123, "ActionTypeID has to be 1"),
        (action("1.2.3", FIRST), {"x1008": None}, 0x0123, "ActionTypeID has to be 1"),
    ],
)
def test_a_wrong_request_is_refused_with_its_reason(
    listener: Listener, data_set: bytes | None, changed: dict[str, Any], status: int, comment: str
) -> None:
    response = ask(listener, data_set, **changed)
    assert response.number(commands.STATUS) == status
    assert response.values[commands.ERROR_COMMENT].decode().startswith(comment)
    assert all_jobs(listener.pacs) == []


def test_commitment_in_a_context_of_another_service_is_refused(listener: Listener) -> None:
    with listener.peer() as peer:
        peer.associate([(SECONDARY_CAPTURE, (EXPLICIT_LE,))])
        peer.request(1, action_rq(), action("1.2.3", FIRST))
        assert peer.response()[0].number(commands.STATUS) == 0x0122


def test_the_same_request_again_is_one_job_and_other_instances_under_its_transaction_are_refused(listener: Listener) -> None:
    known(listener.pacs, "MODALITY", 1)
    known(listener.pacs, "OTHER", 1)
    uid = transaction()
    assert ask(listener, action(uid, FIRST)).number(commands.STATUS) == 0
    assert ask(listener, action(uid, FIRST, FIRST)).number(commands.STATUS) == 0
    assert len(all_jobs(listener.pacs)) == 1
    refused = ask(listener, action(uid, SECOND))
    assert refused.number(commands.STATUS) == 0x0115
    assert refused.values[commands.ERROR_COMMENT].startswith(b"Transaction UID is in use")
    # Of another requester it is another transaction.
    assert ask(listener, action(uid, SECOND), calling="OTHER").number(commands.STATUS) == 0
    assert len(all_jobs(listener.pacs)) == 2


@pytest.mark.parametrize(
    ("offered", "chosen"), [([IMPLICIT_LE, EXPLICIT_LE], EXPLICIT_LE), ([IMPLICIT_LE], IMPLICIT_LE), ([EXPLICIT_BE], None)]
)
def test_little_endian_is_agreed_explicit_before_implicit(listener: Listener, offered: list[str], chosen: str | None) -> None:
    with listener.peer() as peer:
        (context,) = accepted(peer.associate([(COMMITMENT, offered)])).presentation_context
    assert (context.result == 0) == (chosen is not None)
    assert chosen is None or context.transfer_syntax == chosen


@pytest.mark.parametrize(("scu", "scp", "answer"), [(True, False, (1, 0)), (True, True, (1, 1)), (False, True, (0, 1))])
def test_the_requester_may_be_scu_and_scp(listener: Listener, scu: bool, scp: bool, answer: tuple[int, int]) -> None:
    role = build_role(COMMITMENT, scu_role=scu, scp_role=scp)
    with listener.peer() as peer:
        body = accepted(peer.associate([(COMMITMENT, (EXPLICIT_LE,)), (VERIFICATION, (IMPLICIT_LE,))], user=[role]))
    context, _ = body.presentation_context
    assert context.result == 0
    (given,) = body.user_information.role_selection.values()
    assert (given.scu_role, given.scp_role) == answer


@pytest.mark.parametrize("implicit", [False, True])
def test_other_attributes_of_the_action_information_are_passed_over(implicit: bool) -> None:
    ds = decode(BytesIO(action("1.2.3", FIRST, SECOND, implicit=implicit)), implicit, True)
    ds.StorageMediaFileSetID = "DISK"
    ds.ReferencedSOPSequence[0].ReferencedSOPSequence = [Dataset()]
    ds.ReferencedSOPSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "9.9"
    encoded = encode(ds, implicit, True)
    assert encoded is not None
    read = decode_action(encoded, IMPLICIT_LE if implicit else EXPLICIT_LE)
    assert read == ("1.2.3", (Reference(SECONDARY_CAPTURE, FIRST), Reference(SECONDARY_CAPTURE, SECOND)))


# The report to a known peer


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, IMPLICIT_LE])
@pytest.mark.parametrize("roles", [True, False])
def test_all_committed_is_event_type_1_in_an_association_where_we_are_scp(listener: Listener, syntax: str, roles: bool) -> None:
    """Checklist 130: N-EVENT-REPORT of type 1 on a new association with the roles reversed."""
    with modality(listener.pacs, roles, syntax) as it:
        uid = transaction()
        assert ask(listener, action(uid, FIRST, SECOND, SECOND)).number(commands.STATUS) == 0
        work(listener.pacs)
        (report,) = it.reports
    assert (report.event_type, report.data_set.TransactionUID) == (1, uid)
    assert (report.committed, report.failed) == ([FIRST, SECOND], {})
    assert "FailedSOPSequence" not in report.data_set
    assert report.data_set.RetrieveAETitle == "PACSLITE"
    assert {item.ReferencedSOPClassUID for item in report.data_set.ReferencedSOPSequence} == {SECONDARY_CAPTURE}
    if roles:
        assert report.called_role == (True, False)
    job = the_job(listener.pacs)
    assert (job.state, job.result, job.error, job.attempts) == ("succeeded", {"committed": 2, "failed": 0}, "", 1)


def blob_path(pacs: Any, sop_instance_uid: str) -> Path:
    (key,) = [info.key for info in pacs.store.list("radiology/") if f"/{sop_instance_uid}/" in info.key]
    return Path(pacs.store.local_path(key))


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o640)
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [flip_a_byte, lambda path: path.write_bytes(path.read_bytes() + b"xx"), Path.unlink])
def test_what_is_damaged_unknown_or_of_another_class_is_told_with_its_reason(
    listener: Listener, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Checklist 130: type 2 with failure reasons 0110H, 0112H, 0119H."""
    damage(blob_path(listener.pacs, SECOND))
    references = [(SECONDARY_CAPTURE, FIRST), (SECONDARY_CAPTURE, SECOND), (CT, THIRD), (CT, "1.2.3.404")]
    with modality(listener.pacs) as it:
        ask(listener, information(transaction(), references))
        work(listener.pacs)
        (report,) = it.reports
    assert report.event_type == 2
    assert report.committed == [FIRST]
    assert report.failed == {SECOND: 0x0110, THIRD: 0x0119, "1.2.3.404": 0x0112}
    assert the_job(listener.pacs).result == {"committed": 1, "failed": 3}
    (logged,) = (record.getMessage() for record in caplog.records if record.levelname == "ERROR")
    assert logged == "storage commitment refused: the stored bytes are damaged"


def test_without_any_success_there_is_no_list_of_them(listener: Listener) -> None:
    with modality(listener.pacs) as it:
        ask(listener, action(transaction(), "1.2.3.404"))
        work(listener.pacs)
    assert "ReferencedSOPSequence" not in it.reports[0].data_set


def test_a_report_is_sent_again_until_it_is_acknowledged(listener: Listener) -> None:
    """Checklist 130: retried until acknowledged."""
    pacs = listener.pacs
    with modality(pacs) as it:
        ask(listener, action(transaction(), FIRST))
        it.status = 0x0110
        work(pacs)
        job = the_job(pacs)
        assert (job.state, job.attempts) == ("queued", 1)
        assert job.error == f"MODALITY at 127.0.0.1:{it.port}: N-EVENT-REPORT was answered with status 0110H"
        report_due(pacs)  # not before the pause is over
        assert len(it.reports) == 1
        it.status = 0
        work(pacs)
        work(pacs)
    assert len(it.reports) == 2
    assert (the_job(pacs).state, the_job(pacs).error) == ("succeeded", "")


def test_a_requester_out_of_reach_or_unknown_or_without_the_service_is_tried_again(listener: Listener) -> None:
    pacs = listener.pacs
    with modality(pacs) as it:
        ask(listener, action(transaction(), FIRST))
        port = it.port
    work(pacs)
    assert the_job(pacs).error == f"MODALITY at 127.0.0.1:{port}: Connection refused"
    peers.remove(pacs.catalog, "MODALITY")
    work(pacs)
    assert the_job(pacs).error.startswith("MODALITY is not a known peer, so there is nowhere to report to")
    known(pacs, "MODALITY", listener.address.port)  # an archive takes no reports in
    work(pacs)
    assert "MODALITY" in the_job(pacs).error
    with modality(pacs) as it:
        work(pacs)
    assert len(it.reports) == 1
    assert the_job(pacs).attempts == 4


def test_the_attempts_are_bounded(listener: Listener) -> None:
    known(listener.pacs, "MODALITY", 1)
    ask(listener, action(transaction(), FIRST))
    listener.pacs.catalog.write(lambda conn: conn.execute(update(models.job).values(attempts=models.job.c.max_attempts - 1)))
    work(listener.pacs)
    assert the_job(listener.pacs).state == "failed"


def test_a_storage_that_is_away_is_waited_out_and_in_the_end_reported(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise StorageError("the storage is away")

    monkeypatch.setattr(type(listener.pacs.store), "open", away)
    with modality(listener.pacs) as it:
        ask(listener, action(transaction(), FIRST))
        for _ in range(4):
            work(listener.pacs)
            assert the_job(listener.pacs).error == "the storage is away"
        assert it.reports == []
        work(listener.pacs)
    assert it.reports[0].failed == {FIRST: 0x0110}


def test_a_job_that_is_cancelled_while_bytes_are_read_is_not_reported(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    pacs, seen = listener.pacs, []
    digests_of = core.digests_of

    def cancelling(stream: Any, also: Any) -> Any:
        seen.append(the_job(pacs).progress_done)
        if len(seen) == 2:
            pacs.catalog.write(lambda conn: jobs.cancel(conn, the_job(pacs).id))
        return digests_of(stream, also)

    monkeypatch.setattr(core, "digests_of", cancelling)
    monkeypatch.setattr(core, "_RENEW_S", 0)
    with modality(pacs) as it:
        ask(listener, action(transaction(), FIRST, SECOND, THIRD))
        work(pacs)
    assert seen == [0, 1]  # the lease was renewed, with how far it is
    assert it.reports == []
    assert the_job(pacs).state == "cancelled"


def test_nothing_is_told_while_the_catalog_is_being_rebuilt(listener: Listener) -> None:
    pacs = listener.pacs
    with modality(pacs) as it:
        pacs.catalog.write(lambda conn: inventory.begin_rebuilding(conn, LONG_AGO))
        ask(listener, action(transaction(), FIRST))
        report_due_after_pause(pacs)
        assert [job.error for job in all_jobs(pacs) if job.kind == core.KIND] == ["the catalog is being rebuilt"]
    assert it.reports == []


def report_due_after_pause(pacs: Any) -> None:
    """One turn of the worker; the job of the rebuild keeps its lease."""
    past = update(models.job).where(models.job.c.kind == core.KIND).values(run_after_at=LONG_AGO)
    pacs.catalog.write(lambda conn: conn.execute(past))
    report_due(pacs)


def test_a_version_that_came_while_damaged_bytes_were_read_counts(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    pacs = listener.pacs
    flip_a_byte(blob_path(pacs, FIRST))
    digests_of, renewed = core.digests_of, []

    def storing(stream: Any, also: Any) -> Any:
        if not renewed:
            renewed.append(keep(pacs, image(study=STUDY, series=f"{STUDY}.1", instance=FIRST, number=77)))
        return digests_of(stream, also)

    monkeypatch.setattr(core, "digests_of", storing)
    with modality(pacs) as it:
        ask(listener, action(transaction(), FIRST))
        work(pacs)
    assert it.reports[0].committed == [FIRST]


def test_a_request_survives_a_restart_and_a_worker_killed_while_it_reports(tmp_path: Path) -> None:
    """Checklist 130: survives restarts."""
    with retrieving(tmp_path) as running, modality(running.pacs) as it:
        keep_images(running.pacs, 1, STUDY)
        ask(running, action(transaction(), FIRST))
        port = it.port
        lapse(running.pacs)
        assert core.claim(running.pacs.catalog, "killed") is not None
    pacs = app.build(Settings(data=tmp_path, dicom=Address("127.0.0.1", 0)))
    try:
        report_due(pacs)
        assert the_job(pacs).state == "running"  # its lease holds
        with modality(pacs) as it:
            assert port != 0
            work(pacs)
        assert [report.committed for report in it.reports] == [[FIRST]]
        assert (the_job(pacs).state, the_job(pacs).attempts) == ("succeeded", 2)
    finally:
        pacs.close()


def test_the_worker_reports_by_itself(listener: Listener) -> None:
    stop = threading.Event()
    with modality(listener.pacs) as it:
        ask(listener, action(transaction(), FIRST))
        task = next(task for task in worker.tasks_of(listener.pacs) if task.name == "commitment.report")
        assert task.calls_peers
        runner = threading.Thread(target=worker.run, args=(listener.pacs, stop, (task,)))
        runner.start()
        try:
            until(lambda: it.reports and the_job(listener.pacs).state == "succeeded")
        finally:
            stop.set()
            runner.join(20)
    assert not runner.is_alive()


# The report on the association of the request


def next_report(peer: Peer) -> tuple[Command, Report]:
    command, data = peer.response()
    assert command.field == 0x0100
    return command, Report(command.number(0x1002), decode(BytesIO(data), False, True))


def report_rsp(request: Command, status: int = 0) -> dict[int, bytes | int]:
    return {0x0002: uid_value(COMMITMENT), 0x0100: 0x8100, 0x0120: request.message_id, 0x0800: 0x0101, 0x0900: status}


def test_an_unknown_requester_is_told_on_its_own_association(listener: Listener) -> None:
    """Checklist 130: on the same association."""
    with listener.peer() as peer:
        peer.associate([(COMMITMENT, (EXPLICIT_LE,)), (VERIFICATION, (IMPLICIT_LE,))], calling="MODALITY")
        numbers = set()
        for expected in ([FIRST, SECOND], [THIRD]):
            peer.request(1, action_rq(), action(transaction(), *expected))
            assert peer.response()[0].field == 0x8130
            command, report = next_report(peer)
            numbers.add(command.message_id)
            assert (report.event_type, report.committed) == (1, expected)
            # The peer may ask for something before it answers.
            assert peer.echo(3) == 0
            peer.request(1, report_rsp(command))
        assert peer.echo(3) == 0
        assert len(numbers) == 2
        peer.release()
    assert [(job.state, job.result) for job in all_jobs(listener.pacs)] == [
        ("succeeded", {"committed": 1, "failed": 0}),
        ("succeeded", {"committed": 2, "failed": 0}),
    ]


def test_pynetdicom_is_told_on_its_own_association(listener: Listener) -> None:
    it = Modality()
    entity = AE("MODALITY")
    entity.add_requested_context(COMMITMENT, [EXPLICIT_LE, IMPLICIT_LE])
    handlers = [(evt.EVT_N_EVENT_REPORT, it.handle)]
    association = entity.associate("127.0.0.1", listener.address.port, ae_title="PACSLITE", evt_handlers=handlers)
    assert association.is_established
    ds = decode(BytesIO(action(transaction(), FIRST, "1.2.3.404")), False, True)
    status, _ = association.send_n_action(ds, 1, COMMITMENT, WELL_KNOWN)
    assert status.Status == 0
    until(lambda: the_job(listener.pacs).state == "succeeded")
    association.release()
    assert it.reports[0].committed == [FIRST]
    assert it.reports[0].failed == {"1.2.3.404": 0x0112}


def test_what_could_not_be_told_on_the_association_goes_back_to_the_queue(listener: Listener) -> None:
    pacs = listener.pacs
    with listener.peer() as peer:
        peer.associate([(COMMITMENT, (EXPLICIT_LE,))], calling="MODALITY")
        peer.request(1, action_rq(), action(transaction(), FIRST))
        peer.response()
        next_report(peer)
        peer.send(pdus.abort_pdu(0, 0))
        assert peer.at_end()
    assert the_job(pacs).state == "running"
    with modality(pacs) as it:
        work(pacs)
    assert it.reports[0].committed == [FIRST]


def test_a_report_that_the_requester_refuses_is_put_off(listener: Listener) -> None:
    with listener.peer() as peer:
        peer.associate([(COMMITMENT, (EXPLICIT_LE,))], calling="MODALITY")
        peer.request(1, action_rq(), action(transaction(), FIRST))
        peer.response()
        command, _ = next_report(peer)
        peer.request(1, report_rsp(command, 0x0113))
        peer.release()
    assert (the_job(listener.pacs).state, the_job(listener.pacs).error) == ("queued", "N-EVENT-REPORT was answered with status 0113H")


def test_a_response_to_no_request_aborts(listener: Listener) -> None:
    with listener.peer() as peer:
        peer.associate([(COMMITMENT, (EXPLICIT_LE,))])
        peer.request(1, report_rsp(commands.decode_command(commands.encode_command({0x0110: 9}))))
        assert peer.expect_abort() == struct.pack("BB", 2, pdus.UNEXPECTED_PARAMETER)


def test_a_peer_that_speaks_while_bytes_are_read_is_served_first(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    digests_of, begun, spoken = core.digests_of, threading.Event(), threading.Event()

    def slow(stream: Any, also: Any) -> Any:
        begun.set()
        assert spoken.wait(20)
        return digests_of(stream, also)

    monkeypatch.setattr(core, "digests_of", slow)
    with listener.peer() as peer:
        peer.associate([(COMMITMENT, (EXPLICIT_LE,)), (VERIFICATION, (IMPLICIT_LE,))], calling="MODALITY")
        peer.request(1, action_rq(), action(transaction(), FIRST, SECOND))
        assert peer.response()[0].number(commands.STATUS) == 0
        assert begun.wait(20)
        peer.request(3, echo_rq())
        spoken.set()
        assert peer.response()[0].field == 0x8030
        command, report = next_report(peer)
        assert report.committed == [FIRST, SECOND]
        peer.request(1, report_rsp(command))
        peer.release()
    assert the_job(listener.pacs).state == "succeeded"


def test_images_sent_on_the_association_come_before_the_check(listener: Listener) -> None:
    """A modality that does not wait between its requests: everything is answered in order, then the report comes."""
    with listener.peer() as peer:
        peer.associate([(COMMITMENT, (EXPLICIT_LE,)), (VERIFICATION, (IMPLICIT_LE,))], calling="MODALITY")
        message = pdus.encode_message(1, commands.encode_command(action_rq()), action(transaction(), FIRST), 16384)
        echo = pdus.encode_message(3, commands.encode_command(echo_rq()), None, 16384)
        peer.send(message + echo)
        assert [peer.response()[0].field for _ in range(3)] == [0x8130, 0x8030, 0x0100]
