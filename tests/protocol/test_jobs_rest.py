"""`/jobs` and `/changes` over HTTP, and the same by the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pacslite import app, cli
from pacslite.catalog import jobs as rows
from pacslite.core import jobs
from pacslite.core.jobs import Handler, ItemOutcome
from pacslite.settings import load
from tests.support.http import WebServer, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with running(tmp_path_factory.mktemp("jobs")) as one:
        one.root = "/api/v1"
        yield one


@pytest.fixture(scope="module")
def pacs(server: WebServer) -> Iterator[Any]:
    opened = app.build(load(environment={"PACSLITE_DATA": str(server.data)}))
    yield opened
    opened.close()


def queue(pacs: Any, kind: str = "test") -> str:
    return jobs.queue(pacs.catalog, kind, {}, Handler(lambda parts, run: {}), "ann").uid


def told(answer: Any, status: int = 200) -> Any:
    assert answer.status == status, answer.body
    return json.loads(answer.body)


def test_a_job_is_shown_cancelled_and_retried(server: WebServer, pacs: Any) -> None:
    uid = queue(pacs)
    job = told(server.get(f"/jobs/{uid}"))
    assert job == {
        "id": uid,
        "kind": "test",
        "state": "queued",
        "progress": {"done": 0, "total": None, "unit": "instances"},
        "result": None,
        "error": None,
        "created_by": "ann",
        "created_at": job["created_at"],
        "started_at": None,
        "ended_at": None,
    }
    assert told(server.request("POST", f"/jobs/{uid}/retry"), 409)["type"] == "conflict"
    assert told(server.request("POST", f"/jobs/{uid}/cancel"))["state"] == "cancelled"
    assert told(server.request("POST", f"/jobs/{uid}/cancel"), 409)["detail"] == "The job is cancelled and cannot be cancelled."
    again = server.request("POST", f"/jobs/{uid}/retry")
    assert told(again, 202)["id"] == uid
    assert again.headers["location"].endswith(f"/api/v1/jobs/{uid}")
    assert told(server.get("/jobs/none"), 404)["type"] == "not-found"


def test_jobs_are_listed_newest_first_in_pages(server: WebServer, pacs: Any) -> None:
    uids = [queue(pacs, "paged") for _ in range(5)]
    page = told(server.get("/jobs?kind=paged&limit=2&state=queued"))
    seen = [job["id"] for job in page["items"]]
    assert page["total"] == 5
    while page["next"]:
        page = told(server.get(page["next"].partition("/api/v1")[2]))
        seen += [job["id"] for job in page["items"]]
    assert seen == uids[::-1]
    for wrong in ("state=done", "limit=0", "cursor=%21", "since=1"):
        assert told(server.get(f"/jobs?{wrong}"), 400)["type"] == "invalid-form"


def test_what_became_of_single_instances_is_listed(server: WebServer, pacs: Any) -> None:
    job = jobs.get(pacs.catalog, queue(pacs))
    outcomes = [ItemOutcome(f"1.2.{number}", "failed" if number % 2 else "sent", "A700") for number in range(5)]
    pacs.catalog.write(lambda conn: rows.note_items(conn, job.id, outcomes))
    page = told(server.get(f"/jobs/{job.uid}/items?outcome=sent&limit=2"))
    assert ([one["item"] for one in page["items"]], page["total"]) == (["1.2.0", "1.2.2"], 3)
    rest = told(server.get(page["next"].partition("/api/v1")[2]))
    assert rest == {"items": [{"item": "1.2.4", "outcome": "sent", "detail": "A700"}], "total": 3, "next": None}


def test_the_feed_of_changes_is_read_from_where_one_was(server: WebServer, pacs: Any) -> None:
    before = told(server.get("/changes?limit=1"))["last_seq"]
    uid = queue(pacs)
    server.request("POST", f"/jobs/{uid}/cancel")
    page = told(server.get(f"/changes?since={before}&limit=1"))
    assert page["total"] == 2
    (change,) = page["items"]
    assert change == {
        "seq": before + 1,
        "at": change["at"],
        "type": "job.changed",
        "id": uid,
        "job": {"id": uid, "kind": "test", "state": "queued"},
    }
    rest = told(server.get(page["next"].partition("/api/v1")[2]))
    assert [one["job"]["state"] for one in rest["items"]] == ["cancelled"]
    assert told(server.get(f"/changes?since={rest['last_seq']}"))["items"] == []
    assert told(server.get("/changes?since=x"), 400)["errors"][0]["field"] == "since"


def test_the_command_line_shows_cancels_and_retries(pacs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    uid, data = queue(pacs), str(pacs.settings.data)

    def run(*arguments: str) -> Any:
        assert cli.run(["jobs", *arguments, "--data", data, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert run("list", "--limit", "1")[0]["id"] == uid
    assert run("cancel", uid)["state"] == "cancelled"
    assert run("retry", uid)["state"] == "queued"
    assert run("show", uid)["failed_items"] == []
    assert cli.run(["jobs", "cancel", "nothing", "--data", data]) == 3
    assert "There is no job" in capsys.readouterr().err


def test_the_description_knows_jobs(server: WebServer, tmp_path: Path) -> None:
    described = told(server.get("/openapi.json"))
    assert {"/jobs", "/jobs/{job_id}", "/jobs/{job_id}/items", "/jobs/{job_id}/cancel", "/jobs/{job_id}/retry", "/changes"} <= set(
        described["paths"]
    )
    assert described["components"]["schemas"]["JobView"]["properties"]["progress"] == {"$ref": "#/components/schemas/Progress"}
