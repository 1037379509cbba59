"""C-FIND: how keys match that only stored documents hold, and keys of every kind at once (PS3.4 C.2.2.2), with everything behind it."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from pydicom import config
from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode, encode

from pacslite.dimse import commands
from tests.support.data_sets import image
from tests.support.dimse import EXPLICIT_LE, STUDY_ROOT_FIND, Listener, find_rq
from tests.support.retrieval import keep, retrieving

STUDY, SERIES = "1.2.5", "1.2.5.1"
# Noon in Berlin is 11 o'clock universal time; a month is any time in it.
TAKEN = {
    "1.2.5.1.1": "20240301120000+0100",
    "1.2.5.1.2": "20240301113000+0000",
    "1.2.5.1.3": "202403",
    "1.2.5.1.4": "",
    "1.2.5.1.5": None,
}


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    with retrieving(tmp_path_factory.mktemp("matching")) as running:
        for number, (uid, taken) in enumerate(TAKEN.items(), 1):
            ds = image(study=STUDY, series=SERIES, instance=uid, number=number)
            if taken is not None:
                ds.AcquisitionDateTime = taken
            ds.ImageComments = f"100%_of\\{number}" if number == 1 else f"Room {number}"
            keep(running.pacs, ds)
        yield running


def find(listener: Listener, **keys: Any) -> tuple[list[str], int]:
    """SOP Instance UIDs in order, and the final status."""
    ds = Dataset()
    ds.QueryRetrieveLevel, ds.StudyInstanceUID, ds.SeriesInstanceUID = "IMAGE", STUDY, SERIES
    ds.SOPInstanceUID = ""
    with config.disable_value_validation():
        for keyword, value in keys.items():
            setattr(ds, keyword, value)
        identifier = encode(ds, False, True)
    uids: list[str] = []
    with listener.peer() as peer:
        peer.associate(((STUDY_ROOT_FIND, (EXPLICIT_LE,)),))
        peer.request(1, find_rq(), identifier)
        while True:
            command, data = peer.response()
            status = command.number(commands.STATUS)
            if status not in (commands.PENDING, commands.PENDING_WARNING):
                peer.release()
                return sorted(uids), status
            uids.append(str(decode(BytesIO(data), False, True).SOPInstanceUID))


@pytest.mark.parametrize(
    ("value", "numbers"),
    [
        ("20240301110000+0000", {1, 3}),
        ("20240301120000+0100", {1, 3}),
        ("20240301110000+0000-20240301113000+0000", {1, 2, 3}),
        ("20240301123000+0100-", {2, 3}),
        ("-20240301105959+0000", {3}),
        ("-202402", set()),
        ("20240301", {1, 2, 3}),
        ("20240201-20240331", {1, 2, 3}),
        ("", {1, 2, 3, 4, 5}),
    ],
)
def test_date_times_match_across_offsets_and_as_intervals_of_their_precision(listener: Listener, value: str, numbers: set[int]) -> None:
    """Checklist 63, 64, 65: inclusive ranges, offsets taken into account; a zero-length key matches what lacks the attribute too."""
    assert find(listener, AcquisitionDateTime=value) == ([f"{SERIES}.{number}" for number in sorted(numbers)], 0)


@pytest.mark.parametrize(
    ("value", "count"), [("*", 5), ("room*", 0), ("Room ?", 4), ("Room *  ", 4), ("100%_*", 1), ("%", 0), ("____%", 0), ("Room _", 0)]
)
def test_only_the_two_wildcards_of_the_standard_are_wild(listener: Listener, value: str, count: int) -> None:
    """Checklist 60, 61, 62, 69: `%` and `_` stand for themselves, case counts, trailing spaces do not."""
    uids, status = find(listener, ImageComments=value)
    assert (len(uids), status) == (count, 0)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("value", ["1.2.5.1.*", "1.2.5.1.?"])
def test_in_uids_there_are_no_wildcards(listener: Listener, value: str) -> None:
    """Checklist 60: literal or refused, never wild (P4 C.2.2.2.4)."""
    uids, status = find(listener, SOPInstanceUID=value)
    assert (uids, status) in (([], 0), ([], 0xA900))


@pytest.mark.parametrize("value", ["-", "20240230", "20240301-20240201x"])
def test_what_is_no_date_time_is_refused(listener: Listener, value: str) -> None:
    """Checklist 63, 124: a lone hyphen is no range."""
    assert find(listener, AcquisitionDateTime=value) == ([], 0xA900)
