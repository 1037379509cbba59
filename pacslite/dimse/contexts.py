"""Presentation contexts as the services see them (PS3.8 7.1.1.13); `negotiation` makes them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

PATIENT_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.1.1"
PATIENT_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.1.2"
PATIENT_ROOT_GET = "1.2.840.10008.5.1.4.1.2.1.3"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
COMMITMENT = "1.2.840.10008.1.20.1"
"""Storage Commitment Push Model (PS3.4 J.3)."""
COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
"""Its one well-known instance (PS3.4 J.3.5)."""
PATIENT_ROOT = frozenset({PATIENT_ROOT_FIND, PATIENT_ROOT_MOVE, PATIENT_ROOT_GET})


class Service(Enum):
    """What a presentation context is for."""

    VERIFICATION = "verification"
    STORAGE = "storage"
    FIND = "find"
    MOVE = "move"
    GET = "get"
    COMMITMENT = "commitment"


QUERY_SERVICES = {
    PATIENT_ROOT_FIND: Service.FIND,
    STUDY_ROOT_FIND: Service.FIND,
    PATIENT_ROOT_MOVE: Service.MOVE,
    STUDY_ROOT_MOVE: Service.MOVE,
    PATIENT_ROOT_GET: Service.GET,
    STUDY_ROOT_GET: Service.GET,
}
"""The Query/Retrieve SOP classes (PS3.4 C.6)."""


@dataclass(frozen=True, slots=True)
class Context:
    """An accepted presentation context.

    `as_scp` and `as_scu` are our roles (PS3.7 D.3.3.4). `relational` queries and the kinds of matching are those granted by
    extended negotiation (PS3.4 C.5).
    """

    id: int
    abstract_syntax: str
    transfer_syntax: str
    service: Service
    as_scp: bool = True
    as_scu: bool = False
    relational: bool = False
    combined_date_time: bool = False
    fuzzy_names: bool = False
    empty_values: bool = False
    multiple_values: bool = False
