"""Storage keys, the same in every blob store (docs/architecture.md, "Catalog and storage").

A key is written once and never reused, and carries no identity of a patient: a UID or an opaque number at most.
"""

from __future__ import annotations

import os
import re
import threading
import time
from dataclasses import dataclass

from pacslite.dicom.uids import is_uid
from pacslite.errors import InvalidUid

RADIOLOGY = "radiology/"
PATIENTS = "patients/"
JOURNAL = "journal/"
QUARANTINE = "quarantine/"
PACKED = "_packed.gz"
"""Ends the keys of packed blobs (`storage.packing`); no other key can end like this."""

_FOLDER = re.compile(r"[a-z][a-z0-9_]{0,31}")
_EXTENSION = re.compile(r"(\.[a-z0-9]{1,10}){0,2}")
_DAY = re.compile(r"[0-9]{8}")
_PICTURE_FOLDERS = ("large", "medium", "thumbnails")
_FILE_NAME = re.compile(r"[0-9]{8}_[a-z0-9]+_([0-9a-f-]{36})[.a-z0-9]*")
_VERSION_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_COUNTER_BITS = 12
_COUNTER_MASK = (1 << _COUNTER_BITS) - 1


@dataclass(frozen=True, slots=True)
class InstanceKey:
    """The parts of the key of one version of an instance."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    version_id: str


class _VersionIds:
    """UUIDs of version 7 (RFC 9562, 5.7), strictly ascending within the process.

    Milliseconds and the 12 bits of rand_a form one number that is never handed out twice (method 1 of RFC 9562, 6.2):
    when the clock stands still or steps back, it counts on from the last one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def new(self) -> str:
        now = (time.time_ns() // 1_000_000) << _COUNTER_BITS
        with self._lock:
            self._last = now if now > self._last else self._last + 1
            stamp = self._last
        random_bits = int.from_bytes(os.urandom(8), "big") & ((1 << 62) - 1)
        high = ((stamp >> _COUNTER_BITS) << 16) | 0x7000 | (stamp & _COUNTER_MASK)
        text = f"{(high << 64) | (2 << 62) | random_bits:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


new_version_id = _VersionIds().new
"""A new version id: a UUID of version 7 as text. Ids of one process sort in the order they were made."""


def instance_key(study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str, version_id: str) -> str:
    """`radiology/{study}/{series}/{instance}/{version-id}.dcm`; raises InvalidUid before a path can leave its folder."""
    for uid in (study_instance_uid, series_instance_uid, sop_instance_uid):
        if not is_uid(uid):
            raise InvalidUid(f"{uid[:80]!r} is not a UID: it cannot be part of a storage key")
    return f"{RADIOLOGY}{study_instance_uid}/{series_instance_uid}/{sop_instance_uid}/{version_id}.dcm"


def parse_instance_key(key: str) -> InstanceKey | None:
    """The parts of an instance's key, or None when the key is of another shape."""
    parts = key.removesuffix(PACKED).split("/")
    if len(parts) != 5 or parts[0] + "/" != RADIOLOGY or not parts[4].endswith(".dcm"):
        return None
    version_id = parts[4][:-4]
    if not is_version_id(version_id) or not all(is_uid(uid) for uid in parts[1:4]):
        return None
    return InstanceKey(parts[1], parts[2], parts[3], version_id)


def is_version_id(text: str) -> bool:
    """Whether the text is a version id as `new_version_id` writes it."""
    return _VERSION_ID.fullmatch(text) is not None


def file_key(patient: int, folder: str, day: str, prefix: str, file_id: str, extension: str) -> str:
    """`patients/patient_{id}/{folder}/{yyyymmdd}_{prefix}_{id}{extension}`; a ValueError is a fault of the program.

    `patient` is our own number, `file_id` a new version id; the extension has its dot, and may be empty.
    """
    parts = ((_FOLDER, folder), (_DAY, day), (_FOLDER, prefix), (_VERSION_ID, file_id), (_EXTENSION, extension))
    if patient < 1 or not all(pattern.fullmatch(text) for pattern, text in parts):
        raise ValueError("these are not the parts of a file's key")
    return f"{PATIENTS}patient_{patient}/{folder}/{day}_{prefix}_{file_id}{extension}"


def picture_key(original: str, folder: str) -> str:
    """The key of a smaller picture of a file: same stem, in a folder beside it (`large`, `medium`, `thumbnails`)."""
    directory, _, name = original.removesuffix(PACKED).rpartition("/")
    if folder not in _PICTURE_FOLDERS or not _FILE_NAME.fullmatch(name):
        raise ValueError(f"{original!r} has no picture key in {folder!r}")
    return f"{directory}/{folder}/{name.partition('.')[0]}.jpg"


def result_key(original: str, extension: str) -> str:
    """A new key beside that of a file, for what is made of it: the same day and prefix, an id of its own."""
    directory, _, name = original.removesuffix(PACKED).rpartition("/")
    if not _FILE_NAME.fullmatch(name) or not _EXTENSION.fullmatch(extension):
        raise ValueError(f"nothing can be kept beside {original!r}")
    day, prefix, _ = name.split("_", 2)
    return f"{directory}/{day}_{prefix}_{new_version_id()}{extension}"


def blob_uid(key: str) -> str:
    """The unique id within a key, what the catalog finds a blob by: the version id in its last part, in a picture's the folder too."""
    parts = key.removesuffix(PACKED).split("/")
    stem = parts[-1].partition(".")[0]
    named = _FILE_NAME.fullmatch(parts[-1])
    if named is None:
        return stem
    return f"{named[1]}.{parts[-2]}" if len(parts) > 1 and parts[-2] in _PICTURE_FOLDERS else named[1]


def moved_uid(store_name: str, key: str) -> str:
    """What the catalog finds bytes by that were moved away from there, until they are erased: others have their unique id now."""
    return f"{blob_uid(key)}~{store_name}{'~packed' if key.endswith(PACKED) else ''}"


def version_time_ms(version_id: str) -> int:
    """When a version id was made, in milliseconds since 1970 (RFC 9562, 5.7)."""
    return int(version_id[:8] + version_id[9:13], 16)


def journal_key(day: str, journal_id: str) -> str:
    """`journal/{yyyymmdd}/{time-ordered id}.jsonl.gz`: a piece of the changes feed."""
    return f"{JOURNAL}{day}/{journal_id}.jsonl.gz"


def quarantine_key(key: str) -> str:
    """Where the sweep keeps what nothing refers to, until it is erased."""
    return QUARANTINE + key


def check_key(key: str) -> str:
    """The key itself when it is a plain relative path of two or more safe parts; a ValueError is a fault of the program."""
    # No part is empty or begins with a point; this is asked for each file of an answer.
    if "/" not in key or "//" in key or "/." in key or key[0] in "/." or key[-1] == "/" or len(key) > 1000 or "\\" in key or "\0" in key:
        raise ValueError(f"{key[:200]!r} is not a storage key")
    return key
