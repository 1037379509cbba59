"""The normal form in which person names are matched (PS3.5 6.2.1, PS3.4 C.2.2.2.1).

A PN value is up to three component groups (alphabetic, ideographic, phonetic) divided by `=`, each of up to five
components divided by `^`. Matching is our choice within PS3.4 C.2.2.2.4 and is said in the conformance statement: case
and accents are ignored, the padding of components and trailing empty components do not count. Kana voicing marks and
Hangul are letters, not accents, and stay.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

# Marks that are accents: Latin, Greek and Cyrillic diacritics, Hebrew and Arabic points. Vowel signs of other scripts are letters.
_ACCENTS = re.compile(
    "[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u064b-\u065f\u0670\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
)
# Letters with a stroke and ligatures have no decomposition in Unicode, but people type them without.
_STROKES = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ħ": "h", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th", "ð": "d"})
# Wide and struck-through forms become these by folding, and are no delimiters for it.
_NO_DELIMITERS = str.maketrans("=\\", "  ")
_SPACES = re.compile(r"\s+")
# What stands between the words of a name: components, groups, values, double names, initials.
_BETWEEN_WORDS = re.compile(r"[\s^=\\,.~'\u2019\-]+")
_MAX_WORDS, _MAX_WORD = 32, 64
GROUPS = 3


def fold(text: str) -> str:
    """Text without case and accents, compatibility forms (full and half width) made one; spaces are kept as they are."""
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return unicodedata.normalize("NFC", _ACCENTS.sub("", folded)).translate(_STROKES)


def _normal_group(group: str) -> str:
    folded = fold(group).translate(_NO_DELIMITERS).strip(" \0")
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


def words_of(name: str) -> tuple[str, ...]:
    """The words of a name in normal form, each once, whatever component, group or value it stands in."""
    words = (word[:_MAX_WORD] for word in _BETWEEN_WORDS.split(fold(name.replace("\0", " "))) if word)
    return tuple(dict.fromkeys(words))[:_MAX_WORDS]


# The Cologne phonetics (H. J. Postel, 1969): letters that sound alike in German, and mostly in English, are one digit.
_SOUNDS = dict.fromkeys("aeijouy", "0") | {"b": "1", "l": "5", "r": "7"} | dict.fromkeys("fvw", "3") | dict.fromkeys("gkq", "4")
_SOUNDS |= dict.fromkeys("mn", "6") | dict.fromkeys("sz", "8")
_REPEATED = re.compile(r"(.)\1+")


@lru_cache(maxsize=4096)
def sound_of(word: str) -> str:
    """How a word of Latin letters sounds, "" for another: equal for Meier, Mayer and Meyer."""
    if not (word.isascii() and word.isalpha()):
        return ""
    codes = "".join(_sound(word[i - 1 : i], letter, word[i + 1 : i + 2]) for i, letter in enumerate(word))
    codes = _REPEATED.sub(r"\1", codes)
    return codes[:1] + codes[1:].replace("0", "")


def _sound(before: str, letter: str, after: str) -> str:
    """The digits of a letter between its neighbours, "" where there are none."""
    if letter == "p":
        return "3" if after == "h" else "1"
    if letter in "dt":
        return "8" if after and after in "csz" else "2"
    if letter == "x":
        return "8" if before and before in "ckq" else "48"
    if letter == "c":
        hard = "ahkloqrux" if not before else "ahkoqux"
        return "4" if after and after in hard and not (before and before in "sz") else "8"
    return _SOUNDS.get(letter, "")
