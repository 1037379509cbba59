"""Several processes behind one port: a sender's associations are dealt out in turn.

The kernel's own choice among sockets that share a port (SO_REUSEPORT) is a hash, which leaves four associations to one of
two processes every eighth time. Senders take their ports one after the other, so the port tells whose turn it is.
"""

from __future__ import annotations

import ctypes
import logging
import socket
import struct

_log = logging.getLogger(__name__)
# Linux, asm-generic/socket.h; not in Python's socket module.
_SO_ATTACH_REUSEPORT_CBPF = 51
# Classic BPF (linux/bpf_common.h, linux/filter.h): load a half word, shift right, modulo, return.
_LOAD_HALF, _SHIFT_RIGHT, _MODULO, _RETURN = 0x28, 0x74, 0x94, 0x16
_NETWORK_HEADER = -0x100000
_IPV4_HEADER_BYTES, _IPV6_HEADER_BYTES = 20, 40
_INSTRUCTION = struct.Struct("HBBI")


def deal_in_turn(listener: socket.socket, processes: int) -> None:
    """Have the kernel choose the process by the sender's port; a kernel that cannot goes on choosing by hash."""
    header = _IPV6_HEADER_BYTES if listener.family == socket.AF_INET6 else _IPV4_HEADER_BYTES
    steps = (
        (_LOAD_HALF, (_NETWORK_HEADER + header) & 0xFFFFFFFF),
        # Linux gives out every other port for outgoing connections.
        (_SHIFT_RIGHT, 1),
        (_MODULO, processes),
        (_RETURN, 0),
    )
    program = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(code, 0, 0, operand) for code, operand in steps))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, struct.pack("HP", len(steps), ctypes.addressof(program)))
    except OSError as error:
        _log.info("associations are dealt out by hash", extra={"reason": error.strerror})
