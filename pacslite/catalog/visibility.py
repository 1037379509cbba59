"""Who sees what, as SQL: the one place where groups and labels become conditions on patients, studies, series and files.

An object is seen when every restriction on it and above it admits one of the groups of who looks. Restrictions name rules
(`access_rule`), of which there are few: which of them do not admit somebody is evaluated here, kept while the token of the
catalog stays the same, and leaves SQL to look whether an object has one of those.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from sqlalchemy import ColumnElement, Connection, Text, bindparam, select, text

from pacslite.catalog.access_models import access_label, access_object, access_rule, access_state
from pacslite.catalog.statements import Prepared
from pacslite.dicom.attributes import LEVELS, Level

FILE = "FILE"
"""The level of restrictions on one file, which its id names in place of a study."""
_UID = re.compile(r"[0-9.]{1,64}")
_FILE_ID = re.compile(r"[0-9a-f-]{1,64}")
_KEPT = 4096
_SEEN = "seen"
TOKEN = Prepared(select(access_state.c.token))
"""What is another after every change of groups and labels, "" while nothing is limited."""
_RULES = Prepared(select(access_rule.c.pk, access_rule.c.rule))
_LABELS = Prepared(select(access_label.c.name, access_label.c.groups))
_LEVELS = Prepared(select(access_object.c.level, access_object.c.rule_pk).distinct())


@dataclass(frozen=True, slots=True)
class Visibility:
    """What somebody may see: everything, or what admits one of the groups; with `study` of that nothing but this study.

    `actor` is whose jobs are their own, where not everything is seen. With `file`, that is the only file (and `study` is "").
    """

    everything: bool = False
    groups: frozenset[str] = frozenset()
    study: str | None = None
    actor: str = ""
    file: str | None = None

    @property
    def is_limited(self) -> bool:
        """Whether a restriction can mean anything to this one."""
        return not self.everything or self.study is not None

    @property
    def payload(self) -> dict[str, Any]:
        """What a job keeps of it, so that it sees no more than who queued it; nothing for who sees everything."""
        if not self.is_limited:
            return {}
        told = {"everything": self.everything, "groups": sorted(self.groups), "study": self.study, "actor": self.actor}
        return {_SEEN: told | ({"file": self.file} if self.file is not None else {})}


def visibility_of(payload: Mapping[str, Any]) -> Visibility:
    """What a job may see, by its payload."""
    told = payload.get(_SEEN)
    if told is None:
        return EVERYTHING
    return Visibility(told["everything"], frozenset(told["groups"]), told["study"], told["actor"], told.get("file"))


EVERYTHING = Visibility(everything=True)
NOTHING = Visibility(study="")
"""What nobody sees: for requests of which nobody knows whose they are."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What is hidden in one transaction: at each level, objects with these rules; and all studies but `study`, if that is given.

    With `study` files are seen that belong to it, with `file` this one alone.
    """

    token: str
    patients: Hidden | None = None
    studies: Hidden | None = None
    series: Hidden | None = None
    study: str | None = None
    actor: str = ""
    files: Hidden | None = None
    file: str | None = None

    @property
    def key(self) -> str:
        """Names what is hidden, for what is made for those who see the same."""
        return blake2b(repr(self).encode(), digest_size=12).hexdigest()

    @property
    def hides_parts(self) -> bool:
        """Whether a study that is seen may have series that are not."""
        return self.series is not None

    def conditions(self, level: Level) -> str:
        """SQL for rows of a level, whose tables upwards to the study are in the statement under their names; "" for all."""
        if level is Level.PATIENT:
            return _seen_patient(self)
        parts = [part for part in (_seen_study(self), _seen_series(self.series) if level is not Level.STUDY else "") if part]
        return " AND ".join(parts)

    def part_condition(self, series: str) -> str:
        """SQL for rows of series under another name, of studies that are seen; "" for all."""
        return _seen_series(self.series, series)

    def study_condition(self, study: str) -> str:
        """SQL for rows of studies under another name."""
        return _seen_study(self, study)

    def file_condition(self, file: str) -> str:
        """SQL for rows of files under a name; "" for all."""
        return _seen_file(self, file)

    def gone_file_condition(self, file_id: str) -> str:
        """SQL for rows that name files, which are gone, by ids in this column."""
        if self.files is None:
            return "1 = 1" if self.file is None else "1 = 0"
        return _no_object(f"x.study_instance_uid = {file_id} AND x.series_instance_uid = ''", FILE, self.files)

    def clauses(self, level: Level) -> tuple[ColumnElement[bool], ...]:
        """`conditions` for a statement made by SQLAlchemy."""
        sql = self.conditions(level)
        return (text(f"({sql})"),) if sql else ()  # type: ignore[return-value]

    def names(self, study_column: str, series_column: str) -> str:
        """SQL for rows that name studies and series, which may be gone, by UIDs in these columns."""
        parts = []
        if self.study is not None:
            parts.append(f"{study_column} = '{_uid(self.study)}'")
        if self.studies is not None:
            parts.append(_no_object(f"x.study_instance_uid = {study_column} AND x.series_instance_uid = ''", Level.STUDY, self.studies))
        if self.series is not None:
            of_series = f"x.study_instance_uid = {study_column} AND x.series_instance_uid = {series_column}"
            parts.append(_no_object(of_series, Level.SERIES, self.series))
        if self.patients is not None:  # whose a study was that is gone, nobody knows
            seen = _seen_study(self, "xs")
            parts.append(f"EXISTS (SELECT 1 FROM study AS xs WHERE xs.study_instance_uid = {study_column} AND {seen})")
        return " AND ".join(parts) or "1 = 1"


@dataclass(frozen=True, slots=True)
class Hidden:
    """Rules by number: those that hide, or where they are fewer those that do not (`admits`)."""

    rules: tuple[int, ...]
    admits: bool

    @property
    def sql(self) -> str:
        """The test of a rule's number that tells that it hides."""
        listed = ", ".join(map(str, self.rules))
        if self.admits:
            return f"NOT IN ({listed})" if listed else "IS NOT NULL"
        return f"IN ({listed})"


def sight(conn: Connection, visibility: Visibility) -> Sight | None:
    """What is hidden from somebody, in this transaction; None when nothing is."""
    if not visibility.is_limited:
        return None
    row = TOKEN.first(conn, {})
    token = row[0] if row is not None else ""
    if (not token or visibility.everything) and visibility.study is None:
        return None
    if visibility.everything:
        return Sight(token, study=visibility.study, file=visibility.file)
    known = _evaluated(conn, token, visibility.groups) if token else (None, None, None, None)
    if visibility.study is None and not any(known):
        return None
    return Sight(token, *known[:3], visibility.study, visibility.actor, known[3], visibility.file)


def file_clauses(seen: Sight | None) -> tuple[ColumnElement[bool], ...]:
    """For statements on files, whose table is in them under its own name: what is in sight of somebody."""
    sql = seen.file_condition("file") if seen is not None else ""
    return (text(f"({sql})"),) if sql else ()  # type: ignore[return-value]


def sees(conn: Connection, seen: Sight | None, study: str, series: str = "") -> bool:
    """Whether a study or series of these UIDs, there or gone, is in sight."""
    if seen is None:
        return True
    return _naming(seen).first(conn, {"study": study, "series": series}) is not None


@lru_cache(maxsize=512)
def _naming(seen: Sight) -> Prepared:
    named = select(bindparam("study", type_=Text()).label("study_uid"), bindparam("series", type_=Text()).label("series_uid")).subquery(
        "named"
    )
    return Prepared(select(named.c.study_uid).where(text(seen.names("named.study_uid", "named.series_uid"))))


Evaluated = tuple[Hidden | None, Hidden | None, Hidden | None, Hidden | None]
_evaluations: dict[tuple[str, frozenset[str]], Evaluated] = {}


def _evaluated(conn: Connection, token: str, groups: frozenset[str]) -> Evaluated:
    """What is hidden from these groups, at patients, studies, series and files."""
    known = _evaluations.get((token, groups))
    if known is None:
        if len(_evaluations) >= _KEPT:
            _evaluations.clear()
        known = _evaluations[token, groups] = _evaluate(conn, groups)
    return known


def _evaluate(conn: Connection, groups: frozenset[str]) -> Evaluated:
    labels = {name: frozenset(json.loads(allowed)) for name, allowed in _LABELS.all(conn, {})}
    admitting = {pk for pk, rule in _RULES.all(conn, {}) if admits(json.loads(rule), labels, groups)}
    used: dict[str, set[int]] = {}
    for level, pk in _LEVELS.all(conn, {}):
        used.setdefault(level, set()).add(pk)
    return tuple(_hidden(used.get(str(level), set()), admitting) for level in (*LEVELS[:3], FILE))  # type: ignore[return-value]


def _hidden(used: Iterable[int], admitting: set[int]) -> Hidden | None:
    hiding = sorted(set(used) - admitting)
    seen = sorted(set(used) & admitting)
    if not hiding:
        return None
    return Hidden(tuple(seen), True) if len(seen) < len(hiding) else Hidden(tuple(hiding), False)


def admits(rule: dict[str, list[str] | None], labels: dict[str, frozenset[str]], groups: frozenset[str]) -> bool:
    """Whether a rule lets one of the groups see: its own groups, if it names any, and each label that restricts."""
    limited = rule.get("groups")
    if limited is not None and groups.isdisjoint(limited):
        return False
    return all(not groups.isdisjoint(labels[name]) for name in rule.get("labels") or () if name in labels)


def _no_object(named: str, level: Level | str, hidden: Hidden) -> str:
    return f"NOT EXISTS (SELECT 1 FROM access_object AS x WHERE {named} AND x.level = '{level}' AND x.rule_pk {hidden.sql})"


_OF_PATIENT = "x.study_instance_uid = {0}.identity_study AND x.patient_id = {0}.identity_id AND x.issuer = {0}.identity_issuer"


@lru_cache(maxsize=1024)
def _seen_patient(seen: Sight) -> str:
    """A patient is seen when nothing limits them and, where studies are limited, when there is none, or one that is seen, or a file is."""
    parts = []
    if seen.patients is not None:
        parts.append(_no_object(_OF_PATIENT.format("patient") + " AND x.series_instance_uid = ''", Level.PATIENT, seen.patients))
    if seen.study is not None or seen.studies is not None or seen.series is not None:
        own = " AND ".join(part for part in (_studies_alone(seen, "xs"), _has_part(seen, "xs")) if part)
        any_of = [f"EXISTS (SELECT 1 FROM study AS xs WHERE xs.patient_pk = patient.pk AND {own})"]
        if seen.study is None:
            none_there = "NOT EXISTS (SELECT 1 FROM study AS xn WHERE xn.patient_pk = patient.pk)"
            any_of.append(f"(patient.merged_into IS NULL AND {none_there})")
            # Who became part of another is seen by what was theirs.
            of_merged = f"SELECT 1 FROM study AS xs WHERE xs.origin_patient = patient.pk AND {own}"
            any_of.append(f"(patient.merged_into IS NOT NULL AND EXISTS ({of_merged}))")
        of_file = f"EXISTS (SELECT 1 FROM file AS xf WHERE xf.{{0}} = patient.pk AND {_seen_file(seen, 'xf')})"
        any_of += [of_file.format("patient_pk"), of_file.format("origin_patient")]
        # A link to a file tells nothing of whom it is of.
        parts.append(f"({' OR '.join(any_of)})" if seen.file is None else "1 = 0")
    return " AND ".join(parts)


@lru_cache(maxsize=1024)
def _seen_file(seen: Sight, file: str) -> str:
    """A file is seen when nothing limits it, its patient, the study it is tied to, or the series that it is an instance of."""
    parts = []
    if seen.file is not None:
        parts.append(f"{file}.uid = '{seen.file if _FILE_ID.fullmatch(seen.file) else ''}'")
    elif seen.study is not None:
        parts.append(f"({file}.study_instance_uid = '{_uid(seen.study)}' OR {file}.dicom_study_uid = '{_uid(seen.study)}')")
    rest = replace(seen, study=None, file=None)
    if seen.patients is not None:
        parts.append(_of_seen_patient(file, seen.patients))
    of_studies = _seen_study(rest, "xt")
    for column in (f"{file}.study_instance_uid", f"{file}.dicom_study_uid") if of_studies else ():
        if seen.studies is not None:  # it hides as well while the study is gone
            parts.append(_no_object(f"x.study_instance_uid = {column} AND x.series_instance_uid = ''", Level.STUDY, seen.studies))
        parts.append(f"NOT EXISTS (SELECT 1 FROM study AS xt WHERE xt.study_instance_uid = {column} AND NOT ({of_studies}))")
    if seen.series is not None:
        of_series = f"x.study_instance_uid = {file}.dicom_study_uid AND x.series_instance_uid = {file}.dicom_series_uid"
        parts.append(_no_object(of_series, Level.SERIES, seen.series))
    if seen.files is not None:
        parts.append(_no_object(f"x.study_instance_uid = {file}.uid AND x.series_instance_uid = ''", FILE, seen.files))
    return " AND ".join(parts)


def _studies_alone(seen: Sight, study: str) -> str:
    parts = []
    if seen.study is not None:
        parts.append(f"{study}.study_instance_uid = '{_uid(seen.study)}'")
    if seen.studies is not None:
        of_study = f"x.study_instance_uid = {study}.study_instance_uid AND x.series_instance_uid = ''"
        parts.append(_no_object(of_study, Level.STUDY, seen.studies))
    return " AND ".join(parts)


def _has_part(seen: Sight, study: str) -> str:
    """A study of which no series is seen is not seen itself."""
    if seen.series is None:
        return ""
    # Few studies have hidden series: one look into an index tells that this one has none.
    hidden = _no_object(f"x.study_instance_uid = {study}.study_instance_uid", Level.SERIES, seen.series)
    return f"({hidden} OR EXISTS (SELECT 1 FROM series AS xp WHERE xp.study_pk = {study}.pk AND {_seen_series(seen.series, 'xp')}))"


@lru_cache(maxsize=1024)
def _seen_study(seen: Sight, study: str = "study") -> str:
    parts = [_studies_alone(seen, study)]
    if seen.patients is not None:
        parts.append(_of_seen_patient(study, seen.patients))
    parts.append(_has_part(seen, study))
    return " AND ".join(part for part in parts if part)


def _of_seen_patient(table: str, hidden: Hidden) -> str:
    of_patient = f"y.pk = {table}.patient_pk AND " + _OF_PATIENT.format("y")
    return (
        "NOT EXISTS (SELECT 1 FROM patient AS y JOIN access_object AS x "
        f"ON {of_patient} AND x.series_instance_uid = '' AND x.level = 'PATIENT' AND x.rule_pk {hidden.sql})"
    )


def _seen_series(hidden: Hidden | None, series: str = "series") -> str:
    if hidden is None:
        return ""
    of_series = f"x.series_instance_uid = {series}.series_instance_uid AND xo.pk = {series}.study_pk"
    return (
        "NOT EXISTS (SELECT 1 FROM study AS xo JOIN access_object AS x ON x.study_instance_uid = xo.study_instance_uid "
        f"WHERE {of_series} AND x.level = 'SERIES' AND x.rule_pk {hidden.sql})"
    )


def _uid(value: str) -> str:
    """Text that is written into statements: a UID, or what no study is called."""
    return value if _UID.fullmatch(value) else ""
