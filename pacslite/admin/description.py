"""`/openapi.json`, made from the tables of operations, and `/docs`, a page that shows it without any other host."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any

from pacslite import __version__
from pacslite.core.access import Right
from pacslite.web.messages import Reply, Request
from pacslite.web.operations import ROOT, Operation, document, json_reply

if TYPE_CHECKING:
    from pacslite.app import Pacs

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
h2{margin-top:2.5rem;border-bottom:1px solid #d0d7de}
details{border:1px solid #d0d7de;border-radius:6px;margin:.6rem 0;padding:.5rem .8rem}
summary{cursor:pointer}code,pre{font:14px/1.4 ui-monospace,monospace}
pre{background:#f6f8fa;padding:.7rem;overflow:auto;border-radius:6px}
.method{display:inline-block;min-width:4.5rem;font-weight:700}
table{border-collapse:collapse}td,th{text-align:left;padding:.2rem .9rem .2rem 0;vertical-align:top}
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}pre{background:#161b22}a{color:#58a6ff}}
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"


def describe(operations: Iterable[Operation]) -> tuple[Operation, ...]:
    """The two operations that describe `operations` and themselves."""
    described: list[Operation] = []

    def get_openapi(pacs: Pacs, request: Request) -> Reply:
        """The OpenAPI document."""
        return json_reply(document(described, __version__))

    def get_docs(pacs: Pacs, request: Request) -> Reply:
        """The document as a page."""
        body = _page(document(described, __version__)).encode()
        return Reply(200, [("Content-Type", "text/html; charset=utf-8"), ("Content-Security-Policy", _POLICY)], body)

    ours = (
        Operation("GET", "/openapi.json", get_openapi, "This interface as an OpenAPI 3.1 document", "description", {200: dict}, Right.SELF),
        Operation("GET", "/docs", get_docs, "This interface as a page", "description", {200: None}, Right.SELF),
    )
    described += [*operations, *ours]
    return ours


def _page(described: dict[str, Any]) -> str:
    sections: dict[str, list[str]] = {}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            sections.setdefault(operation["tags"][0], []).append(_operation(method, path, operation))
    body = "".join(f'<h2 id="of-{escape(tag)}">{escape(tag)}</h2>{"".join(parts)}' for tag, parts in sections.items())
    links = " · ".join(f'<a href="#of-{escape(tag)}">{escape(tag)}</a>' for tag in sections)
    schemas = "".join(_schema(name, schema) for name, schema in described["components"]["schemas"].items())
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>pacslite REST</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>pacslite {escape(described['info']['version'])}</h1><p>{escape(described['info']['description'])} Paths are below "
        f'<code>{ROOT}</code>; <a href="openapi.json">openapi.json</a> is this page for programs.</p>'
        f'<nav>{links} · <a href="#bodies">bodies</a></nav>{body}<h2 id="bodies">Bodies</h2>{schemas}</body></html>'
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(p['name'])}</code></td><td>{p['in']}</td><td>{_prose(p.get('description', ''))}</td></tr>"
        for p in operation.get("parameters", ())
    )
    answers = "".join(f"<tr><td>{status}</td><td>{_answer(answer)}</td></tr>" for status, answer in operation["responses"].items())
    forms = operation.get("requestBody", {}).get("content", {})
    form = "".join(f"<p>Body, as <code>{escape(media)}</code>: {_reference(one['schema'])}</p>" for media, one in forms.items())
    title = f'<span class="method">{method.upper()}</span> <code>{escape(path)}</code> {_prose(operation["summary"])}'
    return f"<details><summary>{title}</summary>{form}<table>{rows}{answers}</table></details>"


def _answer(answer: dict[str, Any]) -> str:
    parts = [_reference(content["schema"]) for content in answer.get("content", {}).values()]
    return " ".join([*parts, _prose(answer["description"])])


def _prose(text: str) -> str:
    """A text of ours, whose words in backticks are code."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(pieces))


def _reference(schema: dict[str, Any]) -> str:
    name = schema.get("$ref", "").rpartition("/")[2]
    return f'<a href="#{name}">{name}</a>' if name else "JSON"


def _schema(name: str, schema: dict[str, Any]) -> str:
    title = f"<code>{name}</code> {_prose(schema['description'])}"
    return f'<details id="{name}"><summary>{title}</summary><pre>{escape(json.dumps(schema, indent=2))}</pre></details>'
