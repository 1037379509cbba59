"""C-MOVE as SCP (PS3.4 C.4.2): instances to a known peer over associations of our own, and what its failures come to."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless
from pynetdicom import AE, build_context, evt

from pacslite.core.retrieve import Item
from pacslite.dimse import commands, move
from pacslite.dimse.delivery import contexts_of, loads_of
from tests.support.data_sets import image
from tests.support.dimse import (
    EXPLICIT_LE,
    IMPLICIT_LE,
    PATIENT_ROOT_MOVE,
    SECONDARY_CAPTURE,
    STUDY_ROOT_MOVE,
    VERIFICATION,
    Listener,
    cancel_rq,
)
from tests.support.processes import until
from tests.support.retrieval import (
    Outcome,
    Receiver,
    converse,
    counts_of,
    failed_uids,
    keep,
    keep_images,
    keys,
    known,
    move_rq,
    receiving,
    retrieving,
)

STUDY, COUNT = "1.2.7", 6


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    with retrieving(tmp_path_factory.mktemp("move"), network_timeout_s=2, acse_timeout_s=2) as running:
        yield running


@pytest.fixture(scope="module")
def stored(listener: Listener) -> dict[str, bytes]:
    """A study of some images; data sets by SOP Instance UID."""
    return keep_images(listener.pacs, COUNT, STUDY)


@pytest.fixture(autouse=True)
def nothing_left_behind(listener: Listener) -> Iterator[None]:
    yield
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith("dimse-") and t.name.endswith("-move")])
    assert listener.spool_files == []


def ask(
    listener: Listener, destination: str = "RECEIVER", identifier: bytes = keys("STUDY", study=STUDY), model: str = STUDY_ROOT_MOVE
) -> Outcome:
    """C-MOVE in an association of its own, then C-ECHO to see that it lives on."""
    with listener.peer() as peer:
        peer.associate([(model, (EXPLICIT_LE,)), (VERIFICATION, (IMPLICIT_LE,))], calling="WORKSTATION")
        peer.request(1, move_rq(destination, model, 77), identifier)
        outcome = converse(peer)
        assert peer.echo(3, message_id=9) == 0
        peer.release()
    return outcome


def moved(listener: Listener, receiver: Receiver, **options: Any) -> Outcome:
    """C-MOVE to the receiver."""
    with receiving(receiver):
        known(listener.pacs, "RECEIVER", receiver.port)
        return ask(listener, **options)


def test_the_receiver_gets_every_instance_as_stored_in_the_name_of_the_requester(listener: Listener, stored: dict[str, bytes]) -> None:
    """Checklist 127: C-STORE requests carry the Move Originator and the message id of its request."""
    receiver = Receiver()
    outcome = moved(listener, receiver)
    assert (outcome.status, outcome.counts, outcome.identifier) == (0, (None, COUNT, 0, 0), b"")
    assert (receiver.stored, receiver.ended) == (stored, ["released"])
    as_usual, last_resort = receiver.offers[0][:2], receiver.offers[0][2:]
    assert as_usual == [(SECONDARY_CAPTURE, [EXPLICIT_LE]), (SECONDARY_CAPTURE, [IMPLICIT_LE])]
    assert [sop_class for sop_class, _ in last_resort] == [SECONDARY_CAPTURE]
    assert [command.message_id for command in receiver.commands] == list(range(1, COUNT + 1))
    for command in receiver.commands:
        assert command.title(commands.MOVE_ORIGINATOR_AET) == "WORKSTATION"
        assert command.number(commands.MOVE_ORIGINATOR_MESSAGE_ID) == 77


@pytest.mark.parametrize(
    ("model", "identifier", "count"),
    [
        (PATIENT_ROOT_MOVE, keys("PATIENT", patient="T-1"), COUNT),
        (PATIENT_ROOT_MOVE, keys("SERIES", patient="T-1", study=STUDY, series=f"{STUDY}.1"), COUNT),
        (STUDY_ROOT_MOVE, keys("SERIES", study=STUDY, series=f"{STUDY}.1"), COUNT),
        (STUDY_ROOT_MOVE, keys("IMAGE", study=STUDY, series=f"{STUDY}.1", instance=f"{STUDY}.1.2\\{STUDY}.1.5"), 2),
        (STUDY_ROOT_MOVE, keys("STUDY", study="9.9"), 0),
    ],
)
def test_the_levels_of_both_models(listener: Listener, stored: dict[str, bytes], model: str, identifier: bytes, count: int) -> None:
    receiver = Receiver()
    outcome = moved(listener, receiver, model=model, identifier=identifier)
    assert (outcome.status, outcome.counts) == (0, (None, count, 0, 0))
    assert len(receiver.stored) == count
    assert len(receiver.offers) == min(count, 1)


def test_a_receiver_that_asks_for_the_release_at_the_same_time_is_answered(listener: Listener, stored: dict[str, bytes]) -> None:
    """PS3.8 table 9-10, release collision: the requestor of the association answers first, in Sta9."""
    receiver = Receiver(collides=True)
    assert moved(listener, receiver).status == 0
    assert receiver.ended == ["released", "answered"]


def test_an_unknown_destination_is_a801_and_a_wrong_identifier_a900(listener: Listener, stored: object) -> None:
    """Checklist 125: A801H for an unknown destination, A900H for an identifier that does not fit."""
    assert [ask(listener, name).status for name in ("NOBODY", "receiver", "")] == [0xA801] * 3
    known(listener.pacs, "RECEIVER", 104)
    assert ask(listener, identifier=keys("SERIES", series="1.2")).status == 0xA900


def test_a_known_peer_moves_only_when_it_is_allowed_to(listener: Listener, stored: object) -> None:
    known(listener.pacs, "WORKSTATION", 104, ("store", "find", "get"))
    assert ask(listener).status == 0x0124
    known(listener.pacs, "WORKSTATION", 104)


def test_a_receiver_out_of_reach_fails_all_with_a702(listener: Listener, stored: dict[str, bytes]) -> None:
    """Checklist 125, 126: all sub-operations failed is A702H, with all of them in Failed SOP Instance UID List."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    known(listener.pacs, "RECEIVER", port)
    outcome = ask(listener)
    assert (outcome.status, outcome.counts) == (0xA702, (None, 0, COUNT, 0))
    assert failed_uids(outcome.identifier) == list(stored)
    assert outcome.comment == f"RECEIVER at 127.0.0.1:{port}: Connection refused"


def test_a_receiver_that_takes_no_context_fails_all_with_a702(listener: Listener, stored: object) -> None:
    receiver = Receiver(refuse=frozenset({SECONDARY_CAPTURE}))
    outcome = moved(listener, receiver)
    assert (outcome.status, outcome.comment, receiver.ended) == (0xA702, f"SOP class not accepted: {SECONDARY_CAPTURE}", ["released"])


def test_a_receiver_that_rejects_the_association_fails_all_with_a702(listener: Listener, stored: object) -> None:
    outcome = moved(listener, Receiver(rejects=True))
    assert (outcome.status, outcome.counts) == (0xA702, (None, 0, COUNT, 0))
    assert "association rejected: Called AE" in outcome.comment


def test_what_the_receiver_does_not_take_as_stored_is_converted(listener: Listener, stored: dict[str, bytes]) -> None:
    receiver = Receiver(refuse=frozenset({EXPLICIT_LE}))
    outcome = moved(listener, receiver)
    assert (outcome.status, list(receiver.stored)) == (0, list(stored))
    assert not set(receiver.stored.values()) & set(stored.values())


def test_statuses_of_the_receiver_are_counted_by_kind(listener: Listener, stored: dict[str, bytes]) -> None:
    """Checklist 125, 126: B000H when some failed; numbers of completed, failed and warning sub-operations."""
    statuses = {2: 0xB000, 4: 0xA700, 5: 0x0110}
    receiver = Receiver(answer=lambda number: statuses.get(number, 0))
    outcome = moved(listener, receiver)
    assert (outcome.status, outcome.counts) == (0xB000, (None, COUNT - 3, 2, 1))
    assert failed_uids(outcome.identifier) == list(stored)[3:5]


def test_after_an_association_that_breaks_off_another_one_takes_the_rest(listener: Listener, stored: dict[str, bytes]) -> None:
    receiver = Receiver(answer=lambda number: None if number == 3 else 0)
    outcome = moved(listener, receiver)
    assert (outcome.status, outcome.counts, len(receiver.offers)) == (0xB000, (None, COUNT - 1, 1, 0), 2)
    assert failed_uids(outcome.identifier) == [list(stored)[2]]


def test_a_receiver_that_takes_nothing_is_not_called_again_and_again(listener: Listener, stored: dict[str, bytes]) -> None:
    receiver = Receiver(answer=lambda number: None)
    outcome = moved(listener, receiver)
    assert (outcome.status, outcome.counts, len(receiver.offers)) == (0xA702, (None, 0, COUNT, 0), 1)


def test_a_receiver_that_falls_silent_is_given_up_within_the_network_timeout(listener: Listener, stored: dict[str, bytes]) -> None:
    gate, is_woken = threading.Event(), []

    def answer(number: int) -> int | None:
        if number < 3:
            return 0
        is_woken.append(gate.wait(120))
        return None

    receiver = Receiver(answer=answer)
    with receiving(receiver):
        known(listener.pacs, "RECEIVER", receiver.port)
        try:
            outcome = ask(listener)
        finally:
            gate.set()
    assert is_woken == [True]  # by the end of this move, which has not waited for an answer
    assert (outcome.status, outcome.counts) == (0xB000, (None, 2, COUNT - 2, 0))
    assert len(outcome.pending) >= 2  # told every second that it goes on
    assert len(receiver.offers) == 1


def test_pending_responses_come_while_one_instance_takes_long_and_add_up(
    listener: Listener, stored: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checklist 126, 127: pending responses come on a timer, and their numbers add up."""
    monkeypatch.setattr(move, "PENDING_S", 0.02)
    told: list[tuple[int | None, ...]] = []
    enough = threading.Event()

    def answer(number: int) -> int:
        assert number < 3 or enough.wait(20)
        return 0

    receiver = Receiver(answer=answer)
    with receiving(receiver), listener.peer() as peer:
        known(listener.pacs, "RECEIVER", receiver.port)
        peer.associate([(STUDY_ROOT_MOVE, (EXPLICIT_LE,))])
        peer.request(1, move_rq("RECEIVER", STUDY_ROOT_MOVE), keys("STUDY", study=STUDY))
        while told.count((COUNT - 2, 2, 0, 0)) < 3:
            told.append(counts_of(peer.response()[0]))
        enough.set()
        assert converse(peer).counts == (None, COUNT, 0, 0)
    assert told[0] == (COUNT, 0, 0, 0)
    assert {sum(counts) for counts in told} == {COUNT}  # type: ignore[arg-type]


def test_a_cancel_lets_the_running_sub_operation_end_and_begins_no_other(listener: Listener, stored: dict[str, bytes]) -> None:
    """Checklist 125, 126: FE00H with the number that remained."""
    gate, reached = threading.Event(), threading.Event()

    def answer(number: int) -> int:
        if number == 2:
            reached.set()
            assert gate.wait(20)
        return 0

    with receiving(Receiver(answer=answer)) as receiver, listener.peer() as peer:
        known(listener.pacs, "RECEIVER", receiver.port)
        peer.associate([(STUDY_ROOT_MOVE, (EXPLICIT_LE,))])
        peer.request(1, move_rq("RECEIVER", STUDY_ROOT_MOVE, 3), keys("STUDY", study=STUDY))
        assert reached.wait(20)
        peer.request(1, cancel_rq(3))
        (association,) = [a for a in listener.server._active if a.calling_aet == "TESTER"]
        until(lambda: association._cancelled)
        gate.set()
        outcome = converse(peer)
        until(lambda: receiver.ended)
    assert (outcome.status, outcome.counts, receiver.ended) == (0xFE00, (COUNT - 2, 2, 0, 0), ["released"])


@pytest.mark.parametrize("how", ["abort", "vanish"])
def test_when_the_requester_goes_the_move_ends(listener: Listener, stored: dict[str, bytes], how: str) -> None:
    gate, reached = threading.Event(), threading.Event()

    def answer(number: int) -> int:
        reached.set()
        assert gate.wait(20)
        return 0

    with receiving(Receiver(answer=answer)) as receiver:
        known(listener.pacs, "RECEIVER", receiver.port)
        with listener.peer() as peer:
            peer.associate([(STUDY_ROOT_MOVE, (EXPLICIT_LE,))])
            peer.request(1, move_rq("RECEIVER", STUDY_ROOT_MOVE), keys("STUDY", study=STUDY))
            assert reached.wait(20)
            if how == "abort":
                peer.send(b"\x07\0\0\0\0\x04\0\0\0\0")
        until(lambda: listener.server.associations == 0)
        gate.set()
    assert len(receiver.commands) == 1


def test_stopping_the_server_breaks_a_move_off(tmp_path: Path) -> None:
    gate, reached = threading.Event(), threading.Event()

    def answer(number: int) -> int:
        reached.set()
        assert gate.wait(20)
        return 0

    with receiving(Receiver(answer=answer)) as receiver, retrieving(tmp_path) as listener:
        keep_images(listener.pacs, 3, STUDY)
        known(listener.pacs, "RECEIVER", receiver.port)
        with listener.peer() as peer:
            peer.associate([(STUDY_ROOT_MOVE, (EXPLICIT_LE,))])
            peer.request(1, move_rq("RECEIVER", STUDY_ROOT_MOVE), keys("STUDY", study=STUDY))
            assert reached.wait(20)
            listener.server.stop(grace_s=5)
            assert listener.server.associations == 0
        gate.set()


def test_a_large_move_goes_over_several_associations_when_the_setting_says_so(tmp_path: Path) -> None:
    with retrieving(tmp_path, move_associations=3) as listener:
        sent = keep_images(listener.pacs, 96, STUDY)
        together = threading.Barrier(3, timeout=20)
        receiver = Receiver(answer=lambda number: 0 if number > 3 else together.wait() * 0)
        outcome = moved(listener, receiver)
        assert (outcome.status, outcome.counts) == (0, (None, 96, 0, 0))
        assert (receiver.stored, len(receiver.offers)) == (sent, 3)
        few = moved(listener, small := Receiver(), identifier=keys("IMAGE", study=STUDY, series=f"{STUDY}.1", instance=f"{STUDY}.1.1"))
        assert (few.counts, len(small.offers)) == ((None, 1, 0, 0), 1)


def is_open(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def _item(sop_class: str, syntax: str) -> Item:
    return Item("1.2", "1.3", "1.4", sop_class, syntax, 1, 1, "key", "filesystem", 1, "")


def test_more_classes_and_syntaxes_than_fit_an_association_are_spread_over_several() -> None:
    items = [_item(f"1.9.{number % 300}", EXPLICIT_LE if number % 2 else JPEG2000Lossless) for number in range(900)]
    loads = list(loads_of(items))
    assert sorted(map(repr, items)) == sorted(repr(item) for load in loads for item in load)
    sizes = [len(contexts_of(load)) for load in loads]
    assert (len(sizes), sum(sizes)) == (6, 750)
    assert max(sizes) <= 128
    assert list(loads_of([])) == []


def test_two_associations_in_turn_when_one_has_no_room(tmp_path: Path) -> None:
    with retrieving(tmp_path) as listener:
        for number in range(70):
            ds = image(study=STUDY, series=f"{STUDY}.1", instance=f"{STUDY}.1.{number}", number=number)
            ds.SOPClassUID = f"1.2.99.{number}"
            keep(listener.pacs, ds)
        receiver = Receiver()
        outcome = moved(listener, receiver)
        assert (outcome.status, outcome.counts) == (0, (None, 70, 0, 0))
        assert [len(offer) for offer in receiver.offers] == [128, 18]
        assert receiver.ended == ["released"] * 2


def test_move_by_pynetdicom_to_pynetdicom(listener: Listener, stored: dict[str, bytes]) -> None:
    received: list[tuple[str, str]] = []

    def receive(event: evt.Event) -> int:
        received.append((event.dataset.SOPInstanceUID, event.request.MoveOriginatorApplicationEntityTitle))
        return 0

    entity = AE("DEST")
    entity.add_supported_context(SECONDARY_CAPTURE)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, receive)])
    try:
        known(listener.pacs, "DEST", server.server_address[1])
        association = AE("TESTER").associate(
            listener.address.host, listener.address.port, [build_context(PATIENT_ROOT_MOVE)], ae_title="PACSLITE"
        )
        wanted = Dataset()
        wanted.QueryRetrieveLevel, wanted.PatientID, wanted.StudyInstanceUID = "STUDY", "T-1", STUDY
        answers = [status for status, _ in association.send_c_move(wanted, "DEST", PATIENT_ROOT_MOVE)]
        association.release()
    finally:
        server.shutdown()
    assert (answers[-1].Status, answers[-1].NumberOfCompletedSuboperations) == (0, COUNT)
    assert received == [(uid, "TESTER") for uid in stored]


@pytest.mark.skipif(not shutil.which("movescu"), reason="dcmtk is not installed")
@pytest.mark.parametrize(("takes", "syntax"), [([], EXPLICIT_LE), (["+xi"], IMPLICIT_LE)])
def test_move_by_dcmtk_to_dcmtk(listener: Listener, stored: dict[str, bytes], tmp_path: Path, takes: list[str], syntax: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    (tmp_path / "in").mkdir()
    receiver = subprocess.Popen(["storescp", "+B", *takes, "-od", str(tmp_path / "in"), str(port)])
    try:
        until(lambda: is_open(port))
        known(listener.pacs, "STORESCP", port)
        wanted = ["-k", "QueryRetrieveLevel=SERIES", "-k", f"StudyInstanceUID={STUDY}", "-k", f"SeriesInstanceUID={STUDY}.1"]
        place = ["-aec", "PACSLITE", "-aem", "STORESCP", listener.address.host, str(listener.address.port)]
        done = subprocess.run(["movescu", "-v", "-S", *wanted, *place], capture_output=True, text=True, timeout=60, check=False)
    finally:
        os.kill(receiver.pid, signal.SIGTERM)
        receiver.wait(20)
    assert "Received Final Move Response (Success)" in done.stdout + done.stderr
    files = list((tmp_path / "in").iterdir())
    received = {ds.SOPInstanceUID: ds for ds in map(dcmread, files)}
    assert sorted(received) == sorted(stored)
    assert {str(ds.file_meta.TransferSyntaxUID) for ds in received.values()} == {syntax}
    if not takes:
        assert all(any(path.read_bytes().endswith(data) for path in files) for data in stored.values())
