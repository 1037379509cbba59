"""C-STORE requests as PDUs: whatever the sizes, the message comes out whole, in fragments the receiver takes."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from pacslite.dimse import pdus
from pacslite.dimse.store_messages import StoreMessages

COMMAND = bytes(range(250))


class Bytes:
    """A data set in memory."""

    def __init__(self, data: bytes) -> None:
        self._left = memoryview(data)

    @property
    def finished(self) -> bool:
        return not self._left

    def read_into(self, room: Sequence[memoryview]) -> int:
        before = len(self._left)
        for place in room:
            piece = self._left[: len(place)]
            place[: len(piece)] = piece
            self._left = self._left[len(piece) :]
        return before - len(self._left)

    def close(self) -> None:
        """Nothing is held."""


def written(messages: StoreMessages, context_id: int, data: bytes) -> bytes:
    data_set = Bytes(data)
    out = bytes(messages.begin(context_id, COMMAND, data_set))
    while not data_set.finished:
        out += messages.more(data_set)
    return out


def read(stream: bytes, context_id: int, max_pdu_bytes: int) -> tuple[bytes, bytes]:
    """Command and data set of one message; checks every header."""
    parts: dict[int, bytes] = {0: b"", 1: b""}
    ended: list[int] = []
    while stream:
        kind, length, pdv, context, control = struct.unpack_from(">BxIIBB", stream)
        assert (kind, length, context) == (pdus.P_DATA, pdv + 4, context_id)
        assert not max_pdu_bytes or length <= max_pdu_bytes
        assert pdv % 2 == 0
        assert control & 1 not in ended
        parts[control & 1] += stream[12 : 6 + length]
        ended += [control & 1] if control & 2 else []
        stream = stream[6 + length :]
    assert ended == [1, 0]
    return parts[1], parts[0]


@pytest.mark.parametrize("max_pdu_bytes", [0, 16, 200, 16384, 131072, 2**31])
def test_messages_of_all_sizes_one_after_the_other(max_pdu_bytes: int) -> None:
    messages = StoreMessages(max_pdu_bytes)
    step = max_pdu_bytes - 6 if 0 < max_pdu_bytes < 2**18 else 2**18 - 6
    sizes = [0, 1, 2, step - 1, step, step + 1, 2 * step, 3, 1024**2 + 7, 1024**2, 4]
    for number, size in enumerate(sizes if max_pdu_bytes != 16 else sizes[:8]):
        data = bytes(number + at % 251 & 0xFF for at in range(size))
        context_id = 1 + 2 * (number // 3)
        command, back = read(written(messages, context_id, data), context_id, max_pdu_bytes)
        assert command == COMMAND
        assert back == data + b"\0" * (size % 2)
