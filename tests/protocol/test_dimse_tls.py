"""DICOM over TLS (PS3.15 B.12, BCP 195): who is let in, what is refused, and that nobody waits for anybody."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt

from pacslite.catalog.peers import Peer as KnownPeer
from pacslite.dimse import commands, pdus, send, tls
from pacslite.dimse.peers import echo
from pacslite.errors import ConfigurationError, PeerError
from pacslite.settings import Address, Settings
from tests.support.certificates import Authority, Pair
from tests.support.data_sets import image, part10
from tests.support.dimse import (
    CT,
    EXPLICIT_LE,
    SECONDARY_CAPTURE,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    VERIFICATION,
    Listener,
    Peer,
    associate_rq,
    cancel_rq,
    listening,
    sink_pacs,
)
from tests.support.processes import environment, pacslite, serving, until
from tests.support.retrieval import converse, get_rq, keep, keep_images, keys, known, move_rq, receives, retrieving

STUDY, COUNT = "1.2.9", 5
needs_dcmtk = pytest.mark.skipif(not shutil.which("storescu"), reason="dcmtk is not installed")


@dataclass(frozen=True)
class Certificates:
    """What the tests have: one authority for servers and clients, and one that nobody trusts."""

    authority: Authority
    server: Pair
    client: Pair
    elsewhere: Pair
    stranger: Pair

    def settings(self, **more: Any) -> dict[str, Any]:
        """Settings of a listener."""
        ours = {
            "dicom_tls_certificate": self.server.certificate,
            "dicom_tls_key": self.server.key,
            "dicom_tls_ca": self.authority.certificate,
        }
        return {"dicom_tls": Address("127.0.0.1", 0), **ours, **more}

    def client_context(self, pair: Pair | None = None) -> ssl.SSLContext:
        """What a client uses that trusts the authority."""
        return self.authority.client_context(pair)

    def dcmtk(self, pair: Pair | None = None) -> list[str]:
        """Options of dcmtk's tools."""
        pair = pair or self.client
        return ["+tls", str(pair.key), str(pair.certificate), "+cf", str(self.authority.certificate)]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    place = tmp_path_factory.mktemp("certificates")
    authority, other = Authority.make(place / "ours"), Authority.make(place / "other")
    elsewhere = authority.issue("elsewhere", hosts="DNS:elsewhere.example")
    return Certificates(authority, authority.issue("server"), authority.issue("client"), elsewhere, other.issue("stranger"))


@pytest.fixture(scope="module")
def listener(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    with retrieving(tmp_path_factory.mktemp("tls"), **certificates.settings()) as running:
        yield running


@pytest.fixture(scope="module")
def stored(listener: Listener) -> dict[str, bytes]:
    return keep_images(listener.pacs, COUNT, STUDY)


def door(listener: Listener) -> Address:
    """Where TLS is spoken."""
    assert listener.server.tls_address is not None
    return listener.server.tls_address


class SecurePeer(Peer):
    """Raw PDUs over TLS."""

    def __init__(self, address: Address, context: ssl.SSLContext) -> None:
        super().__init__(address)
        self.sock = context.wrap_socket(self.sock, server_hostname=address.host)


@contextmanager
def sink(tmp_path: Path, certificates: Certificates, **settings: Any) -> Iterator[Listener]:
    """A listener with nothing behind it."""
    with listening(sink_pacs(tmp_path, **certificates.settings(**settings))) as running:
        yield running


def assert_serves(address: Address, context: ssl.SSLContext) -> str:
    """C-ECHO over TLS; the version of TLS."""
    with SecurePeer(address, context) as peer:
        peer.associate()
        assert peer.echo() == 0
        peer.release()
        return str(peer.sock.version())  # type: ignore[attr-defined]


def refused(address: Address, context: ssl.SSLContext) -> str:
    """How an attempt ends that has to fail."""
    with pytest.raises((OSError, EOFError)) as ended, SecurePeer(address, context) as peer:
        peer.associate()
    return str(ended.value)


def run(tool: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


@needs_dcmtk
@pytest.mark.parametrize("profile", ["+py", "+px", "+pz"])
def test_echo_by_dcmtk_in_its_profiles_of_bcp_195(listener: Listener, certificates: Certificates, profile: str) -> None:
    where = door(listener)
    done = run("echoscu", *certificates.dcmtk(), profile, "-aec", "PACSLITE", where.host, str(where.port))
    assert done.returncode == 0, done.stderr


@needs_dcmtk
def test_store_and_find_by_dcmtk(listener: Listener, certificates: Certificates, tmp_path: Path) -> None:
    """Checklist 129: over TLS as well."""
    study, where = generate_uid(), door(listener)
    (tmp_path / "a.dcm").write_bytes(part10(image(study=study)))
    place = ["-aec", "PACSLITE", where.host, str(where.port)]
    done = run("storescu", *certificates.dcmtk(), *place, tmp_path / "a.dcm")
    assert done.returncode == 0, done.stderr
    wanted = ["-S", "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}", "-k", "PatientID"]
    found = run("findscu", *certificates.dcmtk(), "-v", *wanted, *place)
    assert study in found.stdout + found.stderr
    (key,) = listener.pacs.store.list(f"radiology/{study}/")
    assert listener.pacs.store.local_path(key.key).read_bytes().endswith((tmp_path / "a.dcm").read_bytes()[-96:])


@needs_dcmtk
def test_move_to_dcmtk_over_tls(listener: Listener, certificates: Certificates, stored: dict[str, bytes], tmp_path: Path) -> None:
    """Checklist 125: to a receiver that shows its certificate and wants ours; dcmtk's movescu asks without TLS, pynetdicom with it."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    receiver = subprocess.Popen(["storescp", *certificates.dcmtk(certificates.server), "-od", str(tmp_path), str(port)])
    plain, where = listener.address, door(listener)
    keys = ["-S", "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY}"]
    wanted = Dataset()
    wanted.QueryRetrieveLevel, wanted.StudyInstanceUID = "STUDY", STUDY
    entity = AE("WORKSTATION")
    entity.add_requested_context(STUDY_ROOT_MOVE, EXPLICIT_LE)
    try:
        until(lambda: is_open(port))
        known(listener.pacs, "STORESCP", port, tls=True)
        done = run("movescu", "-v", *keys, "-aec", "PACSLITE", "-aem", "STORESCP", plain.host, str(plain.port))
        assert "Received Final Move Response (Success)" in done.stdout + done.stderr
        assert sorted(dcmread(file).SOPInstanceUID for file in tmp_path.iterdir()) == sorted(stored)
        context = certificates.client_context(certificates.client)
        association = entity.associate(where.host, where.port, ae_title="PACSLITE", tls_args=(context, "127.0.0.1"))
        answers = [status for status, _ in association.send_c_move(wanted, "STORESCP", STUDY_ROOT_MOVE)]
        association.release()
    finally:
        os.kill(receiver.pid, signal.SIGTERM)
        receiver.wait(20)
    assert (answers[-1].Status, answers[-1].NumberOfCompletedSuboperations) == (0, COUNT)


@pytest.mark.parametrize("pair", ["stranger", "elsewhere"])
@needs_dcmtk
def test_nothing_goes_to_a_move_destination_whose_certificate_is_not_right(
    listener: Listener, certificates: Certificates, stored: dict[str, bytes], tmp_path: Path, pair: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    receiver = subprocess.Popen(["storescp", "-ic", *certificates.dcmtk(getattr(certificates, pair)), "-od", str(tmp_path), str(port)])
    try:
        until(lambda: is_open(port))
        known(listener.pacs, "FALSE", port, tls=True)
        with listener.peer() as peer:
            peer.associate([(STUDY_ROOT_MOVE, [EXPLICIT_LE])])
            peer.request(1, move_rq("FALSE", STUDY_ROOT_MOVE), keys("STUDY", study=STUDY))
            outcome = converse(peer)
    finally:
        os.kill(receiver.pid, signal.SIGTERM)
        receiver.wait(20)
    assert (outcome.status, outcome.counts) == (0xA702, (None, 0, COUNT, 0))
    assert "FALSE at 127.0.0.1" in outcome.comment
    assert list(tmp_path.iterdir()) == []


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_store_by_pynetdicom(listener: Listener, certificates: Certificates) -> None:
    entity = AE("MODALITY")
    entity.add_requested_context(SECONDARY_CAPTURE, EXPLICIT_LE)
    where = door(listener)
    context = certificates.client_context(certificates.client)
    association = entity.associate(where.host, where.port, ae_title="PACSLITE", tls_args=(context, "127.0.0.1"))
    assert association.is_established
    assert association.send_c_store(dcmread(BytesIO(part10(image())))).Status == 0
    association.release()


@pytest.mark.parametrize(
    ("options", "alert"),
    [
        (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], ""),
        (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"], ""),
        (["-tls1_3"], ""),
        (["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"], "protocol version"),
        (["-tls1", "-cipher", "DEFAULT@SECLEVEL=0"], "protocol version"),
        (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"], "handshake failure"),
        (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256"], "handshake failure"),
        (["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"], "handshake failure"),
    ],
)
def test_old_versions_and_weak_ciphers_are_refused(listener: Listener, certificates: Certificates, options: list[str], alert: str) -> None:
    shown = ["-cert", str(certificates.client.certificate), "-key", str(certificates.client.key)]
    command = ["openssl", "s_client", "-connect", door(listener).text, *shown, *options]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode == 0) is (alert == "")
    assert f"alert {alert}" in done.stderr if alert else "alert" not in done.stderr


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken_and_by_setting_1_3_alone(tmp_path: Path, certificates: Certificates, version: ssl.TLSVersion) -> None:
    context = certificates.client_context(certificates.client)
    context.minimum_version = context.maximum_version = version
    with sink(tmp_path / "a", certificates) as both:
        assert assert_serves(door(both), context) == version.name.replace("v1_", "v1.")
    with sink(tmp_path / "b", certificates, dicom_tls_version="1.3") as newest:
        if version is ssl.TLSVersion.TLSv1_3:
            assert_serves(door(newest), context)
        else:
            refused(door(newest), context)


@pytest.mark.parametrize(
    ("policy", "nobody", "ours", "stranger"),
    [("required", False, True, False), ("optional", True, True, False), ("none", True, True, True)],
)
def test_certificates_of_callers_by_setting(
    tmp_path: Path, certificates: Certificates, policy: str, nobody: bool, ours: bool, stranger: bool
) -> None:
    shown = {None: nobody, certificates.client: ours, certificates.stranger: stranger}
    with sink(tmp_path, certificates, dicom_tls_client_certificates=policy) as running:
        for pair, let_in in shown.items():
            context = certificates.client_context(pair)
            if let_in:
                assert_serves(door(running), context)
            else:
                refused(door(running), context)
        until(lambda: running.server.associations == 0)


def test_plain_dicom_at_the_door_of_tls_is_turned_away_and_the_other_way_round(listener: Listener, certificates: Certificates) -> None:
    with Peer(door(listener)) as peer:
        peer.send(associate_rq())
        # An alert, perhaps, and the end: nothing of DICOM.
        assert peer.sock.recv(1) in (b"", b"\x15")
    refused(listener.address, certificates.client_context(certificates.client))
    assert_serves(door(listener), certificates.client_context(certificates.client))


def test_one_port_for_tls_alone_when_both_settings_name_it(tmp_path: Path, certificates: Certificates) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        address = Address("127.0.0.1", held.getsockname()[1])
    with sink(tmp_path, certificates, dicom=address, dicom_tls=address) as running:
        assert running.address == door(running) == address
        assert_serves(address, certificates.client_context(certificates.client))
        with Peer(address) as peer:
            peer.send(associate_rq())
            assert peer.sock.recv(1) in (b"", b"\x15")


def test_those_who_never_finish_their_handshake_hold_nobody_and_are_dropped(tmp_path: Path, certificates: Certificates) -> None:
    """PS3.8 9.1.5: the ARTIM timer runs from the connection on, handshake included."""
    hello = client_hello(certificates)
    with sink(tmp_path, certificates, acse_timeout_s=1) as running, ExitStack() as stack:
        silent = [stack.enter_context(Peer(door(running))) for _ in range(30)]
        for number, peer in enumerate(silent):
            peer.send(hello[: number * len(hello) // 30])
        shaken = stack.enter_context(SecurePeer(door(running), certificates.client_context(certificates.client)))
        assert_serves(door(running), certificates.client_context(certificates.client))
        with running.peer() as plain:
            plain.associate()
            assert plain.echo() == 0
        assert all(peer.at_end() for peer in silent)
        assert shaken.at_end()


def client_hello(certificates: Certificates) -> bytes:
    """The first flight of a client."""
    out = ssl.MemoryBIO()
    client = certificates.client_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


def test_a_garbled_handshake_at_any_place_stops_nothing(tmp_path: Path, certificates: Certificates) -> None:
    hello = client_hello(certificates)
    with sink(tmp_path, certificates) as running:
        for at in range(0, len(hello), max(len(hello) // 40, 1)):
            with Peer(door(running)) as peer:
                peer.send(hello[:at] + bytes((hello[at] ^ 0xFF,)) + hello[at + 1 :])
                peer.sock.shutdown(socket.SHUT_WR)
                while peer.sock.recv(4096):
                    pass
        assert_serves(door(running), certificates.client_context(certificates.client))


def shown_by(address: Address, certificates: Certificates) -> bytes:
    """The certificate that a server shows."""
    with SecurePeer(address, certificates.client_context(certificates.client)) as peer:
        return bytes(peer.sock.getpeercert(binary_form=True))  # type: ignore[attr-defined]


def test_new_certificates_count_without_a_restart_and_damaged_ones_do_not(tmp_path: Path, certificates: Certificates) -> None:
    used = Pair(tmp_path / "used.pem", tmp_path / "used.key")

    def use(pair: Pair) -> None:
        for source, target in ((pair.key, used.key), (pair.certificate, used.certificate)):
            (tmp_path / "new").write_bytes(source.read_bytes())
            (tmp_path / "new").replace(target)

    use(certificates.server)
    settings = {"dicom_tls_certificate": used.certificate, "dicom_tls_key": used.key}
    with sink(tmp_path / "data", certificates, **settings) as running:
        before = shown_by(door(running), certificates)
        with SecurePeer(door(running), certificates.client_context(certificates.client)) as established:
            established.associate()
            use(certificates.client)
            after = shown_by(door(running), certificates)
            assert ssl.DER_cert_to_PEM_cert(before).strip() in certificates.server.certificate.read_text()
            assert ssl.DER_cert_to_PEM_cert(after).strip() in certificates.client.certificate.read_text()
            used.certificate.write_text("not a certificate")
            assert shown_by(door(running), certificates) == after
            used.certificate.unlink()
            assert shown_by(door(running), certificates) == after
            use(certificates.server)
            assert shown_by(door(running), certificates) == before
            assert established.echo() == 0


@pytest.mark.parametrize("wrong", ["dicom_tls_certificate", "dicom_tls_key", "dicom_tls_ca"])
def test_files_that_are_no_good_are_told_at_the_start(tmp_path: Path, certificates: Certificates, wrong: str) -> None:
    settings = certificates.settings(**{wrong: tmp_path / "missing.pem"})
    with pytest.raises(ConfigurationError, match=wrong):
        tls.incoming(Settings(**settings))
    (tmp_path / "missing.pem").write_text("nothing")
    with pytest.raises(ConfigurationError, match=wrong):
        tls.incoming(Settings(**settings))


def test_two_listeners_share_the_port_of_tls(tmp_path: Path, certificates: Certificates) -> None:
    with sink(tmp_path / "a", certificates, dimse_processes=2) as first:
        pacs = sink_pacs(tmp_path / "b", **certificates.settings(dimse_processes=2, dicom=first.address, dicom_tls=door(first)))
        with listening(pacs) as second, ExitStack() as stack:
            context = certificates.client_context(certificates.client)
            for _ in range(40):
                stack.enter_context(SecurePeer(door(second), context)).associate()
            assert first.server.associations + second.server.associations == 40
            assert first.server.associations > 0 < second.server.associations


def test_large_messages_pass_whole_in_both_directions(listener: Listener, certificates: Certificates, tmp_path: Path) -> None:
    ds = image(np.random.default_rng(1).integers(0, 4096, (3, 1024, 1024), "u2"))
    data, context = keep(listener.pacs, ds), certificates.client_context(certificates.client)
    with SecurePeer(door(listener), context) as peer:
        offer = [(STUDY_ROOT_GET, [EXPLICIT_LE]), (SECONDARY_CAPTURE, [EXPLICIT_LE])]
        peer.associate(offer, user=receives(SECONDARY_CAPTURE), max_pdu=0)
        peer.request(1, get_rq(), keys("STUDY", study=ds.StudyInstanceUID))
        outcome = converse(peer)
        peer.release()
    assert outcome.status == 0
    assert outcome.stored == {ds.SOPInstanceUID: data}
    with sink(tmp_path, certificates) as running, SecurePeer(door(running), context) as peer:
        peer.associate([(CT, [EXPLICIT_LE])])
        peer.max_pdu = 131072
        assert peer.store(data).number(commands.STATUS) == 0
        assert running.pacs.ingest.received[0].endswith(data)


def test_a_cancel_that_came_in_one_record_with_the_request_is_seen(listener: Listener, certificates: Certificates, stored: object) -> None:
    """Of the last record the first part fills the reader's buffer; the cancel stays where only the TLS layer sees it."""
    fill = "\\1.2.3"
    room = 16384 - 12 - len(keys("STUDY", study=""))
    studies = (STUDY + fill * room)[:room].rstrip(".\\").ljust(room, "4")
    data_set = pdus.encode_message(1, b"", keys("STUDY", study=studies), 0)[12:]
    assert len(data_set) == 16384
    with SecurePeer(door(listener), certificates.client_context(certificates.client)) as peer:
        peer.associate([(STUDY_ROOT_GET, [EXPLICIT_LE]), (SECONDARY_CAPTURE, [EXPLICIT_LE])], user=receives(SECONDARY_CAPTURE))
        peer.send(pdus.encode_message(1, commands.encode_command(get_rq()), None, 0))
        peer.send(data_set[:6000])
        peer.send(data_set[6000:] + pdus.encode_message(1, commands.encode_command(cancel_rq()), None, 0))
        outcome = converse(peer)
        assert (outcome.status, outcome.counts) == (commands.CANCELLED, (COUNT, 0, 0, 0))


def test_stopping_says_goodbye_encrypted(tmp_path: Path, certificates: Certificates) -> None:
    with sink(tmp_path, certificates) as running, SecurePeer(door(running), certificates.client_context(certificates.client)) as peer:
        peer.associate()
        running.server.stop(grace_s=5)
        assert peer.expect_abort() == bytes((0, pdus.NO_REASON))


# Outwards


def called(listener: Listener, **more: Any) -> KnownPeer:
    return replace(KnownPeer("PACSLITE", "127.0.0.1", door(listener).port, tls=True), **more)


def calling(certificates: Certificates, **more: Any) -> Settings:
    return Settings(
        **{
            **certificates.settings(),
            "dicom_tls_certificate": certificates.client.certificate,
            "dicom_tls_key": certificates.client.key,
            **more,
        }
    )


def test_echo_of_our_own_listener(listener: Listener, certificates: Certificates) -> None:
    assert echo(called(listener), "TESTER", security=calling(certificates)) > 0
    assert echo(called(listener, host="localhost"), "TESTER", security=calling(certificates)) > 0


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (lambda c: {"dicom_tls_ca": c.stranger.certificate}, "certificate not accepted"),
        (lambda c: {"dicom_tls_ca": None}, "certificate not accepted"),
        (lambda c: {"dicom_tls_certificate": None, "dicom_tls_key": None}, "PACSLITE at 127.0.0.1"),
        (lambda c: {"dicom_tls_certificate": Path("/nowhere.pem")}, "No such file"),
    ],
)
def test_a_peer_that_cannot_be_trusted_or_does_not_trust_us_is_told(
    listener: Listener, certificates: Certificates, settings: Callable[[Certificates], dict[str, Any]], reason: str
) -> None:
    with pytest.raises(PeerError, match=reason):
        echo(called(listener), "TESTER", security=calling(certificates, **settings(certificates)))


def test_the_name_of_the_host_is_checked_unless_a_setting_says_not_to(tmp_path: Path, certificates: Certificates) -> None:
    elsewhere = {"dicom_tls_certificate": certificates.elsewhere.certificate, "dicom_tls_key": certificates.elsewhere.key}
    with sink(tmp_path, certificates, **elsewhere) as running:
        with pytest.raises(PeerError, match="certificate not accepted: IP address mismatch"):
            echo(called(running), "TESTER", security=calling(certificates))
        assert echo(called(running), "TESTER", security=calling(certificates, dicom_tls_check_host=False)) > 0


def test_a_peer_that_wants_tls_is_not_called_without(listener: Listener) -> None:
    with pytest.raises(PeerError, match="TLS"):
        echo(called(listener), "TESTER")


def test_one_instance_is_sent_over_tls_or_not_at_all(listener: Listener, certificates: Certificates) -> None:
    where, ds = door(listener), image()
    receiver = send.Receiver("PACSLITE", where.host, where.port, tls=True)
    with pytest.raises(PeerError, match="TLS"):
        send.store(receiver, part10(ds), "TESTER")
    send.store(receiver, part10(ds), "TESTER", calling(certificates))
    assert len(list(listener.pacs.store.list(f"radiology/{ds.StudyInstanceUID}/"))) == 1


def test_a_peer_that_is_silent_in_the_handshake_is_given_up(certificates: Certificates) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = KnownPeer("SILENT", "127.0.0.1", server.getsockname()[1], tls=True)
        with pytest.raises(PeerError, match="no answer in time"):
            echo(peer, "TESTER", timeout_s=0.3, security=calling(certificates))


def test_echo_of_pynetdicom_which_wants_our_certificate(certificates: Certificates) -> None:
    seen = []
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates.authority.certificate))
    context.load_cert_chain(certificates.server.certificate, certificates.server.key)
    context.verify_mode = ssl.CERT_REQUIRED
    entity = AE("REMOTE")
    entity.add_supported_context(VERIFICATION)
    handlers = [(evt.EVT_C_ECHO, lambda event: seen.append(event.assoc.requestor.ae_title) or 0)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers, ssl_context=context)  # type: ignore[arg-type]
    try:
        peer = KnownPeer("REMOTE", "127.0.0.1", server.server_address[1], tls=True)
        assert echo(peer, "TESTER", security=calling(certificates)) > 0
    finally:
        server.shutdown()
    assert seen == ["TESTER"]


def test_served_by_several_processes_at_a_port_of_their_own(tmp_path: Path, certificates: Certificates) -> None:
    variables = {f"PACSLITE_{name.upper()}": str(value) for name, value in certificates.settings(dicom_tls="127.0.0.1:0").items()}
    with serving(tmp_path / "data", scope="dimse", **variables) as server:
        address = Address.parse(server.ready["dicom_tls"])
        for _ in range(4):
            assert assert_serves(address, certificates.client_context(certificates.client)) == "TLSv1.3"
        assert address.text != server.ready["dicom"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, ""),
        ({"dicom_tls_ca": ""}, "dicom_tls_ca"),
        ({"dicom_tls_certificate": ""}, "needs a certificate"),
        ({"dicom_tls_key": "/nowhere"}, "dicom_tls_key"),
    ],
)
def test_config_check_tells_what_is_wrong(tmp_path: Path, certificates: Certificates, settings: dict[str, str], told: str) -> None:
    values = {**certificates.settings(dicom_tls="127.0.0.1:0"), **settings}
    variables = {f"PACSLITE_{name.upper()}": str(value) for name, value in values.items()}
    done = pacslite("config", "check", "--data", tmp_path / "data", env=environment(**variables))
    assert (done.returncode == 0) is (told == ""), done.stderr
    assert told in done.stderr
