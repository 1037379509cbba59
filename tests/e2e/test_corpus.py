"""Every file at hand goes in by C-STORE and by STOW-RS and comes back: as sent, described, found, frame by frame.

The files are the corpus of many vendors (when it is beside the checkout), those of pydicom and of the package pydicom-data, and
generated ones. The short form takes every fourth file.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import requests
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian
from pynetdicom.dsutils import decode

from pacslite.settings import Address
from tests.conftest import full
from tests.support import data_sets
from tests.support.dcm2json import dcm2json, differences
from tests.support.dicom_files import corpus_files, element, meta_of
from tests.support.dimse import EXPLICIT_LE, SECONDARY_CAPTURE, STUDY_ROOT_FIND, Peer, find_rq, results, uid_value
from tests.support.multipart import contents
from tests.support.processes import Server, serving
from tests.support.pydicom_compare import differing, frame
from tests.support.specimens import NAMES, generated_files, real_files

# pydicom warns of much that real files do.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

STEP = 1 if full() else 4
CONTEXTS = 100  # of one association; 128 are the most there can be
# Files of pydicom that are no whole instances.
INCOMPLETE = {"MR_truncated.dcm", "rtplan_truncated.dcm"}
AS_STORED = "application/dicom; transfer-syntax=*"
NATIVE = {str(uid) for uid in data_sets.NATIVE}


@dataclass
class Specimen:
    """A file and what pydicom reads in it; `valid` is None where an archive may take it or not."""

    path: Path
    valid: bool | None

    @cached_property
    def file(self) -> bytes:
        return self.path.read_bytes()

    @cached_property
    def header(self) -> Dataset:
        """What pydicom reads; empty when it cannot."""
        try:
            return dcmread(io.BytesIO(self.file), force=True)
        except Exception:  # noqa: BLE001  pydicom raises anything on broken files
            return Dataset()

    @cached_property
    def syntax(self) -> str:
        if self.file[128:132] != b"DICM":
            return ""
        return meta_of(self.file).transfer_syntax_uid  # pydicom gives that of the inner file of one wrapped twice

    @cached_property
    def data_set(self) -> bytes:
        return split(self.file)

    @cached_property
    def uids(self) -> tuple[str, str, str]:
        study, series, instance = (self._of(self.header, f"{name}InstanceUID") for name in ("Study", "Series", "SOP"))
        return study, series, instance

    @cached_property
    def sop_class(self) -> str:
        return self._of(self.header, "SOPClassUID")

    @property
    def identity(self) -> tuple[str, ...]:
        return tuple(str(self.header.get(name, "")).strip() for name in ("PatientID", "IssuerOfPatientID"))

    @property
    def name(self) -> list[str]:
        kind, _, number = self.path.stem.partition("-")
        if kind == "charset":
            return groups(NAMES[int(number)][1])
        return groups(str(self.header.get("PatientName", "")))

    @staticmethod
    def _of(ds: Dataset, keyword: str) -> str:
        value = ds.get(keyword)
        return str(value).strip(" \0") if isinstance(value, str) else ""


def split(file: bytes) -> bytes:
    """The data set of a file; all of it when there is no file meta."""
    return file[meta_of(file).data_set_offset :] if file[128:132] == b"DICM" else file


def groups(name: str) -> list[str]:
    """The component groups of a person name without what may be left out."""
    found = [group.strip(" ").rstrip("^ \0") for group in name.split("=")]
    while found and not found[-1]:
        found.pop()
    return found


@dataclass
class Archive:
    """A server with what was stored in it, and the clients of it."""

    server: Server
    finder: Peer
    session: requests.Session
    sent: dict[tuple[str, str, str], list[Specimen]] = field(default_factory=dict)
    identities: dict[str, tuple[str, ...]] = field(default_factory=dict)
    compared: Counter[str] = field(default_factory=Counter)

    def get(self, path: str, accept: str) -> requests.Response:
        url = path if path.startswith("http") else f"{self.server.url}/dicom-web{path}"
        return self.session.get(url, headers={"Accept": accept}, timeout=60)

    def by_c_store(self, specimens: Iterable[Specimen]) -> Iterator[tuple[Specimen, bool]]:
        """Sends each in its own transfer syntax, many in one association; whether it was taken."""
        left = [one for one in specimens if one.syntax]  # nothing can be negotiated for the others
        while left:
            contexts: dict[tuple[str, str], int] = {}
            for one in left:
                if len(contexts) < CONTEXTS:
                    contexts.setdefault((one.sop_class or SECONDARY_CAPTURE, one.syntax), 2 * len(contexts) + 1)
            with Peer(address(self.server), timeout_s=60) as peer:
                accepted = results(peer.associate([(abstract, [syntax]) for abstract, syntax in contexts]))
                peer.max_pdu = 65536
                rest = []
                for one in left:
                    sop_class = one.sop_class or SECONDARY_CAPTURE
                    number = contexts.get((sop_class, one.syntax))
                    if number is None:
                        rest.append(one)
                        continue
                    if accepted[number][0] != 0:  # not of a storage class
                        yield one, False
                        continue
                    answer = peer.store(one.data_set, number, sop_class=sop_class, sop_instance=one.uids[2] or "1.2.3")
                    status = answer.number(0x0900)
                    assert status in (0x0000, 0xA900, 0xC000, 0x0122), (one.path.name, hex(status))
                    yield one, status == 0
                peer.release()
            left = rest

    def by_stow(self, specimens: Iterable[Specimen]) -> Iterator[tuple[Specimen, bool]]:
        """Posts each file; whether it was taken."""
        for one in specimens:
            answer = self.session.post(
                f"{self.server.url}/dicom-web/studies",
                data=data_sets.body([one.file]),
                headers={"Content-Type": data_sets.CONTENT_TYPE},
                timeout=60,
            )
            assert answer.status_code in (200, 409), (one.path.name, answer.text)
            assert ("00081199" in answer.json()) is (answer.status_code == 200)
            yield one, answer.status_code == 200

    def faults(self, one: Specimen) -> list[str]:
        """What is wrong with an instance that was taken just now."""
        if not all(one.uids):
            return []  # pydicom cannot tell where to look for it
        path = "/studies/{}/series/{}/instances/{}".format(*one.uids)
        earlier = self.sent.setdefault(one.uids, [])
        # Names follow the newest instance, but not a duplicate, nor one of another patient in a study that has one.
        known = self.identities.setdefault(one.uids[0], one.identity)
        named = not earlier and known == one.identity
        found = self._as_sent(one, path, earlier)
        if one.valid:
            found += self._described(one, path) + self._found(one, named)
            found += self._frames(one, path) + self._converted(one, path, earlier)
        elif self.get(f"{path}/metadata", "application/dicom+json").status_code != 200:
            found.append("kept, but not described")
        earlier.append(one)
        return [f"{one.path.name}: {fault}"[:400] for fault in found]

    def _as_sent(self, one: Specimen, path: str, earlier: list[Specimen]) -> list[str]:
        answer = self.get(path, AS_STORED)
        self.compared["instances"] += 1
        if answer.status_code != 200:
            return [f"instance: {answer.status_code} {answer.text[:200]}"]
        if split(answer.content) == one.data_set:
            return []
        # The same data set came before in another encoding: then that one is kept.
        for other in earlier:
            if split(answer.content) == other.data_set:
                return [f"not the same as {other.path.name}: {fault}" for fault in differing(one.header, other.header)]
        return ["the data set is not the one that was sent"]

    def _described(self, one: Specimen, path: str) -> list[str]:
        answer = self.get(f"{path}/metadata", "application/dicom+json")
        if answer.status_code != 200:
            return [f"metadata: {answer.status_code}"]
        [ours] = answer.json()
        theirs = dcm2json(one.path)
        found = differences(ours, theirs) if theirs is not None else []
        self.compared["documents"] += theirs is not None
        return [f"metadata: {fault}" for fault in found] + self._bulk(one, ours)

    def _bulk(self, one: Specimen, document: dict[str, Any]) -> list[str]:
        found = []
        for key, member in document.items():
            if "BulkDataURI" in member and key not in ("7FE00010", "7FE00008", "7FE00009"):
                answer = self.get(member["BulkDataURI"], "*/*")
                if answer.status_code != 200:
                    found.append(f"bulk data {key}: {answer.status_code}")
                    continue
                raw = one.header.get_item(int(key, 16))
                self.compared["bulk data"] += 1
                [content] = contents(answer.headers["content-type"], answer.content)
                if one.syntax != ExplicitVRBigEndian and isinstance(raw.value, bytes) and content.rstrip(b"\0") != raw.value.rstrip(b"\0"):
                    found.append(f"bulk data {key}: other bytes")
        return found

    def _found(self, one: Specimen, named: bool) -> list[str]:
        study, series, instance = one.uids
        keys = f"StudyInstanceUID={study}&SeriesInstanceUID={series}&SOPInstanceUID={instance}"
        answer = self.get(f"/instances?{keys}", "application/dicom+json")
        if answer.status_code != 200 or len(answer.json()) != 1:
            return [f"QIDO-RS: {answer.status_code} {answer.text[:200]}"]
        [match] = answer.json()
        self.compared["names"] += named
        found = [] if match["00080016"].get("Value") == [one.sop_class] else [f"QIDO-RS: SOP class {match['00080016']}"]
        [(value, *_)] = [match["00100010"].get("Value") or [{}]]
        name = groups("=".join((value or {}).get(key, "") for key in ("Alphabetic", "Ideographic", "Phonetic")))
        if named and name != one.name:
            found.append(f"QIDO-RS: named {name}, not {one.name}")
        asked = self._asked(one)
        if asked is None:
            return [*found, "C-FIND: not one match"]
        name = groups(str(asked.get("PatientName", "")))
        if named and name != one.name:
            found.append(f"C-FIND: named {name}, not {one.name} ({asked.get('SpecificCharacterSet')})")
        return found

    def _asked(self, one: Specimen) -> Dataset | None:
        """The only match of a C-FIND on the level of instances."""
        study, series, instance = map(uid_value, one.uids)
        keys = [element(0x00080018, "UI", instance), element(0x00080052, "CS", b"IMAGE "), element(0x00100010, "PN")]
        keys += [element(0x0020000D, "UI", study), element(0x0020000E, "UI", series)]
        self.finder.request(1, find_rq(), b"".join(keys))
        matches = []
        while True:
            command, data = self.finder.response()
            if command.number(0x0900) not in (0xFF00, 0xFF01):
                break
            matches.append(decode(io.BytesIO(data), False, True))
        return matches[0] if len(matches) == 1 and command.number(0x0900) == 0 else None

    def _frames(self, one: Specimen, path: str) -> list[str]:
        if "PixelData" not in one.header or one.syntax == "1.2.840.10008.1.2.8.1":
            return []
        told = str(one.header.get("NumberOfFrames") or 1)
        count = int(told) if told.isdigit() else 1
        found = []
        for number in sorted({1, count}):
            expected = frame(one.header, one.syntax, number, count)
            if expected is None:
                continue
            accept = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
            answer = self.get(f"{path}/frames/{number}", accept if one.syntax in NATIVE else "*/*; transfer-syntax=*")
            if answer.status_code != 200:
                found.append(f"frame {number} of {count}: {answer.status_code} {answer.text[:200]}")
                continue
            self.compared["frames"] += 1
            [content] = contents(answer.headers["content-type"], answer.content)
            if content.rstrip(b"\0") != expected.rstrip(b"\0"):
                found.append(f"frame {number} of {count}: {len(content)} other bytes than the {len(expected)} of pydicom")
        return found

    def _converted(self, one: Specimen, path: str, earlier: list[Specimen]) -> list[str]:
        """The instance in explicit little endian, compared element by element."""
        if one.syntax not in NATIVE:
            return []
        answer = self.get(path, f"application/dicom; transfer-syntax={EXPLICIT_LE}")
        if answer.status_code != 200:
            return [f"converted: {answer.status_code} {answer.text[:200]}"]
        self.compared["converted"] += 1
        got = dcmread(io.BytesIO(answer.content))
        assert got.file_meta.TransferSyntaxUID == EXPLICIT_LE
        return [f"converted: {fault}" for fault in differing(one.header, got)]


def address(server: Server) -> Address:
    host, port = server.dicom
    return Address(host, int(port))


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Archive]]:
    """Two archives: one for each way in."""
    with ExitStack() as stack:
        made = {}
        for way in ("c-store", "stow-rs"):
            folder = tmp_path_factory.mktemp(way) / "data"
            server = stack.enter_context(
                serving(folder, "--dimse-processes", "1", "--web-processes", "1", PACSLITE_NETWORK_TIMEOUT_S="600")
            )
            finder = stack.enter_context(Peer(address(server), timeout_s=60))
            finder.associate([(STUDY_ROOT_FIND, [EXPLICIT_LE])])
            made[way] = Archive(server, finder, stack.enter_context(requests.Session()))
        yield made


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Specimen]]:
    """The files that need no corpus, by where they come from."""
    generated = generated_files(tmp_path_factory.mktemp("generated"))
    return {
        "generated": [Specimen(path, True) for path in generated],
        "pydicom": [Specimen(path, None if path.name in INCOMPLETE else is_whole(path)) for path in real_files()],
    }


def is_whole(path: Path) -> bool | None:
    """Whether pydicom finds the four UIDs and a transfer syntax behind a preamble."""
    one = Specimen(path, None)
    return True if one.file[128:132] == b"DICM" and one.syntax and all((*one.uids, one.sop_class)) else None


def check(archive: Archive, way: str, specimens: list[Specimen]) -> list[str]:
    """Sends every one and looks at it at once; what is wrong, and with which."""
    faults = []
    archive.compared.clear()
    for one, taken in archive.by_c_store(specimens) if way == "c-store" else archive.by_stow(specimens):
        if taken:
            faults += archive.faults(one)
        elif one.valid:
            faults.append(f"{one.path.name}: refused")
    valid = sum(one.valid is True for one in specimens)
    assert archive.compared["instances"] >= valid
    assert archive.compared["names"] >= valid // 3
    print(f"{len(specimens)} files by {way}; compared: {dict(archive.compared)}")
    assert archive.server.health()["status"] == "ready"
    assert list((archive.server.data / "spool").iterdir()) == []
    assert "Traceback" not in archive.server.logged()
    return faults


@pytest.mark.parametrize("way", ["c-store", "stow-rs"])
@pytest.mark.parametrize("kind", ["generated", "pydicom"])
def test_files_of_every_encoding_come_back_as_sent(
    archives: dict[str, Archive], kinds: dict[str, list[Specimen]], kind: str, way: str
) -> None:
    chosen = kinds[kind] if kind == "generated" else kinds[kind][::STEP]
    faults = check(archives[way], way, chosen)
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("way", ["c-store", "stow-rs"])
def test_files_of_many_vendors_come_back_as_sent(archives: dict[str, Archive], corpus: Path, way: str) -> None:
    specimens = [Specimen(path, True) for path in corpus_files(corpus)]
    faults = check(archives[way], way, specimens[::STEP])
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("way", ["c-store", "stow-rs"])
def test_broken_files_are_refused_or_kept_as_sent_and_nothing_falls_over(archives: dict[str, Archive], corpus: Path, way: str) -> None:
    specimens = [Specimen(path, None) for path in corpus_files(corpus, valid=False)]
    faults = check(archives[way], way, specimens)
    assert not faults, "\n".join(faults)
