"""A server of resumable uploads (tus 1.0.0) as we call it: begin, ask how far, append. What is refused is told, not raised."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from pacslite.errors import PeerError
from pacslite.webclient.client import reason_of

_MOST_ANSWER_BYTES = 64 * 1024
_OCTETS = "application/offset+octet-stream"


@dataclass(frozen=True, slots=True)
class Told:
    """An answer: its status, its headers in lower case, and the detail of a problem (RFC 9457)."""

    status: int
    headers: Mapping[str, str]
    detail: str = ""

    @property
    def offset(self) -> int | None:
        """`Upload-Offset`."""
        text = self.headers.get("upload-offset", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None

    @property
    def file_id(self) -> str | None:
        """The file that the upload became."""
        return self.headers.get("content-location", "").rpartition("/")[2] or None


class TusServer:
    """The uploads of one server; raises PeerError when it cannot be reached. To be used by one thread."""

    def __init__(self, url: str, headers: Mapping[str, str], connect_s: float = 10, silence_s: float = 120) -> None:
        self.host = urlsplit(url).netloc
        self._endpoint = url.rstrip("/") + "/api/v1/files/uploads"
        self._headers = {**headers, "Tus-Resumable": "1.0.0"}
        self._pool = urllib3.PoolManager(
            maxsize=1,
            retries=False,
            timeout=urllib3.Timeout(connect=connect_s, read=silence_s),
            ssl_context=ssl.create_default_context() if url.startswith("https:") else None,
        )

    def close(self) -> None:
        """Close the connection."""
        self._pool.clear()

    def begin(self, length: int, metadata: Mapping[str, str]) -> tuple[str, Told]:
        """A new upload: its URL, "" when it is refused."""
        said = ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in metadata.items())
        told = self._request("POST", self._endpoint, {"Upload-Length": str(length), "Upload-Metadata": said})
        place = urljoin(self._endpoint, told.headers.get("location", "")) if told.status == 201 else ""
        if place and urlsplit(place)[:2] != urlsplit(self._endpoint)[:2]:
            # Our secrets go to nobody but the server that was named; a proxy may have told the server another name.
            place = urljoin(self._endpoint, urlsplit(place).path)
        return place, told

    def head(self, url: str) -> Told:
        """How far an upload is."""
        return self._request("HEAD", url, {})

    def append(self, url: str, offset: int, length: int, pieces: Iterator[bytes]) -> Told:
        """Send so many bytes."""
        headers = {"Upload-Offset": str(offset), "Content-Type": _OCTETS, "Content-Length": str(length)}
        return self._request("PATCH", url, headers, pieces)

    def _request(self, method: str, url: str, headers: Mapping[str, str], body: Iterator[bytes] | None = None) -> Told:
        try:
            answer = self._pool.request(method, url, headers={**self._headers, **headers}, body=body, redirect=False, preload_content=False)
            data = answer.read(_MOST_ANSWER_BYTES)
            answer.close()
        except (HTTPError, OSError) as error:
            raise PeerError(f"{self.host}: {reason_of(error)}") from None
        return Told(answer.status, {name.lower(): value for name, value in answer.headers.items()}, _detail(data))


def _detail(data: bytes) -> str:
    try:
        told = json.loads(data)
        return str(told.get("detail") or "")[:500] if isinstance(told, dict) else ""
    except ValueError:
        return ""
