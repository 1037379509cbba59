"""What bounds files: memory, rates; and what is counted of them."""

from __future__ import annotations

import re
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.file_site import FILES, file_site
from tests.support.files import any_photo, of_json
from tests.support.processes import memory_of, within_a_minute

_MIB = 1024 * 1024
_RISE_MIB = 40


def model(patient: int, triangles: int) -> Iterator[bytes]:
    """A form with a binary STL of many equal triangles."""
    for name, value in {"patient_id": patient, "file_type": "stl_model"}.items():
        yield f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
    yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.stl"\r\n\r\n'
    yield bytes(80) + struct.pack("<I", triangles)
    piece = struct.pack("<12fH", 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0) * 20_000
    for _ in range(triangles // 20_000):
        yield piece
    yield b"\r\n--b--\r\n"


@pytest.mark.parametrize("size_mib", [100, pytest.param(1000, marks=pytest.mark.full)])
def test_a_large_file_is_taken_in_bounded_memory(tmp_path: Path, size_mib: int) -> None:
    with file_site(tmp_path / "data") as site:
        server, headers = site.guarded.server, {"Authorization": f"Bearer {site.bearer}", "Content-Type": "multipart/form-data; boundary=b"}
        of_json(server.request("POST", f"{FILES}/upload", model(site.patient, 20_000), headers), 201)
        before, most, done = memory_of(server.process.pid), [0.0], threading.Event()

        def watch() -> None:
            while not done.wait(0.05):
                most[0] = max(most[0], memory_of(server.process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            answer = server.request("POST", f"{FILES}/upload", model(site.patient, size_mib * 20_000), headers, timeout_s=300)
        finally:
            done.set()
            watcher.join()
        made = of_json(answer, 201)
        assert made["file_size"] == 84 + size_mib * 1_000_000
        assert most[0] - before < _RISE_MIB
        assert site.spooled() == []
        (stored,) = [path for path in (server.data / "storage").rglob("*.stl") if path.stat().st_size == made["file_size"]]
        stored.unlink()  # pytest keeps the directories of its last runs


def test_contents_are_limited_by_the_minute_and_lists_are_not(tmp_path: Path) -> None:
    with file_site(tmp_path / "data", file_rate_per_minute="5") as site:
        made = site.upload(any_photo())
        signed = site.json("POST", f"{made['id']}/url", {})["url"].partition("/api/")[2]
        within_a_minute()
        statuses = [site.content(made["id"]).status for _ in range(7)]
        assert statuses[:5] == [200] * 5
        limited = site.content(made["id"])
        assert limited.status == 429
        assert int(limited.headers["retry-after"]) >= 1
        assert site.status("GET", made["id"]) == 200
        # Who has no account is counted by address.
        assert [site.guarded.server.request("GET", f"/api/{signed}").status for _ in range(6)] == [200] * 5 + [429]


def test_uploads_versions_and_reads_are_counted(tmp_path: Path) -> None:
    with file_site(tmp_path / "data") as site:
        made = site.upload(any_photo())
        site.version(made["id"], any_photo())
        site.content(made["id"])
        site.post({"patient_id": 0, "file_type": "photo"}, [("a.jpg", any_photo())])
        text = site.ask("GET", "/metrics", bearer=site.admin).body.decode()

    def value(name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        assert found is not None, name
        return float(found[1])

    assert value('pacslite_uploads_total{outcome="stored"}') == 2
    assert value('pacslite_uploads_total{outcome="refused"}') == 1
    assert value('pacslite_file_versions_total{type="photo"}') == 2
    assert value("pacslite_file_read_seconds_count") == 1
