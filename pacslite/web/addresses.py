"""Under which URL a caller reaches the server, where the caller is, and which Host headers are served.

Behind a proxy the `public_url` says it, else what a trusted proxy tells by `Forwarded` (RFC 7239) or `X-Forwarded-*`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from pacslite.errors import BadRequest, Misdirected
from pacslite.settings import Settings

_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")
_PORT = re.compile(r"\d{1,5}")
_FORWARDED_PAIR = re.compile(r'(proto|host)="?([^";,\s]+)"?')
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_SIGNS_OF_A_PROXY = ("HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST", "HTTP_X_FORWARDED_PROTO")
_DEFAULT_PORTS = {"http": "80", "https": "443"}
ANY_HOST = "*"

HostCheck = Callable[[dict[str, Any]], None]


def base_url(environ: dict[str, Any], public_url: str | None, trusted_proxies: tuple[str, ...]) -> str:
    """Scheme, authority and path prefix as the caller sees them, without a final slash; raises BadRequest for a Host that is none."""
    if public_url:
        return public_url.rstrip("/")
    scheme: str = environ["wsgi.url_scheme"]
    host = _own_host(environ)
    prefix: str = environ.get("SCRIPT_NAME", "").rstrip("/")
    if trusted_proxies and is_trusted(environ.get("REMOTE_ADDR", ""), trusted_proxies):
        # The first of several is what the outermost proxy saw; Forwarded goes before the older headers.
        forwarded = dict(_FORWARDED_PAIR.findall(_first(environ, "HTTP_FORWARDED").lower()))
        scheme = forwarded.get("proto") or _first(environ, "HTTP_X_FORWARDED_PROTO").lower() or scheme
        host = forwarded.get("host") or _with_port(_first(environ, "HTTP_X_FORWARDED_HOST") or host, scheme, environ)
        prefix = (_first(environ, "HTTP_X_FORWARDED_PREFIX") or prefix).rstrip("/")
    return _checked_url(scheme, host, prefix)


def is_secure(environ: dict[str, Any], public_url: str | None, trusted_proxies: tuple[str, ...]) -> bool:
    """Whether the caller came by TLS, as the public URL or a trusted proxy tells."""
    if public_url:
        return public_url.startswith("https:")
    if trusted_proxies and is_trusted(environ.get("REMOTE_ADDR", ""), trusted_proxies):
        forwarded = dict(_FORWARDED_PAIR.findall(_first(environ, "HTTP_FORWARDED").lower()))
        told = forwarded.get("proto") or _first(environ, "HTTP_X_FORWARDED_PROTO").lower()
        if told:
            return told == "https"
    return bool(environ["wsgi.url_scheme"] == "https")


def client_address(environ: dict[str, Any], trusted_proxies: tuple[str, ...]) -> str:
    """Address of the caller: behind trusted proxies the last one of X-Forwarded-For that is none of them."""
    address: str = environ.get("REMOTE_ADDR", "")
    if not trusted_proxies or not is_trusted(address, trusted_proxies):
        return address
    for given in reversed(environ.get("HTTP_X_FORWARDED_FOR", "")[:4096].split(",")):
        try:
            hop = str(ip_address(given.strip()))
        except ValueError:
            return address
        address = hop
        if not is_trusted(hop, trusted_proxies):
            return hop
    return address


@lru_cache(maxsize=1024)
def is_trusted(address: str, trusted: tuple[str, ...]) -> bool:
    """Whether an address is one of those, or in one of those networks (`10.0.0.0/8`)."""
    try:
        found = ip_address(address)
    except ValueError:
        return address in trusted
    networks = [ip_network(one, strict=False) for one in trusted if one[:1] in "0123456789" or ":" in one]
    return any(found in network for network in networks if network.version == found.version)


def host_check(settings: Settings) -> HostCheck | None:
    """What refuses requests for hosts that are not this server; None when every host is served.

    A page of another site can have its name resolve to a loopback address and then read what is served there without a login (DNS
    rebinding): the browser sends the name of that site as Host. So a server on a loopback address answers only to
    loopback names, to the host of its public URL, and to `allowed_hosts`.
    """
    if ANY_HOST in settings.allowed_hosts or not (settings.allowed_hosts or settings.http.is_loopback):
        return None
    known = {*settings.allowed_hosts, *_LOOPBACK_NAMES, _bracketed(settings.http.host)}
    if settings.public_url:
        known.add(_bracketed(urlsplit(settings.public_url).hostname or ""))
    names = frozenset(name.lower().rstrip(".") for name in known)

    def check(environ: dict[str, Any]) -> None:
        # An HTTP/1.0 client may name none; what it gets has the address it called.
        host = environ.get("HTTP_HOST")
        if host and not _is_one_of(host, names):
            raise Misdirected(
                f"This server does not answer for the host {_shown(host)}. If it should, name that host in the setting allowed_hosts "
                "(PACSLITE_ALLOWED_HOSTS), or set public_url to the URL that clients use."
            )

    return check


@lru_cache(maxsize=256)
def _is_one_of(host: str, names: frozenset[str]) -> bool:
    found = _HOST.fullmatch(host)
    return found is not None and found[1].lower().rstrip(".") in names


def _shown(host: str) -> str:
    return repr(host[:80]) if _HOST.fullmatch(host) else "named"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _first(environ: dict[str, Any], name: str) -> str:
    value: str = environ.get(name, "")
    return value.partition(",")[0].strip()


def _with_port(host: str, scheme: str, environ: dict[str, Any]) -> str:
    """The host with the port a proxy names apart, where that is not the scheme's own."""
    port = _first(environ, "HTTP_X_FORWARDED_PORT")
    if not _PORT.fullmatch(port) or port == _DEFAULT_PORTS.get(scheme) or re.search(r":\d+$", host):
        return host
    return f"{host}:{port}"


def _own_host(environ: dict[str, Any]) -> str:
    """The Host header; with our port where a client has forgotten it.

    dicomweb-client sends `Host: 127.0.0.1` to any port (RFC 9110 7.2 wants the port), and could not follow the URLs made from
    that. Only the address that was called is completed, and nothing that has come through a proxy, whose port may be another.
    """
    host: str = environ.get("HTTP_HOST", "")
    called, port = environ.get("SERVER_NAME", ""), environ.get("SERVER_PORT", "80")
    if not host:
        return f"[{called}]:{port}" if ":" in called else f"{called}:{port}"
    is_ours = host in _LOOPBACK_NAMES or host.strip("[]") == called
    if not is_ours or port == "80" or environ["wsgi.url_scheme"] != "http" or any(name in environ for name in _SIGNS_OF_A_PROXY):
        return host
    return f"{host}:{port}"


@lru_cache(maxsize=256)
def _checked_url(scheme: str, host: str, prefix: str) -> str:
    if scheme not in ("http", "https") or not _HOST.fullmatch(host) or not _PREFIX.fullmatch(prefix):
        raise BadRequest("The Host header, or one that a proxy has set, is malformed.")
    return f"{scheme}://{host}{prefix}"
