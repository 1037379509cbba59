"""`/files`: bringing files, their versions, what is said of them, the trash."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from pacslite import metrics
from pacslite.core import files
from pacslite.core.access import Right
from pacslite.core.audit import REFUSED, SUCCESS, outcome_of_status
from pacslite.core.files import FileRecord, Origin, owner_of
from pacslite.error_map import mapping_of
from pacslite.errors import Forbidden, InvalidForm, NotFound, PacsliteError
from pacslite.files import forms
from pacslite.files.expansion import ExpansionView, expanded
from pacslite.files.forms import CategoryName, UploadForm, VersionForm
from pacslite.files.views import FileView, VersionList, VersionView, url_of, version_view, view_of
from pacslite.web.forms import parse
from pacslite.web.messages import Reply, Request
from pacslite.web.operations import Operation, Parameter, json_reply
from pacslite.web.pages import MOST_COUNT, PAGE, check_parameters, key_in, keyed_number, limit_of, next_url, number_of

if TYPE_CHECKING:
    from pacslite.app import Pacs

FILE_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_STRONG_ETAG = re.compile(r'(?<!W/)"([^"]*)"')


@dataclass(frozen=True, slots=True)
class Absent:
    """Stands for a field that is left out."""


_ABSENT = cast(Any, Absent())


@dataclass(frozen=True, slots=True)
class FilePatch:
    """What to change of what is said of a file; what is left out stays, null takes it away."""

    medical_category: CategoryName | None = field(default=_ABSENT, metadata=forms.CATEGORY)
    study_date: str | None = field(default=_ABSENT, metadata=forms.STUDY_DATE)
    body_part: str | None = field(default=_ABSENT, metadata=forms.BODY_PART)
    description: str | None = field(default=_ABSENT, metadata=forms.DESCRIPTION)
    study_instance_uid: str | None = field(default=_ABSENT, metadata=forms.STUDY)


def origin_of(request: Request, protocol: str = "api") -> Origin:
    """Who asks, and from where."""
    return Origin(protocol, address=request.address, actor=request.actor, request_id=request.request_id)


def known_id(file_id: str) -> str:
    """The id of a file as it is kept; raises NotFound for what is none."""
    if not FILE_ID.fullmatch(file_id.lower()):
        raise NotFound("There is no such file.")
    return file_id.lower()


def upload_file(pacs: Pacs, request: Request) -> Reply:
    """Takes a file in."""
    with counted():
        check_parameters(request, ())
        form, arrived = forms.receive(pacs, request, UploadForm)
        if form.expand:
            return expanded(pacs, request, form, arrived, origin_of(request, "upload"))
        try:
            about = forms.description_of(form)
        except PacsliteError:
            forms.discard(arrived)
            raise
        return created(request, files.add(pacs, arrived, about, owner_of(request.principal), origin_of(request, "upload")))


def created(request: Request, record: FileRecord) -> Reply:
    """The answer about a new file."""
    return json_reply(view_of(request, record), 201, [("Location", url_of(request, record.id))])


class counted:  # noqa: N801 - used as a function
    """Counts an upload by what became of it."""

    def __enter__(self) -> None:
        """Begins."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Ends."""
        status = mapping_of(error).http if error is not None else 201
        outcome = "failed" if status >= 500 else REFUSED if status >= 400 else outcome_of_status(status)
        metrics.UPLOADS.add(outcome if outcome != SUCCESS else "stored")


def upload_version(pacs: Pacs, request: Request, file_id: str) -> Reply:
    """Takes a version of a file in."""
    with counted():
        check_parameters(request, ())
        file_id, match = known_id(file_id), _if_match(request)
        files.check_current(pacs, file_id, match)  # before anything is received
        form, arrived = forms.receive(pacs, request, VersionForm)
        who = owner_of(request.principal), origin_of(request, "upload")
        record = files.add_version(pacs, file_id, arrived, forms.version_type_of(form), form.version_description, *who, match)
        return _version_created(request, record)


def _if_match(request: Request) -> frozenset[str] | None:
    """The hashes that If-Match names, None when any will do."""
    header = request.header("If-Match")
    return None if header is None or header.strip() == "*" else frozenset(_STRONG_ETAG.findall(header))


def _version_created(request: Request, record: FileRecord) -> Reply:
    view = version_view(request, record, record.version)
    return json_reply(view, 201, [("Location", view.content_url), ("ETag", f'"{view.file_hash}"')])


def get_file(pacs: Pacs, request: Request, file_id: str) -> Reply:
    """One file."""
    check_parameters(request, ())
    return json_reply(view_of(request, files.get(pacs, known_id(file_id))))


def patch_file(pacs: Pacs, request: Request, file_id: str) -> Reply:
    """Changes what is said of a file."""
    form = parse(FilePatch, request)
    values = {name: getattr(form, name) for name in FilePatch.__dataclass_fields__ if getattr(form, name) is not _ABSENT}
    forms.check_described(values.get("study_date"), values.get("study_instance_uid"))
    return json_reply(view_of(request, files.update(pacs, known_id(file_id), values, owner_of(request.principal), origin_of(request))))


def delete_file(pacs: Pacs, request: Request, file_id: str) -> Reply:
    """Puts a file into the trash, or erases it."""
    purge = flag(check_parameters(request, ("purge",)), "purge")
    if not purge:
        files.delete(pacs, known_id(file_id), owner_of(request.principal), origin_of(request))
    elif request.principal is None or Right.ADMIN not in request.principal.rights:
        raise Forbidden("Only administrators erase files for good.")
    else:
        files.purge(pacs, known_id(file_id), owner_of(request.principal), origin_of(request))
    return Reply(204)


def flag(given: dict[str, str], name: str) -> bool:
    """A query parameter that is true or false; raises InvalidForm."""
    text = given.get(name, "false")
    if text not in ("true", "false"):
        raise InvalidForm.at(name, "is neither true nor false")
    return text == "true"


def undelete_file(pacs: Pacs, request: Request, file_id: str) -> Reply:
    """Brings a file back from the trash."""
    record = files.undelete(pacs, known_id(file_id), owner_of(request.principal), origin_of(request))
    return json_reply(view_of(request, record))


def list_versions(pacs: Pacs, request: Request, file_id: str) -> Reply:
    """The versions of a file."""
    given = check_parameters(request, ("limit", "cursor"))
    limit, key = limit_of(given), key_in(given)
    before = keyed_number(key) if key is not None else None
    record, found = files.versions(pacs, known_id(file_id))
    left = [version for version in found if before is None or version.number < before]
    following = next_url(request, given, str(left[limit - 1].number)) if len(left) > limit else None
    return json_reply(VersionList(tuple(version_view(request, record, version) for version in left[:limit]), len(found), following))


def restore_version(pacs: Pacs, request: Request, file_id: str, number: str) -> Reply:
    """Makes an older version the newest."""
    who = owner_of(request.principal), origin_of(request)
    record = files.restore(pacs, known_id(file_id), number_of(number, "version", MOST_COUNT), *who)
    return _version_created(request, record)


OPERATIONS = (
    Operation(
        "POST",
        "/files/upload",
        upload_file,
        "Bring a file of a patient, several pictures of a photo series, or with `expand` a ZIP file of many",
        "files",
        {201: FileView, 200: ExpansionView},
        Right.FILES_WRITE,
        form=UploadForm,
        body_type=forms.FORM_DATA,
        problems=(409, 410, 507),
        action="file.upload",
    ),
    Operation(
        "POST",
        "/files/upload-version/{file_id}",
        upload_version,
        "Bring a new version of a file; with If-Match only if nobody else was faster",
        "files",
        {201: VersionView},
        Right.FILES_WRITE,
        form=VersionForm,
        body_type=forms.FORM_DATA,
        problems=(404, 409, 410, 412, 507),
        action="file.version",
    ),
    Operation(
        "GET",
        "/files/{file_id}",
        get_file,
        "A file with its newest version",
        "files",
        {200: FileView},
        Right.FILES_READ,
        problems=(404, 410),
    ),
    Operation(
        "PATCH",
        "/files/{file_id}",
        patch_file,
        "Change what is said of a file",
        "files",
        {200: FileView},
        Right.FILES_WRITE,
        form=FilePatch,
        problems=(404, 409, 410),
        action="file.update",
    ),
    Operation(
        "DELETE",
        "/files/{file_id}",
        delete_file,
        "Put a file into the trash; administrators erase it for good",
        "files",
        {204: None},
        Right.FILES_WRITE,
        parameters=(Parameter("purge", "Whether it is erased for good.", "boolean"),),
        problems=(404, 409, 410),
        action="file.delete",
    ),
    Operation(
        "POST",
        "/files/{file_id}/undelete",
        undelete_file,
        "Bring a file back from the trash",
        "files",
        {200: FileView},
        Right.FILES_WRITE,
        problems=(404, 410),
        action="file.undelete",
    ),
    Operation(
        "GET",
        "/files/{file_id}/versions",
        list_versions,
        "Versions of a file, newest first",
        "files",
        {200: VersionList},
        Right.FILES_READ,
        parameters=PAGE,
        problems=(404, 410),
    ),
    Operation(
        "POST",
        "/files/{file_id}/versions/{number}/restore",
        restore_version,
        "Make an older version the newest, as a new version",
        "files",
        {201: VersionView},
        Right.FILES_WRITE,
        problems=(404, 409, 410),
        action="file.restore",
    ),
)
