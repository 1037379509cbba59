"""`pacslite jobs`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from pacslite.cli import EXIT_NO
from pacslite.cli.options import json_option, load, open_catalog, say, settings_options

if TYPE_CHECKING:
    from pacslite.core.jobs import Job

_STATES = ["queued", "running", "succeeded", "failed", "cancelled"]


@click.group()
def jobs() -> None:
    """Work that goes on outside of requests: look at it, cancel it, run it again."""


def plain(job: Job) -> dict[str, Any]:
    """A job as REST shows it."""
    from pacslite.admin.jobs import view_of

    return dataclasses.asdict(view_of(job))


def line(job: Job) -> str:
    """A job on one line."""
    total = "?" if job.progress_total is None else job.progress_total
    error = f"  {job.error}" if job.error else ""
    return f"{job.uid}  {job.created_at[:19]}Z  {job.kind:<16} {job.state:<9} {job.progress_done}/{total} {job.progress_unit}{error}"


@jobs.command("list")
@click.option("--state", type=click.Choice(_STATES), help="Only those in this state.")
@click.option("--kind", help="Only those of this kind.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many, the newest first.")
@settings_options
@json_option
def list_jobs(state: str | None, kind: str | None, limit: int, config_file: str | None, data: str | None, as_json: bool) -> None:
    """Print jobs, the newest first."""
    from pacslite.core import jobs as core

    found, _ = core.page(open_catalog(load(config_file, data)), before=None, limit=limit, state=state or "", kind=kind or "")
    say(as_json, [plain(job) for job in found], "\n".join(map(line, found)) or "There are no such jobs.")


@jobs.command()
@click.argument("job_id", metavar="ID")
@settings_options
@json_option
def show(job_id: str, config_file: str | None, data: str | None, as_json: bool) -> int:
    """Print the job ID and what became of its single items where that was not success."""
    from pacslite.core import jobs as core

    catalog = open_catalog(load(config_file, data))
    job = core.get(catalog, job_id)
    failed, _ = core.items(catalog, job_id, outcome="failed", after="", limit=100)
    lines = [line(job), *(f"  {name}: {value}" for name, value in (job.result or {}).items() if not isinstance(value, list))]
    lines += [f"  {one.item}: {one.detail}" for one in failed]
    say(as_json, plain(job) | {"failed_items": [dataclasses.asdict(one) for one in failed]}, "\n".join(lines))
    return EXIT_NO if job.state == "failed" else 0


@jobs.command()
@click.argument("job_id", metavar="ID")
@settings_options
@json_option
def cancel(job_id: str, config_file: str | None, data: str | None, as_json: bool) -> None:
    """Cancel the job ID; it stops at its next step."""
    from pacslite.core import jobs as core

    job = core.cancel(open_catalog(load(config_file, data)), job_id)
    say(as_json, plain(job), line(job))


@jobs.command()
@click.argument("job_id", metavar="ID")
@settings_options
@json_option
def retry(job_id: str, config_file: str | None, data: str | None, as_json: bool) -> None:
    """Queue the job ID again, which failed or was cancelled; a running server's worker takes it up."""
    from pacslite.core import jobs as core

    job = core.retry(open_catalog(load(config_file, data)), job_id)
    say(as_json, plain(job), line(job))
