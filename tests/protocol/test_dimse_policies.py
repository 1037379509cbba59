"""Calling AE titles, addresses and rights of peers: who may associate, for what, and how refusals are answered and logged."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pacslite.catalog.database import Catalog
from pacslite.catalog.peers import Peer as KnownPeer
from pacslite.core import peers
from pacslite.core.callers import CallerRefused, Callers, Refusal
from pacslite.dimse import commands, pdus
from pacslite.errors import Forbidden
from pacslite.settings import Settings
from tests.support.data_sets import image
from tests.support.dimse import Listener, associate_rq, find_rq, listening, sink_pacs
from tests.support.processes import environment, until
from tests.support.retrieval import keep, keys, known, retrieving
from tests.support.services import OFFER, SERVICES, STUDY, status_of


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    with retrieving(tmp_path_factory.mktemp("open")) as running:
        keep(running.pacs, image(study=STUDY))
        yield running


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    with retrieving(tmp_path_factory.mktemp("closed"), dicom_unknown_callers="refuse") as running:
        known(running.pacs, "MODALITY", 104)
        yield running


def answer_to(listener: Listener, calling: str, **options: Any) -> tuple[int, bytes]:
    with listener.peer() as peer:
        peer.send(associate_rq(calling=calling, **options))
        kind, body = peer.pdu()
        return kind, body[1:]


def test_a_calling_title_that_is_no_peer_is_rejected_and_one_that_is_comes_in(closed: Listener) -> None:
    """Checklist 129: unknown calling AE titles are rejected (1, 1, 3), spaces around them do not count."""
    assert answer_to(closed, "STRANGER") == (pdus.ASSOCIATE_RJ, bytes((1, 1, 3)))
    assert answer_to(closed, "modality") == (pdus.ASSOCIATE_RJ, bytes((1, 1, 3)))
    assert answer_to(closed, "MODALITY")[0] == pdus.ASSOCIATE_AC
    with closed.peer() as peer:
        pdu = bytearray(associate_rq())
        pdu[26:42] = b" MODALITY\0\0\0\0\0\0\0"
        peer.send(bytes(pdu))
        assert peer.pdu()[0] == pdus.ASSOCIATE_AC


@pytest.mark.skipif(not shutil.which("echoscu"), reason="dcmtk is not installed")
def test_dcmtk_is_told_why(closed: Listener) -> None:
    place = ["-aec", "PACSLITE", closed.address.host, str(closed.address.port)]
    done = subprocess.run(["echoscu", "-aet", "STRANGER", *place], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "Calling AE Title Not Recognized" in done.stderr
    assert subprocess.run(["echoscu", "-aet", "MODALITY", *place], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("allowed", SERVICES[:4])
def test_a_peer_does_what_it_may_and_is_answered_0124_to_the_rest(listener: Listener, allowed: str) -> None:
    """Checklist 129: 0124H for what a peer is not allowed to; the association goes on."""
    known(listener.pacs, "LIMITED", 104, (allowed,))
    with listener.peer() as peer:
        peer.associate(OFFER, calling="LIMITED")
        for service in SERVICES[:4]:
            assert (status_of(peer, service) == commands.NOT_AUTHORIZED) is (service != allowed), service
        assert peer.echo(11) == 0
        peer.release()
    assert listener.spool_files == []


def test_commitment_is_for_those_who_may_ask_for_it(listener: Listener) -> None:
    for allow, refused in ((("store",), False), (("find", "move", "get"), True)):
        known(listener.pacs, "LIMITED", 104, allow)
        with listener.peer() as peer:
            peer.associate(OFFER, calling="LIMITED")
            assert (status_of(peer, "commitment") == commands.NOT_AUTHORIZED) is refused


def test_a_change_of_a_peer_counts_at_once_in_every_process_and_for_running_associations(listener: Listener) -> None:
    settings = replace(listener.pacs.settings, dicom_unknown_callers="refuse")
    known(listener.pacs, "CHANGED", 104, ("find",))
    with listening(replace(listener.pacs, settings=settings)) as other, listener.peer() as first, other.peer() as second:
        for peer in (first, second):
            peer.associate(OFFER, calling="CHANGED")
            assert status_of(peer, "find") == commands.SUCCESS
        known(listener.pacs, "CHANGED", 104, ("store",))
        for peer in (first, second):
            assert status_of(peer, "find") == commands.NOT_AUTHORIZED
            assert status_of(peer, "store") != commands.NOT_AUTHORIZED
        peers.remove(listener.pacs.catalog, "CHANGED")
        assert status_of(first, "find") == commands.SUCCESS
        assert status_of(second, "find") == commands.NOT_AUTHORIZED
        assert answer_to(other, "CHANGED")[0] == pdus.ASSOCIATE_RJ
        # A sender of many instances is asked for no more often than once a second.
        until(lambda: status_of(second, "store") == commands.NOT_AUTHORIZED, 10)


def test_refusals_are_logged_without_what_was_asked_about(listener: Listener, closed: Listener, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    known(listener.pacs, "LIMITED", 104, ("store",))
    with listener.peer() as peer:
        peer.associate(OFFER, calling="LIMITED")
        peer.request(3, find_rq(), keys("PATIENT", patient="SECRET^PATIENT"))
        assert peer.response()[0].number(commands.STATUS) == commands.NOT_AUTHORIZED
    answer_to(closed, "STRANGER")
    until(lambda: listener.server.associations == closed.server.associations == 0)
    logged = [record.__dict__ for record in caplog.records]
    (service,) = [entry for entry in logged if entry.get("status") == "0124"]
    assert service["reason"] == "LIMITED may not find"
    (rejected,) = [entry for entry in logged if str(entry.get("outcome", "")).startswith("rejected")]
    assert (rejected["calling_aet"], rejected["address"]) == ("STRANGER", "127.0.0.1")
    assert rejected["outcome"] == "rejected: calling AE title not known"
    assert "SECRET" not in str(logged)


def test_a_catalog_out_of_reach_is_a_passing_refusal(tmp_path: Path) -> None:
    pacs = sink_pacs(tmp_path)
    pacs.catalog = Catalog(f"sqlite:///{tmp_path}/missing/catalog.db")
    with listening(pacs) as running:
        assert answer_to(running, "TESTER") == (pdus.ASSOCIATE_RJ, bytes((2, 3, 1)))


_ELSEWHERE = """
import json, sys
from pathlib import Path
from pacslite import app
from pacslite.settings import Address, Settings
from tests.support.dimse import Peer, associate_rq, listening
from pacslite.catalog.peers import Peer as KnownPeer
from pacslite.core import peers

def outcome(host):
    with Peer(Address(host, running.address.port)) as peer:
        peer.send(associate_rq(calling="MODALITY"))
        kind, body = peer.pdu()
        return [kind, *(body[1:] if kind == 3 else [])]

pacs = app.build(Settings(data=Path(sys.argv[1]), dicom=Address("0.0.0.0", 0)))
pacs.catalog.migrate()
with listening(pacs) as running:
    found = [outcome("127.0.0.1"), outcome("198.51.100.1")]
    for host in ("198.51.100.1", "203.0.113.9"):
        peers.put(pacs.catalog, KnownPeer("MODALITY", host, 104))
        found += [outcome("127.0.0.1"), outcome("198.51.100.1")]
pacs.close()
print(json.dumps(found))
"""


def test_over_a_real_address_of_another_network(tmp_path: Path) -> None:
    """Checklist 129: in a network of its own, where this machine has an address that is not loopback."""
    apart = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && ip addr add 198.51.100.1/32 dev lo && exec "$@"', "sh"]
    if (
        not shutil.which("unshare")
        or not shutil.which("ip")
        or subprocess.run([*apart, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no network namespaces here")
    done = subprocess.run(
        [*apart, sys.executable, "-c", _ELSEWHERE, str(tmp_path)], capture_output=True, text=True, env=environment(), check=False
    )
    assert done.returncode == 0, done.stderr
    accepted, not_known = [pdus.ASSOCIATE_AC], [pdus.ASSOCIATE_RJ, 1, 1, 3]
    assert json.loads(done.stdout) == [accepted, not_known, accepted, accepted, accepted, not_known]


# The policy itself, for addresses that a test has no connections from

MODALITY = KnownPeer("MODALITY", "192.0.2.7", 104, ("store",))


def admit(address: str, aet: str = "STRANGER", **settings: Any) -> Refusal | None:
    """Why the caller is refused, None when it is not."""
    found = {"MODALITY": MODALITY, "LOCAL": replace(MODALITY, host="localhost"), "LOST": replace(MODALITY, host="nowhere.invalid")}
    try:
        Callers(Settings(**settings), found.get).admit(aet, address, None)
    except CallerRefused as error:
        return error.reason
    return None


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_over_loopback_any_caller_comes_in_unless_peers_alone_may(address: str) -> None:
    assert admit(address) is None
    assert admit(address, "MODALITY") is None
    assert admit(address, dicom_unknown_callers="accept") is None
    assert admit(address, dicom_unknown_callers="refuse") is Refusal.UNKNOWN_CALLER
    assert admit(address, "MODALITY", dicom_unknown_callers="refuse") is None


@pytest.mark.parametrize("address", ["192.0.2.7", "10.0.0.1", "2001:db8::7", "fe80::1%eth0", "::ffff:192.0.2.7", "128.0.0.1"])
def test_from_elsewhere_only_peers_come_in_unless_everybody_may(address: str) -> None:
    assert admit(address) is Refusal.UNKNOWN_CALLER
    assert admit(address, dicom_unknown_callers="refuse") is Refusal.UNKNOWN_CALLER
    assert admit(address, dicom_unknown_callers="accept") is None
    mine = address.endswith("192.0.2.7")
    assert admit(address, "MODALITY") is (None if mine else Refusal.WRONG_ADDRESS)
    assert admit(address, "MODALITY", dicom_unknown_callers="accept") is (None if mine else Refusal.WRONG_ADDRESS)
    assert admit(address, "MODALITY", dicom_check_peer_host=False) is None
    assert admit(address, "LOCAL") is Refusal.WRONG_ADDRESS
    assert admit(address, "LOST") is Refusal.WRONG_ADDRESS


def test_a_caller_that_was_let_in_as_a_peer_loses_all_when_it_is_one_no_more() -> None:
    found = {"MODALITY": MODALITY}
    caller = Callers(Settings(), found.get).admit("MODALITY", "192.0.2.7", None)
    caller.check("store")
    with pytest.raises(Forbidden):
        caller.check("find")
    found.clear()
    for service in ("find", "move", "get", "commitment"):
        with pytest.raises(Forbidden):
            caller.check(service)
