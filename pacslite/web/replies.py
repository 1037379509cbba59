"""Replies on the wire: conditional requests and ranges (RFC 9110 13, 14), and bodies as WSGI wants them.

A file goes out by `sendfile` when the server can: as a whole or a range (gunicorn's file wrapper starts at the file's
position and sends Content-Length bytes), and as a segment of a multipart body (straight to gunicorn's socket). That is 0.05 ms
less than reading and writing half a megabyte; holding TCP_CORK over the pieces was tried and gained nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from email.utils import formatdate, parsedate_to_datetime
from functools import lru_cache, partial
from http import HTTPStatus
from typing import Any, BinaryIO

from pacslite.errors import BlobMissing, PreconditionFailed, RangeNotSatisfiable
from pacslite.web.messages import Body, FileBody, Headers, Reply, Request, Segment, SegmentsBody, StreamBody

PIECE_BYTES = 512 * 1024
_SHORT_BYTES = 256 * 1024
_MORE = int(socket.MSG_MORE)
_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus} | {460: "460 Checksum Mismatch"}  # tus 1.0.0
# More digits than any size has make no number in Python (4300) and no range here.
_RANGE = re.compile(r"bytes=\s*(\d{0,100})-(\d{0,100})\s*", re.IGNORECASE)
# RFC 9110 15.4.5; and the policies: a 304 updates the headers of what the caller has kept (RFC 9111 4.3.4), so one without
# them, or with those of other resources, would change how a kept page or script may behave.
_KEPT_IN_304 = frozenset(
    {
        "etag",
        "cache-control",
        "vary",
        "last-modified",
        "content-location",
        "content-security-policy",
        "cross-origin-opener-policy",
        "cross-origin-embedder-policy",
    }
)
_ETAG = re.compile(r'(?:W/)?("[^"]*")')
_STRONG_ETAG = re.compile(r'(?<!W/)"[^"]*"')

Environ = dict[str, Any]
StartResponse = Callable[..., Any]


def conditional(request: Request, reply: Reply) -> Reply:
    """304 when the caller has what the reply's ETag or Last-Modified names, 206 for a range of a single-part body; else the reply.

    Raises RangeNotSatisfiable, and PreconditionFailed for an If-Match that names something else. Several ranges in one request
    are answered whole, as RFC 9110 14.2 allows.
    """
    etag, changed = reply.header("ETag"), reply.header("Last-Modified")
    if reply.status == 200 and (etag is not None or changed is not None):
        if etag is not None and request.header("If-Match") is not None:
            check_if_match(request, etag)
        if _is_known(request, etag, changed):
            return Reply(304, [(name, value) for name, value in reply.headers if name.lower() in _KEPT_IN_304])
    size = _rangeable(reply.body)
    if size is None or reply.status != 200:
        return reply
    reply.headers.append(("Accept-Ranges", "bytes"))
    asked, only_if = request.header("Range"), request.header("If-Range")
    # If-Range compares strongly (RFC 9110 13.1.5), dates too; without a match the whole is sent.
    if asked is None or (only_if is not None and only_if.strip() not in (etag, changed)):
        return reply
    return _ranged(asked, reply, size)


def _is_known(request: Request, etag: str | None, changed: str | None) -> bool:
    """Whether the caller has this already; If-None-Match goes before If-Modified-Since (RFC 9110 13.2.2)."""
    names = request.header("If-None-Match")
    if names is not None:
        return etag is not None and names_etag(names, etag)
    since = request.header("If-Modified-Since")
    if since is None or changed is None:
        return False
    before, now = _seconds(since), _seconds(changed)
    return before is not None and now is not None and now <= before


def check_if_match(request: Request, *etags: str) -> None:
    """Raises PreconditionFailed unless If-Match is absent or names one of the ETags (none: there is nothing) by strong comparison."""
    header = request.header("If-Match")
    if header is None:
        return
    if not etags or (header.strip() != "*" and not set(etags) & set(_STRONG_ETAG.findall(header))):
        raise PreconditionFailed("The resource is not, or no longer, what If-Match names.")


@lru_cache(maxsize=1024)
def http_date(text: str) -> str:
    """A time of RFC 3339 as Last-Modified has it, which knows no fractions."""
    return formatdate(int(datetime.fromisoformat(text).timestamp()), usegmt=True)


def _seconds(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _rangeable(body: Body) -> int | None:
    """The size of a body of which ranges can be given."""
    if isinstance(body, StreamBody):
        return None if body.part is None else body.length
    return None if isinstance(body, SegmentsBody) else len(body) if isinstance(body, bytes) else body.length


def names_etag(header: str | None, etag: str) -> bool:
    """Whether If-None-Match names the ETag, by weak comparison (RFC 9110 13.1.2)."""
    return header is not None and (header.strip() == "*" or etag.removeprefix("W/") in _ETAG.findall(header))


def _ranged(asked: str, reply: Reply, size: int) -> Reply:
    found = _RANGE.fullmatch(asked)
    if not found or not (found[1] or found[2]) or (found[1] and found[2] and int(found[1]) > int(found[2])):
        return reply  # another unit, several ranges or a malformed one: ignored (RFC 9110 14.2)
    first = int(found[1]) if found[1] else max(0, size - int(found[2]))
    last = min(int(found[2]), size - 1) if found[1] and found[2] else size - 1
    if first > last:
        raise RangeNotSatisfiable("No byte of the range exists.", size)
    part = _range_of(reply.body, first, last - first + 1)
    return Reply(206, [*reply.headers, ("Content-Range", f"bytes {first}-{last}/{size}")], part)


def _range_of(body: Body, first: int, length: int) -> Body:
    if isinstance(body, bytes):
        return body[first : first + length]
    if isinstance(body, FileBody):
        return replace(body, offset=body.offset + first, length=length)
    assert isinstance(body, StreamBody)
    assert body.part is not None
    return StreamBody(length, partial(body.part, first, length))


def send(reply: Reply, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Starts the response and gives its body; raises BlobMissing before that when a file or the first stream is not there."""
    body = reply.body
    file = _opened(body) if isinstance(body, FileBody) else None
    if isinstance(body, SegmentsBody):
        _check(body)
    if environ["REQUEST_METHOD"] != "HEAD":
        body = _begun(body)
    start_response(_STATUS_LINES[reply.status], with_length(reply))
    if environ["REQUEST_METHOD"] == "HEAD":
        if file is not None:
            file.close()
        return ()
    if file is not None:
        assert isinstance(body, FileBody)
        return _whole_file(file, body, environ)
    return _pieces(body, environ)


def with_length(reply: Reply) -> Headers:
    """The headers with Content-Length, whenever the length is known."""
    if reply.status in (204, 304):
        return reply.headers
    length = len(reply.body) if isinstance(reply.body, bytes) else reply.body.length
    return reply.headers if length is None else [*reply.headers, ("Content-Length", str(length))]


def _pieces(body: Body, environ: Environ) -> Iterable[bytes]:
    if isinstance(body, bytes):
        return (body,)
    if isinstance(body, StreamBody):
        return body.chunks()
    assert isinstance(body, SegmentsBody)
    # In chunks every byte has to go through the server.
    return _segments(body, None if body.length is None else _raw_socket(environ), environ)


def _check(body: SegmentsBody) -> None:
    """All files of the body are there and whole: once it has begun, an error could only break it off."""
    for segment in body.segments:
        if isinstance(segment, FileBody) and segment.file is None:
            try:
                size = os.stat(segment.path).st_size
            except FileNotFoundError:
                raise BlobMissing("The stored bytes are missing.") from None
            if size < segment.offset + segment.length:
                raise BlobMissing("The stored bytes are shorter than the catalog says.")


def _begun(body: Body) -> Body:
    """The body with its first stream begun, so that bytes that cannot be had are told by a status and not by a broken answer."""
    if isinstance(body, StreamBody):
        chunks = body.chunks()
        first = next(chunks, b"")
        return replace(body, chunks=lambda: _continued(first, chunks))
    if isinstance(body, SegmentsBody):
        for number, segment in enumerate(body.segments):
            if isinstance(segment, StreamBody):
                begun = _begun(segment)
                assert isinstance(begun, StreamBody)
                return SegmentsBody([*body.segments[:number], begun, *body.segments[number + 1 :]])
            if isinstance(segment, FileBody):
                break
    return body


def _continued(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:  # in a chunked answer an empty piece would be the end
        yield first
    yield from rest


def _opened(body: FileBody) -> BinaryIO:
    if body.file is not None:
        body.file.seek(body.offset)
        return body.file
    try:
        file = open(body.path, "rb", buffering=0)  # noqa: SIM115 - the server closes it when it is sent
    except FileNotFoundError:
        raise BlobMissing("The stored bytes are missing.") from None
    if os.fstat(file.fileno()).st_size < body.offset + body.length:
        # Sent as it is, the answer would end early and the next one on the connection would be taken for its rest.
        file.close()
        raise BlobMissing("The stored bytes are shorter than the catalog says.")
    if body.offset:
        file.seek(body.offset)
    return file


def _whole_file(file: BinaryIO, body: FileBody, environ: Environ) -> Iterable[bytes]:
    sock, length = _raw_socket(environ), body.length
    if sock is not None:
        return _segments(SegmentsBody([replace(body, file=file)]), sock, environ)
    wrapper = environ.get("wsgi.file_wrapper")
    if wrapper is None:
        return _read_pieces(file, length)
    wrapped: Iterable[bytes] = wrapper(file, PIECE_BYTES)
    return wrapped


def _send_file(sock: socket.socket, body: FileBody) -> None:
    """Writes to the connection itself: whatever was yielded before is written by now, the server asks piece by piece."""
    if body.file is None:
        try:
            body = replace(body, file=open(body.path, "rb", buffering=0))  # noqa: SIM115 - closed below
        except FileNotFoundError:
            raise BlobMissing("The stored bytes are missing.") from None
    assert body.file is not None
    with body.file as file:
        if sock.sendfile(file, body.offset, body.length) < body.length:
            raise BlobMissing("The stored bytes are shorter than the catalog says.")


def _read_pieces(file: BinaryIO, length: int) -> Iterator[bytes]:
    with file:
        while length > 0:
            piece = file.read(min(length, PIECE_BYTES))
            if not piece:
                raise BlobMissing("The stored bytes are shorter than the catalog says.")
            length -= len(piece)
            yield piece


def _segments(body: SegmentsBody, sock: socket.socket | None, environ: Environ) -> Iterator[bytes]:
    """Small neighbours are joined, files go out by sendfile, streams piece by piece."""
    small: list[bytes] = []
    is_begun = False
    for segment in body.segments:
        if isinstance(segment, bytes) and len(segment) < PIECE_BYTES // 8:
            small.append(segment)
        elif sock is not None and isinstance(segment, FileBody) and segment.length:
            if not is_begun:
                is_begun, head = True, _head_of(environ)
                if head:
                    small.insert(0, head)
                else:
                    yield b""  # the server writes the headers, before anything is written past it
            if small:
                # Before a short file it waits in the kernel and leaves with it. A long one is read while it is sent: there the client
                # is woken first, which costs less than to have all of it lie in the queue.
                sock.sendall(b"".join(small), _MORE if segment.length <= _SHORT_BYTES else 0)
                small = []
            _send_file(sock, segment)
        else:
            if small:
                yield b"".join(small)
                small = []
            yield from _one(segment)
    if small:
        yield b"".join(small)


def _head_of(environ: Environ) -> bytes:
    """The head of the answer if it is ours to send (`web.gunicorn_response`)."""
    response = environ.get("pacslite.response")
    return b"" if response is None else response.take_head()


def _one(segment: Segment) -> Iterator[bytes]:
    if isinstance(segment, bytes):
        yield segment
    elif isinstance(segment, StreamBody):
        yield from segment.chunks()
    else:
        yield from _read_pieces(_opened(segment), segment.length)


def _raw_socket(environ: Environ) -> socket.socket | None:
    """The connection, when bytes written to it are the body as it is: gunicorn, HTTP/1.1 over TCP, no TLS, blocking."""
    sock = environ.get("gunicorn.socket")
    if (
        not isinstance(sock, socket.socket)
        or isinstance(sock, ssl.SSLSocket)
        or environ.get("SERVER_PROTOCOL") != "HTTP/1.1"
        or not hasattr(os, "sendfile")
    ):
        return None
    return sock if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.gettimeout() is None else None


def tag_of(body: bytes) -> str:
    """A strong ETag of a body in memory: the same bytes, the same tag."""
    return f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'
