"""A way to a server that breaks where a test says: after so many bytes, one connection after the other."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass
class Proxy:
    """Listens on `port` and passes bytes on to `target`; `cuts` are the bytes after which each of the next connections is reset.

    `on_bytes` is told after each piece how many bytes clients have sent in all.
    """

    target: int
    port: int = 0
    cuts: list[int] = field(default_factory=list)
    on_bytes: Callable[[int], None] | None = None
    passed: int = 0
    cut: int = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def serve(self, listener: socket.socket) -> None:
        """Takes connections until the listener is closed."""
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            allowed = self.cuts.pop(0) if self.cuts else None
            threading.Thread(target=self._pass, args=(client, allowed), daemon=True).start()

    def _pass(self, client: socket.socket, allowed: int | None) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self.target), timeout=30)
        except OSError:
            client.close()
            return
        back = threading.Thread(target=self._back, args=(server, client), daemon=True)
        back.start()
        with contextlib.suppress(OSError):
            while data := client.recv(65536 if allowed is None else max(1, min(65536, allowed))):
                server.sendall(data)
                self.passed += len(data)
                if self.on_bytes is not None:
                    self.on_bytes(self.passed)
                if allowed is not None:
                    allowed -= len(data)
                    if allowed <= 0:
                        self.cut += 1
                        _reset(client)
                        break
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)
        if allowed is not None and allowed <= 0:
            server.close()
            client.close()

    @staticmethod
    def _back(server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)
        for one in (server, client):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)  # wakes whoever waits for it, as closing does not
            with contextlib.suppress(OSError):
                one.close()


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@contextlib.contextmanager
def cutting(target: int, **options: object) -> Iterator[Proxy]:
    """A proxy for the length of a block."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(32)
        proxy = Proxy(target, listener.getsockname()[1], **options)  # type: ignore[arg-type]
        threading.Thread(target=proxy.serve, args=(listener,), daemon=True).start()
        yield proxy
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
