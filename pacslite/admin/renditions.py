"""`/files/regenerate`: pictures of files made anew."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pacslite.admin.jobs import JobView, accepted
from pacslite.core import rendition_jobs
from pacslite.core.access import Right
from pacslite.web.forms import parse, rule
from pacslite.web.messages import Reply, Request
from pacslite.web.operations import Operation

if TYPE_CHECKING:
    from pacslite.app import Pacs


@dataclass(frozen=True, slots=True)
class RegenerateForm:
    """Whose pictures are to be made anew."""

    file_id: str | None = field(default=None, metadata=rule("One file; all files when it is left out.", max_length=64))


def regenerate(pacs: Pacs, request: Request) -> Reply:
    """Makes the pictures of files anew, and what could not be made before, by a job; MP4s that are there stay."""
    form = parse(RegenerateForm, request)
    return accepted(request, rendition_jobs.queue_regenerate(pacs, form.file_id, request.actor))


OPERATIONS = (
    Operation(
        "POST",
        "/files/regenerate",
        regenerate,
        "Make the pictures of files anew. The result tells how many `files`, and of how many something `failed`",
        "files",
        {202: JobView},
        Right.ADMIN,
        form=RegenerateForm,
        problems=(404,),
    ),
)
