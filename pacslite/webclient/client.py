"""One DICOMweb server as we call it: searches, instances fetched into a sink, instances sent from pieces.

Nothing is followed elsewhere: a redirect would take the secrets in the headers along. Every answer has a bound.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from pacslite.errors import PeerError
from pacslite.webclient.multipart import parts_into

_MAX_JSON_BYTES = 256 * 1024**2
_PIECE_BYTES = 256 * 1024
_TOLD_BYTES = 2000
DICOM_JSON = "application/dicom+json"


class WebClient:
    """A DICOMweb server. Safe for threads, each of which has a connection of its own."""

    def __init__(self, url: str, headers: Mapping[str, str], connect_s: float, silence_s: float, connections: int = 4) -> None:
        self._url, self._headers = url.rstrip("/"), dict(headers)
        self.host = urlsplit(url).netloc
        self._pool = urllib3.PoolManager(
            maxsize=connections,
            retries=False,
            timeout=urllib3.Timeout(connect=connect_s, read=silence_s),
            ssl_context=ssl.create_default_context() if url.startswith("https:") else None,
        )

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()

    def search(self, path: Sequence[str], parameters: Sequence[tuple[str, str]]) -> tuple[list[dict[str, Any]], bool]:
        """QIDO-RS: the matches, and whether the server says that there are more of them."""
        query = "?" + urlencode(parameters) if parameters else ""
        with self._request("GET", path, query, {"Accept": DICOM_JSON}) as answer:
            if answer.status == 204:
                return [], False
            self._expect(answer, (200, 206))
            data = _bounded(answer, _MAX_JSON_BYTES)
            more = answer.headers.get("Warning", "").startswith("299")
        try:
            found = json.loads(data or b"[]")
        except ValueError:
            raise PeerError(f"{self.host}: the answer to a search is not JSON") from None
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise PeerError(f"{self.host}: the answer to a search is not an array of data sets")
        return found, more

    def fetch(self, path: Sequence[str], write: Callable[[bytes], object]) -> None:
        """WADO-RS: the Part 10 file of one instance, as it is stored there."""
        accept = 'multipart/related; type="application/dicom"; transfer-syntax=*, application/dicom; transfer-syntax=*; q=0.9'
        with self._request("GET", path, "", {"Accept": accept}) as answer:
            self._expect(answer, (200, 206))
            kind = answer.headers.get("Content-Type", "")
            pieces = answer.stream(_PIECE_BYTES, decode_content=True)
            if kind.lower().startswith("multipart/related"):
                if parts_into(pieces, kind, write) != 1:
                    raise PeerError(f"{self.host}: the answer does not hold exactly one instance")
            elif kind.lower().startswith("application/dicom") and "json" not in kind.lower():
                for piece in pieces:
                    write(piece)
            else:
                raise PeerError(f"{self.host}: answered with {kind[:80] or 'no media type'} instead of an instance")

    def store(self, study_instance_uid: str, size_bytes: int, chunks: Iterable[bytes]) -> tuple[int, dict[str, Any]]:
        """STOW-RS of one instance: HTTP status and the JSON of the answer, empty when it is none."""
        boundary = os.urandom(16).hex()
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        headers = {
            "Accept": DICOM_JSON,
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Content-Length": str(len(head) + size_bytes + len(tail)),
        }

        def body() -> Iterator[bytes]:
            yield head
            yield from chunks
            yield tail

        with self._request("POST", ("studies", study_instance_uid), "", headers, body()) as answer:
            data = _bounded(answer, _MAX_JSON_BYTES)
            if answer.status in (401, 403, 404, 405, 500, 502, 503, 504) or 300 <= answer.status < 400:
                raise PeerError(f"{self.host}: {self._told(answer.status, data)}")
        try:
            told = json.loads(data or b"{}")
        except ValueError:
            told = {}
        return answer.status, told if isinstance(told, dict) else {}

    @contextmanager
    def _request(
        self, method: str, path: Sequence[str], query: str, headers: Mapping[str, str], body: Iterator[bytes] | None = None
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        url = "/".join((self._url, *(quote(segment, safe="") for segment in path))) + query
        answer: urllib3.BaseHTTPResponse | None = None
        try:
            answer = self._pool.request(
                method, url, headers={**self._headers, **headers}, body=body, redirect=False, preload_content=False, decode_content=True
            )
            yield answer
        except (HTTPError, OSError) as error:
            raise PeerError(f"{self.host}: {reason_of(error)}") from None
        finally:
            if answer is not None:
                # What has not been read to its end is not used again.
                answer.close() if not getattr(answer, "closed", False) and answer.length_remaining else answer.release_conn()

    def _expect(self, answer: urllib3.BaseHTTPResponse, statuses: tuple[int, ...]) -> None:
        if answer.status not in statuses:
            raise PeerError(f"{self.host}: {self._told(answer.status, answer.read(_TOLD_BYTES))}")

    def _told(self, status: int, data: bytes) -> str:
        """The status, and the detail of a problem (RFC 9457) when there is one."""
        detail = ""
        try:
            told = json.loads(data)
            detail = str(told.get("detail") or told.get("Details") or told.get("Message") or "") if isinstance(told, dict) else ""
        except ValueError:
            pass
        return f"HTTP status {status}{': ' if detail else ''}{detail[:200]}"


def _bounded(answer: urllib3.BaseHTTPResponse, most: int) -> bytes:
    pieces, size = [], 0
    for piece in answer.stream(_PIECE_BYTES, decode_content=True):
        size += len(piece)
        if size > most:
            raise PeerError(f"an answer of more than {most} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def reason_of(error: Exception) -> str:
    """Why, without the objects that urllib3 puts into its texts."""
    cause = getattr(error, "reason", None)
    if isinstance(cause, ssl.SSLError) or isinstance(error, ssl.SSLError):
        return f"no TLS: {cause or error}"
    name = type(cause if isinstance(cause, Exception) else error).__name__
    known = {
        "NewConnectionError": "no connection",
        "NameResolutionError": "the host is not known",
        "ConnectTimeoutError": "no connection in time",
        "ReadTimeoutError": "no answer in time",
        "ProtocolError": "the connection was lost",
        "ConnectionRefusedError": "connection refused",
    }
    return known.get(name, name)
