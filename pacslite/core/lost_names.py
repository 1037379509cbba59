"""Puts bytes back under their keys whose rename a failure of power has undone.

The bytes of a large instance are synced, its new name is not, where the file system logs changes in their order: after a
failure of power the file has its key, or still its name in the spool. Which bytes these are is told by their digest. See
docs/decisions/0046.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pacslite.catalog import blobs
from pacslite.core.file_cache import boot_mark
from pacslite.errors import BlobMissing

if TYPE_CHECKING:
    from pacslite.catalog.database import Catalog
    from pacslite.storage.blob_store import BlobStore
    from pacslite.storage.spool import Spool

# A file system writes its log every few seconds (ext4: 5, XFS and btrfs: 30); far fewer instances come in that time.
_LOOKED_AT = 100_000
_log = logging.getLogger(__name__)


def put_back(catalog: Catalog, store: BlobStore, spool: Spool, seen: Path) -> int:
    """Give files of the spool the keys by which the catalog knows their bytes, if those are missing; how many.

    To be called before anything is stored. Once for each start of the machine, by the file `seen`: while it runs, nothing
    is undone.
    """
    boot = boot_mark()
    if boot and _read(seen) == boot:
        return 0
    count = 0
    for path, key in _lost(catalog, store, spool):
        store.put(path, key)
        count += 1
    if count:
        _log.warning("%d files were put back under their keys after a failure of power", count, extra={"action": "storage.recover"})
    seen.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    seen.write_text(boot, encoding="ascii")
    return count


def _read(seen: Path) -> str:
    try:
        return seen.read_text(encoding="ascii")
    except (FileNotFoundError, UnicodeDecodeError):
        return ""


def _lost(catalog: Catalog, store: BlobStore, spool: Spool) -> Iterator[tuple[Path, str]]:
    """Files of the spool that hold the bytes of a blob that is missing, and its key."""
    left = [(path, size) for path in spool.directory.iterdir() if path.is_file() and (size := path.stat().st_size)]
    if not left:
        return
    with catalog.read() as conn:
        recent = [new for new in blobs.newest_live(conn, _LOOKED_AT) if new.store_name == store.name]
    sizes = {new.size_bytes for new in recent}
    keys: dict[str, list[str]] = {}
    for new in recent:
        keys.setdefault(new.sha256, []).append(new.storage_key)
    for path, size in left:
        if size not in sizes:
            continue
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        missing = next((key for key in keys.get(digest, ()) if not _is_there(store, key)), None)
        if missing is not None:
            yield path, missing


def _is_there(store: BlobStore, key: str) -> bool:
    try:
        store.size(key)
    except BlobMissing:
        return False
    return True
