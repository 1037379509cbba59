"""`pacslite backup` beside a server that takes in all the while, and `pacslite restore` after the original is gone."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from tests.e2e.test_kill import Instances, Sender, Sent, assert_whole, by_c_store, by_stow
from tests.support.files import any_photo
from tests.support.kills import sending
from tests.support.processes import ROOT, Server, environment, pacslite, serving, until

ENOUGH = 10  # instances of each sender before the backup begins, and while it runs


def _run(*arguments: str | Path, code: int = 0) -> dict[str, Any]:
    done = pacslite(*arguments, "--json")
    assert done.returncode == code, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@dataclass
class Photos:
    """Brings files over REST, and versions of every third one, until told to stop; what was acknowledged, by id: digests of versions."""

    server: Server
    patient: int
    acknowledged: dict[str, tuple[str, ...]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        with requests.Session() as session:
            while not stop.wait(0.1):  # each file makes a job, and the machine has more to do
                answer = self._send(session, "upload", {"patient_id": str(self.patient), "file_type": "photo"})
                if answer is None:
                    return
                if len(self.acknowledged) % 3 == 0:
                    version = self._send(session, f"upload-version/{answer['id']}", {"version_type": "followup"})
                    if version is None:
                        return
                    self.acknowledged[answer["id"]] = (answer["file_hash"], version["file_hash"])
                else:
                    self.acknowledged[answer["id"]] = (answer["file_hash"],)

    def _send(self, session: requests.Session, path: str, form: dict[str, str]) -> dict[str, Any] | None:
        data = any_photo()
        answer = session.post(f"{self.server.url}/api/v1/files/{path}", data=form, files={"file": ("Foto ä.jpg", data)}, timeout=30)
        if answer.status_code != 201 or answer.json()["file_hash"] != hashlib.sha256(data).hexdigest():
            self.problems.append(answer.text)
            return None
        told: dict[str, Any] = answer.json()
        return told


def _assert_files_whole(server: Server, files: dict[str, tuple[str, ...]]) -> None:
    """Every version of every file is there, by the digest of what its content gives."""
    with requests.Session() as session:
        for file_id, digests in files.items():
            url = f"{server.url}/api/v1/files/{file_id}"
            assert session.get(url, timeout=30).json()["file_hash"] == digests[-1]
            for number, digest in enumerate(digests, start=1):
                content = session.get(f"{url}/content", params={"version": number}, timeout=30).content
                assert hashlib.sha256(content).hexdigest() == digest


def _patient(server: Server) -> int:
    answer = requests.post(f"{server.url}/api/v1/patients", json={"mrn": "4711", "name": "Müller^Eva"}, timeout=30)
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def test_a_backup_made_while_instances_and_files_arrive_brings_back_all_that_was_acknowledged_before(tmp_path: Path) -> None:
    data, target, new = tmp_path / "data", tmp_path / "target", tmp_path / "new"
    with serving(data, "--dimse-processes", "1", "--web-processes", "1") as server:
        senders = [Sender(store(server), Instances(number)) for number, store in enumerate((by_c_store, by_stow))]
        patient = _patient(server)
        photos, stop = Photos(server, patient), threading.Event()
        bringing = threading.Thread(target=photos.run, args=(stop,))
        bringing.start()
        try:
            with sending(senders):
                _wait_for_more(senders, photos)
                first_promised = _acknowledged(senders)
                first = _run("backup", target, "--data", data)
                _wait_for_more(senders, photos)
                promised, files = _acknowledged(senders), dict(photos.acknowledged)
                second = _run("backup", target, "--data", data)
                _wait_for_more(senders, photos)
        finally:
            stop.set()
            bringing.join(60)
        sent = _acknowledged(senders)
        assert not any(sender.refused or sender.broken for sender in senders)
        assert not photos.problems
        changes = _changes(server)
    assert len(first_promised) <= first["blobs"] < second["blobs"]
    assert first["copied"] == first["blobs"]
    assert second["copied"] < second["blobs"]
    assert first["missing_count"] == second["missing_count"] == 0
    listed = _run("backup", "list", target)["backups"]
    assert [one["id"] for one in listed] == [first["id"], second["id"]]
    began_at = listed[1]["created_at"]
    assert _run("backup", "verify", target)["damaged_count"] == 0
    assert _run("restore", target, "--verify-only", "--backup", first["id"])["damaged_count"] == 0

    shutil.rmtree(data)
    assert _run("restore", target, "--data", new)["files"] >= second["blobs"]
    assert pacslite("verify", "--deep", "--data", new).returncode == 0
    assert pacslite("audit", "verify", "--data", new).returncode == 0
    with serving(new, "--dimse-processes", "1", "--web-processes", "1") as server:
        there = _instances(server)
        assert set(promised) <= there <= set(sent)
        assert_whole(server, {uid: sent[uid] for uid in there})
        _assert_files_whole(server, files)
        of_patient = requests.get(f"{server.url}/api/v1/files/patient/{patient}/files", params={"limit": 1000}, timeout=30).json()
        assert set(files) <= {one["id"] for one in of_patient["items"]} <= set(photos.acknowledged)
        by_number = {change["seq"]: change for change in changes}
        told_before = [change for change in _changes(server) if change["at"] <= began_at]
        assert told_before
        assert all(change == by_number[change["seq"]] for change in told_before)
        more = Sender(by_c_store(server), Instances(7))
        with sending([more]):
            _wait_for_more([more])
        assert_whole(server, more.acknowledged)
    assert _run("backup", target, "--data", new, "--keep", "1")["removed"] == [first["id"], second["id"]]
    assert _run("backup", "verify", target)["damaged_count"] == 0


def _wait_for_more(*groups: Any) -> None:
    senders = [one for group in groups for one in (group if isinstance(group, list) else [group])]
    counts = [len(sender.acknowledged) + ENOUGH for sender in senders]
    until(lambda: all(len(s.acknowledged) >= count for s, count in zip(senders, counts, strict=True)), 60, "more instances and files")


def _acknowledged(senders: list[Sender]) -> dict[str, Sent]:
    return {uid: sent for sender in senders for uid, sent in list(sender.acknowledged.items())}


def _instances(server: Server) -> set[str]:
    answer = requests.get(f"{server.url}/dicom-web/instances", params={"limit": "10000"}, timeout=30)
    return {one["00080018"]["Value"][0] for one in answer.json()}


def _changes(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        since = found[-1]["seq"] if found else 0
        page = requests.get(f"{server.url}/api/v1/changes", params={"since": since, "limit": 1000}, timeout=30).json()["items"]
        found += page
        if len(page) < 1000:  # jobs go on telling
            return found


def test_a_backup_that_was_killed_is_none_and_the_next_one_goes_on(tmp_path: Path) -> None:
    data, target = tmp_path / "data", tmp_path / "target"
    assert pacslite("migrate", "--data", data).returncode == 0
    assert pacslite("samples", "--data", data).returncode == 0
    last = max(data.glob("storage/radiology/*/*/*/*.dcm"))
    last.rename(tmp_path / "last.dcm")
    os.mkfifo(last)  # whoever opens it waits: so the backup is in the middle of its work when it is killed
    command = [sys.executable, "-m", "pacslite", "backup", str(target), "--data", str(data)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until(lambda: _contents(target) >= 3, 60, "contents")
        os.kill(process.pid, signal.SIGKILL)
    (tmp_path / "last.dcm").rename(last)
    copied = _contents(target)
    assert _run("backup", "list", target)["backups"] == []
    assert pacslite("restore", target, "--data", tmp_path / "new").returncode == 3
    report = _run("backup", target, "--data", data)
    assert copied <= report["blobs"] - report["copied"] + 1  # what was whole is not copied again
    assert len(list((target / "backups").iterdir())) == 1
    assert _run("restore", target, "--data", tmp_path / "new")["damaged_count"] == 0
    assert pacslite("verify", "--deep", "--data", tmp_path / "new").returncode == 0


def _contents(target: Path) -> int:
    return sum(1 for path in target.glob("contents/*/*") if not path.name.startswith("."))


def test_damage_is_named_and_nothing_is_served_of_it(tmp_path: Path) -> None:
    data, target, new = tmp_path / "data", tmp_path / "target", tmp_path / "new"
    assert pacslite("migrate", "--data", data).returncode == 0
    assert pacslite("samples", "--data", data).returncode == 0
    _run("backup", target, "--data", data)
    flipped, gone = sorted(path for path in target.glob("contents/*/*") if path.stat().st_size > 1000)[:2]
    content = flipped.read_bytes()
    flipped.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
    gone.unlink()
    told = _run("backup", "verify", target, code=1)
    assert sorted(problem for _, problem in told["damaged"]) == ["hash", "missing"]
    refused = _run("restore", target, "--data", new, code=1)
    assert sorted(refused["damaged"]) == sorted(name for name, _ in told["damaged"])
    assert all(name in refused["problem"] for name in refused["damaged"])
    assert _run("backup", target, "--full", "--data", data)["copied"] == 2
    first = _run("backup", "list", target)["backups"][0]["id"]
    assert _run("restore", target, "--backup", first, "--data", new)["damaged_count"] == 0
    assert pacslite("verify", "--deep", "--data", new).returncode == 0
    again = pacslite("restore", target, "--data", new)
    assert (again.returncode, "empty place" in again.stderr) == (3, True)


def test_the_documented_routine_works_as_it_is_written(tmp_path: Path) -> None:
    """Every command of docs/operations.md, "Backup" and "Restore", in its order, with other paths."""
    text = (ROOT / "docs" / "operations.md").read_text()
    sections = text[text.index("\n## Backup\n") : text.index("\n## Running\n")]
    lines = [line for block in re.findall(r"```\n(.*?)```", sections, re.DOTALL) for line in block.splitlines()]
    assert len(lines) >= 7
    data = tmp_path / "data"
    assert pacslite("migrate", "--data", data).returncode == 0
    assert pacslite("samples", "--data", data).returncode == 0
    for line in lines:
        changed = line.replace("/var/lib/pacslite", str(data)).replace("/backup/pacslite", str(tmp_path / "target"))
        done = pacslite(*changed.split()[1:])
        assert done.returncode == 0, (line, done.stderr)
    with serving(tmp_path / "data-new", "--dimse-processes", "1", "--web-processes", "1") as server:
        assert _instances(server)
