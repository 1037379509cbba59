"""Storage commitment (PS3.4 annex J): requests kept as jobs, and the check that stands behind the answer.

Committed is what the catalog knows under the SOP class that is named and whose stored bytes have the size and the SHA-256 of
the day they came. How requests arrive and reports leave is the DICOM side's business.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from pacslite.catalog import inventory, jobs, retrieval
from pacslite.catalog.visibility import EVERYTHING, Visibility, visibility_of
from pacslite.dicom.attributes import Level
from pacslite.errors import BlobMissing, Busy, Conflict, StorageError
from pacslite.storage.digests import digests_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.catalog.database import Catalog
    from pacslite.catalog.jobs import Job
    from pacslite.catalog.retrieval import ItemRow
    from pacslite.storage.stores import Stores

KIND = "dimse.commitment"
LEASE_S = 60.0
ASSOCIATION_LEASE_S = 600.0
"""For a requester that can only be told on its association, while it goes on sending: nobody else could tell it anyway."""
# With the pauses of `jobs.fail` more than a day, in which a modality that is switched off at night is back.
_ATTEMPTS = 32
# Until then trouble with the storage is waited out; afterwards it is a failure of the instance, and reported.
_PATIENT_ATTEMPTS = 4
# The response to the request leaves first: not every requester bears a report that overtakes it.
_DELAY_S = 0.5
_RENEW_S = 15.0
# Failure Reason (0008,1197) of PS3.3 C.14.
PROCESSING_FAILURE, NO_SUCH_OBJECT, CLASS_INSTANCE_CONFLICT = 0x0110, 0x0112, 0x0119

_log = logging.getLogger(__name__)


class Reference(NamedTuple):
    """An instance as a requester names it."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Commitment:
    """A request that is being worked on; `owner` holds the lease of its job."""

    job_id: int
    owner: str
    attempts: int
    requester: str
    transaction_uid: str
    references: tuple[Reference, ...]
    visibility: Visibility = EVERYTHING


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is committed, and what is not with the Failure Reason of each."""

    committed: tuple[Reference, ...]
    failed: tuple[tuple[Reference, int], ...]


def queue(catalog: Catalog, requester: str, transaction_uid: str, references: Sequence[Reference], owner: str | None = None) -> Job | None:
    """Keep the request, durable when this returns; the same one again while it is not over changes nothing.

    With `owner` its job is claimed at once, and given, unless it was known. Raises Conflict when the requester has a
    transaction of this UID under way for other instances.
    """
    named = [list(reference) for reference in dict.fromkeys(references)]
    payload = {"requester": requester, "transaction_uid": transaction_uid, "references": named, **catalog.visibility.payload}
    name = f"{KIND} {requester} {transaction_uid}"

    def work(conn: Connection) -> Job | None:
        delay_s = 0.0 if owner else _DELAY_S
        job_id = jobs.add(conn, KIND, payload, actor=requester, dedupe_key=name, delay_s=delay_s, max_attempts=_ATTEMPTS)
        kept = jobs.find(conn, job_id)
        if kept is None or kept.payload != payload:
            raise Conflict("Transaction UID is in use for other instances")
        return jobs.take(conn, job_id, owner, ASSOCIATION_LEASE_S) if owner and kept.attempts == 0 else None

    return catalog.write(work)


def claim(catalog: Catalog, owner: str) -> Commitment | None:
    """The next request to answer, None when none is due."""
    with catalog.read() as conn:
        if not jobs.is_due(conn, (KIND,)):
            return None
    job = catalog.write(lambda conn: jobs.claim(conn, owner, (KIND,), LEASE_S))
    return None if job is None else of_job(job, owner)


def of_job(job: Job, owner: str) -> Commitment:
    """The request in a job that `owner` has claimed."""
    told: dict[str, Any] = dict(job.payload)
    references = tuple(Reference(*pair) for pair in told["references"])
    return Commitment(job.id, owner, job.attempts, told["requester"], told["transaction_uid"], references, visibility_of(told))


def finish(catalog: Catalog, commitment: Commitment, verdict: Verdict) -> None:
    """The report was acknowledged."""
    result = {"committed": len(verdict.committed), "failed": len(verdict.failed)}
    catalog.write(lambda conn: jobs.finish(conn, commitment.job_id, commitment.owner, result))


def postpone(catalog: Catalog, commitment: Commitment, reason: str) -> None:
    """The report could not be made or was not acknowledged: later again, until the last attempt."""
    catalog.write(lambda conn: jobs.fail(conn, commitment.job_id, commitment.owner, reason))


def hold(catalog: Catalog, commitment: Commitment, seconds: float, done: int | None = None) -> None:
    """Keep the job for so long; raises Conflict when it is another's by now, or cancelled."""
    total = len(commitment.references)
    if not catalog.write(lambda conn: jobs.renew(conn, commitment.job_id, commitment.owner, seconds, done, total)):
        raise Conflict("the job was cancelled or taken over")


def check(catalog: Catalog, stores: Stores, commitment: Commitment, go_on: Callable[[], object] = lambda: None) -> Verdict:
    """Look at every instance and read its bytes, holding the job meanwhile; `go_on` is called between pieces and may raise.

    Raises Busy while the catalog is being rebuilt, StorageError when the storage fails and it is early days.
    """
    held = _Hold(catalog, commitment, go_on)
    return check_each(catalog.seen_by(commitment.visibility), stores, commitment.references, held, commitment.attempts <= _PATIENT_ATTEMPTS)


def check_each(catalog: Catalog, stores: Stores, references: Sequence[Reference], go_on: Callable[[int], object], patient: bool) -> Verdict:
    """The verdict on each instance; `go_on` is called between pieces with the number of instances done, and may raise.

    Raises Busy while the catalog is being rebuilt, and StorageError when the storage fails and the caller is `patient`.
    """
    with catalog.read() as conn:
        if inventory.is_rebuilding(conn):
            raise Busy("the catalog is being rebuilt")
    committed, failed = [], []
    for number, reference in enumerate(references):
        reason = _reason_against(catalog, stores, reference, partial(_call, go_on, number), patient)
        if reason is None:
            committed.append(reference)
        else:
            failed.append((reference, reason))
    catalog.make_durable()
    return Verdict(tuple(committed), tuple(failed))


def _call(go_on: Callable[[int], object], done: int, _: object = None) -> None:
    go_on(done)


class _Hold:
    """Renews the lease of the job now and then while bytes are read."""

    def __init__(self, catalog: Catalog, commitment: Commitment, go_on: Callable[[], object]) -> None:
        self._catalog, self._commitment, self._go_on = catalog, commitment, go_on
        self._due = time.monotonic() + _RENEW_S

    def __call__(self, done: int) -> None:
        self._go_on()
        if time.monotonic() >= self._due:
            hold(self._catalog, self._commitment, LEASE_S, done)
            self._due = time.monotonic() + _RENEW_S


def _reason_against(catalog: Catalog, stores: Stores, reference: Reference, held: Callable[..., object], patient: bool) -> int | None:
    """The Failure Reason of one instance, None when it is safe."""
    items: list[ItemRow] | None = None
    while items != (items := _known(catalog, reference)):
        # Again when a fault was found and a newer version has come meanwhile, or some were deleted.
        held()
        if not items:
            return NO_SUCH_OBJECT
        of_class = [item for item in items if item.sop_class_uid == reference.sop_class_uid]
        if not of_class:
            return CLASS_INSTANCE_CONFLICT
        faults = [(item, fault) for item in of_class if (fault := _fault(stores, item, held, patient))]
        if not faults:
            return None
    item, fault = faults[0]
    extra = {"sop_instance_uid": item.sop_instance_uid, "object_id": item.storage_key, "reason": fault}
    _log.error("storage commitment refused: the stored bytes are damaged", extra=extra)
    return PROCESSING_FAILURE


def _known(catalog: Catalog, reference: Reference) -> list[ItemRow]:
    """The newest versions of the instance; several when studies share a SOP Instance UID."""
    with catalog.read() as conn:
        return retrieval.selected(conn, {Level.INSTANCE: reference.sop_instance_uid}, sight=catalog.sight(conn))


def _fault(stores: Stores, item: ItemRow, held: Callable[..., object], patient: bool) -> str:
    """What is wrong with the bytes, empty when nothing is; raises StorageError when `patient`."""
    if not stores.knows(item.store_name):
        return f"the bytes are in the storage {item.store_name}, which is not configured"
    try:
        with stores.open(item) as stream:
            digests = digests_of(stream, held)
    except BlobMissing:
        return "no bytes under this key"
    except StorageError as error:
        if patient:
            raise
        return str(error)
    if digests.size_bytes != item.size_bytes:
        return f"{digests.size_bytes} bytes instead of {item.size_bytes}"
    return "" if digests.sha256 == item.sha256 else f"SHA-256 is {digests.sha256} instead of {item.sha256}"
