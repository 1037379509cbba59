"""Names in archives: any language, and nothing that an unpacking system takes for something else."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacslite.core.entry_names import UniqueNames, safe_name


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("Röntgen links.png", "Röntgen links.png"),
        ("正面写真.jpg", "正面写真.jpg"),
        ("صورة.jpg", "صورة.jpg"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("C:\\Windows\\a.exe", "C__Windows_a.exe"),
        ("a\0b\n.txt", "a_b_.txt"),
        ("invoice\u202egpj.exe", "invoice_gpj.exe"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("COM1.tar.gz", "_COM1.tar.gz"),
        ("", "file"),
        ("...", "file"),
        (" . ", "file"),
        (".htaccess", "htaccess"),
        ("\udcff.bin", "?.bin".replace("?", "_")),
    ],
)
def test_examples(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@given(st.text(max_size=400))
def test_any_name_becomes_one_component(name: str) -> None:
    safe = safe_name(name)
    assert 0 < len(safe.encode()) <= 200
    assert not set(safe) & set('/\\:*?"<>|\0')
    assert safe not in (".", "..")
    assert safe == safe.strip(" .")
    assert not any(unicodedata.category(char) in ("Cc", "Cf", "Cs") for char in safe)


@given(st.lists(st.text(alphabet="aAäÄ.1 (2)", max_size=6), max_size=30))
def test_no_two_files_of_an_archive_share_a_path(names: list[str]) -> None:
    unique = UniqueNames()
    paths = [unique.of("files", safe_name(name)) for name in names]
    assert len({unicodedata.normalize("NFKC", path).casefold() for path in paths}) == len(paths)


def test_the_second_of_a_name_gets_a_number() -> None:
    unique = UniqueNames()
    assert [unique.of("f", name) for name in ("a.jpg", "A.jpg", "a.jpg", "b.jpg")] == ["f/a.jpg", "f/A (2).jpg", "f/a (3).jpg", "f/b.jpg"]


def test_thousands_of_one_name_are_quick() -> None:
    unique = UniqueNames()
    paths = [unique.of("f", "image.jpg") for _ in range(20_000)]
    assert (len(set(paths)), paths[-1]) == (20_000, "f/image (20000).jpg")
