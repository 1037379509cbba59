"""Rows of a search as identifiers of C-FIND responses (PS3.4 C.4.1.1.3.2), written straight to bytes.

One answerer is made for a query; it knows the head of every element it will write. Text goes out in a set the caller can
read: the one its identifier named when that can hold the values, else UTF-8 (ISO_IR 192).
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pacslite.core.query import Page, item_values
from pacslite.core.query_keys import Key
from pacslite.dicom import vr
from pacslite.dicom.attributes import SEQUENCE_ITEMS, Attribute
from pacslite.dicom.document import Document, PrivateTag, fits, items_of, private_element, tag_key
from pacslite.dicom.header import Encoding
from pacslite.dicom.matching import SequenceMatch, matches
from pacslite.dimse.answer_text import TextEncoder, text_encoder
from pacslite.dimse.identifiers import QUERY_RETRIEVE_LEVEL, Identifier, encoding_of, is_deflated

RETRIEVE_AE_TITLE, INSTANCE_AVAILABILITY = 0x00080054, 0x00080056
_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_BYTES = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_PN_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_ITEM = 0xFFFEE000
_LONGEST_SHORT = 0xFFFE

# What is to be written: (tag, VR, value); a value is text, items of such (SQ), or bytes as they stand.
Cell = tuple[int, str, "str | bytes | list[list[Cell]]"]


class ElementWriter:
    """Writes elements in one native encoding (PS3.5 7.1)."""

    def __init__(self, encoding: Encoding) -> None:
        order = "<" if encoding.little else ">"
        self._explicit = encoding.explicit
        self._order = order
        self._implicit_head = struct.Struct(order + "HHI")
        self._short_head = struct.Struct(order + "HH2sH")
        self._long_head = struct.Struct(order + "HH2sxxI")

    def write(self, cells: Iterable[Cell], text: TextEncoder) -> bytes:
        """The elements of a data set or item; `cells` in ascending order of tags."""
        return b"".join(self._element(tag, name, self._value(name, value, text)) for tag, name, value in cells)

    def _element(self, tag: int, name: str, raw: bytes) -> bytes:
        if len(raw) & 1:
            raw += b"\0" if name == "UI" or name in _BYTES else b" "
        group, element = tag >> 16, tag & 0xFFFF
        if not self._explicit:
            return self._implicit_head.pack(group, element, len(raw)) + raw
        if name in vr.LONG_NAMES:
            return self._long_head.pack(group, element, name.encode(), len(raw)) + raw
        if len(raw) > _LONGEST_SHORT:  # PS3.5 6.2.2: what is too long for its VR goes as UN
            return self._long_head.pack(group, element, b"UN", len(raw)) + raw
        return self._short_head.pack(group, element, name.encode(), len(raw)) + raw

    def text_encoder(self, tag: int, name: str) -> Callable[[object], bytes | None] | None:
        """A function from ASCII text to the element, from other text to None; none for VRs with a long header."""
        if self._explicit and name in vr.LONG_NAMES:
            return None
        pad = b"\0" if name == "UI" else b" "
        group, element, code = tag >> 16, tag & 0xFFFF, name.encode()
        short, implicit, explicit = self._short_head.pack, self._implicit_head.pack, self._explicit

        def encode(value: object) -> bytes | None:
            raw = b"" if value is None else (value if isinstance(value, str) else str(value)).encode()
            if not raw.isascii():
                return None
            if len(raw) & 1:
                raw += pad
            if not explicit:
                return implicit(group, element, len(raw)) + raw
            return short(group, element, code, len(raw)) + raw if len(raw) <= _LONGEST_SHORT else self._element(tag, name, raw)

        return encode

    def _value(self, name: str, value: str | bytes | list[list[Cell]], text: TextEncoder) -> bytes:
        if isinstance(value, bytes):
            return value
        if isinstance(value, list):
            items = [self.write(cells, text) for cells in value]
            return b"".join(self._implicit_head.pack(_ITEM >> 16, _ITEM & 0xFFFF, len(item)) + item for item in items)
        if name in vr.CHARSET_TEXT:
            return text(value, name == "PN")
        if name in _NUMBERS:
            return self._numbers(_NUMBERS[name], value)
        if name == "AT":
            return self._tags(value)
        return value.encode("ascii", "replace")

    def _numbers(self, code: str, value: str) -> bytes:
        convert: Callable[[str], float] = float if code in "fd" else int
        return b"".join(struct.pack(self._order + code, convert(part)) for part in value.split("\\") if part.strip())

    def _tags(self, value: str) -> bytes:
        return b"".join(struct.pack(self._order + "HH", int(part[:4], 16), int(part[4:], 16)) for part in value.split("\\") if part)


class Answerer:
    """Turns the rows of one search into response identifiers."""

    def __init__(self, identifier: Identifier, level: str, transfer_syntax: str, retrieve_aet: str, keys: Iterable[Key] = ()) -> None:
        self._identifier = identifier
        # Of a sequence that was matched only the items that fit are answered (PS3.4 C.2.2.2.6).
        self._inside = {key.tag: key.match.keys for key in keys if isinstance(key.match, SequenceMatch)}
        self._writer = ElementWriter(encoding_of(transfer_syntax))
        self._deflated = is_deflated(transfer_syntax)
        self._fixed: list[Cell] = [
            (QUERY_RETRIEVE_LEVEL, "CS", level),
            (RETRIEVE_AE_TITLE, "AE", retrieve_aet),
            (INSTANCE_AVAILABILITY, "CS", "ONLINE"),
        ]

    def answers(self, page: Page, private: dict[int, PrivateTag]) -> Iterable[bytes]:
        """One identifier for each row; `private` are private attributes to return, by the tag that was asked."""
        if page.documents or not page.rows:
            return (self._encode(self._cells(page, number, private)) for number in range(len(page.rows)))
        _, *values = zip(*page.rows, strict=True)
        constant, encode = self._plain()
        columns: dict[int, Sequence[bytes | None]] = {tag: [cell] * len(page.rows) for tag, cell in constant.items()}
        columns |= {a.tag: encode_column(encode(a), column) for a, column in zip(page.columns, values, strict=True)}
        rows = zip(*(columns[tag] for tag in sorted(columns)), strict=True)
        return (self._joined(row) or self._encode(self._cells(page, number, {})) for number, row in enumerate(rows))

    def _cells(self, page: Page, number: int, private: dict[int, PrivateTag]) -> list[Cell]:
        cells = self._fixed + [self._column(a, value) for a, value in zip(page.columns, page.rows[number][1:], strict=True)]
        if page.documents:
            document = page.documents[number]
            cells += [self._from_document(document, tag) for tag in page.document_tags]
            cells += _private_cells(document, private)
        cells.sort(key=_tag)
        return cells

    def _plain(self) -> tuple[dict[int, bytes], Callable[[Attribute], Callable[[object], bytes | None]]]:
        """For rows of ASCII text: the elements that are the same in all of them, and what makes the encoder of a column."""
        term, text = text_encoder((), self._identifier.charset_terms)
        fixed = [(vr.SPECIFIC_CHARACTER_SET, "CS", term), *self._fixed] if term else self._fixed
        constant = {cell[0]: self._writer.write([cell], text) for cell in fixed}

        def encoder(attribute: Attribute) -> Callable[[object], bytes | None]:
            def encode(value: object) -> bytes | None:
                if isinstance(value, str) and not value.isascii():
                    return None
                return self._writer.write([self._column(attribute, value)], text)

            if attribute.vr == "SQ" or attribute.vr in _NUMBERS or attribute.vr == "AT":
                return encode
            return self._writer.text_encoder(attribute.tag, attribute.vr) or encode

        return constant, encoder

    def _joined(self, row: tuple[bytes | None, ...]) -> bytes | None:
        """The elements as one identifier; None when one of them has text beyond ASCII."""
        return None if None in row else self._finished(b"".join(row))  # type: ignore[arg-type]

    def _column(self, attribute: Attribute, value: object) -> Cell:
        if attribute.vr == "SQ":
            return attribute.tag, "SQ", self._items(attribute, value)
        return attribute.tag, attribute.vr, "" if value is None else value if isinstance(value, str) else str(value)

    def _items(self, attribute: Attribute, value: object) -> list[list[Cell]]:
        if not isinstance(value, str) or not value:
            return []
        wanted = self._identifier.inside.get(attribute.tag)
        inner = sorted(SEQUENCE_ITEMS[attribute.tag], key=lambda a: a.tag)
        shown = [a for a in inner if not wanted or a.tag in wanted]
        keys = self._inside.get(attribute.tag, ())
        items = [item for item in item_values(attribute, value) if all(matches(match, (item[tag],)) for tag, match in keys if tag in item)]
        return [[(a.tag, a.vr, item[a.tag]) for a in shown] for item in items]

    def _from_document(self, document: Document, tag: int) -> Cell:
        element = document.get(tag_key(tag))
        if element is None:
            return tag, vr.VrContext().vr_of(tag, 0), ""
        if tag in self._inside:
            element = element | {"Value": [item for item in items_of(element) if fits(item, self._inside[tag])]}
        return _json_cell(tag, element, self._identifier.inside.get(tag))

    def _encode(self, cells: list[Cell]) -> bytes:
        texts = list(_texts(cells))
        term, text = text_encoder(texts, self._identifier.charset_terms)
        if term:
            cells.insert(0, (vr.SPECIFIC_CHARACTER_SET, "CS", term))
        return self._finished(self._writer.write(cells, text))

    def _finished(self, data: bytes) -> bytes:
        if not self._deflated:
            return data
        machine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        packed = machine.compress(data) + machine.flush()
        return packed + b"\0" * (len(packed) & 1)


def encode_column(encode: Callable[[object], bytes | None], values: Sequence[object]) -> list[bytes | None]:
    """A whole column, equal values once: patients and days repeat in a list of studies."""
    known: dict[object, bytes | None] = {}
    out = []
    for value in values:
        try:
            out.append(known[value])
        except KeyError:
            known[value] = encoded = encode(value)
            out.append(encoded)
    return out


def _tag(cell: Cell) -> int:
    return cell[0]


def _texts(cells: Iterable[Cell]) -> Iterable[str]:
    """All text that Specific Character Set governs."""
    for _, name, value in cells:
        if isinstance(value, list):
            for item in value:
                yield from _texts(item)
        elif isinstance(value, str) and name in vr.CHARSET_TEXT and not value.isascii():
            yield value


def _private_cells(document: Document, private: dict[int, PrivateTag]) -> list[Cell]:
    """Private attributes at the tags where they were asked for, whatever block they have in the object (PS3.5 7.8)."""
    cells: list[Cell] = []
    for tag, wanted in private.items():
        found = private_element(document, wanted)
        if found is not None:
            cells.append(_json_cell(tag, found[1], None))
    creators = {(tag & 0xFFFF0000) | (tag & 0xFFFF) >> 8: wanted.creator for tag, wanted in private.items()}
    return cells + [(tag, "LO", creator) for tag, creator in creators.items()]


def _json_cell(tag: int, element: dict[str, Any], wanted: frozenset[int] | None) -> Cell:
    """An element of a stored document; bulk data is not part of an answer to a search."""
    name = element["vr"]
    if "InlineBinary" in element:
        return tag, name, base64.b64decode(element["InlineBinary"])
    values = element.get("Value", ())
    if name == "SQ":
        return tag, name, [_json_cells(item, wanted) for item in values if isinstance(item, dict)]
    if name in _BYTES:
        return tag, name, b""
    return tag, name, "\\".join(_json_text(value) for value in values)


def _json_cells(item: Document, wanted: frozenset[int] | None) -> list[Cell]:
    cells = [_json_cell(int(key, 16), element, None) for key, element in sorted(item.items())]
    return [cell for cell in cells if cell[0] != vr.SPECIFIC_CHARACTER_SET and (not wanted or cell[0] in wanted)]


def _json_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return "=".join(value.get(group, "") for group in _PN_GROUPS).rstrip("=")
    return str(value)
