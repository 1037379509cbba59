"""The Native DICOM Model in XML (PS3.19 A.1) read into DICOM JSON (PS3.18 Annex F).

Documents come from anybody: a document type is refused, and with it every entity, external or growing; nesting and
numbers of values are bounded.
"""

from __future__ import annotations

import re
from typing import Any
from xml.parsers import expat

from pacslite.errors import BadRequest

_TAG = re.compile(r"[0-9A-Fa-f]{8}", re.ASCII)
_NUMBER = re.compile(r"[1-9]\d{0,6}", re.ASCII)
_NAME_GROUPS = frozenset({"Alphabetic", "Ideographic", "Phonetic"})
_NAME_COMPONENTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
_FIRST_BLOCK, _LAST_BLOCK = 0x10, 0xFF

DataSet = dict[str, Any]


def decode(document: bytes, max_depth: int) -> DataSet:
    """The data set of one document; raises BadRequest."""
    reader = _Reader(max_depth)
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.characters
    parser.StartDoctypeDeclHandler = _refuse_document_type
    try:
        parser.Parse(document, True)
    except expat.ExpatError:
        raise BadRequest("The metadata is not well-formed XML.") from None
    except (LookupError, ValueError):
        raise BadRequest("The metadata is in an encoding that is not read here.") from None
    if reader.result is None:
        raise BadRequest("The metadata is not a NativeDicomModel (PS3.19 A.1).")
    return reader.result


def _refuse_document_type(*_: object) -> None:
    raise BadRequest("XML with a document type is not taken here.")


class _Level:
    """A data set or item that is being read."""

    __slots__ = ("data_set", "private")

    def __init__(self) -> None:
        self.data_set: DataSet = {}
        # Elements whose block is still to be found: creator, tag, element.
        self.private: list[tuple[str, str, DataSet]] = []

    def finish(self) -> DataSet:
        """The data set, private elements in the blocks of their creators."""
        for creator, tag, element in self.private:
            group, number = tag[:4], int(tag[4:], 16)
            block = number >> 8
            if block < _FIRST_BLOCK:
                block = self._block(group, creator)
            _add(self.data_set, f"{group}00{block:02X}", {"vr": "LO", "Value": [creator]}, again=True)
            _add(self.data_set, f"{group}{block:02X}{number & 0xFF:02X}", element)
        return self.data_set

    def _block(self, group: str, creator: str) -> int:
        """The block that a creator has in a group, else the first free one (PS3.5 7.8.1)."""
        free = 0
        for block in range(_FIRST_BLOCK, _LAST_BLOCK + 1):
            owner = self.data_set.get(f"{group}00{block:02X}")
            if owner is None:
                free = free or block
            elif owner.get("Value") == [creator]:
                return block
        if not free:
            raise BadRequest(f"Group {group} has no block left for a private creator.")
        return free


def _add(data_set: DataSet, tag: str, element: DataSet, again: bool = False) -> None:
    if tag in data_set and not again:
        raise BadRequest(f"The metadata has the attribute {tag} twice in one data set.")
    data_set.setdefault(tag, element)


class _Reader:
    """Follows the elements of one document."""

    def __init__(self, max_depth: int) -> None:
        self.result: DataSet | None = None
        # Element, item, element, ... and five levels of a value; what is deeper is refused.
        self._max_path = 3 * max_depth + 8
        self._path: list[str] = []
        self._levels: list[_Level] = []
        self._elements: list[tuple[str, str, DataSet]] = []
        self._text: list[str] | None = None
        self._name: dict[str, dict[str, str]] = {}

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """A start tag."""
        kind = tag.rpartition(" ")[2]
        parent = self._path[-1] if self._path else ""
        self._path.append(kind)
        if len(self._path) > self._max_path:
            raise BadRequest("The metadata is nested too deeply.")
        if kind == "NativeDicomModel" and not parent:
            self._levels.append(_Level())
        elif kind == "DicomAttribute" and parent in ("NativeDicomModel", "Item"):
            self._start_attribute(attributes)
        elif parent == "DicomAttribute" and kind in ("Value", "Item", "PersonName", "BulkData", "InlineBinary"):
            self._start_content(kind, attributes)
        elif parent == "PersonName" and kind in _NAME_GROUPS:
            self._name[kind] = {}
        elif parent in _NAME_GROUPS and kind in _NAME_COMPONENTS:
            self._text = []
        else:
            raise BadRequest(f"The metadata has the element {kind[:64]!r} where PS3.19 A.1 has none.")

    def _start_attribute(self, attributes: dict[str, str]) -> None:
        tag, vr = attributes.get("tag", ""), attributes.get("vr", "")
        if not _TAG.fullmatch(tag) or len(vr) != 2:
            raise BadRequest("A DicomAttribute of the metadata has no tag or no vr.")
        self._elements.append((tag.upper(), attributes.get("privateCreator", ""), {"vr": vr}))

    def _start_content(self, kind: str, attributes: dict[str, str]) -> None:
        tag, _, element = self._elements[-1]
        member = {"BulkData": "BulkDataURI", "InlineBinary": "InlineBinary"}.get(kind, "Value")
        if len(element) > 1 and (member not in element or member != "Value"):
            raise BadRequest(f"The attribute {tag} of the metadata has values of several kinds.")
        if kind == "BulkData":
            element["BulkDataURI"] = attributes.get("uri", "")
        elif kind == "InlineBinary":
            element["InlineBinary"], self._text = "", []
        else:
            values = element.setdefault("Value", [])
            number = attributes.get("number", str(len(values) + 1))
            # Values are numbered from 1 without gaps; gaps are empty values to some writers, of which none is long.
            if not _NUMBER.fullmatch(number) or not len(values) < int(number) <= len(values) + 1000:
                raise BadRequest(f"The values of the attribute {tag} of the metadata are not numbered from 1 on.")
            values.extend([None] * (int(number) - len(values) - 1))
            if kind == "Item":
                self._levels.append(_Level())
            elif kind == "PersonName":
                self._name = {}
            else:
                self._text = []

    def characters(self, text: str) -> None:
        """Text between tags."""
        if self._text is not None:
            self._text.append(text)
        elif text.strip():
            raise BadRequest("The metadata has text where PS3.19 A.1 has none.")

    def end(self, tag: str) -> None:
        """An end tag."""
        kind = self._path.pop()
        text, self._text = "".join(self._text or ()), None
        if kind == "Value":
            self._elements[-1][2]["Value"].append(text or None)
        elif kind == "InlineBinary":
            self._elements[-1][2]["InlineBinary"] = text
        elif kind in _NAME_COMPONENTS:
            self._name[self._path[-1]][kind] = text
        elif kind == "PersonName":
            self._elements[-1][2]["Value"].append({group: _joined(parts) for group, parts in self._name.items()})
        elif kind == "Item":
            self._elements[-1][2]["Value"].append(self._levels.pop().finish())
        elif kind == "DicomAttribute":
            self._end_attribute()
        elif kind == "NativeDicomModel":
            self.result = self._levels.pop().finish()

    def _end_attribute(self) -> None:
        tag, creator, element = self._elements.pop()
        level = self._levels[-1]
        if creator and int(tag[:4], 16) % 2 and not (tag[4:6] == "00" and tag[6] != "0"):
            level.private.append((creator, tag, element))
        else:
            _add(level.data_set, tag, element)


def _joined(parts: dict[str, str]) -> str:
    return "^".join([parts.get(name, "") for name in _NAME_COMPONENTS]).rstrip("^")
