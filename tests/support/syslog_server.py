"""A syslog server for tests: frames of RFC 5425 and RFC 6587 over TLS or TCP, and what came in them."""

from __future__ import annotations

import base64
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.audit_schema import checked

HEADER = re.compile(rb"<(\d+)>1 (\S+) (\S+) pacslite (\d+) DICOM\+RFC3881 - \xef\xbb\xbf(<\?xml.*)", re.DOTALL)


@dataclass
class Receiver:
    """A syslog server that counts octets (RFC 5425 4.3, RFC 6587 3.4.1); `limit` bytes into a connection it breaks off."""

    listener: socket.socket
    context: ssl.SSLContext | None
    messages: list[bytes] = field(default_factory=list)
    limit: int = 0
    failures: int = 0

    @property
    def port(self) -> int:
        port: int = self.listener.getsockname()[1]
        return port

    def run(self) -> None:
        while True:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            try:
                with plain if self.context is None else self.context.wrap_socket(plain, server_side=True) as sock:
                    self._read(sock)
            except OSError:
                self.failures += 1

    def _read(self, sock: socket.socket) -> None:
        limit, self.limit = self.limit, 0
        received = b""
        while more := sock.recv(4096):
            received += more
            if limit and len(received) > limit:
                return
        while received:
            length, _, rest = received.partition(b" ")
            self.messages.append(rest[: int(length)])
            assert len(self.messages[-1]) == int(length)
            received = rest[int(length) :]

    @property
    def entries(self) -> list[int]:
        """The numbers of the entries that came."""
        return [number_of(one) for one in self.messages]


def number_of(framed: bytes) -> int:
    found = HEADER.fullmatch(framed)
    assert found is not None, framed[:200]
    detail = next(one for one in checked(found[5]).iter("ParticipantObjectDetail") if one.get("type") == "entry")
    return int(base64.b64decode(detail.attrib["value"]))


@contextmanager
def receiving(context: ssl.SSLContext | None = None, port: int = 0) -> Iterator[Receiver]:
    with socket.create_server(("127.0.0.1", port)) as listener:
        receiver = Receiver(listener, context)
        thread = threading.Thread(target=receiver.run, daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
