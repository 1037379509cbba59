"""PS3.4 C.2.2.2, one table per kind of matching."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacslite.dicom import matching
from pacslite.dicom.matching import (
    UNIVERSAL,
    AnyOf,
    DateTimeRange,
    Options,
    Range,
    Single,
    UidList,
    Wildcard,
    check_time,
    combine,
    matches,
    parse,
)
from pacslite.dicom.temporal import date_time_interval
from pacslite.errors import InvalidQuery


@pytest.mark.parametrize("vr", sorted(matching.WILDCARD_VRS | {"UI", "DA", "TM", "DT", "IS", "US", "AS"}))
@pytest.mark.parametrize("text", ["", "  ", "\0", "*", "**", " * "])
def test_zero_length_and_a_lone_asterisk_are_universal(vr: str, text: str) -> None:
    assert parse(vr, text) is UNIVERSAL
    assert matches(parse(vr, text), ())


@pytest.mark.parametrize("text", ["^", "=", "*^*", "^^^^", "*=*=*"])
def test_a_name_key_without_any_character_is_universal(text: str) -> None:
    assert parse("PN", text) is UNIVERSAL


@pytest.mark.parametrize(
    ("vr", "key", "value", "fits"),
    [
        # Single value: case counts but in PN, padding does not.
        ("LO", "PID-1", "PID-1", True),
        ("LO", " PID-1 ", "PID-1", True),
        ("LO", "pid-1", "PID-1", False),
        ("CS", "ct", "CT", False),
        ("AS", "045Y", "045Y", True),
        ("AT", "0010000d", "0010000D", True),
        # Wildcards, only where the VR has them; everything else in a pattern is literal.
        ("LO", "PID*", "PID-1", True),
        ("LO", "*1", "PID-1", True),
        ("LO", "P?D-1", "PID-1", True),
        ("LO", "PID-1*", "PID-1", True),
        ("LO", "PID-1?", "PID-1", False),
        ("LO", "P%", "PID", False),
        ("LO", "P_D", "PID", False),
        ("LO", "P_D*", "P_D1", True),
        ("LO", "50%*", "50% off", True),
        ("LO", "a[b]*", "a[b]c", True),
        ("LO", "a[b]*", "abc", False),
        ("LO", "a.c*", "abc", False),
        ("LT", "a\\b*", "a\\bc", True),
        ("LO", "a*", "a\nb", True),
        ("AS", "04*", "045Y", False),
        # Coded strings and UIDs: a list by comma or backslash.
        ("CS", "CT,MR", "MR", True),
        ("CS", "CT\\MR", "MR", True),
        ("CS", "CT,M*", "MR", True),
        ("CS", "CT,US", "MR", False),
        ("LO", "CT,MR", "MR", False),
        ("UI", "1.2,1.3", "1.3", True),
        ("UI", "1.2\\1.3\0", "1.3", True),
        ("UI", "1.2", "1.20", False),
        # Dates.
        ("DA", "20240115", "20240115", True),
        ("DA", "20240115", "2024.01.15", True),
        ("DA", "2024.01.15", "20240115", True),
        ("DA", "20240101-20240131", "20240131", True),
        ("DA", "20240101-20240131", "20240101", True),
        ("DA", "20240101-20240131", "20240201", False),
        ("DA", "20240101-", "20991231", True),
        ("DA", "-20240101", "20240101", True),
        ("DA", "-20240101", "20240102", False),
        ("DA", "20240101-", "unknown", False),
        # Times are intervals of their precision.
        ("TM", "1430", "143059.999999", True),
        ("TM", "143010", "1430", True),
        ("TM", "14", "1500", False),
        ("TM", "10-11", "115959", True),
        ("TM", "10-11", "1200", False),
        ("TM", "1030-", "10", True),
        ("TM", "1030-", "1029", False),
        ("TM", "-1030", "103030", True),
        ("TM", "10:30-10:31", "10:31:59", True),
        # Date-times, offsets taken into account.
        ("DT", "202401", "20240115101112", True),
        ("DT", "20240115", "2024", True),
        ("DT", "20240115120000+0200-", "20240115100000+0000", True),
        ("DT", "20240115120000+0200-", "20240115095959.999999+0000", False),
        ("DT", "-20240115", "20240116", False),
        # Numbers are numbers.
        ("IS", "7", "+007", True),
        ("DS", "1.50", "1.5", True),
        ("US", "512", "512", True),
        ("IS", "7", "8", False),
        ("IS", "7", "x", False),
        # Names.
        ("PN", "Doe^Jane", "DOE^JANE", True),
        ("PN", "Doe^Jane^^", "Doe^Jane", True),
        ("PN", "Doe", "Doe^Jane", False),
        ("PN", "doe*", "Doe^Jane", True),
        ("PN", "Doe^*", "Doe", True),
        ("PN", "Doe^*", "Doe^Jane", True),
        ("PN", "Doe^*", "Doer^Jane", False),
        ("PN", "muller*", "Müller^Jörg", True),
        ("PN", "MÜLLER^JÖRG", "Muller^Jorg", True),
        ("PN", "山田*", "Yamada^Tarou=山田^太郎=やまだ^たろう", True),
        ("PN", "やまだ^たろう", "Yamada^Tarou=山田^太郎=やまだ^たろう", True),
        ("PN", "Yamada*=山田*", "Yamada^Tarou=山田^太郎=やまだ^たろう", True),
        ("PN", "Yamada*=鈴木*", "Yamada^Tarou=山田^太郎=やまだ^たろう", False),
        ("PN", "=山田^太郎", "Yamada^Tarou=山田^太郎", True),
        ("PN", "=Yamada*", "Yamada^Tarou=山田^太郎", False),
        ("PN", "Yamada*太郎", "Yamada^Tarou=山田^太郎", False),
    ],
)
def test_a_key_fits_as_the_standard_says(vr: str, key: str, value: str, fits: bool) -> None:
    assert matches(parse(vr, key), (value,)) is fits


def test_several_values_fit_when_one_does() -> None:
    assert matches(parse("CS", "MR"), ("CT", "MR"))
    assert not matches(parse("CS", "CT?MR"), ("CT", "MR"))


@pytest.mark.parametrize("vr", ["LO", "UI", "DA", "PN", "IS"])
def test_an_absent_or_empty_element_fits_universal_matching_only(vr: str) -> None:
    key = parse(vr, {"LO": "a*", "UI": "1.2", "DA": "-20240101", "PN": "?*", "IS": "0"}[vr])
    assert not matches(key, ())
    assert not matches(key, ("",))


def test_ignoring_case_concerns_long_and_short_strings_only() -> None:
    assert matches(parse("LO", "mÜller*", options=Options(ignore_case=True)), ("MüLLER Clinic",))
    assert matches(parse("SH", "acc", options=Options(ignore_case=True)), ("ACC",))
    assert not matches(parse("CS", "ct", options=Options(ignore_case=True)), ("CT",))


@pytest.mark.parametrize(
    ("vr", "text"),
    [
        ("DA", "-"), ("DA", "2024"), ("DA", "20241301"), ("DA", "20240100"), ("DA", "20240101 20240102"), ("DA", "20240105-20240101"),
        ("DA", "20240101-20240102-20240103"), ("DA", "2024*"), ("TM", "-"), ("TM", "25"), ("TM", "1060"), ("TM", "1"), ("TM", "10*"),
        ("DT", "-"), ("DT", "202413"), ("DT", "2025-2024"), ("UI", "1.2.*"), ("UI", "../etc"), ("UI", "1.2,x"), ("UI", "1." + "2" * 63),
        ("IS", "a"), ("DS", "NaN"), ("US", "1e99999"), ("OB", "a"), ("SQ", "a"), ("LO", "x" * 1025), ("LO", "a\0b"),
        ("PN", "a\ud800"), ("CS", "A," + "x" * 1025),
    ],
)  # fmt: skip
def test_a_key_that_does_not_parse_is_refused_by_its_name(vr: str, text: str) -> None:
    with pytest.raises(InvalidQuery, match=r"^StudyDate: "):
        parse(vr, text, name="StudyDate")


def test_a_time_range_across_midnight_needs_dates() -> None:
    with pytest.raises(InvalidQuery, match="midnight"):
        check_time(parse("TM", "2200-0200"), "StudyTime")
    assert check_time(parse("TM", "1430-14"), "StudyTime") == Range("TM", "1430", "14")


@pytest.mark.parametrize(
    ("date", "time", "combined"),
    [
        ("20240101-20240102", "2200-0200", DateTimeRange(("20240101", "2200"), ("20240102", "0200~"))),
        ("20240101-", "1200-", DateTimeRange(("20240101", "1200"), None)),
        ("-20240102", "-0200", DateTimeRange(None, ("20240102", "0200~"))),
        ("20240101-20240102", "1200-", DateTimeRange(("20240101", "1200"), ("20240102", "~"))),
        ("20240101", "10-12", None),
        ("20240101-20240102", "10", None),
    ],
)
def test_ranges_of_date_and_time_make_one_interval(date: str, time: str, combined: DateTimeRange | None) -> None:
    assert combine(parse("DA", date), parse("TM", time)) == combined


@pytest.mark.parametrize(
    ("date", "time", "inside"),
    [
        ("20240101", "215959", False),
        ("20240101", "22", True),
        ("20240101", "", True),
        ("20240102", "0200", True),
        ("20240102", "020100", False),
        ("20240103", "", False),
        ("", "2300", False),
    ],
)
def test_the_interval_spans_midnight_once(date: str, time: str, inside: bool) -> None:
    assert matching.in_date_time_range(DateTimeRange(("20240101", "2200"), ("20240102", "0200~")), date, time) is inside


def test_values_say_what_was_asked() -> None:
    assert parse("LO", "a**b") == Wildcard("a*b")
    assert parse("UI", "1.2,1.2\\1.3") == UidList(("1.2", "1.3"))
    assert parse("CS", "CT,CT") == Single("CT")
    assert parse("CS", "CT,MR") == AnyOf((Single("CT"), Single("MR")))


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("2024", "20240101000000.000000", "20241231235959.999999"),
        ("202402", "20240201000000.000000", "20240229235959.999999"),
        ("202412", "20241201000000.000000", "20241231235959.999999"),
        ("20240115", "20240115000000.000000", "20240115235959.999999"),
        ("2024011510+0100", "20240115090000.000000", "20240115095959.999999"),
        ("202401151011", "20240115101100.000000", "20240115101159.999999"),
        ("20240115101112", "20240115101112.000000", "20240115101112.999999"),
        ("20240115101112.5", "20240115101112.500000", "20240115101112.599999"),
        ("9999", "99990101000000.000000", "99991231235959.999999"),
    ],
)
def test_a_date_time_is_the_interval_of_its_precision(text: str, low: str, high: str) -> None:
    assert date_time_interval(text) == (low, high)


@pytest.mark.parametrize("text", ["", "20", "20240230", "2024011525", "2024.5", "20240115101112+9900", "0001+0500"])
def test_what_is_no_date_time_has_no_interval(text: str) -> None:
    assert date_time_interval(text) is None


_VRS = sorted(matching.WILDCARD_VRS | matching.TEMPORAL_VRS | matching.NUMBER_VRS | {"UI", "AS", "AT"})


@given(st.sampled_from(_VRS), st.text(max_size=40))
def test_any_text_parses_or_is_refused(vr: str, text: str) -> None:
    try:
        match = parse(vr, text)
    except InvalidQuery:
        return
    assert isinstance(matches(match, (text,)), bool)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30))
def test_a_value_fits_itself(value: str) -> None:
    assert matches(parse("LO", value), (value.strip(" \0"),)) or not value.strip(" \0")


@given(st.text("ab*?", min_size=1, max_size=8), st.text("ab", min_size=1, max_size=8))
def test_a_pattern_fits_what_its_plain_expression_fits(pattern: str, value: str) -> None:
    plain = "".join({"*": ".*", "?": "."}.get(character, character) for character in pattern)
    assert matches(parse("LO", pattern), (value,)) is (re.fullmatch(plain, value) is not None)


def test_a_pattern_of_many_asterisks_takes_no_longer_than_others() -> None:
    begin = time.thread_time()
    assert not matches(parse("LT", "*a*a*a*a*b"), ("a" * 300,))
    assert time.thread_time() - begin < 1  # trying every way to divide it would take many seconds
