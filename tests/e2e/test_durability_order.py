"""The order of durability, seen in the system calls of a real server.

A large file: sync of the file < sync of the catalog < answer; its name follows, and is found in the spool otherwise (decision 46).
A small one: rename < sync of the catalog, which has its bytes too, < answer; and later sync of the file system (decision 40). With
`write_ahead_bytes` of 0, small ones go as large ones do.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import requests
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from pacslite.settings import Address
from pacslite.storage.syncing import names_follow_files
from tests.support import data_sets
from tests.support.dimse import Peer, store_rq
from tests.support.processes import Server, serving

CALLS = "fsync,fdatasync,syncfs,pwrite64,rename,renameat,renameat2,link,linkat,sendto,sendmsg,write,writev"
STRACE = ("strace", "-f", "-yy", "-s", "200", "-e", f"trace={CALLS}")


def can_trace() -> bool:
    if not shutil.which("strace"):
        return False
    return subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not can_trace(), reason="strace is not installed, or may not trace here")


class Trace:
    """System calls in the order of the recording: `begun` and `done` are lines of it."""

    def __init__(self, text: str) -> None:
        self.calls: list[tuple[str, int, int]] = []
        open_calls: dict[str, tuple[str, int]] = {}
        for number, line in enumerate(text.splitlines()):
            pid, _, rest = line.partition(" ")
            rest = rest.strip()
            resumed = re.match(r"<\.\.\. \w+ resumed>", rest)
            if resumed:
                begun_text, begun = open_calls.pop(pid, ("", number))
                self.calls.append((begun_text + rest[resumed.end() :], begun, number))
            elif rest.endswith("<unfinished ...>"):
                open_calls[pid] = (rest.removesuffix("<unfinished ...>"), number)
            else:
                self.calls.append((rest, number, number))
        self.calls.sort(key=lambda call: call[1])

    def first(self, pattern: str, after: int = -1) -> tuple[int, int]:
        """Where the first call that matches and begins after that line begins and is done."""
        for call, begun, done in self.calls:
            if begun > after and re.search(pattern, call):
                return begun, done
        raise AssertionError(f"no call after line {after} matches {pattern}:\n" + "\n".join(call for call, _, _ in self.calls)[-6000:])


def store_by_dimse(server: Server, file: bytes, instance: str) -> None:
    host, port = server.dicom
    with Peer(Address(host, int(port))) as peer:
        peer.associate(((SecondaryCaptureImageStorage, (ExplicitVRLittleEndian,)),))
        length = int.from_bytes(file[140:144], "little")
        peer.request(1, store_rq(SecondaryCaptureImageStorage, instance), file[144 + length :])
        assert peer.response()[0].number(0x0900) == 0
        peer.release()


def store_by_stow(server: Server, file: bytes, instance: str) -> None:
    body = data_sets.body([file])
    answer = requests.post(f"{server.url}/dicom-web/studies", data=body, headers={"Content-Type": data_sets.CONTENT_TYPE}, timeout=20)
    assert answer.status_code == 200


# In the answer: the C-STORE-RSP (P-DATA, command field 8001H), or the status line.
ANSWERS = {
    "dimse": r"^(sendto|sendmsg|write)\(\d+<TCP.*\\4\\0\\0\\0.*\\0\\0\\0\\1\\2\\0\\0\\0\\1\\200",
    "web": r"^(sendto|sendmsg|write)\(\d+<TCP.*HTTP/1\.1 200",
}


Traced = Callable[[Dataset], tuple[str, Trace]]


@pytest.fixture(params=["dimse", "web"])
def traced(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Traced]]:
    """Starts a server under the eyes of strace; what it gives stores an instance there."""
    role, trace = request.param, tmp_path / "trace"
    options = ("--dimse-processes", "1", "--web-processes", "1")
    with ExitStack() as stack:

        def start(data: Path = tmp_path / "data", **settings: str) -> Traced:
            prefix = (*STRACE, "-o", str(trace))
            server = stack.enter_context(serving(data, *options, prefix=prefix, scope=role, **settings))

            def store(ds: Dataset) -> tuple[str, Trace]:
                {"dimse": store_by_dimse, "web": store_by_stow}[role](server, data_sets.part10(ds), ds.SOPInstanceUID)
                return role, Trace(trace.read_text(errors="replace"))

            return store

        yield start


@pytest.fixture
def unordered() -> Iterator[Path]:
    """A directory on a file system that promises nothing about the order of its changes."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK) or names_follow_files(str(shared)):
        pytest.skip("needs a tmpfs at /dev/shm")
    with tempfile.TemporaryDirectory(dir=shared) as made:
        yield Path(made)


_RENAMES = r"^(rename|renameat|renameat2|link|linkat)\(.*/spool/.*{}.*= 0"
_CATALOG_SYNC = r"^(fsync|fdatasync)\(\d+<[^>]*/catalog\.db-wal> ?\) += 0"


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_the_answer_comes_after_all_syncs(traced: Callable[..., Traced], unordered: Path, large: bool) -> None:
    """Where nothing is known of the file system, names are synced as well as bytes."""
    data = unordered / "data"
    store = traced(data) if large else traced(data, PACSLITE_WRITE_AHEAD_BYTES="0")
    ds, role, trace = _second(store, large=large)
    instance = re.escape(ds.SOPInstanceUID)
    _, done = trace.first(_RENAMES.format(instance))
    file_begun, file_synced = trace.first(rf"^(fsync|fdatasync)\(\d+<[^>]*/{instance}/[^>/]*> ?\) += 0")
    assert file_begun > done
    directory_begun, directory_synced = trace.first(rf"^(fsync|fdatasync)\(\d+<[^>]*/{instance}> ?\) += 0", after=done)
    catalog_begun, catalog_synced = trace.first(_CATALOG_SYNC, after=done)
    assert directory_begun > done
    assert file_synced < catalog_begun, "the row was durable before the bytes"
    assert directory_synced < catalog_begun, "the row was durable before the name of the file"
    answered, _ = trace.first(ANSWERS[role], after=done)
    assert catalog_synced < answered, "answered before the row was durable"


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_a_logging_file_system_needs_one_sync_for_a_file(traced: Callable[..., Traced], tmp_path: Path, large: bool) -> None:
    """Of the second instance of a series, after it was renamed: `test_power_failure.py` shows that its name stays with it."""
    if not names_follow_files(str(tmp_path)):
        pytest.skip("the scratch directory is not on ext4, XFS or Btrfs")
    store = traced() if large else traced(PACSLITE_WRITE_AHEAD_BYTES="0")
    ds, role, trace = _second(store, large=large, same_series=True)
    instance = re.escape(ds.SOPInstanceUID)
    renamed, done = trace.first(_RENAMES.format(instance))
    place = rf"/{instance}/[^>/]*>"
    file_begun, file_synced = trace.first(rf"^(fsync|fdatasync)\(\d+<[^>]*{place} ?\) += 0")
    assert file_begun > done, "synced before it had its name"
    catalog_begun, catalog_synced = trace.first(_CATALOG_SYNC, after=done)
    answered, _ = trace.first(ANSWERS[role], after=done)
    assert file_synced < catalog_begun, "the row was durable before the bytes"
    assert catalog_synced < answered, "answered before the row was durable"
    syncs = [call for call, begun, _ in trace.calls if call.startswith(("fsync", "fdatasync")) and "/storage/" in call and begun > renamed]
    assert not [call for call in syncs if not re.search(place, call)], "more than the file was synced"


def _second(store: Traced, *, large: bool, same_series: bool = False) -> tuple[Dataset, str, Trace]:
    """Stores two instances: the first makes directories that the second finds."""
    pixels = np.zeros((1, 512, 512), np.uint16) if large else None
    first, ds = data_sets.image(pixels), data_sets.image(pixels)
    store(first)
    if same_series:
        ds.StudyInstanceUID, ds.SeriesInstanceUID = first.StudyInstanceUID, first.SeriesInstanceUID
    return ds, *store(ds)


def test_a_small_file_is_durable_by_the_sync_of_the_catalog(traced: Callable[..., Traced]) -> None:
    """Its bytes are in the catalog's log; `tests/integration/test_settling.py` shows that they come back from there."""
    store = traced()
    store(data_sets.image())
    ds = data_sets.image()
    role, trace = store(ds)
    _, done = trace.first(_RENAMES.format(re.escape(ds.SOPInstanceUID)))
    written, logged = trace.first(r"^pwrite64\(\d+<[^>]*/catalog\.db-wal>", after=done)
    synced, catalog_synced = trace.first(_CATALOG_SYNC, after=logged)
    answered, _ = trace.first(ANSWERS[role], after=done)
    assert done < written < synced
    assert catalog_synced < answered, "answered before the row was durable"
    late = [call for call, begun, _ in trace.calls if synced < begun < answered and call.startswith("pwrite64") and "db-wal" in call]
    assert late == [], "written to the log after its sync"
