"""`/jobs`: work that goes on outside of requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pacslite.core import jobs
from pacslite.core.access import Right
from pacslite.errors import InvalidForm
from pacslite.web.forms import rule
from pacslite.web.messages import Reply, Request
from pacslite.web.operations import ROOT, Operation, Parameter, json_reply
from pacslite.web.pages import PAGE, check_parameters, key_in, keyed_number, limit_of, next_url

if TYPE_CHECKING:
    from pacslite.app import Pacs
    from pacslite.core.jobs import Job

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is; `total` is null while it is not known."""

    done: int
    total: int | None
    unit: str


@dataclass(frozen=True, slots=True)
class JobView:
    """Work that goes on outside of requests."""

    id: str
    kind: str
    state: State
    progress: Progress
    result: dict[str, Any] | None = field(metadata=rule("What came of it; its fields depend on `kind`."))
    error: str | None = field(metadata=rule("Why it failed, or why the last attempt did."))
    created_by: str
    created_at: str
    started_at: str | None
    ended_at: str | None


@dataclass(frozen=True, slots=True)
class JobList:
    """A page of jobs, newest first."""

    items: tuple[JobView, ...]
    total: int
    next: str | None


@dataclass(frozen=True, slots=True)
class JobItemView:
    """What became of one thing, mostly an instance."""

    item: str = field(metadata=rule("SOP Instance UID."))
    outcome: str
    detail: str


@dataclass(frozen=True, slots=True)
class JobItemList:
    """A page of what became of the single things a job deals with, by UID."""

    items: tuple[JobItemView, ...]
    total: int
    next: str | None


def view_of(job: Job) -> JobView:
    """A job as others see it."""
    progress = Progress(job.progress_done, job.progress_total, job.progress_unit)
    result = dict(job.result) if job.result is not None else None
    times = job.created_at, job.started_at, job.ended_at
    return JobView(job.uid, job.kind, job.state, progress, result, job.error or None, job.actor, *times)  # type: ignore[arg-type]


def accepted(request: Request, job: Job) -> Reply:
    """202 with the job, and where it is."""
    return json_reply(view_of(job), 202, [("Location", f"{request.base_url}{ROOT}/jobs/{job.uid}")])


def list_jobs(pacs: Pacs, request: Request) -> Reply:
    """A page of jobs."""
    given = check_parameters(request, ("limit", "cursor", "state", "kind"))
    if given.get("state", "queued") not in jobs.STATES:
        message = f"is none of {', '.join(jobs.STATES)}"
        raise InvalidForm.at("state", message)
    limit, key = limit_of(given), key_in(given)
    before = keyed_number(key) if key is not None else None
    found, total = jobs.page(pacs.catalog, before=before, limit=limit + 1, state=given.get("state", ""), kind=given.get("kind", ""))
    following = next_url(request, given, str(found[limit - 1].id)) if len(found) > limit else None
    return json_reply(JobList(tuple(map(view_of, found[:limit])), total, following))


def get_job(pacs: Pacs, request: Request, job_id: str) -> Reply:
    """One job."""
    return json_reply(view_of(jobs.get(pacs.catalog, job_id)))


def list_job_items(pacs: Pacs, request: Request, job_id: str) -> Reply:
    """What became of the single things."""
    given = check_parameters(request, ("limit", "cursor", "outcome"))
    limit, after = limit_of(given), key_in(given) or ""
    found, total = jobs.items(pacs.catalog, job_id, outcome=given.get("outcome", ""), after=after, limit=limit + 1)
    following = next_url(request, given, found[limit - 1].item) if len(found) > limit else None
    return json_reply(JobItemList(tuple(JobItemView(o.item, o.outcome, o.detail) for o in found[:limit]), total, following))


def cancel_job(pacs: Pacs, request: Request, job_id: str) -> Reply:
    """Cancels a job that is not over."""
    return json_reply(view_of(jobs.cancel(pacs.catalog, job_id)))


def retry_job(pacs: Pacs, request: Request, job_id: str) -> Reply:
    """Queues a job again that failed or was cancelled."""
    return accepted(request, jobs.retry(pacs.catalog, job_id))


OPERATIONS = (
    Operation(
        "GET",
        "/jobs",
        list_jobs,
        "Jobs, newest first",
        "jobs",
        {200: JobList},
        Right.JOBS,
        parameters=(*PAGE, Parameter("state", "Only those in this state."), Parameter("kind", "Only those of this kind.")),
    ),
    Operation("GET", "/jobs/{job_id}", get_job, "One job", "jobs", {200: JobView}, Right.JOBS, problems=(404,)),
    Operation(
        "GET",
        "/jobs/{job_id}/items",
        list_job_items,
        "What became of the single things a job deals with",
        "jobs",
        {200: JobItemList},
        Right.JOBS,
        problems=(404,),
        parameters=(*PAGE, Parameter("outcome", "Only those that came out like this, `failed` for instance.")),
    ),
    Operation(
        "POST",
        "/jobs/{job_id}/cancel",
        cancel_job,
        "Cancel a job that is not over",
        "jobs",
        {200: JobView},
        Right.JOBS,
        problems=(404, 409),
    ),
    Operation(
        "POST",
        "/jobs/{job_id}/retry",
        retry_job,
        "Run a job again that failed or was cancelled; what it has achieved is not done again",
        "jobs",
        {202: JobView},
        Right.JOBS,
        problems=(404, 409),
    ),
)
