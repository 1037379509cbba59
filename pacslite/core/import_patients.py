"""Whom a foreign tree means: patients by the mapping, by numbers of the institution, or by our own; made when that is wished."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from pacslite.catalog import archiving
from pacslite.catalog import patients as rows
from pacslite.catalog.arrival import PatientIdentity
from pacslite.catalog.changes import Origin
from pacslite.core import patients
from pacslite.core.audit import Event
from pacslite.core.import_mapping import FileMapping, Who
from pacslite.core.import_sources import Unusable
from pacslite.core.patients import About, Cause
from pacslite.errors import Conflict

if TYPE_CHECKING:
    from pacslite.core.files import Owner, Parts

_KEPT = 100_000


class Patients:
    """Finds the patients of one import, and makes those that are missing. Safe for threads."""

    def __init__(self, parts: Parts, mapping: FileMapping, numbers: str, issuer: str | None, *, create: bool, owner: Owner) -> None:
        self._parts, self._mapping, self._numbers, self._create, self._owner = parts, mapping, numbers, create, owner
        self._issuer = parts.settings.default_issuer if issuer is None else issuer
        self._known: dict[tuple[Who, str | None], int | None] = {}
        self._lock = threading.Lock()
        self.created = 0

    def find(self, who: Who, number: str | None, *, dry_run: bool = False) -> int | None:
        """The patient that a row of the mapping names, or a number of the tree; None when nothing tells.

        Raises Unusable when there is no such patient, and none is to be made.
        """
        if not who.is_told:
            mapped = self._mapping.patient(number) if number is not None else None
            if mapped is not None:
                who, number = mapped, None
            elif number is None:
                return None
        with self._lock:
            key = (who, None if who.is_told else number)
            if key not in self._known:
                if len(self._known) >= _KEPT:
                    self._known.clear()
                self._known[key] = self._found(who, number, dry_run)
            return self._known[key]

    def _found(self, who: Who, number: str | None, dry_run: bool) -> int | None:
        own = who.patient_id if who.is_told else int(number) if self._numbers == "id" and number and number.isdigit() else None
        if own is not None or (not who.is_told and self._numbers == "id"):
            return self._own(own, number)
        mrn = (who.mrn or number or "").strip()
        issuer = self._issuer if who.issuer is None else who.issuer
        found = self._of_identity(mrn, issuer)
        if found is not None:
            return found
        if not who.is_told and not self._create:
            raise Unusable(f"there is no patient {mrn}: say whose it is with --mapping, or have patients made with --create-patients")
        if dry_run:
            return None
        return self._made(who if who.is_told else Who(mrn=mrn), mrn, issuer)

    def _own(self, own: int | None, number: str | None) -> int:
        with self._parts.catalog.read() as conn:
            if own is not None and archiving.has_patient(conn, own):
                return own
        raise Unusable(f"there is no patient with the number {own if own is not None else number} in this catalog")

    def _of_identity(self, mrn: str, issuer: str) -> int | None:
        """The patient of this number, or the one they became part of."""
        with self._parts.catalog.read() as conn:
            found = rows.of_identity(conn, PatientIdentity(mrn, issuer, ""))
            return None if found is None else rows.survivor(conn, found.id)

    def _made(self, who: Who, mrn: str, issuer: str) -> int:
        given = {name: value for name in ("name", "birth_date", "sex") if (value := getattr(who, name)) is not None}
        origin = Origin(protocol="import", actor=self._owner.username)
        event = Event("", actor=self._owner.username, actor_id=self._owner.account_id, protocol="import")
        try:
            made = patients.create(self._parts, mrn, issuer, About(given), Cause(origin, event)).id
        except Conflict:  # somebody else was faster
            found = self._of_identity(mrn, issuer)
            if found is None:
                raise
            return found
        self.created += 1
        return made
