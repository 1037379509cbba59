"""What is made of the bytes of files: smaller pictures, the MP4 of a video, previews, and facts like size and duration.

It is queued with the file (`queue`, in the transaction that records the bytes), made by a job (`core.rendition_jobs`), and belongs
to the bytes: equal files share it. Whoever asks for one that is not there yet waits shortly and is told to come again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from pacslite.catalog import blobs, jobs
from pacslite.catalog import renditions as rows
from pacslite.catalog.blobs import LIVE, StoredBlob
from pacslite.catalog.renditions import DICOM, FAILED, NONE, PENDING, READY
from pacslite.catalog.statements import now_text, time_text
from pacslite.core.file_types import PICTURE_SIZES
from pacslite.core.parts import WithCatalog
from pacslite.errors import NotFound, NotReady

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["FAILED", "NONE", "PENDING", "READY", "SERVED", "facts", "names_for", "open", "processing", "queue", "served", "states", "sweep"]

SERVED = "served"
KIND, UNIT, ATTEMPTS = "files.renditions", "results", 3
PICTURES = frozenset(f"image/{name}" for name in ("jpeg", "png", "tiff", "webp", "gif", "bmp", "heic", "avif"))
MESHES = {"model/stl": "stl", "model/obj": "obj", "model/ply": "ply"}
PDF = "application/pdf"
_SIZES = tuple(str(name) for name in PICTURE_SIZES)
_PAGE = 200
_FORGOTTEN = timedelta(minutes=10)
_WAIT_S, _LOOK_AGAIN_S = 1.5, 0.05
# Threads of a web process that may wait at once: a page of many new pictures must not hold up everybody else.
_waiting = threading.BoundedSemaphore(2)


class Parts(WithCatalog, Protocol):
    """What this needs of a process."""


def names_for(media_type: str, file_type: str = "") -> tuple[str, ...]:
    """What is made of bytes of this kind, the content of a video first; empty when nothing is."""
    kind = media_type.partition(";")[0].strip().lower()
    if kind.startswith("video/"):
        return (SERVED, *_SIZES)
    if kind in PICTURES or kind in MESHES or kind in (PDF, DICOM) or file_type == "dicom":
        return _SIZES
    return ()


def queue(conn: Connection, blob_pk: int, media_type: str, file_type: str = "") -> None:
    """Have all made that can be made of a blob, within the transaction that records it; nothing when it is there already."""
    names = names_for(media_type, file_type)
    if names and rows.ensure(conn, blob_pk, names):
        _add_job(conn, blob_pk)


def _add_job(conn: Connection, blob_pk: int) -> None:
    found = blobs.find(conn, blob_pk)
    if found is not None:
        more: dict[str, Any] = {"dedupe_key": f"renditions:{found.uid}", "unit": UNIT, "max_attempts": ATTEMPTS}
        jobs.add(conn, KIND, {"blob": found.uid}, **more)


def states(conn: Connection, blob_pks: Iterable[int]) -> dict[int, dict[str, str]]:
    """How far each result is (pending, ready, failed, none), by blob and name; what nothing is made of is left out."""
    return rows.states(conn, blob_pks)


def served(conn: Connection, blob_pks: Iterable[int]) -> dict[int, StoredBlob]:
    """The MP4s of videos, by the blob that was sent; a video that needs none is its own."""
    return rows.results(conn, blob_pks, SERVED)


def facts(conn: Connection, blob_pks: Iterable[int]) -> dict[int, dict[str, Any]]:
    """What was found out about bytes, by blob: width, height, duration_s, pages, triangles, dimensions, is_watertight, ..."""
    return rows.infos(conn, blob_pks)


def processing(known: Mapping[str, str] | None) -> str | None:
    """How far a video is: pending, ready or failed, given its states; None for what is no video."""
    state = (known or {}).get(SERVED)
    return None if state in (None, NONE) else state


def open(parts: Parts, blob_pk: int, name: str) -> StoredBlob:
    """The result of that name, waited for shortly; raises NotReady, and NotFound when there is none for bytes of this kind."""
    found = _look(parts, blob_pk, name)
    if found is not None:
        return found
    if _waiting.acquire(blocking=False):
        try:
            deadline = time.monotonic() + _WAIT_S
            while time.monotonic() < deadline:
                time.sleep(_LOOK_AGAIN_S)  # another process makes it, and says so in the catalog alone
                found = _look(parts, blob_pk, name)
                if found is not None:
                    return found
        finally:
            _waiting.release()
    raise NotReady("It is being made; try again shortly.")


def _look(parts: Parts, blob_pk: int, name: str) -> StoredBlob | None:
    """The result, or None while it is being made; what nobody has queued yet, or what is damaged, is queued."""
    with parts.catalog.read() as conn:
        known = rows.find(conn, blob_pk, name)
    if known is None:
        parts.catalog.write(lambda conn: _queue_missing(conn, blob_pk, name))
        return None
    row, result = known
    if row.state == READY and result is not None and result.state == LIVE:
        return result
    if row.state == READY:
        parts.catalog.write(lambda conn: _make_anew(conn, blob_pk, name))
    elif row.state == PENDING and row.updated_at < time_text(datetime.now(UTC) - _FORGOTTEN):
        parts.catalog.write(lambda conn: _queue_again(conn, blob_pk, name))
    elif row.state == FAILED:
        raise NotFound(f"None could be made of this file: {row.problem or 'unknown reason'}")
    elif row.state == NONE:
        raise NotFound("A file of this kind has none.")
    return None


def _queue_missing(conn: Connection, blob_pk: int, name: str) -> None:
    """For bytes that came before this was made of them, or whose rows a new catalog has lost."""
    found = blobs.find(conn, blob_pk)
    if found is None or name not in names_for(found.media_type):
        raise NotFound("A file of this kind has none.")
    queue(conn, blob_pk, found.media_type)


def _queue_again(conn: Connection, blob_pk: int, name: str) -> None:
    """For what has waited long: its job may have been cancelled, or its worker lost each time."""
    rows.touch(conn, blob_pk, name)
    _add_job(conn, blob_pk)


def _make_anew(conn: Connection, blob_pk: int, name: str) -> None:
    known = rows.find(conn, blob_pk, name)
    if known is not None and known[1] is not None and known[1].state != LIVE:
        rows.lose(conn, blob_pk, name)
        _add_job(conn, blob_pk)


def sweep(parts: Parts) -> int:
    """Take away what was made of bytes that no file needs any more; how many results. Their bytes are erased after the time of grace."""
    after, doomed = 0, 0
    while True:
        with parts.catalog.read() as conn:
            found = rows.unused_after(conn, after, _PAGE)
        if not found:
            return doomed
        doomed += parts.catalog.write(lambda conn, pks=found: rows.drop_unused(conn, pks, now_text()))  # type: ignore[misc]
        after = found[-1]
