"""`kill -9` of any process at any moment loses nothing that was acknowledged.

Senders store over C-STORE and STOW-RS without pause and note what was acknowledged. A process is killed while at least one of them
waits in a transfer or for its answer; the server comes back; every acknowledged instance is there with the right bytes.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from pacslite import cli
from pacslite.settings import Address
from tests.conftest import full
from tests.support import data_sets
from tests.support.dimse import Peer, store_rq
from tests.support.kills import CONNECTING, IDLE, SENDING, WAITING, kill_among
from tests.support.processes import Server, start

ROUNDS = 100 if full() else 15
PIXEL_BYTES = 256 * 1024
AFTER_THE_KILL = 3


@dataclass(frozen=True)
class Sent:
    """One instance: its UIDs, its Part 10 file."""

    study: str
    series: str
    instance: str
    file: bytes

    @property
    def data_set(self) -> bytes:
        length = int.from_bytes(self.file[140:144], "little")
        return self.file[144 + length :]


class Instances:
    """Makes instances that differ in their UIDs and pixels, quickly: bytes of one template are replaced.

    All are of one series, or each is of a study of its own.
    """

    def __init__(self, seed: int, pixel_bytes: int = PIXEL_BYTES, *, apart: bool = False) -> None:
        self._random = random.Random(seed)
        self._pixel_bytes = pixel_bytes
        self._renewed = ("study", "series", "instance") if apart else ("instance",)
        self._uids = {name: self._uid() for name in ("study", "series", "instance")}
        ds = data_sets.image(**self._uids)
        ds.Rows, ds.Columns, ds.NumberOfFrames = 256, pixel_bytes // 512, 1
        ds.PixelData = self._random.randbytes(pixel_bytes)
        self._template = data_sets.part10(ds)
        self._lock = threading.Lock()

    def _uid(self) -> str:
        return f"2.25.{self._random.randrange(10**37, 10**38)}"

    def make(self) -> Sent:
        with self._lock:
            file, uids = self._template, self._uids | {name: self._uid() for name in self._renewed}
            pixels = self._random.randbytes(self._pixel_bytes)
        for name in self._renewed:
            file = file.replace(self._uids[name].encode(), uids[name].encode())
        return Sent(uids["study"], uids["series"], uids["instance"], file[: -self._pixel_bytes] + pixels)


@dataclass
class Sender:
    """Stores one instance after another until told to stop; what fails is sent no more, only noted."""

    store: Callable[[Sender, Sent], bool]
    instances: Instances
    acknowledged: dict[str, Sent] = field(default_factory=dict)
    refused: int = 0
    broken: int = 0
    phase: str = IDLE
    left: int | None = None  # so many more, once the kill has happened

    @property
    def has_succeeded(self) -> bool:
        return bool(self.acknowledged)

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set() and self.left != 0:
            if self.left is not None:
                self.left -= 1
            sent = self.instances.make()
            try:
                if self.store(self, sent):
                    self.acknowledged[sent.instance] = sent
                else:
                    self.refused += 1
            except (OSError, EOFError, http.client.HTTPException, AssertionError):
                # The connection broke. Perhaps it was stored, perhaps not: nothing was promised.
                self.broken += 1
                stop.wait(0.02)
            finally:
                self.phase = IDLE


def by_c_store(server: Server) -> Callable[[Sender, Sent], bool]:
    def store(sender: Sender, sent: Sent) -> bool:
        host, port = server.dicom
        sender.phase = CONNECTING
        with Peer(Address(host, int(port)), timeout_s=10) as peer:
            peer.associate(((SecondaryCaptureImageStorage, (ExplicitVRLittleEndian,)),))
            sender.phase = SENDING
            peer.request(1, store_rq(SecondaryCaptureImageStorage, sent.instance), sent.data_set)
            sender.phase = WAITING
            return peer.response()[0].number(0x0900) == 0

    return store


def by_stow(server: Server) -> Callable[[Sender, Sent], bool]:
    def store(sender: Sender, sent: Sent) -> bool:
        sender.phase = CONNECTING
        connection = http.client.HTTPConnection(server.ready["http"], timeout=10)
        try:
            body = data_sets.body([sent.file])
            sender.phase = SENDING
            connection.putrequest("POST", "/dicom-web/studies")
            connection.putheader("Content-Type", data_sets.CONTENT_TYPE)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            sender.phase = WAITING
            answer = connection.getresponse()
            answer.read()
            return answer.status == 200
        finally:
            connection.close()

    return store


def assert_whole(server: Server, acknowledged: dict[str, Sent]) -> None:
    """Every acknowledged instance is found and has the bytes that were sent."""
    with requests.Session() as session:
        for sent in acknowledged.values():
            url = f"{server.url}/dicom-web/studies/{sent.study}/series/{sent.series}/instances/{sent.instance}"
            answer = session.get(url, headers={"Accept": "application/dicom; transfer-syntax=*"}, timeout=30)
            assert answer.status_code == 200, (sent.instance, answer.status_code, answer.text[:300])
            got = Sent(sent.study, sent.series, sent.instance, answer.content)
            assert hashlib.sha256(got.data_set).digest() == hashlib.sha256(sent.data_set).digest()


@pytest.mark.parametrize("seed", [int(os.environ.get("PACSLITE_TEST_SEED", "2"))])
def test_what_was_acknowledged_survives_every_kill(tmp_path: Path, seed: int, record_property: Callable[[str, object], None]) -> None:
    choice, data, instances = random.Random(seed), tmp_path / "data", Instances(seed)
    options = ("--dimse-processes", "2", "--web-processes", "1")
    server = start(data, *options)
    phases: Counter[str] = Counter()
    everything: dict[str, Sent] = {}
    try:
        for number in range(ROUNDS):
            senders = [Sender(store(server), instances) for store in (by_c_store, by_stow) for _ in range(2)]
            server, name, hit = kill_among(server, senders, choice, lambda: start(data, *options), AFTER_THE_KILL)
            phases.update(f"{name}, {phase}" for phase in hit)
            for sender in senders:
                everything |= sender.acknowledged
            assert cli.run(["verify", "--deep", "--data", str(data)]) == 0, f"round {number}, {name} killed"
            assert_whole(server, {uid: sent for sender in senders for uid, sent in sender.acknowledged.items()})
        assert_whole(server, everything)
    finally:
        server.stop()
        assert server.process.stdout is not None
        server.process.stdout.close()
    record_property("acknowledged", len(everything))
    for phase, count in sorted(phases.items()):
        print(f"{count:4} x {phase}")
    assert sum(phases.values()) >= ROUNDS * 0.5, "too few kills met a transfer or a commit"
    assert "Traceback" not in server.logged()
