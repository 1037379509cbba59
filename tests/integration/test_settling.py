"""Small files are written ahead: what a failure of power takes from the storage comes back from the catalog."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select

from pacslite import app
from pacslite.app import Pacs
from pacslite.catalog.changes import Origin
from pacslite.catalog.models import blob, written_ahead
from pacslite.core import removal, settling
from pacslite.core.erasure import erase_doomed
from pacslite.core.ingest import Accepted
from pacslite.errors import StorageError
from pacslite.settings import load
from pacslite.storage import syncing
from tests.support import data_sets

ORIGIN = Origin("import")


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Pacs]:
    made = app.build(load(environment={}, data=tmp_path / "data"))
    made.catalog.migrate()
    yield made
    made.close()


def store(pacs: Pacs, content: bytes) -> Accepted:
    with pacs.spool.create(".dcm") as writer:
        writer.write(content)
        return pacs.ingest.accept(writer.finish(), ORIGIN)


def waiting(pacs: Pacs) -> int:
    with pacs.catalog.read() as conn:
        return int(conn.execute(select(func.count()).select_from(written_ahead)).scalar_one())


def stored_file(pacs: Pacs) -> Path:
    with pacs.catalog.read() as conn:
        path = pacs.store.local_path(conn.execute(select(blob.c.storage_key)).scalar_one())
    assert path is not None
    return path


@pytest.fixture
def small() -> bytes:
    return data_sets.part10(data_sets.image())


def test_the_bytes_of_a_small_file_are_committed_with_its_rows(pacs: Pacs, small: bytes) -> None:
    store(pacs, small)
    with pacs.catalog.read() as conn:
        assert conn.execute(select(written_ahead.c.content)).scalar_one() == small
    assert stored_file(pacs).read_bytes() == small
    assert pacs.ingest.settling.settle() == 1
    assert waiting(pacs) == 0
    assert stored_file(pacs).read_bytes() == small


def _lose(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _fill_with_zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("fail", [_lose, _empty, _fill_with_zeros])
def test_after_a_failure_of_power_the_file_is_written_again(pacs: Pacs, small: bytes, fail: Callable[[Path], None]) -> None:
    store(pacs, small)
    path = stored_file(pacs)
    fail(path)
    app.recover(pacs.settings)
    assert path.read_bytes() == small
    assert waiting(pacs) == 0


def test_bytes_are_let_go_of_only_once_the_storage_has_synced(pacs: Pacs, small: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    store(pacs, small)
    seen: list[int] = []
    real = type(pacs.store).settle_all

    def settle_all(self: object, keys: list[str]) -> None:
        seen.append(waiting(pacs))
        real(self, keys)  # type: ignore[arg-type]

    monkeypatch.setattr(type(pacs.store), "settle_all", settle_all)
    pacs.ingest.settling.settle()
    assert seen == [1]
    assert waiting(pacs) == 0


def test_after_a_failed_sync_the_bytes_are_written_again(pacs: Pacs, small: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the page cache proves nothing then: the system may have dropped what it could not write."""
    store(pacs, small)
    path = stored_file(pacs)
    before = path.stat().st_ino

    def fail(self: object, keys: list[str]) -> None:
        raise StorageError("the disk is ill")

    with monkeypatch.context() as patch:
        patch.setattr(type(pacs.store), "settle_all", fail)
        with pytest.raises(StorageError):
            pacs.ingest.settling.settle()
    assert waiting(pacs) == 1
    assert pacs.ingest.settling.settle() == 1
    assert path.stat().st_ino != before
    assert path.read_bytes() == small
    assert waiting(pacs) == 0


def test_what_was_deleted_meanwhile_is_not_brought_back(pacs: Pacs, small: bytes) -> None:
    accepted = store(pacs, small)
    path = stored_file(pacs)
    removal.remove(pacs.catalog, removal.target_of(accepted.study_instance_uid), ORIGIN)
    assert erase_doomed(pacs.catalog, pacs.store, 0) == 1
    assert pacs.ingest.settling.settle(compare=True) == 1
    assert not path.exists()
    assert waiting(pacs) == 0


def test_a_large_file_is_synced_before_it_is_recorded(pacs: Pacs) -> None:
    store(pacs, data_sets.part10(data_sets.image(np.zeros((1, 256, 256), np.uint16))))
    assert waiting(pacs) == 0


def test_it_can_be_turned_off(tmp_path: Path, small: bytes) -> None:
    made = app.build(load(environment={}, data=tmp_path / "off", write_ahead_bytes=0))
    made.catalog.migrate()
    store(made, small)
    assert waiting(made) == 0
    made.close()


def test_whoever_stores_settles_when_nobody_else_does(pacs: Pacs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "_LOOKED_AT_EVERY", 2)
    monkeypatch.setattr(settling, "_MOST_WAITING", 3)
    for _ in range(4):
        store(pacs, data_sets.part10(data_sets.image()))
    assert waiting(pacs) == 0


def test_a_process_that_ends_settles_what_it_has_stored(tmp_path: Path, small: bytes) -> None:
    settings = load(environment={}, data=tmp_path / "ends")
    made = app.build(settings)
    made.catalog.migrate()
    store(made, small)
    made.close()
    again = app.build(settings)
    assert waiting(again) == 0
    assert stored_file(again).read_bytes() == small
    again.close()


# What a file system without a log cannot keep (decision 46)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A directory on another file system than that of `tmp_path`."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or os.stat(memory).st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("needs a tmpfs at /dev/shm")
    with tempfile.TemporaryDirectory(dir=memory) as made:
        yield Path(made)


def warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path, kinds: dict[Path, str], **settings: object
) -> list[str]:
    """The directories of which `recover` warns, on file systems of these kinds that tell nothing of a journal."""
    mounts = "".join(f"{number} 1 254:{number} / {path} rw - {kind} /dev/x rw\n" for number, (path, kind) in enumerate(kinds.items()))
    (tmp_path / "mountinfo").write_text(mounts, encoding="utf-8")
    monkeypatch.setattr(syncing, "_MOUNTS", tmp_path / "mountinfo")
    monkeypatch.setattr(syncing, "_EXT4", tmp_path / "none")
    chosen = load(environment={}, data=tmp_path / "data", **settings)
    app.prepare_directories(chosen)
    app.migrate(chosen)
    with caplog.at_level(logging.WARNING, "pacslite.app"):
        app.recover(chosen)
    return [str(record.args[0]) for record in caplog.records if record.args and "without a journal" in record.getMessage()]


def test_an_ext4_without_a_journal_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    warned = warned_of(monkeypatch, caplog, tmp_path, {Path("/"): "ext4"}, archive_root=tmp_path / "archive")
    assert warned == [str(tmp_path / "data")]


@pytest.mark.parametrize("what", ["storage_root", "database_url"])
def test_every_file_system_with_what_must_survive_is_looked_at(
    what: str, elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given: dict[str, object] = {what: elsewhere if what == "storage_root" else f"sqlite:///{elsewhere}/catalog.db"}
    assert warned_of(monkeypatch, caplog, tmp_path, {Path("/"): "xfs", elsewhere: "ext4"}, **given) == [str(elsewhere)]
    caplog.clear()
    both = warned_of(monkeypatch, caplog, tmp_path, {Path("/"): "ext4"}, **given)
    assert both == [str(tmp_path / "data"), str(elsewhere)]
    caplog.clear()
    assert warned_of(monkeypatch, caplog, tmp_path, {Path("/"): "xfs"}, **given) == []
