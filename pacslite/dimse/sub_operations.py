"""C-STORE sub-operations of a C-MOVE or C-GET (PS3.4 C.4.2, C.4.3): instances over an association, counted.

The data set goes out as it is stored when the receiver takes that transfer syntax, else in another one. The next
instance is read while the receiver deals with the one before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pacslite.core.conversion import Conversions, is_possible
from pacslite.core.data_sets import DataSet, open_data_sets
from pacslite.core.retrieve import Item
from pacslite.dicom.data_set import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, NATIVE
from pacslite.dicom.syntaxes import REVERSIBLE
from pacslite.dimse import commands
from pacslite.dimse.pdus import AssociationEnded, Unfinished
from pacslite.dimse.store_messages import StoreMessages
from pacslite.errors import PacsliteError
from pacslite.storage.stores import Stores

# In this order, when the receiver does not take what is stored. Nothing is made that loses something: that would be another
# instance (PS3.3 C.7.6.1.1.5) than the one the request names.
TARGETS = (EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED, *sorted(REVERSIBLE - NATIVE))
_MOST = 0xFFFF
# Warnings of the Storage Service (PS3.4 B.2.3) and general ones (PS3.7 annex C): B000 to BFFF, and these.
_WARNINGS = frozenset({0x0001, 0x0107, 0x0116})

Accepted = Mapping[str, Mapping[str, int]]
"""Ids of presentation contexts by SOP class and transfer syntax."""


class Channel(Protocol):
    """An association on which we may send C-STORE requests."""

    @property
    def max_pdu_bytes(self) -> int:
        """The longest PDU that the receiver takes, 0 for no bound."""

    def send(self, data: bytes | memoryview) -> None:
        """Send whole PDUs; raises AssociationEnded."""

    def store_status(self, message_id: int) -> int:
        """Wait for the response to a C-STORE; raises AssociationEnded."""


@dataclass(slots=True)
class Tally:
    """What came of the sub-operations of one association; one thread counts, others may look."""

    completed: int = 0
    failed: int = 0
    warning: int = 0
    failed_uids: list[str] = field(default_factory=list)
    reason: str = ""

    @property
    def done(self) -> int:
        """How many are over."""
        return self.completed + self.failed + self.warning

    def answered(self, item: Item, status: int) -> None:
        """Count by the status that the receiver gave."""
        if status == commands.SUCCESS:
            self.completed += 1
        elif status & 0xF000 == commands.COERCED or status in _WARNINGS:
            self.warning += 1
        else:
            self.fail(item, f"the receiver answered {status:04X}H")

    def fail(self, item: Item, reason: str) -> None:
        """Count one that could not be sent or was refused; the first reason is kept."""
        self.failed_uids.append(item.sop_instance_uid)
        self.reason = self.reason or reason
        self.failed += 1


def counters(total: int, tallies: Sequence[Tally], *, with_remaining: bool) -> dict[int, int]:
    """The elements that count (PS3.7 9.3.3.2); remaining ones only while pending or cancelled. US holds no more than 65535."""
    counted = {commands.REMAINING: total - sum(tally.done for tally in tallies)} if with_remaining else {}
    counted[commands.COMPLETED] = sum(tally.completed for tally in tallies)
    counted[commands.FAILED] = sum(tally.failed for tally in tallies)
    counted[commands.WARNING] = sum(tally.warning for tally in tallies)
    return {element: min(number, _MOST) for element, number in counted.items()}


@dataclass(frozen=True, slots=True)
class Supply:
    """Where instances come from and on whose behalf: AE title and message id of a C-MOVE, None for a C-GET.

    Transfer syntaxes that are `preferred` come before the one in which an instance is stored.
    """

    stores: Stores
    conversions: Conversions
    originator: tuple[str, int] | None = None
    preferred: tuple[str, ...] = ()


@dataclass(slots=True)
class _Ready:
    """A request whose first part stands in the buffer."""

    item: Item
    message_id: int
    data_set: DataSet
    part: memoryview


class Transmission:
    """Sends instances over one association, one after the other; `left` are those not begun."""

    def __init__(self, channel: Channel, accepted: Accepted, supply: Supply, items: Iterable[Item], tally: Tally) -> None:
        self._channel, self._tally, self._preferred = channel, tally, supply.preferred
        self._requests = commands.StoreRequests(supply.originator)
        self._messages = StoreMessages(channel.max_pdu_bytes)
        self._sent = 0
        self._routes: dict[tuple[str, str], tuple[int, str] | str] = {}
        self.left: deque[Item] = deque()
        wanted = []
        for item in items:
            route = self._route(accepted, item)
            if isinstance(route, str):
                tally.fail(item, route)
            else:
                wanted.append((item, route[1]))
                self.left.append(item)
        self._opened = open_data_sets(supply.stores, wanted, supply.conversions)

    def _route(self, accepted: Accepted, item: Item) -> tuple[int, str] | str:
        """Presentation context and transfer syntax for an item, or why there is none."""
        key = item.sop_class_uid, item.transfer_syntax_uid
        if key not in self._routes:
            self._routes[key] = _route(accepted.get(item.sop_class_uid, {}), *key, self._preferred)
        return self._routes[key]

    def run(self, go_on: Callable[[], bool]) -> None:
        """Send what is left as long as `go_on`, asked before each, says so. Raises AssociationEnded; what was under way has failed."""
        current = self._next()
        try:
            while current is not None and go_on():
                under_way, current = current, None
                try:
                    current = self._exchange(under_way)
                except AssociationEnded as error:
                    self._tally.fail(under_way.item, str(error))
                    raise
        finally:
            self._give_back(current)

    def _exchange(self, ready: _Ready) -> _Ready | None:
        """One request and its response; the next one is made ready meanwhile."""
        self._send(ready)
        following = self._next()
        try:
            status = self._channel.store_status(ready.message_id)
        except AssociationEnded:
            self._give_back(following)
            raise
        self._tally.answered(ready.item, status)
        return following

    def _send(self, ready: _Ready) -> None:
        try:
            self._channel.send(ready.part)
            while not ready.data_set.finished:
                self._channel.send(self._messages.more(ready.data_set))
        except PacsliteError as error:
            raise Unfinished(f"the data set cannot be read to its end: {error}") from error
        finally:
            ready.data_set.close()

    def _next(self) -> _Ready | None:
        """The next instance that can be read; those that cannot have failed."""
        for item, opened in self._opened:
            self.left.popleft()
            ready = opened if isinstance(opened, PacsliteError) else self._begin(item, opened)
            if isinstance(ready, _Ready):
                return ready
            self._tally.fail(item, str(ready))
        return None

    def _begin(self, item: Item, data_set: DataSet) -> _Ready | PacsliteError:
        route = self._routes[item.sop_class_uid, item.transfer_syntax_uid]
        message_id = self._sent % _MOST + 1
        command = self._requests.encode(message_id, item.sop_class_uid, item.sop_instance_uid)
        try:
            part = self._messages.begin(int(route[0]), command, data_set)
        except PacsliteError as error:
            data_set.close()
            return error
        self._sent += 1
        return _Ready(item, message_id, data_set, part)

    def _give_back(self, ready: _Ready | None) -> None:
        if ready is not None:
            ready.data_set.close()
            self.left.appendleft(ready.item)


def _route(
    syntaxes: Mapping[str, int], sop_class_uid: str, transfer_syntax_uid: str, preferred: tuple[str, ...] = ()
) -> tuple[int, str] | str:
    if not syntaxes:
        return f"SOP class not accepted: {sop_class_uid}"
    for target in (*preferred, transfer_syntax_uid, *TARGETS):
        if target in syntaxes and is_possible(transfer_syntax_uid, target):
            return syntaxes[target], target
    return f"transfer syntax not accepted: {transfer_syntax_uid}"
