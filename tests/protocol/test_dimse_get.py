"""C-GET as SCP (PS3.4 C.4.3): instances on the association that asks, by role selection, undecoded where that can be."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, JPEG2000Lossless
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from pacslite.dicom.part10 import encode_preamble_and_meta
from pacslite.dimse import commands, get
from pacslite.dimse.sub_operations import Tally, counters
from tests.support.data_sets import image
from tests.support.dicom_files import element
from tests.support.dimse import (
    CT,
    DEFLATED_LE,
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    PATIENT_ROOT_GET,
    SECONDARY_CAPTURE,
    STUDY_ROOT_GET,
    VERIFICATION,
    Listener,
    Offer,
    cancel_rq,
    listening,
    results,
)
from tests.support.retrieval import Outcome, converse, counts_of, failed_uids, get_rq, keep, keep_images, keys, known, receives, retrieving

STORAGE: Offer = [(SECONDARY_CAPTURE, (EXPLICIT_LE,))]
RELATIONAL = b"\1"
A, B = "1.2.1", "1.2.2"


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    with retrieving(tmp_path_factory.mktemp("get")) as running:
        yield running


@pytest.fixture(scope="module")
def stored(listener: Listener) -> dict[str, bytes]:
    """Two studies of one patient, each of two series of two images; one study of another; data sets by SOP Instance UID."""
    kept = {}
    for patient, study in (("P1", A), ("P1", B), ("P2", "1.2.3")):
        for series in (1, 2):
            for number in (1, 2):
                ds = image(study=study, series=f"{study}.{series}", instance=f"{study}.{series}.{number}", number=number)
                ds.PatientID = patient
                kept[ds.SOPInstanceUID] = keep(listener.pacs, ds)
    return kept


def fetch(
    listener: Listener, identifier: bytes, model: str = STUDY_ROOT_GET, offer: Offer = STORAGE, *, user: Any = (), **options: Any
) -> Outcome:
    """C-GET in an association of its own, then C-ECHO to see that it lives on."""
    max_pdu, calling = options.pop("max_pdu", 16384), options.pop("calling", "TESTER")
    with listener.peer() as peer:
        roles = receives(*{abstract for abstract, _ in offer})
        peer.associate(
            [(model, (EXPLICIT_LE,)), (VERIFICATION, (IMPLICIT_LE,)), *offer], user=[*roles, *user], max_pdu=max_pdu, calling=calling
        )
        peer.request(1, get_rq(model), identifier)
        outcome = converse(peer, **options)
        assert peer.echo(3, message_id=9) == 0
        peer.release()
    return outcome


@pytest.mark.parametrize(
    ("model", "identifier", "prefixes"),
    [
        (PATIENT_ROOT_GET, keys("PATIENT", patient="P1"), [A, B]),
        (PATIENT_ROOT_GET, keys("STUDY", patient="P1", study=A), [A]),
        (PATIENT_ROOT_GET, keys("SERIES", patient="P1", study=A, series=f"{A}.2"), [f"{A}.2"]),
        (PATIENT_ROOT_GET, keys("IMAGE", patient="P1", study=A, series=f"{A}.2", instance=f"{A}.2.1"), [f"{A}.2.1"]),
        (PATIENT_ROOT_GET, keys("STUDY", patient="P2", study=A), []),
        (STUDY_ROOT_GET, keys("PATIENT", patient="P2"), ["1.2.3"]),
        (STUDY_ROOT_GET, keys("STUDY", study=A), [A]),
        (STUDY_ROOT_GET, keys("STUDY", study=f"{A}\\{B}\\{A}\\9.9"), [A, B]),
        (STUDY_ROOT_GET, keys("SERIES", study=B, series=f"{B}.1\\{B}.2"), [B]),
        (STUDY_ROOT_GET, keys("IMAGE", study=A, series=f"{A}.1", instance=f"{A}.1.1\\{A}.1.2\\{B}.1.1"), [f"{A}.1"]),
        (STUDY_ROOT_GET, keys("STUDY", study="9.9"), []),
    ],
)
def test_every_level_of_both_models_gives_what_its_unique_keys_name_as_it_is_stored(
    listener: Listener, stored: dict[str, bytes], model: str, identifier: bytes, prefixes: list[str]
) -> None:
    expected = {uid: data for uid, data in stored.items() if any(uid == p or uid.startswith(p + ".") for p in prefixes)}
    outcome = fetch(listener, identifier, model)
    assert outcome.stored == expected
    assert (outcome.status, outcome.counts, outcome.identifier) == (0, (None, len(expected), 0, 0), b"")


@pytest.mark.parametrize(
    ("model", "identifier"),
    [
        (STUDY_ROOT_GET, keys("FRAME", study=A)),
        (STUDY_ROOT_GET, element(0x0020000D, "UI", b"1.2.1\0")),
        (STUDY_ROOT_GET, keys("STUDY")),
        (STUDY_ROOT_GET, keys("STUDY", study="")),
        (STUDY_ROOT_GET, keys("STUDY", study="1.2.*")),
        (STUDY_ROOT_GET, keys("SERIES", series=f"{A}.1")),
        (STUDY_ROOT_GET, keys("SERIES", study=f"{A}\\{B}", series=f"{A}.1")),
        (PATIENT_ROOT_GET, keys("STUDY", study=A)),
        (PATIENT_ROOT_GET, keys("PATIENT", patient="P1\\P2")),
        (PATIENT_ROOT_GET, keys("PATIENT", patient="P*")),
        (STUDY_ROOT_GET, b"\1\2\3"),
    ],
)
def test_identifiers_that_do_not_fit_the_model_are_answered_a900(listener: Listener, stored: object, model: str, identifier: bytes) -> None:
    outcome = fetch(listener, identifier, model)
    assert (outcome.status, outcome.stored) == (0xA900, {})
    assert outcome.comment


def test_with_relational_retrieval_agreed_the_levels_above_need_not_be_named(listener: Listener, stored: dict[str, bytes]) -> None:
    option = SOPClassExtendedNegotiation()
    option.sop_class_uid, option.service_class_application_information = STUDY_ROOT_GET, RELATIONAL
    outcome = fetch(listener, keys("IMAGE", instance=f"{A}.1.1\\{B}.2.2"), user=[option])
    assert list(outcome.stored) == [f"{A}.1.1", f"{B}.2.2"]


def test_an_issuer_beside_the_patient_id_tells_people_of_the_same_id_apart(tmp_path: Path) -> None:
    with retrieving(tmp_path) as listener:
        for number, issuer in enumerate(("North", "South")):
            ds = image(study=f"1.5.{number}")
            ds.PatientID, ds.IssuerOfPatientID = "SAME", issuer
            keep(listener.pacs, ds)
        whole = element(0x00080052, "CS", b"PATIENT ") + element(0x00100020, "LO", b"SAME")
        assert len(fetch(listener, whole).stored) == 2
        assert len(fetch(listener, whole + element(0x00100021, "LO", b"South ")).stored) == 1


def test_only_the_newest_version_is_sent(tmp_path: Path) -> None:
    with retrieving(tmp_path) as listener:
        ds = image(study=A)
        keep(listener.pacs, ds)
        ds.PatientComments = "corrected"
        newest = keep(listener.pacs, ds)
        assert list(fetch(listener, keys("STUDY", study=A)).stored.values()) == [newest]


def test_a_class_that_was_not_accepted_counts_as_failed_and_the_rest_is_sent(tmp_path: Path) -> None:
    """Checklist 128: a class that was not accepted is a failed sub-operation, the association goes on."""
    with retrieving(tmp_path) as listener:
        sent = keep_images(listener.pacs, 2, A)
        other = image(study=A, series=f"{A}.1", instance=f"{A}.1.9", number=9)
        other.SOPClassUID = CT
        keep(listener.pacs, other)
        outcome = fetch(listener, keys("STUDY", study=A))
        assert (outcome.status, outcome.counts, outcome.stored) == (0xB000, (None, 2, 1, 0), sent)
        assert failed_uids(outcome.identifier) == [other.SOPInstanceUID]
        assert outcome.comment == f"SOP class not accepted: {CT}"
        nothing = fetch(listener, keys("STUDY", study=A), offer=[(VERIFICATION, (IMPLICIT_LE,))])
        assert (nothing.status, nothing.counts, len(failed_uids(nothing.identifier))) == (0xA702, (None, 0, 3, 0), 3)


def test_a_context_where_we_would_be_receiver_is_not_used(listener: Listener, stored: object) -> None:
    """Checklist 128: only contexts whose role selection makes the requester a receiver are used."""
    with listener.peer() as peer:
        peer.associate([(STUDY_ROOT_GET, (EXPLICIT_LE,)), *STORAGE])
        peer.request(1, get_rq(), keys("STUDY", study=A))
        assert converse(peer).status == 0xA702


@pytest.mark.parametrize("target", [IMPLICIT_LE, EXPLICIT_BE, DEFLATED_LE])
@pytest.mark.parametrize("size", [24, 3 * 1024**2], ids=["small", "large"])
def test_a_native_instance_is_converted_to_the_native_syntax_that_was_accepted(tmp_path: Path, target: str, size: int) -> None:
    with retrieving(tmp_path) as listener:
        ds = image(np.arange(size, dtype=np.uint16).reshape(-1, 4, 6), study=A)
        keep(listener.pacs, ds, ImplicitVRLittleEndian if target == DEFLATED_LE else EXPLICIT_LE)
        outcome = fetch(listener, keys("STUDY", study=A), offer=[(SECONDARY_CAPTURE, (target,))])
        assert outcome.status == 0
        (data_set,) = outcome.stored.values()
        back = dcmread(BytesIO(encode_preamble_and_meta(SECONDARY_CAPTURE, "1.2.3", target) + data_set))
        assert back.SOPInstanceUID == ds.SOPInstanceUID
        pixels = np.frombuffer(back.PixelData, ">u2" if target == EXPLICIT_BE else "<u2")
        assert (pixels == np.arange(size, dtype=np.uint16)).all()


def test_a_compressed_instance_goes_as_stored_or_not_at_all(tmp_path: Path) -> None:
    with retrieving(tmp_path) as listener:
        data_set = keep(listener.pacs, image(study=A, instance="1.2.3", compressed=[b"\xff\x4f\xff\x51" * 8]), JPEG2000Lossless)
        taken = fetch(listener, keys("STUDY", study=A), offer=[*STORAGE, (SECONDARY_CAPTURE, (JPEG2000Lossless,))])
        assert (taken.status, taken.stored, taken.contexts) == (0, {"1.2.3": data_set}, {"1.2.3": 7})
        failed = fetch(listener, keys("STUDY", study=A))
        assert (failed.status, failed.stored, failed.comment) == (0xA702, {}, "The frame is no JPEG 2000 code stream.")


def test_a_requester_that_only_receives_and_prefers_a_native_syntax_gets_explicit_little_endian(listener: Listener) -> None:
    syntaxes = (IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE)
    with listener.peer() as peer:
        body = peer.associate([(SECONDARY_CAPTURE, syntaxes), (CT, (JPEG2000Lossless, *syntaxes))], user=receives(SECONDARY_CAPTURE, CT))
        assert results(body) == {1: (0, EXPLICIT_LE), 3: (0, JPEG2000Lossless)}
    with listener.peer() as peer:
        assert results(peer.associate([(SECONDARY_CAPTURE, syntaxes)])) == {1: (0, IMPLICIT_LE)}


def test_the_receivers_statuses_are_counted_by_kind(listener: Listener, stored: dict[str, bytes]) -> None:
    statuses = {1: 0, 2: 0xB007, 3: 0xA700, 4: 0xC001}
    outcome = fetch(listener, keys("STUDY", study=A), statuses=statuses.__getitem__)
    assert (outcome.status, outcome.counts) == (0xB000, (None, 1, 2, 1))
    assert failed_uids(outcome.identifier) == list(outcome.stored)[2:]
    assert outcome.comment == "the receiver answered A700H"
    warned = fetch(listener, keys("STUDY", study=A), statuses=lambda number: 0xB000)
    assert (warned.status, warned.counts, warned.identifier) == (0xB000, (None, 0, 0, 4), b"")


def test_pending_responses_count_down_and_always_add_up(
    listener: Listener, stored: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checklist 126: numbers add up at every response, remaining ones only while pending."""
    monkeypatch.setattr(get, "PENDING_S", 0)
    outcome = fetch(listener, keys("STUDY", study=f"{A}\\{B}"), statuses=lambda number: (0, 0xB000, 0xA700)[number % 3])
    told = [counts_of(command) for command in outcome.pending]
    assert [sum(counts) for counts in told] == [8] * len(told)  # type: ignore[arg-type]
    assert [counts[0] for counts in told] == list(range(8, 0, -1))


def test_numbers_beyond_65535_are_told_as_65535() -> None:
    tally = Tally(completed=70_000)
    assert list(counters(200_000, [tally, Tally(failed=3)], with_remaining=True).values()) == [65535, 65535, 3, 0]
    assert counters(200_000, [tally], with_remaining=False) == {commands.COMPLETED: 65535, commands.FAILED: 0, commands.WARNING: 0}


def test_a_cancel_ends_it_after_the_running_sub_operation(listener: Listener, stored: dict[str, bytes]) -> None:
    """Checklist 126: cancelled, with the number that remained."""
    with listener.peer() as peer:
        peer.associate([(STUDY_ROOT_GET, (EXPLICIT_LE,)), *STORAGE], user=receives(SECONDARY_CAPTURE))
        peer.request(1, get_rq(message_id=5), keys("STUDY", study=f"{A}\\{B}"))

        def cancel(number: int) -> None:
            if number == 1:
                peer.request(1, cancel_rq(4))  # of another request
            if number == 3:
                peer.request(1, cancel_rq(5))

        outcome = converse(peer, lambda number: 0xA700 if number == 2 else 0, cancel)
        assert (outcome.status, outcome.counts) == (0xFE00, (5, 2, 1, 0))
        assert failed_uids(outcome.identifier) == [list(outcome.stored)[1]]
        peer.release()
    assert not [link for link in map(target_of, Path("/proc/self/fd").iterdir()) if link.endswith(".dcm")]


def target_of(link: Path) -> str:
    """What a descriptor is open for, empty when it has been closed meanwhile."""
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""


def test_a_known_peer_gets_only_when_it_is_allowed_to(listener: Listener, stored: dict[str, bytes]) -> None:
    known(listener.pacs, "SENDER", 104, ("store",))
    refused = fetch(listener, keys("STUDY", study=A), calling="SENDER")
    assert (refused.status, refused.stored) == (0x0124, {})
    known(listener.pacs, "SENDER", 104, ("get",))
    assert fetch(listener, keys("STUDY", study=A), calling="SENDER").status == 0


@pytest.mark.parametrize("max_pdu", [0, 100, 4096, 131072])
def test_large_instances_arrive_whole_in_pdus_of_the_length_the_receiver_takes(tmp_path: Path, max_pdu: int) -> None:
    with retrieving(tmp_path) as listener:
        pixels = np.random.default_rng(1).integers(0, 65535, (1, 1024, 1300), dtype=np.uint16)
        sizes = [pixels, pixels[:, :1], pixels[:, :200]]
        sent = [keep(listener.pacs, image(size, study=A, series=f"{A}.1", number=n)) for n, size in enumerate(sizes)]
        outcome = fetch(listener, keys("STUDY", study=A), max_pdu=max_pdu)
        assert list(outcome.stored.values()) == sent


@pytest.mark.parametrize("damage", ["missing", "cut off", "longer"])
def test_bytes_that_are_not_as_the_catalog_says_fail_before_anything_is_sent(tmp_path: Path, damage: str) -> None:
    with retrieving(tmp_path) as listener:
        sent = keep_images(listener.pacs, 3, A)
        (path,) = (tmp_path / "storage" / "radiology" / A / f"{A}.1" / f"{A}.1.2").glob("*.dcm")
        if damage == "missing":
            path.unlink()
        else:
            os.truncate(path, path.stat().st_size + (1000 if damage == "longer" else -100))
        outcome = fetch(listener, keys("STUDY", study=A))
        assert (outcome.status, outcome.counts) == (0xB000, (None, 2, 1, 0))
        assert failed_uids(outcome.identifier) == [f"{A}.1.2"]
        assert outcome.stored == {uid: data for uid, data in sent.items() if uid != f"{A}.1.2"}


class _Distant:
    """A store whose files are not on this machine."""

    kind = "s3"

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def local_path(self, key: str) -> None:
        return None


@pytest.mark.parametrize("offer", [EXPLICIT_LE, IMPLICIT_LE])
def test_from_a_distant_store_too_and_behind_a_missing_instance(tmp_path: Path, offer: str) -> None:
    with retrieving(tmp_path) as local:
        sent = keep_images(local.pacs, 12, A)
        (path,) = (tmp_path / "storage" / "radiology" / A / f"{A}.1" / f"{A}.1.4").glob("*.dcm")
        path.unlink()
        with listening(replace(local.pacs, store=_Distant(local.pacs.store))) as listener:
            outcome = fetch(listener, keys("STUDY", study=A), offer=[(SECONDARY_CAPTURE, (offer,))])
        assert (outcome.counts, failed_uids(outcome.identifier)) == ((None, 11, 1, 0), [f"{A}.1.4"])
        if offer == EXPLICIT_LE:
            assert outcome.stored == {uid: data for uid, data in sent.items() if uid != f"{A}.1.4"}


def test_a_get_elsewhere_than_in_its_contexts_is_refused(listener: Listener) -> None:
    with listener.peer() as peer:
        peer.associate([(VERIFICATION, (IMPLICIT_LE,))])
        peer.request(1, get_rq(), keys("STUDY", study=A))
        assert peer.response()[0].number(commands.STATUS) == 0x0122


def test_get_by_pynetdicom(listener: Listener, stored: dict[str, bytes]) -> None:
    received: list[str] = []

    def receive(event: evt.Event) -> int:
        received.append(event.dataset.SOPInstanceUID)
        return 0

    contexts = [build_context(STUDY_ROOT_GET), build_context(SECONDARY_CAPTURE)]
    roles = [build_role(SECONDARY_CAPTURE, scp_role=True)]
    association = AE("TESTER").associate(
        listener.address.host, listener.address.port, contexts, "PACSLITE", ext_neg=roles, evt_handlers=[(evt.EVT_C_STORE, receive)]
    )
    assert association.is_established
    wanted = Dataset()
    wanted.QueryRetrieveLevel, wanted.StudyInstanceUID = "STUDY", A
    answers = list(association.send_c_get(wanted, STUDY_ROOT_GET))
    association.release()
    assert [status.Status for status, _ in answers] == [0xFF00, 0]
    assert sorted(received) == sorted(uid for uid in stored if uid.startswith(f"{A}."))


@pytest.mark.skipif(not shutil.which("getscu"), reason="dcmtk is not installed")
@pytest.mark.parametrize("proposal", [[], ["-xb"], ["-P"]])
def test_get_by_dcmtk(listener: Listener, stored: dict[str, bytes], tmp_path: Path, proposal: list[str]) -> None:
    wanted = ["-k", "QueryRetrieveLevel=STUDY", "-k", "PatientID=P1", "-k", f"StudyInstanceUID={A}"]
    model = [] if "-P" in proposal else ["-S"]
    place = ["-aec", "PACSLITE", "-od", str(tmp_path), listener.address.host, str(listener.address.port)]
    done = subprocess.run(["getscu", "-v", *model, *proposal, *wanted, *place], capture_output=True, text=True, timeout=60, check=False)
    assert "Received C-GET Response (Success)" in done.stderr + done.stdout, done.stderr
    got = {ds.SOPInstanceUID: ds for ds in map(dcmread, tmp_path.iterdir())}
    assert sorted(got) == sorted(uid for uid in stored if uid.startswith(f"{A}."))
    assert {ds.file_meta.TransferSyntaxUID for ds in got.values()} == {EXPLICIT_LE}
