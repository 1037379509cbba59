"""Sending the audit log to a syslog server: over TLS (RFC 5425), TCP (RFC 6587, counted), or UDP (RFC 5426).

The log itself is the spool: how far the server has got it stands in the catalog, and goes on only when a connection over which
entries were sent was closed in order, or all that was sent was acknowledged. So nothing is lost while the server is away; what was
under way when a connection broke is sent again.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pacslite.catalog import audit as rows
from pacslite.core.audit_message import to_syslog
from pacslite.core.audit_segments import SYSLOG
from pacslite.errors import ConfigurationError, PeerError
from pacslite.settings import SYSLOG_TARGET

if TYPE_CHECKING:
    from pacslite.catalog.database import Catalog
    from pacslite.core.audit import Entry
    from pacslite.settings import Settings

_log = logging.getLogger(__name__)
_PORTS = {"tls": 6514, "tcp": 601, "udp": 514}
_BATCH = 200
_MOST_BATCHES = 50
_TIMEOUT_S = 10.0
_CLOSE_S = 5.0
_SIOCOUTQ = 0x5411
_MAX_DATAGRAM = 60_000


@dataclass(frozen=True, slots=True)
class Target:
    """A syslog server, and what it is trusted by."""

    transport: str
    host: str
    port: int
    ca: Path | None = None
    certificate: Path | None = None


def target_of(settings: Settings) -> Target | None:
    """Where messages go, None for nowhere; raises ConfigurationError."""
    if not settings.audit_syslog:
        return None
    found = SYSLOG_TARGET.fullmatch(settings.audit_syslog)
    if found is None or int(found[3] or 1) > 65535:
        raise ConfigurationError(f"audit_syslog: {settings.audit_syslog!r} is not tls://HOST:PORT, tcp://HOST:PORT or udp://HOST:PORT")
    port = int(found[3] or _PORTS[found[1]])
    return Target(found[1], found[2].strip("[]"), port, settings.audit_syslog_ca, settings.audit_syslog_certificate)


def send_new(catalog: Catalog, target: Target, source_id: str, aet: str) -> int:
    """Send what the server has not got; how many entries. Raises PeerError when it cannot be reached or breaks off."""
    sent, name = 0, source_id or socket.gethostname()
    for _ in range(_MOST_BATCHES):
        with catalog.read() as conn:
            cursor = rows.state(conn, SYSLOG)
            first, _last = rows.bounds(conn)
            cursor = max(cursor, first - 1)
            batch = rows.after(conn, cursor, _BATCH)
        if not batch:
            break
        _deliver(target, [to_syslog(entry, name, aet, os.getpid()) for entry in batch])
        _note(catalog, batch)
        sent += len(batch)
    return sent


def _note(catalog: Catalog, batch: list[Entry]) -> None:
    last = batch[-1].seq
    catalog.write(lambda conn: rows.set_state(conn, SYSLOG, max(last, rows.state(conn, SYSLOG))))


def _deliver(target: Target, messages: list[bytes]) -> None:
    try:
        if target.transport == "udp":
            _send_datagrams(target, messages)
            return
        with _connected(target) as connection:
            for message in messages:
                connection.sendall(b"%d %s" % (len(message), message))
            _finish(connection)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise PeerError(f"audit messages wait: the syslog server {target.host}:{target.port} cannot be reached", reason) from error


def _send_datagrams(target: Target, messages: list[bytes]) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as sender:
        sender.settimeout(_TIMEOUT_S)
        sender.connect(address)
        for message in messages:
            sender.send(message[:_MAX_DATAGRAM])


@contextlib.contextmanager
def _connected(target: Target) -> Iterator[socket.socket]:
    with socket.create_connection((target.host, target.port), _TIMEOUT_S) as plain:
        plain.settimeout(_TIMEOUT_S)
        if target.transport == "tcp":
            yield plain
            return
        with _context(target).wrap_socket(plain, server_hostname=target.host) as secure:
            yield secure


def _context(target: Target) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(target.ca) if target.ca else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if target.certificate:
        context.load_cert_chain(target.certificate)
    return context


def _finish(connection: socket.socket) -> None:
    """Close in order and wait until the server has: then it has read everything. One that stays open has to acknowledge all."""
    deadline = time.monotonic() + _CLOSE_S
    connection.settimeout(_CLOSE_S)
    try:
        if isinstance(connection, ssl.SSLSocket):
            with contextlib.suppress(ssl.SSLEOFError, ssl.SSLZeroReturnError, ValueError):
                connection = connection.unwrap()
        connection.shutdown(socket.SHUT_WR)
        while time.monotonic() < deadline and connection.recv(4096):
            pass
    except TimeoutError:
        left = struct.unpack("i", fcntl.ioctl(connection, _SIOCOUTQ, b"\0" * 4))[0]
        if left:
            raise
    except OSError as error:
        if not isinstance(error, ssl.SSLError) and error.errno is not None and not isinstance(error, BrokenPipeError):
            raise
