"""UIDs: PS3.5 section 9, with leading zeros taken."""

from __future__ import annotations

import pytest

from pacslite.dicom.uids import clean_uid, is_uid, new_uid
from pacslite.errors import InvalidUid


@pytest.mark.parametrize("text", ["1", "1.2.3", "1.02.3", "0.0", "1" * 64, "2.25." + "9" * 39])
def test_digits_and_single_dots_are_a_uid(text: str) -> None:
    assert is_uid(text)
    assert clean_uid(f"  {text} \0") == text


@pytest.mark.parametrize("text", ["", ".", "1.", ".1", "1..2", "1.a", "1" * 65, "1.2\n", "1/2", "1,2", "\u0661.2", "1 .2", "../1"])
def test_anything_else_is_refused(text: str) -> None:
    assert not is_uid(text)
    with pytest.raises(InvalidUid):
        clean_uid(text)


def test_new_uids_differ_and_are_derived_from_uuids() -> None:
    made = {new_uid() for _ in range(100)}
    assert len(made) == 100
    assert all(uid.startswith("2.25.") and is_uid(uid) for uid in made)
