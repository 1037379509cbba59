"""`/groups`, `/labels`, and `access` of patients, studies, series and files: who sees what. For administrators."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pacslite.core import restrictions
from pacslite.core.access import Right
from pacslite.core.audit import Event
from pacslite.core.restrictions import Group, Label, Restriction
from pacslite.web.audit import origin_of
from pacslite.web.forms import parse, rule
from pacslite.web.messages import Reply, Request
from pacslite.web.operations import ROOT, Operation, json_reply
from pacslite.web.pages import PAGE, number_of, page_of, whole_number

if TYPE_CHECKING:
    from collections.abc import Callable

    from pacslite.app import Pacs

_NAME = rule("1 to 64 letters, digits and ._-, beginning with a letter or digit.", minLength=1, maxLength=64)
_ONE = rule("A name.", maxLength=256)


@dataclass(frozen=True, slots=True)
class AccessForm:
    """What limits an object by itself, in place of what did; what limits what lies above it counts as well."""

    groups: tuple[str, ...] | None = field(
        default=None, metadata=rule("Groups that may see it; null for all, an empty list for administrators alone.", maxLength=64)
    )
    labels: tuple[str, ...] = field(default=(), metadata=rule("Labels it carries; those that restrict count.", maxLength=64))


@dataclass(frozen=True, slots=True)
class AccessView:
    """What limits an object by itself."""

    groups: tuple[str, ...] | None = field(metadata=rule("Groups that may see it; null for all."))
    labels: tuple[str, ...]
    patient_id: int | None = field(metadata=rule("Id of the patient, of a file, or of a study or series that is there."))


@dataclass(frozen=True, slots=True)
class GroupForm:
    """A new group."""

    name: str = field(metadata=_NAME)


@dataclass(frozen=True, slots=True)
class GroupView:
    """A group and its members."""

    name: str
    created_at: str
    accounts: tuple[str, ...] = field(metadata=rule("Usernames."))
    peers: tuple[str, ...] = field(metadata=rule("AE titles."))


@dataclass(frozen=True, slots=True)
class GroupList:
    """A page of the groups, by name."""

    items: tuple[GroupView, ...]
    total: int
    next: str | None


@dataclass(frozen=True, slots=True)
class MembersForm:
    """Who is in a group, in place of who was."""

    accounts: tuple[str, ...] = field(default=(), metadata=_ONE)
    peers: tuple[str, ...] = field(default=(), metadata=_ONE)


@dataclass(frozen=True, slots=True)
class LabelForm:
    """The groups that may see what carries a label."""

    groups: tuple[str, ...] = field(metadata=rule("Names of groups; none for administrators alone.", maxLength=64))


@dataclass(frozen=True, slots=True)
class LabelView:
    """A label that restricts."""

    name: str
    groups: tuple[str, ...]
    created_at: str


@dataclass(frozen=True, slots=True)
class LabelList:
    """A page of the labels that restrict, by name."""

    items: tuple[LabelView, ...]
    total: int
    next: str | None


def _patient(patient_id: str) -> Any:
    return restrictions.of_patient(number_of(patient_id, "patient"))


def _get(pacs: Pacs, find: Callable[..., Any]) -> Reply:
    return json_reply(_view(restrictions.get(pacs.catalog, find)))


def _put(pacs: Pacs, request: Request, find: Callable[..., Any], object_type: str, object_id: str, study: str = "") -> Reply:
    form = parse(AccessForm, request)
    principal = request.principal
    event = Event(
        f"{object_type}.access",
        actor=request.actor,
        actor_id=principal.account_id if principal is not None else None,
        object_type=object_type,
        object_id=object_id,
        patient_id=whole_number(object_id) if object_type == "patient" else None,
        address=request.address,
        request_id=request.request_id,
        study_instance_uid=study,
        protocol="http",
    )
    return json_reply(_view(restrictions.put(pacs.catalog, find, Restriction(form.groups, form.labels), event)))


def _view(access: restrictions.Access) -> AccessView:
    return AccessView(access.restriction.groups, access.restriction.labels, access.patient)


def get_patient_access(pacs: Pacs, request: Request, patient_id: str) -> Reply:
    """What limits a patient."""
    return _get(pacs, _patient(patient_id))


def put_patient_access(pacs: Pacs, request: Request, patient_id: str) -> Reply:
    """Limits a patient, with all their studies."""
    return _put(pacs, request, _patient(patient_id), "patient", patient_id)


def get_study_access(pacs: Pacs, request: Request, study: str) -> Reply:
    """What limits a study by itself."""
    return _get(pacs, restrictions.of_study(study))


def put_study_access(pacs: Pacs, request: Request, study: str) -> Reply:
    """Limits a study."""
    return _put(pacs, request, restrictions.of_study(study), "study", study, study)


def get_series_access(pacs: Pacs, request: Request, study: str, series: str) -> Reply:
    """What limits a series by itself."""
    return _get(pacs, restrictions.of_study(study, series))


def put_series_access(pacs: Pacs, request: Request, study: str, series: str) -> Reply:
    """Limits a series."""
    return _put(pacs, request, restrictions.of_study(study, series), "series", series, study)


def get_file_access(pacs: Pacs, request: Request, file_id: str) -> Reply:
    """What limits a file by itself."""
    return _get(pacs, restrictions.of_file(file_id))


def put_file_access(pacs: Pacs, request: Request, file_id: str) -> Reply:
    """Limits a file."""
    return _put(pacs, request, restrictions.of_file(file_id), "file", file_id)


def list_groups(pacs: Pacs, request: Request) -> Reply:
    """A page of the groups."""
    return json_reply(page_of(request, restrictions.groups(pacs.catalog), lambda group: group.name))


def make_group(pacs: Pacs, request: Request) -> Reply:
    """Makes a group."""
    made = restrictions.add_group(pacs.catalog, parse(GroupForm, request).name, origin_of(request))
    return json_reply(_group(made), 201, [("Location", f"{request.base_url}{ROOT}/groups/{made.name}")])


def get_group(pacs: Pacs, request: Request, name: str) -> Reply:
    """One group."""
    return json_reply(_group(restrictions.group(pacs.catalog, name)))


def remove_group(pacs: Pacs, request: Request, name: str) -> Reply:
    """Forgets a group."""
    restrictions.remove_group(pacs.catalog, name, origin_of(request))
    return Reply(204)


def put_members(pacs: Pacs, request: Request, name: str) -> Reply:
    """Puts accounts and peers into a group."""
    form = parse(MembersForm, request)
    return json_reply(_group(restrictions.set_members(pacs.catalog, name, form.accounts, form.peers, origin_of(request))))


def _group(group: Group) -> GroupView:
    return GroupView(group.name, group.created_at, group.accounts, group.peers)


def list_labels(pacs: Pacs, request: Request) -> Reply:
    """A page of the labels that restrict."""
    return json_reply(page_of(request, restrictions.labels(pacs.catalog), lambda label: label.name))


def put_label(pacs: Pacs, request: Request, name: str) -> Reply:
    """Has a label restrict."""
    label: Label = restrictions.put_label(pacs.catalog, name, parse(LabelForm, request).groups, origin_of(request))
    return json_reply(LabelView(label.name, label.groups, label.created_at))


def remove_label(pacs: Pacs, request: Request, name: str) -> Reply:
    """Has a label restrict no more."""
    restrictions.remove_label(pacs.catalog, name, origin_of(request))
    return Reply(204)


_OBJECTS: tuple[tuple[str, str, Any, Any], ...] = (
    ("/patients/{patient_id}/access", "patient", get_patient_access, put_patient_access),
    ("/studies/{study}/access", "study", get_study_access, put_study_access),
    ("/studies/{study}/series/{series}/access", "series", get_series_access, put_series_access),
    ("/files/{file_id}/access", "file", get_file_access, put_file_access),
)

OPERATIONS = (
    *(
        Operation("GET", path, get, f"Who may see a {kind}", "access", {200: AccessView}, Right.ADMIN, problems=(404,))
        for path, kind, get, _ in _OBJECTS
    ),
    *(
        Operation(
            "PUT",
            path,
            put,
            f"Limit a {kind} to groups, and label it",
            "access",
            {200: AccessView},
            Right.ADMIN,
            form=AccessForm,
            problems=(404, 409),
            action=f"{kind}.access",
        )
        for path, kind, _, put in _OBJECTS
    ),
    Operation("GET", "/groups", list_groups, "The groups of users and peers", "access", {200: GroupList}, Right.ADMIN, parameters=PAGE),
    Operation("POST", "/groups", make_group, "Make a group", "access", {201: GroupView}, Right.ADMIN, form=GroupForm, problems=(409,)),
    Operation("GET", "/groups/{name}", get_group, "One group", "access", {200: GroupView}, Right.ADMIN, problems=(404,)),
    Operation(
        "DELETE",
        "/groups/{name}",
        remove_group,
        "Forget a group that nothing is limited to",
        "access",
        {204: None},
        Right.ADMIN,
        problems=(404, 409),
    ),
    Operation(
        "PUT",
        "/groups/{name}/members",
        put_members,
        "Say who is in a group",
        "access",
        {200: GroupView},
        Right.ADMIN,
        form=MembersForm,
        problems=(404,),
    ),
    Operation("GET", "/labels", list_labels, "The labels that restrict", "access", {200: LabelList}, Right.ADMIN, parameters=PAGE),
    Operation(
        "PUT",
        "/labels/{name}",
        put_label,
        "Have a label restrict what carries it to groups",
        "access",
        {200: LabelView},
        Right.ADMIN,
        form=LabelForm,
        problems=(409,),
    ),
    Operation(
        "DELETE", "/labels/{name}", remove_label, "Have a label restrict no more", "access", {204: None}, Right.ADMIN, problems=(404,)
    ),
)
