"""Archives of others as we use them: what they have to be able to do, whether they speak DIMSE or DICOMweb.

The adapters implement `RemoteArchive`; the jobs of `core.remote_retrieve`, `remote_store` and `remote_commit` use it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from pacslite.core import peers
from pacslite.core.parts import WithCatalog, WithIngest, WithSettings, WithSpool, WithStores
from pacslite.core.retrieve import Item, Resource
from pacslite.dicom.attributes import Level
from pacslite.dicom.uids import clean_uid
from pacslite.errors import Conflict, InvalidForm, PeerError

if TYPE_CHECKING:
    from pacslite.catalog.peers import Peer
    from pacslite.core.commitment import Reference, Verdict
    from pacslite.core.conversion import Conversions
    from pacslite.core.peer_counts import PeerCounts

LEVELS = {"patient": Level.PATIENT, "study": Level.STUDY, "series": Level.SERIES, "instance": Level.INSTANCE}
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
MAX_RESOURCES = 10_000
Record = dict[str, Any]
"""One match: values by keyword, several of them as a list, items of sequences as records."""


@dataclass(frozen=True, slots=True)
class RemoteInstance:
    """An instance that a remote archive holds; its SOP class is empty when that was not told."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """Matches of a query; `truncated` when there are more of them."""

    records: tuple[Record, ...]
    truncated: bool


class Watcher(Protocol):
    """The job that hears of it."""

    def check(self) -> None:
        """Raises when the work should end."""

    def progress(self, done: int, total: int | None = None) -> None:
        """So much is done."""


class Ledger(Protocol):
    """Where it is written down what became of each instance that is sent or fetched."""

    def succeeded(self, sop_instance_uid: str, size_bytes: int, detail: str = "") -> None:
        """It has arrived."""

    def failed(self, sop_instance_uid: str, reason: str, *, transient: bool) -> None:
        """It has not; when `transient`, trying again later may help."""


class RemoteArchive(Protocol):
    """One remote archive. All methods raise PeerError."""

    @property
    def methods(self) -> tuple[str, ...]:
        """The ways of `fetch` there are, the first one the best."""

    def echo(self) -> None:
        """See that it answers."""

    def find(self, level: Level, keys: Mapping[str, str], fields: Sequence[str], limit: int) -> Found:
        """Query by keywords; `keys` of one level above only where the archive's hierarchy wants them."""

    def fetch(
        self, resource: Resource, wanted: Sequence[RemoteInstance], whole: bool, method: str, ledger: Ledger, watcher: Watcher
    ) -> str:
        """Have the wanted instances brought into the catalog; `whole` when these are all of the resource. The way it went.

        The ledger may hear of some of them only: the caller looks into the catalog for the others.
        """

    def send(self, items: Sequence[Item], ledger: Ledger, watcher: Watcher) -> None:
        """Send instances; the ledger hears of each, unless the watcher has ended it."""

    def ask_commitment(self, transaction_uid: str, references: Sequence[Reference], watcher: Watcher) -> Verdict | None:
        """Request storage commitment; the report when it comes at once."""


class Parts(WithSettings, WithCatalog, WithStores, WithSpool, WithIngest, Protocol):
    """What work with peers needs of a process."""

    @property
    def conversions(self) -> Conversions:
        """How instances come into other transfer syntaxes."""

    @property
    def peer_counts(self) -> PeerCounts:
        """What passes is counted here."""

    def remote(self, peer: Peer) -> AbstractContextManager[RemoteArchive]:
        """The archive of a peer, while the block lasts."""


def query(parts: Parts, ae_title: str, level: str, keys: Mapping[str, str], fields: Sequence[str], limit: int) -> Found:
    """Query a peer; raises NotFound, InvalidForm, PeerError."""
    peer = peers.get(parts.catalog, ae_title)
    faults = [(f"keys.{name}", "is not the keyword of an attribute") for name in keys if not _is_key(name)]
    faults += [("fields", f"{name[:64]!r} is not the keyword of an attribute") for name in fields if tag_for_keyword(name) is None]
    if faults:
        raise InvalidForm.of(faults)
    asked = tuple(dict.fromkeys((*keys, *fields, *_FIELDS[LEVELS[level]])))
    with parts.remote(peer) as archive:
        return archive.find(LEVELS[level], keys, asked, limit)


_FIELDS = {
    Level.PATIENT: ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    Level.STUDY: (
        *("StudyInstanceUID", "StudyDate", "StudyTime", "AccessionNumber", "ModalitiesInStudy", "StudyDescription", "PatientID"),
        *("PatientName", "NumberOfStudyRelatedInstances"),
    ),
    Level.SERIES: (
        *("StudyInstanceUID", "SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription"),
        "NumberOfSeriesRelatedInstances",
    ),
    Level.INSTANCE: ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "InstanceNumber"),
}


def _is_key(name: str) -> bool:
    tag = tag_for_keyword(name)
    return tag is not None and dictionary_VR(tag) not in ("SQ", "OB", "OW", "UN") and tag >> 16 > 2


def instances_of(archive: RemoteArchive, resource: Resource, limit: int) -> list[RemoteInstance]:
    """The instances of a resource that the archive says it has: series by series, as its hierarchy wants it (PS3.4 C.4.1.3.1.1)."""
    series = [resource.series_instance_uid] if resource.series_instance_uid else []
    study_key = {"StudyInstanceUID": resource.study_instance_uid}
    if not series:
        found = archive.find(Level.SERIES, study_key, UIDS[:2], limit)
        series = [uid for uid in (_uid(record, "SeriesInstanceUID") for record in found.records) if uid]
    instances: list[RemoteInstance] = []
    for uid in dict.fromkeys(series):
        keys = study_key | {"SeriesInstanceUID": uid}
        if resource.sop_instance_uid:
            keys["SOPInstanceUID"] = resource.sop_instance_uid
        found = archive.find(Level.INSTANCE, keys, (*UIDS, "SOPClassUID"), limit)
        for record in found.records:
            sop = _uid(record, "SOPInstanceUID")
            # What does not fit the question is not asked for.
            if sop and resource.sop_instance_uid in (None, sop):
                instances.append(RemoteInstance(resource.study_instance_uid, uid, sop, _uid(record, "SOPClassUID")))
        if found.truncated or len(instances) > limit:
            raise PeerError(f"more than {limit} instances; ask for one series at a time")
    return list(dict.fromkeys(instances))


def _uid(record: Record, keyword: str) -> str:
    value = record.get(keyword)
    try:
        return clean_uid(value) if isinstance(value, str) else ""
    except ValueError:
        return ""


def resources_of(payload: Mapping[str, Any]) -> list[Resource]:
    """The resources in the payload of a job."""
    return [Resource(*one) for one in payload["resources"]]


def check_resources(resources: Sequence[Resource]) -> list[list[str | None]]:
    """Resources for the payload of a job; raises InvalidForm, InvalidUid."""
    if not 1 <= len(resources) <= MAX_RESOURCES:
        message = f"names no study, or more than {MAX_RESOURCES}"
        raise InvalidForm.at("resources", message)
    checked: list[list[str | None]] = []
    for one in resources:
        uids = one.study_instance_uid, one.series_instance_uid, one.sop_instance_uid
        if uids[2] and not uids[1]:
            raise InvalidForm.at("series_instance_uid", "is missing")
        checked.append([clean_uid(uid) if uid else None for uid in uids])
    return checked


def check_kind(peer: Peer, kinds: Sequence[str], what: str) -> None:
    """Raises Conflict when the kind of the peer cannot do it."""
    if peer.kind not in kinds:
        raise Conflict(f"{peer.ae_title} is a {peer.kind} peer, which knows no {what}.")


def keyword_of(tag: int) -> str:
    """The keyword of an attribute, or its number."""
    return keyword_for_tag(tag) or f"{tag:08X}"
