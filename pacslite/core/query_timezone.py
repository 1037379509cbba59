"""Timezone Offset From UTC (0008,0201) beside the keys of a search: dates and times are meant in that zone (PS3.18 8.3.4.1.1).

They are moved to the zone of the server, in which stored dates and times are read. Dates without a time of their own, as
a birth date, name a day and are never moved.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from pacslite.dicom.matching import LAST, DateTimeRange, Match, Range, combine
from pacslite.errors import InvalidQuery

_OFFSET = re.compile(r"([+-])(0\d|1[0-4])([0-5]\d)")


def parse_offset(text: str) -> timedelta | None:
    """The offset, None for a zero-length one; raises InvalidQuery."""
    text = text.strip(" \0")
    if not text:
        return None
    found = _OFFSET.fullmatch(text)
    if not found:
        raise InvalidQuery("TimezoneOffsetFromUTC: neither + nor - and four digits")
    span = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return -span if found[1] == "-" else span


def moved(date: Match | None, time: Match | None, offset: timedelta, name: str) -> DateTimeRange | None:
    """A date key and its time key as one interval in the zone of the server, None when neither asks for anything."""
    if isinstance(date, Range):
        interval = _interval(date, time)
        if interval is None:
            raise InvalidQuery(f"{name}: with TimezoneOffsetFromUTC, dates and times have to be two ranges or a single date")
        low, high = interval.low, interval.high
        return DateTimeRange(_to_server(low, offset) if low else None, _to_server(high, offset) if high else None)
    if isinstance(time, Range):
        raise InvalidQuery(f"{name}: a time with TimezoneOffsetFromUTC needs a date beside it")
    return None


def _interval(date: Range, time: Match | None) -> DateTimeRange | None:
    if isinstance(time, Range):
        if date.low == date.high and date.low is not None:
            return DateTimeRange((date.low, time.low or ""), (date.low, (time.high or "") + LAST))
        return combine(date, time)
    low = (date.low, "") if date.low is not None else None
    return DateTimeRange(low, (date.high, LAST) if date.high is not None else None)


def _to_server(end: tuple[str, str], offset: timedelta) -> tuple[str, str]:
    """An end of an interval in the zone of the server, to the microsecond; the high end is the last one it includes."""
    day, clock = end
    filler = "235959.999999" if clock.endswith(LAST) else "000000.000000"
    digits = clock.rstrip(LAST)
    complete = digits + filler[len(digits) :] if len(digits) != 6 else digits + filler[6:]
    try:
        # Days that a month does not have are counted on, as people ask for the 31st of any month.
        begin = datetime(int(day[:4]), int(day[4:6]), 1, tzinfo=UTC) + timedelta(days=int(day[6:]) - 1)
        seconds = int(complete[:2]) * 3600 + int(complete[2:4]) * 60 + int(complete[4:6])
        utc = begin + timedelta(seconds=seconds, microseconds=int(complete[7:13].ljust(6, "0"))) - offset
        local = utc.astimezone()
    except OverflowError:
        return end
    return f"{local.year:04d}{local:%m%d}", f"{local:%H%M%S}.{local.microsecond:06d}" + (LAST if clock.endswith(LAST) else "")
