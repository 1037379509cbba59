"""Attributes that a setting adds to the indexed ones: named by keyword, at the level they describe or at one that is given."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from pydicom.datadict import dictionary_VR, tag_for_keyword

from pacslite.dicom.attributes import BY_TAG, Attribute, Level, Source
from pacslite.dicom.matching import NUMBER_VRS, UNMATCHABLE_VRS
from pacslite.dicom.modules import level_names
from pacslite.errors import ConfigurationError

IndexedAttributes = Mapping[int, Attribute]
NONE: IndexedAttributes = MappingProxyType({})
_LEVELS = {"patient": Level.PATIENT, "study": Level.STUDY, "series": Level.SERIES, "instance": Level.INSTANCE}
# Narrative text is longer than an index holds, and sequences have no values.
_NO_INDEX = UNMATCHABLE_VRS | {"SQ", "UN", "LT", "ST", "UT", "UC", "UR"}
_COLUMNS = {"PN": ("value", "value1", "value2"), "DT": ("value", "value1")}


@lru_cache(maxsize=8)
def indexed_attributes(names: tuple[str, ...]) -> IndexedAttributes:
    """The attributes of `KEYWORD` or `KEYWORD:LEVEL` by tag; raises ConfigurationError."""
    found = [_attribute(name) for name in names]
    return MappingProxyType({attribute.tag: attribute for attribute in found})


def _attribute(name: str) -> Attribute:
    keyword, _, level_name = name.partition(":")
    tag = tag_for_keyword(keyword)
    if tag is None or tag < 0x00080000:
        raise ConfigurationError(f"index_attributes: {keyword!r} is no keyword of PS3.6")
    if tag in BY_TAG:
        raise ConfigurationError(f"index_attributes: {keyword} has a column already")
    vr = dictionary_VR(tag).split(" ")[0]
    if vr in _NO_INDEX:
        raise ConfigurationError(f"index_attributes: {keyword} has VR {vr}, which is not indexed")
    if level_name and level_name not in _LEVELS:
        raise ConfigurationError(f"index_attributes: {level_name!r} is none of {', '.join(_LEVELS)}")
    level = _LEVELS[level_name] if level_name else Level(level_names().get(tag, Level.INSTANCE))
    columns = ("number",) if vr in NUMBER_VRS else _COLUMNS.get(vr, ("value",))
    return Attribute(keyword, tag, vr, level, "value", columns, source=Source.INDEXED, indexed=True)
