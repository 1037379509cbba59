"""What the caller of a DICOM association may see: as the user it names, else as the peer it is, else as anybody.

A peer, or a caller nobody knows, has the groups that were given to it (`dicom_unknown_groups` for the unknown), mostly none:
then it sees what nobody has limited. No AE title makes an administrator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pacslite.catalog import restrictions
from pacslite.catalog.visibility import EVERYTHING, TOKEN, Visibility
from pacslite.core import access
from pacslite.core.parts import WithCatalog, WithSettings

if TYPE_CHECKING:
    from pacslite.core.callers import Caller


class Parts(WithSettings, WithCatalog, Protocol):
    """What is asked of a process."""


def visibility_of(parts: Parts, caller: Caller) -> Visibility:
    """What the caller may see, as of now."""
    catalog = getattr(parts, "catalog", None)
    if catalog is None or not catalog.glance(TOKEN):  # nothing is limited
        return EVERYTHING
    user = caller.principal
    if isinstance(user, access.Principal):
        return access.visibility(user)
    if caller.peer is None:
        return Visibility(groups=frozenset(parts.settings.dicom_unknown_groups), actor=caller.aet)
    with catalog.read() as conn:
        return Visibility(groups=restrictions.groups_of_peer(conn, caller.aet), actor=caller.aet)
