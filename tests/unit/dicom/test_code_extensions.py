"""Code extensions written: PS3.5 6.1.2.5, with the examples of annexes H, I and K."""

from __future__ import annotations

import pytest

from pacslite.dicom.charset import of_terms, term_for
from pacslite.dicom.code_extensions import code_extensions

JAPANESE = ("", "ISO 2022 IR 87", "ISO 2022 IR 159")


@pytest.mark.parametrize(
    ("terms", "text", "raw"),
    [
        (
            ("", "ISO 2022 IR 87"),
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        ),
        (
            ("ISO 2022 IR 13", "ISO 2022 IR 87"),
            "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
            b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
        ),
        (
            ("", "ISO 2022 IR 149"),
            "Hong^Gildong=洪^吉洞=홍^길동",
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        ),
        (("", "ISO 2022 IR 58"), "Zhang^XiaoDong=张^小东=", b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab="),
        (("ISO 2022 IR 100", "ISO 2022 IR 144"), "éДïЖ^é", b"\xe9\x1b-L\xb4\x1b-A\xef\x1b-L\xb6^\xe9"),
        (("ISO 2022 IR 6", "ISO 2022 IR 100"), "Müller", b"M\x1b-A\xfcller"),
        (JAPANESE, "山a丂b", b"\x1b$B;3\x1b(Ba\x1b$(D0!\x1b(Bb"),
        # A set of two bytes alone is an error of the caller, who is answered all the same.
        (("ISO 2022 IR 87",), "a山", b"a\x1b$B;3\x1b(B"),
    ],
)
def test_text_is_written_as_the_standard_shows(terms: tuple[str, ...], text: str, raw: bytes) -> None:
    sets = code_extensions(terms)
    assert sets is not None
    assert sets.fits(text)
    assert sets.value == "\\".join(terms)
    assert sets.encode(text, name=True) == raw
    assert of_terms(terms).decode(raw, name=True) == text


def test_delimiters_of_names_are_none_of_other_text() -> None:
    sets = code_extensions(("ISO 2022 IR 100", "ISO 2022 IR 144"))
    assert sets is not None
    for name, raw in ((True, b"\x1b-L\xb4=\xe9"), (False, b"\x1b-L\xb4=\x1b-A\xe9")):
        assert sets.encode("Д=é", name) == raw
        assert of_terms(("ISO 2022 IR 100", "ISO 2022 IR 144")).decode(raw, name) == "Д=é"


@pytest.mark.parametrize(
    ("terms", "text"),
    [
        (("", "ISO 2022 IR 87"), "Müller"),  # the default repertoire is ASCII
        (JAPANESE, "길동"),
        (JAPANESE, "张"),
        (("", "ISO 2022 IR 149"), "뷁"),  # euc_kr makes eight bytes of it
        (("ISO 2022 IR 13", "ISO 2022 IR 144"), "山田"),
    ],
)
def test_what_the_sets_lack_does_not_fit(terms: tuple[str, ...], text: str) -> None:
    sets = code_extensions(terms)
    assert sets is not None
    assert not sets.fits(text)


@pytest.mark.parametrize("terms", [(), ("",), ("ISO_IR 100",), ("ISO_IR 192", "ISO 2022 IR 87"), ("", "NO SUCH SET"), ("", "GB18030")])
def test_other_terms_have_no_code_extensions(terms: tuple[str, ...]) -> None:
    assert code_extensions(terms) is None


def test_terms_are_named_as_the_standard_names_them_with_code_extensions() -> None:
    sets = code_extensions(("ISO_IR 100", "iso 2022 ir 144"))
    assert sets is not None
    assert sets.value == "ISO 2022 IR 100\\ISO 2022 IR 144"


def test_one_byte_katakana_have_no_kanji_beside_them() -> None:
    assert term_for(["ﾔﾏﾀﾞ"], "ISO_IR 13") == "ISO_IR 13"
    assert term_for(["山田"], "ISO_IR 13") == "ISO_IR 192"
