"""How much may be kept: the quota of each account, the one of all together, the limit of one upload, and the room on the disk.

What an account keeps in files counts, all versions and the trash included, and what its unfinished uploads announce. Instances that
arrive by DICOM are nobody's and do not count.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pacslite.catalog import accounts as account_rows
from pacslite.catalog import quotas as rows
from pacslite.catalog.quotas import Usage as Usage
from pacslite.catalog.statements import lock_keys
from pacslite.core.audit import NOBODY, Event, change_of, note
from pacslite.core.parts import WithCatalog, WithSettings, WithSpool
from pacslite.errors import NotFound, QuotaExceeded, TooLarge

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.settings import Settings

OK, WARNING, CRITICAL, EXCEEDED = "ok", "warning", "critical", "exceeded"
_LEVELS = (OK, WARNING, CRITICAL, EXCEEDED)

_log = logging.getLogger(__name__)


class Parts(WithSettings, WithCatalog, WithSpool, Protocol):
    """What is needed of a process."""


class Keeper(Protocol):
    """Whose account is charged; `announced_bytes` of what is to be added were counted when its upload was announced."""

    @property
    def account_id(self) -> int | None: ...
    @property
    def announced_bytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class State:
    """A limit, what is used of it, and how near that is: ok, warning, critical, exceeded. Without a limit it is always ok."""

    quota_bytes: int | None
    used_bytes: int
    level: str


def check(parts: Parts, owner: Keeper, more_bytes: int) -> None:
    """Raises TooLarge, OutOfSpace or QuotaExceeded when so many bytes more cannot be taken from this owner."""
    if more_bytes > parts.settings.max_upload_bytes:
        raise TooLarge(f"{more_bytes} bytes are more than one upload may have ({parts.settings.max_upload_bytes}).")
    parts.spool.check_space(max(0, more_bytes - owner.announced_bytes))
    if parts.settings.total_quota_bytes or parts.settings.default_quota_bytes or owner.account_id is not None:
        with parts.catalog.read() as conn:
            check_quota(conn, parts.settings, owner.account_id, more_bytes - owner.announced_bytes)


def check_quota(conn: Connection, settings: Settings, account_id: int | None, more_bytes: int) -> None:
    """Raises QuotaExceeded when so many bytes more are too many for this account or for all; nothing but more is ever refused."""
    if more_bytes <= 0:
        return
    mine = rows.usage(conn, account_id)
    limit = _limit(settings, account_id, mine.quota_bytes)
    if limit is not None and mine.used_bytes + more_bytes > limit:
        raise QuotaExceeded(f"{more_bytes} bytes more are beyond your quota: {mine.used_bytes} of {limit} bytes are used.")
    if settings.total_quota_bytes and rows.total(conn).used_bytes + more_bytes > settings.total_quota_bytes:
        raise QuotaExceeded(f"{more_bytes} bytes more are beyond what may be kept here in all.")


def charge(conn: Connection, account_id: int | None, delta_bytes: int, settings: Settings | None = None) -> None:
    """Note, in the transaction that adds or drops a version, that its owner keeps so many bytes more or less.

    With `settings` what is kept never passes a quota, however many add at once: raises QuotaExceeded.
    """
    if settings is not None and settings.total_quota_bytes and delta_bytes > 0:
        lock_keys(conn, ("quota",))
    kept = rows.charge(conn, account_id, delta_bytes)
    if settings is None or delta_bytes <= 0:
        return
    limit = _limit(settings, account_id, rows.usage(conn, account_id).quota_bytes)
    if limit is not None and kept > limit:
        raise QuotaExceeded(f"{delta_bytes} bytes more are beyond your quota of {limit} bytes.")
    if settings.total_quota_bytes and rows.total(conn).kept_bytes > settings.total_quota_bytes:
        raise QuotaExceeded(f"{delta_bytes} bytes more are beyond what may be kept here in all.")


def of_account(parts: Parts, account_id: int) -> Usage:
    """What an account uses, and its own limit; raises NotFound."""
    with parts.catalog.read() as conn:
        _known(conn, account_id)
        return rows.usage(conn, account_id)


def set_quota(parts: Parts, account_id: int, quota_bytes: int | None, origin: Event = NOBODY) -> Usage:
    """Give an account a limit of its own, None for that of the settings; raises NotFound."""

    def apply(conn: Connection) -> Usage:
        _known(conn, account_id)
        rows.set_quota(conn, account_id, quota_bytes)
        note(conn, change_of(origin, "user.quota", account_id, quota_bytes=quota_bytes))
        return rows.usage(conn, account_id)

    return parts.catalog.write(apply)


def total_state(parts: Parts) -> State:
    """How near all accounts together are to `total_quota_bytes`."""
    with parts.catalog.read() as conn:
        used = rows.total(conn).used_bytes
    return _state(parts.settings, parts.settings.total_quota_bytes or None, used)


def accounts_by_level(parts: Parts) -> dict[str, int]:
    """How many accounts are how near to their limits, by what they keep."""
    counts = dict.fromkeys(_LEVELS, 0)
    with parts.catalog.read() as conn:
        for account_id, kept, own in rows.quotas(conn):
            counts[_state(parts.settings, _limit(parts.settings, account_id or None, own), kept).level] += 1
    return counts


class Watch:
    """Says it once in the log when the total, or an account, comes nearer to its limit; the worker looks every minute."""

    def __init__(self) -> None:
        self._seen: dict[int, str] = {}

    def look(self, parts: Parts) -> None:
        """Look at all limits."""
        self._note(-1, "all accounts together", total_state(parts))
        with parts.catalog.read() as conn:
            found = rows.quotas(conn)
        for account_id, kept, own in found:
            limit = _limit(parts.settings, account_id or None, own)
            self._note(account_id, f"account {account_id}", _state(parts.settings, limit, kept))

    def _note(self, key: int, who: str, state: State) -> None:
        before = self._seen.get(key, OK)
        self._seen[key] = state.level
        if _LEVELS.index(state.level) > _LEVELS.index(before):
            text = "%s: %d of %s bytes are used"
            about = {"action": "quota.watch", "object_id": who, "outcome": state.level}
            _log.warning(text, who, state.used_bytes, state.quota_bytes, extra=about)


def _limit(settings: Settings, account_id: int | None, own: int | None) -> int | None:
    """The limit that counts; who has no account has that of all only."""
    return own if own is not None or account_id is None else settings.default_quota_bytes or None


def _state(settings: Settings, quota_bytes: int | None, used_bytes: int) -> State:
    level = OK
    if quota_bytes is not None:
        for name, percent in ((WARNING, settings.quota_warning_percent), (CRITICAL, settings.quota_critical_percent)):
            if used_bytes * 100 >= quota_bytes * percent:
                level = name
        if used_bytes > quota_bytes or (quota_bytes and used_bytes == quota_bytes):
            level = EXCEEDED
    return State(quota_bytes, used_bytes, level)


def _known(conn: Connection, account_id: int) -> None:
    if account_id >= 2**63 or account_rows.by_id(conn, account_id) is None:
        raise NotFound("There is no such user.")
