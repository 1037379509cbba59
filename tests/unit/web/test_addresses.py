"""Who is believed about addresses, and which hosts are served."""

from __future__ import annotations

from typing import Any

import pytest

from pacslite.errors import ConfigurationError, Misdirected
from pacslite.settings import load
from pacslite.web.addresses import base_url, client_address, host_check, is_trusted
from pacslite.web.encodings import accepts_gzip

TRUSTED = ("127.0.0.1", "10.0.0.0/8", "fd00::/8")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X_FORWARDED_HOST": "p.example", "X_FORWARDED_PORT": "8443", "X_FORWARDED_PROTO": "https"}, "https://p.example:8443"),
        ({"X_FORWARDED_HOST": "p.example", "X_FORWARDED_PORT": "443", "X_FORWARDED_PROTO": "https"}, "https://p.example"),
        ({"X_FORWARDED_HOST": "p.example:1", "X_FORWARDED_PORT": "2"}, "http://p.example:1"),
        ({"X_FORWARDED_HOST": "[::1]", "X_FORWARDED_PORT": "8080"}, "http://[::1]:8080"),
        ({"X_FORWARDED_HOST": "p.example", "X_FORWARDED_PORT": "8080, 80"}, "http://p.example:8080"),
        ({"X_FORWARDED_HOST": "p.example", "X_FORWARDED_PREFIX": "/a/b/"}, "http://p.example/a/b"),
        ({"FORWARDED": "proto=https;host=a.example, host=b.example", "X_FORWARDED_HOST": "c.example"}, "https://a.example"),
    ],
)
def test_what_a_trusted_proxy_says_counts(headers: dict[str, str], expected: str) -> None:
    environ: dict[str, Any] = {"wsgi.url_scheme": "http", "HTTP_HOST": "h", **{f"HTTP_{name}": value for name, value in headers.items()}}
    assert base_url({**environ, "REMOTE_ADDR": "10.1.2.3"}, None, TRUSTED) == expected
    assert base_url({**environ, "REMOTE_ADDR": "11.1.2.3"}, None, TRUSTED) == "http://h"


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("127.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("127.0.0.1", "6.6.6.6, 1.2.3.4, 10.0.0.5", "1.2.3.4"),  # what the caller itself claims is not believed
        ("127.0.0.1", "10.0.0.9, 10.0.0.5", "10.0.0.9"),
        ("127.0.0.1", "nonsense", "127.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("1.1.1.1", "2.2.2.2", "1.1.1.1"),
    ],
)
def test_the_caller_is_the_last_one_before_the_trusted(peer: str, forwarded: str, expected: str) -> None:
    assert client_address({"REMOTE_ADDR": peer, "HTTP_X_FORWARDED_FOR": forwarded}, TRUSTED) == expected


@pytest.mark.parametrize(("address", "trusted"), [("10.255.0.1", True), ("::1", False), ("fd00::7", True), ("", False), ("unix:", False)])
def test_networks_are_trusted_as_a_whole(address: str, trusted: bool) -> None:
    assert is_trusted(address, TRUSTED) is trusted


@pytest.mark.parametrize("settings", [{"trusted_proxies": "proxy"}, {"trusted_proxies": "10.0.0.0/99"}, {"public_url": "pacs.example"}])
def test_settings_that_name_no_address_are_errors(settings: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        load(environment={}, **settings)


@pytest.mark.parametrize(
    ("settings", "host", "served"),
    [
        ({}, "localhost:1", True),
        ({}, "127.0.0.1", True),
        ({}, "[::1]:8080", True),
        ({}, "", True),
        ({}, "pacs.example", False),
        ({}, "127.0.0.1.evil.example", False),
        ({}, "evil.example/localhost", False),
        ({"http": "127.0.0.5:80"}, "127.0.0.5", True),
        ({"allowed_hosts": "Pacs.Example"}, "pacs.example.", True),
        ({"public_url": "https://[fd00::1]:8443/x"}, "[fd00::1]", True),
        ({"http": "10.0.0.1:80", "allowed_hosts": "a"}, "b", False),
        ({"http": "10.0.0.1:80", "allowed_hosts": "a"}, "10.0.0.1", True),
    ],
)
def test_hosts_that_are_served(settings: dict[str, str], host: str, served: bool) -> None:
    check = host_check(load(environment={}, **settings))
    assert check is not None
    if served:
        check({"HTTP_HOST": host})
    else:
        with pytest.raises(Misdirected, match="allowed_hosts"):
            check({"HTTP_HOST": host})


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("gzip", True),
        ("br, x-gzip", True),
        ("*", True),
        ("*;q=0", False),
        ("gzip ; q=0.0", False),
        ("GZIP;q=0.1", True),
        ("identity", False),
        ("", False),
    ],
)
def test_codings_a_caller_takes(header: str, taken: bool) -> None:
    assert accepts_gzip(header) is taken
