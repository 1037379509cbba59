"""Instances to a remote application entity over associations of our own (PS3.4 annex B as SCU)."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from pacslite.core.conversion import is_possible
from pacslite.core.retrieve import Item
from pacslite.dicom.data_set import EXPLICIT, IMPLICIT
from pacslite.dimse.pdus import AssociationEnded, TimedOut
from pacslite.dimse.requestor import MAX_CONTEXTS, Remote, Requested, peer_errors
from pacslite.dimse.sub_operations import Supply, Tally, Transmission
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
        loads = list(loads_of(self._items))
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
                with peer_errors(self._peer):
                    association = self._connect(left)
            except PeerError as error:
                return self._fail(left, str(error))
            transmission = Transmission(association, _by_class(association, left), self._supply, left, self.tally)
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

    def _connect(self, load: Sequence[Item]) -> Requested:
        settings = self._settings
        offer = tuple((sop_class, (syntax,)) for sop_class, syntax in contexts_of(load))
        spans = settings.acse_timeout_s, settings.network_timeout_s
        association = Requested.connect(self._peer, settings.aet, offer, *spans, security=settings)
        with self._lock:
            self._association = association
            if self._stopped:
                association.cut()
        return association


def contexts_of(items: Sequence[Item]) -> dict[tuple[str, str], None]:
    """SOP classes and transfer syntaxes to ask for: as stored, and those that everybody takes, where we can make them."""
    stored: dict[tuple[str, str], None] = dict.fromkeys((item.sop_class_uid, item.transfer_syntax_uid) for item in items)
    more = {(sop_class, target): None for sop_class, uid in stored for target in (EXPLICIT, IMPLICIT) if is_possible(uid, target)}
    return stored | more


def loads_of(items: Sequence[Item]) -> Iterator[list[Item]]:
    """The items in as few parts as there have to be, so that the contexts of each fit one association."""
    rooms: list[tuple[set[tuple[str, str]], list[Item]]] = []
    place: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        key = item.sop_class_uid, item.transfer_syntax_uid
        if key not in place:
            needed = set(contexts_of([item]))
            if not rooms or len(rooms[-1][0] | needed) > MAX_CONTEXTS:
                rooms.append((set(), []))
            rooms[-1][0].update(needed)
            place[key] = rooms[-1][1]
        place[key].append(item)
    for _, load in rooms:
        yield load


def _by_class(association: Requested, load: Sequence[Item]) -> dict[str, dict[str, int]]:
    """The accepted contexts by SOP class and transfer syntax; their ids are 1, 3, 5, ... in the order of the offer."""
    found: dict[str, dict[str, int]] = {}
    for number, (sop_class, _) in enumerate(contexts_of(load)):
        context_id = 2 * number + 1
        if context_id in association.accepted:
            found.setdefault(sop_class, {})[association.accepted[context_id]] = context_id
    return found
