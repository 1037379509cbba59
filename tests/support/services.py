"""One request of each DIMSE service, for tests of who may ask for what."""

from __future__ import annotations

from pacslite.dimse import commands
from tests.support.dimse import (
    CT,
    EXPLICIT_LE,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    VERIFICATION,
    Peer,
    find_rq,
    store_rq,
    uid_value,
)
from tests.support.retrieval import get_rq, keys, move_rq

COMMITMENT = "1.2.840.10008.1.20.1"
SERVICES = ("store", "find", "move", "get", "commitment")
OFFER = [(abstract, [EXPLICIT_LE]) for abstract in (CT, STUDY_ROOT_FIND, STUDY_ROOT_MOVE, STUDY_ROOT_GET, COMMITMENT, VERIFICATION)]
STUDY = "1.2.11"


def status_of(peer: Peer, service: str) -> int:
    """Ask for a service in the presentation context of its place in `OFFER`; the final status."""
    identifier = keys("STUDY", study=STUDY)
    action: dict[int, bytes | int] = {
        0x0003: uid_value(COMMITMENT),
        0x0100: 0x0130,
        0x0110: 1,
        0x0800: 1,
        0x1001: uid_value(f"{COMMITMENT}.1"),
        0x1008: 1,
    }
    asked = {
        "store": (store_rq(), b"\x08\x00\x05\x00CS\x00\x00"),
        "find": (find_rq(), identifier),
        "move": (move_rq("NOWHERE", STUDY_ROOT_MOVE), identifier),
        "get": (get_rq(), identifier),
        "commitment": (action, b"\x08\x00\x05\x00CS\x00\x00"),
    }[service]
    peer.request(2 * SERVICES.index(service) + 1, *asked)
    while True:
        command, _ = peer.response()
        if command.number(commands.STATUS) != commands.PENDING:
            assert command.field & 0x8000
            return command.number(commands.STATUS)
