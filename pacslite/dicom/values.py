"""The values of elements as JSON and as text (PS3.18 F.2.3), one function per kind of VR.

Policy where the standard leaves room: IS, DS, SV and UV are JSON numbers with the digits of the file, strings when
their text is no number; FL and FD that are not finite are the strings "NaN", "Infinity" and "-Infinity".
"""

from __future__ import annotations

import re
import struct
from array import array
from binascii import b2a_base64
from collections.abc import Callable
from json.encoder import encode_basestring
from math import isfinite, isnan

from pacslite.dicom import vr as vrs
from pacslite.dicom.charset import Charset

# What follows the VR in the member, and the values as text.
Rendered = tuple[str, tuple[str, ...]]
Renderer = Callable[[bytes, bool, Charset], Rendered]

_EMPTY: Rendered = ("", ())
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_LOOSE = re.compile(r"([+-]?)0*+(\d*+)(?:\.(\d*+))?(?:[eE]([+-]?\d++))?", re.ASCII)
_PAD = " \0"
# Delimiters alone are no name: empty components may be left out or not (PS3.5 6.2.1.1).
_NO_NAME = "^= \0"
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_SWAP_CODES = {2: "H", 4: "I", 8: "Q"}


def swapped(raw: bytes, word_bytes: int) -> bytes:
    """The bytes with each whole word turned round; what is left over at the end stays."""
    if word_bytes not in _SWAP_CODES:
        return raw
    whole = len(raw) - len(raw) % word_bytes
    words = array(_SWAP_CODES[word_bytes], raw[:whole])
    words.byteswap()
    return words.tobytes() + raw[whole:]


def _quoted(values: tuple[str, ...]) -> Rendered:
    if len(values) == 1:
        return f',"Value":[{encode_basestring(values[0])}]', values
    return f',"Value":[{",".join([encode_basestring(v) if v else "null" for v in values])}]', values


def _code(raw: bytes, little: bool, charset: Charset) -> Rendered:
    """AE AS CS DA DT TM UI: the default repertoire, spaces at both ends mean nothing (PS3.5 6.2)."""
    text = (raw.decode("ascii") if raw.isascii() else charset.decode(raw)).strip(_PAD)
    if not text:
        return _EMPTY
    if "\\" not in text:
        return f',"Value":[{encode_basestring(text)}]', (text,)
    return _quoted(tuple([v.strip(_PAD) for v in text.split("\\")]))


def _text(raw: bytes, little: bool, charset: Charset) -> Rendered:
    """LO SH UC: several values, padded at their ends."""
    text = charset.decode(raw).rstrip(_PAD)
    if not text:
        return _EMPTY
    if "\\" not in text:
        return f',"Value":[{encode_basestring(text)}]', (text,)
    return _quoted(tuple([v.rstrip(_PAD) for v in text.split("\\")]))


def _single(raw: bytes, little: bool, charset: Charset) -> Rendered:
    """LT ST UT UR: one value, in which a backslash is a character."""
    text = charset.decode(raw).rstrip(_PAD)
    return (f',"Value":[{encode_basestring(text)}]', (text,)) if text else _EMPTY


def _name(raw: bytes, little: bool, charset: Charset) -> Rendered:
    """PN: an object of the groups that are there (PS3.18 F.2.2)."""
    text = charset.decode(raw, name=True).rstrip(_PAD)
    if not text.strip(_NO_NAME):
        return _EMPTY
    if "\\" not in text and "=" not in text:
        return f',"Value":[{{"Alphabetic":{encode_basestring(text)}}}]', (text,)
    values = tuple([v.rstrip(_PAD) for v in text.split("\\")])
    return f',"Value":[{",".join([_groups(v) for v in values])}]', values


def _groups(value: str) -> str:
    groups = [group.rstrip(_PAD) for group in value.split("=")]
    members = [f'"{key}":{encode_basestring(group)}' for key, group in zip(_GROUPS, groups, strict=False) if group.strip(_NO_NAME)]
    return f"{{{','.join(members)}}}" if members else "null"


def _decimal(raw: bytes, little: bool, charset: Charset) -> Rendered:
    """DS IS."""
    text = (raw.decode("ascii") if raw.isascii() else charset.decode(raw)).strip(_PAD)
    if not text:
        return _EMPTY
    values = tuple([v.strip(_PAD) for v in text.split("\\")]) if "\\" in text else (text,)
    return f',"Value":[{",".join([v if _NUMBER.fullmatch(v) else _loose_number(v) for v in values])}]', values


def _loose_number(text: str) -> str:
    """The JSON number of a text that DICOM allows but JSON does not, such as `+1`, `007` or `.5`."""
    if not text:
        return "null"
    found = _LOOSE.fullmatch(text)
    if not found or not (found[2] or found[3] or "0" in text.partition("e")[0].partition("E")[0]):
        return encode_basestring(text)
    sign, whole, fraction, exponent = found.groups()
    return f"{'-' if sign == '-' else ''}{whole or '0'}{'.' + fraction if fraction else ''}{'e' + exponent if exponent else ''}"


def _integers(code: str, size: int) -> Renderer:
    """US SS UL SL UV SV."""
    one = {True: struct.Struct("<" + code), False: struct.Struct(">" + code)}

    def render(raw: bytes, little: bool, charset: Charset) -> Rendered:
        count = len(raw) // size
        if count == 1:
            text = str(one[little].unpack_from(raw)[0])
            return f',"Value":[{text}]', (text,)
        if not count:
            return _EMPTY
        texts = tuple(map(str, struct.unpack_from(f"{'<' if little else '>'}{count}{code}", raw)))
        return f',"Value":[{",".join(texts)}]', texts

    return render


def _float_text(number: float) -> str:
    if isfinite(number):
        return repr(number)
    return "NaN" if isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _floats(code: str, size: int) -> Renderer:
    """FL FD: the shortest decimal that is the number."""

    def render(raw: bytes, little: bool, charset: Charset) -> Rendered:
        count = len(raw) // size
        if not count:
            return _EMPTY
        numbers = struct.unpack_from(f"{'<' if little else '>'}{count}{code}", raw)
        texts = tuple([_float_text(n) for n in numbers])
        members = [t if isfinite(n) else f'"{t}"' for t, n in zip(texts, numbers, strict=True)]
        return f',"Value":[{",".join(members)}]', texts

    return render


def _tags(raw: bytes, little: bool, charset: Charset) -> Rendered:
    """AT: eight upper-case hexadecimal digits."""
    count = len(raw) // 4
    if not count:
        return _EMPTY
    words = struct.unpack_from(f"{'<' if little else '>'}{count * 2}H", raw)
    return _quoted(tuple([f"{words[i]:04X}{words[i + 1]:04X}" for i in range(0, len(words), 2)]))


def _bytes(word_bytes: int) -> Renderer:
    """OB OW OF OD OL OV UN: base64 of the little endian bytes (PS3.18 F.2.7)."""

    def render(raw: bytes, little: bool, charset: Charset) -> Rendered:
        if not raw:
            return _EMPTY
        plain = raw if little else swapped(raw, word_bytes)
        return f',"InlineBinary":"{b2a_base64(plain, newline=False).decode("ascii")}"', ()

    return render


RENDERERS: dict[str, Renderer] = {
    **dict.fromkeys(("AE", "AS", "CS", "DA", "DT", "TM", "UI"), _code),
    **dict.fromkeys(("LO", "SH", "UC"), _text),
    **dict.fromkeys(("LT", "ST", "UT", "UR"), _single),
    **dict.fromkeys(("DS", "IS"), _decimal),
    **{vr: _bytes(vrs.WORD_BYTES.get(vr, 1)) for vr in ("OB", "OW", "OF", "OD", "OL", "OV", "UN")},
    "PN": _name,
    "AT": _tags,
    "US": _integers("H", 2),
    "SS": _integers("h", 2),
    "UL": _integers("I", 4),
    "SL": _integers("i", 4),
    "UV": _integers("Q", 8),
    "SV": _integers("q", 8),
    "FL": _floats("f", 4),
    "FD": _floats("d", 8),
}
