"""C-GET as SCP (PS3.4 C.4.3): instances come back on the association that asks for them."""

from __future__ import annotations

import time

from pacslite.dimse.associations import Association
from pacslite.dimse.contexts import Service
from pacslite.dimse.messages import Request
from pacslite.dimse.retrieval import PENDING_S, finish, planned
from pacslite.dimse.sub_operations import Supply, Tally, Transmission, counters


def serve(association: Association, request: Request) -> None:
    """Send what is asked for in the contexts where the peer is SCP of storage (PS3.7 D.3.3.4)."""
    items = planned(association, request, Service.GET)
    if items is None:
        return
    tally, total = Tally(), len(items)
    accepted: dict[str, dict[str, int]] = {}
    for context in association.contexts:
        if context.service is Service.STORAGE and context.as_scu:
            accepted.setdefault(context.abstract_syntax, {})[context.transfer_syntax] = context.id
    due = 0.0
    cancelled = False

    def goes_on() -> bool:
        nonlocal due, cancelled
        cancelled = association.cancelled()
        now = time.monotonic()
        if now >= due and not cancelled:
            association.report(request, counters(total, [tally], with_remaining=True))
            due = now + PENDING_S
        return not cancelled

    pacs = association.pacs
    supply = Supply(pacs.stores, pacs.conversions)
    Transmission(association, accepted, supply, items, tally).run(goes_on)
    finish(association, request, total, [tally], cancelled)
