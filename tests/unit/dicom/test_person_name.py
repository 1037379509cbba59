"""Names in normal form: PS3.5 6.2.1 for the structure, PS3.4 C.2.2.2.1 for what may be ignored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacslite.dicom.person_name import fold, normal_groups


@pytest.mark.parametrize(
    ("value", "groups"),
    [
        ("", ("", "", "")),
        ("Doe^Jane", ("doe^jane", "", "")),
        ("Doe^Jane^^^", ("doe^jane", "", "")),
        (" Doe ^ Jane  Mary \0", ("doe^jane mary", "", "")),
        ("^Jane", ("^jane", "", "")),
        ("MÜLLER^José", ("muller^jose", "", "")),
        ("Straße", ("strasse", "", "")),
        ("Łukasz^Sørensen", ("lukasz^sorensen", "", "")),
        ("Люкceмбypг^Йод", ("люкceмбypг^иод", "", "")),  # noqa: RUF001
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", ("yamada^tarou", "山田^太郎", "やまだ^たろう")),
        ("ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎", ("ヤマダ^タロウ", "山田^太郎", "")),
        ("Hong^Gildong=洪^吉洞=홍^길동", ("hong^gildong", "洪^吉洞", "홍^길동")),
        ("=山田", ("", "山田", "")),
        ("a=b=c=d", ("a", "b", "c")),
        ("Doe^J\\Roe^R=盧", ("doe^j\\roe^r", "\\盧", "")),
        ("İstanbul^Işık", ("istanbul^isik", "", "")),  # noqa: RUF001
    ],
)
def test_groups_lose_case_accents_and_padding_only(value: str, groups: tuple[str, str, str]) -> None:
    assert normal_groups(value) == groups


def test_kana_voicing_is_kept_as_it_makes_another_letter() -> None:
    assert fold("ガ") != fold("カ")


@given(st.text())
def test_normal_form_of_a_normal_form_is_itself(value: str) -> None:
    once = "=".join(normal_groups(value.replace("\\", "")))
    assert "=".join(normal_groups(once)) == once


@given(st.text())
def test_case_never_matters(value: str) -> None:
    assert fold(value) == fold(value.casefold())
