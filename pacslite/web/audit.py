"""Every request on record, from one place: what a route's event is called, and which study or object it is about."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pacslite.core.access import Right
from pacslite.core.audit import SUCCESS, Event, change_of, outcome_of_status, record
from pacslite.error_map import mapping_of
from pacslite.errors import BadRequest, PacsliteError
from pacslite.web.pages import whole_number

if TYPE_CHECKING:
    from pacslite.web.messages import Request, Route

# What their own transactions have noted when they succeed; only what went wrong is recorded here.
IN_TRANSACTION = frozenset(
    {
        "auth.login",
        "auth.logout",
        "auth.refresh",
        "group.create",
        "group.delete",
        "group.members",
        "label.delete",
        "label.update",
        "study.store",
        "study.delete",
        "series.delete",
        "instance.delete",
        "peer.create",
        "peer.update",
        "peer.delete",
        "file.access",
        "file.delete",
        "file.purge",
        "file.restore",
        "file.undelete",
        "file.update",
        "file.upload",
        "file.url",
        "file.version",
        "patient.access",
        "patient.create",
        "patient.merge",
        "patient.unmerge",
        "patient.update",
        "series.access",
        "share.create",
        "share.revoke",
        "share.use",
        "study.access",
        "token.create",
        "token.delete",
        "user.create",
        "user.delete",
        "user.password",
        "user.quota",
        "user.update",
    }
)
_UID, _WORD = re.compile(r"[0-9.]{1,64}"), re.compile(r"[A-Za-z0-9.]{1,64}")
_UNPRINTABLE = re.compile(r"[^!-~]")
_MOST_KEYS = 20
_SEARCHES = frozenset({"studies", "series", "instances"})
_LEVELS = {1: "study", 2: "series", 3: "instance"}
_VERBS = {"GET": "read", "POST": "create", "PUT": "update", "PATCH": "update", "DELETE": "delete"}
_NOUNS = {"studies": "study", "auth": "auth"}
_STUDY_WORDS = {"archive": "export", "undelete": "undelete"}


@dataclass(frozen=True, slots=True)
class About:
    """What is recorded of a route: the name of its events, and the kind of its object."""

    action: str
    object_type: str
    in_transaction: bool


_known: dict[tuple[str, str], About | None] = {}


def about(route: Route) -> About | None:
    """What is recorded of a route; None for what everybody may see: health, static pages, what there is to ask."""
    key = route.method, route.rule
    if key not in _known:
        _known[key] = _about(route)
    return _known[key]


def _about(route: Route) -> About | None:
    if route.method == "OPTIONS" or (route.right is Right.PUBLIC and route.method == "GET" and not route.action):
        return None
    action = route.action or _derived(route.method, route.rule)
    return About(action, action.partition(".")[0], action in IN_TRANSACTION)


def _derived(method: str, rule: str) -> str:
    parts = [part for part in rule.split("/") if part]
    words = [part for part in parts if not part.startswith("<")]
    if parts[0] == "dicom-web":
        return _of_dicomweb(method, parts, words[1:])
    words = words[2:] if words[:2] == ["api", "v1"] else words
    noun = _NOUNS.get(words[0], words[0].removesuffix("s"))
    if noun == "study":
        level = _LEVELS[sum(part.startswith("<") for part in parts)]
        return f"study.{_STUDY_WORDS.get(words[-1], 'read')}" if method == "GET" else f"{level}.{words[-1]}"
    if len(words) > 1 and (method != "GET" or noun == "auth"):
        return f"{noun}.{words[-1]}"
    return f"{noun}.list" if method == "GET" and not parts[-1].startswith("<") and len(words) == 1 else f"{noun}.{_VERBS[method]}"


def _of_dicomweb(method: str, parts: list[str], words: list[str]) -> str:
    """Actions of the Studies Service; its events are about studies whatever the level (PS3.15 A.5.3.2)."""
    if not words:
        return "capabilities.read"
    if words[0] == "commitment-requests":
        return "commitment.request" if method == "POST" else "commitment.read"
    if method == "DELETE":
        return f"{_LEVELS[sum(part.startswith('<') for part in parts)]}.delete"
    if method == "POST":
        return "study.store"
    return "query" if parts[-1] in _SEARCHES else "study.read"


def record_request(pacs: Any, request: Request, route: Route, arguments: Mapping[str, str], status: int) -> None:
    """Puts a request on record before it is answered; raises what the catalog raises."""
    found = about(route)
    if found is None or request.is_recorded:
        return
    outcome = outcome_of_status(status)
    if found.in_transaction and outcome == SUCCESS:
        if found.action == "study.store":  # of instances that were there already nothing else tells
            pacs.audit.record(_event(request, "store.request", "study", arguments, outcome), later=True)
        return
    study = arguments.get("study")
    if study and outcome == SUCCESS and found.action != "query":
        # Most requests are for one more frame: not worth an event that is thrown away.
        kind = found.action, outcome, request.actor, request.address, study, found.object_type, "", ""
        if pacs.audit.is_repeated(kind):
            return
    pacs.audit.record(_event(request, found.action, found.object_type, arguments, outcome, status))


def origin_of(request: Request) -> Event:
    """At whose wish, and from where: for the events that a change notes in its own transaction."""
    principal = request.principal
    account_id = principal.account_id if principal is not None else None
    return Event("", actor=request.actor, actor_id=account_id, address=request.address, request_id=request.request_id, protocol="http")


@contextmanager
def login_attempt(pacs: Any, request: Request, username: str) -> Iterator[Event]:
    """Gives the origin of a login, which notes itself when it succeeds; records what goes wrong, under the name that was tried."""
    request.is_recorded = True
    origin = origin_of(request)
    try:
        yield origin
    except PacsliteError as error:
        status = mapping_of(error).http
        event = replace(change_of(origin, "auth.login", status=status), outcome=outcome_of_status(status), actor=username)
        record(pacs.catalog, event)
        raise


def _event(request: Request, action: str, object_type: str, arguments: Mapping[str, str], outcome: str, status: int = 200) -> Event:
    principal = request.principal
    detail: dict[str, Any] = {} if outcome == SUCCESS else {"status": status}
    study = arguments.get("study", "")
    object_id = study
    if action == "query":
        detail |= _searched(request)
        object_type, object_id = "study" if study else "query", study
    elif action == "study.read" and not study:
        study = object_id = _study_of_uri(request)
    elif not study and arguments:
        object_id = list(arguments.values())[-1]
    patient = arguments.get("patient_id", "")
    if status == 401:  # nobody's business is one kind of event, whatever it was about
        study = object_id = patient = ""
    return Event(
        action,
        outcome,
        principal.username if principal is not None else "",
        principal.account_id if principal is not None else None,
        object_type,
        _UNPRINTABLE.sub("", object_id)[:128],
        whole_number(patient),
        address=request.address,
        request_id=request.request_id,
        detail=detail,
        study_instance_uid=study if not study or _UID.fullmatch(study) else "",
        protocol="http",
    )


def _searched(request: Request) -> dict[str, Any]:
    """What was searched for, without the values: they are names and numbers of patients."""
    try:
        keys = sorted({name for name, _ in request.query if _WORD.fullmatch(name)})[:_MOST_KEYS]
    except BadRequest:
        keys = []
    return {"level": request.path.rpartition("/")[2][:16], "keys": " ".join(keys)}


def _study_of_uri(request: Request) -> str:
    """The study that a request of the URI service names (PS3.18 9.4)."""
    try:
        return next((value for name, value in request.query if name.lower() == "studyuid"), "")[:64]
    except BadRequest:
        return ""
