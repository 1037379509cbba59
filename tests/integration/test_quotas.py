"""Quotas of accounts and of all together, in both databases."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import insert

from pacslite.catalog import accounts as account_rows
from pacslite.catalog import quotas as rows
from pacslite.catalog.database import Catalog
from pacslite.catalog.file_models import upload
from pacslite.core import quotas
from pacslite.errors import NotFound, OutOfSpace, QuotaExceeded, TooLarge
from pacslite.settings import Settings
from pacslite.storage.spool import Spool


@dataclass(frozen=True)
class Keeper:
    account_id: int | None
    announced_bytes: int = 0


@pytest.fixture
def parts(catalog: Catalog, tmp_path: Path) -> SimpleNamespace:
    settings = Settings(data=tmp_path, default_quota_bytes=1000, max_upload_bytes=5000)
    return SimpleNamespace(settings=settings, catalog=catalog, spool=Spool(tmp_path / "spool"))


def account(parts: SimpleNamespace, name: str = "ann") -> int:
    return int(parts.catalog.write(lambda conn: account_rows.add(conn, name, name, "clinician", None)).id)


def announce(parts: SimpleNamespace, owner: int | None, **values: object) -> None:
    row = {"uid": f"u{owner}{values}", "owner_id": owner, "created_by": "ann", "created_at": "", "updated_at": "", "expires_at": ""}
    parts.catalog.write(lambda conn: conn.execute(insert(upload).values(**(row | values))))


def charge(parts: SimpleNamespace, owner: int | None, delta: int, limited: bool = True) -> None:
    parts.catalog.write(lambda conn: quotas.charge(conn, owner, delta, parts.settings if limited else None))


def test_what_is_kept_and_what_is_announced_counts_against_the_default_and_the_own_quota(parts: SimpleNamespace) -> None:
    ann = account(parts)
    quotas.check(parts, Keeper(ann), 1000)
    charge(parts, ann, 600)
    announce(parts, ann, length=300)
    quotas.check(parts, Keeper(ann), 100)
    with pytest.raises(QuotaExceeded, match="900 of 1000"):
        quotas.check(parts, Keeper(ann), 101)
    quotas.check(parts, Keeper(ann, announced_bytes=300), 400)
    assert quotas.set_quota(parts, ann, 2000).used_bytes == 900
    quotas.check(parts, Keeper(ann), 1100)
    assert quotas.set_quota(parts, ann, None).quota_bytes is None
    with pytest.raises(QuotaExceeded):
        quotas.check(parts, Keeper(ann), 101)


def test_only_uploads_that_may_become_files_are_announced(parts: SimpleNamespace) -> None:
    ann = account(parts)
    announce(parts, ann, length=100)
    announce(parts, ann, length=None, offset=20)
    announce(parts, ann, length=3, kind="partial", offset=3)
    announce(parts, ann, length=1000, state="complete")
    announce(parts, ann, length=2000, state="failed")
    announce(parts, ann, length=4000, kind="final")
    announce(parts, None, length=8000)
    assert quotas.of_account(parts, ann).used_bytes == 123
    assert quotas.total_state(parts).used_bytes == 8123


def test_a_quota_of_nothing_refuses_every_byte_and_nobody_without_an_account_has_one(parts: SimpleNamespace) -> None:
    ann = account(parts)
    quotas.set_quota(parts, ann, 0)
    with pytest.raises(QuotaExceeded):
        quotas.check(parts, Keeper(ann), 1)
    quotas.check(parts, Keeper(ann), 0)
    quotas.check(parts, Keeper(None), 4000)


def test_an_upload_beyond_the_limit_or_the_disk_is_refused(parts: SimpleNamespace) -> None:
    with pytest.raises(TooLarge):
        quotas.check(parts, Keeper(None), 5001)
    parts.spool = Spool(parts.spool.directory, reserve_bytes=2**60)
    with pytest.raises(OutOfSpace):
        quotas.check(parts, Keeper(None), 1)


def test_the_total_is_of_all(parts: SimpleNamespace) -> None:
    parts.settings = replace(parts.settings, total_quota_bytes=1500, default_quota_bytes=0)
    ann, bob = account(parts), account(parts, "bob")
    charge(parts, ann, 800)
    charge(parts, None, 400)
    quotas.check(parts, Keeper(bob), 300)
    with pytest.raises(QuotaExceeded, match="in all"):
        quotas.check(parts, Keeper(bob), 301)
    with pytest.raises(QuotaExceeded, match="in all"):
        charge(parts, bob, 301)
    assert quotas.total_state(parts) == quotas.State(1500, 1200, quotas.WARNING)


def test_many_at_once_never_pass_a_quota(parts: SimpleNamespace) -> None:
    ann = account(parts)

    def add(_: int) -> bool:
        try:
            charge(parts, ann, 90)
        except QuotaExceeded:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        taken = sum(pool.map(add, range(24)))
    assert (taken, quotas.of_account(parts, ann).used_bytes) == (11, 990)


def test_what_is_given_back_never_makes_a_debt(parts: SimpleNamespace) -> None:
    ann = account(parts)
    charge(parts, ann, 10, limited=False)
    charge(parts, ann, -25)
    assert quotas.of_account(parts, ann).used_bytes == 0


def test_levels_are_told_and_logged_once_each(parts: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    ann, watch = account(parts), quotas.Watch()
    told = []
    for _ in range(5):
        charge(parts, ann, 250 if not told else 200 if len(told) == 3 else 300, limited=False)
        with caplog.at_level(logging.WARNING):
            watch.look(parts)
            watch.look(parts)
        told += [level for level, count in quotas.accounts_by_level(parts).items() if count]
    assert told == [quotas.OK, quotas.OK, quotas.WARNING, quotas.EXCEEDED, quotas.EXCEEDED]
    assert len([one for one in caplog.records if one.name == "pacslite.core.quotas"]) == 2
    assert quotas.accounts_by_level(parts) == {"ok": 0, "warning": 0, "critical": 0, "exceeded": 1}


def test_an_unknown_account_has_no_quota(parts: SimpleNamespace) -> None:
    for number in (12345, 2**63):
        with pytest.raises(NotFound):
            quotas.of_account(parts, number)
        with pytest.raises(NotFound):
            quotas.set_quota(parts, number, 1)


def test_charging_is_one_row_an_account(parts: SimpleNamespace) -> None:
    charge(parts, None, 5)
    charge(parts, None, 6)
    with parts.catalog.read() as conn:
        assert rows.quotas(conn) == [(rows.NOBODY, 11, None)]
