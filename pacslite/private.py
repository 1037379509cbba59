"""What a process does so that nobody else reads what it holds: files that it makes, and its memory."""

from __future__ import annotations

import os
import resource

UMASK = 0o027
"""Directories 0750, files 0640; what holds secrets is made with 0600 by whoever makes it."""


def confine() -> None:
    """To be called first, before anything is made; processes made later inherit it."""
    os.umask(os.umask(UMASK) | UMASK)
    # An image of the memory would hold keys, passwords and images of patients. A limit of 1 keeps the kernel from handing it to a
    # program too (core_pattern beginning with `|`), which 0 does not.
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    limit = 0 if most == 0 else 1
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))
