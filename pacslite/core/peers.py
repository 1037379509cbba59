"""The known remote application entities: kept in the catalog, asked by C-ECHO."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Literal

from pacslite.catalog import peers as rows
from pacslite.catalog.peers import SERVICES, Peer
from pacslite.errors import InvalidForm, NotFound, PeerError

if TYPE_CHECKING:
    from pacslite.catalog.database import Catalog

__all__ = ["SERVICES", "Echo", "Peer", "echo", "find", "listed", "put", "remove"]

# PS3.5 6.2, AE: 1-16 characters of the default repertoire, no backslash, no control characters; spaces around do not count.
_AE_TITLE = re.compile(r"[!-\[\]-~](?:[ -\[\]-~]{0,14}[!-\[\]-~])?")
# RFC 1123 2.1, and the underscore, which names in container networks have.
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")


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
    with catalog.read() as connection:
        return rows.find(connection, ae_title)


def put(catalog: Catalog, peer: Peer) -> Peer:
    """Adds the peer or replaces the one of the same title; raises InvalidForm."""
    faults: list[tuple[str, str]] = []
    if not _AE_TITLE.fullmatch(peer.ae_title):
        faults.append(("ae_title", "is not an AE title (1-16 characters of ISO 646, no backslash, no spaces around)"))
    if not _HOST_NAME.fullmatch(peer.host) and not _is_address(peer.host):
        faults.append(("host", "is neither the name of a host nor an IP address"))
    if faults:
        raise InvalidForm("; ".join(f"{name}: {message}" for name, message in faults), tuple(faults))
    return catalog.write(lambda connection: rows.put(connection, peer))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def remove(catalog: Catalog, ae_title: str) -> bool:
    """Forgets the peer; whether there was one."""
    return catalog.write(lambda connection: rows.remove(connection, ae_title))


def echo(catalog: Catalog, ae_title: str, send_echo: Callable[[Peer], None]) -> Echo:
    """Sends a C-ECHO by `send_echo`, which raises PeerError; raises NotFound for a title nobody added."""
    with catalog.read() as connection:
        peer = rows.find(connection, ae_title)
    if peer is None:
        raise NotFound(f"There is no peer {ae_title!r}.")
    begun = time.monotonic()
    try:
        send_echo(peer)
    except PeerError as error:
        return Echo("failed", round(time.monotonic() - begun, 3), str(error))
    return Echo("success", round(time.monotonic() - begun, 3), "C-ECHO answered with 0000H (Success)")
