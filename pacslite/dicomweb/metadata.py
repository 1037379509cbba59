"""Metadata of a study, series or instance (PS3.18 10.4.1.1.2): documents made at ingest, joined here.

A study or series document is made at the first request after a change, kept as a file, and sent as it lies there. Its
name holds the number of the last change, so an old one is never sent.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pacslite import __version__
from pacslite.core import retrieve
from pacslite.core.content import FileBody
from pacslite.core.file_cache import FileCache
from pacslite.core.retrieve import Resource
from pacslite.dicomweb import native_xml
from pacslite.dicomweb.media_types import DICOM_JSON, DICOM_XML, METADATA_OFFERS, acceptable, choose
from pacslite.dicomweb.resource import requested
from pacslite.errors import NotAcceptable, NotFound
from pacslite.web.encodings import tag_of_gzip, takes_gzip
from pacslite.web.messages import Reply, Request
from pacslite.web.replies import names_etag

if TYPE_CHECKING:
    from pacslite.app import Pacs

_WRITE_BYTES = 1024 * 1024
_GZIP_LEVEL = 5
_GZIP = 16 + zlib.MAX_WBITS
_LINK = re.compile(rb"\0([0-9A-F/]+)")


def retrieve_metadata(pacs: Pacs, request: Request, study: str, series: str | None = None, instance: str | None = None) -> Reply:
    """`GET /studies/{study}[/series/{series}[/instances/{instance}]]/metadata`."""
    resource = requested(request, study, series, instance)
    accepted = acceptable(request.header("Accept"), tuple(request.arguments("accept")), pacs.settings.strict_accept)
    offer = choose(accepted, METADATA_OFFERS)
    if offer is None:
        raise NotAcceptable("Metadata is application/dicom+json, or multipart/related of application/dicom+xml.")
    variant = "xml" if offer.name == DICOM_XML else "json.gz" if resource.sop_instance_uid is None and takes_gzip(request) else "json"
    digest = _digest(pacs, request, resource, variant)
    headers = [
        ("Content-Type", _content_type(variant, digest)),
        ("ETag", f'"{digest[:32]}"'),
        ("Cache-Control", "private, no-cache"),
        ("Vary", "Accept, Accept-Encoding"),
    ]
    if variant == "json.gz":
        headers.append(("Content-Encoding", "gzip"))
    if names_etag(request.header("If-None-Match"), headers[1][1]):
        return Reply(200, headers)  # becomes 304 without a body
    return Reply(200, headers, _body(pacs, request, resource, variant, digest))


def etags(pacs: Pacs, request: Request, study: str, series: str | None = None, instance: str | None = None) -> tuple[str, ...]:
    """The ETags of the metadata in all its forms as it is now; raises NotFound, Gone."""
    resource = requested(request, study, series, instance)
    named = [f'"{_digest(pacs, request, resource, variant)[:32]}"' for variant in ("json", "json.gz", "xml")]
    return (*named, tag_of_gzip(named[0]))


def _digest(pacs: Pacs, request: Request, resource: Resource, variant: str) -> str:
    """What this very document is called: it changes with the resource, its last change, the URLs in it and its form."""
    number = retrieve.change_number(pacs.catalog, resource)
    named = (*(uid or "" for uid in retrieve.uids(resource)), str(resource.version), str(number))
    text = "|".join((*named, request.dicomweb_url, variant, __version__))
    return hashlib.sha256(text.encode()).hexdigest()


def _content_type(variant: str, digest: str) -> str:
    return f'multipart/related; type="{DICOM_XML}"; boundary={_boundary(digest)}' if variant == "xml" else DICOM_JSON


def _boundary(digest: str) -> str:
    # The same document has the same boundary, so that a kept one fits its Content-Type.
    return f"pacslite-{digest[:40]}"


@cache
def _documents(directory: Path, max_bytes: int) -> FileCache:
    return FileCache(directory / "metadata", max_bytes)


def _body(pacs: Pacs, request: Request, resource: Resource, variant: str, digest: str) -> bytes | FileBody:
    root = request.dicomweb_url
    if resource.sop_instance_uid is not None:
        with retrieve.documents(pacs.catalog, resource) as rows:
            return b"".join(_pieces(variant, rows, root, digest, resource.version is not None))
    documents = _documents(pacs.settings.cache_directory, pacs.settings.cache_bytes)

    def make(file: BinaryIO) -> None:
        if variant == "json.gz":
            plain_digest = _digest(pacs, request, resource, "json")
            plain, _ = documents.open(f"{plain_digest}.json", lambda out: _write(pacs, resource, "json", root, plain_digest, out))
            with plain:
                _compress(plain, file)
        else:
            _write(pacs, resource, variant, root, digest, file)

    file, size = documents.open(f"{digest}.{variant}", make)
    return FileBody(documents.directory, 0, size, file)


def _write(pacs: Pacs, resource: Resource, variant: str, root: str, digest: str, file: BinaryIO) -> None:
    with retrieve.documents(pacs.catalog, resource) as rows:
        waiting: list[bytes] = []
        waiting_bytes = 0
        for piece in _pieces(variant, rows, root, digest, resource.version is not None):
            waiting.append(piece)
            waiting_bytes += len(piece)
            if waiting_bytes >= _WRITE_BYTES:
                _write_all(file, b"".join(waiting))
                waiting, waiting_bytes = [], 0
        _write_all(file, b"".join(waiting))


def _write_all(file: BinaryIO, data: bytes) -> None:
    """The file is unbuffered: one write may take less than all."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _compress(plain: BinaryIO, file: BinaryIO) -> None:
    machine = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP)
    plain.seek(0)
    while data := plain.read(_WRITE_BYTES):
        _write_all(file, machine.compress(data))
    _write_all(file, machine.flush())


def _pieces(variant: str, rows: Iterable[retrieve.DocumentRow], root: str, digest: str, versioned: bool) -> Iterable[bytes]:
    """The whole document in pieces: a JSON array, or one XML part per instance (PS3.18 10.4.3.3.2).

    URLs in it name the version when the request did (`versioned`).
    """
    documents = (_document(row, root, versioned) for row in rows)
    if variant != "xml":
        before = b"["
        for document in documents:
            yield before
            yield document
            before = b","
        if before == b"[":
            raise NotFound("There was no such resource then, or it was deleted a moment ago.")
        yield b"]"
        return
    before = f"--{_boundary(digest)}\r\n".encode()
    for document in documents:
        xml = native_xml.encode(json.loads(document, parse_int=str, parse_float=str))  # the digits as they are
        yield before + f"Content-Type: {DICOM_XML}\r\nContent-Length: {len(xml)}\r\n\r\n".encode()
        yield xml
        before = f"\r\n--{_boundary(digest)}\r\n".encode()
    yield f"\r\n--{_boundary(digest)}--\r\n".encode()


def _document(row: retrieve.DocumentRow, root: str, versioned: bool) -> bytes:
    # A NUL, which JSON never holds, stands where the URL of the instance's bulk data goes.
    url = f"{root}/studies/{row.study_instance_uid}/series/{row.series_instance_uid}/instances/{row.sop_instance_uid}/bulkdata"
    document = zlib.decompress(row.json)
    if versioned:
        return _LINK.sub(lambda found: f"{url}{found[1].decode()}?version={row.version_number}".encode(), document)
    return document.replace(b"\0", url.encode())
