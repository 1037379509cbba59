"""What a failure of power leaves of a large instance whose name was not durable: its bytes come back to their key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from pacslite import app
from pacslite.app import Pacs
from pacslite.catalog.changes import Origin
from pacslite.catalog.models import blob
from pacslite.core import lost_names, removal
from pacslite.core.erasure import erase_doomed
from pacslite.core.ingest import Accepted
from pacslite.settings import load
from pacslite.storage import syncing
from pacslite.storage.syncing import names_follow_files
from tests.support import data_sets

ORIGIN = Origin("import")


@pytest.fixture
def pacs(tmp_path: Path, database_url: str) -> Iterator[Pacs]:
    made = app.build(load(environment={"PACSLITE_DATABASE_URL": database_url}, data=tmp_path / "data"))
    made.catalog.migrate()
    yield made
    made.close()


def store(pacs: Pacs) -> Accepted:
    with pacs.spool.create(".dcm") as writer:
        writer.write(data_sets.part10(data_sets.image(np.random.default_rng().integers(0, 4000, (1, 300, 300), np.uint16))))
        return pacs.ingest.accept(writer.finish(), ORIGIN)


def stored_file(pacs: Pacs) -> Path:
    with pacs.catalog.read() as conn:
        path = pacs.store.local_path(conn.execute(select(blob.c.storage_key)).scalar_one())
    assert path is not None
    return path


def undo_the_rename(pacs: Pacs) -> tuple[Path, bytes]:
    """The file has the name it had in the spool again, and its directories are not there yet."""
    path = stored_file(pacs)
    content = path.read_bytes()
    path.rename(pacs.spool.directory / "0123456789abcdef.dcm")
    for directory in list(path.parents)[:4]:
        directory.rmdir()
    return path, content


def another_start(pacs: Pacs) -> Path:
    """The machine has started since."""
    seen = pacs.settings.data / "run" / "boot"
    seen.parent.mkdir(exist_ok=True)
    seen.write_text("before-", encoding="ascii")
    return seen


def test_bytes_that_lost_their_name_come_back(pacs: Pacs) -> None:
    store(pacs)
    path, content = undo_the_rename(pacs)
    seen = another_start(pacs)
    app.recover(pacs.settings)
    assert path.read_bytes() == content
    assert list(pacs.spool.directory.iterdir()) == []
    assert seen.read_text() == lost_names.boot_mark()


def test_it_is_looked_for_once_for_each_start_of_the_machine(pacs: Pacs) -> None:
    store(pacs)
    app.recover(pacs.settings)
    path, content = undo_the_rename(pacs)
    app.recover(pacs.settings)
    assert not path.exists()  # nothing is undone while a machine runs, so nothing was looked for
    another_start(pacs)
    app.recover(pacs.settings)
    assert path.read_bytes() == content


def test_without_a_record_of_the_last_start_it_is_looked_for(pacs: Pacs) -> None:
    store(pacs)
    path, content = undo_the_rename(pacs)
    app.recover(pacs.settings)
    assert path.read_bytes() == content


def test_what_was_never_recorded_stays_for_the_sweep(pacs: Pacs) -> None:
    store(pacs)
    path = stored_file(pacs)
    content = path.read_bytes()
    (pacs.spool.directory / "a").write_bytes(b"half of something")
    (pacs.spool.directory / "b").write_bytes(bytes(len(content)))  # of the same size
    (pacs.spool.directory / "c").write_bytes(content)  # the bytes are where they belong
    another_start(pacs)
    app.recover(pacs.settings)
    assert sorted(entry.name for entry in pacs.spool.directory.iterdir()) == ["a", "b", "c"]
    assert path.read_bytes() == content


def test_what_was_deleted_is_not_brought_back(pacs: Pacs) -> None:
    accepted = store(pacs)
    content = stored_file(pacs).read_bytes()
    path = stored_file(pacs)
    removal.remove(pacs.catalog, removal.target_of(accepted.study_instance_uid), ORIGIN)
    assert erase_doomed(pacs.catalog, pacs.store, 0) == 1
    (pacs.spool.directory / "a").write_bytes(content)
    another_start(pacs)
    app.recover(pacs.settings)
    assert not path.exists()


MOUNTS = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 0:25 / /mnt/net rw - nfs4 server:/x rw
31 27 0:26 / /mnt/net/local rw shared:1 master:2 - xfs /dev/vdb rw
32 27 0:27 / /mnt/a\\040b\u00e9 rw - overlay overlay rw
33 27 0:27 / /mnt/twice rw - ext4 /dev/vdc rw
34 27 0:28 / /mnt/twice rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("directory", "follow"),
    [
        ("/data", True),
        ("/mnt/net/data", False),
        ("/mnt/network", True),
        ("/mnt/net/local", True),
        ("/mnt/a b\u00e9/data", False),
        ("/mnt/twice/data", False),
    ],
)
def test_the_file_system_of_a_directory_is_the_one_mounted_nearest(
    directory: str, follow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS, encoding="utf-8")
    monkeypatch.setattr(syncing, "_MOUNTS", mounts)
    assert names_follow_files(directory) is follow


def test_without_a_list_of_mounts_nothing_is_assumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syncing, "_MOUNTS", tmp_path / "none")
    assert not names_follow_files("/")
