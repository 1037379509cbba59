"""Rows of the catalog as DICOM JSON bytes (PS3.18 Annex F), without a Python object per attribute.

Each column has an encoder made once; a whole column is encoded at a time and equal neighbours only once, since the
study and series columns of a list of instances hold the same value in every row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from json.encoder import encode_basestring as quote
from typing import Any

from pacslite.core.query import Page, item_values
from pacslite.dicom.attributes import LEVELS, SEQUENCE_ITEMS, UNIQUE_KEYS, Attribute, Level, Returned
from pacslite.dicom.document import Document, PrivateTag, private_element, tag_key
from pacslite.dicomweb.media_types import EXPLICIT_LE, instance_offers

Encoder = Callable[[object], str]

_NUMBER_VRS = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"})
# What JSON takes as a number as it stands; other spellings (leading zeros, plus signs) are sent as strings (F.2.3.1).
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")
_MODALITIES_IN_STUDY = 0x00080061
_AVAILABLE_TRANSFER_SYNTAX_UID = 0x00083002
RETRIEVE_URL, INSTANCE_AVAILABILITY = 0x00081190, 0x00080056
_ONLINE = '"00080056":{"vr":"CS","Value":["ONLINE"]}'
_PATH = {Level.STUDY: "/studies/", Level.SERIES: "/series/", Level.INSTANCE: "/instances/"}


def _text_value(text: str) -> str:
    return quote(text) if text else "null"


def _name_value(text: str) -> str:
    if text and "=" not in text:
        return f'{{"Alphabetic":{quote(text)}}}'
    groups = zip(("Alphabetic", "Ideographic", "Phonetic"), text.split("="), strict=False)  # more than three mean nothing (PS3.5 6.2)
    return "{" + ",".join(f'"{name}":{quote(group)}' for name, group in groups if group) + "}" if text.strip("=") else "null"


def _number_value(text: str) -> str:
    if text.isdigit() and text.isascii() and text[0] != "0":
        return text
    text = text.strip()
    if not text:
        return "null"
    return text if _JSON_NUMBER.fullmatch(text) else quote(text)


# Values that hold backslashes as text, not as the delimiter of several values (PS3.5 6.2).
_UNDIVIDED_VRS = frozenset({"LT", "ST", "UT", "UR"})


def _element_encoder(tag: int, vr: str, *, omit_empty: bool) -> Encoder:
    """A function from the stored value to `"GGGGEEEE":{...}`; "" for an empty one that is left out."""
    # F.2.5 wants no Value in an empty attribute. OHIF 3.12 then fails here, and one study without a modality hides all others from it.
    without = ',"Value":[]' if tag == _MODALITIES_IN_STUDY else ""
    empty = "" if omit_empty else f'"{tag:08X}":{{"vr":"{vr}"{without}}}'
    head = f'"{tag:08X}":{{"vr":"{vr}","Value":['
    one = _name_value if vr == "PN" else _number_value if vr in _NUMBER_VRS else _text_value
    divided = vr not in _UNDIVIDED_VRS
    # A value on its own is never null: an empty one has no Value at all.
    if one is _text_value:
        return _text_encoder(head, empty, divided=divided)

    def encode(value: object) -> str:
        if value is None or value == "":
            return empty
        text = value if isinstance(value, str) else str(value)
        if divided and "\\" in text:
            return head + ",".join(map(one, text.split("\\"))) + "]}"
        return f"{head}{one(text)}]}}"

    return encode


def _text_encoder(head: str, empty: str, *, divided: bool) -> Encoder:
    """The encoder of text VRs, which are most columns."""

    def encode(value: object) -> str:
        if not value or not isinstance(value, str):
            return empty
        if divided and "\\" in value:
            return head + ",".join(map(_text_value, value.split("\\"))) + "]}"
        return f"{head}{quote(value)}]}}"

    return encode


def _sequence_encoder(attribute: Attribute) -> Encoder:
    encoders = {a.tag: _element_encoder(a.tag, a.vr, omit_empty=True) for a in sorted(SEQUENCE_ITEMS[attribute.tag], key=lambda a: a.tag)}

    def encode(value: object) -> str:
        if not isinstance(value, str) or not value:
            return ""
        items = [",".join(filter(None, (e(item[tag]) for tag, e in encoders.items()))) for item in item_values(attribute, value)]
        return f'"{attribute.hex}":{{"vr":"SQ","Value":[' + ",".join(f"{{{item}}}" for item in items) + "]}"

    return encode


@lru_cache(maxsize=512)
def _available(stored: str) -> tuple[str, ...]:
    """The transfer syntaxes in which an instance can be asked for by name: as stored, and what is sent by default.

    Others can be made of most instances, but not of each, and only what retrieval delivers is listed (10.6.3.3.3).
    """
    offers = instance_offers(stored, single_part=False)
    return tuple(dict.fromkeys(uid for o in offers if o.nameable and (uid := o.transfer_syntax) in (stored, EXPLICIT_LE)))


@lru_cache(maxsize=512)
def encoder_of(attribute: Attribute) -> Encoder:
    """The encoder of a column. What is answered only when it is known is left out when empty."""
    if attribute.vr == "SQ":
        return _sequence_encoder(attribute)
    if attribute.tag == _AVAILABLE_TRANSFER_SYNTAX_UID:
        encode = _element_encoder(attribute.tag, "UI", omit_empty=True)
        return lambda stored: encode("\\".join(_available(stored)) if isinstance(stored, str) else None)
    return _element_encoder(attribute.tag, attribute.vr, omit_empty=attribute.returned is Returned.KNOWN)


def encode_page(page: Page, level: Level, root_url: str, private_fields: Sequence[PrivateTag] = ()) -> list[str]:
    """Each row as one JSON object, tags ascending, with the URL it is retrieved from under `root_url`."""
    if not page.rows:
        return []
    _, *values = zip(*page.rows, strict=True)
    count = len(page.rows)
    cells = {a.tag: _column(encoder_of(a), column) for a, column in zip(page.columns, values, strict=True)}
    cells[INSTANCE_AVAILABILITY] = [_ONLINE] * count
    cells[RETRIEVE_URL] = _urls(page.columns, values, level, root_url)
    for tag in page.document_tags:
        cells[tag] = [_from_document(document, tag_key(tag)) for document in page.documents]
    if private_fields:
        return [_with_private(row, doc, private_fields) for row, doc in zip(_joined(cells), page.documents, strict=True)]
    return ["{" + ",".join(filter(None, row)) + "}" for row in _joined(cells)]


def _joined(cells: dict[int, list[str]]) -> list[tuple[str, ...]]:
    return list(zip(*(cells[tag] for tag in sorted(cells)), strict=True))


def _column(encode: Encoder, values: Sequence[object]) -> list[str]:
    first = values[0]
    if len(values) > 1 and values[-1] == first and values.count(first) == len(values):
        return [encode(first)] * len(values)
    return [encode(value) for value in values]


def _urls(columns: Sequence[Attribute], values: Sequence[Sequence[object]], level: Level, root_url: str) -> list[str]:
    path, uids = quote(root_url)[:-1], []
    position = {a.tag: i for i, a in enumerate(columns)}
    for one in LEVELS[1 : LEVELS.index(level) + 1]:
        path += _PATH[one] + "%s"
        uids.append(values[position[UNIQUE_KEYS[one].tag]])
    head = '"00081190":{"vr":"UR","Value":[' + path.replace("%s", "\0").replace("%", "%%").replace("\0", "%s") + '"]}'
    return [head % row for row in zip(*uids, strict=True)]


def _from_document(document: Document, key: str) -> str:
    """An element of a stored document; bulk data is not part of an answer to a search."""
    element = document.get(key)
    return f'"{key}":{_dump(_without_bulk(element))}' if element is not None and "BulkDataURI" not in element else ""


def _with_private(cells: tuple[str, ...], document: Document, fields: Sequence[PrivateTag]) -> str:
    """The row with private attributes and the creators of their blocks (10.6.3.3.1), in the order of tags."""
    found = {cell[1:9]: cell for cell in cells if cell}
    for field in fields:
        element = private_element(document, field)
        if element is not None and "BulkDataURI" not in element[1]:
            key = element[0]
            creator = f"{key[:4]}00{key[4:6]}"
            found[key] = f'"{key}":{_dump(_without_bulk(element[1]))}'
            found[creator] = f'"{creator}":{_dump(document[creator])}'
    return "{" + ",".join(found[key] for key in sorted(found)) + "}"


def _dump(element: dict[str, Any]) -> str:
    return json.dumps(element, ensure_ascii=False, separators=(",", ":"))


def _without_bulk(element: dict[str, Any]) -> dict[str, Any]:
    """The element with the items of a sequence, on every level, less what is bulk data in them."""
    if element.get("vr") != "SQ":
        return element
    items = [
        {key: _without_bulk(inner) for key, inner in (item or {}).items() if "BulkDataURI" not in inner}
        for item in element.get("Value", ())
    ]
    return {**element, "Value": items} if items else element
