"""Text of an answer over DIMSE in a character set that the caller can read (PS3.3 C.12.1.1.2, PS3.5 6.1.2.5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pacslite.dicom import charset
from pacslite.dicom.code_extensions import code_extensions

TextEncoder = Callable[[str, bool], bytes]
_UTF_8, _LATIN_1 = "ISO_IR 192", "ISO_IR 100"


def text_encoder(texts: Sequence[str], asked: tuple[str, ...]) -> tuple[str, TextEncoder]:
    """The value of Specific Character Set, empty for the default repertoire, and the function that encodes values.

    `texts` are those beyond ASCII that have to fit; `asked` is the Specific Character Set of the request.
    """
    extended = code_extensions(asked)
    if not texts:
        return extended.value if extended else "", _ascii
    if extended and all(map(extended.fits, texts)):
        return extended.value, extended.encode
    term = charset.term_for(texts, asked[0]) if len(asked) == 1 else _UTF_8
    if term == _LATIN_1 and "100" not in asked[0]:
        term = _UTF_8  # Latin-1 would hold it too, but was not asked for
    return term, lambda text, _name: charset.encode_for(text, term)


def _ascii(text: str, _name: bool) -> bytes:
    return text.encode("ascii", "replace")
