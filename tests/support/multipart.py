"""Multipart answers taken apart by the standard library."""

from __future__ import annotations

from email.message import Message


def contents(content_type: str, body: bytes) -> list[bytes]:
    """The contents of the parts; the body itself when it is no multipart one."""
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_boundary()
    if header.get_content_maintype() != "multipart" or boundary is None:
        return [body]
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary.encode())
    assert pieces[-1].startswith(b"--"), "the closing delimiter is missing"
    return [piece.partition(b"\r\n\r\n")[2] for piece in pieces[1:-1]]
