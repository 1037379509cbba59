"""Remote application entities and DICOMweb servers in the catalog. All processes read them from here, so a change counts at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from pacslite.catalog.models import PEER_COUNTS
from pacslite.catalog.models import peer as table
from pacslite.catalog.models import peer_statistics as statistics
from pacslite.catalog.statements import Prepared, time_text

SERVICES = ("store", "find", "move", "get")
DICOM, DICOMWEB = "dicom", "dicomweb"


@dataclass(frozen=True, slots=True)
class Peer:
    """A remote application entity: where it listens, and what it may ask of us (`SERVICES`).

    A DICOMweb server (`kind`) has a `url` in place of host and port, and `headers` that go with every request to it; those
    hold its secrets and are shown to nobody. `transfer_syntaxes` are preferred, in this order, when we send to it.
    `coercion_warnings` tells whether it is warned of accepted deviations, None for the setting of that name.
    """

    ae_title: str
    host: str
    port: int
    allow: tuple[str, ...] = SERVICES
    tls: bool = False
    created_at: str = ""
    kind: str = DICOM
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    transfer_syntaxes: tuple[str, ...] = ()
    coercion_warnings: bool | None = None

    @property
    def aet(self) -> str:
        """The title, as the DIMSE side calls it."""
        return self.ae_title


@dataclass(frozen=True, slots=True)
class Statistics:
    """What has passed between us and a peer."""

    associations_received: int = 0
    associations_sent: int = 0
    instances_received: int = 0
    bytes_received: int = 0
    instances_sent: int = 0
    bytes_sent: int = 0
    failures: int = 0
    last_seen_at: str | None = None


_COLUMNS = (
    table.c.ae_title,
    table.c.host,
    table.c.port,
    table.c.allow,
    table.c.tls,
    table.c.created_at,
    table.c.kind,
    table.c.url,
    table.c.headers,
    table.c.transfer_syntaxes,
    table.c.coercion_warnings,
)
_ALL = select(*_COLUMNS).order_by(table.c.ae_title)
# Made once: every request over DIMSE asks for its caller.
FIND = Prepared(select(*_COLUMNS).where(table.c.ae_title == bindparam("title")))
"""The row of a peer, for `Catalog.first` and `of_row`."""


def listed(connection: Connection) -> list[Peer]:
    """All peers by title."""
    return [_peer(*row) for row in connection.execute(_ALL)]


def find(connection: Connection, ae_title: str) -> Peer | None:
    """The peer of that title; AE titles are told apart by case (PS3.5 6.2)."""
    return of_row(FIND.first(connection, {"title": ae_title}))


def of_row(row: Sequence[Any] | None) -> Peer | None:
    """The peer of a row, None for none."""
    return None if row is None else _peer(*row)


def put(connection: Connection, peer: Peer) -> Peer:
    """Adds the peer, or replaces the one of the same title; what is then there."""
    known = find(connection, peer.ae_title)
    now = time_text(datetime.now(UTC))
    kept = replace(peer, created_at=known.created_at if known else now)
    connection.execute(delete(table).where(table.c.ae_title == peer.ae_title))
    connection.execute(
        insert(table).values(
            ae_title=kept.ae_title,
            host=kept.host,
            port=kept.port,
            allow=" ".join(kept.allow),
            tls=kept.tls,
            created_at=kept.created_at,
            updated_at=now,
            kind=kept.kind,
            url=kept.url or None,
            headers=json.dumps(dict(kept.headers)) if kept.headers else None,
            transfer_syntaxes=" ".join(kept.transfer_syntaxes) or None,
            coercion_warnings=kept.coercion_warnings,
        )
    )
    return kept


def remove(connection: Connection, ae_title: str) -> bool:
    """Forgets the peer; whether there was one."""
    connection.execute(delete(statistics).where(statistics.c.ae_title == ae_title))
    return connection.execute(delete(table).where(table.c.ae_title == ae_title)).rowcount > 0


def statistics_of(connection: Connection, ae_title: str) -> Statistics:
    """What is counted of a peer."""
    wanted = select(*(statistics.c[name] for name in PEER_COUNTS), statistics.c.last_seen_at).where(statistics.c.ae_title == ae_title)
    row = connection.execute(wanted).one_or_none()
    return Statistics() if row is None else Statistics(**row._mapping)


def count(connection: Connection, ae_title: str, counts: Mapping[str, int], seen_at: str | None) -> None:
    """Adds to the counts of a peer; nothing is kept of a title that is not known."""
    if find(connection, ae_title) is None:
        return
    changed = {name: statistics.c[name] + number for name, number in counts.items()} | ({"last_seen_at": seen_at} if seen_at else {})
    if not connection.execute(update(statistics).where(statistics.c.ae_title == ae_title).values(changed)).rowcount:
        connection.execute(insert(statistics).values(ae_title=ae_title, last_seen_at=seen_at, **counts))


def _peer(
    ae_title: str,
    host: str,
    port: int,
    allow: str,
    tls: bool,
    created_at: str,
    kind: str,
    url: str | None,
    headers: str | None,
    transfer_syntaxes: str | None,
    coercion_warnings: bool | None,
) -> Peer:
    warnings = None if coercion_warnings is None else bool(coercion_warnings)
    syntaxes = tuple((transfer_syntaxes or "").split())
    return Peer(
        ae_title, host, port, tuple(allow.split()), bool(tls), created_at, kind, url or "", json.loads(headers or "{}"), syntaxes, warnings
    )
