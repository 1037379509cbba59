"""`/storage`: what is stored, whether it is whole, and what keeps it so; legal holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from pacslite.admin.jobs import JobView, accepted
from pacslite.core import archival, audit, cleanup, legal_hold, retention, storage_stats, verification
from pacslite.core.access import Right
from pacslite.core.archival import Wish
from pacslite.core.file_notes import owner_of
from pacslite.core.files import Origin
from pacslite.core.storage_stats import StorageStats
from pacslite.errors import InvalidForm
from pacslite.web.audit import origin_of
from pacslite.web.forms import parse, parse_value, rule
from pacslite.web.messages import Reply, Request
from pacslite.web.operations import Operation, Parameter, json_reply
from pacslite.web.pages import check_parameters, number_in

if TYPE_CHECKING:
    from pacslite.app import Pacs

Form = TypeVar("Form")
_MOST_DAYS = 36_500


@dataclass(frozen=True, slots=True)
class SpaceView:
    """Whether there is room."""

    enough: bool


@dataclass(frozen=True, slots=True)
class CleanupForm:
    """What is to go."""

    older_than_hours: float = field(metadata=rule("0 takes all, what was deleted too.", minimum=0, maximum=24 * _MOST_DAYS))


@dataclass(frozen=True, slots=True)
class CleanupView:
    """What went."""

    deleted_count: int
    freed_bytes: int


@dataclass(frozen=True, slots=True)
class VerifyForm:
    """How everything stored is to be verified."""

    deep: bool = field(default=True, metadata=rule("Read all bytes and compare their SHA-256; else only look for them and their size."))
    repair: bool = field(default=True, metadata=rule("Replace damaged bytes by a second copy, or put them in quarantine."))


@dataclass(frozen=True, slots=True)
class OrphansForm:
    """What becomes of bytes that nothing refers to."""

    remove: bool = field(default=False, metadata=rule("Erase them."))


@dataclass(frozen=True, slots=True)
class ArchiveForm:
    """What is to be archived."""

    older_than_days: float = field(metadata=rule("Days since the bytes were stored.", minimum=0, maximum=_MOST_DAYS))
    to: str | None = field(default=None, metadata=rule("Name of a storage; without it bytes are compressed where they are."))
    file_types: tuple[str, ...] = field(default=(), metadata=rule("Only files of these types; `dicom` stands for instances."))
    modalities: tuple[str, ...] = field(default=(), metadata=rule("Only instances of series of these modalities."))
    dry_run: bool = field(default=False, metadata=rule("Change nothing, tell how much it would be."))


@dataclass(frozen=True, slots=True)
class PoliciesForm:
    """How retention policies are to be done."""

    dry_run: bool = field(default=False, metadata=rule("Change nothing, tell how much it would be."))


@dataclass(frozen=True, slots=True)
class PolicyView:
    """A retention policy of the settings."""

    name: str
    action: str
    older_than_days: float
    file_types: tuple[str, ...]
    modalities: tuple[str, ...]
    to: str | None


@dataclass(frozen=True, slots=True)
class PolicyList:
    """The retention policies, and after how many days the trash is emptied (0: never)."""

    items: tuple[PolicyView, ...]
    total: int
    trash_days: int


@dataclass(frozen=True, slots=True)
class HoldForm:
    """Whether something must not go."""

    legal_hold: bool


@dataclass(frozen=True, slots=True)
class HoldView:
    """Whether something must not go; since when and by whom is known of studies."""

    legal_hold: bool
    created_by: str | None = None
    created_at: str | None = None


def get_storage_stats(pacs: Pacs, request: Request) -> Reply:
    """How much is stored where."""
    return json_reply(storage_stats.stats(pacs))


def get_storage_space(pacs: Pacs, request: Request) -> Reply:
    """Whether so many bytes can be stored."""
    given = check_parameters(request, ("required_bytes",))
    required_bytes = number_in(given, "required_bytes")
    if required_bytes is None:
        raise InvalidForm.at("required_bytes", "is missing")
    return json_reply(SpaceView(storage_stats.has_room(pacs, required_bytes)))


def clean_storage(pacs: Pacs, request: Request) -> Reply:
    """Takes away what uploads and deletions have left behind."""
    form = parse(CleanupForm, request)
    done = cleanup.cleanup(pacs, form.older_than_hours)
    _record(pacs, request, "storage.cleanup", **done.told())
    return json_reply(CleanupView(done.deleted_count, done.freed_bytes))


def verify_storage(pacs: Pacs, request: Request) -> Reply:
    """Verifies everything stored, by a job."""
    form = _parse(VerifyForm, request)
    _record(pacs, request, verification.VERIFY, repair=form.repair)
    return accepted(request, verification.queue_verify(pacs, deep=form.deep, repair=form.repair, actor=request.actor))


def find_orphans(pacs: Pacs, request: Request) -> Reply:
    """Looks for bytes without rows, and rows without bytes, by a job."""
    form = _parse(OrphansForm, request)
    _record(pacs, request, verification.ORPHANS, remove=form.remove)
    return accepted(request, verification.queue_orphans(pacs, remove=form.remove, actor=request.actor))


def archive_storage(pacs: Pacs, request: Request) -> Reply:
    """Archives what is old, by a job."""
    form = parse(ArchiveForm, request)
    wish = Wish(form.older_than_days, form.to, form.file_types, form.modalities, form.dry_run)
    archival.check(pacs, wish)
    _record(pacs, request, archival.KIND, older_than_days=form.older_than_days, to=form.to or "", dry_run=form.dry_run)
    return accepted(request, archival.queue(pacs, wish, request.actor))


def list_policies(pacs: Pacs, request: Request) -> Reply:
    """The retention policies."""
    found = retention.policies_of(pacs.settings)
    items = tuple(PolicyView(p.name, p.action, p.older_than_days, p.file_types, p.modalities, p.to) for p in found)
    return json_reply(PolicyList(items, len(items), pacs.settings.trash_days))


def apply_policies(pacs: Pacs, request: Request) -> Reply:
    """Does the retention policies, by a job."""
    form = _parse(PoliciesForm, request)
    _record(pacs, request, retention.KIND, dry_run=form.dry_run)
    return accepted(request, retention.queue(pacs, dry_run=form.dry_run, actor=request.actor))


def get_study_hold(pacs: Pacs, request: Request, study: str) -> Reply:
    """Whether a study is on legal hold."""
    return json_reply(_hold_view(legal_hold.of_study(pacs.catalog, study)))


def put_study_hold(pacs: Pacs, request: Request, study: str) -> Reply:
    """Puts a study on legal hold, or lifts that."""
    form = parse(HoldForm, request)
    return json_reply(_hold_view(legal_hold.set_of_study(pacs.catalog, study, form.legal_hold, origin_of(request))))


def put_file_hold(pacs: Pacs, request: Request, file_id: str) -> Reply:
    """Puts a file on legal hold, or lifts that."""
    form = parse(HoldForm, request)
    origin = Origin("api", address=request.address, actor=request.actor, request_id=request.request_id)
    return json_reply(HoldView(legal_hold.set_of_file(pacs, file_id, form.legal_hold, owner_of(request.principal), origin)))


def _hold_view(hold: Any) -> HoldView:
    return HoldView(False) if hold is None else HoldView(True, hold.created_by, hold.created_at)


def _parse(form: type[Form], request: Request) -> Form:
    """A form all of whose fields may be left out: then the body may be too."""
    if request.environ.get("CONTENT_LENGTH") in (None, "", "0") and "chunked" not in request.environ.get("HTTP_TRANSFER_ENCODING", ""):
        return parse_value(form, {})
    return parse(form, request)


def _record(pacs: Pacs, request: Request, action: str, **detail: Any) -> None:
    request.is_recorded = True
    audit.record(pacs.catalog, audit.change_of(origin_of(request), action, action, **detail))


def _operation(method: str, path: str, handler: Any, summary: str, answer: dict[int, type | None], **more: Any) -> Operation:
    return Operation(method, path, handler, summary, "storage", answer, Right.ADMIN, **more)


_JOB: dict[int, type | None] = {202: JobView}

OPERATIONS = (
    _operation("GET", "/storage/stats", get_storage_stats, "How much is stored", {200: StorageStats}),
    _operation(
        "GET",
        "/storage/space",
        get_storage_space,
        "Whether there is room",
        {200: SpaceView},
        parameters=(Parameter("required_bytes", "How much is to be stored.", "integer"),),
    ),
    _operation(
        "POST",
        "/storage/cleanup",
        clean_storage,
        "Take away what uploads and deletions have left behind",
        {200: CleanupView},
        form=CleanupForm,
    ),
    _operation(
        "POST",
        "/storage/verify",
        verify_storage,
        "Verify everything stored. The result lists `checked` and `damaged: [{key, file_id or sop_instance_uid, problem}]`",
        _JOB,
        form=VerifyForm,
    ),
    _operation(
        "POST",
        "/storage/orphans",
        find_orphans,
        "Look for bytes without rows (`orphans`) and rows without bytes (`missing`)",
        _JOB,
        form=OrphansForm,
    ),
    _operation(
        "POST",
        "/storage/archive",
        archive_storage,
        "Move old bytes to another storage, or compress them where they are. The result tells `archived` and `freed_bytes`",
        _JOB,
        form=ArchiveForm,
    ),
    _operation("GET", "/storage/policies", list_policies, "The retention policies", {200: PolicyList}),
    _operation(
        "POST",
        "/storage/policies/apply",
        apply_policies,
        "Do the retention policies, which is done daily anyhow",
        _JOB,
        form=PoliciesForm,
    ),
    _operation("GET", "/studies/{study}/legal-hold", get_study_hold, "Whether a study must not go", {200: HoldView}, problems=(404,)),
    _operation(
        "PUT",
        "/studies/{study}/legal-hold",
        put_study_hold,
        "Put a study on legal hold, or lift that",
        {200: HoldView},
        form=HoldForm,
        problems=(404, 413, 415),
    ),
    _operation(
        "PUT",
        "/files/{file_id}/legal-hold",
        put_file_hold,
        "Put a file on legal hold, or lift that",
        {200: HoldView},
        form=HoldForm,
        problems=(404, 410, 413, 415),
    ),
)
