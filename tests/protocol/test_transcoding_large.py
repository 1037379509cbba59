"""Large multi-frame objects are transcoded frame by frame: in bounded memory, sent while they are made (PS3.18 8.7.3)."""

from __future__ import annotations

import http.client
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from pacslite.dicom.syntaxes import EXPLICIT, RLE
from tests.conftest import full
from tests.support.data_sets import CONTENT_TYPE, body, image, part10
from tests.support.http import WebServer, running
from tests.support.wado import path_of

FRAMES = 2048 if full() else 160
ALLOWED_BYTES = 200 * 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with running(tmp_path_factory.mktemp("large")) as running_server:
        yield running_server


def memory_of(pid: int) -> int:
    """What the processes of a tree hold, pages that several share counted once."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for task in Path(f"/proc/{pid}/task").iterdir():
            if task.name != str(pid):
                children += (task / "children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    held = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024
    return held + sum(memory_of(int(child)) for child in children)


def fetched(server: WebServer, path: str, accept: str, into: Path) -> int:
    """The most memory the server held while the answer was written to a file."""
    highest, over = 0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not over.wait(0.05):
            highest = max(highest, memory_of(server.process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
    try:
        connection.request("GET", server.root + path, headers={"Accept": accept})
        reply = connection.getresponse()
        assert reply.status == 200
        with into.open("wb") as file:
            while piece := reply.read(1 << 20):
                file.write(piece)
    finally:
        connection.close()
        over.set()
        watcher.join()
    return highest


def test_a_large_multi_frame_object_is_transcoded_within_bounded_memory(server: WebServer, tmp_path: Path) -> None:
    y, x = np.mgrid[0:512, 0:512]
    frame = ((np.hypot(y - 256, x - 256) * 6) % 2500).astype(np.uint16) + np.random.default_rng(1).integers(0, 16, (512, 512), np.uint16)
    ds = image(np.broadcast_to(frame, (FRAMES, 512, 512)))
    file = part10(ds)
    answer = server.request("POST", "/studies", iter([body([file])]), {"Content-Type": CONTENT_TYPE}, timeout_s=300)
    assert answer.status == 200
    del file
    small = image(np.zeros((1, 8, 8), np.uint16))
    server.request("POST", "/studies", body([part10(small)]), {"Content-Type": CONTENT_TYPE})
    assert server.get(path_of(small), f"application/dicom; transfer-syntax={RLE}").status == 200
    idle = memory_of(server.process.pid)
    result = tmp_path / "result.dcm"
    highest = fetched(server, path_of(ds), f"application/dicom; transfer-syntax={RLE}", result)
    print(f"{FRAMES} frames: {idle / 2**20:.0f} MiB idle, {highest / 2**20:.0f} MiB at most")
    assert highest - idle < ALLOWED_BYTES
    found = dcmread(result)
    assert (found.file_meta.TransferSyntaxUID, found.NumberOfFrames) == (RLE, FRAMES)
    stored = server.request("POST", "/studies", iter([body([_renamed(result)])]), {"Content-Type": CONTENT_TYPE}, timeout_s=300)
    assert stored.status == 200
    back = tmp_path / "back.dcm"
    highest = fetched(server, path_of(ds).rpartition("/")[0] + "/1.2.3.4.5", f"application/dicom; transfer-syntax={EXPLICIT}", back)
    print(f"back: {highest / 2**20:.0f} MiB at most")
    assert highest - idle < ALLOWED_BYTES
    with back.open("rb") as decoded:
        decoded.seek(-frame.nbytes, io.SEEK_END)
        assert decoded.read() == frame.tobytes()
    assert back.stat().st_size > FRAMES * frame.nbytes


def _renamed(path: Path) -> bytes:
    """The file as another instance."""
    ds = dcmread(path)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5"
    out = io.BytesIO()
    ds.save_as(out)
    return out.getvalue()
