"""Files of patients over REST: uploads, versions, content, lists."""

from __future__ import annotations

from pacslite.files import archive, downloads, lists, tus, versions
from pacslite.web.messages import Route
from pacslite.web.operations import Operation

OPERATIONS: tuple[Operation, ...] = (
    *versions.OPERATIONS,
    *downloads.OPERATIONS,
    *tus.OPERATIONS,
    *lists.OPERATIONS,
    *archive.OPERATIONS,
)
ROUTES: tuple[Route, ...] = ()
"""What is no operation of the REST interface."""
