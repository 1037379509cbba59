"""`/patients/{id}/archive`: all of a patient to download."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pacslite.core.access import Right
from pacslite.core.file_archive import open_patient_archive
from pacslite.web.archives import archive_reply
from pacslite.web.messages import Reply, Request
from pacslite.web.operations import Operation
from pacslite.web.pages import number_of

if TYPE_CHECKING:
    from pacslite.app import Pacs


def get_patient_archive(pacs: Pacs, request: Request, patient_id: str) -> Reply:
    """All of a patient as a ZIP file; for a token that may not read studies, the files alone."""
    may_read_studies = request.principal is not None and Right.DICOMWEB_READ in request.principal.rights
    archive = open_patient_archive(pacs, number_of(patient_id, "patient"), with_studies=may_read_studies)
    return archive_reply(archive)


OPERATIONS = (
    Operation(
        "GET",
        "/patients/{patient_id}/archive",
        get_patient_archive,
        "All of a patient as a ZIP file: studies with DICOMDIR, files beside them; ranges may be asked for",
        "patients",
        {200: None},
        Right.FILES_READ,
        problems=(404, 413),
        action="patient.export",
    ),
)
