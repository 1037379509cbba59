"""The kinds of jobs there are, by name. To add one: write a `core.jobs.Handler` and name it here.

Handlers are imported when a job of their kind runs, so a process pays only for those that it uses.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from collections.abc import Collection

    from pacslite.app import Pacs
    from pacslite.core.jobs import Handler, Runner

KINDS: dict[str, str] = {
    "dicomweb.commitment": "pacslite.core.commitment_requests:HANDLER",
    "studies.undelete": "pacslite.core.restoration_job:HANDLER",
    "peer.retrieve": "pacslite.core.remote_retrieve:RETRIEVE",
    "peer.store": "pacslite.core.remote_store:STORE",
    "peer.commit": "pacslite.core.remote_commit:COMMIT",
    "audit.verify": "pacslite.core.audit_upkeep:HANDLER",
    "storage.verify": "pacslite.core.verification:VERIFY_HANDLER",
    "storage.orphans": "pacslite.core.verification:ORPHANS_HANDLER",
    "storage.policies": "pacslite.core.retention:HANDLER",
    "storage.archive": "pacslite.core.archival:HANDLER",
    "files.renditions": "pacslite.core.rendition_jobs:HANDLER",
    "files.regenerate": "pacslite.core.rendition_jobs:REGENERATE",
}
"""Where the handler of a kind is: module and name."""

OF_FILES = frozenset({"files.renditions", "files.regenerate"})
"""Kinds whose time is up to the files that people bring."""


def handler(kind: str) -> Handler:
    """The handler of a kind."""
    module, _, name = KINDS[kind].partition(":")
    found: Handler = getattr(importlib.import_module(module), name)
    return found


def runner(pacs: Pacs, stop: threading.Event, without: Collection[str] = ()) -> Runner:
    """Runs jobs of all kinds but those `without`, for one thread."""
    from pacslite.core.jobs import Runner

    return Runner(pacs, tuple(kind for kind in KINDS if kind not in without), handler, stop)
