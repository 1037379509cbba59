"""The same data set in another encoding is the same; a changed one is not."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from pacslite.codec.transfer_syntax import TARGETS, convert
from pacslite.dicom.compare import same_data_set
from pacslite.dicom.data_set import NATIVE
from pacslite.dicom.instance import Limits, read_instance
from tests.support.dicom_files import SEQUENCE_END, UNDEFINED, corpus_files, element, item, part10

LIMITS = Limits()


def same(a: bytes, b: bytes) -> bool:
    return same_data_set(io.BytesIO(a), io.BytesIO(b), LIMITS)


def test_real_files_are_the_same_in_every_native_syntax(corpus: Path) -> None:
    compared = 0
    for path in corpus_files(corpus):
        if path.stat().st_size > 600_000 or read_instance(path, LIMITS).meta.transfer_syntax_uid not in NATIVE:
            continue
        for target in sorted(TARGETS):
            with path.open("rb") as source:
                other = io.BytesIO(b"".join(convert(source, target, LIMITS)))
            assert same_data_set(path, other, LIMITS), (path.name, target)
            compared += 1
    assert compared > 100


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (element(0x00100020, "LO", b"AB"), element(0x00100020, "LO", b"AC")),
        (element(0x00100020, "LO", b"AB"), element(0x00100021, "LO", b"AB")),
        (element(0x00100020, "LO", b"AB"), b""),
        (element(0x00100020, "LO", b"AB"), element(0x00100020, "LO", b"ABC")),
        (element(0x00100020, "LO", b"AB"), element(0x00100020, "LO", b"ABCD")),
        (element(0x00281201, "OW", bytes(3_000_000)), element(0x00281201, "OW", bytes(2_999_999) + b"x")),
        (element(0x00400275, "SQ", item(b"")), element(0x00400275, "SQ")),
        (element(0x00400275, "SQ", item(b"") + item(b"")), element(0x00400275, "SQ", item(b""))),
        (
            element(0x7FE00010, "OB", item(b"") + item(b"ab") + SEQUENCE_END, length=UNDEFINED),
            element(0x7FE00010, "OB", item(b"") + item(b"ac") + SEQUENCE_END, length=UNDEFINED),
        ),
    ],
)
def test_any_other_value_is_another_data_set(one: bytes, other: bytes) -> None:
    assert same(part10([one]), part10([one]))
    assert not same(part10([one]), part10([other]))
    assert not same(part10([other]), part10([one]))


def test_lengths_padding_and_group_lengths_make_no_difference() -> None:
    inner = element(0x00080100, "SH", b"C1")
    one = [element(0x00080000, "UL", bytes(4)), element(0x00081140, "SQ", item(inner)), element(0x00100020, "LO", b"A ")]
    other = [element(0x00081140, "SQ", item(inner, False) + SEQUENCE_END, length=UNDEFINED), element(0x00100020, "LO", b"A")]
    assert same(part10(one), part10(other))
