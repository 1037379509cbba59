"""How DIMSE operations are counted."""

from __future__ import annotations

from pacslite import metrics
from pacslite.dimse import commands

_NAMES = {
    commands.C_STORE_RQ: "C-STORE",
    commands.C_GET_RQ: "C-GET",
    commands.C_FIND_RQ: "C-FIND",
    commands.C_MOVE_RQ: "C-MOVE",
    commands.C_ECHO_RQ: "C-ECHO",
    commands.N_EVENT_REPORT_RQ: "N-EVENT-REPORT",
    commands.N_ACTION_RQ: "N-ACTION",
}
_WARNINGS = frozenset({0x0001, 0x0107, 0x0116})


def name_of(field: int) -> str:
    """The name of an operation."""
    return _NAMES.get(field, metrics.OTHER)


def kind_of(status: int | None) -> str:
    """The class of a final status (PS3.7 annex C); an operation that the association did not survive has none."""
    if status is None:
        return "unanswered"
    if status == commands.SUCCESS:
        return "success"
    if status == commands.CANCELLED:
        return "cancel"
    return "warning" if status >> 12 == 0xB or status in _WARNINGS else "failure"


def note(field: int, status: int | None, seconds: float) -> None:
    """Count an operation that is over."""
    if field not in commands.REQUESTS:
        return
    metrics.DIMSE_SECONDS.observe(seconds, name_of(field), kind_of(status))
    if status is not None:
        metrics.DIMSE_RESPONSES.add(name_of(field), f"{status:04X}")
