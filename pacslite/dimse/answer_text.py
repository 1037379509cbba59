"""Text of an answer over DIMSE in a character set that the caller can read (PS3.3 C.12.1.1.2, PS3.5 6.1.2.5)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from pydicom.charset import STAND_ALONE_ENCODINGS, encode_string, python_encoding

from pacslite.dicom import charset

TextEncoder = Callable[[str, bool], bytes]
_UTF_8, _LATIN_1 = "ISO_IR 192", "ISO_IR 100"
# Every part between these starts anew in the first set (PS3.5 6.1.2.5.3).
_PARTS = re.compile(r"([\\^=\r\n\t\f])")


def text_encoder(texts: Sequence[str], asked: tuple[str, ...]) -> tuple[str, TextEncoder]:
    """The value of Specific Character Set, empty for the default repertoire, and the function that encodes values.

    `texts` are those beyond ASCII that have to fit; `asked` is the Specific Character Set of the request.
    """
    if not texts:
        return "\\".join(asked) if _codecs(asked) else "", _ascii
    codecs = _codecs(asked)
    if codecs and all(_fits(text, codecs) for text in texts):
        return "\\".join(asked), _extended(codecs)
    term = charset.term_for(texts, asked[0]) if len(asked) == 1 else _UTF_8
    if term == _LATIN_1 and "100" not in asked[0]:
        term = _UTF_8  # Latin-1 would hold it too, but was not asked for
    return term, lambda text, _name: charset.encode_for(text, term)


def _ascii(text: str, _name: bool) -> bytes:
    return text.encode("ascii", "replace")


@lru_cache(maxsize=256)
def _codecs(terms: tuple[str, ...]) -> tuple[str, ...]:
    """The codecs of sets that are used together by code extensions; none for a single set, unknown terms or mixtures."""
    if not any(terms) or (len(terms) == 1 and not terms[0].startswith("ISO 2022")):
        return ()
    codecs = tuple(python_encoding.get(term or "ISO_IR 6", "") for term in terms)
    return () if not all(codecs) or any(term in STAND_ALONE_ENCODINGS for term in terms) else codecs


def _fits(text: str, codecs: tuple[str, ...]) -> bool:
    return all(c.isascii() or any(_has(c, codec) for codec in codecs) for c in set(text))


@lru_cache(maxsize=4096)
def _has(character: str, codec: str) -> bool:
    try:
        character.encode(codec)
    except UnicodeEncodeError:
        return False
    return True


def _extended(codecs: tuple[str, ...]) -> TextEncoder:
    def encode(text: str, _name: bool) -> bytes:
        return b"".join(encode_string(part, list(codecs)) if part else b"" for part in _PARTS.split(text))

    return encode
