"""C-MOVE as SCP (PS3.4 C.4.2): instances go to a known application entity over associations of our own.

The deliveries run in threads of their own, so that the requester hears of them and can cancel whatever the receiver does.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence

from pacslite.catalog.peers import Peer
from pacslite.core import peers
from pacslite.core.retrieve import Item
from pacslite.dimse import commands
from pacslite.dimse.associations import Association
from pacslite.dimse.contexts import Service
from pacslite.dimse.delivery import Delivery
from pacslite.dimse.messages import Request
from pacslite.dimse.retrieval import PENDING_S, finish, planned
from pacslite.dimse.sub_operations import Supply, counters

_UNKNOWN_DESTINATION = 0xA801
# Fewer than this are not worth another association.
_LEAST_ITEMS = 32


def serve(association: Association, request: Request) -> None:
    """Send what is asked for to the Move Destination, in the name of the requester."""
    items = planned(association, request, Service.MOVE)
    if items is None:
        return
    destination = request.command.title(commands.MOVE_DESTINATION)
    peer = peers.find_entity(association.pacs.catalog, destination)
    if peer is None:
        association.respond(request, _UNKNOWN_DESTINATION, f"Move Destination {destination} is not known")
    else:
        _move(association, request, peer, items)


def _move(association: Association, request: Request, peer: Peer, items: Sequence[Item]) -> None:
    pacs = association.pacs
    originator = association.calling_aet, request.command.message_id
    supply = Supply(pacs.stores, pacs.conversions, originator, peer.transfer_syntaxes)
    streams = max(1, min(pacs.settings.move_associations, len(items) // _LEAST_ITEMS))
    deliveries = [Delivery(peer, items[number::streams], supply, pacs.settings) for number in range(streams)] if items else []
    with _running(deliveries, association.id) as crew:
        cancelled = _accompany(association, request, len(items), crew)
    if crew.error is not None:
        raise crew.error
    finish(association, request, len(items), [delivery.tally for delivery in deliveries], cancelled)


class _Crew:
    """Deliveries under way; `done` becomes readable when the last one is over."""

    def __init__(self, deliveries: Sequence[Delivery]) -> None:
        self.deliveries = deliveries
        self.done = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.error: Exception | None = None
        self._left = len(deliveries)
        self._lock = threading.Lock()

    @property
    def at_work(self) -> bool:
        """Whether a delivery is not over."""
        return self._left > 0

    def work(self, delivery: Delivery) -> None:
        """Run one delivery; in its own thread."""
        try:
            delivery.run()
        # Raised again in the thread of the association, which answers it.
        except Exception as error:  # noqa: BLE001
            self.error = error
        finally:
            with self._lock:
                self._left -= 1
                if not self._left:
                    os.eventfd_write(self.done, 1)


@contextlib.contextmanager
def _running(deliveries: Sequence[Delivery], name: str) -> Iterator[_Crew]:
    """All deliveries in threads; at the end none is left, and when the block fails they are cut off."""
    crew = _Crew(deliveries)
    threads = [threading.Thread(target=crew.work, args=(d,), name=f"dimse-{name}-move", daemon=True) for d in deliveries]
    try:
        for thread in threads:
            thread.start()
        yield crew
    except BaseException:
        for delivery in deliveries:
            delivery.cut()
        raise
    finally:
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        os.close(crew.done)


def _accompany(association: Association, request: Request, total: int, crew: _Crew) -> bool:
    """Tell the requester how far it is until all is over; whether the requester has cancelled."""
    tallies = [delivery.tally for delivery in crew.deliveries]
    due = 0.0
    cancelled = False
    while crew.at_work:
        now = time.monotonic()
        if now >= due:
            due = now + PENDING_S
            if not cancelled:
                association.report(request, counters(total, tallies, with_remaining=True))
        association.await_input(crew.done, due - now)
        if association.cancelled() and not cancelled:
            cancelled = True
            for delivery in crew.deliveries:
                delivery.stop()
    return cancelled
