"""DICOM JSON (PS3.18 Annex F) written as the Native DICOM Model in XML (PS3.19 A.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

_NAMESPACE = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
# XML 1.0 2.2: these characters cannot be written, not even escaped.
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_NAME_COMPONENTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")

DataSet = Mapping[str, Any]


def encode(data_set: DataSet) -> bytes:
    """One data set as an XML document in UTF-8."""
    out = ['<?xml version="1.0" encoding="UTF-8"?>', f'<NativeDicomModel xmlns="{_NAMESPACE}" xml:space="preserve">']
    _attributes(data_set, out)
    out.append("</NativeDicomModel>")
    return "".join(out).encode()


def _text(value: object) -> str:
    # A bare CR would be read as LF (XML 1.0 2.11).
    return escape(_ILLEGAL.sub("", str(value)), {"\r": "&#13;"})


def _attributes(data_set: DataSet, out: list[str]) -> None:
    from pydicom.datadict import keyword_for_tag

    creators: dict[str, str] = {}
    for tag, element in data_set.items():
        head = f'<DicomAttribute tag="{tag}" vr="{element["vr"]}"'
        if int(tag[:4], 16) % 2:
            if tag[4:6] == "00" and element.get("Value"):
                creators[tag[:4] + tag[6:]] = str(element["Value"][0])
            elif tag[:6] in creators:
                head += f" privateCreator={quoteattr(_ILLEGAL.sub('', creators[tag[:6]]))}"
        else:
            keyword = keyword_for_tag(int(tag, 16))
            head += f' keyword="{keyword}"' if keyword else ""
        out.append(head + ">")
        _values(element, out)
        out.append("</DicomAttribute>")


def _values(element: DataSet, out: list[str]) -> None:
    if "BulkDataURI" in element:
        out.append(f"<BulkData uri={quoteattr(element['BulkDataURI'])}/>")
    elif "InlineBinary" in element:
        out.append(f"<InlineBinary>{_text(element['InlineBinary'])}</InlineBinary>")
    for number, value in enumerate(element.get("Value", ()), 1):
        if element["vr"] == "SQ":
            out.append(f'<Item number="{number}">')
            _attributes(value or {}, out)
            out.append("</Item>")
        elif element["vr"] == "PN":
            _person_name(value or {}, number, out)
        elif value is None:
            out.append(f'<Value number="{number}"/>')
        else:
            out.append(f'<Value number="{number}">{_text(value)}</Value>')


def _person_name(value: Mapping[str, str], number: int, out: list[str]) -> None:
    out.append(f'<PersonName number="{number}">')
    for group in _NAME_GROUPS:
        if group in value:
            out.append(f"<{group}>")
            components = value[group].split("^", len(_NAME_COMPONENTS) - 1)
            out.extend(f"<{name}>{_text(text)}</{name}>" for name, text in zip(_NAME_COMPONENTS, components, strict=False) if text)
            out.append(f"</{group}>")
    out.append("</PersonName>")
