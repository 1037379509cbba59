"""Text to bytes in several character sets by code extensions (PS3.5 6.1.2.5, ISO 2022): what `charset` reads, written.

The first set is active at the begin of a value and again after each delimiter (PS3.5 6.1.2.5.3); another is reached by its
escape sequence. What was invoked in the left half of the code table is left before a delimiter, so that this is always read.
"""

from __future__ import annotations

import re
from functools import lru_cache

from pacslite.dicom.charset import CODECS, ESCAPES, normal_term

_ESC = b"\x1b"
_EXTENSION = "ISO 2022 IR "
_TWO_BYTES = ("jis_0208", "jis_0212", "euc_kr", "gb2312")
_JIS = {"jis_0208": ("iso2022_jp", b"$B"), "jis_0212": ("iso2022_jp_1", b"$(D")}
_DELIMITERS, _NAME_DELIMITERS = re.compile(r"([\\\t\n\f\r])"), re.compile(r"([\\\t\n\f\r^=])")
_ESCAPE_OF = {codec: escape for escape, (_, codec) in reversed(ESCAPES.items())}


class CodeExtensions:
    """The sets of one Specific Character Set that are used together; `value` is what it says in its defined terms."""

    __slots__ = ("_codecs", "_first", "_home", "value")

    def __init__(self, terms: tuple[str, ...]) -> None:
        codecs = [CODECS[normal_term(term)] for term in terms]
        self.value = "\\".join(_EXTENSION + normal_term(term).removeprefix("ISO_IR ") if term else "" for term in terms)
        # A set of two bytes cannot be the first one (PS3.3 C.12.1.1.2); named there all the same, it is reached by its escape.
        self._first = "ascii" if codecs[0] in _TWO_BYTES else codecs[0]
        # JIS X 0201 has Romaji in its left half; the others have ASCII.
        self._home = b"(J" if self._first == "shift_jis" else b"(B"
        self._codecs = tuple(dict.fromkeys((self._first, *codecs)))

    def fits(self, text: str) -> bool:
        """Whether the sets hold every character."""
        return all(self._set_of(character) for character in set(text))

    def encode(self, text: str, name: bool = False) -> bytes:
        """The bytes of a value that fits; `name` for person names, in which `^` and `=` are delimiters too."""
        parts = (_NAME_DELIMITERS if name else _DELIMITERS).split(text)
        return b"".join(part.encode() if part.isascii() else self._part(part) for part in parts)

    def _part(self, part: str) -> bytes:
        low, high = self._home, self._first
        out = bytearray()
        for character in part:
            codec = self._set_of(character, high)
            escape = self._home if codec == "ascii" else _ESCAPE_OF.get(codec, b"")
            if codec in _JIS or codec == "ascii":
                out += _ESC + escape if low != escape else b""
                low = escape
            elif codec != high:
                out += _ESC + escape
                high = codec
            out += _bytes(character, codec)
        if low != self._home:
            out += _ESC + self._home
        return bytes(out)

    def _set_of(self, character: str, active: str = "") -> str:
        """The set to write a character in: ASCII, the one that is active, else the first that has it; empty when none has."""
        if character.isascii():
            return "ascii"
        return next((codec for codec in (active, *self._codecs) if codec and _bytes(character, codec)), "")


@lru_cache(maxsize=256)
def code_extensions(terms: tuple[str, ...]) -> CodeExtensions | None:
    """The sets of a Specific Character Set with code extensions; None for a single set, unknown terms and those without extensions."""
    normal = [normal_term(term) for term in terms]
    if not any(normal) or (len(terms) == 1 and not terms[0].strip().upper().startswith("ISO 2022")):
        return None
    extensible = all(CODECS.get(term) == "ascii" or CODECS.get(term) in _ESCAPE_OF for term in normal)
    return CodeExtensions(terms) if extensible else None


@lru_cache(maxsize=8192)
def _bytes(character: str, codec: str) -> bytes:
    """The character in a set, without escapes; empty when the set has it not."""
    try:
        if codec in _JIS:
            machine, escape = _JIS[codec]
            encoded = character.encode(machine)
            return encoded[len(escape) + 1 : -3] if encoded.startswith(_ESC + escape) else b""
        encoded = character.encode(codec)
    except UnicodeEncodeError:
        return b""
    # shift_jis and euc_kr know characters beyond the sets that they stand for here.
    return encoded if character.isascii() or len(encoded) == 1 + (codec in _TWO_BYTES) else b""
