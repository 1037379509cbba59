"""Storage commitment over HTTP: PS3.18 13, against a real server and a real worker."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pydicom.dataset import Dataset

from pacslite import app, job_kinds
from pacslite.settings import load
from tests.support.data_sets import image, new_uid, part10
from tests.support.http import Answer
from tests.support.processes import until
from tests.support.wado import WebArchive, path_of, web_archive

DICOM_JSON, DICOM_XML = "application/dicom+json", "application/dicom+xml"
MISSING_CLASS = "1.2.840.10008.5.1.4.1.1.2"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebArchive]:
    with web_archive(tmp_path_factory.mktemp("commitment")) as made:
        yield made


def ui(uid: str) -> dict[str, Any]:
    return {"vr": "UI", "Value": [uid]}


def asked(*references: tuple[str, str], transaction: str | None = None) -> dict[str, Any]:
    """The data set of a request."""
    items = [{"00081150": ui(sop_class), "00081155": ui(uid)} for sop_class, uid in references]
    named = {"00081195": ui(transaction)} if transaction else {}
    return {**named, "00081199": {"vr": "SQ", "Value": items}}


def of(*data_sets: Dataset) -> list[tuple[str, str]]:
    return [(str(ds.SOPClassUID), str(ds.SOPInstanceUID)) for ds in data_sets]


def post(archive: WebArchive, transaction: str, body: Any, content_type: str = DICOM_JSON, accept: str = DICOM_JSON) -> Answer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": content_type, "Accept": accept}
    return archive.server.request("POST", f"/commitment-requests/{transaction}", data, headers)


def uids_of(data_set: dict[str, Any], tag: str) -> list[tuple[str, str]]:
    items = data_set.get(tag, {}).get("Value", [])
    return [(item["00081150"]["Value"][0], item["00081155"]["Value"][0]) for item in items]


@contextmanager
def worker(archive: WebArchive) -> Iterator[None]:
    """The part of the worker that runs jobs, over the data of the server."""
    pacs, stop = app.build(load(environment={"PACSLITE_DATA": str(archive.server.data)})), threading.Event()
    thread = threading.Thread(target=job_kinds.runner(pacs, stop).loop)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=30)
        pacs.close()


def polled(archive: WebArchive, transaction: str) -> list[dict[str, Any]]:
    answer = until(lambda: (got := archive.get(f"/commitment-requests/{transaction}", DICOM_JSON)).status != 202 and got)
    assert answer.status == 200, answer.body
    found: list[dict[str, Any]] = json.loads(answer.body)
    return found


def test_what_is_kept_is_committed_and_the_rest_told_with_its_reason(archive: WebArchive) -> None:
    """Checklist 131: POST /commitment-requests/{transactionUID}: 200 with the result, which may tell of failures."""
    kept, lost = image(), image()
    archive.store(part10(kept), part10(lost))
    archive.lose(lost)
    transaction, unknown = new_uid(), new_uid()
    references = [*of(kept, lost), (MISSING_CLASS, str(kept.SOPInstanceUID)), (MISSING_CLASS, unknown)]
    answer = post(archive, transaction, [asked(*references)])
    assert (answer.status, answer.headers["content-type"]) == (200, DICOM_JSON)
    assert answer.headers["content-location"] == f"{archive.server.url}/commitment-requests/{transaction}"
    [result] = json.loads(answer.body)
    assert list(result) == sorted(result)
    assert result["00081195"] == ui(transaction)
    assert uids_of(result, "00081199") == of(kept)
    reasons = {
        uid: item["00081197"]["Value"][0] for uid, item in zip(uids_of(result, "00081198"), result["00081198"]["Value"], strict=True)
    }
    assert reasons == {references[1]: 0x0110, references[2]: 0x0119, references[3]: 0x0112}
    assert polled(archive, transaction) == [result]


def test_results_come_in_xml_too_and_requests_may(archive: WebArchive) -> None:
    """Checklist 131: application/dicom+xml both ways."""
    ds, transaction = image(), new_uid()
    archive.store(part10(ds))
    item = "".join(
        f'<DicomAttribute tag="{tag}" vr="UI"><Value number="1">{uid}</Value></DicomAttribute>'
        for tag, uid in (("00081150", ds.SOPClassUID), ("00081155", ds.SOPInstanceUID))
    )
    sequence = f'<DicomAttribute tag="00081199" vr="SQ"><Item number="1">{item}</Item></DicomAttribute>'
    xml = f'<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM">{sequence}</NativeDicomModel>'
    answer = post(archive, transaction, xml.encode(), DICOM_XML, DICOM_XML)
    assert (answer.status, answer.headers["content-type"]) == (200, DICOM_XML)
    assert str(ds.SOPInstanceUID).encode() in answer.body
    assert b"FailedSOPSequence" not in answer.body


def test_the_same_request_is_the_same_transaction_and_another_409(archive: WebArchive) -> None:
    ds, other, transaction = image(), image(), new_uid()
    archive.store(part10(ds), part10(other))
    first = post(archive, transaction, asked(*of(ds), transaction=transaction))
    assert post(archive, transaction, asked(*of(ds))).body == first.body
    answer = post(archive, transaction, asked(*of(other)))
    assert (answer.status, json.loads(answer.body)["type"]) == (409, "conflict")


def test_a_transaction_that_nobody_asked_for_is_404(archive: WebArchive) -> None:
    assert archive.get(f"/commitment-requests/{new_uid()}", DICOM_JSON).status == 404
    assert archive.get("/commitment-requests/1.2.x", DICOM_JSON).status == 400
    assert archive.get(f"/commitment-requests/{new_uid()}", "image/jpeg").status == 406
    wrong = archive.server.request("DELETE", f"/commitment-requests/{new_uid()}")
    assert (wrong.status, "POST" in wrong.headers["allow"]) == (405, True)


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{", DICOM_JSON, 400),
        (b"[]", DICOM_JSON, 400),
        (b"[1]", DICOM_JSON, 400),
        ({}, DICOM_JSON, 400),
        ({"00081199": {"vr": "SQ"}}, DICOM_JSON, 400),
        ({"00081199": {"vr": "SQ", "Value": 7}}, DICOM_JSON, 400),
        ({"00081199": 7}, DICOM_JSON, 400),
        (asked(("1.2", "1.2.x")), DICOM_JSON, 400),
        ({"00081199": {"vr": "SQ", "Value": [{"00081150": ui("1.2")}]}}, DICOM_JSON, 400),
        (asked(("1.2", "1.3"), transaction="1.2.3.4"), DICOM_JSON, 400),
        (b"<x/>", DICOM_XML, 400),
        (asked(("1.2", "1.3")), "text/plain", 415),
        (asked(("1.2", "1.3")), "", 415),
    ],
)
def test_a_request_that_is_none_is_refused(archive: WebArchive, body: Any, content_type: str, status: int) -> None:
    """Checklist 27: 400 for what does not parse, 415 for other types."""
    transaction = new_uid()
    assert post(archive, transaction, body, content_type).status == status
    assert archive.get(f"/commitment-requests/{transaction}", DICOM_JSON).status == 404


def test_a_result_is_there_after_a_restart_and_what_took_too_long_is_done_by_the_worker(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Checklist 131: 202 to poll; requests and results survive restarts."""
    from pacslite.core import commitment_requests
    from pacslite.core.commitment import Reference

    data, ds, at_once, later = tmp_path_factory.mktemp("restart"), image(), new_uid(), new_uid()
    with web_archive(data) as archive:
        archive.store(part10(ds))
        [result] = json.loads(post(archive, at_once, asked(*of(ds))).body)
    # A request of which a process has kept no more than that it was made.
    pacs = app.build(load(environment={"PACSLITE_DATA": str(data)}))
    payload = {"transaction_uid": later, "references": [list(Reference(*of(ds)[0]))]}
    name, job_uid = f"{commitment_requests.KIND} {later}", commitment_requests._job_uid(later)
    from pacslite.catalog import jobs

    pacs.catalog.write(lambda conn: jobs.add(conn, commitment_requests.KIND, payload, dedupe_key=name, uid=job_uid))
    pacs.close()
    with web_archive(data) as archive:
        assert polled(archive, at_once) == [result]
        awaited = archive.get(f"/commitment-requests/{later}", DICOM_JSON)
        assert (awaited.status, awaited.body, "retry-after" in awaited.headers) == (202, b"", True)
        with worker(archive):
            [found] = polled(archive, later)
        assert uids_of(found, "00081199") == of(ds)


def test_an_instance_deleted_since_is_no_longer_committed(archive: WebArchive) -> None:
    ds = image()
    archive.store(part10(ds))
    assert uids_of(json.loads(post(archive, new_uid(), asked(*of(ds))).body)[0], "00081199") == of(ds)
    assert archive.server.request("DELETE", path_of(ds)).status == 204
    [result] = json.loads(post(archive, new_uid(), asked(*of(ds))).body)
    assert uids_of(result, "00081198") == of(ds)
    assert "00081199" not in result
