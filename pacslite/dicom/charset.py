"""Text in any Specific Character Set (PS3.3 C.12.1.1.2, PS3.5 6.1): bytes to text, and text to bytes for answers.

Reading never fails: bytes that the declared sets do not allow are tried as UTF-8, then as ISO 8859-1 where nothing was
declared, else replaced. Values are split after decoding, since 05/12 is half of a character in several sets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

# Defined terms (PS3.3 C.12-2 to C.12-5) to Python codecs. ISO_IR 13 has its Katakana where shift_jis has them.
_SINGLE = {
    "": "ascii",
    "ISO_IR 6": "ascii",
    "ISO_IR 13": "shift_jis",
    "ISO_IR 100": "iso8859_1",
    "ISO_IR 101": "iso8859_2",
    "ISO_IR 109": "iso8859_3",
    "ISO_IR 110": "iso8859_4",
    "ISO_IR 126": "iso8859_7",
    "ISO_IR 127": "iso8859_6",
    "ISO_IR 138": "iso8859_8",
    "ISO_IR 144": "iso8859_5",
    "ISO_IR 148": "iso8859_9",
    "ISO_IR 166": "tis_620",
    "ISO_IR 203": "iso8859_15",
}
_WITHOUT_EXTENSIONS = {"ISO_IR 192": "utf_8", "GB18030": "gb18030", "GBK": "gbk"}
_MULTI_BYTE = {"ISO_IR 87": "jis_0208", "ISO_IR 159": "jis_0212", "ISO_IR 149": "euc_kr", "ISO_IR 58": "gb2312"}
CODECS = _SINGLE | _WITHOUT_EXTENSIONS | _MULTI_BYTE
"""Python's codec of each defined term in its form without code extensions."""

# Escape sequences (PS3.3 C.12-3, C.12-4): which half of the code table, and its codec. Not bound to the declared terms:
# what the bytes say is better evidence than a declaration that leaves a set out.
ESCAPES: dict[bytes, tuple[int, str]] = {
    b"(B": (0, "ascii"),
    b"(J": (0, "romaji"),
    b")I": (1, "shift_jis"),
    b"-A": (1, "iso8859_1"),
    b"-B": (1, "iso8859_2"),
    b"-C": (1, "iso8859_3"),
    b"-D": (1, "iso8859_4"),
    b"-F": (1, "iso8859_7"),
    b"-G": (1, "iso8859_6"),
    b"-H": (1, "iso8859_8"),
    b"-L": (1, "iso8859_5"),
    b"-M": (1, "iso8859_9"),
    b"-T": (1, "tis_620"),
    b"-b": (1, "iso8859_15"),
    b"$B": (0, "jis_0208"),
    b"$@": (0, "jis_0208"),
    b"$(D": (0, "jis_0212"),
    b"$)C": (1, "euc_kr"),
    b"$)A": (1, "gb2312"),
}
"""Escape sequences without their ESC: half of the code table, and codec."""
_PIECES = re.compile(rb"\x1b(\$[()][A-D]|\$[@B]|[()\-][A-Za-z])|([^\x1b]+)|(\x1b)")
# What ends a run of other sets and brings the first one back (PS3.5 6.1.2.5.3).
_LINE_ENDS = b"\t\n\x0c\r"
_DELIMITERS, _NAME_DELIMITERS = _LINE_ENDS + b"\\", _LINE_ENDS + b"\\^="
_TERM = re.compile(r"ISO[ _-]?(?:2022)?[ _-]?(?:IR)?[ _-]?(\d+)")


def normal_term(term: str) -> str:
    """The defined term meant, without code extension and common slips: `ISO 2022 IR 100`, `iso-ir 100` -> `ISO_IR 100`."""
    text = term.strip(" \0").upper()
    found = _TERM.fullmatch(text)
    if found:
        return f"ISO_IR {found[1]}"
    return {"UTF-8": "ISO_IR 192", "UTF8": "ISO_IR 192", "ISO 2022 GBK": "GBK"}.get(text, text)


class Charset:
    """The character sets of one data set or item; `declared` is false where the default repertoire holds."""

    __slots__ = ("_initial", "_multi", "declared", "known", "terms")

    def __init__(self, terms: tuple[str, ...]) -> None:
        normal = [normal_term(term) for term in terms]
        self.terms = terms
        self.declared = any(normal)
        self.known = all(term in CODECS for term in normal)
        first = CODECS.get(normal[0] if normal else "", "ascii")
        # A multi-byte set cannot be the first one (PS3.3 C.12.1.1.2); seen all the same, it is reached by its escapes.
        self._multi = first if first in _WITHOUT_EXTENSIONS.values() else ""
        high = [codec for codec in (CODECS.get(term, "") for term in normal) if codec in ("euc_kr", "gb2312")]
        self._initial = high[0] if first == "ascii" and high else "ascii" if first in ("jis_0208", "jis_0212") else first

    def decode(self, raw: bytes, name: bool = False) -> str:
        """The text of a value; `name` for person names, whose `^` and `=` end code extensions."""
        if b"\x1b" in raw and not self._multi:
            return self._extended(raw, _NAME_DELIMITERS if name else _DELIMITERS)
        if raw.isascii():
            return raw.decode("ascii")
        return self._strictly(raw, self._multi or self._initial)

    def _strictly(self, raw: bytes, codec: str) -> str:
        try:
            return raw.decode(codec)
        except UnicodeDecodeError:
            pass  # the file breaks its own declaration; go by the bytes
        try:
            return raw.decode("utf_8")
        except UnicodeDecodeError:
            return raw.decode(codec, "replace") if self.declared and codec != "ascii" else raw.decode("iso8859_1")

    def _extended(self, raw: bytes, delimiters: bytes) -> str:
        """Text with ISO 2022 escapes (PS3.5 6.1.2.5)."""
        low, high = "ascii", self._initial
        out: list[str] = []
        for found in _PIECES.finditer(raw):
            escape, run, stray = found.groups()
            if run is None:
                if stray or escape not in ESCAPES:
                    continue
                half, codec = ESCAPES[escape]
                low, high = (codec, high) if half == 0 else (low, codec)
                continue
            if low in ("jis_0208", "jis_0212"):
                text, rest = _pairs(run, low)
                out.append(text)
                if not rest:
                    continue
                run, low = rest, "ascii"
            ends = [at for at in (run.find(d) for d in delimiters) if at >= 0]
            if not ends:
                out.append(self._strictly(run, high))
                continue
            out.append(self._strictly(run[: min(ends)], high))
            low, high = "ascii", self._initial
            out.append(self._strictly(run[min(ends) :], high))
        return "".join(out)


def _pairs(run: bytes, codec: str) -> tuple[str, bytes]:
    """The two-byte characters at the begin of a run, and what follows them: a control or a byte beyond the set."""
    end = next((i for i, byte in enumerate(run) if not 0x21 <= byte <= 0x7E), len(run))
    end -= end & 1
    escape = b"\x1b$B" if codec == "jis_0208" else b"\x1b$(D"
    return (escape + run[:end]).decode("iso2022_jp_2", "replace"), run[end:]


DEFAULT = Charset(())


@lru_cache(maxsize=256)
def of_terms(terms: tuple[str, ...]) -> Charset:
    """The charset of the values of Specific Character Set (0008,0005)."""
    return Charset(terms) if any(terms) else DEFAULT


def of_value(raw: bytes) -> Charset:
    """The charset of the bytes of Specific Character Set (0008,0005)."""
    return of_terms(tuple(term.strip(" \0") for term in raw.decode("ascii", "replace").rstrip(" \0").split("\\")))


_ANSWERS = (("", "ascii"), ("ISO_IR 100", "iso8859_1"), ("ISO_IR 192", "utf_8"))


def term_for(texts: Iterable[str], preferred: str = "") -> str:
    """The defined term for an answer that holds these texts: none, `preferred` (one set without extensions), Latin-1, else UTF-8."""
    whole = "".join(texts)
    if whole.isascii():
        return ""
    wanted = normal_term(preferred)
    for term, codec in ((wanted, CODECS.get(wanted, "ascii")), *_ANSWERS):
        if codec not in _MULTI_BYTE.values() and _fits(whole, codec):
            return term
    return "ISO_IR 192"


def _fits(text: str, codec: str) -> bool:
    try:
        encoded = text.encode(codec)
    except UnicodeEncodeError:
        return False
    # ISO_IR 13 is JIS X 0201, a byte each: the Kanji that shift_jis has beside are not in it.
    return codec != "shift_jis" or len(encoded) == len(text)


def encode_for(text: str, term: str) -> bytes:
    """The text in the set named by one defined term without code extensions, `?` for what the set lacks."""
    codec = CODECS.get(normal_term(term), "ascii")
    return text.encode("ascii" if codec in _MULTI_BYTE.values() else codec, "replace")
