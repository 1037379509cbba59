"""STOW-RS (PS3.18 10.5): takes instances in, each part on its own, and tells what became of every one.

While one part is received, those before it are read, synced and recorded by a few threads, so that their waits for the
disk overlap and the catalog commits them together. Memory and spool stay bounded by the number of parts in hand.
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from pacslite.core.ingest import Accepted, Expected, Origin
from pacslite.dicom.part10 import parse_file_meta
from pacslite.dicom.uids import clean_uid, is_uid
from pacslite.dicomweb import stow_metadata, stow_response
from pacslite.dicomweb.media_types import (
    DICOM,
    DICOM_JSON,
    DICOM_XML,
    OCTET_STREAM,
    RESPONSE_OFFERS,
    MediaType,
    Offer,
    acceptable,
    choose,
    parse_media_type,
)
from pacslite.dicomweb.multipart_related import PIECE_BYTES, Limits, MultipartReader, boundary_of
from pacslite.dicomweb.stow_response import WARNING_COERCED, WARNING_DISCARDED, WARNING_MISMATCH, Failed, Outcome, Stored
from pacslite.error_map import mapping_of
from pacslite.errors import (
    BadRequest,
    Busy,
    InstanceRefused,
    InvalidMultipart,
    NotAcceptable,
    NotDicom,
    OutOfSpace,
    PacsliteError,
    StorageError,
    TooLarge,
    TruncatedDataSet,
    UnsupportedContent,
)
from pacslite.web.incoming import arriving_body
from pacslite.web.messages import BodyStream, Reply, Request

if TYPE_CHECKING:
    from pacslite.app import Pacs
    from pacslite.dicomweb.stow_metadata import Made
    from pacslite.storage.spool import SpoolFile

_log = logging.getLogger(__name__)

_ROOT_TYPES = (DICOM, DICOM_JSON, DICOM_XML)
SUPPORTED = (*(f'multipart/related; type="{name}"' for name in _ROOT_TYPES), *_ROOT_TYPES)
_PARTS_IN_HAND = 4
_HEAD_BYTES = 1024
_CANNOT_UNDERSTAND = 0xC000
_NEW = frozenset({"stored", "new_version"})


@cache
def _workers() -> ThreadPoolExecutor:
    """The threads of this process that accept parts; made at the first request, after any fork."""
    return ThreadPoolExecutor(max_workers=_PARTS_IN_HAND * 2, thread_name_prefix="stow")


def store_instances(pacs: Pacs, request: Request, study: str | None = None) -> Reply:
    """`POST /studies` and `POST /studies/{study}`."""
    study = clean_uid(study) if study is not None else None
    offer = _response_offer(pacs, request)
    length = request.content_length
    if length is not None and length > pacs.settings.max_upload_bytes:
        raise TooLarge(f"The body is larger than {pacs.settings.max_upload_bytes} bytes.")
    pacs.spool.check_space(length or 0)
    origin = Origin("stow", address=request.address, actor=request.actor, request_id=request.request_id)
    batch = _Batch(pacs, origin, study)
    outcomes = _taken(pacs, request, batch)
    _refuse_whole(batch, outcomes)
    reply = stow_response.reply(outcomes, offer, request.dicomweb_url + "/studies")
    texts = dict.fromkeys(outcome.text for outcome in outcomes if isinstance(outcome, Failed))
    _note(origin, outcomes, list(texts))
    reply.headers += [("Warning", f'299 pacslite "{_quotable(text)}"') for text in list(texts)[:5]]
    return reply


def _taken(pacs: Pacs, request: Request, batch: _Batch) -> list[Outcome]:
    """What became of each part; when the body ends in the middle, what came whole before is stored and says so."""
    try:
        for received in _received(pacs, request, batch):
            batch.add(received)
    except (BadRequest, TooLarge, OutOfSpace) as error:
        outcomes = batch.outcomes()
        if not any(isinstance(outcome, Stored) for outcome in outcomes):
            raise
        return [*outcomes, Failed(mapping_of(error).stow, str(error))]  # the rest is one failure more
    return batch.outcomes()


def _note(origin: Origin, outcomes: list[Outcome], reasons: list[str]) -> None:
    """One line for the request, as the listener writes one for an association."""
    studies = {outcome.study_instance_uid for outcome in outcomes if isinstance(outcome, Stored)}
    refused = sum(isinstance(outcome, Failed) for outcome in outcomes)
    about = {"action": "study.store", "object_id": studies.pop() if len(studies) == 1 else None, "address": origin.address}
    counts = {"outcome": "refused" if refused == len(outcomes) else "success", "stored": len(outcomes) - refused, "refused": refused}
    _log.info("instances received", extra={**about, **counts, **({"reasons": reasons[:5]} if reasons else {})})


def store_instances_of_study(pacs: Pacs, request: Request, study: str) -> Reply:
    """`POST /studies/{study}`: instances of other studies fail one by one (10.5.1.1.1)."""
    return store_instances(pacs, request, study)


def _quotable(text: str) -> str:
    return "".join(c if " " <= c <= "~" and c not in '"\\' else "'" for c in text[:200])


def _response_offer(pacs: Pacs, request: Request) -> Offer:
    accepted = acceptable(request.header("Accept"), tuple(request.arguments("accept")), pacs.settings.strict_accept)
    offer = choose(accepted, RESPONSE_OFFERS)
    if offer is None:
        raise NotAcceptable("The answer is application/dicom+json or application/dicom+xml.")
    return offer


@dataclass(frozen=True, slots=True)
class _Received:
    """One instance in the spool, and its first bytes, which tell what it is should it be refused.

    `discarded`: elements of its metadata were left out.
    """

    file: SpoolFile
    head: bytes
    discarded: bool = False


def _received(pacs: Pacs, request: Request, batch: _Batch) -> Iterator[_Received]:
    """Every instance of the body, received whole; other parts become failures."""
    media = _content_type(request)
    if media.name == DICOM:
        yield _spooled(pacs, _pieces(request, pacs.settings.max_upload_bytes))
        return
    if media.name in stow_metadata.METADATA:
        pieces = _pieces(request, pacs.settings.max_upload_bytes)
        yield from _made(batch, stow_metadata.of_single(pacs, media.name, pieces, request.dicomweb_url + "/"))
        return
    limits = Limits(pacs.settings.max_upload_bytes, pacs.settings.max_stow_parts)
    parts = MultipartReader(arriving_body(request.environ), boundary_of(media), limits).parts()
    if _root_type(media) in stow_metadata.METADATA:
        yield from _made(batch, stow_metadata.of_parts(pacs, parts, request.dicomweb_url + "/"))
        return
    for part in parts:
        if _is_dicom(part.headers):
            yield _spooled(pacs, part.data())
        else:
            batch.refuse_type(Failed(_CANNOT_UNDERSTAND, "A part is not of type application/dicom."))


def _made(batch: _Batch, instances: Iterator[Made | InstanceRefused]) -> Iterator[_Received]:
    """Instances made of metadata and bulk data; those that could not be made become failures."""
    for one in instances:
        if isinstance(one, InstanceRefused):
            batch.fail(_failed(one, b""))
        elif isinstance(one.made, InstanceRefused):
            batch.fail(_failed(one.made, one.head))
        else:
            yield _Received(one.made, one.head, one.discarded)


def _root_type(media: MediaType) -> str:
    return (media.parameter("type") or DICOM).strip().lower()


def _content_type(request: Request) -> MediaType:
    text = request.header("Content-Type")
    if not text:
        raise UnsupportedContent("The request has no Content-Type.", SUPPORTED)
    media = parse_media_type(text)
    inner = _root_type(media)
    if media.name not in _ROOT_TYPES and (media.name != "multipart/related" or inner not in _ROOT_TYPES):
        raise UnsupportedContent(f"Bodies of type {media.name} ({inner}) are not taken here.", SUPPORTED)
    if (request.header("Content-Encoding") or "identity").strip().lower() != "identity":
        raise UnsupportedContent("Bodies with a content coding are not taken here.", SUPPORTED)
    return media


def _is_dicom(headers: dict[str, str]) -> bool:
    """A part without a type is what the whole body says it is; octets are looked at."""
    try:
        name = parse_media_type(headers.get("content-type") or DICOM).name
    except BadRequest:
        return False
    return name in (DICOM, OCTET_STREAM) and headers.get("content-transfer-encoding", "binary").lower() in ("binary", "8bit", "7bit")


def _pieces(request: Request, max_bytes: int) -> Iterator[memoryview]:
    """A body that is one instance."""
    received, stream = 0, arriving_body(request.environ)
    while piece := _read(stream):
        received += len(piece)
        if received > max_bytes:
            raise TooLarge(f"The body is larger than {max_bytes} bytes.")
        yield memoryview(piece)
    if not received:
        raise InvalidMultipart("The body is empty.")
    if request.content_length is not None and received != request.content_length:
        raise InvalidMultipart("The body is shorter than its Content-Length.")


def _read(stream: BodyStream) -> bytes:
    try:
        return stream.read(PIECE_BYTES)
    except OSError:  # the client has gone, or its chunks are malformed
        raise InvalidMultipart("The body broke off.") from None


def _spooled(pacs: Pacs, pieces: Iterator[memoryview]) -> _Received:
    head = b""
    with pacs.spool.create() as writer:
        for piece in pieces:
            if len(head) < _HEAD_BYTES:
                head += bytes(piece[: _HEAD_BYTES - len(head)])
            writer.write(piece)
        return _Received(writer.finish(), head)


@dataclass(slots=True)
class _Batch:
    """The parts of one request on their way into the archive, in order."""

    pacs: Pacs
    origin: Origin
    study: str | None
    _results: list[Future[Outcome] | Outcome] = field(default_factory=list)
    _last: _Received | None = None
    _refused_types: int = 0

    def add(self, received: _Received) -> None:
        """Takes one part. The newest waits until another follows: the last needs no thread of its own."""
        previous, self._last = self._last, received
        if previous is not None:
            self._submit(previous)

    def _submit(self, received: _Received) -> None:
        pending = {result for result in self._results if isinstance(result, Future) and not result.done()}
        while len(pending) >= _PARTS_IN_HAND:
            pending = wait(pending, return_when="FIRST_COMPLETED").not_done
        self._results.append(_workers().submit(contextvars.copy_context().run, self._accept, received))

    def fail(self, failed: Failed) -> None:
        """A part of which no instance could be made."""
        if self._last is not None:
            previous, self._last = self._last, None
            self._submit(previous)
        self._results.append(failed)

    def refuse_type(self, failed: Failed) -> None:
        """A part that was not even looked at."""
        self._refused_types += 1
        self.fail(failed)

    def outcomes(self) -> list[Outcome]:
        """What became of every part, in order; waits for all of them."""
        if self._last is not None:
            last, self._last = self._last, None
            self._results.append(self._accept(last))
        wait([result for result in self._results if isinstance(result, Future)])
        return [result.result() if isinstance(result, Future) else result for result in self._results]

    @property
    def only_refused_types(self) -> bool:
        """Whether no part was of a type that is taken."""
        return self._refused_types == len(self._results)

    def _accept(self, received: _Received) -> Outcome:
        try:
            accepted = self.pacs.ingest.accept(received.file, self.origin, Expected(study_instance_uid=self.study))
        except PacsliteError as error:
            return _failed(error, received.head)
        return Stored(
            accepted.study_instance_uid,
            accepted.series_instance_uid,
            accepted.sop_class_uid,
            accepted.sop_instance_uid,
            _warning(accepted, received) if self.pacs.settings.coercion_warnings else None,
            is_new=accepted.outcome in _NEW,
        )


def _warning(accepted: Accepted, received: _Received) -> int | None:
    """What is worth a warning (PS3.18 Table I.2-1): another SOP class than announced, elements left out, other deviations."""
    try:
        meta = parse_file_meta(received.head)
    except (NotDicom, TruncatedDataSet):
        meta = None
    if meta is not None and meta.sop_class_uid not in ("", accepted.sop_class_uid):
        return WARNING_MISMATCH
    if received.discarded:
        return WARNING_DISCARDED
    return WARNING_COERCED if accepted.warnings else None


def _failed(error: PacsliteError, head: bytes) -> Failed:
    """The failure item, named by the part's own file meta where that can be read."""
    reason, text = mapping_of(error).stow, str(error)
    if isinstance(error, StorageError | Busy):
        return _Unserved(reason, text, error=error)
    try:
        meta = parse_file_meta(head) if not isinstance(error, NotDicom) else None
    except (NotDicom, TruncatedDataSet):
        meta = None
    if meta is None or not is_uid(meta.sop_instance_uid):
        return Failed(reason, text)
    return Failed(reason, text, meta.sop_class_uid if is_uid(meta.sop_class_uid) else "", meta.sop_instance_uid)


@dataclass(frozen=True, slots=True)
class _Unserved(Failed):
    """A failure of the server, not of the part."""

    error: PacsliteError | None = None


def _refuse_whole(batch: _Batch, outcomes: list[Outcome]) -> None:
    """Answers that are better than 409 when nothing is stored: the type is wrong throughout, or the server cannot store."""
    if batch.only_refused_types:
        raise UnsupportedContent("No part is of type application/dicom.", SUPPORTED)
    for outcome in outcomes:
        if not isinstance(outcome, _Unserved):
            return
    first = outcomes[0]
    assert isinstance(first, _Unserved)
    if first.error is not None:
        raise first.error
