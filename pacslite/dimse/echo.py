"""C-ECHO as SCP (PS3.4 annex A, PS3.7 9.1.5)."""

from __future__ import annotations

from pacslite.dimse import commands
from pacslite.dimse.associations import Association
from pacslite.dimse.messages import Request


def serve(association: Association, request: Request) -> None:
    """Say that we are there, in whatever context it was asked."""
    association.respond(request, commands.SUCCESS)
