"""The request and the reply that handlers see, whatever server or framework carries them.

A handler is a plain function `(pacs, request, **path_arguments) -> Reply`. It raises errors of `pacslite.errors`; it never
renders one. Nothing here knows Flask: the adapters are `web.app` (Flask) and `web.front` (WSGI).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qsl

from pacslite.core.access import Principal, Right
from pacslite.core.content import FileBody as FileBody
from pacslite.core.content import StreamBody as StreamBody
from pacslite.errors import BadRequest
from pacslite.web.addresses import base_url, client_address, is_secure

Headers = list[tuple[str, str]]


class BodyStream(Protocol):
    """The bytes of a request; `read(n)` gives fewer than n bytes only at the end."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes."""
        ...


class Request:
    """One HTTP request over a WSGI environment; everything is parsed when first asked for.

    `request_id` is the caller's own when it is well-formed. `public_url` is the setting of that name, or None.
    `principal` is filled by the hooks that know who calls. A handler that has noted its own event in the audit log sets
    `is_recorded`.
    """

    __slots__ = (
        "_base_url",
        "_query",
        "_trusted_proxies",
        "environ",
        "is_recorded",
        "method",
        "path",
        "principal",
        "public_url",
        "request_id",
    )

    def __init__(
        self,
        environ: dict[str, Any],
        request_id: str = "",
        public_url: str | None = None,
        trusted_proxies: tuple[str, ...] = (),
    ) -> None:
        self.environ = environ
        self.method: str = environ["REQUEST_METHOD"]
        self.path: str = environ.get("PATH_INFO", "")
        self.request_id = request_id
        self.public_url = public_url
        self._trusted_proxies = trusted_proxies
        self.principal: Principal | None = None
        self.is_recorded = False
        self._query: list[tuple[str, str]] | None = None
        self._base_url: str | None = None

    @property
    def actor(self) -> str:
        """The name of who calls, "" when that is nobody known."""
        return self.principal.username if self.principal is not None else ""

    def header(self, name: str) -> str | None:
        """The value of a header (several are joined by commas), or None."""
        key = name.upper().replace("-", "_")
        if key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            return self.environ.get(key) or None
        value: str | None = self.environ.get("HTTP_" + key)
        return value

    @property
    def query(self) -> list[tuple[str, str]]:
        """Name and value of every query parameter in order, percent-decoded as UTF-8, `+` as space.

        Raises BadRequest when the bytes are not UTF-8 or there are absurdly many.
        """
        if self._query is None:
            text: str = self.environ.get("QUERY_STRING", "")
            try:
                self._query = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=1000) if text else []
            except UnicodeDecodeError:
                raise BadRequest("The query string is not percent-encoded UTF-8.") from None
            except ValueError:
                raise BadRequest("The query string has more than 1000 parameters.") from None
        return self._query

    def arguments(self, name: str) -> list[str]:
        """All values of one query parameter."""
        return [value for key, value in self.query if key == name]

    def asking(self, accept: str, query_string: str) -> Request:
        """The same request with another Accept header and query."""
        inner = copy(self)
        inner.environ = {**self.environ, "HTTP_ACCEPT": accept, "QUERY_STRING": query_string}
        inner._query = None
        return inner

    @property
    def content_length(self) -> int | None:
        """The announced length of the body; None when it is chunked or absent."""
        text = self.environ.get("CONTENT_LENGTH", "")
        return int(text) if text.isdigit() else None

    @property
    def base_url(self) -> str:
        """Scheme, authority and path prefix under which the caller reaches the server, without a final slash.

        Safe to write into JSON and headers as it is; raises BadRequest for a Host that is none.
        """
        if self._base_url is None:
            self._base_url = base_url(self.environ, self.public_url, self._trusted_proxies)
        return self._base_url

    @property
    def is_secure(self) -> bool:
        """Whether the caller came by TLS."""
        return is_secure(self.environ, self.public_url, self._trusted_proxies)

    @property
    def address(self) -> str:
        """Address of the caller, as a trusted proxy tells it."""
        return client_address(self.environ, self._trusted_proxies)

    @property
    def dicomweb_url(self) -> str:
        """The DICOMweb root."""
        return self.base_url + "/dicom-web"


Segment = bytes | FileBody | StreamBody


def length_of(segment: Segment) -> int | None:
    """Bytes of one segment, None when that is not known."""
    return len(segment) if isinstance(segment, bytes) else segment.length


@dataclass(frozen=True, slots=True)
class SegmentsBody:
    """Several segments sent one after another: a multipart body."""

    segments: Sequence[Segment]

    @property
    def length(self) -> int | None:
        """Bytes in all, None when a segment does not know."""
        total = 0
        for segment in self.segments:
            length = len(segment) if isinstance(segment, bytes) else segment.length
            if length is None:
                return None
            total += length
        return total


Body = bytes | FileBody | StreamBody | SegmentsBody


@dataclass(slots=True)
class Reply:
    """Status, headers and body of an answer; Content-Length is added by whoever sends it."""

    status: int
    headers: Headers = field(default_factory=list)
    body: Body = b""

    def header(self, name: str) -> str | None:
        """The first header of that name."""
        lowered = name.lower()
        for key, value in self.headers:
            if key.lower() == lowered:
                return value
        return None


Handler = Callable[..., Reply]
Check = Callable[[Request], None]


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one resource. `rule` is written as Flask does: `/studies/<study>/series`.

    `right` is what a caller needs. A `hot` route is also served by `web.front`, past Flask. `action` is what its events are
    called in the audit log, when that does not follow from method and rule (`web.audit`). `always` are headers of all its
    answers, problems too. `check` looks at a request before the handler does.
    """

    method: str
    rule: str
    handler: Handler
    right: Right
    hot: bool = False
    action: str = ""
    always: tuple[tuple[str, str], ...] = ()
    check: Check | None = None
