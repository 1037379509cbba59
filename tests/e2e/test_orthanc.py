"""pacslite and Orthanc as each other's peers: whatever one holds, the other can find, fetch and send on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tests.support.data_sets import image, part10
from tests.support.processes import Server, pacslite, serving, until

ORTHANC = shutil.which("Orthanc")
pytestmark = [
    pytest.mark.skipif(ORTHANC is None, reason="Orthanc is not installed"),
    pytest.mark.skipif(not shutil.which("movescu"), reason="dcmtk is not installed"),
]
STUDY, SERIES = "1.2.7", "1.2.7.1"


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc that knows one modality, PACSLITE."""

    url: str
    dicom_port: int

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One REST request; the JSON of its answer."""
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data, method=method), timeout=60) as answer:
            return json.load(answer)

    @property
    def instances(self) -> set[str]:
        """SOP Instance UIDs of what it holds."""
        return {one["MainDicomTags"]["SOPInstanceUID"] for one in self.call("GET", "/instances?expand")}

    def forget(self) -> None:
        """Remove all patients."""
        for patient in self.call("GET", "/patients"):
            self.call("DELETE", f"/patients/{patient}")

    def retrieve(self, level: str, **keys: str) -> None:
        """Query PACSLITE and have it move what it found to this Orthanc."""
        query = self.call("POST", "/modalities/pacslite/query", {"Level": level, "Query": keys})["ID"]
        assert self.call("GET", f"/queries/{query}/answers") != []
        self.call("POST", f"/queries/{query}/retrieve", {"TargetAet": "ORTHANC"})


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("pacslite") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def orthanc(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    folder = tmp_path_factory.mktemp("orthanc")
    http, dicom = free_port(), free_port()
    settings = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": http,
        "DicomPort": dicom,
        "DicomAet": "ORTHANC",
        "Plugins": [],
        "AuthenticationEnabled": False,
        "DicomModalities": {"pacslite": ["PACSLITE", server.dicom[0], int(server.dicom[1])]},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([str(ORTHANC), str(folder / "orthanc.json")], stdout=log, stderr=log, cwd=folder)
    try:
        running = Orthanc(f"http://127.0.0.1:{http}", dicom)
        until(lambda: is_up(running), what="Orthanc")
        assert pacslite("peer", "add", "ORTHANC", "127.0.0.1", str(dicom), "--data", server.data).returncode == 0
        yield running
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def is_up(orthanc: Orthanc) -> bool:
    with contextlib.suppress(OSError):
        return bool(orthanc.call("GET", "/system"))
    return False


@pytest.fixture(scope="module")
def held(server: Server, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What pacslite holds: a study in two transfer syntaxes; SOP Instance UIDs."""
    folder = tmp_path_factory.mktemp("files")
    uids = set()
    for number in range(1, 7):
        ds = image(study=STUDY, series=SERIES, instance=f"{SERIES}.{number}", number=number)
        ds.PatientID = "ORTHANC-1"
        uids.add(ds.SOPInstanceUID)
        (folder / f"{number}.dcm").write_bytes(part10(ds, ExplicitVRLittleEndian if number % 2 else ImplicitVRLittleEndian))
    done = pacslite("import", "--data", server.data, folder)
    assert done.returncode == 0, done.stderr
    return uids


def test_pacslite_moves_to_orthanc(server: Server, orthanc: Orthanc, held: set[str]) -> None:
    orthanc.forget()
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY}"]
    command = ["movescu", "-v", "-S", "-aec", "PACSLITE", "-aem", "ORTHANC", *keys, *server.dicom]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "Received Final Move Response (Success)" in done.stdout + done.stderr
    assert orthanc.instances == held


@pytest.mark.parametrize(
    ("level", "keys", "count"),
    [
        ("Patient", {"PatientID": "ORTHANC-1"}, 6),
        ("Study", {"PatientName": "test*"}, 6),
        ("Series", {"StudyInstanceUID": STUDY, "SeriesInstanceUID": ""}, 6),
        ("Instance", {"StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES, "SOPInstanceUID": f"{SERIES}.3"}, 1),
    ],
)
def test_orthanc_finds_in_pacslite_and_has_it_sent_at_every_level(
    orthanc: Orthanc, held: set[str], level: str, keys: dict[str, str], count: int
) -> None:
    orthanc.forget()
    orthanc.retrieve(level, **keys)
    assert len(orthanc.instances) == count
    assert orthanc.instances <= held


def test_what_orthanc_sends_on_is_found_in_pacslite(server: Server, orthanc: Orthanc) -> None:
    ds = image(study="1.2.8")
    data = part10(ds)
    with urllib.request.urlopen(urllib.request.Request(f"{orthanc.url}/instances", data, method="POST"), timeout=60) as answer:
        instance = json.load(answer)["ID"]
    assert orthanc.call("POST", "/modalities/pacslite/store", [instance])["FailedInstancesCount"] == 0
    with urllib.request.urlopen(f"{server.url}/dicom-web/studies/1.2.8/instances", timeout=60) as answer:
        assert [one["00080018"]["Value"] for one in json.load(answer)] == [[ds.SOPInstanceUID]]
