"""`POST /files/upload` with `expand=true`: the entries of a ZIP file, each by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from pacslite.core.expansion import expand
from pacslite.core.file_types import MedicalFileType
from pacslite.core.files import Arrived, Origin, owner_of
from pacslite.errors import InvalidForm, PacsliteError
from pacslite.files import forms
from pacslite.files.forms import UploadForm
from pacslite.web.forms import rule
from pacslite.web.messages import Reply, Request
from pacslite.web.operations import json_reply

if TYPE_CHECKING:
    from pacslite.app import Pacs


@dataclass(frozen=True, slots=True)
class EntryView:
    """What became of an entry. `file_id` is there for files, `sop_instance_uid` for instances, `problem` for what was refused."""

    name: str
    outcome: str = field(metadata=rule("What became of it.", enum=["stored", "duplicate", "refused"]))
    file_id: str | None = None
    sop_instance_uid: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class ExpansionView:
    """What became of a ZIP file, entry by entry."""

    items: tuple[EntryView, ...]


def expanded(pacs: Pacs, request: Request, form: UploadForm, arrived: Sequence[Arrived], origin: Origin) -> Reply:
    """Takes the entries in. What arrived is gone afterwards."""
    try:
        if len(arrived) != 1:
            message = "is missing" if not arrived else f"is given {len(arrived)} times; one archive is expanded at a time"
            raise InvalidForm.at("file", message)
        about = forms.description_of(replace(form, file_type=form.file_type or "document"))
    except PacsliteError:
        forms.discard(arrived)
        raise
    file_type = MedicalFileType(form.file_type) if form.file_type is not None else None
    items = expand(pacs, arrived[0].file, about, file_type, owner_of(request.principal), origin)
    return json_reply({"items": [{name: value for name, value in asdict(item).items() if value is not None} for item in items]})
