"""`/shares`: links to one study or one file, and `/share/{token}`, where such a link leads."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from pacslite.core import shares
from pacslite.core.access import Right
from pacslite.core.audit import FAILED, Event
from pacslite.core.shares import Share, Shared
from pacslite.errors import Gone, InvalidForm, NotFound, Unauthenticated
from pacslite.web.authentication import share_cookie
from pacslite.web.forms import parse, rule
from pacslite.web.messages import Reply, Request, Route
from pacslite.web.operations import ROOT, Operation, json_reply
from pacslite.web.pages import PAGE, check_parameters, key_in, limit_of, next_url, wrong_cursor

if TYPE_CHECKING:
    from pacslite.app import Pacs
    from pacslite.core.access import Principal

_LONGEST_S = 366 * 24 * 3600


@dataclass(frozen=True, slots=True)
class ShareForm:
    """A link to a study, or to a file: one of the two is given."""

    expires_in: int = field(metadata=rule("Seconds until the link ends.", minimum=1, maximum=_LONGEST_S))
    study_instance_uid: str | None = field(default=None, metadata=rule("Study Instance UID.", minLength=1, maxLength=64))
    file_id: str | None = field(default=None, metadata=rule("Id of a file.", minLength=1, maxLength=64))
    max_uses: int | None = field(
        default=None, metadata=rule("How often it may be opened; any number by default.", minimum=1, maximum=1_000_000)
    )


@dataclass(frozen=True, slots=True)
class ShareView:
    """A link to a study or a file. Where it leads is told once, to who made it."""

    id: str
    study_instance_uid: str | None
    file_id: str | None
    created_by: str
    created_at: str
    expires_at: str
    max_uses: int | None
    uses: int
    last_used_at: str | None
    revoked_at: str | None
    url: str | None = field(metadata=rule("Whoever has it sees the study or file; null when it was told before."))


@dataclass(frozen=True, slots=True)
class ShareList:
    """A page of links, newest first."""

    items: tuple[ShareView, ...]
    total: int
    next: str | None


def make_share(pacs: Pacs, request: Request) -> Reply:
    """Makes a link."""
    form = parse(ShareForm, request)
    if (form.study_instance_uid is None) == (form.file_id is None):
        message = "one of study_instance_uid and file_id is to be given"
        raise InvalidForm(message, (("study_instance_uid", message), ("file_id", message)))
    what = Shared(form.study_instance_uid or "", form.file_id)
    share, token = shares.make(pacs, _caller(request), what, form.expires_in, form.max_uses, _event(request))
    return json_reply(_view(share, f"{request.base_url}/share/{token}"), 201)


def list_shares(pacs: Pacs, request: Request) -> Reply:
    """A page of the caller's links."""
    given = check_parameters(request, ("limit", "cursor"))
    limit, key, before = limit_of(given), key_in(given), None
    if key is not None:
        at, _, share_id = key.partition(" ")
        if not at or not share_id:
            raise wrong_cursor()
        before = at, share_id
    found, total = shares.page(pacs, _caller(request), before, limit + 1)
    last = found[limit - 1] if len(found) > limit else None
    following = next_url(request, given, f"{last.created_at} {last.id}") if last else None
    return json_reply(ShareList(tuple(_view(share) for share in found[:limit]), total, following))


def revoke_share(pacs: Pacs, request: Request, share_id: str) -> Reply:
    """Ends a link, and what was opened by it."""
    shares.revoke(pacs, _caller(request), share_id, _event(request))
    return Reply(204)


def open_share(pacs: Pacs, request: Request, token: str) -> Reply:
    """`GET /share/{token}`: counts a use, and leads to the viewer or the file with a cookie that shows this and nothing else."""
    request.is_recorded = True  # here, without the token
    try:
        share, cookie = shares.open_link(pacs, token, _event(request))
    except (NotFound, Gone):
        pacs.audit.record(_event(request, "share.use", FAILED))
        raise
    prefix = quote(urlsplit(request.base_url).path.rstrip("/"), safe="/%")
    target = f"{prefix}{ROOT}/files/{share.file_id}/content"
    if share.file_id is None:
        target = f"{prefix}/viewer/viewer?StudyInstanceUIDs={share.study_instance_uid}"
    left = int((datetime.fromisoformat(share.expires_at) - datetime.now(UTC)).total_seconds())
    # Where it came from is not told on, and nobody keeps the answer: opening it again is another use.
    headers = [("Location", target), ("Cache-Control", "no-store"), ("Referrer-Policy", "no-referrer")]
    return Reply(302, [*headers, share_cookie(request, cookie, max(1, left))])


def _caller(request: Request) -> Principal:
    if request.principal is None:
        raise Unauthenticated("This needs a login.")
    return request.principal


def _event(request: Request, action: str = "share", outcome: str = "success") -> Event:
    principal = request.principal
    return Event(
        action,
        outcome,
        actor=request.actor,
        actor_id=principal.account_id if principal is not None else None,
        object_type="share",
        address=request.address,
        request_id=request.request_id,
        protocol="http",
    )


def _view(share: Share, url: str | None = None) -> ShareView:
    times = share.created_at, share.expires_at, share.max_uses, share.uses, share.last_used_at, share.revoked_at
    return ShareView(share.id, share.study_instance_uid or None, share.file_id, share.created_by, *times, url)


OPERATIONS = (
    Operation(
        "POST",
        "/shares",
        make_share,
        "Make a link that shows one study or one file to whoever has it",
        "shares",
        {201: ShareView},
        Right.DICOMWEB_READ,
        form=ShareForm,
        problems=(404, 409, 410),
        action="share.create",
    ),
    Operation(
        "GET",
        "/shares",
        list_shares,
        "One's own links, for administrators all, newest first",
        "shares",
        {200: ShareList},
        Right.DICOMWEB_READ,
        parameters=PAGE,
    ),
    Operation(
        "DELETE",
        "/shares/{share_id}",
        revoke_share,
        "End a link at once, with all that was opened by it",
        "shares",
        {204: None},
        Right.DICOMWEB_READ,
        problems=(404,),
        action="share.revoke",
    ),
)
ROUTES = (Route("GET", "/share/<token>", open_share, Right.PUBLIC, action="share.use"),)
