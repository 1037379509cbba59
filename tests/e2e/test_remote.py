"""Work with peers in a running server: done by its worker, gone on with after a kill, shown by REST and the command line; with Orthanc."""

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
from pathlib import Path
from typing import Any

import pytest

from tests.support.data_sets import image, part10
from tests.support.processes import Server, pacslite, serving, until
from tests.support.retrieval import Receiver, receiving

ORTHANC = shutil.which("Orthanc")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
STUDY = "1.2.40"


def call(method: str, url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=60) as answer:
        return json.loads(answer.read() or b"null")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def take_in(server: Server, folder: Path, study: str, count: int) -> set[str]:
    """Instances of a study in the server; their UIDs."""
    folder.mkdir(exist_ok=True)
    uids = set()
    for number in range(1, count + 1):
        ds = image(study=study, series=f"{study}.1", instance=f"{study}.1.{number}", number=number)
        (folder / f"{number}.dcm").write_bytes(part10(ds))
        uids.add(ds.SOPInstanceUID)
    assert pacslite("import", "--data", server.data, folder).returncode == 0
    return uids


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("pacslite") / "data", PACSLITE_JOB_LEASE_S="2") as running:
        yield running


def wait_for(server: Server, job: Any, state: str = "succeeded") -> Any:
    def now() -> Any:
        found = call("GET", f"{server.url}/api/v1/jobs/{job['id']}")
        return found if found["state"] == state else None

    return until(now, what=f"{job['kind']} {state}")


def test_a_job_goes_on_where_it_was_when_the_worker_is_killed(server: Server, tmp_path: Path) -> None:
    sent = take_in(server, tmp_path / "files", "1.2.41", 6)
    killed: list[int] = []

    def answer(number: int) -> int | None:
        if number == 4 and not killed:
            # What is done so far is written down once a second.
            until(lambda: call("GET", f"{server.url}/api/v1/jobs/{job['id']}/items?outcome=sent")["total"] == 3 or None)
            killed.extend(role["pid"] for role in server.roles if role["name"] == "worker")
            os.kill(killed[0], signal.SIGKILL)
            return None
        return 0

    with receiving(Receiver(answer=answer)) as receiver:
        call("POST", f"{server.url}/api/v1/peers", {"ae_title": "SLOW", "host": "127.0.0.1", "port": receiver.port})
        job = call("POST", f"{server.url}/api/v1/peers/SLOW/store", {"study_instance_uid": "1.2.41"})
        done = wait_for(server, job)
    assert killed
    assert done["result"] == {"peer": "SLOW", "total": 6, "sent": 6, "failed": 0}
    assert (set(receiver.stored), len(receiver.commands)) == (sent, 7)
    seen = call("GET", f"{server.url}/api/v1/changes?limit=1000")["items"]
    assert [one["job"]["state"] for one in seen if one["id"] == job["id"]] == ["queued", "running", "running", "succeeded"]


# Orthanc


@pytest.fixture(scope="module")
def orthanc(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running Orthanc that knows PACSLITE, and is known as ORTHANC and, where its plugin is there, as `orthanc-web`; its URL."""
    if ORTHANC is None:
        pytest.skip("Orthanc is not installed")
    folder, http, dicom = tmp_path_factory.mktemp("orthanc"), free_port(), free_port()
    settings = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": http,
        "DicomPort": dicom,
        "DicomAet": "ORTHANC",
        "Plugins": [str(PLUGIN)] if PLUGIN.exists() else [],
        "AuthenticationEnabled": True,
        "RegisteredUsers": {"ann": "s3cret"},
        "DicomModalities": {"pacslite": ["PACSLITE", server.dicom[0], int(server.dicom[1])]},
        "DicomWeb": {"Enable": True, "Servers": {"pacslite": {"Url": f"{server.url}/dicom-web/"}}},
        "DicomAlwaysAllowGet": True,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([str(ORTHANC), str(folder / "orthanc.json")], stdout=log, stderr=log, cwd=folder)
    url = f"http://127.0.0.1:{http}"
    try:
        until(lambda: is_up(url), what="Orthanc")
        call("POST", f"{server.url}/api/v1/peers", {"ae_title": "ORTHANC", "host": "127.0.0.1", "port": dicom})
        web = {"kind": "dicomweb", "name": "orthanc-web", "url": f"{url}/dicom-web", "username": "ann", "password": "s3cret"}
        call("POST", f"{server.url}/api/v1/peers", web)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def at_orthanc(method: str, url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Authorization": "Basic YW5uOnMzY3JldA=="}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read() or b"null")


def is_up(url: str) -> bool:
    with contextlib.suppress(OSError):
        return bool(at_orthanc("GET", f"{url}/system"))
    return False


def instances(url: str) -> set[str]:
    return {one["MainDicomTags"]["SOPInstanceUID"] for one in at_orthanc("GET", f"{url}/instances?expand")}


@pytest.mark.parametrize(("peer", "method"), [("ORTHANC", "get"), ("ORTHANC", "move"), ("orthanc-web", "wado")])
def test_orthanc_is_sent_to_queried_and_retrieved_from(server: Server, orthanc: str, tmp_path: Path, peer: str, method: str) -> None:
    if peer == "orthanc-web" and not PLUGIN.exists():
        pytest.skip("the DICOMweb plugin of Orthanc is not installed")
    for patient in at_orthanc("GET", f"{orthanc}/patients"):
        at_orthanc("DELETE", f"{orthanc}/patients/{patient}")
    study = f"{STUDY}.{len(method)}.{ord(method[0])}"
    held = take_in(server, tmp_path / "files", study, 4)
    root = f"{server.url}/api/v1/peers/{peer}"
    assert call("POST", f"{root}/echo")["outcome"] == "success"
    job = wait_for(server, call("POST", f"{root}/store", {"study_instance_uid": study}))
    assert (job["result"]["sent"], instances(orthanc)) == (4, held)
    found = call("POST", f"{root}/query", {"level": "study", "keys": {"StudyInstanceUID": study}})
    assert [(one["StudyInstanceUID"], one["PatientName"]) for one in found["items"]] == [(study, "Test^Patient")]

    call("DELETE", f"{server.url}/dicom-web/studies/{study}")
    job = wait_for(server, call("POST", f"{root}/retrieve", {"study_instance_uid": study, "method": method}))
    assert (job["result"]["method"], job["result"]["received"]) == (method, 4)
    found = call("GET", f"{server.url}/dicom-web/studies/{study}/instances")
    assert {one["00080018"]["Value"][0] for one in found} == held


@pytest.mark.skipif(not PLUGIN.exists(), reason="the DICOMweb plugin of Orthanc is not installed")
def test_orthanc_sends_to_us_and_retrieves_from_us_over_dicomweb(server: Server, orthanc: str, tmp_path: Path) -> None:
    ds = image(study="1.2.42")
    request = urllib.request.Request(f"{orthanc}/instances", part10(ds), {"Authorization": "Basic YW5uOnMzY3JldA=="}, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        instance = json.load(answer)["ID"]
    at_orthanc("POST", f"{orthanc}/dicom-web/servers/pacslite/stow", {"Resources": [instance], "Synchronous": True})
    (found,) = call("GET", f"{server.url}/dicom-web/studies/1.2.42/instances")
    assert found["00080018"]["Value"] == [ds.SOPInstanceUID]
    held = take_in(server, tmp_path / "files", "1.2.43", 2)
    at_orthanc("POST", f"{orthanc}/dicom-web/servers/pacslite/retrieve", {"Resources": [{"Study": "1.2.43"}], "Synchronous": True})
    assert held <= instances(orthanc)


# The command line


def test_the_command_line_queries_sends_and_retrieves(server: Server, tmp_path: Path) -> None:
    held = take_in(server, tmp_path / "files", "1.2.44", 3)
    other = tmp_path / "other"
    options = ("--data", other, "--json")
    assert pacslite("migrate", "--data", other).returncode == 0
    assert pacslite("peer", "add", "PACSLITE", *server.dicom, *options).returncode == 0
    assert pacslite("peer", "add-web", "web", f"{server.url}/dicom-web", *options).returncode == 0
    query = pacslite("peers", "query", "PACSLITE", "-k", "StudyInstanceUID=1.2.44", "-k", "StudyID", *options)
    assert [one["NumberOfStudyRelatedInstances"] for one in json.loads(query.stdout)["items"]] == ["3"]
    for peer, method in (("web", "wado"), ("PACSLITE", "get")):
        study = ("--study", "1.2.44", "--series", "1.2.44.1")
        done = pacslite("peer", "retrieve", peer, *study, *(("--instance", "1.2.44.1.1") if peer == "web" else ()), *options)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["result"]["method"] == method
    assert len(held) == 3
    done = pacslite("peer", "send", "web", "--study", "1.2.44", *options)
    assert (done.returncode, json.loads(done.stdout)["result"]["sent"]) == (0, 3), done.stderr
    queued = pacslite("peer", "commit", "PACSLITE", "--study", "1.2.44", "--detach", *options)
    job = json.loads(queued.stdout)
    assert (queued.returncode, job["state"]) == (0, "queued")
    assert pacslite("jobs", "cancel", job["id"], "--data", other).returncode == 0
    failed = pacslite("peer", "send", "PACSLITE", "--study", "1.2.99", "--data", other)
    assert (failed.returncode, failed.stderr) == (3, "pacslite: There is no such study.\n")
    told = pacslite("peer", "show", "web", "--data", other).stdout
    assert "instances_sent: 3" in told
