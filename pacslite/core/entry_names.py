"""Names of files in archives: those the files came with, in any language, so that every system can unpack them side by side."""

from __future__ import annotations

import re
import unicodedata

_MOST_BYTES = 180
_MOST_EXTENSION = 16
# What some system does not have in names, or takes for something else than a name.
_REFUSED = re.compile(r'[<>:"/\\|?*]')
_RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in "123456789¹²³"), "conin$", "conout$"})


def safe_name(name: str) -> str:
    """One path component that means itself on every system: no separators, controls, marks of direction, reserved or endless names."""
    text = unicodedata.normalize("NFC", name.encode("utf-8", "replace").decode("utf-8"))
    text = "".join("_" if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") else char for char in text)
    text = _REFUSED.sub("_", text).strip(" .")
    stem, extension = _split(text)
    if stem.partition(".")[0].rstrip(" ").lower() in _RESERVED:
        stem = f"_{stem}"
    return _cut(stem or "file", _MOST_BYTES - len(extension.encode())) + extension


def _split(name: str) -> tuple[str, str]:
    """Stem and extension, with its dot."""
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension.encode()) > _MOST_EXTENSION or not extension or extension != extension.strip():
        return name, ""
    return stem, dot + extension


def _cut(text: str, most: int) -> str:
    """As much of the text as fits into so many bytes of UTF-8."""
    data = text.encode()
    return text if len(data) <= most else data[:most].decode("utf-8", "ignore").rstrip(" .") or "file"


class UniqueNames:
    """Gives each path once: a second one, or one that some system takes for the same, gets a number."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}

    def of(self, folder: str, name: str) -> str:
        """`folder/name`, with a number when that is taken; `folder` and `name` are safe ones."""
        number = self._taken.get(_same(f"{folder}/{name}"), 0)
        if not number:
            self._taken[_same(f"{folder}/{name}")] = 1
            return f"{folder}/{name}"
        stem, extension = _split(name)
        while True:
            number += 1
            tried = f"{folder}/{stem} ({number}){extension}"
            if _same(tried) not in self._taken:
                self._taken[_same(f"{folder}/{name}")] = number
                self._taken[_same(tried)] = 1
                return tried


def _same(path: str) -> str:
    """What a file system without regard to case and composition takes two names for."""
    return unicodedata.normalize("NFKC", path).casefold()
