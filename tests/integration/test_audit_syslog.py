"""Audit messages of PS3.15 A.5 on their way to a syslog server: TLS (RFC 5425), TCP and UDP, with servers that go away."""

from __future__ import annotations

import base64
import json
import socket
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import pytest
from sqlalchemy import Connection

from pacslite.catalog import audit as rows
from pacslite.catalog.audit import Entry, Event
from pacslite.catalog.database import Catalog
from pacslite.core import audit_chain, audit_syslog, audit_upkeep
from pacslite.core.audit_message import to_syslog, to_xml
from pacslite.core.audit_syslog import Target
from pacslite.errors import ConfigurationError, PeerError
from pacslite.settings import Settings
from tests.support.audit_schema import checked
from tests.support.certificates import Authority, Pair
from tests.support.syslog_server import HEADER, number_of, receiving

AT = "2026-11-21T10:00:00.000000Z"


def message(event: Event, seq: int = 7) -> Element:
    """The event as a message that the schema allows."""
    return checked(to_xml(Entry(seq, replace(event, at=AT), "ab" * 32), "host", "PACSLITE"))


def code(root: Element, name: str) -> str:
    found = root.find(f".//{name}")
    assert found is not None, name
    return found.attrib["csd-code"]


# The messages


@pytest.mark.parametrize(
    ("action", "event_id", "action_code"),
    [
        ("study.read", "110103", "R"),
        ("study.store", "110104", "C"),
        ("study.export", "110102", "E"),
        ("study.delete", "110105", "D"),
        ("series.delete", "110103", "D"),
        ("query", "110112", "E"),
        ("auth.login", "110114", "E"),
        ("auth.logout", "110114", "E"),
        ("association.refuse", "110113", "E"),
        ("association.open", "110108", "E"),
        ("peer.create", "110113", "E"),
        ("user.update", "110113", "E"),
        ("token.create", "110113", "E"),
        ("audit.list", "110101", "R"),
        ("audit.damaged", "110113", "E"),
        ("job.failed", "110100", "E"),
        ("cli.verify", "110100", "E"),
        ("patient.update", "110110", "U"),
        ("share.use", "110106", "E"),
        ("file.upload", "110110", "C"),
        ("something.new", "110100", "E"),
    ],
)
@pytest.mark.parametrize("outcome", ["success", "refused", "failed"])
def test_every_action_is_a_message_of_the_standard(action: str, event_id: str, action_code: str, outcome: str) -> None:
    """PS3.15 A.5.3, and the schema of A.5.1."""
    about: dict[str, Any] = {"study_instance_uid": "1.2.3", "patient_id": 4} if action.startswith(("study", "series")) else {}
    root = message(
        Event(action, outcome, "anna", 1, address="10.0.0.1", request_id="r1", protocol="http", detail={"level": "study"}, **about)
    )
    attributes = root[0].attrib
    assert attributes["EventOutcomeIndicator"] == {"success": "0", "refused": "4", "failed": "8"}[outcome]
    if outcome == "refused" and event_id not in ("110114", "110113"):
        assert (code(root, "EventID"), code(root, "EventTypeCode")) == ("110113", "110132")  # use of a restricted function
    else:
        assert (code(root, "EventID"), attributes["EventActionCode"]) == (event_id, action_code)
    people = root.findall("ActiveParticipant")
    assert [(one.get("UserID"), one.get("UserIsRequestor")) for one in people[:2]] == [("anna", "true"), ("pacslite", "false")]
    assert people[0].get("NetworkAccessPointID") == "10.0.0.1"


def test_a_study_is_named_by_its_uid_and_its_patient_by_the_catalogs_number() -> None:
    root = message(
        Event("study.store", actor="", calling_aet="CT1", study_instance_uid="1.2.3", patient_id=4, detail={"instance_stored": 20})
    )
    study, patient = root.findall("ParticipantObjectIdentification")
    assert (study.get("ParticipantObjectID"), code(study, "ParticipantObjectIDTypeCode")) == ("1.2.3", "110180")
    assert (patient.get("ParticipantObjectID"), patient.get("ParticipantObjectTypeCodeRole")) == ("4", "1")
    assert [one.get("NumberOfInstances") for one in study.iter("SOPClass")] == ["20"]
    roles = [code(one, "RoleIDCode") for one in root.findall("ActiveParticipant")]
    assert roles == ["110153", "110152"]  # the caller is the source, the server the destination
    assert root.findall("ActiveParticipant")[0].get("AlternativeUserID") == "AETITLES=CT1"


def test_a_move_names_its_destination() -> None:
    root = message(Event("study.export", calling_aet="WS1", study_instance_uid="1.2.3", detail={"destination": "WS2"}))
    assert root.findall("ActiveParticipant")[2].get("UserID") == "WS2"


def test_a_query_has_its_keys_and_every_message_its_place_in_the_log() -> None:
    root = message(Event("query", actor="anna", detail={"level": "study", "keys": "PatientName StudyDate"}))
    text = root.findtext(".//ParticipantObjectQuery") or ""
    assert json.loads(base64.b64decode(text)) == {"level": "study", "keys": "PatientName StudyDate"}
    details = {one.get("type"): base64.b64decode(one.get("value", "")).decode() for one in root.iter("ParticipantObjectDetail")}
    assert (details["entry"], details["hash"]) == ("7", "ab" * 32)


def test_hostile_text_stays_text() -> None:
    hostile = "<a>&\"'\u0000\u0007\ud800]]>" + "\u00e9" * 10
    root = message(Event("peer.create", actor=hostile, object_id=hostile, address=hostile, calling_aet=hostile, detail={"reason": hostile}))
    assert "<a>&" in root.findall("ActiveParticipant")[0].attrib["UserID"]


def test_the_envelope_is_of_rfc_5424() -> None:
    framed = to_syslog(Entry(1, Event("auth.login", "refused", "eve", at=AT), "00"), "a host", "PACSLITE", 42)
    found = HEADER.fullmatch(framed)
    assert found is not None
    assert (found[1], found[2], found[3], found[4]) == (b"84", AT.encode(), b"ahost", b"42")
    checked(found[5])


# The way there


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("syslog") / "ca")


@pytest.fixture(scope="module")
def server_pair(authority: Authority) -> Pair:
    return authority.issue("syslog")


def server_context(pair: Pair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return context


def noted(catalog: Catalog, count: int, data: Path) -> None:
    def work(conn: Connection) -> None:
        rows.note_all(conn, [Event("study.read", actor="anna", study_instance_uid=f"1.2.{number}") for number in range(count)])

    catalog.write(work)
    audit_chain.advance(catalog, audit_chain.anchor_of(data))


def send(catalog: Catalog, target: Target) -> int:
    return audit_syslog.send_new(catalog, target, "host", "PACSLITE")


def test_entries_go_over_tls_in_order_and_once(catalog: Catalog, tmp_path: Path, authority: Authority, server_pair: Pair) -> None:
    noted(catalog, 450, tmp_path)
    with receiving(server_context(server_pair)) as receiver:
        target = Target("tls", "127.0.0.1", receiver.port, authority.certificate)
        assert send(catalog, target) == 450
        assert send(catalog, target) == 0
        noted(catalog, 3, tmp_path)
        assert send(catalog, target) == 3
    assert receiver.entries == list(range(1, 454))


def test_nothing_is_lost_while_the_server_is_away(catalog: Catalog, tmp_path: Path, authority: Authority, server_pair: Pair) -> None:
    noted(catalog, 5, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    target = Target("tls", "127.0.0.1", port, authority.certificate)
    with pytest.raises(PeerError, match="audit messages wait"):
        send(catalog, target)
    noted(catalog, 5, tmp_path)
    with receiving(server_context(server_pair), port) as receiver:
        assert send(catalog, target) == 10
    assert receiver.entries == list(range(1, 11))


def test_what_was_under_way_when_the_server_died_is_sent_again(
    catalog: Catalog, tmp_path: Path, authority: Authority, server_pair: Pair
) -> None:
    noted(catalog, 2000, tmp_path)
    with receiving(server_context(server_pair)) as receiver:
        target = Target("tls", "127.0.0.1", receiver.port, authority.certificate)
        receiver.limit = 50_000
        with pytest.raises(PeerError):
            send(catalog, target)
        assert send(catalog, target) == 2000
    assert receiver.entries == list(range(1, 2001))


def test_a_server_that_is_not_who_it_should_be_gets_nothing(catalog: Catalog, tmp_path: Path, authority: Authority) -> None:
    stranger = Authority.make(tmp_path / "stranger")
    noted(catalog, 2, tmp_path)
    for pair in (stranger.issue("syslog"), authority.issue("elsewhere", hosts="DNS:elsewhere.example")):
        with receiving(server_context(pair)) as receiver:
            with pytest.raises(PeerError):
                send(catalog, Target("tls", "127.0.0.1", receiver.port, authority.certificate))
            assert receiver.messages == []


def test_the_server_may_ask_for_a_certificate(catalog: Catalog, tmp_path: Path, authority: Authority, server_pair: Pair) -> None:
    context = server_context(server_pair)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.certificate)
    ours = authority.issue("pacslite")
    both = tmp_path / "both.pem"
    both.write_text(ours.certificate.read_text() + ours.key.read_text())
    noted(catalog, 2, tmp_path)
    with receiving(context) as receiver:
        with pytest.raises(PeerError):
            send(catalog, Target("tls", "127.0.0.1", receiver.port, authority.certificate))
        assert send(catalog, Target("tls", "127.0.0.1", receiver.port, authority.certificate, both)) == 2
    assert receiver.entries == [1, 2]


def test_entries_go_over_tcp_and_udp(catalog: Catalog, tmp_path: Path) -> None:
    noted(catalog, 3, tmp_path)
    with receiving() as receiver:
        assert send(catalog, Target("tcp", "127.0.0.1", receiver.port)) == 3
    assert receiver.entries == [1, 2, 3]
    noted(catalog, 2, tmp_path)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(10)
        assert send(catalog, Target("udp", "127.0.0.1", sock.getsockname()[1])) == 2
        assert [number_of(sock.recv(65536)) for _ in range(2)] == [4, 5]


def test_the_worker_sends_what_the_setting_says(catalog: Catalog, tmp_path: Path) -> None:
    class Parts:
        def __init__(self, target: str) -> None:
            self.settings, self.catalog = Settings(data=tmp_path, audit_syslog=target), catalog

    noted(catalog, 2, tmp_path)
    assert audit_upkeep.send(Parts("")) == 0
    with receiving() as receiver:
        assert audit_upkeep.send(Parts(f"tcp://127.0.0.1:{receiver.port}")) == 2
    assert receiver.entries == [1, 2]


@pytest.mark.parametrize("wrong", ["127.0.0.1", "http://host:1", "tls://", "tls://host:70000", "tls://host:1/path", "tls://a b:1"])
def test_a_wrong_target_is_told(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="audit_syslog"):
        audit_syslog.target_of(Settings(audit_syslog=wrong))


def test_ports_have_defaults() -> None:
    targets = [audit_syslog.target_of(Settings(audit_syslog=f"{one}://[::1]")) for one in ("tls", "tcp", "udp")]
    assert [(one.host, one.port) for one in targets if one] == [("::1", 6514), ("::1", 601), ("::1", 514)]
