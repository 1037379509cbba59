"""Structured reports (PS3.3 C.17.3) as HTML, plain text and XML; the tree of content items is read once and written three ways.

Everything a sender wrote is escaped; there is no script, no link and nothing that is loaded.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape as xml_escape
from xml.sax.saxutils import quoteattr

from pacslite.core import rendering_source as source
from pacslite.core.rendering_text import date, first, person, time
from pacslite.dicom.document import Document, items_of, values_of
from pacslite.errors import TooLarge

if TYPE_CHECKING:
    from pacslite.core.rendering_subject import Means
    from pacslite.core.retrieve import Item

_CONTENT = "0040A730"
_MOST_ITEMS = 50_000
_MOST_NUMBERS = 200
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#1c2430}"
    "h1{font-size:1.5em}h2,h3,h4,h5,h6{font-size:1.1em;margin:1em 0 .3em}"
    "dl{display:grid;grid-template-columns:max-content 1fr;gap:.1em 1em}dt{color:#56637a}dd{margin:0}"
    "section{border-left:2px solid #ccd4e0;padding-left:1em;margin:.4em 0}"
    "p{margin:.25em 0;white-space:pre-wrap;overflow-wrap:anywhere}p b{font-weight:600}.n{color:#56637a;font-weight:400}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'self'; form-action 'none'; base-uri 'none'"
"""The Content-Security-Policy under which a report is shown as it is meant."""

_HEAD = (
    ("Patient", "00100010"),
    ("Patient ID", "00100020"),
    ("Birth date", "00100030"),
    ("Sex", "00100040"),
    ("Study", "00081030"),
    ("Study date", "00080020"),
    ("Accession number", "00080050"),
    ("Series", "0008103E"),
    ("Content date", "00080023"),
    ("Completion", "0040A491"),
    ("Verification", "0040A493"),
)
_DATES = frozenset({"00100030", "00080020", "00080023"})


@dataclass(frozen=True, slots=True)
class Node:
    """A content item: its number in the tree, its relation to the one above, its name and value as text."""

    position: str
    relationship: str
    value_type: str
    name: str
    value: str
    children: tuple[Node, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Report:
    """A report: what stands at its head, and its content."""

    title: str
    head: tuple[tuple[str, str], ...]
    root: Node


def report_of(means: Means, item: Item, document: Document) -> Report:
    """The report in a data set; texts too long for the metadata are read from the file. Raises TooLarge."""
    paths = [path for number, path in enumerate(_long_texts(document)) if number < _MOST_ITEMS]
    texts = source.texts(means.stores, item, paths, means.limits) if paths else {}
    return build(document, texts)


def build(document: Document, texts: dict[str, str]) -> Report:
    """The report of a metadata document; `texts` are its long texts by path."""
    left = [_MOST_ITEMS]
    root = _node(document, "1", texts, left)
    head = tuple((label, text) for label, key in _HEAD if (text := _head_text(document, key)))
    observers = [
        f"{person(first(observer, '0040A075'))} {date(first(observer, '0040A030'))}".strip()
        for observer in items_of(document.get("0040A073"))
    ]
    head += tuple(("Verified by", observer) for observer in observers if observer)
    return Report(root.name or "Structured report", head, root)


def _head_text(document: Document, key: str) -> str:
    text = first(document, key)
    return person(text) if key == "00100010" else date(text) if key in _DATES else text


def _long_texts(document: Document) -> Iterator[str]:
    path = source.links(document.get("0040A160", {}))
    if path is not None:
        yield path
    for item in items_of(document.get(_CONTENT)):
        yield from _long_texts(item)


def _node(item: Document, position: str, texts: dict[str, str], left: list[int]) -> Node:
    left[0] -= 1
    if left[0] < 0:
        raise TooLarge(f"The report has more than {_MOST_ITEMS} content items.")
    value_type = first(item, "0040A040")
    reader = _VALUES.get(value_type)
    linked = source.links(item.get("0040A160", {}))
    value = texts.get(linked, "") if linked is not None else reader(item) if reader is not None else ""
    if not value_type and "0040DB73" in item:
        value = "see " + ".".join(values_of(item.get("0040DB73")))
    children = tuple(_node(child, f"{position}.{number}", texts, left) for number, child in enumerate(items_of(item.get(_CONTENT)), 1))
    return Node(position, first(item, "0040A010"), value_type, _code(item, "0040A043"), value, children)


def _code(item: Document, key: str) -> str:
    """The meaning of a code, else the code itself (PS3.3 8)."""
    for code in items_of(item.get(key))[:1]:
        value = next((text for tag in ("00080100", "00080119", "00080120") if (text := first(code, tag))), "")
        return first(code, "00080104") or " ".join(part for part in (value, first(code, "00080102")) if part)
    return ""


def _unit(item: Document) -> str:
    """The unit as UCUM writes it, else by its meaning; none for pure numbers."""
    for code in items_of(item.get("004008EA"))[:1]:
        if first(code, "00080102") == "UCUM":
            unit = first(code, "00080100")
            return "" if unit == "1" else unit
    return _code(item, "004008EA")


def _number(item: Document) -> str:
    measured = [f"{first(value, '0040A30A')} {_unit(value)}".strip() for value in items_of(item.get("0040A300"))]
    return "; ".join(measured) or _code(item, "0040A301")


def _numbers(item: Document, key: str) -> str:
    element = item.get(key, {})
    values = values_of(element)
    shown = ", ".join(values[:_MOST_NUMBERS])
    return shown + f", ... ({len(values)} values)" if len(values) > _MOST_NUMBERS else shown


def _graphic(item: Document) -> str:
    points = _numbers(item, "00700022")
    return f"{first(item, '00700023')} {points}".strip()


def _temporal(item: Document) -> str:
    where = next((text for key in ("0040A132", "0040A138", "0040A13A") if (text := _numbers(item, key))), "")
    return f"{first(item, '0040A130')} {where}".strip()


def _reference(item: Document) -> str:
    found = []
    for reference in items_of(item.get("00081199")):
        text = f"{_class_name(first(reference, '00081150'))} {first(reference, '00081155')}".strip()
        frames = _numbers(reference, "00081160")
        found.append(text + (f", frames {frames}" if frames else ""))
    return "; ".join(found)


def _class_name(uid: str) -> str:
    from pydicom.uid import UID

    return UID(uid).name.removesuffix(" Storage") if uid else ""


def _container(item: Document) -> str:
    return ""


def _table(item: Document) -> str:
    return f"{first(item, '0040A802')} rows, {first(item, '0040A803')} columns".strip()


_VALUES: dict[str, Callable[[Document], str]] = {
    "CONTAINER": _container,
    "TEXT": lambda item: first(item, "0040A160"),
    "CODE": lambda item: _code(item, "0040A168"),
    "NUM": _number,
    "DATETIME": lambda item: date(first(item, "0040A120")),
    "DATE": lambda item: date(first(item, "0040A121")),
    "TIME": lambda item: time(first(item, "0040A122")),
    "PNAME": lambda item: person(first(item, "0040A123")),
    "UIDREF": lambda item: first(item, "0040A124"),
    "IMAGE": _reference,
    "COMPOSITE": _reference,
    "WAVEFORM": _reference,
    "SCOORD": _graphic,
    "SCOORD3D": _graphic,
    "TCOORD": _temporal,
    "TABLE": _table,
}


def render(report: Report, media_type: str) -> bytes:
    """The report as a document of UTF-8."""
    if media_type == "text/plain":
        text = "\n".join(_plain(report)) + "\n"
    elif media_type == "text/xml":
        text = '<?xml version="1.0" encoding="UTF-8"?>\n' + "".join(_xml(report))
    else:
        text = "".join(_html(report))
    # XML has no way to write these, and no text needs them.
    return "".join(
        c for c in text if c in "\n\t\r" or (c >= " " and not 0xD800 <= ord(c) <= 0xDFFF and ord(c) not in (0xFFFE, 0xFFFF))
    ).encode()


def _html(report: Report) -> Iterator[str]:
    title = escape(report.title)
    yield f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style></head>\n<body>'
    yield f"<h1>{title}</h1>\n<dl>"
    yield from (f"<dt>{escape(label)}</dt><dd>{escape(text)}</dd>" for label, text in report.head)
    yield "</dl>\n"
    for child in report.root.children:
        yield from _html_node(child, 2)
    yield "</body></html>\n"


def _html_node(node: Node, level: int) -> Iterator[str]:
    name, value = escape(node.name), escape(node.value)
    if node.value_type == "CONTAINER":
        heading = f"h{min(level, 6)}"
        yield f"<{heading}>{name or 'Section'}</{heading}>\n"
    else:
        kind = f' <span class="n">({escape(node.relationship.lower())})</span>' if node.relationship not in ("", "CONTAINS") else ""
        yield f"<p><b>{name}</b>{kind}{': ' if name or kind else ''}{value}</p>\n"
    if node.children:
        yield "<section>"
        for child in node.children:
            yield from _html_node(child, level + 1)
        yield "</section>\n"


def _plain(report: Report) -> Iterator[str]:
    yield report.title
    yield "=" * min(len(report.title), 80)
    yield from (f"{label}: {text}" for label, text in report.head)
    yield ""
    for child in report.root.children:
        yield from _plain_node(child, 0)


def _plain_node(node: Node, depth: int) -> Iterator[str]:
    pad = "  " * depth
    value = node.value.replace("\r\n", "\n").replace("\r", "\n").replace("\n", f"\n{pad}  ")
    if node.value_type == "CONTAINER":
        yield f"{pad}{node.name or 'Section'}"
    else:
        kind = f" ({node.relationship.lower()})" if node.relationship not in ("", "CONTAINS") else ""
        yield f"{pad}{node.name}{kind}{': ' if node.name or kind else ''}{value}"
    for child in node.children:
        yield from _plain_node(child, depth + 1)


def _xml(report: Report) -> Iterator[str]:
    yield f"<report title={quoteattr(report.title)}>\n<head>"
    yield from (f"<entry name={quoteattr(label)}>{xml_escape(text)}</entry>" for label, text in report.head)
    yield "</head>\n"
    yield from _xml_node(report.root)
    yield "</report>\n"


def _xml_node(node: Node) -> Iterator[str]:
    attributes = "".join(
        f" {name}={quoteattr(value)}"
        for name, value in (
            ("position", node.position),
            ("relationship", node.relationship),
            ("type", node.value_type),
            ("name", node.name),
        )
        if value
    )
    yield f"<item{attributes}>"
    if node.value:
        yield f"<value>{xml_escape(node.value)}</value>"
    for child in node.children:
        yield from _xml_node(child)
    yield "</item>\n"
