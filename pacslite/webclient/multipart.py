"""The bodies of the parts of a multipart answer (RFC 2046 5.1), piece by piece in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from pacslite.errors import PeerError

_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,200})"|([^\s;,"]{1,200}))', re.IGNORECASE)
_MAX_HEADER_BYTES = 64 * 1024


def parts_into(pieces: Iterable[bytes], content_type: str, write: Callable[[bytes], object]) -> int:
    """Write the body of the first part; how many parts there were. Raises PeerError when the text is cut off or no multipart."""
    found = _BOUNDARY.search(content_type)
    if not found:
        raise PeerError("the multipart answer names no boundary")
    delimiter = b"\r\n--" + (found[1] or found[2]).encode("latin-1", "replace")
    # As if a line had ended before: the first delimiter needs no other treatment.
    buffer = bytearray(b"\r\n")
    count, state = 0, "preamble"
    for piece in pieces:
        buffer += piece
        while state != "end":
            if state == "headers":
                end = buffer.find(b"\r\n\r\n")
                if end < 0:
                    if len(buffer) > _MAX_HEADER_BYTES:
                        raise PeerError("the header of a part is too long")
                    break
                # The line end of the header may be the one of the delimiter of an empty part.
                del buffer[: end + 2]
                count, state = count + 1, "first" if count == 0 else "other"
                if state == "first":
                    del buffer[:2]
                continue
            at = buffer.find(delimiter)
            if at < 0 or len(buffer) < at + len(delimiter) + 2:
                keep = at if at >= 0 else max(0, len(buffer) - len(delimiter) - 1)
                if state == "first" and keep:
                    write(bytes(memoryview(buffer)[:keep]))
                del buffer[:keep]
                break
            if state == "first" and at:
                write(bytes(memoryview(buffer)[:at]))
            last = buffer[at + len(delimiter) : at + len(delimiter) + 2] == b"--"
            del buffer[: at + len(delimiter)]
            state = "end" if last else "headers"
    if state != "end":
        raise PeerError("the multipart answer is cut off")
    return count
