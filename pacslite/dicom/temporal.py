"""Dates and times of PS3.5 6.2 in a form in which text order is time order.

DA `YYYYMMDD` (old: `YYYY.MM.DD`), TM `HH[MM[SS[.F-FFFFFF]]]` (old: with colons), DT `YYYY[MM[DD[HH[MM[SS[.F]]]]]][&ZZXX]`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

# Month lengths are not checked: people ask for ranges that end on the 31st of any month.
_DATE = re.compile(r"\d{4}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])")
_OLD_DATE = re.compile(r"\d{4}\.\d\d\.\d\d")
# Second 60 is a leap second.
_TIME = re.compile(r"(?:[01]\d|2[0-3])(?:[0-5]\d(?:(?:[0-5]\d|60)(?:\.\d{1,6})?)?)?")
_OLD_TIME = re.compile(r"\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?")
# A hyphen and four digits after a date-time are its offset from UTC, not the end of a range (PS3.4 C.2.2.2.5.3).
DATE_TIME_PATTERN = r"\d{4}(?:\d\d){0,5}(?:\.\d{1,6})?(?:[+-](?:0\d|1[0-4])[0-5]\d)?"
_DATE_TIME = re.compile(r"(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(?:\.(\d{1,6}))?([+-](?:0\d|1[0-4])[0-5]\d)?")


def normal_date(text: str) -> str | None:
    """`YYYYMMDD`, or None when the text is no date."""
    text = text.strip(" \0")
    if _OLD_DATE.fullmatch(text):
        text = text.replace(".", "")
    return text if _DATE.fullmatch(text) else None


def normal_time(text: str) -> str | None:
    """`HH[MM[SS[.F]]]` without colons, or None when the text is no time."""
    text = text.strip(" \0")
    if _OLD_TIME.fullmatch(text):
        text = text.replace(":", "")
    return text if _TIME.fullmatch(text) else None


def date_time_interval(text: str, default_offset: timedelta = timedelta(0)) -> tuple[str, str] | None:
    """First and last microsecond of a DT, in UTC as `YYYYMMDDHHMMSS.FFFFFF`; None when the text is no date-time.

    A value without an offset is taken to be in `default_offset`.
    """
    found = _DATE_TIME.fullmatch(text.strip(" \0"))
    if not found or (found[7] and not found[6]):
        return None
    try:
        low, high = _ends(found)
        offset = _offset(found[8]) if found[8] else default_offset
        return _encode(low - offset), _encode(high - offset)
    except (ValueError, OverflowError):
        return None


def _ends(found: re.Match[str]) -> tuple[datetime, datetime]:
    """First and last microsecond as written; raises ValueError for a month, day, hour that does not exist."""
    given = [int(found[i]) if found[i] else None for i in range(1, 7)]
    year, month, day, hour, minute = (g if g is not None else d for g, d in zip(given[:5], (1, 1, 1, 0, 0), strict=True))
    second = min(given[5], 59) if given[5] is not None else 0
    fraction = found[7] or ""
    low = datetime(year, month, day, hour, minute, second, int((fraction + "000000")[:6]), tzinfo=UTC)
    microsecond = timedelta(microseconds=1)
    if given[1] is None:
        return low, datetime(year, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    if given[2] is None:
        following = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC) if (year, month) != (9999, 12) else None
        return low, following - microsecond if following else datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    if fraction:
        return low, low + timedelta(microseconds=10 ** (6 - len(fraction)) - 1)
    spans = (timedelta(days=1), timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1))
    known = sum(g is not None for g in given) - 3
    return low, low + (spans[known] - microsecond)


def _offset(text: str) -> timedelta:
    span = timedelta(hours=int(text[1:3]), minutes=int(text[3:5]))
    return -span if text[0] == "-" else span


def _encode(moment: datetime) -> str:
    # strftime does not pad years below 1000.
    return f"{moment.year:04d}{moment:%m%d%H%M%S}.{moment.microsecond:06d}"
