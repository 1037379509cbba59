"""The normal form in which person names are matched (PS3.5 6.2.1, PS3.4 C.2.2.2.1).

A PN value is up to three component groups (alphabetic, ideographic, phonetic) divided by `=`, each of up to five
components divided by `^`. Matching is our choice within PS3.4 C.2.2.2.4 and is said in the conformance statement: case
and accents are ignored, the padding of components and trailing empty components do not count. Kana voicing marks and
Hangul are letters, not accents, and stay.
"""

from __future__ import annotations

import re
import unicodedata

# Marks that are accents: Latin, Greek and Cyrillic diacritics, Hebrew and Arabic points. Vowel signs of other scripts are letters.
_ACCENTS = re.compile(
    "[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u064b-\u065f\u0670\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
)
# Letters with a stroke and ligatures have no decomposition in Unicode, but people type them without.
_STROKES = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ħ": "h", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th", "ð": "d"})
_SPACES = re.compile(r"\s+")
GROUPS = 3


def fold(text: str) -> str:
    """Text without case and accents, compatibility forms (full and half width) made one; spaces are kept as they are."""
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return unicodedata.normalize("NFC", _ACCENTS.sub("", folded)).translate(_STROKES)


def _normal_group(group: str) -> str:
    folded = fold(group).strip(" \0")
    if "^" not in folded:
        return _SPACES.sub(" ", folded).strip(" ")
    return "^".join(_SPACES.sub(" ", component).strip(" ") for component in folded.split("^")).rstrip("^")


def normal_groups(value: str) -> tuple[str, str, str]:
    """The alphabetic, ideographic and phonetic group of a name in normal form, "" for one that is not there.

    Several values (`\\`) keep their places: each group is then a list divided by `\\` too.
    """
    if "\\" in value:
        several = [normal_groups(one) for one in value.split("\\")]
        joined = ["\\".join(groups) if any(groups) else "" for groups in zip(*several, strict=True)]
        return joined[0], joined[1], joined[2]
    groups = [_normal_group(group) for group in value.split("=", GROUPS)[:GROUPS]]
    groups += [""] * (GROUPS - len(groups))
    return groups[0], groups[1], groups[2]
