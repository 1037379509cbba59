"""Resumable uploads: begun, written piece by piece, joined, given up, and made files when the last byte is there.

What is told as received is on stable storage, so a process that is killed costs what it has not told yet. One request writes an
upload at a time (`storage.upload_files`). The upload is made a file in the transaction that adds the file; until then its bytes stay,
and whoever asks for a whole upload that is no file yet makes it one.
"""

from __future__ import annotations

import dataclasses
import logging
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from pacslite.catalog import uploads as rows
from pacslite.catalog.statements import lock_keys, now_text, time_text
from pacslite.catalog.uploads import COMPLETE, EXPIRED, FAILED, FINAL, OPEN, PARTIAL, TERMINATED, WHOLE, Upload
from pacslite.core import files, quotas
from pacslite.core.file_arrivals import known_patient
from pacslite.core.file_types import MedicalCategory, MedicalFileType
from pacslite.core.files import Arrived, Description, Owner, Parts
from pacslite.core.upload_writing import Receiving, Stream, digests_so_far, forget_digests
from pacslite.errors import (
    BadRequest,
    Busy,
    Conflict,
    Forbidden,
    Gone,
    NotFound,
    PacsliteError,
    QuotaExceeded,
    StorageError,
    TooLarge,
    TooManyRequests,
    Unavailable,
)
from pacslite.storage.digests import digests_of
from pacslite.storage.spool import SpoolFile
from pacslite.storage.upload_files import UploadFiles, UploadWriter

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.catalog.changes import Origin

__all__ = ["COMPLETE", "FINAL", "PARTIAL", "WHOLE", "Expected", "Upload", "begin", "expire", "get", "join", "receive", "terminate"]

MOST_PARTS = 1000
_REMEMBERED_S = 7 * 86400
_STRAY_S = 3600
# What may be otherwise in a while: the bytes are kept for another try.
_PASSING = (Busy, StorageError, Unavailable, QuotaExceeded)
_ENDS = {FAILED: "was refused", EXPIRED: "expired", TERMINATED: "was ended"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Expected:
    """What is announced of an upload: its kind, its length if that is known, and what it is to become (not of a partial one).

    `metadata` is what the client wrote of it, to be told back.
    """

    kind: str = WHOLE
    length: int | None = None
    about: Description | None = None
    filename: str = ""
    metadata: str = ""


def upload_files(parts: Parts) -> UploadFiles:
    """Where the bytes of uploads lie."""
    return UploadFiles(parts.spool.directory / "uploads")


def begin(parts: Parts, owner: Owner, expected: Expected) -> Upload:
    """A new upload, without bytes yet; raises InvalidForm, TooLarge, QuotaExceeded, OutOfSpace, TooManyRequests."""
    if expected.about is not None:
        known_patient(parts, expected.about.patient_id)
    length = expected.length or 0
    quotas.check(parts, owner, length)
    new = _new(parts, owner, expected)
    store = upload_files(parts)
    store.create(new.uid)

    def work(conn: Connection) -> None:
        lock_keys(conn, [f"uploads:{owner.account_id}"])
        if rows.count_open(conn, owner.username, owner.account_id) >= parts.settings.max_open_uploads:
            raise TooManyRequests(f"{parts.settings.max_open_uploads} uploads are under way, which is the bound; end some.", 60)
        quotas.check_quota(conn, parts.settings, owner.account_id, length)
        rows.add(conn, new, now_text())

    try:
        parts.catalog.write(work)
    except PacsliteError:
        store.remove(new.uid)
        raise
    return new


def get(parts: Parts, owner: Owner, uid: str) -> Upload:
    """An upload of this owner as it is; raises NotFound, also for somebody else's, and Gone when it ended without a file."""
    with parts.catalog.read() as conn:
        found = rows.find(conn, uid)
    if found is None or (found.owner_id, found.created_by) != (owner.account_id, owner.username):
        raise NotFound("There is no such upload.")
    if found.state == OPEN and found.expires_at <= now_text():
        raise Gone("The upload expired.")
    if found.state in _ENDS:
        raise Gone(f"The upload {_ENDS[found.state]}{': ' if found.problem else '.'}{found.problem or ''}")
    return found


def settled(parts: Parts, owner: Owner, uid: str) -> Upload:
    """An upload once a request that broke off has told how far it came, so that who goes on from there is right; raises what `get` does.

    While another request goes on writing, what that has told so far.
    """
    found = get(parts, owner, uid)
    if found.state != OPEN or found.is_whole:
        return found
    upload_files(parts).settle(uid)
    return get(parts, owner, uid)


def receive(parts: Parts, owner: Owner, origin: Origin, known: Upload, coming: Receiving, stream: Stream) -> Upload:
    """Append what the stream gives to an upload, and make it a file when it is whole.

    Raises Conflict for another offset than its own, Locked while another writes, ChecksumMismatch (nothing is kept of this), BadRequest
    when the stream breaks off (what came is kept), TooLarge, OutOfSpace, QuotaExceeded, and what `files.add` raises.
    """
    _check_coming(parts, owner, known, coming)
    if known.state == COMPLETE:
        return known
    with ExitStack() as held:
        try:
            upload, writer = _claimed(parts, known.uid, held)
        except Gone:
            known = get(parts, owner, known.uid)
            if known.state != COMPLETE:
                raise
            _check_coming(parts, owner, known, coming)  # another request has made it a file meanwhile
            return known
        _check_coming(parts, owner, upload, coming)
        length = upload.length if upload.length is not None else coming.length
        if length != upload.length:
            _set_length(parts, owner, upload, writer, length)
        upload = coming.run(parts, dataclasses.replace(upload, length=length), writer, stream)
        if upload.is_whole and upload.kind != PARTIAL:
            return _finish(parts, owner, origin, upload, writer)
    return upload


def finish(parts: Parts, owner: Owner, origin: Origin, upload: Upload) -> Upload:
    """Make a whole upload a file that is none yet, because a process ended in between or had no room; else the upload as it is."""
    if upload.state != OPEN or upload.kind == PARTIAL or not upload.is_whole:
        return upload
    with ExitStack() as held:
        try:
            upload, writer = _claimed(parts, upload.uid, held)
        except Gone:
            return get(parts, owner, upload.uid)
        return _finish(parts, owner, origin, upload, writer)


def join(parts: Parts, owner: Owner, origin: Origin, uids: Sequence[str], expected: Expected) -> Upload:
    """A file of partial uploads, one behind the other, which are gone then; raises BadRequest, Conflict, and what `receive` raises."""
    if not 1 <= len(uids) <= MOST_PARTS:
        raise BadRequest(f"A final upload is made of 1 to {MOST_PARTS} partial ones.")
    pieces = [get(parts, owner, uid) for uid in uids]
    for piece in pieces:
        if piece.kind != PARTIAL:
            raise BadRequest("A final upload is made of partial ones only.")
        if not piece.is_whole:
            raise Conflict("A partial upload has not come to its end yet.")
    size = sum(piece.offset for piece in pieces)
    announced = dataclasses.replace(owner, announced_bytes=sum({piece.uid: piece.offset for piece in pieces}.values()))
    assert expected.about is not None
    known_patient(parts, expected.about.patient_id)
    quotas.check(parts, announced, size)
    parts.spool.check_space(size)
    new = dataclasses.replace(_new(parts, owner, expected), length=size, offset=size, parts=tuple(uids))
    store = upload_files(parts)
    store.create(new.uid)
    try:
        with store.claim(new.uid) as writer:
            _copy(parts, store, new, writer)
            writer.sync()
            parts.catalog.write(lambda conn: rows.add(conn, new, now_text(), writer.token))
            made = _finish(parts, announced, origin, new, writer)
    except PacsliteError:
        # The parts are still there: whoever tries again makes another final upload of them.
        store.remove(new.uid)
        parts.catalog.write(lambda conn: rows.remove(conn, new.uid))
        raise
    for piece in pieces:
        terminate(parts, owner, piece, forget=True)
    return made


def terminate(parts: Parts, owner: Owner, upload: Upload, *, forget: bool = False) -> None:
    """End an upload, also while somebody writes it. What became a file stays one."""
    if upload.state == OPEN and not forget:
        parts.catalog.write(lambda conn: rows.end(conn, [upload.uid], TERMINATED, now_text()))
    else:
        parts.catalog.write(lambda conn: rows.remove(conn, upload.uid))
    upload_files(parts).remove(upload.uid)
    forget_digests(upload.uid)


def expire(parts: Expiring, older_than_s: float | None = None, patient_id: int | None = None) -> tuple[int, int]:
    """End uploads that expired, or that nothing has come to for that long (of files of one patient only): how many, and bytes freed.

    Bytes without an upload go too, and memories of uploads that ended long ago.
    """
    store, ended, freed, after = UploadFiles(parts.spool.directory / "uploads"), 0, 0, ""
    now = datetime.now(UTC)
    limit = {"expired": time_text(now)} if older_than_s is None else {"untouched": time_text(now - timedelta(seconds=older_than_s))}
    while True:
        with parts.catalog.read() as conn:
            found = rows.unfinished(conn, after, **limit)
        if not found:
            break
        after = found[-1].uid
        due = [one.uid for one in found if patient_id is None or one.form.get("patient_id") == patient_id]
        ended += parts.catalog.write(lambda conn, due=due: rows.end(conn, due, EXPIRED, now_text()))
        freed += sum(store.remove(uid) for uid in due)
    if patient_id is None:
        freed += _sweep(parts, store)
        until = time_text(now - timedelta(seconds=_REMEMBERED_S))
        parts.catalog.write(lambda conn: rows.forget(conn, until))
    return ended, freed


class Expiring(Protocol):
    """What `expire` needs of a process."""

    @property
    def catalog(self) -> Any: ...
    @property
    def spool(self) -> Any: ...


def _sweep(parts: Expiring, store: UploadFiles) -> int:
    """Remove bytes that no open upload has: of a process that ended between two steps."""
    strays = sorted(set(store.names(_STRAY_S)))
    freed = 0
    for start in range(0, len(strays), 500):
        some = strays[start : start + 500]
        with parts.catalog.read() as conn:
            kept = rows.still_open(conn, some)
        freed += sum(store.remove(name) for name in some if name not in kept)
    return freed


def _new(parts: Parts, owner: Owner, expected: Expected) -> Upload:
    form: dict[str, Any] = {"metadata": expected.metadata}
    if expected.about is not None:
        form |= {"filename": expected.filename, **dataclasses.asdict(expected.about)}
    now = datetime.now(UTC)
    until = time_text(now + timedelta(seconds=parts.settings.upload_expiry_s))
    return Upload(
        str(uuid.uuid4()),
        expected.kind,
        OPEN,
        owner.account_id,
        owner.username,
        form,
        expected.length,
        0,
        (),
        None,
        None,
        time_text(now),
        until,
    )


def _claimed(parts: Parts, uid: str, held: ExitStack) -> tuple[Upload, UploadWriter]:
    """The upload as it is, and the right to write it until `held` ends; raises Locked, Gone."""
    writer = held.enter_context(upload_files(parts).claim(uid))
    found = parts.catalog.write(lambda conn: rows.claim(conn, uid, writer.token))
    if found is None:
        raise Gone("The upload has ended.")
    return found, writer


def _check_coming(parts: Parts, owner: Owner, upload: Upload, coming: Receiving) -> None:
    """What is wrong with a request can be said before its bytes are read."""
    if upload.kind == FINAL:
        raise Forbidden("A final upload is made of partial ones; nothing is written to it.")
    if coming.offset != upload.offset:
        raise Conflict(f"{upload.offset} bytes have come, so the next ones begin there and not at {coming.offset}.")
    if coming.length is not None:
        if upload.length is not None and coming.length != upload.length:
            raise BadRequest(f"The length of this upload is {upload.length} already.")
        if coming.length < upload.offset:
            raise BadRequest("More bytes than this length have come already.")
        if coming.length > parts.settings.max_upload_bytes:
            raise TooLarge(f"One upload has at most {parts.settings.max_upload_bytes} bytes.")
    length = upload.length if upload.length is not None else coming.length
    most = parts.settings.max_upload_bytes if length is None else length
    if upload.offset + (coming.announced or 0) > most:
        raise TooLarge(f"The upload has {most} bytes, and {coming.announced} behind {upload.offset} are more.")
    if length is None and coming.announced:
        quotas.check(parts, owner, coming.announced)


def _set_length(parts: Parts, owner: Owner, upload: Upload, writer: UploadWriter, length: int | None) -> None:
    assert length is not None

    def work(conn: Connection) -> None:
        lock_keys(conn, [f"uploads:{owner.account_id}"])
        quotas.check_quota(conn, parts.settings, owner.account_id, length - upload.offset)
        rows.advance(conn, upload.uid, writer.token, upload.offset, length, now_text(), upload.expires_at)

    parts.spool.check_space(length - upload.offset)
    parts.catalog.write(work)


def _finish(parts: Parts, owner: Owner, origin: Origin, upload: Upload, writer: UploadWriter) -> Upload:
    """Add the file; a refusal for good ends the upload, one for now leaves it for another try."""
    assert upload.length is not None
    size, made = upload.length, ""
    writer.finishing()

    def also(conn: Connection, file_uid: str) -> None:
        nonlocal made
        if not rows.complete(conn, upload.uid, writer.token, size, file_uid, now_text()):
            raise Conflict("The upload has ended meanwhile.")
        made = file_uid

    counted = owner if owner.announced_bytes else dataclasses.replace(owner, announced_bytes=size)
    try:
        files.add(parts, [Arrived(_spool_file(parts, upload), upload.form["filename"])], _description(upload), counted, origin, also)
    except _PASSING:
        # Told now what the transaction would have told.
        writer.sync()
        parts.catalog.write(lambda conn: rows.advance(conn, upload.uid, writer.token, size, size, now_text(), upload.expires_at))
        raise
    except PacsliteError as error:
        reason = str(error)
        parts.catalog.write(lambda conn: rows.end(conn, [upload.uid], FAILED, now_text(), reason))
        upload_files(parts).remove(upload.uid)
        raise
    upload_files(parts).remove(upload.uid)
    return dataclasses.replace(upload, state=COMPLETE, offset=size, file_uid=made)


def _spool_file(parts: Parts, upload: Upload) -> SpoolFile:
    """The bytes in the spool under a second name, so that those of the upload stay until it is a file."""
    store = upload_files(parts)
    digests = digests_so_far(upload.uid, upload.offset)
    if digests is None:
        with store.open(upload.uid) as stream:
            digests = digests_of(stream)
    target = parts.spool.directory / f"{uuid.uuid4().hex}.upload"
    store.lend(upload.uid, target)
    return SpoolFile(str(target), digests.size_bytes, digests.sha256, digests.data_set_digest)


def _copy(parts: Parts, store: UploadFiles, new: Upload, writer: UploadWriter) -> None:
    """One behind the other, hashed on the way. Others may copy at the same time: there has to be room as it goes on."""
    whole = Receiving.joined(new.uid)
    for uid in new.parts:
        with store.open(uid) as stream:
            while piece := stream.read(1024 * 1024):
                parts.spool.check_space(len(piece))
                writer.write(piece)
                whole.update(piece)
    whole.keep()


def _description(upload: Upload) -> Description:
    said = {name: value for name, value in upload.form.items() if name not in ("filename", "metadata")}
    category = MedicalCategory(said["medical_category"]) if said["medical_category"] is not None else None
    return Description(**said | {"file_type": MedicalFileType(said["file_type"]), "medical_category": category})
