"""Rows straight into the catalog, for tests and benchmarks of searches: no files, no ingest."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, insert

from pacslite.catalog import models
from pacslite.catalog.search_values import words_in
from pacslite.dicom.attributes import BY_TAG, LEVELS, REQUEST_ATTRIBUTES_SEQUENCE, SEQUENCE_ITEMS, Attribute, Level, Source, of_level
from pacslite.dicom.person_name import normal_groups
from pacslite.dicom.temporal import date_time_interval, normal_date, normal_time

NOW = "2026-01-01T00:00:00.000000Z"
_STAMPS = {"created_at": NOW, "updated_at": NOW}


def columns_of(attribute: Attribute, text: str) -> dict[str, Any]:
    """The columns of one attribute from its text, values divided by backslashes."""
    row: dict[str, Any] = {attribute.column: text or None}
    if not attribute.has_normal_form:
        return row
    forms: Iterable[Any]
    if attribute.vr == "PN":
        forms = normal_groups(text)
    elif attribute.vr == "DT":
        forms = date_time_interval(text) or ("", "")
    elif attribute.vr in ("DA", "TM"):
        forms = ((normal_date if attribute.vr == "DA" else normal_time)(text) or "",)
    else:
        try:
            forms = (float(text),)
        except ValueError:
            forms = (None,)
    return row | dict(zip(attribute.match_columns, forms, strict=True))


def row_of(level: Level, values: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a level from values by keyword; all other attributes are unknown."""
    row: dict[str, Any] = {}
    for attribute in of_level(level):
        if attribute.source is Source.ELEMENT:
            row |= columns_of(attribute, values.get(attribute.keyword, ""))
        elif attribute.source is Source.KEPT and attribute.keyword in values:
            row[attribute.column] = values[attribute.keyword]
    return row


class Loader:
    """Puts patients, studies, series and instances into an empty catalog, numbered in the order of the calls."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rows: dict[str, list[dict[str, Any]]] = {}

    def _add(self, table: str, row: dict[str, Any]) -> int:
        rows = self._rows.setdefault(table, [])
        rows.append(row)
        return len(rows)

    def patient(self, **values: Any) -> int:
        """A patient by keyword; its number."""
        number = len(self._rows.get("patient", ())) + 1
        identity = {"identity_id": values.get("PatientID", ""), "identity_issuer": "", "identity_study": str(number)}
        self._words("patient", number, LEVELS[0], values)
        return self._add("patient", {"pk": number, **identity, **_STAMPS, **row_of(LEVELS[0], values)})

    def study(self, patient: int, **values: Any) -> int:
        """A study by keyword; its number."""
        number = len(self._rows.get("study", ())) + 1
        kept = {"NumberOfStudyRelatedSeries": 0, "NumberOfStudyRelatedInstances": 0, "ModalitiesInStudy": None, "SOPClassesInStudy": None}
        self._words("study", number, LEVELS[1], values)
        return self._add("study", {"pk": number, "patient_pk": patient, **_STAMPS, **row_of(LEVELS[1], kept | values)})

    def _words(self, table: str, number: int, level: Level, values: Mapping[str, Any]) -> None:
        for attribute in of_level(level):
            if attribute.vr == "PN":
                for word in words_in(attribute.tag, values.get(attribute.keyword, "")):
                    self._add(f"{table}_value", {f"{table}_pk": number, **word._asdict()})

    def series(self, study: int, requests: Iterable[tuple[str, str]] = (), **values: Any) -> int:
        """A series by keyword, with (SPS ID, requested procedure ID) of its request attributes; its number."""
        number = len(self._rows.get("series", ())) + 1
        values = {"NumberOfSeriesRelatedInstances": 0} | values
        self._words("series", number, LEVELS[2], values)
        self._add("series", {"pk": number, "study_pk": study, **_STAMPS, **row_of(LEVELS[2], values)})
        for item, pair in enumerate(requests):
            columns = {a.column: text or None for a, text in zip(SEQUENCE_ITEMS[REQUEST_ATTRIBUTES_SEQUENCE], pair, strict=True)}
            self._add("request_attribute", {"series_pk": number, "item": item, **columns})
        return number

    def instance(self, series: int, document: Mapping[str, Any] | None = None, **values: Any) -> int:
        """An instance by keyword with its metadata document; its number."""
        number = len(self._rows.get("instance", ())) + 1
        syntax = values.setdefault("AvailableTransferSyntaxUID", "1.2.840.10008.1.2.1")
        row = {"pk": number, "series_pk": series, "version_number": 1, **_STAMPS, **row_of(LEVELS[3], values)}
        self._add("instance", row)
        if document is not None:
            self._add_version(number, syntax, document)
        return number

    def _add_version(self, instance: int, syntax: str, document: Mapping[str, Any]) -> None:
        blob = {"uid": str(instance), "storage_key": f"radiology/{instance}", "store_name": "filesystem", "size_bytes": 1, "sha256": "0"}
        number = self._add("blob", {**blob, "media_type": "application/dicom", "created_at": NOW})
        version = {"instance_pk": instance, "number": 1, "blob_pk": number, "transfer_syntax_uid": syntax, "data_set_digest": "0"}
        number = self._add("version", {"pk": number, **version, "created_at": NOW})
        packed = zlib.compress(json.dumps(document, separators=(",", ":")).encode())
        self._add("metadata", {"version_pk": number, "extractor_version": 1, "json": packed})

    def flush(self) -> None:
        """Writes everything."""
        words = ("patient_value", "study_value", "series_value")
        for table in ("patient", "study", "series", "request_attribute", "instance", "blob", "version", "metadata", *words):
            rows = self._rows.get(table)
            if rows:
                self._connection.execute(insert(models.SCHEMA.tables[table]), rows)


def json_of(values: Mapping[str, str]) -> dict[str, Any]:
    """A DICOM JSON object of indexed attributes by keyword, as ingest would make it."""
    out: dict[str, Any] = {}
    for keyword, text in values.items():
        attribute = next(a for a in BY_TAG.values() if a.keyword == keyword)
        values_of = text.split("\\") if text else []
        if attribute.vr == "PN":
            items: list[Any] = [dict(zip(("Alphabetic", "Ideographic", "Phonetic"), v.split("="), strict=False)) for v in values_of]
        else:
            items = list(values_of)
        out[attribute.hex] = {"vr": attribute.vr, "Value": items} if items else {"vr": attribute.vr}
    return out
