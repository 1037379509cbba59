"""Specific Character Set: PS3.5 6.1, with the examples of annexes H, I, J and K."""

# ruff: noqa: RUF001
from __future__ import annotations

import pytest
from pydicom.charset import convert_encodings, encode_string

from pacslite.dicom import charset
from pacslite.dicom.charset import encode_for, of_terms, term_for

_H3 = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"
_H3_KANA = b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J"
_I2 = b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf"
_J3 = b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab="


@pytest.mark.parametrize(
    ("terms", "raw", "text"),
    [
        (("ISO_IR 100",), b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
        (("ISO_IR 101",), b"Wa\xb3\xeasa", "Wałęsa"),
        (("ISO_IR 144",), b"\xbb\xee\xda\xe1\xd5\xdc\xd1\xe3\xe0\xd3", "Люкceмбург".replace("ce", "се")),
        (("ISO_IR 126",), b"\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2", "Διονυσιος"),
        (("ISO_IR 127",), b"\xe2\xc8\xc7\xe6\xea", "قباني"),
        (("ISO_IR 138",), b"\xf9\xf8\xe5\xef", "שרון"),
        (("ISO_IR 148",), b"\xc7avu\xfeo\xf0lu", "Çavuşoğlu"),
        (("ISO_IR 166",), b"\xb9\xd2\xc1", "นาม"),
        (("ISO_IR 203",), b"\xa4", "€"),
        (("ISO_IR 13",), b"\xd4\xcf\xc0\xde", "ﾔﾏﾀﾞ"),
        (("ISO_IR 192",), "Wang^小東".encode(), "Wang^小東"),
        (("GB18030",), "Wang^小東\\王".encode("gb18030"), "Wang^小東\\王"),
        (("GBK",), "誠\\人".encode("gbk"), "誠\\人"),
        (("", "ISO 2022 IR 87"), _H3, "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (("ISO 2022 IR 13", "ISO 2022 IR 87"), _H3_KANA, "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        (("", "ISO 2022 IR 149"), _I2, "Hong^Gildong=洪^吉洞=홍^길동"),
        (("", "ISO 2022 IR 58"), _J3, "Zhang^XiaoDong=张^小东="),
        (("ISO 2022 IR 6", "ISO 2022 IR 159"), b"\x1b$(D\x30\x21\x1b(B", "丂"),
    ],
)
def test_names_of_the_standard_are_read(terms: tuple[str, ...], raw: bytes, text: str) -> None:
    assert of_terms(terms).decode(raw, name=True) == text


@pytest.mark.parametrize("char", "ソ表能予構貼")
def test_backslash_bytes_inside_two_byte_characters_are_not_delimiters(char: str) -> None:
    inside = char.encode("gb18030") if char.encode("gb18030")[1:2] == b"\\" else "僜".encode("gb18030")
    assert "\\" not in of_terms(("GB18030",)).decode(inside)
    jis = b"\x1b$B\x21\x5c\x5c\x21\x1b(B"
    assert "\\" not in of_terms(("", "ISO 2022 IR 87")).decode(jis)


def test_a_delimiter_brings_the_first_set_back() -> None:
    latin_after_greek = b"\x1b-F\xc4\\\xe9"
    assert of_terms(("ISO 2022 IR 100", "ISO 2022 IR 126")).decode(latin_after_greek) == "Δ\\é"


@pytest.mark.parametrize("term", ["ISO_IR 100", "iso_ir 100", "ISO-IR 100", "ISO IR 100", "ISO 2022 IR 100", "ISO_IR_100"])
def test_slips_in_the_term_are_understood(term: str) -> None:
    assert of_terms((term,)).decode(b"\xe9") == "é"
    assert of_terms((term,)).known


def test_bytes_beyond_the_declared_set_never_fail() -> None:
    assert charset.DEFAULT.decode("é".encode()) == "é"
    assert charset.DEFAULT.decode(b"\xe9") == "é"
    assert of_terms(("ISO_IR 192",)).decode(b"a\xe9b") == "a\ufffdb"
    assert of_terms(("NO SUCH SET",)).decode(b"a\xe9b") == "aéb"
    assert not of_terms(("NO SUCH SET",)).known
    assert of_terms(("", "ISO 2022 IR 87")).decode(b"\x1b$B\x30") is not None
    assert of_terms(("", "ISO 2022 IR 87")).decode(b"a\x1bb\x1b%Gc") == "ab%Gc"


@pytest.mark.parametrize(
    ("terms", "text"),
    [
        (["", "ISO 2022 IR 87"], "あaいbう漢字"),
        (["", "ISO 2022 IR 149"], "김a희b중"),
        (["ISO 2022 IR 100", "ISO 2022 IR 144"], "éДïЖ"),
        (["ISO_IR 192"], "日本語ÄÖ"),
    ],
)
def test_what_pydicom_writes_is_read_back(terms: list[str], text: str) -> None:
    assert of_terms(tuple(terms)).decode(encode_string(text, convert_encodings(terms))) == text


def test_answers_take_the_smallest_set_that_holds_them() -> None:
    assert term_for(["Doe^Jane"]) == ""
    assert term_for(["Buc^Jérôme", "x"]) == "ISO_IR 100"
    assert term_for(["Wałęsa"]) == "ISO_IR 192"
    assert term_for(["Wałęsa"], "ISO_IR 101") == "ISO_IR 101"
    assert term_for(["山田"], "ISO 2022 IR 87") == "ISO_IR 192"
    assert encode_for("Wałęsa", "ISO_IR 101") == b"Wa\xb3\xeasa"
    assert encode_for("é", "ISO_IR 192") == "é".encode()
    assert encode_for("山", "ISO_IR 100") == b"?"
