"""The addresses that `serve` takes: the checks before, and the sockets that the processes of a role share."""

from __future__ import annotations

import errno
import socket
import time
from dataclasses import replace

from pacslite.errors import ConfigurationError, Unavailable
from pacslite.settings import Address, Settings

_BACKLOG = 1024
# The kernel takes a moment to end the processes of a supervisor that was killed; their ports are free then.
_PATIENCE_S = 3.0
_PAUSE_S = 0.05


def check_loopback(settings: Settings) -> None:
    """Refuses a web address that others can reach when nobody has to log in; raises ConfigurationError.

    DICOM listens anywhere: callers from elsewhere are held to `dicom_unknown_callers` and the known peers.
    """
    address = settings.http
    if not settings.auth and not address.is_loopback:
        raise ConfigurationError(
            f"http: {address.text} can be reached from other machines, and nobody has to log in (--no-auth, auth = off); "
            f"use a loopback address such as 127.0.0.1:{address.port}, or let users log in"
        )


def bind(address: Address, *, shared: bool) -> socket.socket:
    """A bound socket; `shared` lets other processes bind the same port (SO_REUSEPORT). Raises Unavailable when it is taken.

    A socket that is bound and does not listen gets no connections: it only keeps the port for those that do.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            if shared and address.port:
                # Another server that shares ports too would not be noticed by the bind below.
                _bound(address, shared=False).close()
            return _bound(address, shared=shared)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                advice = "choose another address or end what uses it"
                raise Unavailable(f"cannot listen on {address.text}: {error.strerror}; {advice}") from None
        time.sleep(_PAUSE_S)  # nothing tells when a port is free


def _bound(address: Address, *, shared: bool) -> socket.socket:
    family, kind, protocol, _, target = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(target)
    except OSError:
        made.close()
        raise
    return made


def listen(address: Address) -> socket.socket:
    """A listening socket that a web server can inherit."""
    made = bind(address, shared=False)
    made.listen(_BACKLOG)
    return made


def real_address(address: Address, bound: socket.socket) -> Address:
    """The address with the port that the system chose."""
    return replace(address, port=bound.getsockname()[1])
