"""Instances to a remote application entity over associations of our own (PS3.4 annex B as SCU)."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from pacslite.core.conversion import is_possible
from pacslite.core.retrieve import Item
from pacslite.dicom.data_set import EXPLICIT, IMPLICIT
from pacslite.dimse.pdus import AssociationEnded, TimedOut
from pacslite.dimse.requestor import MAX_CONTEXTS, Offer, Remote, Requested, peer_errors
from pacslite.dimse.sub_operations import TARGETS, Supply, Tally, Transmission
from pacslite.errors import PeerError
from pacslite.settings import Settings


class Delivery:
    """One stream of C-STORE requests to a receiver; `run` in a thread of its own, `stop` and `cut` from others.

    More SOP classes and transfer syntaxes than an association has room for go over several, one after the other.
    """

    def __init__(self, peer: Remote, items: Sequence[Item], supply: Supply, settings: Settings) -> None:
        self.tally = Tally()
        self._peer, self._items, self._supply, self._settings = peer, items, supply, settings
        self._stopped = False
        self._association: Requested | None = None
        self._lock = threading.Lock()

    def run(self) -> None:
        """Send all; what cannot be sent is counted as failed. Nothing is raised on account of the receiver."""
        loads = list(loads_of(self._items, self._supply.preferred))
        for number, load in enumerate(loads):
            reached = self._deliver(load)
            if self._stopped:
                return
            if reached is not None:
                for item in (item for later in loads[number + 1 :] for item in later):
                    self.tally.fail(item, reached)
                return

    def stop(self) -> None:
        """Begin no further sub-operation."""
        self._stopped = True

    def cut(self) -> None:
        """End at once, whatever is going on."""
        with self._lock:
            self._stopped = True
            if self._association is not None:
                self._association.cut()

    def _deliver(self, load: Sequence[Item]) -> str | None:
        """Send what fits one association; the reason when the receiver is out of reach.

        When the association breaks off, another one is made for the rest, unless the one before achieved nothing or
        the receiver was silent: it would be silent again.
        """
        left = load
        while left and not self._stopped:
            answered = self.tally.completed + self.tally.warning
            try:
                offer = offer_for(left, self._supply.preferred)
                with peer_errors(self._peer):
                    association = self._connect(offer)
            except PeerError as error:
                return self._fail(left, str(error))
            transmission = Transmission(association, _by_class(association, offer), self._supply, left, self.tally)
            try:
                transmission.run(self._goes_on)
                association.release()
                return None
            except AssociationEnded as error:
                association.abort()
                left = list(transmission.left)
                if isinstance(error, TimedOut) or self.tally.completed + self.tally.warning == answered:
                    return self._fail(left, str(error))
            finally:
                with self._lock:
                    self._association = None
        return None

    def _goes_on(self) -> bool:
        return not self._stopped

    def _fail(self, items: Sequence[Item], reason: str) -> str | None:
        if not self._stopped:
            for item in items:
                self.tally.fail(item, reason)
        return reason

    def _connect(self, offer: Offer) -> Requested:
        settings = self._settings
        spans = settings.acse_timeout_s, settings.network_timeout_s
        association = Requested.connect(self._peer, settings.aet, offer, *spans, security=settings)
        with self._lock:
            self._association = association
            if self._stopped:
                association.cut()
        return association


def contexts_of(items: Sequence[Item], preferred: Sequence[str] = ()) -> dict[tuple[str, str], None]:
    """SOP classes and transfer syntaxes to ask for: as stored, as the receiver prefers, and those that everybody takes, where we
    can make them."""
    stored: dict[tuple[str, str], None] = dict.fromkeys((item.sop_class_uid, item.transfer_syntax_uid) for item in items)
    targets = (*preferred, EXPLICIT, IMPLICIT)
    return stored | {(sop_class, target): None for sop_class, uid in stored for target in targets if is_possible(uid, target)}


def offer_for(items: Sequence[Item], preferred: Sequence[str] = ()) -> Offer:
    """What to ask for in one association; where there is room, one more context a class for receivers that take nothing of it
    all: whatever else loses nothing."""
    asked = contexts_of(items, preferred)
    offer: list[tuple[str, tuple[str, ...]]] = [(sop_class, (syntax,)) for sop_class, syntax in asked]
    sources: dict[str, set[str]] = {}
    for item in items:
        sources.setdefault(item.sop_class_uid, set()).add(item.transfer_syntax_uid)
    for sop_class, stored in sources.items():
        others = tuple(uid for uid in TARGETS if (sop_class, uid) not in asked and any(is_possible(one, uid) for one in stored))
        if others and len(offer) < MAX_CONTEXTS:
            offer.append((sop_class, others))
    return tuple(offer)


def loads_of(items: Sequence[Item], preferred: Sequence[str] = ()) -> Iterator[list[Item]]:
    """The items in as few parts as there have to be, so that the contexts of each fit one association."""
    rooms: list[tuple[set[tuple[str, str]], list[Item]]] = []
    place: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        key = item.sop_class_uid, item.transfer_syntax_uid
        if key not in place:
            needed = set(contexts_of([item], preferred))
            if not rooms or len(rooms[-1][0] | needed) > MAX_CONTEXTS:
                rooms.append((set(), []))
            rooms[-1][0].update(needed)
            place[key] = rooms[-1][1]
        place[key].append(item)
    for _, load in rooms:
        yield load


def _by_class(association: Requested, offer: Offer) -> dict[str, dict[str, int]]:
    """The accepted contexts by SOP class and transfer syntax; their ids are 1, 3, 5, ... in the order of the offer."""
    found: dict[str, dict[str, int]] = {}
    for number, (sop_class, syntaxes) in enumerate(offer):
        context_id = 2 * number + 1
        # A syntax that was not offered is no answer.
        if association.accepted.get(context_id) in syntaxes:
            found.setdefault(sop_class, {}).setdefault(association.accepted[context_id], context_id)
    return found
