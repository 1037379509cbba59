"""From what a caller writes to keys: names of attributes, sequences, private blocks, pairs of date and time.

C-FIND and QIDO-RS give the same here: paths of tags with texts. They differ only in the choices of `Dialect`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from pacslite.catalog.search_conditions import is_multiple
from pacslite.core.query_timezone import moved, parse_offset
from pacslite.dicom.document import PrivateTag
from pacslite.dicom.matching import (
    PLAIN,
    TIME_OF_DATE,
    UNMATCHABLE_VRS,
    Match,
    Options,
    SequenceMatch,
    Universal,
    check_time,
    combine,
    parse,
)
from pacslite.errors import InvalidQuery

SPECIFIC_CHARACTER_SET = 0x00080005
TIMEZONE_OFFSET_FROM_UTC = 0x00080201
# Private attributes have odd groups (PS3.5 7.8).
PRIVATE_GROUP = 0x10000
# Deepest path of sequences in a key.
MAX_PATH = 8
Path = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Key:
    """One attribute of the top level and what it has to be. The match of a sequence holds the keys of its item."""

    tag: int | PrivateTag
    match: Match


@dataclass(frozen=True, slots=True)
class Dialect:
    """What the callers of the engine differ in.

    `combine_date_time`: ranges of a date and its time make one interval (always in QIDO-RS, by negotiation in C-FIND).
    `lenient`: a key that cannot be matched (binary values, private attributes without their creator) is left out
    instead of refused, as C-FIND wants for optional keys. `options` are the kinds of matching that were asked for.
    """

    combine_date_time: bool = True
    lenient: bool = False
    options: Options = PLAIN


@lru_cache(maxsize=4096)
def tag_of(name: str) -> int:
    """The tag of a keyword or of eight hexadecimal digits in any case; raises InvalidQuery naming it."""
    if re.fullmatch(r"[0-9A-Fa-f]{8}", name):
        tag = int(name, 16)
        if tag & PRIVATE_GROUP or keyword_for_tag(tag):
            return tag
    elif name:  # the dictionary has retired attributes without a keyword
        found = tag_for_keyword(name)
        if found is not None:
            return found
    raise InvalidQuery(f"{name[:80]!r} is no attribute: neither a keyword of PS3.6 nor eight hexadecimal digits")


@lru_cache(maxsize=4096)
def path_of(name: str) -> Path:
    """The tags of an attribute name, dotted when it lies inside a sequence (PS3.18 10.6.1.2.1)."""
    path = tuple(tag_of(part) for part in name.split("."))
    if len(path) > MAX_PATH:
        raise InvalidQuery(f"{name[:80]!r} is nested too deeply")
    for tag in path[:-1]:
        if vr_of(tag) != "SQ":
            raise InvalidQuery(f"{name[:80]!r}: {name_of(tag)} is not a sequence")
    return path


@lru_cache(maxsize=4096)
def vr_of(tag: int) -> str:
    """The VR by which a key of this tag is read; of several possible ones the first, LO for a private attribute."""
    if tag & PRIVATE_GROUP:
        return "LO"
    try:
        return dictionary_VR(tag).split(" ")[0]
    except KeyError:
        return "LO"


@lru_cache(maxsize=4096)
def name_of(tag: int) -> str:
    """The keyword of a tag, or its digits."""
    return keyword_for_tag(tag) or f"{tag:08X}"


def build_keys(terms: Iterable[tuple[Path, str]], dialect: Dialect) -> tuple[Key, ...]:
    """The keys of a search; terms inside the same sequence have to fit the same item. Raises InvalidQuery.

    Universal keys are left out: they ask for nothing (PS3.4 C.2.2.2.3).
    """
    terms = list(terms)
    zone = next((text for path, text in terms if path == (TIMEZONE_OFFSET_FROM_UTC,)), "")
    terms = [(path, text) for path, text in terms if path[0] not in (SPECIFIC_CHARACTER_SET, TIMEZONE_OFFSET_FROM_UTC)]
    creators = {path[0]: text for path, text in terms if len(path) == 1 and _is_creator(path[0])}
    tree: dict[int | PrivateTag, Match] = {}
    for path, text in terms:
        tag = path[0]
        if len(path) == 1:
            place: int | PrivateTag | None = tag
            if tag & PRIVATE_GROUP:
                place = None if _is_creator(tag) else _private(tag, creators, dialect)
            if place is not None and not (dialect.lenient and vr_of(tag) in UNMATCHABLE_VRS | {"SQ"}):
                tree[place] = _leaf(path, text, dialect)
    tree |= _sequences([(path, text) for path, text in terms if len(path) > 1], dialect)
    offset = parse_offset(zone)
    if offset is not None:
        _move_to_server(tree, offset)
    _pair_dates_and_times(tree, dialect)
    return tuple(Key(tag, match) for tag, match in tree.items() if not _asks_nothing(match))


def _leaf(path: Path, text: str, dialect: Dialect) -> Match:
    options = dialect.options
    if options.multiple and not is_multiple(path[-1]):
        options = replace(options, multiple=False)
    return parse(vr_of(path[-1]), text, name=".".join(map(name_of, path)), options=options)


def _is_creator(tag: int) -> bool:
    return bool(tag & PRIVATE_GROUP) and 0x10 <= tag & 0xFFFF <= 0xFF


def private_tag(tag: int, creators: Mapping[int, str]) -> PrivateTag | None:
    """The private attribute of this tag by the creator given for its block; None when there is none."""
    creator = creators.get(tag & 0xFFFF0000 | (tag & 0xFFFF) >> 8, "").strip(" \0")
    return PrivateTag(tag >> 16, creator, tag & 0xFF) if tag & PRIVATE_GROUP and tag & 0xFFFF >= 0x1000 and creator else None


def _private(tag: int, creators: Mapping[int, str], dialect: Dialect) -> PrivateTag | None:
    """The private attribute by its creator, which has to be given too (PS3.18 8.3.4.1)."""
    found = private_tag(tag, creators)
    if found is None and not dialect.lenient:
        creator = f"{tag >> 16:04X}{(tag & 0xFFFF) >> 8:04X}"
        raise InvalidQuery(f"{tag:08X}: a private attribute needs its private creator ({creator}) beside it")
    return found


def _sequences(terms: list[tuple[Path, str]], dialect: Dialect) -> dict[int | PrivateTag, Match]:
    """One match per outermost sequence."""
    inner: dict[int, list[tuple[Path, Path, str]]] = {}
    for path, text in terms:
        inner.setdefault(path[0], []).append((path[1:], path, text))
    return {tag: _sequence(items, dialect) for tag, items in inner.items()}


def _sequence(terms: list[tuple[Path, Path, str]], dialect: Dialect) -> SequenceMatch:
    keys: dict[int, Match] = {}
    deeper: dict[int, list[tuple[Path, Path, str]]] = {}
    for rest, full, text in terms:
        if len(rest) > 1:
            deeper.setdefault(rest[0], []).append((rest[1:], full, text))
        elif not (dialect.lenient and vr_of(rest[0]) in UNMATCHABLE_VRS | {"SQ"}):
            keys[rest[0]] = check_time(_leaf(full, text, dialect), name_of(rest[0]))
    keys.update({tag: _sequence(items, dialect) for tag, items in deeper.items()})
    return SequenceMatch(tuple((tag, match) for tag, match in keys.items() if not _asks_nothing(match)))


def _asks_nothing(match: Match) -> bool:
    return isinstance(match, Universal) or (isinstance(match, SequenceMatch) and not match.keys)


def _move_to_server(tree: dict[int | PrivateTag, Match], offset: timedelta) -> None:
    for date, time in TIME_OF_DATE.items():
        interval = moved(tree.get(date), tree.get(time), offset, name_of(date))
        if interval is not None:
            tree[date] = interval
            tree.pop(time, None)


def _pair_dates_and_times(tree: dict[int | PrivateTag, Match], dialect: Dialect) -> None:
    if dialect.combine_date_time:
        for date, time in TIME_OF_DATE.items():
            if date in tree and time in tree:
                interval = combine(tree[date], tree[time])
                if interval is not None:
                    tree[date] = interval
                    del tree[time]
    for tag, match in tree.items():
        if isinstance(tag, int):
            check_time(match, name_of(tag))
