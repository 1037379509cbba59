"""Query parameters of a search (PS3.18 8.3.4, 10.6.1.2) as values; what is wrong with them is a 400 that names it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pacslite.core.query_keys import Path, name_of, path_of, tag_of
from pacslite.dicom.matching import PLAIN, Options
from pacslite.errors import InvalidQuery

_NOT_ATTRIBUTES = frozenset(
    {"limit", "offset", "orderby", "fuzzymatching", "emptyvaluematching", "multiplevaluematching", "accept", "charset"}
)
_OPTIONS = {"fuzzy": "fuzzymatching", "empty": "emptyvaluematching", "multiple": "multiplevaluematching"}
_MOST_TO_ORDER_BY = 4
# More digits than any catalog has rows; keeps the numbers within the databases' 64 bits.
_WHOLE = re.compile(r"\d{1,15}")


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a search asks. `limit` is None when the request names none; `include` are tags beyond the default answer."""

    terms: tuple[tuple[Path, str], ...] = ()
    include: tuple[int, ...] = ()
    include_all: bool = False
    limit: int | None = None
    offset: int = 0
    order: tuple[tuple[int, bool], ...] = ()
    options: Options = PLAIN


def parse_parameters(query: Iterable[tuple[str, str]]) -> Parameters:
    """The parameters of a search; raises InvalidQuery for unknown, repeated and malformed ones."""
    terms: dict[Path, str] = {}
    control: dict[str, str] = {}
    fields: list[str] = []
    for name, value in query:
        if name == "includefield":
            fields += value.split(",")
        elif name in _NOT_ATTRIBUTES:
            if name in control and name != "accept":
                raise InvalidQuery(f"{name} is given twice")
            control[name] = value
        else:
            path = path_of(name)
            if path in terms:
                raise InvalidQuery(f"{'.'.join(map(name_of, path))} is given twice")
            terms[path] = value
    include, include_all = _fields(fields)
    return Parameters(
        tuple(terms.items()),
        include,
        include_all,
        _whole(control, "limit"),
        _whole(control, "offset") or 0,
        _order(control.get("orderby", "")),
        Options(**{option: _switch(control, name) for option, name in _OPTIONS.items()}),
    )


def _fields(names: list[str]) -> tuple[tuple[int, ...], bool]:
    """The tags of `includefield`; of a dotted path the outermost sequence. `all` stands alone (8.3.4.3)."""
    names = [name.strip() for name in names if name.strip()]
    if "all" in names:
        if len(names) > 1:
            raise InvalidQuery("includefield: all must be the only value")
        return (), True
    return tuple(dict.fromkeys(path_of(name)[0] for name in names)), False


def _whole(control: dict[str, str], name: str) -> int | None:
    text = control.get(name)
    if text is None:
        return None
    if not _WHOLE.fullmatch(text) or not text.isascii():
        raise InvalidQuery(f"{name} is not a whole number of 0 or more")
    return int(text)


def _order(text: str) -> tuple[tuple[int, bool], ...]:
    """Our own `orderby=StudyDate,-PatientName`: attributes, each descending behind a minus sign."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if len(names) > _MOST_TO_ORDER_BY:
        raise InvalidQuery(f"orderby: more than {_MOST_TO_ORDER_BY} attributes")
    return tuple((tag_of(name.removeprefix("-")), name.startswith("-")) for name in names)


def _switch(control: dict[str, str], name: str) -> bool:
    value = control.get(name, "false")
    if value not in ("true", "false"):
        raise InvalidQuery(f"{name} is neither true nor false")
    return value == "true"
