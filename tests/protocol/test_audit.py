"""Every way in leaves its event: all routes, all DIMSE services, associations and commands; success and refusal alike."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pacslite import app
from pacslite.catalog.audit import Event, Filter
from pacslite.catalog.database import Catalog
from pacslite.core import audit_chain
from pacslite.core.audit import outcome_of_status, page
from pacslite.core.audit_verify import verify
from pacslite.dimse import commands
from pacslite.web.audit import about
from tests.support.data_sets import CONTENT_TYPE, body, image, part10
from tests.support.dicom_files import element
from tests.support.dimse import (
    EXPLICIT_LE,
    IMPLICIT_LE,
    SECONDARY_CAPTURE,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    VERIFICATION,
    Listener,
    associate_rq,
    echo_rq,
    find_rq,
)
from tests.support.http import WebServer, running
from tests.support.processes import pacslite, until
from tests.support.retrieval import Receiver, converse, get_rq, keep, keys, known, move_rq, receives, receiving, retrieving

STUDY, SERIES, INSTANCE = "1.2.840.1", "1.2.840.1.1", "1.2.840.1.1.1"
VALUES = {
    "study": STUDY,
    "series": SERIES,
    "instance": INSTANCE,
    "frame_list": "1",
    "bulk_path": "7FE00010",
    "transaction": "1.2.3",
    "ae_title": "NOBODY",
    "path": "nothing.js",
}


def events_of(data: Path, **wanted: Any) -> list[Event]:
    """What the log says, oldest first."""
    with closing(Catalog(f"sqlite:///{data / 'catalog.db'}")) as catalog:
        audit_chain.advance(catalog, audit_chain.anchor_of(data))
        return [entry.event for entry in reversed(page(catalog, Filter(**wanted), None, 5000)[0])]


def requests_of(routes: list[Any]) -> list[tuple[Any, str]]:
    """A path for each route, with what is destroyed at the end."""
    order = {"GET": 0, "POST": 1, "PUT": 2, "PATCH": 3, "DELETE": 4}
    found = []
    for route in sorted(routes, key=lambda r: (order.get(r.method, 9), -r.rule.count("/"))):
        path = re.sub(r"<(?:path:)?(\w+)>", lambda m: VALUES.get(m[1], "1"), route.rule)
        found.append((route, path))
    return found


def store(server: WebServer) -> None:
    ds = image(study=STUDY, series=SERIES, instance=INSTANCE)
    answer = server.request("POST", "/studies", body([part10(ds)]), {"Content-Type": CONTENT_TYPE, "X-Request-ID": "the-store"})
    assert answer.status == 200, answer.body


def walk(server: WebServer) -> dict[str, tuple[Any, int]]:
    """Asks every route once; route and status by request id."""
    asked = {}
    for number, (route, path) in enumerate(requests_of(app.routes())):
        answer = replace(server, root="").request(
            route.method,
            path,
            b"{}" if route.method != "GET" else None,
            {"X-Request-ID": f"walk-{number}", "Content-Type": "application/json"},
        )
        asked[f"walk-{number}"] = route, answer.status
    return asked


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[Any, int]]]:
    data = tmp_path_factory.mktemp("walk")
    with running(data, audit_repeat_s="0") as server:
        store(server)
        return data, walk(server)


def test_every_route_leaves_its_event(walked: tuple[Path, dict[str, tuple[Any, int]]]) -> None:
    data, asked = walked
    told: dict[str, list[Event]] = {}
    for event in events_of(data):
        told.setdefault(event.request_id, []).append(event)
    statuses = set()
    for request_id, (route, status) in asked.items():
        found = told.get(request_id, [])
        name = f"{route.method} {route.rule} {status}"
        if about(route) is None:
            assert {event.action for event in found} <= {"share.use"}, name  # which notes itself
            continue
        assert found, name
        assert outcome_of_status(status) in [event.outcome for event in found], name
        assert all(event.address == "127.0.0.1" for event in found), name
        statuses.add(status // 100)
    assert statuses >= {2, 4}


def test_what_leaves_no_event_is_public(walked: tuple[Path, dict[str, tuple[Any, int]]]) -> None:
    """Health, static pages, and what there is to ask; a new public route has to be thought about here."""
    silent = {route.rule for route, _ in walked[1].values() if about(route) is None}
    assert not [rule for rule in silent if "studies" in rule or "/audit" in rule or "/jobs" in rule or "/peers" in rule]
    assert {"/health/live", "/viewer/", "/dicom-web"} <= silent | {"/dicom-web"}


def test_success_tells_who_what_and_whom(walked: tuple[Path, dict[str, tuple[Any, int]]]) -> None:
    data, asked = walked
    reads = [event for event in events_of(data, action="study.read", outcome="success") if event.request_id in asked]
    assert len(reads) > 8
    patients = {event.patient_id for event in reads}
    assert {(event.study_instance_uid, event.object_type, event.actor) for event in reads} == {(STUDY, "study", "local")}
    assert len(patients) == 1
    assert None not in patients
    (stored,) = [event for event in events_of(data, action="study.store") if event.request_id == "the-store"]
    assert (stored.study_instance_uid, stored.patient_id, dict(stored.detail)["instance_stored"]) == (STUDY, *patients, 1)
    deletions = [event for event in events_of(data) if event.action.endswith(".delete") and event.outcome == "success"]
    assert "instance.delete" in {event.action for event in deletions}


def test_without_credentials_every_route_leaves_a_refusal(tmp_path: Path) -> None:
    with running(tmp_path, auth="1", audit_repeat_s="0") as server:
        asked = walk(server)
    told = {event.request_id: event for event in events_of(tmp_path)}
    refused = 0
    for request_id, (route, status) in asked.items():
        if about(route) is not None:
            assert request_id in told, f"{route.method} {route.rule} {status}"
        if status == 401 and about(route) is not None:
            assert told[request_id].outcome in ("refused", "failed")
            refused += 1
    assert refused > 40


def test_frames_of_a_study_are_one_entry_and_a_count(tmp_path: Path) -> None:
    frame = f"/studies/{STUDY}/series/{SERIES}/instances/{INSTANCE}/frames/1"
    with running(tmp_path) as server:
        store(server)
        for _ in range(30):
            assert server.get(frame).status == 200
        assert [event.detail.get("repeats") for event in events_of(tmp_path, action="study.read")] == [None]
    assert [event.detail.get("repeats") for event in events_of(tmp_path, action="study.read")] == [None, 29]


def test_a_query_is_told_without_its_values(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        assert server.get("/studies?PatientName=SECRET*&StudyDate=20260101-").status == 204
    (event,) = events_of(tmp_path, action="query")
    assert dict(event.detail) == {"level": "studies", "keys": "PatientName StudyDate"}


def test_nothing_is_given_out_that_cannot_be_put_on_record(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        store(server)
        with closing(Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")) as catalog:
            catalog.write(lambda conn: conn.exec_driver_sql("DROP TABLE audit_pending"))
        answer = server.get(f"/studies/{STUDY}/metadata")
    assert answer.status == 503
    assert STUDY.encode() not in answer.body


def test_the_log_is_searched_over_rest(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        api = replace(server, root="/api/v1")
        store(server)
        server.get(f"/studies/{STUDY}/metadata")
        server.get("/studies?StudyDate=20260101")

        def found(query: str) -> dict[str, Any]:
            answer = api.get(f"/audit{query}")
            assert answer.status == 200, answer.body
            told: dict[str, Any] = json.loads(answer.body)
            return told

        everything = found("")
        assert {"study.store", "study.read", "query"} <= {item["action"] for item in everything["items"]}
        one = found(
            f"?action=study.read&study_instance_uid={STUDY}&outcome=success&actor=local&since=2020-01-01&until=2999-01-01T00:00:00Z"
        )
        (item,) = one["items"]
        assert (item["patient_id"], item["object_id"], len(item["hash"])) == (
            found("?action=study.store")["items"][0]["patient_id"],
            STUDY,
            64,
        )
        assert found(f"?patient_id={item['patient_id']}")["total"] >= 2
        assert found("?since=2999-01-01")["items"] == []
        first = found("?limit=2")
        following = json.loads(api.get(first["next"].partition("/api/v1")[2]).body)
        assert first["items"][-1]["id"] > following["items"][0]["id"]
        for wrong in ("patient_id=x", "since=yesterday", "outcome=perhaps", "unknown=1", "since=2026-13-01"):
            assert api.get(f"/audit?{wrong}").status == 422 or api.get(f"/audit?{wrong}").status == 400, wrong
        job = api.request("POST", "/audit/verify", b"")
        assert job.status == 202, job.body


# DIMSE


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    with retrieving(tmp_path_factory.mktemp("dimse")) as running_listener:
        keep(running_listener.pacs, image(study=STUDY, series=SERIES, instance=INSTANCE))
        yield running_listener


def since(listener: Listener, mark: int) -> list[Event]:
    """Events behind a number."""
    listener.pacs.audit.flush()
    audit_chain.advance(listener.pacs.catalog, audit_chain.anchor_of(listener.pacs.settings.data))
    entries = page(listener.pacs.catalog, Filter(), None, 1000)[0]
    return [entry.event for entry in reversed(entries) if entry.seq > mark]


def mark_of(listener: Listener) -> int:
    since(listener, 0)
    entries = page(listener.pacs.catalog, Filter(), None, 1)[0]
    return entries[0].seq if entries else 0


def named(events: list[Event], action: str) -> Event:
    found = [event for event in events if event.action == action]
    assert len(found) == 1, (action, events)
    return found[0]


def test_an_association_and_what_it_asks_are_recorded(listener: Listener) -> None:
    mark = mark_of(listener)
    offer = [
        (VERIFICATION, (IMPLICIT_LE,)),
        (STUDY_ROOT_FIND, (EXPLICIT_LE,)),
        (STUDY_ROOT_GET, (EXPLICIT_LE,)),
        (SECONDARY_CAPTURE, (EXPLICIT_LE,)),
    ]
    with listener.peer() as peer:
        peer.associate(offer, calling="AUDITED", user=receives(SECONDARY_CAPTURE))
        assert peer.echo() == commands.SUCCESS
        peer.request(3, find_rq(), keys("STUDY") + element(0x00100010, "PN", b"SECRET* "))
        converse(peer)
        peer.request(5, get_rq(), keys("STUDY", study=STUDY))
        assert converse(peer).status == commands.SUCCESS
        peer.release()
    events = since(listener, mark)
    assert {event.calling_aet for event in events} == {"AUDITED"}
    opened, closed = named(events, "association.open"), named(events, "association.close")
    assert opened.object_id == closed.object_id == named(events, "echo").request_id
    assert (closed.outcome, closed.detail["end"]) == ("success", "released")
    assert dict(named(events, "query").detail) == {"level": "study", "keys": "PatientName"}
    read = named(events, "study.read")
    assert (read.study_instance_uid, read.outcome, read.address) == (STUDY, "success", "127.0.0.1")
    assert read.patient_id is not None
    assert "SECRET" not in repr(events)


def test_what_is_stored_is_recorded_with_its_association(listener: Listener) -> None:
    mark = mark_of(listener)
    with listener.peer() as peer:
        peer.associate([(SECONDARY_CAPTURE, (EXPLICIT_LE,))], calling="STORER")
        for number in (1, 2):
            ds = image(study="1.2.840.2", series="1.2.840.2.1", instance=f"1.2.840.2.1.{number}")
            whole = part10(ds)
            data_set = whole[144 + int.from_bytes(whole[140:144], "little") :]
            status = peer.store(data_set, sop_class=SECONDARY_CAPTURE, sop_instance=ds.SOPInstanceUID)
            assert status.number(commands.STATUS) == commands.SUCCESS
        assert peer.store(b"nonsense", sop_class=SECONDARY_CAPTURE, sop_instance="1.2").number(commands.STATUS) != 0
        peer.release()
    events = since(listener, mark)
    stored, failed = [event for event in events if event.action == "study.store"][::-1]
    if stored.outcome != "success":
        stored, failed = failed, stored
    assert (stored.study_instance_uid, stored.detail["instance_stored"], stored.calling_aet) == ("1.2.840.2", 2, "STORER")
    assert stored.request_id == named(events, "association.open").object_id
    assert (failed.outcome, failed.request_id) == ("failed", stored.request_id)


def test_a_move_tells_where_to(listener: Listener) -> None:
    mark = mark_of(listener)
    receiver = Receiver()
    with receiving(receiver), listener.peer() as peer:
        known(listener.pacs, "WS2", receiver.port)
        peer.associate([(STUDY_ROOT_MOVE, (EXPLICIT_LE,))], calling="MOVER")
        peer.request(1, move_rq("WS2", STUDY_ROOT_MOVE), keys("STUDY", study=STUDY))
        assert converse(peer).status == commands.SUCCESS
        peer.request(1, move_rq("NOWHERE", STUDY_ROOT_MOVE, 2), keys("STUDY", study=STUDY))
        converse(peer)
        peer.release()
    exports = [event for event in since(listener, mark) if event.action == "study.export"]
    assert [(event.outcome, event.detail.get("destination")) for event in exports][:1] == [("success", "WS2")]
    assert "failed" in {event.outcome for event in exports}


def test_refused_associations_are_recorded(listener: Listener) -> None:
    mark = mark_of(listener)
    with listener.peer() as peer:
        peer.send(associate_rq(called="SOMEBODY", calling="STRANGER"))
        peer.pdu()
    with listener.peer() as peer:
        peer.send(b"GET / HTTP/1.1\r\n\r\n")
        peer.pdu()
    refused = [event for event in since(listener, mark) if event.action == "association.refuse"]
    assert [(event.outcome, event.calling_aet) for event in refused] == [("refused", "STRANGER"), ("refused", "")]
    assert all(event.detail["reason"] and event.address == "127.0.0.1" for event in refused)


def test_a_service_that_a_peer_may_not_use_is_recorded(listener: Listener) -> None:
    known(listener.pacs, "ONLYSTORE", 11112, ("store",))
    mark = mark_of(listener)
    with listener.peer() as peer:
        peer.associate([(STUDY_ROOT_FIND, (EXPLICIT_LE,))], calling="ONLYSTORE")
        peer.request(1, find_rq(), keys("STUDY") + element(0x00100010, "PN", b"* "))
        assert converse(peer).status == commands.NOT_AUTHORIZED
        peer.release()
    assert named(since(listener, mark), "query").outcome == "refused"


@pytest.mark.parametrize("field", sorted(commands.REQUESTS))
def test_every_dimse_request_leaves_an_event(listener: Listener, field: int) -> None:
    """Those that are not served too."""
    mark = mark_of(listener)
    with listener.peer() as peer:
        peer.associate([(VERIFICATION, (IMPLICIT_LE,))], calling=f"F{field:04X}")
        peer.request(1, {**echo_rq(), 0x0100: field})
        peer.response()
        peer.release()
    events = [event for event in since(listener, mark) if not event.action.startswith("association")]
    assert len(events) == 1, events


def test_an_association_that_breaks_off_is_recorded_as_such(listener: Listener) -> None:
    mark = mark_of(listener)
    with listener.peer() as peer:
        peer.associate([(VERIFICATION, (IMPLICIT_LE,))], calling="BROKEN")
        peer.send(b"\x99\0\0\0\0\0")
        peer.expect_abort()
    until(lambda: any(event.action == "association.close" for event in since(listener, mark)))
    assert named(since(listener, mark), "association.close").outcome == "failed"
    assert verify(listener.pacs.catalog, audit_chain.anchor_of(listener.pacs.settings.data)).is_whole


# Commands


def test_commands_are_recorded_and_the_log_is_verified_by_one(tmp_path: Path) -> None:
    data = ("--data", tmp_path)
    assert pacslite("migrate", *data).returncode == 0
    assert pacslite("peer", "add", "CT1", "127.0.0.1", "104", *data).returncode == 0
    listed = pacslite("audit", "list", "--json", *data)
    actions = [item["action"] for item in json.loads(listed.stdout)]
    assert {"cli.peer.add", "peer.create", "cli.audit.list"} <= set(actions)
    assert json.loads(pacslite("audit", "list", "--json", "--action", "peer.create", *data).stdout)[0]["object_id"] == "CT1"
    verified = pacslite("audit", "verify", "--json", *data)
    assert (verified.returncode, json.loads(verified.stdout)["problems"]) == (0, [])
    exported = pacslite("audit", "export", "--form", "dicom", *data)
    assert exported.stdout.count("<AuditMessage>") == len(exported.stdout.splitlines()) > 3
    with closing(Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")) as catalog:
        catalog.write(lambda conn: conn.exec_driver_sql("UPDATE audit_event SET object_id = 'CT2' WHERE seq = 2"))
    damaged = pacslite("audit", "verify", *data)
    assert damaged.returncode == 1
    assert "entry 2 is not what was written" in damaged.stdout


def test_what_is_sent_to_a_peer_is_recorded_for_each_study(listener: Listener) -> None:
    import threading

    from pacslite import job_kinds
    from pacslite.core import remote_store
    from pacslite.core.retrieve import Resource

    mark = mark_of(listener)
    receiver = Receiver()
    with receiving(receiver):
        known(listener.pacs, "WS3", receiver.port)
        job = remote_store.queue(listener.pacs, "WS3", [Resource(STUDY)], "anna")
        job_kinds.runner(listener.pacs, threading.Event()).run_next()
    events = since(listener, mark)
    export = named(events, "study.export")
    assert (export.actor, export.study_instance_uid, export.request_id, export.protocol) == ("anna", STUDY, job.uid, "job")
    assert dict(export.detail) == {"destination": "WS3", "instances": 1}
    assert {"job.queued", "job.succeeded"} <= {event.action for event in events}
