"""Limiting who sees a patient, a study, a series or a file: by groups, and by labels that stand for groups. For administrators."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pacslite.catalog import audit
from pacslite.catalog import restrictions as rows
from pacslite.catalog.restrictions import KEYS, Group, Label, Named, Restriction
from pacslite.catalog.visibility import FILE
from pacslite.core.audit import NOBODY, change_of
from pacslite.dicom.attributes import Level
from pacslite.dicom.uids import clean_uid
from pacslite.errors import Conflict, InvalidForm, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from pacslite.catalog.database import Catalog

__all__ = ["Access", "Group", "Label", "Named", "Restriction"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MOST = 100
"""Groups, or labels, of one object."""


@dataclass(frozen=True, slots=True)
class Access:
    """What limits an object by itself; and the patient of a study or file, by number, for what is limited above it."""

    restriction: Restriction
    patient: int | None


def of_patient(pk: int) -> Callable[[Connection], Named]:
    """The patient of that number; raises NotFound when it is asked for."""

    def find(conn: Connection) -> Named:
        named = rows.patient_named(conn, pk)
        if named is None:
            raise NotFound("There is no such patient.")
        return named

    return find


def of_file(file_id: str) -> Callable[[Connection], Named]:
    """The file of that id; raises NotFound when it is asked for."""

    def find(conn: Connection) -> Named:
        if rows.patient_of_file(conn, file_id) is None:
            raise NotFound("There is no such file.")
        return rows.file_named(file_id)

    return find


def of_study(study: str, series: str | None = None) -> Callable[[Connection], Named]:
    """A study or series; raises InvalidUid, and NotFound when it is asked for."""
    level = Level.STUDY if series is None else Level.SERIES
    named = Named(level, clean_uid(study), clean_uid(series) if series is not None else "")

    def find(conn: Connection) -> Named:
        if not rows.is_known(conn, named):
            raise NotFound(f"There is no such {level.lower()}.")
        return named

    return find


def get(catalog: Catalog, find: Callable[[Connection], Named]) -> Access:
    """What limits an object; raises NotFound."""
    with catalog.read() as conn:
        return _access(conn, find(conn))


def put(catalog: Catalog, find: Callable[[Connection], Named], restriction: Restriction, event: audit.Event) -> Access:
    """Limit an object, in place of what limited it; raises NotFound, InvalidForm, Conflict."""
    _check_names("groups", restriction.groups or ())
    _check_names("labels", restriction.labels)

    def work(conn: Connection) -> Access:
        named = find(conn)
        _check_groups(conn, restriction.groups or ())
        if rows.is_merged(conn, named):
            raise Conflict("The patient became part of another; limit that one.")
        rows.restrict(conn, named, restriction)
        groups = None if restriction.groups is None else list(restriction.groups)
        about = {"level": str(named.level).lower(), "groups": groups, "labels": list(restriction.labels)}
        audit.note(conn, replace(event, detail=about))
        return _access(conn, named)

    return catalog.write(work, KEYS)


def _access(conn: Connection, named: Named) -> Access:
    patient_of = rows.patient_of_file if named.level == FILE else rows.patient_of
    patient = patient_of(conn, named.study_instance_uid) if named.level is not Level.PATIENT else None
    return Access(rows.restriction_of(conn, named) or Restriction(), patient)


def groups(catalog: Catalog) -> list[Group]:
    """All groups by name."""
    with catalog.read() as conn:
        return rows.groups(conn)


def group(catalog: Catalog, name: str) -> Group:
    """The group of that name; raises NotFound."""
    with catalog.read() as conn:
        return _group(conn, name)


def add_group(catalog: Catalog, name: str, origin: audit.Event = NOBODY) -> Group:
    """A new group; raises InvalidForm, Conflict."""
    _check_names("name", (name,))

    def work(conn: Connection) -> Group:
        rows.add_group(conn, name)
        audit.note(conn, change_of(origin, "group.create", name))
        return _group(conn, name)

    return catalog.write(work, KEYS)


def remove_group(catalog: Catalog, name: str, origin: audit.Event = NOBODY) -> None:
    """Forget a group; raises NotFound, and Conflict while something is limited to it."""

    def work(conn: Connection) -> None:
        _group(conn, name)
        rows.remove_group(conn, name)
        audit.note(conn, change_of(origin, "group.delete", name))

    catalog.write(work, KEYS)


def set_members(catalog: Catalog, name: str, accounts: Sequence[str], peers: Sequence[str], origin: audit.Event = NOBODY) -> Group:
    """Who is in a group, in place of who was; raises NotFound, InvalidForm for names that nobody has."""

    def work(conn: Connection) -> Group:
        before = _group(conn, name)
        unknown = rows.set_members(conn, name, accounts, peers)
        if unknown:
            message = f"nobody is called {', '.join(unknown[:10])}"
            raise InvalidForm(message, (("accounts" if unknown[0] in accounts else "peers", message),))
        after = _group(conn, name)
        audit.note(conn, change_of(origin, "group.members", name, **_moved(before, after)))
        return after

    return catalog.write(work, KEYS)


def _moved(before: Group, after: Group) -> dict[str, list[str]]:
    """Who has come into a group and who has left it, up to a bound."""
    was, now = {*before.accounts, *before.peers}, {*after.accounts, *after.peers}
    return {"added": sorted(now - was)[:_MOST], "removed": sorted(was - now)[:_MOST]}


def labels(catalog: Catalog) -> list[Label]:
    """The labels that restrict, by name."""
    with catalog.read() as conn:
        return rows.labels(conn)


def put_label(catalog: Catalog, name: str, allowed: Sequence[str], origin: audit.Event = NOBODY) -> Label:
    """What carries the label is seen by these groups only; raises InvalidForm, Conflict."""
    _check_names("name", (name,))
    _check_names("groups", allowed)

    def work(conn: Connection) -> Label:
        _check_groups(conn, allowed)
        kept = rows.put_label(conn, name, allowed)
        audit.note(conn, change_of(origin, "label.update", name, groups=list(kept.groups)))
        return kept

    return catalog.write(work, KEYS)


def remove_label(catalog: Catalog, name: str, origin: audit.Event = NOBODY) -> None:
    """The label restricts no more; raises NotFound."""

    def work(conn: Connection) -> bool:
        removed = rows.remove_label(conn, name)
        if removed:
            audit.note(conn, change_of(origin, "label.delete", name))
        return removed

    if not catalog.write(work, KEYS):
        raise NotFound("There is no label of this name that restricts.")


def _group(conn: Connection, name: str) -> Group:
    found = rows.group(conn, name)
    if found is None:
        raise NotFound("There is no group of this name.")
    return found


def _check_names(field: str, names: Sequence[str]) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            message = "a name is 1 to 64 letters, digits and ._-, and begins with a letter or digit"
            raise InvalidForm.at(field, message)
    if len(names) > _MOST:
        message = f"are more than {_MOST}"
        raise InvalidForm.at(field, message)


def _check_groups(conn: Connection, names: Sequence[str]) -> None:
    unknown = rows.unknown_groups(conn, names)
    if unknown:
        message = f"there is no group {', '.join(unknown[:10])}"
        raise InvalidForm.at("groups", message)
