"""C-STORE and C-FIND on a whole pacslite: what is acknowledged is kept as sent and found at once; what is broken is told so."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_context

from pacslite import app
from pacslite.core.ingest import read_limits
from pacslite.dicom.compare import same_data_set
from pacslite.dicom.instance import Instance, read_instance
from pacslite.dimse import commands
from pacslite.errors import InstanceRefused, InvalidUid
from pacslite.settings import Address, Settings
from tests.support.data_sets import image, new_uid, part10
from tests.support.dicom_files import corpus_files, element, library_files, meta_of
from tests.support.dimse import EXPLICIT_LE, SECONDARY_CAPTURE, STUDY_ROOT_FIND, Listener, Peer, find_rq, listening, uid_value

SUCCESS = commands.SUCCESS


@contextmanager
def archive(data: Path, **settings: Any) -> Iterator[Listener]:
    """A listener with everything behind it."""
    pacs = app.build(Settings(data=data, dicom=Address("127.0.0.1", 0), **settings))
    pacs.catalog.migrate()
    try:
        with listening(pacs) as running:
            yield running
    finally:
        pacs.close()


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    with archive(tmp_path_factory.mktemp("archive")) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_left_in_the_spool(listener: Listener) -> Iterator[None]:
    yield
    assert listener.spool_files == []


def split(file: bytes) -> tuple[str, bytes]:
    """Transfer syntax and data set of a Part 10 file."""

    meta = meta_of(file)
    return meta.transfer_syntax_uid, file[meta.data_set_offset :]


def send(listener: Listener, file: bytes, sop_class: str, sop_instance: str) -> commands.Command:
    """C-STORE of a file's data set in an association of its own, then C-ECHO to see that it lives on."""
    syntax, data_set = split(file)
    with listener.peer() as peer:
        peer.associate([(sop_class, [syntax])])
        peer.max_pdu = 131072
        answer = peer.store(data_set, sop_class=sop_class, sop_instance=sop_instance)
        assert peer.echo(message_id=2) == SUCCESS
        peer.release()
    return answer


def send_image(listener: Listener, ds: Dataset, syntax: str = EXPLICIT_LE) -> int:
    answer = send(listener, part10(ds, syntax), ds.SOPClassUID, ds.SOPInstanceUID)
    return answer.number(commands.STATUS)


def stored(listener: Listener, study: str, series: str, instance: str) -> list[Path]:
    """The files of the stored versions of an instance, oldest first."""
    folder = listener.pacs.settings.resolved_storage_root / "radiology" / study / series / instance
    return sorted(folder.glob("*.dcm"))


def finds(peer: Peer, study: str, series: str, instance: str, context_id: int = 1) -> bool:
    """Whether C-FIND at the level of instances finds exactly this one."""
    keys = [element(0x00080018, "UI", uid_value(instance)), element(0x00080052, "CS", b"IMAGE ")]
    keys += [element(0x0020000D, "UI", uid_value(study)), element(0x0020000E, "UI", uid_value(series))]
    peer.request(context_id, find_rq(), b"".join(keys))
    statuses = []
    while not statuses or statuses[-1] in (commands.PENDING, commands.PENDING_WARNING):
        statuses.append(peer.response()[0].number(commands.STATUS))
    return statuses == [commands.PENDING, SUCCESS]


def assert_kept_and_found(listener: Listener, instance: Instance, path: Path) -> None:
    """The bytes are there as they were sent, or those of the same data set that came before in another transfer syntax."""
    uids = instance.study_instance_uid, instance.series_instance_uid, instance.sop_instance_uid
    data_set = split(path.read_bytes())[1]
    versions = stored(listener, *uids)
    limits = read_limits(listener.pacs.settings, listener.pacs.spool.directory)
    as_sent = any(version.read_bytes().endswith(data_set) for version in versions)
    assert as_sent or any(same_data_set(version, path, limits) for version in versions), path.name
    with listener.peer() as peer:
        peer.associate([(STUDY_ROOT_FIND, [EXPLICIT_LE])])
        assert finds(peer, *uids)


def read(listener: Listener, path: Path) -> Instance | None:
    """The instance as ingest reads it; None when it is broken."""
    try:
        return read_instance(path, read_limits(listener.pacs.settings, listener.pacs.spool.directory))
    except (InstanceRefused, InvalidUid):
        return None


def test_every_valid_file_of_the_corpus_is_kept_as_sent_and_found(listener: Listener, corpus: Path) -> None:
    for path in corpus_files(corpus):
        instance = read(listener, path)
        assert instance is not None, path.name
        file = path.read_bytes()
        answer = send(listener, file, instance.sop_class_uid, instance.sop_instance_uid)
        assert answer.number(commands.STATUS) == SUCCESS, (path.name, answer)
        assert_kept_and_found(listener, instance, path)


def test_broken_files_of_the_corpus_are_stored_or_refused_and_nothing_falls_over(listener: Listener, corpus: Path) -> None:
    assert send_all(listener, corpus_files(corpus, valid=False)) <= {SUCCESS, 0xA900, 0xC000, 0x0122}


def test_files_of_pydicom_good_and_bad_are_stored_or_refused_and_nothing_falls_over(listener: Listener) -> None:
    outcomes = send_all(listener, library_files())
    assert SUCCESS in outcomes
    assert outcomes <= {SUCCESS, 0xA900, 0xC000, 0x0122}


def send_all(listener: Listener, paths: list[Path]) -> set[int]:
    """The statuses that came; what was stored is found."""
    outcomes = set()
    for path in paths:
        file = path.read_bytes()
        if file[128:132] != b"DICM" or not split(file)[0]:
            continue  # no transfer syntax: nothing to negotiate
        instance = read(listener, path)
        sop_class, sop_instance = (instance.sop_class_uid, instance.sop_instance_uid) if instance else (SECONDARY_CAPTURE, "1.2.3")
        status = send(listener, file, sop_class, sop_instance).number(commands.STATUS)
        outcomes.add(status)
        if instance and status == SUCCESS:
            assert_kept_and_found(listener, instance, path)
    return outcomes


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_an_acknowledged_instance_is_found_at_once_in_the_same_association(listener: Listener, syntax: str) -> None:
    ds = image()
    transfer_syntax, data_set = split(part10(ds, syntax))
    with listener.peer() as peer:
        peer.associate([(SECONDARY_CAPTURE, [transfer_syntax]), (STUDY_ROOT_FIND, [EXPLICIT_LE])])
        assert peer.store(data_set, sop_class=SECONDARY_CAPTURE, sop_instance=ds.SOPInstanceUID).number(commands.STATUS) == SUCCESS
        assert finds(peer, ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID, context_id=3)


def test_a_private_sop_class_is_kept(listener: Listener) -> None:
    ds = image()
    ds.SOPClassUID = "1.3.6.1.4.1.99999.7"
    assert send_image(listener, ds) == SUCCESS
    assert len(stored(listener, ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)) == 1


def test_the_same_instance_again_is_success_and_stores_nothing_whatever_the_syntax(listener: Listener) -> None:
    ds = image()
    assert [send_image(listener, ds), send_image(listener, ds), send_image(listener, ds, ImplicitVRLittleEndian)] == [SUCCESS] * 3
    assert len(stored(listener, ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)) == 1


def test_other_content_under_the_same_uid_is_a_new_version_or_refused_by_policy(listener: Listener, tmp_path: Path) -> None:
    ds = image()
    other = image(study=ds.StudyInstanceUID, series=ds.SeriesInstanceUID, instance=ds.SOPInstanceUID)
    other.PatientComments = "changed"
    assert [send_image(listener, ds), send_image(listener, other)] == [SUCCESS] * 2
    assert len(stored(listener, ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)) == 2
    with archive(tmp_path, duplicate_policy="refuse") as refusing:
        assert [send_image(refusing, ds), send_image(refusing, other), send_image(refusing, ds)] == [SUCCESS, 0x0111, SUCCESS]


@pytest.mark.parametrize(
    ("change", "sop_class", "sop_instance", "status"),
    [
        ({}, SECONDARY_CAPTURE, "1.2.3.999", 0xA900),
        ({}, "1.2.840.10008.5.1.4.1.1.2", None, 0xA900),
        ({"StudyInstanceUID": ""}, None, None, 0xA900),
        ({"SeriesInstanceUID": "../../etc"}, None, None, 0xA900),
    ],
)
def test_what_does_not_agree_with_itself_is_refused_and_nothing_is_kept(
    listener: Listener, change: dict[str, str], sop_class: str | None, sop_instance: str | None, status: int
) -> None:
    ds = image()
    file = part10(ds)
    for keyword, value in change.items():
        old = str(ds[keyword].value).encode()
        file = file.replace(old, value.encode().ljust(len(old), b"\0"))
    answer = send(listener, file, sop_class or ds.SOPClassUID, sop_instance or ds.SOPInstanceUID)
    assert answer.number(commands.STATUS) == status
    assert answer.values[commands.ERROR_COMMENT]
    assert stored(listener, ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID) == []


@pytest.mark.parametrize("damage", ["garbage", "truncated", "empty"])
def test_what_cannot_be_read_is_refused_c000(listener: Listener, damage: str) -> None:
    ds = image()
    data_set = {"garbage": b"\xde\xad\xbe\xef" * 100, "truncated": split(part10(ds))[1][:-7], "empty": b""}[damage]
    with listener.peer() as peer:
        peer.associate([(SECONDARY_CAPTURE, [EXPLICIT_LE])])
        status = peer.store(data_set, sop_class=SECONDARY_CAPTURE, sop_instance=ds.SOPInstanceUID).number(commands.STATUS)
        assert status in (0xC000, 0xA900)
        assert peer.echo(message_id=2) == SUCCESS
    assert stored(listener, ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID) == []


def test_eight_associations_store_into_one_study_at_once_and_all_is_found(listener: Listener) -> None:
    study, failures = new_uid(), []
    images = [[image(study=study, number=n) for n in range(5)] for _ in range(8)]

    def work(share: list[Dataset]) -> None:
        with listener.peer() as peer:
            peer.associate([(SECONDARY_CAPTURE, [EXPLICIT_LE]), (STUDY_ROOT_FIND, [EXPLICIT_LE])])
            for ds in share:
                answer = peer.store(split(part10(ds))[1], sop_class=SECONDARY_CAPTURE, sop_instance=ds.SOPInstanceUID)
                if answer.number(commands.STATUS) != SUCCESS or not finds(peer, study, ds.SeriesInstanceUID, ds.SOPInstanceUID, 3):
                    failures.append(ds.SOPInstanceUID)

    threads = [threading.Thread(target=work, args=(share,)) for share in images]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_store_and_find_by_pynetdicom(listener: Listener) -> None:
    ds = image()
    ds.ensure_file_meta()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    contexts = [build_context(SECONDARY_CAPTURE, EXPLICIT_LE), build_context(STUDY_ROOT_FIND)]
    association = AE("TESTER").associate(listener.address.host, listener.address.port, contexts, ae_title="PACSLITE")
    assert association.is_established
    assert association.send_c_store(ds).Status == SUCCESS
    keys = Dataset()
    keys.QueryRetrieveLevel, keys.StudyInstanceUID, keys.PatientName = "STUDY", ds.StudyInstanceUID, ""
    answers = list(association.send_c_find(keys, STUDY_ROOT_FIND))
    association.release()
    assert [status.Status for status, _ in answers] == [commands.PENDING, SUCCESS]
    assert answers[0][1].PatientName == "Test^Patient"


@pytest.mark.skipif(not shutil.which("storescu"), reason="dcmtk is not installed")
def test_store_and_find_by_dcmtk(listener: Listener, tmp_path: Path) -> None:
    images = [image(number=number) for number in range(3)]
    for number, (ds, syntax) in enumerate(zip(images, (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian), strict=True)):
        (tmp_path / f"{number}.dcm").write_bytes(part10(ds, syntax))
    place = ["-aec", "PACSLITE", listener.address.host, str(listener.address.port)]
    for proposal in (["-R", "-x="], ["-R", "-xi"], ["-R", "-xb"]):
        done = subprocess.run(
            ["storescu", "-v", *proposal, *place, *map(str, sorted(tmp_path.glob("*.dcm")))],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("(Success)") == 3, done.stderr
    for ds in images:
        assert len(stored(listener, ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)) == 1
        keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={ds.StudyInstanceUID}", "-k", "NumberOfStudyRelatedInstances"]
        done = subprocess.run(["findscu", "-v", "-S", *keys, *place], capture_output=True, text=True, timeout=30, check=False)
        assert "[1 ]" in done.stdout + done.stderr, done.stdout + done.stderr
