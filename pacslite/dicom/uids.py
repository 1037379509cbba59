"""Unique identifiers: what is taken as one, and how new ones are made.

The rule is wider than PS3.5 9.1 in one point, leading zeros in a component, because real files have them.
"""

from __future__ import annotations

import re
import uuid

from pacslite.errors import InvalidUid

MAX_LENGTH = 64

_RULE = re.compile(r"[0-9]+(?:\.[0-9]+)*")


def is_uid(text: str) -> bool:
    """Whether `text`, as it stands, is a UID: 1-64 characters of digits and single dots, no dot at an end."""
    return 0 < len(text) <= MAX_LENGTH and _RULE.fullmatch(text) is not None


def clean_uid(text: str) -> str:
    """The UID without the spaces and NULs that pad it (PS3.5 9.4); raises InvalidUid."""
    trimmed = text.strip(" \0")
    if not is_uid(trimmed):
        raise InvalidUid(f"{trimmed[: MAX_LENGTH + 1]!r} is not a UID (1-64 digits and single dots)")
    return trimmed


def new_uid() -> str:
    """A fresh UID under 2.25, derived from a random UUID (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid4().int}"
