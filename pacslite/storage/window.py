"""A part of a file as a stream of its own: a range to send, or one part of a multipart upload."""

from __future__ import annotations

import io
import os


class FileWindow(io.RawIOBase):
    """`length` bytes (all that follow when None) of the file from `offset`; seekable, own position, no buffer."""

    def __init__(self, path: str | os.PathLike[str], offset: int, length: int | None) -> None:
        super().__init__()
        self._fd = -1
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        size = os.fstat(self._fd).st_size
        self._begin = min(offset, size)
        self._length = size - self._begin if length is None else max(0, min(length, size - self._begin))
        self._position = 0

    def __len__(self) -> int:
        return self._length

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Position within the window."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move within the window."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer from the window."""
        wanted = min(len(buffer), self._length - self._position)
        if wanted <= 0:
            return 0
        got = os.preadv(self._fd, [memoryview(buffer)[:wanted]], self._begin + self._position)
        self._position += got
        return got

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)
        super().close()
