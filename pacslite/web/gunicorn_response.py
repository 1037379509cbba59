"""Gunicorn's response, with a head that is put together at once and leaves together with the first bytes of the body.

Gunicorn looks at each header by itself, sends the head alone, and looks up what a socket is before it sends a file: a third of what a
frame out of the page cache costs. Whatever is not as expected here is left to gunicorn's own code.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from email.utils import formatdate
from typing import Any

from gunicorn.http.wsgi import Response as GunicornResponse

# Names without a meaning of their own for gunicorn, as they are written here; others go its way.
_PLAIN = frozenset(
    {
        "Accept-Ranges",
        "Cache-Control",
        "Content-Length",
        "Content-Range",
        "Content-Security-Policy",
        "Content-Type",
        "Cross-Origin-Resource-Policy",
        "ETag",
        "Last-Modified",
        "Permissions-Policy",
        "Referrer-Policy",
        "Vary",
        "X-Content-Type-Options",
        "X-Frame-Options",
        "X-Request-ID",
    }
)
# RFC 9110 5.5: what may be in a value, besides the line ends that are counted.
_UNFIT = re.compile(r"[^\t\r\n\x20-\x7e\x80-\xff]")

_JOINED_BYTES = 64 * 1024

_date: tuple[int, str] = (0, "")


class Response(GunicornResponse):  # type: ignore[misc]
    """One HTTP/1.1 answer."""

    status: str | None
    headers_sent: bool
    _lines: str | None = None

    def start_response(self, status: str, headers: Iterable[tuple[str, str]], exc_info: Any = None) -> Any:
        """Takes status and headers; they leave with the first bytes."""
        headers = list(headers)
        if exc_info or self.status is not None or not _PLAIN.issuperset([name for name, _ in headers]):
            return super().start_response(status, headers, exc_info)
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
        # A value with a line end of its own would be a header of somebody else's choice.
        if _UNFIT.search(lines) or not lines.count("\r") == lines.count("\n") == lines.count("\r\n") == len(headers):
            return super().start_response(status, headers, exc_info)
        self.status, self.status_code, self.headers = status, int(status[:3]), headers
        length = [value for name, value in headers if name == "Content-Length"]
        self.response_length = int(length[-1]) if length else None
        self._omits_body = self._response_omits_body(self.req.method, self.status_code)
        if len(length) > 1 or (length and self._response_forbids_content_length(self.status_code)):
            self.status, self.headers, self.response_length = None, [], None
            return super().start_response(status, headers, exc_info)
        self.chunked = self.is_chunked()
        self._lines = lines
        return self.write

    def take_head(self) -> bytes:
        """The head, for whoever sends it with what follows; empty when it has left, or is gunicorn's to send."""
        if self._lines is None or self.headers_sent:
            return b""
        self.headers_sent = True
        major, minor = self.req.version
        first = f"HTTP/{major}.{minor} {self.status}\r\nServer: {self.version}\r\nDate: {_http_date()}\r\n"
        connection = "close" if self.should_close() else "keep-alive"
        coding = "Transfer-Encoding: chunked\r\n" if self.chunked else ""
        return f"{first}Connection: {connection}\r\n{coding}{self._lines}\r\n".encode("latin-1")

    def send_headers(self) -> None:
        """Sends the head by itself."""
        if self._lines is None:
            super().send_headers()
        elif head := self.take_head():
            self.sock.sendall(head)

    def write(self, data: bytes) -> None:
        """Sends a piece of the body, the first one with the head."""
        fits = not self._omits_body and self.response_length is not None and 0 < len(data) <= min(self.response_length, _JOINED_BYTES)
        if fits and (head := self.take_head()):
            self.sent += len(data)
            self.sock.sendall(head + data)
        else:
            super().write(data)


def _http_date() -> str:
    """The present second as Date has it."""
    global _date
    now = int(time.time())
    second, text = _date
    if second != now:
        text = formatdate(now, usegmt=True)
        _date = now, text
    return text
