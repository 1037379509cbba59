"""Whether the audit log is what was written: every hash, no gap, and the entries that the anchor names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pacslite.catalog import audit as rows
from pacslite.catalog import changes
from pacslite.catalog.audit import GENESIS, Entry, Filter, Head
from pacslite.core.audit_chain import REBUILT, Anchor, canonical, group_of

if TYPE_CHECKING:
    from pacslite.catalog.database import Catalog

_PAGE = 1000
_MOST_PROBLEMS = 100
PRUNED = "audit.prune"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was written; `seq` is the entry it is seen at."""

    seq: int
    problem: str


@dataclass(slots=True)
class AuditReport:
    """What came of it: how many entries there are, from which to which, and up to which the anchor vouches for them.

    `pending` events are noted and have no place in the chain yet. Of the problems the first hundred are told.
    """

    entries: int = 0
    first: int = 0
    last: int = 0
    anchored: int = 0
    pending: int = 0
    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether nothing was changed."""
        return not self.problem_count

    def add(self, seq: int, problem: str) -> None:
        """Something was changed."""
        self.problem_count += 1
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(Problem(seq, problem))


def verify(catalog: Catalog, anchor: Anchor) -> AuditReport:
    """Read the whole log and compare; the server may run meanwhile."""
    report = AuditReport()
    try:
        # Before the log: what is anchored meanwhile is not missed.
        anchored = {head.seq: head for head in anchor.read()}
    except (ValueError, KeyError, TypeError):
        anchored = {}
        report.add(0, f"{anchor.path.name} is not readable")
    with catalog.read() as conn:
        report.pending = rows.count_pending(conn)
        rebuilt = rows.newest_of(conn, REBUILT)
    feed = _Feed(catalog, rebuilt.seq if rebuilt is not None else 0)
    previous: Head | None = None
    for row in _all(catalog):
        seq = int(row["seq"])
        if previous is None:
            report.first = seq
            previous = _beginning(catalog, seq, report)
        _check(row, previous, anchored, report)
        feed.check(row, report)
        previous = Head(seq, row["hash"])
        report.entries += 1
    report.last = previous.seq if previous is not None else 0
    for head in anchored.values():
        report.anchored = max(report.anchored, head.seq)
    if report.anchored > report.last:
        report.add(report.anchored, f"entries {report.last + 1} to {report.anchored} were taken away from the end")
    return report


def _all(catalog: Catalog) -> Iterator[Mapping[str, Any]]:
    seq = 0
    while True:
        with catalog.read() as conn:
            page = rows.rows_after(conn, seq, _PAGE)
        yield from page
        if len(page) < _PAGE:
            return
        seq = page[-1]["seq"]


def _beginning(catalog: Catalog, first: int, report: AuditReport) -> Head:
    """What the first entry goes on from: nothing, or the segment that was closed before it."""
    if first == 1:
        return Head(0, GENESIS)
    with catalog.read() as conn:
        closed: list[Entry] = rows.page(conn, Filter(action=PRUNED), None, _PAGE)
    for entry in closed:
        if entry.event.detail.get("last") == first - 1:
            return Head(first - 1, str(entry.event.detail.get("last_hash", "")))
    report.add(first, f"entries 1 to {first - 1} were taken away from the beginning")
    return Head(first - 1, "")


def _check(row: Mapping[str, Any], previous: Head, anchored: Mapping[int, Head], report: AuditReport) -> None:
    seq = int(row["seq"])
    if seq != previous.seq + 1:
        report.add(seq, f"entries {previous.seq + 1} to {seq - 1} are missing")
    elif previous.hash and rows.hash_of(seq, row, previous.hash) != row["hash"]:
        report.add(seq, f"entry {seq} is not what was written, or does not belong behind entry {previous.seq}")
    named = anchored.get(seq)
    if named is not None and named.hash != row["hash"]:
        report.add(seq, f"entry {seq} is not the one that was anchored: it, or something before it, was written anew")


class _Feed:
    """The changes that entries tell of, which are told by digest; numbers began anew with a catalog that was made anew."""

    def __init__(self, catalog: Catalog, from_seq: int) -> None:
        self._catalog, self._from_seq = catalog, from_seq
        self._range = (0, 0)
        self._found: set[str] = set()

    def check(self, row: Mapping[str, Any], report: AuditReport) -> None:
        seq = int(row["seq"])
        detail = rows.parsed_detail(row["detail"])
        wanted = detail.get("digest")
        span = detail.get("changes")
        if seq < self._from_seq or not isinstance(span, list) or len(span) != 2 or wanted is None:
            return
        digests = self._digests(int(span[0]), int(span[1]))
        if wanted not in digests:
            report.add(seq, f"the changes {span[0]} to {span[1]} are not those that entry {seq} tells of")

    def _digests(self, first: int, last: int) -> set[str]:
        if self._range != (first, last):
            self._range = first, last
            self._found = self._read(first, last)
        return self._found

    def _read(self, first: int, last: int) -> set[str]:
        groups: dict[tuple[str, ...], Any] = {}
        with self._catalog.read() as conn:
            for change in changes.after(conn, first - 1, last - first + 1):
                if change.seq <= last:
                    groups.setdefault(group_of(change), hashlib.sha256()).update(canonical(change))
        return {digest.hexdigest() for digest in groups.values()}
