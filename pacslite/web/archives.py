"""ZIP files of studies and patients as replies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pacslite.web.messages import Headers, Reply

if TYPE_CHECKING:
    from pacslite.core.archive import Archive


def archive_reply(archive: Archive, *more: tuple[str, str]) -> Reply:
    """The archive to be saved under its name; ranges of it may be asked for."""
    headers: Headers = [
        ("Content-Type", "application/zip"),
        ("Content-Disposition", f'attachment; filename="{archive.file_name}"'),
        ("ETag", f'"{archive.digest[:32]}"'),
        ("Cache-Control", "private, no-cache"),
        *more,
    ]
    return Reply(200, headers, archive.body)
