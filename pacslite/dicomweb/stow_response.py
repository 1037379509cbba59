"""The Store Instances Response Module (PS3.18 Annex I): what became of each part, and the status that follows from it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pacslite.dicomweb import native_xml
from pacslite.dicomweb.media_types import DICOM_XML, Offer
from pacslite.web.messages import Reply

# PS3.18 Table I.2-1: elements were coerced, or discarded; the data set does not match its SOP class.
WARNING_COERCED, WARNING_DISCARDED, WARNING_MISMATCH = 0xB000, 0xB006, 0xB007


@dataclass(frozen=True, slots=True)
class Stored:
    """A part that is durable; `is_new` unless it was so before."""

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    warning_reason: int | None = None
    is_new: bool = True


@dataclass(frozen=True, slots=True)
class Failed:
    """A part that was refused; without UIDs when it could not even be told what it is."""

    failure_reason: int
    text: str
    sop_class_uid: str = ""
    sop_instance_uid: str = ""


Outcome = Stored | Failed


def status_of(outcomes: Sequence[Outcome]) -> int:
    """200 all stored, 202 some or with warnings, 409 none (PS3.18 Table 10.5.3-1)."""
    stored = [outcome for outcome in outcomes if isinstance(outcome, Stored)]
    if not stored:
        return 409
    return 200 if len(stored) == len(outcomes) and not any(s.warning_reason for s in stored) else 202


def data_set(outcomes: Sequence[Outcome], studies_url: str) -> dict[str, Any]:
    """The module as DICOM JSON; sequences appear only when they have items, keys ascend."""
    stored = [outcome for outcome in outcomes if isinstance(outcome, Stored)]
    failed = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    studies = {s.study_instance_uid for s in stored}
    study_url = f"{studies_url}/{studies.pop()}" if len(studies) == 1 else ""
    out: dict[str, Any] = {"00081190": {"vr": "UR", "Value": [study_url]} if study_url else {"vr": "UR"}}
    named = [_failed_item(f) for f in failed if f.sop_instance_uid]
    others = [{"00081197": _us(f.failure_reason)} for f in failed if not f.sop_instance_uid]
    for tag, items in (
        ("00081198", named),  # Failed SOP Sequence
        ("00081199", [_stored_item(s, studies_url) for s in stored]),  # Referenced SOP Sequence
        ("0008119A", others),  # Other Failures Sequence
    ):
        if items:
            out[tag] = {"vr": "SQ", "Value": items}
    return out


def reply(outcomes: Sequence[Outcome], offer: Offer, studies_url: str) -> Reply:
    """The whole answer in the negotiated media type."""
    document = data_set(outcomes, studies_url)
    body = native_xml.encode(document) if offer.name == DICOM_XML else json.dumps(document).encode()
    headers = [("Content-Type", offer.name), ("Cache-Control", "no-store")]
    location = _location([outcome for outcome in outcomes if isinstance(outcome, Stored)], studies_url)
    if location:
        headers += [("Location", location), ("Content-Location", location)]
    return Reply(status_of(outcomes), headers, body)


def _location(stored: Sequence[Stored], studies_url: str) -> str:
    """What was created (PS3.18 Table 10.5.3-2): an instance, or a study; empty when nothing is new or no URL names it all."""
    new = [one for one in stored if one.is_new]
    if len({one.sop_instance_uid for one in new}) == 1:
        return _instance_url(new[0], studies_url)
    studies = {one.study_instance_uid for one in new}
    return f"{studies_url}/{studies.pop()}" if len(studies) == 1 else ""


def _instance_url(stored: Stored, studies_url: str) -> str:
    return f"{studies_url}/{stored.study_instance_uid}/series/{stored.series_instance_uid}/instances/{stored.sop_instance_uid}"


def _stored_item(stored: Stored, studies_url: str) -> dict[str, Any]:
    url = _instance_url(stored, studies_url)
    item = {"00081150": _ui(stored.sop_class_uid), "00081155": _ui(stored.sop_instance_uid), "00081190": {"vr": "UR", "Value": [url]}}
    if stored.warning_reason is not None:
        item["00081196"] = _us(stored.warning_reason)
    return item


def _failed_item(failed: Failed) -> dict[str, Any]:
    return {
        "00081150": _ui(failed.sop_class_uid),
        "00081155": _ui(failed.sop_instance_uid),
        "00081197": _us(failed.failure_reason),
    }


def _ui(uid: str) -> dict[str, Any]:
    return {"vr": "UI", "Value": [uid]} if uid else {"vr": "UI"}


def _us(number: int) -> dict[str, Any]:
    return {"vr": "US", "Value": [number]}
