"""What became of each instance that a job sends or fetches: in the items of the job, and in the counts of the peer."""

from __future__ import annotations

from typing import Any

from pacslite.core.jobs import Failed, Run
from pacslite.core.peer_counts import PeerCounts
from pacslite.errors import PeerError


class JobLedger:
    """A `core.remote.Ledger` of one run. Safe for threads."""

    def __init__(self, run: Run, counts: PeerCounts, ae_title: str, success: str, total: int, done: int) -> None:
        """`success` is the outcome of an item that arrived; `done` of `total` did so before."""
        self._run, self._counts, self._ae_title, self._success = run, counts, ae_title, success
        self._total, self._done = total, done
        self.succeeded_uids: set[str] = set()
        self.failed_uids: set[str] = set()
        self.transient = ""

    def succeeded(self, sop_instance_uid: str, size_bytes: int, detail: str = "") -> None:
        """It has arrived."""
        self.succeeded_uids.add(sop_instance_uid)
        self._run.note(sop_instance_uid, self._success, detail)
        way = "sent" if self._success == "sent" else "received"
        self._counts.note(self._ae_title, {f"instances_{way}": 1, f"bytes_{way}": size_bytes})
        self._tell()

    def failed(self, sop_instance_uid: str, reason: str, *, transient: bool) -> None:
        """It has not; the first reason that may pass is kept."""
        self.failed_uids.add(sop_instance_uid)
        self._run.note(sop_instance_uid, "failed", reason)
        if transient:
            self.transient = self.transient or reason
        self._counts.note(self._ae_title, {"failures": 1}, seen=False)
        self._tell()

    def _tell(self) -> None:
        self._run.progress(self._done + len(self.succeeded_uids) + len(self.failed_uids), self._total)

    def settle(self, result: dict[str, Any], what: str) -> dict[str, Any]:
        """The result when nothing has failed; raises PeerError when trying again may help, else Failed."""
        counts = self._run.counts()
        failed = counts.get("failed", 0)
        self._run.progress(self._total - failed, self._total)
        result = result | {"total": self._total, self._success: counts.get(self._success, 0), "failed": failed}
        if not failed:
            return result
        result["failures"] = self._run.failures()
        message = f"{failed} of {self._total} instances were not {what}"
        if self.transient and self._run.job.attempts < self._run.job.max_attempts:
            raise PeerError(f"{message}: {self.transient}")
        reason = result["failures"][0]["reason"]
        raise Failed(f"{message}: {reason}", result)
