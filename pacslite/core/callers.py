"""Who may associate with us and what for: calling AE titles, addresses, user identities (PS3.7 D.3.3.7), peers' rights.

Over loopback any caller may store and query. From elsewhere only known peers may (`pacslite peer add`), each what its
`allow` says; `dicom_unknown_callers` widens or narrows that. A known peer is held to its `allow` from everywhere.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from ipaddress import ip_address
from typing import Protocol

from pacslite.catalog.peers import Peer
from pacslite.core.access import Principal
from pacslite.errors import Forbidden
from pacslite.settings import Settings

_log = logging.getLogger(__name__)
# A change of a peer counts for its running associations as well; one that stores a thousand instances a second
# does not ask the catalog before each.
_FRESH_S = 1.0
_RESOLVED_S = 60.0
_MAX_RESOLVED = 1024


class IdentityKind(Enum):
    """How users name themselves (PS3.7 table D.3-14)."""

    USERNAME = 1
    PASSWORD = 2
    KERBEROS = 3
    SAML = 4
    JWT = 5


@dataclass(frozen=True, slots=True)
class UserIdentity:
    """Who somebody claims to be: a name for USERNAME, name and password for PASSWORD, the token as secret for the others."""

    kind: IdentityKind
    name: str
    secret: str = field(default="", repr=False)


class Authenticate(Protocol):
    """Recognizes users (`core.dicom_logins`)."""

    def __call__(self, identity: UserIdentity, address: str, calling_aet: str) -> Principal | None:
        """The user, None when the identity is not accepted; raises PacsliteError when that cannot be told now."""

    def still(self, principal: Principal) -> Principal | None:
        """The user as of now, None when it is one no longer."""


class Refusal(Enum):
    """Why an association is refused."""

    UNKNOWN_CALLER = "calling AE title not known"
    WRONG_ADDRESS = "the address is not one of the peer's host"
    NO_IDENTITY = "no user identity"
    UNSUPPORTED_IDENTITY = "this kind of user identity is not supported"
    IDENTITY_REFUSED = "user identity not accepted"


class CallerRefused(Exception):
    """The association is not to be accepted."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Caller:
    """The requester of one association; one thread uses it."""

    def __init__(
        self,
        aet: str,
        principal: Principal | None,
        find_peer: Callable[[str], Peer | None],
        *,
        may_be_unknown: bool,
        still: Callable[[Principal], Principal | None] = lambda principal: principal,
    ) -> None:
        self.aet, self.principal, self._still = aet, principal, still
        self._find_peer, self._may_be_unknown = find_peer, may_be_unknown
        self._peer: Peer | None = None
        self._looked_at = 0.0

    @property
    def peer(self) -> Peer | None:
        """What is known of the caller, as of the last `check`; None when it is no peer."""
        return self._peer

    def check(self, service: str) -> None:
        """Raises Forbidden when the caller may not use this service (of `dimse.commands.RIGHTS`)."""
        now = time.monotonic()
        if service != "store" or now - self._looked_at > _FRESH_S:
            self._peer, self._looked_at = self._find_peer(self.aet), now
            if self.principal is not None:
                # What was taken from the user since the association began.
                self.principal = self._still(self.principal) or replace(self.principal, rights=frozenset())
        allowed = self._may_be_unknown if self._peer is None else _covering(service) in self._peer.allow
        if self.principal is not None:
            allowed = allowed and service in self.principal.services
        if not allowed:
            raise Forbidden(f"{self.aet} may not {service}")


class Callers:
    """The policy of one process; any thread may ask."""

    def __init__(self, settings: Settings, find_peer: Callable[[str], Peer | None], authenticate: Authenticate | None = None) -> None:
        self._settings, self._find_peer, self._authenticate = settings, find_peer, authenticate
        self._resolved: dict[str, tuple[float, frozenset[str]]] = {}

    def admit(self, aet: str, address: str, identity: UserIdentity | None) -> Caller:
        """The caller, when it may associate; raises CallerRefused, and PacsliteError when that cannot be told now."""
        policy, is_local = self._settings.dicom_unknown_callers, _is_loopback(address)
        may_be_unknown = policy == "accept" or (policy == "loopback" and is_local)
        peer = self._find_peer(aet)
        if peer is None and not may_be_unknown:
            raise CallerRefused(Refusal.UNKNOWN_CALLER)
        checked = peer is not None and not is_local and self._settings.dicom_check_peer_host
        if peer is not None and checked and _plain(address) not in self._addresses(peer.host):
            raise CallerRefused(Refusal.WRONG_ADDRESS)
        still = self._authenticate.still if self._authenticate is not None else lambda principal: principal
        return Caller(aet, self._recognize(identity, address, aet), self._find_peer, may_be_unknown=may_be_unknown, still=still)

    def _recognize(self, identity: UserIdentity | None, address: str, aet: str) -> Principal | None:
        policy = self._settings.dicom_user_identity
        if policy == "ignore":
            return None
        if identity is None:
            if policy == "required":
                raise CallerRefused(Refusal.NO_IDENTITY)
            return None
        if identity.kind in (IdentityKind.KERBEROS, IdentityKind.SAML):
            raise CallerRefused(Refusal.UNSUPPORTED_IDENTITY)
        principal = self._authenticate(identity, address, aet) if self._authenticate is not None else None
        if principal is None:
            raise CallerRefused(Refusal.IDENTITY_REFUSED)
        return principal

    def _addresses(self, host: str) -> frozenset[str]:
        """All addresses of a host, kept for a minute: names of hosts are asked of others, who may be slow."""
        now = time.monotonic()
        known = self._resolved.get(host)
        if known is None or now - known[0] > _RESOLVED_S:
            if len(self._resolved) >= _MAX_RESOLVED:
                self._resolved.clear()
            known = self._resolved[host] = now, _resolve(host)
        return known[1]


def _covering(service: str) -> str:
    """The right that a service needs: who may store may ask whether it is kept."""
    return "store" if service == "commitment" else service


def _resolve(host: str) -> frozenset[str]:
    try:
        return frozenset(_plain(str(found[4][0])) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    except OSError as error:
        _log.warning("host of a peer not resolved", extra={"host": host, "reason": error.strerror})
        return frozenset()


def _plain(address: str) -> str:
    """The address in its one form: IPv4 also when it came over IPv6, no zone."""
    parsed = ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)


def _is_loopback(address: str) -> bool:
    return ip_address(_plain(address)).is_loopback
