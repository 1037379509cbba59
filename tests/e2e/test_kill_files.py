"""`kill -9` of any process at any moment loses no file that was answered with 201, and leaves none by half.

Clients bring files by form without pause: new bytes and bytes that others bring at the same time, versions, photo series; some are
erased again. A process is killed while one of them waits in a transfer or for its answer; the server comes back; then everything
that was answered is there with its SHA-256, and rows, references, sums and bytes agree.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import random
import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from PIL import Image

from pacslite import app, cli
from pacslite.core.sweep import BETWEEN_SWEEPS_S, sweep
from pacslite.settings import load
from tests.support.files import form
from tests.support.kills import CONNECTING, IDLE, SENDING, WAITING, kill_among
from tests.support.processes import Server, start

ROUNDS, MANY_ROUNDS = 4, 60
CLIENTS = 4
AFTER_THE_KILL = 1
API = "/api/v1"
KILLED = ("supervisor", "web", "web worker", "worker")
OPTIONS = ("--dimse-processes", "1", "--web-processes", "1")
# The time of grace of what is erased is none, so that bytes come and go while others take references to them.
SETTINGS = {"PACSLITE_FILE_RATE_PER_MINUTE": "1000000", "PACSLITE_API_RATE_PER_MINUTE": "0", "PACSLITE_REMOVAL_GRACE_S": "0"}
_COUNTS = {
    "references": """SELECT b.pk, b.reference_count FROM blob b WHERE b.state = 'live' AND b.reference_count !=
        (SELECT COUNT(*) FROM file_part p WHERE p.blob_pk = b.pk)
        + (SELECT COUNT(*) FROM rendition r WHERE r.result_blob = b.pk AND r.blob_pk != b.pk)""",
    "parts without bytes": """SELECT p.pk FROM file_part p LEFT JOIN blob b ON b.pk = p.blob_pk
        WHERE b.pk IS NULL OR b.state != 'live' OR b.sha256 != p.sha256 OR b.shared_sha256 IS NOT p.sha256""",
    "versions": """SELECT f.uid FROM file f WHERE f.version_number < 1 OR f.version_number !=
        (SELECT COUNT(*) FROM file_version v WHERE v.file_pk = f.pk AND EXISTS (SELECT 1 FROM file_part p WHERE p.version_pk = v.pk))""",
    "versions without a file": "SELECT v.pk FROM file_version v WHERE NOT EXISTS (SELECT 1 FROM file f WHERE f.pk = v.file_pk)",
    "sizes": """SELECT f.uid FROM file f WHERE f.size_bytes != (SELECT SUM(s.size_bytes) FROM (SELECT DISTINCT p.sha256, p.size_bytes
        FROM file_part p JOIN file_version v ON v.pk = p.version_pk WHERE v.file_pk = f.pk) s)""",
    "quota": "SELECT 1 WHERE (SELECT SUM(used_bytes) FROM quota) != (SELECT SUM(size_bytes) FROM file)",
    "changes": """SELECT f.uid FROM file f WHERE f.version_number !=
        (SELECT COUNT(*) FROM change c WHERE c.file_id = f.uid AND c.kind IN ('file_created', 'file_versioned'))""",
}


@dataclass(frozen=True)
class Content:
    """Some bytes of a file, as they are asked for."""

    file: str
    version: int
    item: int | None

    @property
    def path(self) -> str:
        item = {} if self.item is None else {"item": self.item}
        return f"{API}/files/{self.file}/content?{urlencode({'version': self.version, **item})}"


class Pictures:
    """JPEGs that nobody has yet, small ones and such as are not written ahead; and some that all clients have."""

    def __init__(self, seed: int) -> None:
        self._random, self._lock = random.Random(seed), threading.Lock()
        self.common = [self.make(24) for _ in range(3)] + [self.make(260)]

    def make(self, side: int) -> bytes:
        with self._lock:
            pixels = self._random.randbytes(side * side * 3)
        out = io.BytesIO()
        Image.frombytes("RGB", (side, side), pixels).save(out, "JPEG", quality=90)
        return out.getvalue()

    def any(self) -> bytes:
        with self._lock:
            which = self._random.random()
            common = self._random.choice(self.common)
        return common if which < 0.4 else self.make(260 if which < 0.55 else 24)


@dataclass
class Told:
    """What the server has answered to all clients. A file whose erasure was asked for and not answered is there or not."""

    contents: dict[Content, str] = field(default_factory=dict)
    erased: dict[str, bool] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def copy(self) -> Told:
        """What it was at this moment."""
        with self.lock:
            return Told(dict(self.contents), dict(self.erased))

    def some_file(self, choice: random.Random) -> str | None:
        with self.lock:
            known = sorted({content.file for content in self.contents if content.item is None} - self.erased.keys())
        return choice.choice(known[-20:]) if known else None


@dataclass
class Client:
    """Does one thing after another until told to stop; what breaks is done no more, only noted."""

    server: Server
    patient: int
    pictures: Pictures
    told: Told
    choice: random.Random
    succeeded: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    broken: int = 0
    phase: str = IDLE
    left: int | None = None

    @property
    def has_succeeded(self) -> bool:
        return self.succeeded > 0

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set() and self.left != 0:
            if self.left is not None:
                self.left -= 1
            try:
                self.act()
            except (OSError, http.client.HTTPException):
                self.broken += 1  # perhaps it was done, perhaps not: nothing was promised
                stop.wait(0.02)
            finally:
                self.phase = IDLE

    def act(self) -> None:
        which, known = self.choice.random(), self.told.some_file(self.choice)
        if known is not None and which < 0.25:
            self.bring(f"/files/upload-version/{known}", {"version_type": "followup"}, 1)
        elif known is not None and which < 0.4:
            self.erase(known)
        elif which < 0.55:
            self.bring("/files/upload", {"patient_id": self.patient, "file_type": "photo_series"}, 3)
        else:
            self.bring("/files/upload", {"patient_id": self.patient, "file_type": "photo"}, 1)

    def bring(self, path: str, fields: dict[str, Any], count: int) -> None:
        sent = [self.pictures.any() for _ in range(count)]
        body, headers = form(fields, [(f"{n}.jpg", data) for n, data in enumerate(sent)])
        status, answer = self.ask("POST", path, body, headers)
        if status != 201:
            self.refused[status] += 1
            assert status in (404, 410, 500, 502, 503), answer
            return
        made = json.loads(answer)
        number, items = made["version_number"], made.get("items")
        with self.told.lock:
            for n, data in enumerate(sent):
                content = Content(made["id"].partition(".")[0], number, n if items is not None else None)
                self.told.contents[content] = hashlib.sha256(data).hexdigest()
        self.succeeded += 1

    def erase(self, file: str) -> None:
        with self.told.lock:
            self.told.erased[file] = False
        status, _ = self.ask("DELETE", f"/files/{file}?purge=true")
        if status == 204:
            with self.told.lock:
                self.told.erased[file] = True

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        self.phase = CONNECTING
        with closing(http.client.HTTPConnection(self.server.ready["http"], timeout=10)) as connection:
            connection.connect()
            self.phase = SENDING
            connection.request(method, API + path, body, headers or {})
            self.phase = WAITING
            answer = connection.getresponse()
            return answer.status, answer.read()


def fetched(server: Server, paths: list[str]) -> list[tuple[int, bytes]]:
    """Answers to GET over one connection."""
    with closing(http.client.HTTPConnection(server.ready["http"], timeout=30)) as connection:
        found = []
        for path in paths:
            connection.request("GET", path)
            answer = connection.getresponse()
            found.append((answer.status, answer.read()))
        return found


def assert_whole(server: Server, contents: dict[Content, str], told: Told) -> None:
    """Everything that was answered has the bytes that were sent; what was erased is gone, all of it."""
    gone: dict[str, set[bool]] = {}
    for (content, digest), (status, body) in zip(contents.items(), fetched(server, [one.path for one in contents]), strict=True):
        erased = told.erased.get(content.file)
        if erased is not None and status == 410:
            gone.setdefault(content.file, set()).add(True)
            continue
        assert erased is not True, f"{content} was erased"
        assert (status, hashlib.sha256(body).hexdigest()) == (200, digest), (content, status, body[:300])
        gone.setdefault(content.file, set()).add(False)
    assert all(len(states) == 1 for states in gone.values()), "a file is erased by half"


def assert_listed_is_there(server: Server, patient: int) -> int:
    """Whatever the server lists, answered or not, has its bytes; how many files that is."""
    path, count = f"{API}/files/patient/{patient}/files?limit=1000", 0
    while path:
        status, body = fetched(server, [path])[0]
        assert status == 200
        page = json.loads(body)
        shown = [one for file in page["items"] for one in (file["items"] or [file])]
        answers = fetched(server, ["/" + one["content_url"].split("/", 3)[3] for one in shown])
        assert [hashlib.sha256(data).hexdigest() for _, data in answers] == [one["file_hash"] for one in shown]
        count += len(page["items"])
        path = "/" + page["next"].split("/", 3)[3] if page["next"] else ""
    return count


def assert_agrees(data: Path) -> None:
    """References, versions, sizes, quotas and the feed of changes tell the same."""
    with closing(sqlite3.connect(f"file:{data / 'catalog.db'}?mode=ro", timeout=30, uri=True)) as conn:
        conn.execute("BEGIN")
        wrong = {name: found for name, sql in _COUNTS.items() if (found := conn.execute(sql).fetchall())}
    assert not wrong


def assert_swept(data: Path, printed: pytest.CaptureFixture[str]) -> None:
    """After the time of grace nothing is left of what was not answered: neither in the storage nor in the spool."""
    assert cli.run(["cleanup", "--older-than-hours", "0", "--data", str(data)]) == 0
    pacs = app.build(load(environment={}, data=data))
    try:
        later = time.time() + 2 * BETWEEN_SWEEPS_S
        for now in (later, later + BETWEEN_SWEEPS_S):
            sweep(pacs.catalog, pacs.store, data / "swept.json", now)
        for path in (path for path in data.rglob("*") if path.is_file()):  # what is an hour old counts as an orphan
            os.utime(path, (time.time() - 2 * BETWEEN_SWEEPS_S,) * 2)
        assert [path.name for path in pacs.spool.directory.iterdir() if path.is_file()] == []
    finally:
        pacs.close()
    assert cli.run(["verify", "--deep", "--data", str(data)]) == 0
    printed.readouterr()
    assert cli.run(["orphans", "--json", "--data", str(data)]) == 0
    found = json.loads(printed.readouterr().out)
    assert (found["orphans"], found["missing"]) == ([], [])


def ordeal(data: Path, seed: int, rounds: int, printed: pytest.CaptureFixture[str]) -> None:
    """So many kills, with everything looked at after each of them."""
    choice, pictures, told = random.Random(seed), Pictures(seed), Told()
    phases: Counter[str] = Counter()
    server = start(data, *OPTIONS, **SETTINGS)
    try:
        patient = new_patient(server)
        for number in range(rounds):
            before = dict(told.contents)
            clients = [Client(server, patient, pictures, told, random.Random(choice.random())) for _ in range(CLIENTS)]
            kill = server, clients, choice, lambda: start(data, *OPTIONS, **SETTINGS), AFTER_THE_KILL
            server, name, hit = kill_among(*kill, KILLED[number : number + 1] if rounds <= len(KILLED) else KILLED)
            phases.update(f"{name}, {phase}" for phase in hit)
            assert_whole(server, {one: digest for one, digest in told.contents.items() if one not in before}, told)
            assert cli.run(["verify", "--data", str(data)]) == 0, f"round {number}, {name} killed"
            assert_agrees(data)
        assert_whole(server, told.contents, told)
        listed = assert_listed_is_there(server, patient)
    finally:
        server.stop()
        assert server.process.stdout is not None
        server.process.stdout.close()
    assert_swept(data, printed)
    assert "Traceback" not in server.logged()
    for phase, count in sorted(phases.items()):
        print(f"{count:4} x {phase}")
    print(f"{len(told.contents)} contents answered, {listed} files listed, {sum(told.erased.values())} erased")
    assert listed >= len({one.file for one in told.contents} - told.erased.keys())
    assert sum(phases.values()) >= rounds * 0.5, "too few kills met a transfer or a commit"


def new_patient(server: Server) -> int:
    with closing(http.client.HTTPConnection(server.ready["http"], timeout=30)) as connection:
        connection.request("POST", f"{API}/patients", json.dumps({"mrn": "K-1", "name": "Kill"}), {"Content-Type": "application/json"})
        number: int = json.loads(connection.getresponse().read())["id"]
        return number


SEED = int(os.environ.get("PACSLITE_TEST_SEED", "3"))


def test_files_that_were_answered_survive_a_kill_of_each_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ordeal(tmp_path / "data", SEED, ROUNDS, capsys)


@pytest.mark.full
def test_files_that_were_answered_survive_every_kill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ordeal(tmp_path / "data", SEED, MANY_ROUNDS, capsys)
