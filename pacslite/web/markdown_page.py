"""Our own documents as a page: the part of Markdown that they use (headings, tables, lists, paragraphs, code, bold, links)."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from itertools import groupby

_CODE = re.compile(r"`([^`]+)`")
_BOLD = re.compile(r"\*\*([^*]+)\*\*")
_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem;color:#1c2733;background:#fff}"
    "table{border-collapse:collapse;display:block;overflow-x:auto}td,th{border:1px solid #c8d2dc;padding:.25rem .5rem;text-align:left;"
    "vertical-align:top}th{background:#eef2f6}code{background:#eef2f6;padding:0 .2em}"
)


def as_html(markdown: str) -> str:
    """The page; links between documents become their text."""
    title = next((line[2:] for line in markdown.splitlines() if line.startswith("# ")), "")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
    body = "\n".join(_blocks(markdown))
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n'


def _blocks(markdown: str) -> Iterator[str]:
    for blank, lines in groupby(markdown.splitlines(), lambda line: not line.strip()):
        if not blank:
            for kind, group in groupby(_kinds(lines), lambda pair: pair[0]):
                yield _block(kind, [line for _, line in group])


def _kinds(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Lines with what they are part of; one that is indented goes on with the list before it."""
    kind = ""
    for line in lines:
        if not (kind == "-" and line.startswith("  ")):
            kind = "-" if line.startswith("- ") else line[0] if line[0] in "#|" else ""
        yield kind, line


def _block(kind: str, lines: list[str]) -> str:
    if kind == "#":
        return "".join(f"<h{len(marks)}>{_inline(text)}</h{len(marks)}>" for marks, _, text in (line.partition(" ") for line in lines))
    if kind == "|":
        return _table(lines)
    if kind == "-":
        items = "\n".join(line[2:] if line.startswith("- ") else "\0" + line.strip() for line in lines).replace("\n\0", " ").split("\n")
        return f"<ul>{''.join(f'<li>{_inline(item)}</li>' for item in items)}</ul>"
    return f"<p>{_inline(' '.join(lines))}</p>"


def _table(lines: list[str]) -> str:
    rows = [line.strip().strip("|").split("|") for line in lines if not re.fullmatch(r"[|\s:-]+", line)]
    made = (_row(row, "th" if number == 0 else "td") for number, row in enumerate(rows))
    return f"<table>{''.join(made)}</table>"


def _row(cells: list[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{_inline(cell.strip())}</{tag}>' for cell in cells)}</tr>"


def _inline(text: str) -> str:
    escaped = _LINK.sub(r"\1", html.escape(text, quote=False))
    return _CODE.sub(r"<code>\1</code>", _BOLD.sub(r"<b>\1</b>", escaped))
