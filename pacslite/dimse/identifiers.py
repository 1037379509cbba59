"""The identifier of a query or retrieval (PS3.4 C.4.1.1.3) as it came over the wire: keys as paths of tags with texts."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

from pacslite.dicom import charset, vr
from pacslite.dicom.charset import Charset
from pacslite.dicom.header import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, Encoding, Kind, Token, Walk
from pacslite.dicom.limits import Limits
from pacslite.dicom.source import Source
from pacslite.errors import InstanceRefused, InvalidQuery

QUERY_RETRIEVE_LEVEL = 0x00080052
_MAX_INFLATED_BYTES = 16 * 1024**2
_LIMITS = Limits(max_depth=16)
# An identifier names each attribute once; what names tens of thousands is meant to keep us busy.
_MAX_ELEMENTS = 20_000
_ENCODINGS = {"1.2.840.10008.1.2": IMPLICIT_LE, "1.2.840.10008.1.2.2": EXPLICIT_BE}
_DEFLATED = "1.2.840.10008.1.2.1.99"
_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_OPAQUE = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})


def encoding_of(transfer_syntax: str) -> Encoding:
    """How identifiers are written in a presentation context (PS3.5 A)."""
    return _ENCODINGS.get(transfer_syntax, EXPLICIT_LE)


def is_deflated(transfer_syntax: str) -> bool:
    """Whether identifiers are deflated in a presentation context (PS3.5 A.5)."""
    return transfer_syntax == _DEFLATED


@dataclass(frozen=True, slots=True)
class Identifier:
    """A decoded identifier.

    `terms` are (path of tags, text); sequences are in them by what their first item holds. `asked` are the tags of the
    top level in order; `inside` the tags that the item of a sequence key names. `charset_terms` is Specific Character Set.
    """

    level: str
    terms: tuple[tuple[tuple[int, ...], str], ...]
    asked: tuple[int, ...]
    inside: dict[int, frozenset[int]]
    charset_terms: tuple[str, ...]

    def text(self, tag: int) -> str:
        """The text of a key of the top level, empty when absent."""
        return next((text for path, text in self.terms if path == (tag,)), "")


def decode_identifier(data: bytes, transfer_syntax: str) -> Identifier:
    """The identifier in `data`; raises InvalidQuery when it is not a data set."""
    if is_deflated(transfer_syntax):
        data = _inflate(data)
    try:
        walk = Walk(Source.of_stream(BytesIO(data), _LIMITS), settle=True)
        return _decode(walk, encoding_of(transfer_syntax), data)
    except InstanceRefused as error:
        raise InvalidQuery(f"the identifier cannot be read: {error}") from error


def _inflate(data: bytes) -> bytes:
    machine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = machine.decompress(data, _MAX_INFLATED_BYTES)
    except zlib.error as error:
        raise InvalidQuery("the identifier cannot be inflated") from error
    if machine.unconsumed_tail:
        raise InvalidQuery(f"the identifier inflates to more than {_MAX_INFLATED_BYTES} bytes")
    return plain


def _decode(walk: Walk, encoding: Encoding, data: bytes) -> Identifier:
    terms: list[tuple[tuple[int, ...], str]] = []
    asked: list[int] = []
    inside: dict[int, set[int]] = {}
    charset_terms: tuple[str, ...] = ()
    sets = [charset.DEFAULT]
    for path, token in _first_items(walk.tokens(0, encoding)):
        head = token.head
        raw = data[head.start : token.after] if token.kind is Kind.VALUE else b""
        del sets[len(path) :]
        sets += [sets[-1]] * (len(path) - len(sets))
        if head.tag == vr.SPECIFIC_CHARACTER_SET:
            sets[-1] = charset.of_value(raw)
            charset_terms = charset_terms or sets[-1].terms
            continue
        if not head.tag & 0xFFFF:
            continue  # group lengths (PS3.5 7.2)
        if len(path) == 1:
            asked.append(head.tag)
        else:
            inside.setdefault(path[0], set()).add(path[1])
        if token.kind is Kind.VALUE:
            terms.append((path, _text(raw, head.vr, token.encoding.little, sets[-1])))
    level = next((text for path, text in terms if path == (QUERY_RETRIEVE_LEVEL,)), "")
    return Identifier(level, tuple(terms), tuple(asked), {tag: frozenset(tags) for tag, tags in inside.items()}, charset_terms)


def _first_items(tokens: Iterator[Token]) -> Iterator[tuple[tuple[int, ...], Token]]:
    """Elements with their paths; items of a sequence beyond the first are no keys (PS3.4 C.2.2.2.6)."""
    path: list[int] = []
    items: list[int] = []
    for number, token in enumerate(tokens):
        if number >= _MAX_ELEMENTS:
            raise InvalidQuery(f"the identifier has more than {_MAX_ELEMENTS} elements and items")
        if token.kind is Kind.ITEM:
            items[-1] += 1
        elif token.kind is Kind.SEQUENCE_END:
            path.pop()
            items.pop()
        elif token.kind is not Kind.ITEM_END:
            if max(items, default=1) <= 1:
                yield (*path, token.head.tag), token
            if token.kind is Kind.SEQUENCE:
                path.append(token.head.tag)
                items.append(0)


def _text(raw: bytes, name: str, little: bool, text_set: Charset) -> str:
    """The value as text, values joined by backslashes; bytes that no key can name become no text."""
    if name in _OPAQUE and not raw.isascii():
        return ""
    if name in _NUMBERS:
        code = _NUMBERS[name]
        count = len(raw) // struct.calcsize(code)
        values = struct.unpack_from(f"{'<' if little else '>'}{count}{code}", raw)
        return "\\".join(str(value) for value in values)
    if name == "AT":
        words = struct.unpack_from(f"{'<' if little else '>'}{len(raw) // 4 * 2}H", raw)
        return "\\".join(f"{group:04X}{element:04X}" for group, element in zip(words[::2], words[1::2], strict=True))
    return text_set.decode(raw, name == "PN").rstrip(" \0")
