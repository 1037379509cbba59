"""Catalog, storage and archive for tests of upkeep, with files to put in."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert, select

from pacslite.catalog import blobs, inventory
from pacslite.catalog.arrival import NewBlob
from pacslite.catalog.database import Catalog
from pacslite.catalog.file_models import file, file_part, file_version
from pacslite.catalog.models import patient
from pacslite.core.archival import Archived, Wish, archive
from pacslite.core.erasure import erase_doomed
from pacslite.core.ingest import read_limits
from pacslite.core.relocation import LEFT_S
from pacslite.core.verify import Verifier
from pacslite.settings import Settings
from pacslite.storage.blob_store import BlobStore
from pacslite.storage.keys import file_key, new_version_id
from pacslite.storage.spool import Spool
from pacslite.storage.stores import Stores

GRACE_S = 86400
TEXT = b"much of the same, again and again; " * 4000


class Watching:
    """A watcher that lets everything go on."""

    def __init__(self) -> None:
        self.memo: dict[str, Any] = {}
        self.told: list[tuple[int, int | None]] = []

    def check(self) -> None:
        pass

    def progress(self, done: int, total: int | None = None) -> None:
        self.told.append((done, total))

    def remember(self, **memo: Any) -> None:
        self.memo |= memo


@dataclass
class Held:
    """A catalog over a storage and its archive."""

    settings: Settings
    catalog: Catalog
    store: BlobStore
    other: BlobStore
    spool: Spool
    contents: dict[str, bytes] = field(default_factory=dict)

    @property
    def stores(self) -> Stores:
        return Stores(self.store, [self.other])

    def add(self, data: bytes = TEXT, file_type: str = "document", **more: Any) -> str:
        """A file of a patient; its uid is that of its bytes."""
        uid = new_version_id()
        key = file_key(1, "documents", "20250102", "doc", uid, ".txt")
        with self.spool.create() as writer:
            writer.write(data)
            arrived = writer.finish()
        self.store.put(arrived.path, key)
        new = NewBlob(uid, key, self.store.name, arrived.size_bytes, arrived.sha256, "text/plain")
        self.catalog.write(lambda conn: _record(conn, new, file_type, more))
        self.contents[uid] = data
        return uid

    def row(self, uid: str) -> inventory.BlobRow:
        with self.catalog.read() as conn:
            return inventory.blobs_of(conn, [uid])[uid]

    def read(self, uid: str) -> bytes:
        with self.stores.open(self.row(uid)) as stream:
            return stream.read()

    def archive(self, to: str | None = None, **wish: Any) -> Archived:
        return archive(self, Wish(**({"older_than_days": 0, "to": to} | wish)), Watching())

    def check_whole(self) -> None:
        """Everything is there, and whole."""
        limits = read_limits(self.settings, self.spool.directory)
        report = Verifier(self.catalog, self.stores, self.spool, limits).run(deep=True)
        assert (report.damaged, report.orphans) == ([], [])
        assert {uid: self.read(uid) for uid in self.contents} == self.contents

    def erase(self) -> int:
        """What erasure takes once those who were told of the sources are gone."""
        now = datetime.now(UTC) + timedelta(seconds=LEFT_S + 1)
        return sum(erase_doomed(self.catalog, store, GRACE_S, now) for store in self.stores.all)


def _record(conn: Any, new: NewBlob, file_type: str, more: dict[str, Any]) -> None:
    pk = blobs.insert_alone(conn, new)
    if conn.execute(select(patient.c.pk)).first() is None:
        conn.execute(insert(patient).values(pk=1, identity_id="1", identity_issuer="", identity_study="", created_at="", updated_at=""))
    row = {
        "uid": new.uid,
        "patient_pk": 1,
        "file_type": file_type,
        "version_number": 1,
        "created_by": "ann",
        "created_at": "",
        "updated_at": "",
    }
    of_file = conn.execute(insert(file).values(**(row | more)).returning(file.c.pk)).scalar_one()
    version = {"file_pk": of_file, "number": 1, "type": "baseline", "created_by": "ann", "created_at": ""}
    of_version = conn.execute(insert(file_version).values(**version).returning(file_version.c.pk)).scalar_one()
    part = {"version_pk": of_version, "position": 0, "original_filename": "a.txt", "blob_pk": pk}
    conn.execute(insert(file_part).values(**part, size_bytes=new.size_bytes, sha256=new.sha256, media_type="text/plain"))
