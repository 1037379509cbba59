"""What only the file system store promises: the order of durability, modes, and pruning beside writing."""

from __future__ import annotations

import gc
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pacslite.errors import BlobMissing, OutOfSpace, StorageError
from pacslite.storage import filesystem
from pacslite.storage.filesystem import FilesystemStore
from pacslite.storage.keys import instance_key, new_version_id
from pacslite.storage.spool import Spool


class Trace:
    """Records the calls of `os` that make a name or its durability, by paths relative to the test's directory."""

    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.base = base
        self.calls: list[tuple[str, ...]] = []
        for name in ("fsync", "mkdir", "rename"):
            monkeypatch.setattr(os, name, self._recorded(name, getattr(os, name)))

    def _path(self, what: int | str, dir_fd: int | None = None) -> str:
        whole = f"/proc/self/fd/{what}" if isinstance(what, int) else what
        if dir_fd is not None and not os.path.isabs(whole):
            whole = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), whole)
        whole = os.readlink(whole) if isinstance(what, int) else whole
        return os.path.relpath(whole, self.base)

    def _recorded(self, name, real):  # type: ignore[no-untyped-def]
        def call(first, *rest, **more):  # type: ignore[no-untyped-def]
            result = real(first, *rest, **more)
            if name == "rename":
                self.calls.append((name, self._path(rest[0], more.get("dst_dir_fd"))))
            else:
                self.calls.append((name, self._path(first, more.get("dir_fd"))))
            return result

        return call


def _put(store: FilesystemStore, spool: Spool, key: str, data: bytes = b"bytes") -> None:
    with spool.create() as writer:
        writer.write(data)
        store.put(writer.finish().path, key)


@pytest.fixture(params=[True, False], ids=["follow", "apart"])
def files(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FilesystemStore:
    """On a file system where names follow files that are synced, and on one where they do not."""
    monkeypatch.setattr(filesystem, "names_follow_files", lambda directory: request.param)
    return FilesystemStore(tmp_path / "storage")


def _follows(files: FilesystemStore) -> bool:
    return files._names_follow


def _assert_durable(calls: list[tuple[str, ...]], *, follow: bool) -> None:
    """File synced under its name; every new entry synced in its directory after it was made, unless the file takes it along."""
    names = [index for index, call in enumerate(calls) if call[0] == "rename"]
    assert names
    for index in names:
        assert ("fsync", calls[index][1]) in calls[index:], "the file is not synced under its name"
    carried = {entry for index in names for entry in (calls[index][1], os.path.dirname(calls[index][1]))} if follow else set()
    for index, call in enumerate(calls):
        if call[0] in ("mkdir", "rename") and call[1] not in carried:
            assert ("fsync", os.path.dirname(call[1])) in calls[index:], f"{call} is not synced in its parent"


def test_put_into_a_new_study_syncs_every_new_directory_in_its_parent(
    files: FilesystemStore, spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = Trace(tmp_path, monkeypatch)
    _put(files, spool, instance_key("1.1", "1.2", "1.3", new_version_id()))
    assert [call[1] for call in trace.calls if call[0] == "mkdir"] == [
        "storage/radiology",
        "storage/radiology/1.1",
        "storage/radiology/1.1/1.2",
        "storage/radiology/1.1/1.2/1.3",
    ]
    _assert_durable(trace.calls, follow=_follows(files))


@pytest.mark.parametrize("size", [5, 300_000])
def test_put_into_a_known_series_costs_one_sync_or_three(
    files: FilesystemStore, spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    _put(files, spool, instance_key("1.1", "1.2", "1.3", new_version_id()))
    trace = Trace(tmp_path, monkeypatch)
    _put(files, spool, instance_key("1.1", "1.2", "1.4", new_version_id()), bytes(size))
    assert [call[0] for call in trace.calls] == ["mkdir", "rename", "fsync", *([] if _follows(files) else ["fsync", "fsync"])]
    _assert_durable(trace.calls, follow=_follows(files))


def test_a_directory_of_the_instance_that_somebody_else_made_is_synced_in_its_parent(
    files: FilesystemStore, spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put(files, spool, instance_key("1.1", "1.2", "1.3", new_version_id()))
    (tmp_path / "storage/radiology/1.1/1.2/1.4").mkdir()
    trace = Trace(tmp_path, monkeypatch)
    _put(files, spool, instance_key("1.1", "1.2", "1.4", new_version_id()))
    assert ("fsync", "storage/radiology/1.1/1.2") in trace.calls


def test_a_directory_made_by_another_process_is_synced_before_it_is_relied_on(
    files: FilesystemStore, spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "storage/radiology/1.1/1.2").mkdir(parents=True)
    trace = Trace(tmp_path, monkeypatch)
    _put(files, spool, instance_key("1.1", "1.2", "1.3", new_version_id()))
    synced = {call[1] for call in trace.calls if call[0] == "fsync"}
    assert {"storage", "storage/radiology", "storage/radiology/1.1"} <= synced


def test_a_series_pruned_by_another_process_is_made_and_synced_anew(
    files: FilesystemStore, spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = instance_key("1.1", "1.2", "1.3", new_version_id())
    _put(files, spool, first)
    other = FilesystemStore(files.root)
    other.delete(first)
    (files.root / "radiology/1.1/1.2").mkdir(parents=True)  # made again by somebody who has not synced it
    trace = Trace(tmp_path, monkeypatch)
    second = instance_key("1.1", "1.2", "1.4", new_version_id())
    _put(files, spool, second)
    assert files.size(second) == 5
    assert {"storage", "storage/radiology", "storage/radiology/1.1"} <= {call[1] for call in trace.calls if call[0] == "fsync"}


def test_deleting_and_pruning_beside_writing_loses_nothing(files: FilesystemStore, spool: Spool) -> None:
    other, stop = FilesystemStore(files.root), threading.Event()
    kept: list[str] = []

    def write() -> None:
        for _ in range(60):
            key = instance_key("1.1", "1.2", "1.3", new_version_id())
            _put(files, spool, key)
            kept.append(key)

    def erase() -> None:
        while not stop.is_set():
            key = instance_key("1.1", "1.2", "1.3", new_version_id())
            _put(other, spool, key)
            other.delete(key)
            for prunable in kept[:-5]:
                kept.remove(prunable)
                other.delete(prunable)

    with ThreadPoolExecutor(3) as pool:
        eraser = pool.submit(erase)
        writers = [pool.submit(write), pool.submit(write)]
        try:
            for writer in writers:
                writer.result()
        finally:
            stop.set()
        eraser.result()
    assert sorted(info.key for info in files.list("radiology/")) == sorted(kept)


def test_a_put_whose_directory_is_pruned_at_the_worst_moment_tries_again(
    files: FilesystemStore, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, real, pruned = instance_key("1.1", "1.2", "1.3", new_version_id()), os.rename, []

    def rename(*arguments, **more):  # type: ignore[no-untyped-def]
        if not pruned:
            for above in ("1.1/1.2/1.3", "1.1/1.2", "1.1"):
                os.rmdir(files.root / "radiology" / above)
            pruned.append(True)
        real(*arguments, **more)

    monkeypatch.setattr(os, "rename", rename)
    _put(files, spool, key)
    assert pruned
    assert files.size(key) == 5


def test_delete_prunes_empty_directories_only(files: FilesystemStore, spool: Spool) -> None:
    keys = [instance_key("1.1", series, "1.3", new_version_id()) for series in ("1.2", "1.4")]
    for key in keys:
        _put(files, spool, key)
    files.delete(keys[0])
    assert sorted(p.name for p in (files.root / "radiology/1.1").iterdir()) == ["1.4"]
    files.delete(keys[1])
    assert list(files.root.iterdir()) == []


def test_modes_shut_out_others(files: FilesystemStore, spool: Spool) -> None:
    key = instance_key("1.1", "1.2", "1.3", new_version_id())
    _put(files, spool, key)
    assert stat.S_IMODE(os.stat(files.local_path(key)).st_mode) & 0o137 == 0
    for above in ("radiology", "radiology/1.1", "radiology/1.1/1.2", "radiology/1.1/1.2/1.3"):
        assert stat.S_IMODE(os.stat(files.root / above).st_mode) & 0o027 == 0


def test_put_stamps_the_present_time(files: FilesystemStore, spool: Spool) -> None:
    file = spool.create().finish()
    os.utime(file.path, (1, 1))
    key = instance_key("1.1", "1.2", "1.3", new_version_id())
    files.put(file.path, key)
    assert next(files.list("")).modified_at.year > 2000


@pytest.mark.parametrize("call", ["mkdir", "rename", "fsync"])
def test_a_full_disk_at_any_step_is_told_and_leaves_no_key_without_bytes(
    files: FilesystemStore, spool: Spool, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*arguments: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    key = instance_key("1.1", "1.2", "1.3", new_version_id())
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OutOfSpace, match="No space left"):
            _put(files, spool, key)
    assert [info.size_bytes for info in files.list("")] in ([], [5])
    retry = instance_key("1.1", "1.2", "1.3", new_version_id())
    _put(files, spool, retry)
    assert files.size(retry) == 5


def test_a_directory_in_the_place_of_a_blob_is_missing_bytes(files: FilesystemStore) -> None:
    (files.root / "radiology/x").mkdir(parents=True)
    with pytest.raises(BlobMissing):
        files.open("radiology/x")


def test_check_tells_that_the_root_is_gone(files: FilesystemStore) -> None:
    files.root.rmdir()
    with pytest.raises(StorageError, match="storage root"):
        files.check()


def test_hidden_entries_are_not_blobs(files: FilesystemStore) -> None:
    (files.root / ".spool").mkdir()
    (files.root / ".spool/x").write_bytes(b"x")
    assert list(files.list("")) == []


def test_no_descriptor_waits_for_the_collector_of_cycles(files: FilesystemStore, spool: Spool) -> None:
    _put(files, spool, instance_key("1.1", "1.2", "1.3", new_version_id()))
    before = len(os.listdir("/proc/self/fd"))
    gc.disable()
    try:
        for size in (5, 300_000) * 10:
            _put(files, spool, instance_key("1.1", "1.2", "1.3", new_version_id()), bytes(size))
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        gc.enable()


def test_no_descriptor_stays_open(files: FilesystemStore, spool: Spool) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(200):
        _put(files, spool, instance_key("1.1", f"1.2.{number}", "1.3", new_version_id()))
    assert len(os.listdir("/proc/self/fd")) <= before + 70
    del files
