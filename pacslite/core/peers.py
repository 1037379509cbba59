"""The known remote application entities: kept in the catalog, asked by C-ECHO."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Literal

from pacslite.catalog import peers as rows
from pacslite.catalog.audit import Event, note
from pacslite.catalog.changes import Origin
from pacslite.catalog.peers import DICOM, DICOMWEB, SERVICES, Peer, Statistics
from pacslite.errors import InvalidForm, NotFound, PeerError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.catalog.database import Catalog

__all__ = [
    "SERVICES",
    "Echo",
    "Origin",
    "Peer",
    "Statistics",
    "echo",
    "find",
    "find_entity",
    "get",
    "listed",
    "put",
    "remove",
    "statistics",
]

# PS3.5 6.2, AE: 1-16 characters of the default repertoire, no backslash, no control characters; spaces around do not count.
_AE_TITLE = re.compile(r"[!-\[\]-~](?:[ -\[\]-~]{0,14}[!-\[\]-~])?")
# RFC 1123 2.1, and the underscore, which names in container networks have.
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_URL = re.compile(r"https?://[^\s/?#@]+(?:/[^\s?#]*)?")
# RFC 9110 5.1, 5.5
_HEADER_NAME, _HEADER_VALUE = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}"), re.compile(r"[!-~](?:[ -~\t]{0,4000}[!-~])?")
_UID = re.compile(r"[0-9.]{1,64}")
MAX_HEADERS = 20
_NOBODY = Origin("api")


@dataclass(frozen=True, slots=True)
class Echo:
    """What came of a C-ECHO."""

    outcome: Literal["success", "failed"]
    duration_s: float
    detail: str


def listed(catalog: Catalog) -> list[Peer]:
    """All peers by title."""
    with catalog.read() as connection:
        return rows.listed(connection)


def find(catalog: Catalog, ae_title: str) -> Peer | None:
    """The peer of that title, None when nobody added it."""
    return rows.of_row(catalog.first(rows.FIND, {"title": ae_title}))


def find_entity(catalog: Catalog, ae_title: str) -> Peer | None:
    """The application entity of that title: no DICOMweb server that happens to be called so."""
    peer = find(catalog, ae_title)
    return peer if peer is not None and peer.kind == DICOM else None


def get(catalog: Catalog, ae_title: str) -> Peer:
    """The peer of that title; raises NotFound."""
    peer = find(catalog, ae_title)
    if peer is None:
        raise NotFound(f"There is no peer {ae_title!r}.")
    return peer


def statistics(catalog: Catalog, ae_title: str) -> Statistics:
    """What is counted of a peer."""
    with catalog.read() as connection:
        return rows.statistics_of(connection, ae_title)


def put(catalog: Catalog, peer: Peer, origin: Origin = _NOBODY) -> Peer:
    """Adds the peer or replaces the one of the same title, at whose wish `origin` tells; raises InvalidForm."""
    faults = [*(_web_faults(peer) if peer.kind == DICOMWEB else _dicom_faults(peer))]
    faults += [("transfer_syntaxes", f"{uid!r} is not a UID") for uid in peer.transfer_syntaxes if not _UID.fullmatch(uid)]
    if faults:
        raise InvalidForm.of(faults)

    def work(connection: Connection) -> Peer:
        known = rows.find(connection, peer.ae_title)
        note(connection, _event("peer.create" if known is None else "peer.update", peer.ae_title, origin))
        return rows.put(connection, peer)

    return catalog.write(work)


def _dicom_faults(peer: Peer) -> Iterator[tuple[str, str]]:
    if not _AE_TITLE.fullmatch(peer.ae_title):
        yield "ae_title", "is not an AE title (1-16 characters of ISO 646, no backslash, no spaces around)"
    if not _HOST_NAME.fullmatch(peer.host) and not _is_address(peer.host):
        yield "host", "is neither the name of a host nor an IP address"
    if not 1 <= peer.port <= 65535:
        yield "port", "is missing or not from 1 to 65535"
    for name, given in (("url", peer.url), ("headers", peer.headers)):
        if given:
            yield name, "is for DICOMweb servers"


def _web_faults(peer: Peer) -> Iterator[tuple[str, str]]:
    if not _NAME.fullmatch(peer.ae_title):
        yield "name", "is not a name (1-64 letters, digits, dots, underscores and hyphens)"
    if not _URL.fullmatch(peer.url):
        yield "url", "is not an http or https URL without user, query and fragment"
    if peer.host or peer.port:
        yield "host", "is for DICOM peers; a DICOMweb server has a url"
    if len(peer.headers) > MAX_HEADERS:
        yield "headers", f"are more than {MAX_HEADERS}"
    for name, value in peer.headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            yield "headers", f"{name[:40]!r} is not a header, or its value is none"


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def remove(catalog: Catalog, ae_title: str, origin: Origin = _NOBODY) -> bool:
    """Forgets the peer; whether there was one."""

    def work(connection: Connection) -> bool:
        was_there = rows.remove(connection, ae_title)
        if was_there:
            note(connection, _event("peer.delete", ae_title, origin))
        return was_there

    return catalog.write(work)


def _event(action: str, ae_title: str, origin: Origin) -> Event:
    return Event(
        action,
        actor=origin.actor,
        object_type="peer",
        object_id=ae_title,
        address=origin.address,
        request_id=origin.request_id,
        protocol=origin.protocol,
    )


def echo(catalog: Catalog, ae_title: str, send_echo: Callable[[Peer], None]) -> Echo:
    """Sends a C-ECHO by `send_echo`, which raises PeerError; raises NotFound for a title nobody added."""
    peer = get(catalog, ae_title)
    begun = time.monotonic()
    try:
        send_echo(peer)
    except PeerError as error:
        return Echo("failed", round(time.monotonic() - begun, 3), str(error))
    detail = "C-ECHO answered with 0000H (Success)" if peer.kind == DICOM else "the DICOMweb server answers searches"
    return Echo("success", round(time.monotonic() - begun, 3), detail)
