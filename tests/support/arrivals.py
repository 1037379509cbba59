"""Arrivals made by hand: instances for the catalog without files."""

from __future__ import annotations

import json
import zlib
from typing import Any

from pacslite.catalog import instances
from pacslite.catalog.arrival import Arrival, NewBlob, columns_of, identity_of, modality_of, row_of
from pacslite.catalog.changes import Origin
from pacslite.catalog.database import Catalog
from pacslite.catalog.instances import Intent, Recorded
from pacslite.dicom.attributes import BY_KEYWORD, Level
from pacslite.storage.keys import instance_key, new_version_id

ORIGIN = Origin("dimse", calling_aet="CT", association_id="a1")
CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT = "1.2.840.10008.1.2.1"
_DEFAULTS = {"PatientName": "Doe^Jane", "PatientID": "P1", "StudyDate": "20260102", "StudyTime": "0304", "Modality": "CT"}


def arrival(
    study: str = "1.1",
    series: str = "1.1.1",
    sop: str = "1.1.1.1",
    *,
    digest: str = "d1",
    sop_class: str = CT,
    requests: tuple[tuple[str, str], ...] = (),
    issuer: str = "",
    **texts: str,
) -> Arrival:
    """An instance of the given UIDs and attributes by keyword; values divided by backslashes."""
    merged = {**_DEFAULTS, **texts}
    values = {BY_KEYWORD[k].tag: tuple(v.split("\\")) if v else () for k, v in merged.items()}
    document: dict[str, Any] = {}
    for tag, found in sorted(values.items()):
        items = [{"Alphabetic": v} if BY_KEYWORD["PatientName"].tag == tag else v for v in found]
        document[f"{tag:08X}"] = {"vr": next(a.vr for a in BY_KEYWORD.values() if a.tag == tag), "Value": items}
    if requests:
        pairs = [{"00400009": {"vr": "SH", "Value": [a]}, "00401001": {"vr": "SH", "Value": [b]}} for a, b in requests]
        document["00400275"] = {"vr": "SQ", "Value": pairs}
    return Arrival(
        study,
        series,
        sop,
        sop_class,
        EXPLICIT,
        identity_of(values, study, issuer),
        modality_of(values),
        row_of(Level.PATIENT, values),
        row_of(Level.STUDY, values),
        row_of(Level.SERIES, values, requests),
        columns_of(Level.INSTANCE, values),
        requests,
        digest,
        zlib.compress(json.dumps(document).encode(), 1),
        1,
        None,
        ORIGIN,
    )


def blob_of(one: Arrival) -> NewBlob:
    """Bytes for it that no store has."""
    uid = new_version_id()
    return NewBlob(uid, instance_key(*one.uids, uid), "filesystem", 10, "00")


def store(catalog: Catalog, one: Arrival, intent: Intent = Intent.ADD) -> Recorded:
    """Record it on top of whatever is there."""
    with catalog.read() as conn:
        existing = instances.find_version(conn, *one.uids)
    seen = existing.version_pk if existing else None
    new = blob_of(one)
    return catalog.write(lambda conn: instances.record(conn, one, new, seen, intent), one.keys)
