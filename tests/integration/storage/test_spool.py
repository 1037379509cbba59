"""The spool hashes what it writes and leaves nothing behind."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest
from blake3 import blake3

from pacslite.errors import OutOfSpace, StorageError, TooLarge
from pacslite.storage.spool import Spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def _part10(meta_bytes: int, data_set: bytes) -> bytes:
    return bytes(128) + b"DICM\x02\x00\x00\x00UL\x04\x00" + meta_bytes.to_bytes(4, "little") + os.urandom(meta_bytes) + data_set


@pytest.mark.parametrize("piece_bytes", [1, 7, 1000, 65_535, 65_536, 70_000, 500_000])
@pytest.mark.parametrize("meta_bytes", [0, 180, 70_000])
def test_digests_do_not_depend_on_how_the_bytes_arrive(spool: Spool, piece_bytes: int, meta_bytes: int) -> None:
    data_set = os.urandom(3000 if piece_bytes < 10 else 150_000)
    whole = _part10(meta_bytes, data_set)
    with spool.create(".dcm") as writer:
        for start in range(0, len(whole), piece_bytes):
            writer.write(memoryview(whole)[start : start + piece_bytes])
        file = writer.finish()
    assert file.path.read_bytes() == whole
    assert file.size_bytes == len(whole)
    assert file.sha256 == hashlib.sha256(whole).hexdigest()
    assert file.data_set_digest == blake3(data_set).hexdigest()


@pytest.mark.parametrize(
    "data", [b"", b"\x08\x00\x05\x00CS", bytes(128) + b"DICM", bytes(128) + b"DICM\x02\x00\x01\x00OB\0\0" + bytes(500)]
)
def test_a_file_that_does_not_state_its_meta_length_has_no_data_set_digest(spool: Spool, data: bytes) -> None:
    with spool.create() as writer:
        writer.write(data)
        file = writer.finish()
    assert (file.sha256, file.data_set_digest) == (hashlib.sha256(data).hexdigest(), None)


def test_a_file_that_ends_within_its_meta_has_no_data_set_digest(spool: Spool) -> None:
    with spool.create() as writer:
        writer.write(_part10(200, b"")[:-1])
        assert writer.finish().data_set_digest is None


def test_an_unfinished_file_is_removed(spool: Spool) -> None:
    with spool.create() as writer:
        writer.write(b"x" * 100_000)
    assert list(spool.directory.iterdir()) == []


def test_discard_removes_the_file_and_may_be_repeated(spool: Spool) -> None:
    file = spool.create().finish()
    file.discard()
    file.discard()
    assert list(spool.directory.iterdir()) == []


def test_more_than_the_bound_is_refused_and_removed(spool: Spool) -> None:
    with spool.create(max_bytes=1000) as writer:
        writer.write(b"x" * 1000)
        with pytest.raises(TooLarge, match="1000"):
            writer.write(b"x")
    assert list(spool.directory.iterdir()) == []


def test_a_full_disk_is_told_as_out_of_space(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest, **more: real("/dev/full", os.O_WRONLY))
    writer = spool.create()
    with pytest.raises(OutOfSpace, match="No space left"):
        writer.write(b"x" * 70_000)
    writer.abort()


def test_a_spool_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="spool directory"):
        Spool(tmp_path / "file" / "spool")


def test_sweep_takes_only_files_nobody_wrote_to_for_long(spool: Spool) -> None:
    old, young = spool.create().finish(), spool.create().finish()
    os.utime(old.path, (time.time() - 4000,) * 2)
    (spool.directory / "uploads").mkdir()
    assert spool.sweep(older_than_s=3600) == 1
    assert sorted(p.name for p in spool.directory.iterdir()) == sorted([young.path.name, "uploads"])
