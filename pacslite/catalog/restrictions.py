"""Groups, labels, and what limits the sight of patients, studies, series and files: the rows that `catalog.visibility` reads.

Every change gives the catalog another token, so that it counts at once in every process. `KEYS` go with every write.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select, update

from pacslite.catalog import accounts
from pacslite.catalog.access_models import access_group, access_label, access_object, access_rule, access_state, peer_group
from pacslite.catalog.account_models import account, account_group
from pacslite.catalog.file_models import file
from pacslite.catalog.models import patient, peer, series, study
from pacslite.catalog.statements import now_text
from pacslite.catalog.visibility import FILE
from pacslite.dicom.attributes import Level
from pacslite.errors import Conflict

KEYS = ("access",)
MAX_RULES = 10_000
MAX_NAMES = 10_000
"""Groups, and labels that restrict, that there may be: what every caller is held against has to stay small."""


@dataclass(frozen=True, slots=True)
class Named:
    """A patient, study, series or file as restrictions name it; see `AccessObject`."""

    level: Level | str
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    patient_id: str = ""
    issuer: str = ""


@dataclass(frozen=True, slots=True)
class Restriction:
    """The groups that may see something, None for all; and its labels."""

    groups: tuple[str, ...] | None = None
    labels: tuple[str, ...] = ()

    @property
    def rule(self) -> str:
        """As it is kept: the same for the same."""
        return json.dumps({"groups": None if self.groups is None else sorted(set(self.groups)), "labels": sorted(set(self.labels))})


@dataclass(frozen=True, slots=True)
class Group:
    """A group: usernames and AE titles, by name."""

    name: str
    created_at: str
    accounts: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Label:
    """A label that restricts, and the groups that may see what carries it."""

    name: str
    groups: tuple[str, ...]
    created_at: str


def _named(one: Named) -> tuple[object, ...]:
    return (
        access_object.c.level == str(one.level),
        access_object.c.study_instance_uid == one.study_instance_uid,
        access_object.c.series_instance_uid == one.series_instance_uid,
        access_object.c.patient_id == one.patient_id,
        access_object.c.issuer == one.issuer,
    )


def patient_named(conn: Connection, pk: int) -> Named | None:
    """The patient of that number."""
    wanted = select(patient.c.identity_study, patient.c.identity_id, patient.c.identity_issuer).where(patient.c.pk == pk)
    row = conn.execute(wanted).one_or_none()
    return None if row is None else Named(Level.PATIENT, row[0], "", row[1], row[2])


def file_named(file_id: str) -> Named:
    """The file of that id, whose level is no one of DICOM."""
    return Named(FILE, file_id)


def patient_of(conn: Connection, study_uid: str) -> int | None:
    """The number of the patient of a study."""
    found = conn.execute(select(study.c.patient_pk).where(study.c.study_instance_uid == study_uid)).scalar()
    return None if found is None else int(found)


def patient_of_file(conn: Connection, file_id: str) -> int | None:
    """The number of the patient of a file."""
    found = conn.execute(select(file.c.patient_pk).where(file.c.uid == file_id)).scalar()
    return None if found is None else int(found)


def is_merged(conn: Connection, one: Named) -> bool:
    """Whether it is a patient who became part of another."""
    named = patient.c.identity_id == one.patient_id, patient.c.identity_issuer == one.issuer
    found = select(patient.c.pk).where(*named, patient.c.identity_study == one.study_instance_uid, patient.c.merged_into.is_not(None))
    return one.level is Level.PATIENT and conn.execute(found).first() is not None


def is_known(conn: Connection, one: Named) -> bool:
    """Whether the study or series is there, or limited although it is not."""
    there = select(study.c.pk).where(study.c.study_instance_uid == one.study_instance_uid)
    if one.series_instance_uid:
        there = there.join(series, series.c.study_pk == study.c.pk).where(series.c.series_instance_uid == one.series_instance_uid)
    return conn.execute(there.limit(1)).first() is not None or restriction_of(conn, one) is not None


def restriction_of(conn: Connection, one: Named) -> Restriction | None:
    """What limits an object by itself, None when nothing does."""
    wanted = select(access_rule.c.rule).join(access_object, access_object.c.rule_pk == access_rule.c.pk)
    rule = conn.execute(wanted.where(*_named(one))).scalar()  # type: ignore[arg-type]
    if rule is None:
        return None
    told = json.loads(rule)
    return Restriction(None if told["groups"] is None else tuple(told["groups"]), tuple(told["labels"]))


def restrict(conn: Connection, one: Named, restriction: Restriction) -> None:
    """Limit an object to groups, and label it; with neither it is as if it never was. Raises Conflict above the bound."""
    conn.execute(delete(access_object).where(*_named(one)))  # type: ignore[arg-type]
    if restriction != Restriction():
        row = {"level": str(one.level), "study_instance_uid": one.study_instance_uid, "series_instance_uid": one.series_instance_uid}
        more = {"patient_id": one.patient_id, "issuer": one.issuer, "rule_pk": _rule(conn, restriction.rule), "updated_at": now_text()}
        conn.execute(insert(access_object).values(**row, **more))
    conn.execute(delete(access_rule).where(access_rule.c.pk.not_in(select(access_object.c.rule_pk))))
    _touch(conn)


def _rule(conn: Connection, rule: str) -> int:
    known = conn.execute(select(access_rule.c.pk).where(access_rule.c.rule == rule)).scalar()
    if known is not None:
        return int(known)
    if conn.execute(select(func.count()).select_from(access_rule)).scalar_one() >= MAX_RULES:
        raise Conflict(
            f"There are {MAX_RULES} combinations of groups and labels, which is the bound; use groups that several objects share."
        )
    return int(conn.execute(insert(access_rule).values(rule=rule).returning(access_rule.c.pk)).scalar_one())


def _touch(conn: Connection) -> None:
    """What was known of who sees what holds no more."""
    limited = conn.execute(select(access_object.c.pk).limit(1)).first() is not None
    conn.execute(update(access_state).values(token=uuid.uuid4().hex if limited else ""))


# Groups


def groups(conn: Connection) -> list[Group]:
    """All groups by name, with their members."""
    people: dict[str, list[str]] = {}
    joined = select(account_group.c.name, account.c.username).join(account, account.c.id == account_group.c.account_id)
    for name, username in conn.execute(joined.order_by(account.c.username)):
        people.setdefault(name, []).append(username)
    titles: dict[str, list[str]] = {}
    for name, title in conn.execute(select(peer_group.c.name, peer_group.c.ae_title).order_by(peer_group.c.ae_title)):
        titles.setdefault(name, []).append(title)
    made = {row.name: row.created_at for row in conn.execute(select(access_group.c.name, access_group.c.created_at))}
    # An account may be in a group that is named only there.
    names = sorted(made.keys() | people.keys() | titles.keys())
    return [Group(name, made.get(name, ""), tuple(people.get(name, ())), tuple(titles.get(name, ()))) for name in names]


def group(conn: Connection, name: str) -> Group | None:
    """The group of that name."""
    return next((one for one in groups(conn) if one.name == name), None)


def add_group(conn: Connection, name: str) -> None:
    """A new group; raises Conflict when there is one of the name, or too many."""
    if conn.execute(select(access_group.c.name).where(access_group.c.name == name)).first() is not None:
        raise Conflict("There is a group of this name.")
    if conn.execute(select(func.count()).select_from(access_group)).scalar_one() >= MAX_NAMES:
        raise Conflict(f"There are {MAX_NAMES} groups, which is the bound.")
    conn.execute(insert(access_group).values(name=name, created_at=now_text()))


def remove_group(conn: Connection, name: str) -> bool:
    """Forget a group; whether there was one. Raises Conflict while something is limited to it."""
    rules = conn.execute(select(access_rule.c.rule)).scalars().all()
    used = any(name in (json.loads(rule)["groups"] or ()) for rule in rules)
    if used or any(name in label.groups for label in labels(conn)):
        raise Conflict("Something is limited to this group; change that first.")
    _remove_members(conn, name)
    return conn.execute(delete(access_group).where(access_group.c.name == name)).rowcount > 0


def set_members(conn: Connection, name: str, usernames: Sequence[str], titles: Sequence[str]) -> list[str]:
    """Who is in a group from now on, of accounts and peers; the names that nobody has, with which nothing is changed."""
    wanted = select(account.c.username, account.c.id).where(account.c.username.in_(usernames))
    ids = {row.username: row.id for row in conn.execute(wanted)}
    known = set(conn.execute(select(peer.c.ae_title).where(peer.c.ae_title.in_(titles))).scalars())
    unknown = [one for one in usernames if one not in ids] + [one for one in titles if one not in known]
    if unknown:
        return unknown
    _remove_members(conn, name)
    for account_id in ids.values():
        conn.execute(insert(account_group).values(account_id=account_id, name=name))
    for title in known:
        conn.execute(insert(peer_group).values(ae_title=title, name=name))
    return []


def _remove_members(conn: Connection, name: str) -> None:
    conn.execute(delete(peer_group).where(peer_group.c.name == name))
    conn.execute(delete(account_group).where(account_group.c.name == name))
    accounts.advance(conn)


def unknown_groups(conn: Connection, names: Sequence[str]) -> list[str]:
    """Those of the names that no group has."""
    known = set(conn.execute(select(access_group.c.name).where(access_group.c.name.in_(names))).scalars())
    # An account may be in a group that somebody named only there.
    known |= set(conn.execute(select(account_group.c.name).where(account_group.c.name.in_(names))).scalars())
    return [name for name in names if name not in known]


def groups_of_peer(conn: Connection, ae_title: str) -> frozenset[str]:
    """The groups that a peer is in."""
    return frozenset(conn.execute(select(peer_group.c.name).where(peer_group.c.ae_title == ae_title)).scalars())


# Labels


def labels(conn: Connection) -> list[Label]:
    """The labels that restrict, by name."""
    rows = conn.execute(select(access_label.c.name, access_label.c.groups, access_label.c.created_at).order_by(access_label.c.name))
    return [Label(name, tuple(json.loads(allowed)), at) for name, allowed, at in rows]


def put_label(conn: Connection, name: str, allowed: Sequence[str]) -> Label:
    """What carries the label is seen by these groups only; raises Conflict above the bound."""
    known = conn.execute(select(access_label.c.created_at).where(access_label.c.name == name)).scalar()
    if known is None and conn.execute(select(func.count()).select_from(access_label)).scalar_one() >= MAX_NAMES:
        raise Conflict(f"There are {MAX_NAMES} labels that restrict, which is the bound.")
    at, kept = known or now_text(), tuple(sorted(set(allowed)))
    conn.execute(delete(access_label).where(access_label.c.name == name))
    conn.execute(insert(access_label).values(name=name, groups=json.dumps(kept), created_at=at))
    _touch(conn)
    return Label(name, kept, at)


def remove_label(conn: Connection, name: str) -> bool:
    """The label restricts no more; what carries it keeps it. Whether it did."""
    removed = conn.execute(delete(access_label).where(access_label.c.name == name)).rowcount > 0
    _touch(conn)
    return removed
