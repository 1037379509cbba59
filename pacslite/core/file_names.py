"""Names that people give files: kept in the catalog as they were meant, in any language, and never used as a path."""

from __future__ import annotations

import unicodedata

from pacslite.errors import BadRequest

MOST_CHARACTERS = 255
_MOST_EXTENSION = 16
# Characters of the kinds control, format, surrogate and line end. Format characters hide and turn what is read ("txt.exe"
# shown as "exe.txt"); the two joiners are kept where scripts need them (Persian, Devanagari, emoji).
_DROPPED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"
# Windows takes these for devices, with any extension.
_RESERVED = frozenset({"con", "prn", "aux", "nul", "conin$", "conout$", *(f"{p}{n}" for p in ("com", "lpt") for n in "123456789¹²³")})


def original_name(name: str) -> str:
    """The name as it is kept: its last part, without what cannot be seen, of at most 255 characters.

    Raises BadRequest when nothing of it is left.
    """
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    text = "".join(c for c in last if c in _JOINERS or unicodedata.category(c) not in _DROPPED)
    text = text.strip().strip(_JOINERS + " ").rstrip(". ")
    if not text.strip(_JOINERS + ". "):
        raise BadRequest("the file has no name")
    if text.partition(".")[0].strip().lower() in _RESERVED:
        text = "_" + text
    return _cut(text)


def _cut(name: str) -> str:
    if len(name) <= MOST_CHARACTERS:
        return name
    extension = extension_of(name)
    return name[: MOST_CHARACTERS - len(extension)].rstrip(". " + _JOINERS) + extension


def extension_of(name: str) -> str:
    """What the name ends in, in lower case and with its dot; empty when that is no extension: too long, or not letters and digits."""
    last = name.replace("\\", "/").rpartition("/")[2].rstrip(". ")
    stem, dot, extension = last.rpartition(".")
    if not dot or not stem.strip(". ") or len(extension) > _MOST_EXTENSION or not extension.isascii() or not extension.isalnum():
        return ""
    return "." + extension.lower()
