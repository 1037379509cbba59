"""C-FIND as SCP (placeholder while core.query is built)."""
from pacslite.dimse.associations import Association, Request
from pacslite.errors import Unavailable
def serve(association: Association, request: Request) -> None:
    raise Unavailable("queries")
