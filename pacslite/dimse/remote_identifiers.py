"""What we ask of remote application entities: identifiers, in both directions, and the contexts to receive in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO

from pacslite.core.remote import Record, RemoteInstance
from pacslite.core.retrieve import Resource
from pacslite.dicom.attributes import Level
from pacslite.dimse import contexts
from pacslite.dimse.pdus import ProtocolViolation
from pacslite.dimse.requestor import MAX_CONTEXTS, Offer
from pacslite.errors import BadRequest

_EXPLICIT, _IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
SYNTAXES = (_EXPLICIT, _IMPLICIT)
"""For identifiers and other data sets of our own."""
# In which C-GET may bring instances: one context for each, so that the peer need not transcode what it holds.
_STORED_SYNTAXES = (
    *("1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57"),
    *("1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"),
    *("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.102"),
    *("1.2.840.10008.1.2.4.103", "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"),
    "1.2.840.10008.1.2.8.1",
)
_LEVEL_NAMES = {Level.PATIENT: "PATIENT", Level.STUDY: "STUDY", Level.SERIES: "SERIES", Level.INSTANCE: "IMAGE"}
# When no more than these are missing of a series they are asked for one by one.
_FEW = 20


def offer_to_receive(classes: Sequence[str]) -> Offer:
    """C-GET and contexts for what it brings: one for each transfer syntax while there is room, else all syntaxes in one."""
    room = (MAX_CONTEXTS - 1) // len(classes)
    pairs: list[tuple[str, tuple[str, ...]]] = [(contexts.STUDY_ROOT_GET, SYNTAXES)]
    for sop_class in classes:
        if room >= len(_STORED_SYNTAXES):
            pairs += [(sop_class, (syntax,)) for syntax in _STORED_SYNTAXES]
        elif room >= 2:
            pairs += [(sop_class, SYNTAXES), (sop_class, _STORED_SYNTAXES[2:])]
        else:
            pairs.append((sop_class, _STORED_SYNTAXES))
    return tuple(pairs[:MAX_CONTEXTS])


def common_classes() -> tuple[str, ...]:
    """What to be ready for when the peer does not tell SOP classes."""
    from pynetdicom import StoragePresentationContexts

    return tuple(str(context.abstract_syntax) for context in StoragePresentationContexts[: MAX_CONTEXTS - 1])


def narrowed(wanted: Sequence[RemoteInstance]) -> list[Resource]:
    """What to ask for when only a part is missing: single instances when they are few, else their series."""
    by_series: dict[tuple[str, str], list[str]] = {}
    for one in wanted:
        by_series.setdefault((one.study_instance_uid, one.series_instance_uid), []).append(one.sop_instance_uid)
    asked: list[Resource] = []
    for series, uids in by_series.items():
        asked += [Resource(*series, uid) for uid in uids] if len(uids) <= _FEW else [Resource(*series)]
    return asked


def keys_of(resource: Resource) -> tuple[Level, dict[str, str]]:
    keys = {"StudyInstanceUID": resource.study_instance_uid}
    if resource.series_instance_uid is None:
        return Level.STUDY, keys
    keys["SeriesInstanceUID"] = resource.series_instance_uid
    if resource.sop_instance_uid is None:
        return Level.SERIES, keys
    return Level.INSTANCE, keys | {"SOPInstanceUID": resource.sop_instance_uid}


def question(level: Level, keys: Mapping[str, str]) -> dict[str, str]:
    return {"QueryRetrieveLevel": _LEVEL_NAMES[level], **keys}


def encode_identifier(keys: Mapping[str, str], syntax: str) -> bytes:
    """An identifier (PS3.4 C.4.1.1.3) from values by keyword."""
    from pydicom import config
    from pydicom.datadict import dictionary_VR, tag_for_keyword
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset
    from pynetdicom.dsutils import encode

    ds = Dataset()
    with config.disable_value_validation():
        if any(not value.isascii() for value in keys.values()):
            ds.SpecificCharacterSet = "ISO_IR 192"
        for name, value in keys.items():
            tag = tag_for_keyword(name)
            if tag is None:
                raise BadRequest(f"{name[:64]} is not the keyword of an attribute")
            vr = dictionary_VR(tag).split(" ")[0]
            if vr == "SQ":
                ds.add(DataElement(tag, vr, []))
            else:
                try:
                    ds.add(DataElement(tag, vr, int(value) if vr in ("US", "SS", "UL", "SL") and value else value))
                except (ValueError, TypeError):
                    raise BadRequest(f"{name}: {vr} cannot be {value[:64]!r}") from None
        data = encode(ds, syntax == _IMPLICIT, True)
    if data is None:
        raise BadRequest("the keys cannot be written as an identifier")
    return bytes(data)


def decode_record(data: bytes, syntax: str) -> Record:
    """A match as values by keyword; raises ProtocolViolation for what is no data set."""
    from pydicom import config
    from pydicom.dataset import Dataset
    from pynetdicom.dsutils import decode

    def plain(ds: Dataset) -> Record:
        told: Record = {}
        for element in ds:
            name = element.keyword or f"{int(element.tag):08X}"
            if element.VR == "SQ":
                told[name] = [plain(item) for item in element.value]
            elif element.VR not in ("OB", "OW", "UN", "OF", "OD", "OL", "OV") and name not in (
                "SpecificCharacterSet",
                "QueryRetrieveLevel",
            ):
                value = element.value
                told[name] = [str(one) for one in value] if element.VM > 1 else "" if value is None else str(value)
        return told

    try:
        with config.disable_value_validation():
            return plain(decode(BytesIO(data), syntax == _IMPLICIT, True))
    # pydicom raises whatever comes up while it decodes.
    except Exception as error:  # noqa: BLE001
        raise ProtocolViolation(f"a match that cannot be read ({type(error).__name__})") from None
