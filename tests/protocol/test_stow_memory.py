"""A large video as metadata and bulk data: the memory of the server does not depend on its size (PS3.18 10.5)."""

from __future__ import annotations

import json
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.http import running
from tests.support.processes import memory_of
from tests.support.stow import JSON_TYPE, metadata, mp4, part

_MIB = 1024 * 1024
_RISE_MIB = 48


def body(data_set: dict[str, object], size: int) -> Iterator[bytes]:
    yield part(json.dumps([data_set]).encode(), "Content-Type: application/dicom+json")
    head = mp4(frames=1000) + struct.pack(">I4sQ", 1, b"free", 16 + size)
    yield b"--test-boundary\r\nContent-Type: video/mp4\r\nContent-Location: v\r\n\r\n" + head
    piece = os.urandom(_MIB)
    for _ in range(size // _MIB):
        yield piece
    yield b"\r\n--test-boundary--\r\n"


@pytest.mark.parametrize("size_mib", [100, pytest.param(500, marks=pytest.mark.full)])
def test_a_large_video_is_taken_in_bounded_memory(tmp_path: Path, size_mib: int) -> None:
    """Checklist B18, B19: bodies of any size in bounded memory."""
    with running(tmp_path / "data") as server:
        small = metadata("1.2.840.10008.5.1.4.1.1.77.1.1.1", uri="v")
        assert server.request("POST", "/studies", body(small, 0), {"Content-Type": JSON_TYPE}).status == 200
        before, most, done = memory_of(server.process.pid), [0.0], threading.Event()

        def watch() -> None:
            while not done.wait(0.05):
                most[0] = max(most[0], memory_of(server.process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            large = metadata("1.2.840.10008.5.1.4.1.1.77.1.1.1", uri="v")
            answer = server.request("POST", "/studies", body(large, size_mib * _MIB), {"Content-Type": JSON_TYPE}, timeout_s=300)
        finally:
            done.set()
            watcher.join()
        assert answer.status == 200, answer.body
        assert most[0] - before < _RISE_MIB
        assert list((server.data / "spool").iterdir()) == []
        stored = [path for path in (server.data / "storage").rglob("*.dcm") if path.stat().st_size > size_mib * _MIB]
        assert len(stored) == 1
        stored[0].unlink()  # pytest keeps the directories of its last runs
