"""`/peers/{ae_title}/query`, `retrieve`, `store` and `commit`: what peers hold, and work with them as jobs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pacslite.admin.jobs import JobView, accepted
from pacslite.core import remote, remote_commit, remote_retrieve, remote_store
from pacslite.core.access import Right
from pacslite.core.retrieve import Resource
from pacslite.web.forms import parse, rule
from pacslite.web.messages import Reply, Request
from pacslite.web.operations import Operation, json_reply

if TYPE_CHECKING:
    from pacslite.app import Pacs

_STUDY = rule("Study Instance UID.", maxLength=64)
_SERIES = rule("Series Instance UID, for one series.", maxLength=64)
_INSTANCE = rule("SOP Instance UID, for one instance of the series.", maxLength=64)
_MORE = rule("Several studies, series or instances, in place of or beside the one above; 10,000 at most.")


@dataclass(frozen=True, slots=True)
class QueryForm:
    """A query: keys to match by keyword, fields to return besides."""

    level: Literal["patient", "study", "series", "instance"] = field(metadata=rule("What is looked for."))
    keys: dict[str, str] = field(
        default_factory=dict, metadata=rule("Values to match by keyword, with the wildcards and ranges of PS3.4 C.2.2.2.", maxLength=1024)
    )
    fields: tuple[str, ...] = field(default=(), metadata=rule("Keywords of attributes to return besides the usual ones.", maxLength=64))
    limit: int = field(default=1000, metadata=rule("Most matches to return.", minimum=1, maximum=10_000))


@dataclass(frozen=True, slots=True)
class Matches:
    """What a peer has found."""

    items: tuple[dict[str, Any], ...] = field(metadata=rule("Values by keyword; several values as a list, items of sequences as objects."))
    total: int
    truncated: bool = field(metadata=rule("Whether the peer has more."))


@dataclass(frozen=True, slots=True)
class ResourceForm:
    """A study, one of its series, or one instance of that."""

    study_instance_uid: str = field(metadata=_STUDY)
    series_instance_uid: str | None = field(default=None, metadata=_SERIES)
    sop_instance_uid: str | None = field(default=None, metadata=_INSTANCE)


@dataclass(frozen=True, slots=True)
class RetrieveForm:
    """What to bring from a peer. What is here already is not asked for."""

    study_instance_uid: str | None = field(default=None, metadata=_STUDY)
    series_instance_uid: str | None = field(default=None, metadata=_SERIES)
    sop_instance_uid: str | None = field(default=None, metadata=_INSTANCE)
    resources: tuple[ResourceForm, ...] = field(default=(), metadata=_MORE)
    method: Literal["auto", "get", "move", "wado"] = field(
        default="auto", metadata=rule("C-GET, C-MOVE to this server (which the peer has to know), WADO-RS; auto: the first that it speaks.")
    )


@dataclass(frozen=True, slots=True)
class StoreForm:
    """What to send to a peer."""

    study_instance_uid: str | None = field(default=None, metadata=_STUDY)
    series_instance_uid: str | None = field(default=None, metadata=_SERIES)
    sop_instance_uid: str | None = field(default=None, metadata=_INSTANCE)
    resources: tuple[ResourceForm, ...] = field(default=(), metadata=_MORE)


@dataclass(frozen=True, slots=True)
class CommitForm:
    """What to ask a peer to commit itself to."""

    study_instance_uid: str | None = field(default=None, metadata=_STUDY)
    series_instance_uid: str | None = field(default=None, metadata=_SERIES)
    sop_instance_uid: str | None = field(default=None, metadata=_INSTANCE)
    resources: tuple[ResourceForm, ...] = field(default=(), metadata=_MORE)
    remove: bool = field(default=False, metadata=rule("Remove the local copy of each instance that the peer has committed itself to."))


def query_peer(pacs: Pacs, request: Request, ae_title: str) -> Reply:
    """C-FIND or QIDO-RS."""
    form = parse(QueryForm, request)
    found = remote.query(pacs, ae_title, form.level, form.keys, form.fields, form.limit)
    return json_reply({"items": found.records, "total": len(found.records), "truncated": found.truncated})


def retrieve_from_peer(pacs: Pacs, request: Request, ae_title: str) -> Reply:
    """C-GET, C-MOVE or WADO-RS, as a job."""
    form = parse(RetrieveForm, request)
    return accepted(request, remote_retrieve.queue(pacs, ae_title, _resources(form), form.method, request.actor))


def store_to_peer(pacs: Pacs, request: Request, ae_title: str) -> Reply:
    """C-STORE or STOW-RS, as a job."""
    return accepted(request, remote_store.queue(pacs, ae_title, _resources(parse(StoreForm, request)), request.actor))


def commit_to_peer(pacs: Pacs, request: Request, ae_title: str) -> Reply:
    """Storage commitment, as a job."""
    form = parse(CommitForm, request)
    return accepted(request, remote_commit.queue(pacs, ae_title, _resources(form), form.remove, request.actor))


def _resources(form: RetrieveForm | StoreForm | CommitForm) -> list[Resource]:
    named = [Resource(one.study_instance_uid, one.series_instance_uid, one.sop_instance_uid) for one in form.resources]
    if form.study_instance_uid is not None or form.series_instance_uid is not None:
        named.insert(0, Resource(form.study_instance_uid or "", form.series_instance_uid, form.sop_instance_uid))
    return named


OPERATIONS = (
    Operation(
        "POST",
        "/peers/{ae_title}/query",
        query_peer,
        "Query a peer by C-FIND or QIDO-RS",
        "peers",
        {200: Matches},
        Right.ADMIN,
        form=QueryForm,
        problems=(404, 502),
    ),
    Operation(
        "POST",
        "/peers/{ae_title}/retrieve",
        retrieve_from_peer,
        "Bring studies, series or instances from a peer",
        "peers",
        {202: JobView},
        Right.ADMIN,
        form=RetrieveForm,
        problems=(404, 409),
    ),
    Operation(
        "POST",
        "/peers/{ae_title}/store",
        store_to_peer,
        "Send studies, series or instances to a peer by C-STORE or STOW-RS",
        "peers",
        {202: JobView},
        Right.ADMIN,
        form=StoreForm,
        problems=(404, 410),
    ),
    Operation(
        "POST",
        "/peers/{ae_title}/commit",
        commit_to_peer,
        "Ask a peer for storage commitment, and remove the local copies if wanted",
        "peers",
        {202: JobView},
        Right.ADMIN,
        form=CommitForm,
        problems=(404, 409, 410),
    ),
)
