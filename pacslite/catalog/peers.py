"""Remote application entities in the catalog. All processes read them from here, so a change counts at once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, bindparam, delete, insert, select

from pacslite.catalog.models import peer as table

SERVICES = ("store", "find", "move", "get")


@dataclass(frozen=True, slots=True)
class Peer:
    """A remote application entity: where it listens, and what it may ask of us (`SERVICES`)."""

    ae_title: str
    host: str
    port: int
    allow: tuple[str, ...] = SERVICES
    tls: bool = False
    created_at: str = ""

    @property
    def aet(self) -> str:
        """The title, as the DIMSE side calls it."""
        return self.ae_title


_COLUMNS = (table.c.ae_title, table.c.host, table.c.port, table.c.allow, table.c.tls, table.c.created_at)
_ALL = select(*_COLUMNS).order_by(table.c.ae_title)
# Made once: every request over DIMSE asks for its caller.
_FIND = select(*_COLUMNS).where(table.c.ae_title == bindparam("title"))


def listed(connection: Connection) -> list[Peer]:
    """All peers by title."""
    return [_peer(*row) for row in connection.execute(_ALL)]


def find(connection: Connection, ae_title: str) -> Peer | None:
    """The peer of that title; AE titles are told apart by case (PS3.5 6.2)."""
    row = connection.execute(_FIND, {"title": ae_title}).one_or_none()
    return None if row is None else _peer(*row)


def put(connection: Connection, peer: Peer) -> Peer:
    """Adds the peer, or replaces the one of the same title; what is then there."""
    known = find(connection, peer.ae_title)
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    kept = Peer(peer.ae_title, peer.host, peer.port, peer.allow, peer.tls, known.created_at if known else now)
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
        )
    )
    return kept


def remove(connection: Connection, ae_title: str) -> bool:
    """Forgets the peer; whether there was one."""
    return connection.execute(delete(table).where(table.c.ae_title == ae_title)).rowcount > 0


def _peer(ae_title: str, host: str, port: int, allow: str, tls: bool, created_at: str) -> Peer:
    return Peer(ae_title, host, port, tuple(allow.split()), bool(tls), created_at)
