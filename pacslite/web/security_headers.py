"""What every answer tells browsers not to do; a page with needs of its own brings its own policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pacslite.settings import Settings
from pacslite.web.addresses import is_secure
from pacslite.web.messages import Headers

# Without a policy of its own an answer is data: it loads nothing, sends nothing, and is framed by nobody else.
DATA_POLICY = "default-src 'none'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
# Nothing here looks, listens or asks where one is; the viewer may fill the screen.
_FEATURES = ("camera", "microphone", "geolocation", "payment", "usb", "serial", "hid", "bluetooth", "midi", "display-capture")
_PERMISSIONS = ", ".join([*(f"{feature}=()" for feature in _FEATURES), "fullscreen=(self)"])
_OWN = frozenset({"content-security-policy", "x-frame-options", "referrer-policy"})

Added = Callable[[dict[str, Any], Headers], Headers]


def security_headers(settings: Settings) -> Added:
    """What adds them to an answer, given the environment and the headers it has already."""
    fixed: Headers = [
        ("X-Content-Type-Options", "nosniff"),
        ("Cross-Origin-Resource-Policy", "cross-origin" if settings.cors_origins else "same-origin"),
        ("Permissions-Policy", _PERMISSIONS),
    ]
    # Our URLs tell studies and searches: other sites learn nothing of them. Without any Referer a browser would say
    # `Origin: null` of the forms of our own pages.
    replaceable: Headers = [
        ("Content-Security-Policy", DATA_POLICY),
        ("X-Frame-Options", "SAMEORIGIN"),
        ("Referrer-Policy", "same-origin"),
    ]
    everything = fixed + replaceable
    strict: Headers = [("Strict-Transport-Security", f"max-age={settings.hsts_seconds}")] if settings.hsts_seconds else []

    def added(environ: dict[str, Any], present: Headers) -> Headers:
        own = {name.lower() for name, _ in present} & _OWN
        headers = [*fixed, *(one for one in replaceable if one[0].lower() not in own)] if own else list(everything)
        if strict and is_secure(environ, settings.public_url, settings.trusted_proxies):
            headers += strict
        return headers

    return added
