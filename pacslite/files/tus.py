"""`/files/uploads`: resumable uploads by tus 1.0.0 (https://tus.io/protocols/resumable-upload), with the extensions named below.

What becomes of the bytes is said in `Upload-Metadata` by the fields of the upload form; the names that Uppy and tus-js-client add are
taken as well.
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import datetime
from email.utils import formatdate
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pacslite.core import uploads
from pacslite.core.access import Right
from pacslite.core.files import Origin, owner_of
from pacslite.core.upload_writing import CHECKSUMS, Checksum, Receiving
from pacslite.core.uploads import COMPLETE, FINAL, PARTIAL, WHOLE, Expected, Upload
from pacslite.errors import BadRequest, InvalidForm, MethodNotAllowed, PacsliteError, PreconditionFailed, UnsupportedContent
from pacslite.files.forms import UploadForm, description_of, typed
from pacslite.web.incoming import arriving_body
from pacslite.web.messages import Handler, Headers, Reply, Request
from pacslite.web.operations import ROOT, Operation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pacslite.app import Pacs

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,creation-defer-length,checksum,expiration,termination,concatenation"
OFFSET_OCTETS = "application/offset+octet-stream"
ALWAYS = (("Tus-Resumable", VERSION), ("Tus-Version", VERSION))
# What clients say of a file beside the form's fields; `filename` goes before `name`.
_CLIENTS_OWN = frozenset({"filename", "name", "filetype", "type", "relativePath"})
_PATH = "/files/uploads"
_NUMBER = re.compile(r"[0-9]{1,18}")
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KEY = re.compile(r"[!-+\--~]+")
_MOST_METADATA = 64


def get_upload_options(pacs: Pacs, request: Request, upload_id: str = "") -> Reply:
    """What of tus is spoken here."""
    more = [("Tus-Extension", EXTENSIONS), ("Tus-Max-Size", str(pacs.settings.max_upload_bytes))]
    methods = "HEAD, PATCH, DELETE, POST, OPTIONS" if upload_id else "POST, OPTIONS"
    return Reply(204, [*more, ("Tus-Checksum-Algorithm", ",".join(CHECKSUMS)), ("Allow", methods)])


def get_one_upload_options(pacs: Pacs, request: Request, upload_id: str) -> Reply:
    """The same of one upload."""
    return get_upload_options(pacs, request, upload_id)


def create_upload(pacs: Pacs, request: Request) -> Reply:
    """Begins an upload, with its first bytes if the client sends some; or joins partial ones."""
    _check_version(request)
    owner, metadata = owner_of(request.principal), _metadata(request)
    kind, _, parts = (request.header("Upload-Concat") or WHOLE).partition(";")
    if kind == FINAL:
        made = uploads.join(pacs, owner, _origin(request), _ids(parts), _expected(request, FINAL, metadata))
        return Reply(201, [("Location", _url(request, made)), *_told(request, made)])
    if kind not in (WHOLE, PARTIAL) or parts or (kind == WHOLE and request.header("Upload-Concat")):
        raise BadRequest("Upload-Concat is neither `partial` nor `final;` and URLs.")
    coming = _receiving(request, 0) if _has_bytes(request) else None
    upload = uploads.begin(pacs, owner, _expected(request, kind, metadata))
    try:
        if coming is not None:
            upload = uploads.receive(pacs, owner, _origin(request), upload, coming, arriving_body(request.environ))
        else:
            upload = uploads.finish(pacs, owner, _origin(request), upload)
    except PacsliteError:
        # The client never learns where this upload is.
        uploads.terminate(pacs, owner, upload, forget=True)
        raise
    offset = [("Upload-Offset", str(upload.offset))] if coming is not None else []
    return Reply(201, [("Location", _url(request, upload)), *offset, *_told(request, upload)])


def head_upload(pacs: Pacs, request: Request, upload_id: str) -> Reply:
    """How far an upload is."""
    _check_version(request)
    owner = owner_of(request.principal)
    upload = uploads.finish(pacs, owner, _origin(request), uploads.settled(pacs, owner, _checked(upload_id)))
    headers: Headers = [("Cache-Control", "no-store"), ("Upload-Offset", str(upload.offset))]
    headers.append(("Upload-Length", str(upload.length)) if upload.length is not None else ("Upload-Defer-Length", "1"))
    if upload.kind == PARTIAL:
        headers.append(("Upload-Concat", PARTIAL))
    elif upload.kind == FINAL:
        urls = " ".join(f"{ROOT}{_PATH}/{uid}" for uid in upload.parts)
        headers.append(("Upload-Concat", f"{FINAL};{urls}"))
    if upload.form.get("metadata"):
        headers.append(("Upload-Metadata", upload.form["metadata"]))
    return Reply(200, [*headers, *_told(request, upload)])


def patch_upload(pacs: Pacs, request: Request, upload_id: str) -> Reply:
    """Appends bytes."""
    _check_version(request)
    owner = owner_of(request.principal)
    known = uploads.get(pacs, owner, _checked(upload_id))
    if not _has_bytes(request):
        raise UnsupportedContent(f"The body must be {OFFSET_OCTETS}.", (OFFSET_OCTETS,))
    offset = _number(request, "Upload-Offset")
    if offset is None:
        raise BadRequest("Upload-Offset is missing.")
    upload = uploads.receive(pacs, owner, _origin(request), known, _receiving(request, offset), arriving_body(request.environ))
    return Reply(204, [("Upload-Offset", str(upload.offset)), *_told(request, upload)])


def delete_upload(pacs: Pacs, request: Request, upload_id: str) -> Reply:
    """Ends an upload and removes its bytes; what became a file stays one."""
    _check_version(request)
    owner = owner_of(request.principal)
    uploads.terminate(pacs, owner, uploads.get(pacs, owner, _checked(upload_id)))
    return Reply(204)


def post_upload(pacs: Pacs, request: Request, upload_id: str) -> Reply:
    """Another method, for clients that can do POST only."""
    wanted = (request.header("X-HTTP-Method-Override") or "").strip().upper()
    handler = {"PATCH": patch_upload, "DELETE": delete_upload, "HEAD": head_upload}.get(wanted)
    if handler is None:
        raise MethodNotAllowed("POST serves here only with X-HTTP-Method-Override.", ("HEAD", "PATCH", "DELETE", "POST", "OPTIONS"))
    return handler(pacs, request, upload_id)


def _check_version(request: Request) -> None:
    given = request.header("Tus-Resumable")
    if given != VERSION:
        raise PreconditionFailed(f"Tus-Resumable must be {VERSION}." if given else "Tus-Resumable is missing.")


def _has_bytes(request: Request) -> bool:
    return (request.header("Content-Type") or "").partition(";")[0].strip().lower() == OFFSET_OCTETS


def _receiving(request: Request, offset: int) -> Receiving:
    if (request.header("Content-Encoding") or "identity").strip().lower() != "identity":
        raise UnsupportedContent("Bodies with a content coding are not taken here.", (OFFSET_OCTETS,))
    return Receiving(offset, request.content_length, _number(request, "Upload-Length"), _checksum(request))


def _checksum(request: Request) -> Checksum | None:
    header = request.header("Upload-Checksum")
    if header is None:
        return None
    name, _, text = header.strip().partition(" ")
    if name not in CHECKSUMS:
        raise BadRequest(f"The checksums understood are {', '.join(CHECKSUMS)}.")
    try:
        digest = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != CHECKSUMS[name]().digest_size:
        raise BadRequest(f"Upload-Checksum is no {name} in base64.")
    return Checksum(name, digest)


def _expected(request: Request, kind: str, metadata: Mapping[str, str]) -> Expected:
    """What is announced; raises InvalidForm for metadata that do not say what the file is to be."""
    raw = (request.header("Upload-Metadata") or "").strip()
    length, deferred = _number(request, "Upload-Length"), request.header("Upload-Defer-Length")
    if kind == FINAL:
        if length is not None or deferred is not None:
            raise BadRequest("The length of a final upload is that of its parts.")
    elif deferred not in (None, "1"):
        raise BadRequest("Upload-Defer-Length can only be 1.")
    elif (length is None) == (deferred is None):
        raise BadRequest("Either Upload-Length or Upload-Defer-Length is needed.")
    if kind == PARTIAL:
        return Expected(kind, length, metadata=raw)
    form = typed(UploadForm, {name: value for name, value in metadata.items() if name not in _CLIENTS_OWN})
    if form.expand:
        raise InvalidForm.at("expand", "is not for resumable uploads")
    return Expected(kind, length, description_of(form), metadata.get("filename") or metadata.get("name") or "", raw)


def _metadata(request: Request) -> dict[str, str]:
    """`Upload-Metadata`: pairs of a key and a value in base64, separated by commas; a value may be left out."""
    header = request.header("Upload-Metadata") or ""
    found: dict[str, str] = {}
    for pair in header.split(",") if header.strip() else ():
        key, _, value = pair.strip().partition(" ")
        if not _KEY.fullmatch(key) or key in found or len(found) == _MOST_METADATA:
            raise BadRequest("Upload-Metadata is malformed, gives a key twice, or too many.")
        try:
            found[key] = base64.b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, ValueError):
            raise BadRequest("A value of Upload-Metadata is not base64 of UTF-8.") from None
        if "\0" in found[key]:
            raise BadRequest("A value of Upload-Metadata holds a NUL.")
    return found


def _ids(urls: str) -> list[str]:
    """The uploads that a final one names; absolute URLs of this server, or paths."""
    found = []
    for url in urls.split():
        try:
            path = urlsplit(url).path
        except ValueError:
            path = ""
        before, _, uid = path.rpartition("/")
        if not before.endswith(ROOT + _PATH) or not _ID.fullmatch(uid):
            raise BadRequest("Upload-Concat names something that is no upload here.")
        found.append(uid)
    return found


def _checked(upload_id: str) -> str:
    return upload_id if _ID.fullmatch(upload_id) else ""  # no upload has that id


def _number(request: Request, name: str) -> int | None:
    header = request.header(name)
    if header is None:
        return None
    if not _NUMBER.fullmatch(header):
        raise BadRequest(f"{name} is no whole number.")
    return int(header)


def _told(request: Request, upload: Upload) -> Headers:
    """When the upload expires, or the file it became."""
    if upload.state == COMPLETE:
        return [("Content-Location", f"{urlsplit(request.base_url).path}{ROOT}/files/{upload.file_uid}")]
    return [("Upload-Expires", formatdate(datetime.fromisoformat(upload.expires_at).timestamp(), usegmt=True))]


def _url(request: Request, upload: Upload) -> str:
    return f"{request.base_url}{ROOT}{_PATH}/{upload.uid}"


def _origin(request: Request) -> Origin:
    return Origin("upload", address=request.address, actor=request.actor, request_id=request.request_id)


_ONE = _PATH + "/{upload_id}"
_REFUSALS = (404, 409, 410, 412, 413, 415, 423, 429, 460, 507)


def _operation(method: str, path: str, handler: Handler, summary: str, status: int, problems: tuple[int, ...]) -> Operation:
    is_public = method == "OPTIONS"
    return Operation(
        method,
        path,
        handler,
        summary,
        "files",
        {status: None},
        Right.PUBLIC if is_public else Right.FILES_WRITE,
        problems=problems,
        action="" if is_public else "file.upload",
        always=ALWAYS,
    )


OPERATIONS = (
    # First, or another method of the path would answer them.
    _operation("OPTIONS", _PATH, get_upload_options, "What of tus is spoken here", 204, ()),
    _operation("OPTIONS", _ONE, get_one_upload_options, "What can be done with an upload", 204, ()),
    _operation("POST", _PATH, create_upload, "Begin a resumable upload (tus 1.0.0), or join partial ones", 201, _REFUSALS),
    _operation("HEAD", _ONE, head_upload, "How far an upload is", 200, _REFUSALS),
    _operation("PATCH", _ONE, patch_upload, "Append bytes to an upload; the last ones make it a file", 204, (403, *_REFUSALS)),
    _operation("DELETE", _ONE, delete_upload, "End an upload", 204, (404, 410, 412)),
    _operation("POST", _ONE, post_upload, "Do what X-HTTP-Method-Override says: PATCH, DELETE or HEAD", 204, (403, 405, *_REFUSALS)),
)
