"""The schema of audit messages (PS3.15 A.5.1) as tables, and a check of a message against them."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from datetime import datetime
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

Check = re.Pattern[str]
TOKEN, TEXT = re.compile(r"\S(?:.*\S)?"), re.compile(r".+")
BOOLEAN, INTEGER = re.compile("true|false"), re.compile(r"\d+")
_NUMBERS = {count: re.compile("|".join(str(n) for n in range(1, count + 1))) for count in (4, 5, 15, 26)}


@dataclass(frozen=True)
class Rule:
    """An element: its attributes (required, optional), and its children in order with how often they come."""

    required: dict[str, Check] = field(default_factory=dict)
    optional: dict[str, Check] = field(default_factory=dict)
    children: tuple[tuple[str, int, int], ...] = ()
    text: str = ""


MANY = 10**6
_CODED = Rule({"csd-code": TOKEN, "codeSystemName": TOKEN, "originalText": TOKEN}, {"displayName": TOKEN})
RULES = {
    "AuditMessage": Rule(
        children=(
            ("EventIdentification", 1, 1),
            ("ActiveParticipant", 1, MANY),
            ("AuditSourceIdentification", 1, 1),
            ("ParticipantObjectIdentification", 0, MANY),
        )
    ),
    "EventIdentification": Rule(
        {"EventDateTime": TEXT, "EventOutcomeIndicator": re.compile("0|4|8|12")},
        {"EventActionCode": re.compile("[CRUDE]")},
        (("EventID", 1, 1), ("EventTypeCode", 0, MANY), ("EventOutcomeDescription", 0, 1)),
    ),
    "EventID": _CODED,
    "EventTypeCode": _CODED,
    "RoleIDCode": _CODED,
    "ParticipantObjectIDTypeCode": _CODED,
    "EventOutcomeDescription": Rule(text="text"),
    "ActiveParticipant": Rule(
        {"UserID": TEXT, "UserIsRequestor": BOOLEAN},
        {"AlternativeUserID": TEXT, "UserName": TEXT, "NetworkAccessPointID": TOKEN, "NetworkAccessPointTypeCode": _NUMBERS[5]},
        (("RoleIDCode", 0, MANY), ("MediaIdentifier", 0, 1)),
    ),
    "AuditSourceIdentification": Rule({"AuditSourceID": TOKEN}, {"AuditEnterpriseSiteID": TOKEN}, (("AuditSourceTypeCode", 0, MANY),)),
    "AuditSourceTypeCode": Rule({"csd-code": TOKEN}, {"codeSystemName": TOKEN, "originalText": TOKEN}),
    "ParticipantObjectIdentification": Rule(
        {"ParticipantObjectID": TOKEN},
        {
            "ParticipantObjectTypeCode": _NUMBERS[4],
            "ParticipantObjectTypeCodeRole": _NUMBERS[26],
            "ParticipantObjectDataLifeCycle": _NUMBERS[15],
            "ParticipantObjectSensitivity": TOKEN,
        },
        (
            ("ParticipantObjectIDTypeCode", 1, 1),
            ("ParticipantObjectName|ParticipantObjectQuery", 1, 1),
            ("ParticipantObjectDetail", 0, MANY),
            ("ParticipantObjectDescription", 0, MANY),
        ),
    ),
    "ParticipantObjectName": Rule(text="token"),
    "ParticipantObjectQuery": Rule(text="base64"),
    "ParticipantObjectDetail": Rule({"type": TOKEN, "value": TEXT}),
    "ParticipantObjectDescription": Rule(
        children=(("SOPClass", 0, MANY), ("ParticipantObjectContainsStudy", 0, 1), ("Encrypted", 0, 1), ("Anonymized", 0, 1))
    ),
    "SOPClass": Rule({"NumberOfInstances": INTEGER}, {"UID": TOKEN}, (("Instance", 0, MANY),)),
    "ParticipantObjectContainsStudy": Rule(children=(("StudyIDs", 0, MANY),)),
    "StudyIDs": Rule({"UID": TOKEN}),
}


def checked(message: bytes) -> Element:
    """The message, after it has passed the schema; fails the test else."""
    root = ElementTree.fromstring(message)
    assert root.tag == "AuditMessage"
    _check(root)
    moment = datetime.fromisoformat(root[0].attrib["EventDateTime"])
    assert moment.tzinfo is not None
    for detail in root.iter("ParticipantObjectDetail"):
        base64.b64decode(detail.attrib["value"], validate=True)
    return root


def _check(element: Element) -> None:
    rule = RULES[element.tag]
    assert set(rule.required) <= set(element.attrib) <= set(rule.required) | set(rule.optional), (element.tag, element.attrib)
    for name, value in element.attrib.items():
        assert (rule.required | rule.optional)[name].fullmatch(value), (element.tag, name, value)
    if rule.text == "base64":
        base64.b64decode(element.text or "", validate=True)
    elif rule.text == "token":
        assert TOKEN.fullmatch(element.text or ""), element.tag
    elif not rule.text:
        assert not (element.text or "").strip(), element.tag
    children = list(element)
    for names, least, most in rule.children:
        count = 0
        while children and children[0].tag in names.split("|"):
            _check(children.pop(0))
            count += 1
        assert least <= count <= most, (element.tag, names, count)
    assert not children, (element.tag, children[0].tag)
