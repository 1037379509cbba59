"""`/files/{id}/content`: the bytes of files, their variants, and URLs that give them without a login."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from pacslite import metrics
from pacslite.core import file_content
from pacslite.core.access import Right
from pacslite.core.file_content import Content, Which
from pacslite.core.file_notes import event_of
from pacslite.core.file_types import Variant
from pacslite.core.files import owner_of
from pacslite.errors import Forbidden, InvalidForm, NotFound
from pacslite.files.versions import known_id, origin_of
from pacslite.files.views import url_of
from pacslite.web.forms import parse, rule
from pacslite.web.messages import Reply, Request
from pacslite.web.operations import Operation, Parameter, json_reply
from pacslite.web.pages import MOST_COUNT, check_parameters, number_in

if TYPE_CHECKING:
    from pacslite.app import Pacs

_LONGEST_S = 604_800
_QUERY = ("version", "item", "variant")
_CURRENT, _FIXED = "private, no-cache", "private, max-age=86400, immutable"
# What browsers only draw or play; anything else is offered to be saved.
_SHOWN = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp", "image/avif", "image/bmp", "image/tiff", "image/heic"})
_SHOWN |= {"video/mp4", "video/webm", "application/pdf"}


@dataclass(frozen=True, slots=True)
class UrlForm:
    """For how long a URL counts, and of which version, item and variant it is: as in a request for the content."""

    expires_in: int = field(default=3600, metadata=rule("Seconds until it ends.", minimum=1, maximum=_LONGEST_S))
    version: int | None = field(default=None, metadata=rule("Of which version; else of the present one.", minimum=1, maximum=10**9))
    item: int | None = field(default=None, metadata=rule("Of which picture of a series.", minimum=0, maximum=10**9))
    variant: str | None = field(default=None, metadata=rule("large, medium, thumbnail or original."))


@dataclass(frozen=True, slots=True)
class SignedUrlView:
    """A URL that gives the bytes to whoever has it, until it ends."""

    url: str
    expires_at: str


def get_content(pacs: Pacs, request: Request, file_id: str) -> Reply:
    """The bytes of a file."""
    which = _which(check_parameters(request, _QUERY))
    began = time.perf_counter()
    content = file_content.find(pacs, known_id(file_id), which)
    _record_read(pacs, request, content)
    is_fixed = which.version is not None or which.variant is not None
    reply = _reply(pacs, content, _FIXED if is_fixed else _CURRENT)
    metrics.FILE_READ_SECONDS.observe(time.perf_counter() - began)
    return reply


def get_signed_content(pacs: Pacs, request: Request, file_id: str) -> Reply:
    """The bytes that a signed URL names."""
    try:
        given = check_parameters(request, (*_QUERY, "expires", "signature"))
        which = _which(given)
        if known_id(file_id) != file_id:  # the id in other letters
            raise NotFound("There is no such file.")
        file_content.check_signature(pacs, known_id(file_id), which, given.get("expires", ""), given.get("signature", ""))
    except (InvalidForm, NotFound):  # altered, whatever became of it
        raise Forbidden("The signature of this URL is not valid.") from None
    began = time.perf_counter()
    content = file_content.find(_unlimited(pacs), known_id(file_id), which)
    _record_read(pacs, request, content)
    reply = _reply(pacs, content, _CURRENT)
    metrics.FILE_READ_SECONDS.observe(time.perf_counter() - began)
    return reply


def _unlimited(pacs: Pacs) -> Pacs:
    """What was seen when the URL was made."""
    from pacslite.core.access import LOCAL_ADMIN, seen_by, visibility

    return seen_by(pacs, visibility(LOCAL_ADMIN))


def _record_read(pacs: Pacs, request: Request, content: Content) -> None:
    """One entry for many reads of the same file by the same caller (`audit_repeat_s`)."""
    record = content.record
    about = record.id, record.patient_id, owner_of(request.principal), origin_of(request), ""
    pacs.audit.record(event_of("file.read", *about, {}))
    request.is_recorded = True


def _which(given: dict[str, str]) -> Which:
    variant = given.get("variant")
    if variant is not None and variant not in list(Variant):
        message = f"is none of {', '.join(Variant)}"
        raise InvalidForm.at("variant", message)
    version, item = number_in(given, "version", 1, MOST_COUNT), number_in(given, "item", 0, MOST_COUNT)
    return Which(version, item, Variant(variant) if variant is not None else None)


def _reply(pacs: Pacs, content: Content, cache_control: str) -> Reply:
    media_type = content.blob.media_type
    shown = "inline" if media_type in _SHOWN else "attachment"
    headers = [
        ("Content-Type", "text/plain; charset=utf-8" if media_type == "text/plain" else media_type),
        ("ETag", f'"{content.blob.sha256}"'),
        ("Cache-Control", cache_control),
        ("Content-Disposition", disposition(shown, content.filename)),
        ("Content-Security-Policy", "sandbox; default-src 'none'; style-src 'unsafe-inline'"),
    ]
    return Reply(200, headers, file_content.body_of(pacs.stores, content.blob))


def disposition(shown: str, filename: str) -> str:
    """Content-Disposition with a name in any language (RFC 6266 4.3, RFC 8187), and one in ASCII for those who know no other."""
    plain = "".join(c if " " <= c <= "~" and c not in '"\\%' else "_" for c in filename)
    if plain == filename:
        return f'{shown}; filename="{plain}"'
    extended = quote(filename.encode("utf-8", "replace"), safe="!#$&+-.^_`|~")
    return f"{shown}; filename=\"{plain}\"; filename*=UTF-8''{extended}"


def sign_url(pacs: Pacs, request: Request, file_id: str) -> Reply:
    """Gives a URL."""
    form = UrlForm() if not request.content_length and request.header("Content-Type") is None else parse(UrlForm, request)
    if form.variant is not None and form.variant not in list(Variant):
        message = f"is none of {', '.join(Variant)}"
        raise InvalidForm.at("variant", message)
    which = Which(form.version, form.item, Variant(form.variant) if form.variant is not None else None)
    who = owner_of(request.principal), origin_of(request)
    signed = file_content.sign(pacs, known_id(file_id), which, form.expires_in, *who)
    url = signed.url or f"{url_of(request, known_id(file_id))}/signed?{urlencode(signed.query)}"
    return json_reply(SignedUrlView(url, signed.expires_at))


_PARAMETERS = (
    Parameter("version", "Number of a version; the newest by default.", "integer"),
    Parameter("item", "Position of a picture of a series, from 0.", "integer"),
    Parameter("variant", "large, medium, thumbnail, or original: what was sent."),
)

OPERATIONS = (
    Operation(
        "GET",
        "/files/{file_id}/content",
        get_content,
        "The bytes of a file, or a smaller picture of it; ranges may be asked for",
        "files",
        {200: None},
        Right.FILES_READ,
        parameters=_PARAMETERS,
        problems=(404, 410, 412, 416, 429),
        action="file.read",
    ),
    Operation(
        "POST",
        "/files/{file_id}/url",
        sign_url,
        "A URL that gives the bytes to whoever has it, for a while",
        "files",
        {200: SignedUrlView},
        Right.FILES_READ,
        form=UrlForm,
        problems=(404, 410),
        action="file.url",
    ),
    Operation(
        "GET",
        "/files/{file_id}/signed",
        get_signed_content,
        "Where signed URLs lead",
        "files",
        {200: None},
        Right.PUBLIC,
        parameters=(*_PARAMETERS, Parameter("expires", "When it ends."), Parameter("signature", "By this server.")),
        problems=(403, 404, 410, 416, 429),
        action="file.read",
    ),
)
