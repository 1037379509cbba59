"""`/users/{id}/quota`: how much a user may keep in files, and how much there is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pacslite.core import quotas
from pacslite.core.access import Right
from pacslite.web.audit import origin_of
from pacslite.web.forms import parse, rule
from pacslite.web.messages import Reply, Request
from pacslite.web.operations import Operation, json_reply
from pacslite.web.pages import number_of

if TYPE_CHECKING:
    from pacslite.app import Pacs


@dataclass(frozen=True, slots=True)
class QuotaForm:
    """A quota."""

    quota_bytes: int | None = field(metadata=rule("Null for what the setting default_quota_bytes says.", minimum=0, maximum=2**62))


@dataclass(frozen=True, slots=True)
class QuotaView:
    """What a user may keep in files, and keeps: all versions, the trash too, and what unfinished uploads announce."""

    quota_bytes: int | None = field(metadata=rule("Null when the user has no quota of its own: default_quota_bytes counts."))
    used_bytes: int


def get_user_quota(pacs: Pacs, request: Request, user_id: str) -> Reply:
    """What a user uses."""
    found = quotas.of_account(pacs, number_of(user_id, "user"))
    return json_reply(QuotaView(found.quota_bytes, found.used_bytes))


def put_user_quota(pacs: Pacs, request: Request, user_id: str) -> Reply:
    """Sets or takes away a quota; what is there already stays."""
    form = parse(QuotaForm, request)
    found = quotas.set_quota(pacs, number_of(user_id, "user"), form.quota_bytes, origin_of(request))
    return json_reply(QuotaView(found.quota_bytes, found.used_bytes))


OPERATIONS = (
    Operation(
        "GET", "/users/{user_id}/quota", get_user_quota, "How much a user keeps", "users", {200: QuotaView}, Right.ADMIN, problems=(404,)
    ),
    Operation(
        "PUT",
        "/users/{user_id}/quota",
        put_user_quota,
        "How much a user may keep",
        "users",
        {200: QuotaView},
        Right.ADMIN,
        form=QuotaForm,
        problems=(404,),
    ),
)
