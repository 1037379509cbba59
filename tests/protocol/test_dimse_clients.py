"""More of dcmtk's tools as counterparts: dcmsend, dcmrecv and termscu."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import JPEG2000Lossless

from tests.support.certificates import Authority
from tests.support.data_sets import image, part10
from tests.support.dimse import IMPLICIT_LE, STUDY_ROOT_MOVE, Listener, Peer
from tests.support.processes import until
from tests.support.retrieval import converse, keep_images, keys, known, move_rq, retrieving

pytestmark = pytest.mark.skipif(not shutil.which("dcmsend"), reason="dcmtk is not installed")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("clients") / "ca")


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Listener]:
    ours = authority.issue("ours")
    tls = {"dicom_tls_certificate": ours.certificate, "dicom_tls_key": ours.key, "dicom_tls_ca": authority.certificate}
    with retrieving(tmp_path_factory.mktemp("archive"), **tls) as running:
        yield running


def run(tool: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


def test_dcmsend_sends_a_directory_of_several_syntaxes_and_reports_every_success(listener: Listener, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    study = "1.2.21"
    for number in range(8):
        ds = image(study=study, series=f"{study}.1", instance=f"{study}.1.{number + 1}")
        (tmp_path / "in" / f"{number}.dcm").write_bytes(part10(ds, IMPLICIT_LE if number % 2 else "1.2.840.10008.1.2.1"))
    packed = image(study=study, series=f"{study}.2", instance=f"{study}.2.1", compressed=[b"\xff\x4f\xff\x51" + bytes(60)])
    (tmp_path / "in" / "packed.dcm").write_bytes(part10(packed, JPEG2000Lossless))
    place = ["-aec", "PACSLITE", listener.address.host, str(listener.address.port)]
    done = run("dcmsend", "+sd", "-dn", "-v", "+crf", tmp_path / "report.txt", *place, tmp_path / "in")
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "report.txt").read_text()
    assert "Number of SOP instances  : 9" in report
    assert "* with status SUCCESS  : 9" in report
    stored = {info.key.split("/")[3] for info in listener.pacs.store.list(f"radiology/{study}/")}
    assert stored == {*(f"{study}.1.{number}" for number in range(1, 9)), f"{study}.2.1"}


@contextmanager
def dcmrecv(directory: Path, *options: str | Path) -> Iterator[int]:
    """dcmrecv on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    process = subprocess.Popen(
        ["dcmrecv", *map(str, options), "-xf", "/etc/dcmtk/storescp.cfg", "Default", "-od", str(directory), str(port)]
    )
    try:
        until(lambda: is_open(port))
        yield port
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.wait(20)


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("tls", [False, True])
def test_dcmrecv_receives_what_is_moved_to_it(listener: Listener, authority: Authority, tmp_path: Path, tls: bool) -> None:
    """Checklist 125: plain and over TLS."""
    study = f"1.2.22.{int(tls)}"
    stored = keep_images(listener.pacs, 5, study)
    pair = authority.issue("dcmrecv")
    options = ["+tls", pair.key, pair.certificate, "+cf", authority.certificate] if tls else []
    with dcmrecv(tmp_path, *options) as port:
        known(listener.pacs, "DCMRECV", port, tls=tls)
        with listener.peer() as peer:
            peer.associate([(STUDY_ROOT_MOVE, ["1.2.840.10008.1.2.1"])])
            peer.request(1, move_rq("DCMRECV", STUDY_ROOT_MOVE), keys("STUDY", study=study))
            outcome = converse(peer)
    assert (outcome.status, outcome.counts) == (0, (None, 5, 0, 0))
    assert sorted(dcmread(file).SOPInstanceUID for file in tmp_path.iterdir()) == sorted(stored)


def test_termscu_does_not_end_the_service(listener: Listener) -> None:
    """It asks for the private SOP class by which dcmtk's own servers are shut down."""
    for _ in range(2):
        run("termscu", "-aec", "PACSLITE", listener.address.host, str(listener.address.port))
    with Peer(listener.address) as peer:
        peer.associate()
        assert peer.echo() == 0
        peer.release()
