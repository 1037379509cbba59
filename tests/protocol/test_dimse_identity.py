"""User identity negotiation (PS3.7 D.3.3.7): who is let in by it, how that is answered, and that no secret is kept or logged."""

from __future__ import annotations

import logging
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom import pdu_primitives as primitives

from pacslite.core.access import SCOPES, Principal, Right, Role
from pacslite.core.callers import IdentityKind, UserIdentity
from pacslite.dimse import commands, pdus, user_identity
from pacslite.dimse.negotiation import Agreed, negotiate
from pacslite.dimse.pdus import ProtocolViolation
from pacslite.errors import Unavailable
from tests.support.dimse import CT, EXPLICIT_LE, VERIFICATION, Listener, accepted, associate_rq, listening, sink_pacs

SECRET = "correct horse battery staple"
OFFER = [(VERIFICATION, [EXPLICIT_LE]), (CT, [EXPLICIT_LE])]
NAME, PASSWORD, KERBEROS, SAML, JWT = 1, 2, 3, 4, 5
REFUSED = (1, 1, 1)


class Accounts:
    """Knows Ann by her password or token, Bob by his name alone; Ann may only query by token."""

    def __init__(self) -> None:
        self.asked: list[tuple[UserIdentity, str, str]] = []

    def __call__(self, identity: UserIdentity, address: str, calling_aet: str) -> Principal | None:
        self.asked.append((identity, address, calling_aet))
        if identity.name == "down":
            raise Unavailable("the accounts cannot be read")
        known = {
            (IdentityKind.USERNAME, "bob", ""): Principal(1, "bob", Role.ADMIN, SCOPES),
            (IdentityKind.PASSWORD, "änn", SECRET): Principal(2, "änn", Role.ADMIN, SCOPES),
            (IdentityKind.JWT, "", "e30.e30.x"): Principal(2, "änn", Role.VIEWER, frozenset({Right.DICOMWEB_READ})),
        }
        return known.get((identity.kind, identity.name, identity.secret))

    def still(self, principal: Principal) -> Principal:
        return principal


def identity(kind: int, first: str = "", second: str = "", answer: bool = True) -> primitives.UserIdentityNegotiation:
    item = primitives.UserIdentityNegotiation()
    item.user_identity_type, item.primary_field, item.secondary_field = kind, first.encode(), second.encode()
    item.positive_response_requested = answer
    return item


def raw(value: bytes, offer: Any = OFFER) -> bytes:
    """An A-ASSOCIATE-RQ with this value of the sub-item 58H; its user information is the last item."""
    pdu = bytearray(associate_rq(offer))
    at = pdu.rindex(b"\x50\x00", 74)
    item = struct.pack(">BxH", 0x58, len(value)) + value
    struct.pack_into(">H", pdu, at + 2, len(pdu) - at - 4 + len(item))
    pdu += item
    struct.pack_into(">I", pdu, 2, len(pdu) - 6)
    return bytes(pdu)


@contextmanager
def guarded(tmp_path: Path, policy: str, accounts: Accounts | None) -> Iterator[Listener]:
    with listening(sink_pacs(tmp_path, dicom_user_identity=policy), accounts) as running:
        yield running


def outcome(listener: Listener, *user: Any) -> tuple[int, int, int] | bytes | None:
    """Result, source, reason of a rejection; else the answer to the identity, None when it is not answered."""
    with listener.peer() as peer:
        peer.send(associate_rq(OFFER, user=user))
        kind, body = peer.pdu()
        if kind == pdus.ASSOCIATE_RJ:
            assert peer.at_end()
            return body[1], body[2], body[3]
        assert kind == pdus.ASSOCIATE_AC
        information = accepted(body).user_information
        assert information is not None
        assert peer.echo() == 0
        peer.release()
        return information.user_identity.server_response if information.user_identity else None


@pytest.mark.parametrize("policy", ["check", "required"])
@pytest.mark.parametrize("item", [identity(NAME, "bob"), identity(PASSWORD, "änn", SECRET), identity(JWT, "e30.e30.x")])
def test_who_is_recognized_is_let_in_and_told_so_when_asked(tmp_path: Path, policy: str, item: primitives.UserIdentityNegotiation) -> None:
    accounts = Accounts()
    with guarded(tmp_path, policy, accounts) as listener:
        assert outcome(listener, item) == b""
        item.positive_response_requested = False
        assert outcome(listener, item) is None
        item.positive_response_requested = True
    assert [(address, title) for _, address, title in accounts.asked] == [("127.0.0.1", "TESTER")] * 2


@pytest.mark.parametrize("policy", ["check", "required"])
@pytest.mark.parametrize(
    "item",
    [
        identity(NAME, "ann"),
        identity(NAME, ""),
        identity(NAME, "änn"),
        identity(PASSWORD, "änn", "wrong"),
        identity(PASSWORD, "bob", "x"),
        identity(JWT, "e30.e30.y"),
        identity(KERBEROS, "ticket"),
        identity(SAML, "<saml/>"),
    ],
)
def test_who_is_not_recognized_is_rejected(tmp_path: Path, policy: str, item: primitives.UserIdentityNegotiation) -> None:
    with guarded(tmp_path, policy, Accounts()) as listener:
        assert outcome(listener, item) == REFUSED


def test_without_an_identity_the_policy_decides(tmp_path: Path) -> None:
    with guarded(tmp_path / "a", "check", Accounts()) as listener:
        assert outcome(listener) is None
    with guarded(tmp_path / "b", "required", Accounts()) as listener:
        assert outcome(listener) == REFUSED


def test_ignored_identities_are_neither_read_nor_answered(tmp_path: Path) -> None:
    accounts = Accounts()
    with guarded(tmp_path, "ignore", accounts) as listener:
        assert outcome(listener, identity(PASSWORD, "änn", "wrong")) is None
        with listener.peer() as peer:
            peer.send(raw(b"\x02\x01\xff\xff"))
            assert peer.pdu()[0] == pdus.ASSOCIATE_AC
    assert accounts.asked == []


def test_without_accounts_nobody_is_recognized(tmp_path: Path) -> None:
    with guarded(tmp_path, "check", None) as listener:
        assert outcome(listener, identity(PASSWORD, "änn", SECRET)) == REFUSED


def test_accounts_out_of_reach_are_a_passing_refusal(tmp_path: Path) -> None:
    with guarded(tmp_path, "required", Accounts()) as listener:
        assert outcome(listener, identity(NAME, "down")) == (2, 3, 1)


def test_a_user_does_what_it_may_and_no_more(tmp_path: Path) -> None:
    with guarded(tmp_path, "required", Accounts()) as listener:
        for item, status in ((identity(NAME, "bob"), commands.SUCCESS), (identity(JWT, "e30.e30.x"), commands.NOT_AUTHORIZED)):
            with listener.peer() as peer:
                peer.associate(OFFER, user=[item])
                assert peer.store(b"\0" * 5000, 3).number(commands.STATUS) == status
                assert peer.echo() == 0
        assert len(listener.pacs.ingest.received) == 1
        assert listener.spool_files == []


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b"", pdus.ABORT),
        (b"\x02", pdus.ABORT),
        (b"\x02\x01\x00\x05bob", pdus.ABORT),
        (b"\x01\x01\x00\x03bob", pdus.ABORT),
        (b"\x01\x01\x00\x03bob\x00\x00more", pdus.ABORT),
        (b"\x01\x01\x00\x03\xff\xfe\xfd\x00\x00", pdus.ABORT),
        (b"\x09\x01\x00\x03bob\x00\x00", pdus.ASSOCIATE_RJ),
        (b"\x00\x01\x00\x03bob\x00\x00", pdus.ASSOCIATE_RJ),
        (b"\x01\x01\x00\x03bob\x00\x00", pdus.ASSOCIATE_AC),
    ],
)
def test_malformed_identities_are_refused_and_the_next_is_served(tmp_path: Path, value: bytes, kind: int) -> None:
    with guarded(tmp_path, "check", Accounts()) as listener:
        with listener.peer() as peer:
            peer.send(raw(value))
            assert peer.pdu()[0] == kind
        assert outcome(listener, identity(NAME, "bob")) == b""


def test_of_several_identities_the_first_counts_and_none_is_left_behind() -> None:
    pdu = raw(b"\x01\x01\x00\x03bob\x00\x00")
    item = struct.pack(">BxH", 0x58, 9) + b"\x01\x01\x00\x03eve\x00\x00"
    at = pdu.rindex(b"\x50\x00", 74)
    more = bytearray(pdu + item)
    struct.pack_into(">H", more, at + 2, len(more) - at - 4)
    struct.pack_into(">I", more, 2, len(more) - 6)
    rest, value = user_identity.split(bytes(more))
    assert value is not None
    assert user_identity.decode(value)[0] == UserIdentity(IdentityKind.USERNAME, "bob")
    assert rest == associate_rq(OFFER)


def test_the_secret_is_out_of_the_request_before_that_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pdu = associate_rq(OFFER, user=[identity(PASSWORD, "änn", SECRET)])
    rest, value = user_identity.split(pdu)
    assert rest == associate_rq(OFFER)
    assert value is not None
    found, wants_answer = user_identity.decode(value)
    assert (found, wants_answer) == (UserIdentity(IdentityKind.PASSWORD, "änn", SECRET), True)
    assert SECRET not in repr(found)
    caplog.set_level(logging.DEBUG)
    with guarded(tmp_path, "check", Accounts()) as listener:
        outcome(listener, identity(PASSWORD, "änn", SECRET))
        outcome(listener, identity(PASSWORD, "änn", SECRET[::-1]))
        outcome(listener, identity(JWT, "e30.e30.x"))
    logged = "\n".join(str(record.__dict__) for record in caplog.records)
    assert "user identity not accepted" in logged
    assert not [secret for secret in (SECRET, SECRET[::-1], "e30.e30") if secret in logged]


def test_every_truncation_and_every_single_damaged_byte_ends_in_order() -> None:
    pdu = associate_rq(OFFER, user=[identity(PASSWORD, "änn", SECRET)])
    damaged = [pdu[:cut] for cut in range(6, len(pdu))]
    damaged += [pdu[:at] + bytes((value,)) + pdu[at + 1 :] for at in range(6, len(pdu)) for value in (0, 0x58, 0xFF)]
    ends = set()
    for candidate in damaged:
        try:
            rest, value = user_identity.split(candidate)
            result = negotiate(rest, "PACSLITE", 16384)
            if value is not None:
                user_identity.decode(value)
            if isinstance(result, Agreed):
                accepted(user_identity.answered(result.answer)[6:])
            ends.add(type(result))
        except ProtocolViolation:
            ends.add(ProtocolViolation)
    assert ends >= {Agreed, ProtocolViolation}


def test_pynetdicom_reads_the_answer(tmp_path: Path) -> None:
    with guarded(tmp_path, "required", Accounts()) as listener:
        entity = AE("TESTER")
        entity.add_requested_context(VERIFICATION)
        where = listener.address
        good = entity.associate(where.host, where.port, ae_title="PACSLITE", ext_neg=[identity(PASSWORD, "änn", SECRET)])
        assert good.is_established
        assert good.acceptor.user_identity is not None
        assert good.send_c_echo().Status == 0
        good.release()
        assert entity.associate(where.host, where.port, ae_title="PACSLITE", ext_neg=[identity(NAME, "eve")]).is_rejected


@pytest.mark.skipif(not shutil.which("storescu"), reason="dcmtk is not installed")
def test_storescu_of_dcmtk_asks_for_an_answer(tmp_path: Path) -> None:
    from tests.support.data_sets import image, part10

    (tmp_path / "a.dcm").write_bytes(part10(image()))
    with guarded(tmp_path / "data", "required", Accounts()) as listener:
        place = ["-aec", "PACSLITE", listener.address.host, str(listener.address.port), str(tmp_path / "a.dcm")]
        for user, code in ((["-usr", "bob"], True), (["-usr", "eve"], False), ([], False)):
            done = subprocess.run(
                ["storescu", "-rsp", *user, *place] if user else ["storescu", *place], capture_output=True, timeout=60, check=False
            )
            assert (done.returncode == 0) is code, done.stderr
        assert len(listener.pacs.ingest.received) == 1
