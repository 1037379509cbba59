"""What nobody has described is not ignored: query parameters that an operation does not have, and bodies of operations without a form."""

from __future__ import annotations

from pacslite.core.access import Right
from pacslite.web.forms import parse_empty
from pacslite.web.messages import Check, Request
from pacslite.web.operations import Operation
from pacslite.web.pages import check_parameters

_WITH_BODY = ("POST", "PUT", "PATCH")


def check_of(operation: Operation) -> Check | None:
    """What refuses requests that say more than the operation takes (InvalidForm, BadRequest).

    None for what monitors ask, who append what they like, and for what is for everybody, which looks for itself.
    """
    if operation.also_at or operation.right is Right.PUBLIC:
        return None
    known = tuple(parameter.name for parameter in operation.parameters)
    is_bare = operation.form is None and operation.method in _WITH_BODY

    def check(request: Request) -> None:
        check_parameters(request, known)
        if is_bare:
            parse_empty(request)

    return check
