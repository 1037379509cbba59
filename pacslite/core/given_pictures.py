"""A thumbnail that somebody brings for a file, in place of the one that would be made of it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pacslite.catalog import renditions as rows
from pacslite.catalog.arrival import NewBlob
from pacslite.catalog.renditions import DICOM, Made
from pacslite.codec import apart, pictures
from pacslite.codec.apart import Bounds
from pacslite.core.file_types import PICTURE_SIZES, Variant
from pacslite.errors import BadRequest, Gone, OutcomeUnknown, PacsliteError
from pacslite.storage.keys import blob_uid, picture_key, result_key

if TYPE_CHECKING:
    from pacslite.app import Pacs
    from pacslite.catalog.blobs import StoredBlob

_MOST_BYTES = 64 * 1024 * 1024


def give_thumbnail(pacs: Pacs, source: StoredBlob, picture: Path) -> NewBlob:
    """Keep a picture as the thumbnail of bytes, as small and upright as one that is made here; raises UndecodablePixels, Gone.

    It belongs to the bytes, and so to every file that has the same.
    """
    if source.media_type == DICOM:
        raise BadRequest("the thumbnail of an instance is drawn from it, and not given")
    size = PICTURE_SIZES[Variant.THUMBNAIL]
    target = pacs.spool.directory / f"{os.urandom(12).hex()}.jpg"
    pacs.spool.check_space(_MOST_BYTES)
    bounds = Bounds(pacs.settings.rendition_timeout_s, pacs.settings.rendition_memory_bytes, _MOST_BYTES)
    try:
        apart.run(pictures.TASK, os.fspath(picture), [(os.fspath(target), size.pixels, size.quality)], bounds=bounds)
        data = target.read_bytes()
        key = picture_key(result_key(source.storage_key, ".jpg"), size.folder)
        pacs.store.put(target, key)
    finally:
        target.unlink(missing_ok=True)
    made = NewBlob(blob_uid(key), key, pacs.store.name, len(data), hashlib.sha256(data).hexdigest(), "image/jpeg")
    try:
        if not pacs.catalog.write(lambda conn: rows.settle(conn, source, [Made(Variant.THUMBNAIL.value, made)], {}, None)):
            raise Gone("The file is gone.")
    except OutcomeUnknown:
        raise  # the catalog may name it: the sweep finds out
    except PacsliteError:
        pacs.store.delete(key)
        raise
    return made
