"""The pages of the site itself: templates, their style sheet, and the forms they send. No page needs a script.

What a page shows of a caller is escaped by the templates; where it leads to after a login is a path of this server.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined

from pacslite import __version__
from pacslite.core.access import Right
from pacslite.errors import BadRequest, Unauthenticated, UnsupportedContent
from pacslite.web.authentication import browser_login_of
from pacslite.web.incoming import whole_body
from pacslite.web.messages import Headers, Reply, Request, Route

if TYPE_CHECKING:
    from pacslite.app import Pacs
    from pacslite.core.accounts import Recognized

_POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
_MAX_FORM_BYTES = 64 * 1024
# Printable ASCII that begins with one slash: two, or a backslash, would name another host, and browsers drop tabs and line ends.
_LOCAL = re.compile(r"/(?!/)[!-\[\]-~]{0,2000}")


def prefix_of(request: Request) -> str:
    """The path under which the caller reaches the server, percent-encoded, without a final slash."""
    return quote(urlsplit(request.base_url).path.rstrip("/"), safe="/%")


def page(request: Request, template: str, status: int = 200, headers: Headers | None = None, **values: Any) -> Reply:
    """A page made of a template."""
    root = prefix_of(request)
    text = _environment().get_template(template).render(root=root, version=__version__, style=_style_tag(), **values)
    fixed: Headers = [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Cache-Control", "no-store"),
        ("Content-Security-Policy", _POLICY),
        ("X-Frame-Options", "DENY"),
    ]
    return Reply(status, [*fixed, *(headers or [])], text.encode())


def redirect(location: str, headers: Headers | None = None) -> Reply:
    """Leads to another page by GET."""
    return Reply(303, [("Location", location), ("Cache-Control", "no-store"), *(headers or [])])


def local_path(request: Request, wanted: str | None) -> str:
    """Where to go after a login: the path that is wanted if it is one of this server, else the start page."""
    root = prefix_of(request) + "/"
    if wanted and _LOCAL.fullmatch(wanted) and wanted.startswith(root) and "/../" not in wanted.partition("?")[0] + "/":
        return wanted
    return root


def login_path(request: Request, then: str) -> str:
    """The login page, which leads to a path afterwards."""
    return f"{prefix_of(request)}/login?next={quote(then, safe='')}"


def form_of(request: Request) -> dict[str, list[str]]:
    """The fields of a form; raises UnsupportedContent, TooLarge, BadRequest."""
    kind = (request.header("Content-Type") or "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise UnsupportedContent("The body must be a form.", ("application/x-www-form-urlencoded",))
    fields: dict[str, list[str]] = {}
    try:
        text = whole_body(request.environ, _MAX_FORM_BYTES).decode("ascii")
        for name, value in parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=100):
            fields.setdefault(name, []).append(value)
    except ValueError:
        raise BadRequest("The form is malformed.") from None
    return fields


def first(form: dict[str, list[str]], name: str) -> str:
    """The first value of a field, "" when there is none."""
    return form.get(name, [""])[0]


def visitor(pacs: Pacs, request: Request) -> Recognized | None:
    """The login of the browser that asks, None when it has none that counts."""
    if not pacs.settings.auth:
        return None
    try:
        return browser_login_of(pacs, request)
    except Unauthenticated:
        return None


def style(pacs: Pacs, request: Request) -> Reply:
    """The style sheet of all pages."""
    headers: Headers = [("Content-Type", "text/css; charset=utf-8"), ("Cache-Control", "no-cache"), ("ETag", f'"{_style_tag()}"')]
    return Reply(200, headers, _style())


@lru_cache(maxsize=1)
def _style() -> bytes:
    return files("pacslite.ui").joinpath("pacslite.css").read_bytes()


@lru_cache(maxsize=1)
def _style_tag() -> str:
    return hashlib.sha256(_style()).hexdigest()[:16]


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("pacslite.ui"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


ROUTES = (Route("GET", "/pacslite.css", style, Right.PUBLIC),)
