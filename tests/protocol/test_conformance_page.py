"""The conformance statement of a running server, readable in a browser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.support.http import running


def test_the_conformance_statement_is_served_as_a_page(tmp_path: Path) -> None:
    with running(tmp_path / "data", index_attributes="ContrastBolusAgent") as server:
        answer = replace(server, root="").request("GET", "/docs/conformance")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    page = answer.body.decode()
    assert "<h2>Transfer syntaxes</h2>" in page
    assert "<td>ContrastBolusAgent</td>" in page, "what this server indexes besides"
