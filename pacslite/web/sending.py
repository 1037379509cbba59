"""The socket of a connection, which knows when it waits for its client to take more.

A blocking send keeps its thread for as long as the client likes: as many downloads over slow lines as there are threads end the
service. Here the kernel is asked without waiting. Short waits are part of any answer; who has waited for longer in one answer does
the rest of its waiting aside (`web.threads`). A client that takes nothing at all is given up by the kernel (TCP_USER_TIMEOUT).
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator
from typing import Any

from pacslite.web.threads import sending

_SHORT_S = 0.25
_MOST_AT_ONCE = 2**30
_DONT_WAIT = int(socket.MSG_DONTWAIT)  # to join enumerations takes longer than to send


class AnswerSocket(socket.socket):
    """A connection over TCP, to be used by one thread at a time as a blocking socket is."""

    __slots__ = ("_address", "_waited_s")
    _address: str
    _waited_s: float

    @classmethod
    def of(cls, sock: socket.socket, address: str) -> AnswerSocket:
        """The same connection; the socket that is given has it no more."""
        timeout = sock.gettimeout()
        made = cls(sock.family, sock.type, sock.proto, sock.detach())
        made.settimeout(timeout)
        made._address, made._waited_s = address, 0.0
        return made

    def begin(self) -> None:
        """Another answer."""
        self._waited_s = 0.0

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """Sends all of it; raises OSError."""
        if self.gettimeout() is not None:
            super().sendall(data, flags)
            return
        left = memoryview(data).cast("B")
        while left:
            try:
                left = left[self.send(left, flags | _DONT_WAIT) :]
            except BlockingIOError:
                self._wait()

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """Sends so many bytes of a file, or what there is of them: how many that were; raises OSError."""
        if self.gettimeout() is not None:
            return super().sendfile(file, offset, count)
        begin, source = offset, file.fileno()
        end = os.fstat(source).st_size if count is None else offset + count
        with self._not_blocking() as target:
            while offset < end:
                try:
                    sent = os.sendfile(target, source, offset, min(end - offset, _MOST_AT_ONCE))
                except BlockingIOError:
                    self._wait()
                    continue
                if not sent:
                    break
                offset += sent
        return offset - begin

    @contextlib.contextmanager
    def _not_blocking(self) -> Iterator[int]:
        # sendfile(2) knows no MSG_DONTWAIT. Python's own idea of the socket stays as it is.
        descriptor = self.fileno()
        os.set_blocking(descriptor, False)
        try:
            yield descriptor
        finally:
            os.set_blocking(descriptor, True)

    def _wait(self) -> None:
        """Returns when the client has taken something, or is gone."""
        poll = select.poll()
        poll.register(self, select.POLLOUT)
        since, left_s = time.monotonic(), _SHORT_S - self._waited_s
        if left_s <= 0 or not poll.poll(left_s * 1000):
            with sending(self._address):
                poll.poll()
        self._waited_s += time.monotonic() - since
