"""The audit log of real processes: from a request to the syslog server, and whole after a kill."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

from tests.support.processes import pacslite, serving, until
from tests.support.syslog_server import receiving


def test_a_request_reaches_the_syslog_server_and_a_kill_leaves_the_log_whole(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with receiving() as receiver, serving(data, PACSLITE_AUDIT_SYSLOG=f"tcp://127.0.0.1:{receiver.port}") as server:
        with urllib.request.urlopen(f"{server.url}/dicom-web/studies?StudyDate=20260101-", timeout=20) as answer:
            assert answer.status == 204
        until(lambda: any(b'originalText="Query"' in message for message in receiver.messages), what="the message")
        until((data / "audit.anchor").exists, what="the anchor")
        with urllib.request.urlopen(f"{server.url}/dicom-web/series", timeout=20) as answer:
            assert answer.status == 204
        server.kill()
    assert receiver.entries == sorted(set(receiver.entries))
    verified = pacslite("audit", "verify", "--json", "--data", data)
    assert verified.returncode == 0, verified.stdout
    queries = json.loads(pacslite("audit", "list", "--action", "query", "--json", "--data", data).stdout)
    assert [one["detail"]["level"] for one in queries] == ["series", "studies"]  # what was answered before the kill is there
