"""What is limited to a group is not there for others: every route of the route table, and every DIMSE service.

The tables are those the server runs on. A route that names a study joins by itself, one that names a file or a patient does in
`test_visibility_files.py`; any other has to be told of here, as a list of
what there is (and is then looked through), or as one that shows nothing of patients.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.pdu_primitives import UserIdentityNegotiation
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    PatientRootQueryRetrieveInformationModelFind,
    SecondaryCaptureImageStorage,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from pacslite import app
from pacslite.catalog import restrictions
from pacslite.catalog.restrictions import Named, Restriction
from pacslite.core import commitment
from pacslite.core.access import Right, Role
from pacslite.core.dicom_logins import DicomLogins
from pacslite.core.users import Change, change
from pacslite.dicom.attributes import Level
from pacslite.dimse import commands
from pacslite.dimse.server import _SERVICES
from pacslite.settings import Address, Settings
from pacslite.web.messages import Route
from tests.support.accounts import Guarded, guarded
from tests.support.data_sets import CONTENT_TYPE, body, image, part10
from tests.support.dimse import Listener, listening
from tests.support.http import Answer
from tests.support.processes import until
from tests.support.retrieval import keep, known, retrieving

SEEN, HIDDEN, UNKNOWN = "1.2.826.0.1.1", "1.2.826.0.1.2", "1.2.826.0.1.3"
HIDDEN_PART = f"{SEEN}.2"
"""A series of the study that is seen, itself limited."""
SECRETS = [HIDDEN, HIDDEN_PART, "SECRET-ID", "Secret^Patient"]
ROUTES = app.routes()
# Answers that hold what is found, by a query that would find it all.
LISTS = re.compile(
    r"GET (/dicom-web/(studies|series|instances)"
    r"|/dicom-web/studies/<study>/(series|instances)|/dicom-web/studies/<study>/series/<series>/instances"
    r"|/api/v1/(jobs|changes|shares|patients))"
)
# What shows nothing of patients, or is for administrators, who see everything.
WITHOUT_PATIENTS = re.compile(
    r"(GET|OPTIONS) /dicom-web/?|GET /dicom-web/wado|POST /dicom-web/studies|(GET|POST) /dicom-web/commitment-requests/<transaction>"
    r"|\w+ (/api/v1)?/(health/\w+|metrics)|\w+ /api/v1/(auth|users|tokens|groups|labels|audit|storage|openapi.json|docs)(/.*)?"
    r"|\w+ /api/v1/jobs/.*|(POST|DELETE) /api/v1/shares.*|GET /share/<token>"
    r"|\w+ /(viewer|login|logout|account|conformance|docs/conformance)?(/.*)?"
    r"|GET /pacslite.css"
    # What they bring is nobody's yet, or belongs to who brings it; whom it is for is looked at in test_visibility_files.py.
    r"|POST /api/v1/(patients|files/upload)|\w+ /api/v1/files/uploads(/<upload_id>)?"
)
_ARGUMENTS = {"frame_list": "1", "bulk_path": "7FE00010"}


def _images(study: str, patient: str, name: str) -> list[Dataset]:
    made = [image(study=study, series=f"{study}.{n}", instance=f"{study}.{n}.1", number=n) for n in (1, 2)]
    for ds in made:
        ds.PatientID, ds.PatientName, ds.SeriesNumber = patient, name, int(ds.SeriesInstanceUID[-1])
    return made


def _limit(catalog: Any) -> None:
    def work(conn: Any) -> None:
        restrictions.add_group(conn, "heart")
        restrictions.restrict(conn, Named(Level.STUDY, HIDDEN), Restriction(("heart",)))
        restrictions.restrict(conn, Named(Level.SERIES, SEEN, HIDDEN_PART), Restriction(("heart",)))

    catalog.write(work, restrictions.KEYS)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Two patients with a study each; one study, and one series of the other, are for the group of `insider`."""
    with guarded(tmp_path_factory.mktemp("visibility")) as found:
        admin = found.bearer("admin")
        for study, patient, name in ((SEEN, "OPEN-ID", "Open^Patient"), (HIDDEN, "SECRET-ID", "Secret^Patient")):
            assert _store(found, admin, _images(study, patient, name)).status == 200
        _limit(found.accounts.catalog)
        for user in ("insider", "outsider"):
            found.user(user, Role.CLINICIAN)
        change(found.accounts, found.ids["insider"], Change(groups=("heart",)))
        yield found


def _store(site: Guarded, bearer: str, images: list[Dataset], study: str = "") -> Answer:
    headers = {"Authorization": f"Bearer {bearer}", "Content-Type": CONTENT_TYPE, "Accept": "application/dicom+json"}
    return site.server.request("POST", f"/dicom-web/studies{study}", body([part10(ds) for ds in images]), headers)


def name_of(route: Route) -> str:
    return f"{route.method} {route.rule}"


def path_of(route: Route, study: str, part: int = 1) -> str:
    arguments = {**_ARGUMENTS, "study": study, "series": f"{study}.{part}", "instance": f"{study}.{part}.1"}
    return re.sub(r"<(?:\w+:)?(\w+)>", lambda found: arguments.get(found[1], "0"), route.rule)


def told(answer: Answer) -> tuple[Any, ...]:
    """What an answer tells: everything but times, ids of the request, and the very name that was asked for."""
    headers = {k: v for k, v in answer.headers.items() if k not in ("date", "x-request-id", "content-location")}
    content = re.sub(rb'"request_id":\s*"[^"]*"', b"", answer.body)
    return answer.status, headers, content.replace(HIDDEN.encode(), b"*").replace(UNKNOWN.encode(), b"*")


ACCEPTS = ("*/*", "application/zip", "application/dicom+json", 'multipart/related; type="application/octet-stream"')
of_studies = [one for one in ROUTES if "<study>" in one.rule]


@pytest.mark.parametrize("route", ROUTES, ids=name_of)
def test_every_route_is_looked_at(route: Route) -> None:
    joins = any(f"<{name}>" in route.rule for name in ("study", "file_id", "patient_id"))
    looked_at = joins or LISTS.fullmatch(name_of(route)) or WITHOUT_PATIENTS.fullmatch(name_of(route))
    assert looked_at or route.right is Right.ADMIN, "say in this file what this route shows of patients, and that it hides what is limited"


@pytest.mark.parametrize("route", [r for r in of_studies if r.method in ("GET", "DELETE") and r.right is not Right.ADMIN], ids=name_of)
def test_what_is_hidden_is_answered_as_what_never_was(site: Guarded, route: Route) -> None:
    outsider, insider = site.bearer("outsider"), site.bearer("insider")
    for accept in ACCEPTS if route.method == "GET" else ("*/*",):
        hidden = site.ask(route.method, path_of(route, HIDDEN), outsider, Accept=accept)
        unknown = site.ask(route.method, path_of(route, UNKNOWN), outsider, Accept=accept)
        assert told(hidden) == told(unknown)
        assert hidden.status in (204, 404, 406), hidden.body
        if route.method == "GET":
            head = site.ask("HEAD", path_of(route, HIDDEN), outsider, Accept=accept)
            assert head.status == hidden.status
            # Neither a condition nor a range asks behind the back.
            etag = site.ask("GET", path_of(route, HIDDEN), insider, Accept=accept).headers.get("etag", '"x"')
            assert told(site.ask("GET", path_of(route, HIDDEN), outsider, Accept=accept, If_None_Match=etag)) == told(hidden)
    if route.method == "GET":
        assert any(site.ask("GET", path_of(route, HIDDEN), insider, Accept=accept).status == 200 for accept in ACCEPTS)
    if "<series>" in route.rule:
        part = site.ask(route.method, path_of(route, SEEN, 2), outsider)
        assert part.status in (204, 404), "a series is hidden though its study is not"
    # After all that it is still there, whole.
    found = site.ask("GET", f"/dicom-web/studies/{HIDDEN}/metadata", insider)
    assert found.status == 200
    assert len(json.loads(found.body)) == 2


@pytest.mark.parametrize("route", [r for r in of_studies if r.method == "GET" and r.right is not Right.ADMIN], ids=name_of)
def test_a_study_shows_no_series_that_is_hidden(site: Guarded, route: Route) -> None:
    """Whoever asked before: what is kept for some is not given to others."""
    for accept in ACCEPTS:
        for user, sees in (("insider", True), ("outsider", False), ("insider", True), ("outsider", False)):
            answer = site.ask("GET", path_of(route, SEEN), site.bearer(user), Accept=accept)
            if not sees:
                assert HIDDEN_PART.encode() not in answer.body
                assert answer.status in (200, 204, 404, 406), answer.body
    if route.rule.endswith("<study>/metadata"):
        assert HIDDEN_PART.encode() in site.ask("GET", path_of(route, SEEN), site.bearer("insider")).body


@pytest.mark.parametrize("route", [r for r in ROUTES if LISTS.fullmatch(name_of(r))], ids=name_of)
def test_lists_show_and_count_nothing_hidden(site: Guarded, route: Route) -> None:
    outsider = site.bearer("outsider")
    for query in ("", "?limit=1", "?includefield=all", "?PatientID=SECRET-ID&includefield=all", "?PatientName=Secret*", "?Modality=OT"):
        if query and route.rule.startswith("/api/v1"):
            continue
        answer = site.ask("GET", path_of(route, SEEN) + query, outsider, Accept="application/json, application/dicom+json")
        assert answer.status in (200, 204), answer.body
        for secret in SECRETS:
            asked = re.sub(r"\?.*", "", query) if "SECRET" in query or "Secret" in query else query
            assert secret.encode() not in answer.body, (query, asked)
        warning = answer.headers.get("warning", "")
        assert "additional" not in warning, "the number of results tells of hidden ones"


def test_counts_of_a_study_are_of_what_is_seen(site: Guarded) -> None:
    keys = "StudyInstanceUID=" + SEEN
    (mine,) = json.loads(site.ask("GET", f"/dicom-web/studies?{keys}", site.bearer("outsider")).body)
    (whole,) = json.loads(site.ask("GET", f"/dicom-web/studies?{keys}", site.bearer("insider")).body)
    assert (mine["00201206"]["Value"], whole["00201206"]["Value"]) == ([1], [2])
    assert (mine["00201208"]["Value"], whole["00201208"]["Value"]) == ([1], [2])


def test_the_uri_service_hides_as_well(site: Guarded) -> None:
    def wado(study: str, user: str) -> Answer:
        keys = f"requestType=WADO&studyUID={study}&seriesUID={study}.1&objectUID={study}.1.1"
        return site.ask("GET", f"/dicom-web/wado?{keys}", site.bearer(user))

    assert wado(HIDDEN, "insider").status == 200
    assert told(wado(HIDDEN, "outsider")) == told(wado(UNKNOWN, "outsider"))


@pytest.mark.parametrize("route", [r for r in of_studies if r.rule.endswith("/undelete")], ids=name_of)
def test_nothing_hidden_is_brought_back(site: Guarded, route: Route) -> None:
    """Nor is it told that there is something to bring back."""
    outsider = site.bearer("outsider")
    hidden, unknown = (site.ask("POST", path_of(route, study), outsider) for study in (HIDDEN, UNKNOWN))
    assert told(hidden) == told(unknown)
    assert hidden.status == 404


def test_storing_into_a_hidden_study_is_answered_as_into_a_new_one(site: Guarded) -> None:
    outsider = site.bearer("outsider")
    answers = []
    for study in ("1.2.826.0.1.4", "1.2.826.0.1.5"):
        if study.endswith("4"):
            assert _store(site, site.bearer("admin"), _images(study, "SECRET-4", "Secret^Patient")[:1]).status == 200
            named = Named(Level.STUDY, study)
            site.accounts.catalog.write(lambda conn, n=named: restrictions.restrict(conn, n, Restriction(("heart",))), restrictions.KEYS)  # type: ignore[misc]
        ds = _images(study, "SECRET-4", "Secret^Patient")[1]
        answer = _store(site, outsider, [ds], f"/{study}")
        answers.append((answer.status, answer.body.replace(study.encode(), b"*")))
        assert site.ask("GET", f"/dicom-web/studies/{study}/metadata", outsider).status == (404 if study.endswith("4") else 200)
    assert answers[0] == answers[1]


def test_commitment_knows_nothing_hidden(site: Guarded) -> None:
    def failed(user: str, transaction: str, instance: str) -> bool:
        named = {"00081150": {"vr": "UI", "Value": [str(SecondaryCaptureImageStorage)]}, "00081155": {"vr": "UI", "Value": [instance]}}
        references = {"00081199": {"vr": "SQ", "Value": [named]}}
        headers = {"Authorization": f"Bearer {site.bearer(user)}", "Content-Type": "application/dicom+json"}
        path = f"/dicom-web/commitment-requests/{transaction}"
        site.server.request("POST", path, json.dumps(references).encode(), headers)
        until(lambda: site.server.request("GET", path, None, headers).status == 200)
        (found,) = json.loads(site.server.request("GET", path, None, headers).body)
        return "00081198" in found

    assert failed("outsider", "1.2.9.1", f"{HIDDEN}.1.1")
    assert not failed("insider", "1.2.9.2", f"{HIDDEN}.1.1")
    assert not failed("outsider", "1.2.9.3", f"{SEEN}.1.1")
    answer = site.ask("GET", "/dicom-web/commitment-requests/1.2.9.2", site.bearer("outsider"))
    assert answer.status == 404, "somebody else's request"


def test_a_change_of_groups_and_labels_counts_at_once(site: Guarded) -> None:
    admin, outsider = site.bearer("admin"), site.bearer("outsider")
    path = f"/dicom-web/studies/{SEEN}/metadata"
    assert site.ask("PUT", "/api/v1/labels/vip", admin, {"groups": ["heart"]}).status == 200
    (study,) = json.loads(site.ask("GET", f"/dicom-web/studies?StudyInstanceUID={SEEN}", admin).body)
    assert study
    access = json.loads(site.ask("GET", f"/api/v1/studies/{SEEN}/access", admin).body)
    patient = f"/api/v1/patients/{access['patient_id']}/access"
    assert site.ask("GET", path, outsider).status == 200
    assert site.ask("PUT", patient, admin, {"labels": ["vip"]}).status == 200
    assert site.ask("GET", path, outsider).status == 404
    assert site.ask("PUT", "/api/v1/groups/heart/members", admin, {"accounts": ["insider", "outsider"]}).status == 200
    assert site.ask("GET", path, outsider).status == 200
    assert site.ask("PUT", "/api/v1/groups/heart/members", admin, {"accounts": ["insider"]}).status == 200
    assert site.ask("GET", path, outsider).status == 404
    assert site.ask("DELETE", "/api/v1/labels/vip", admin).status == 204
    assert site.ask("GET", path, outsider).status == 200
    assert site.ask("PUT", patient, admin, {}).status == 200
    assert site.ask("DELETE", "/api/v1/groups/heart", admin).status == 409
    assert site.ask("PUT", f"/api/v1/studies/{SEEN}/access", admin, {"groups": ["nobody"]}).status == 400
    assert site.ask("PUT", f"/api/v1/studies/{UNKNOWN}/access", admin, {"groups": []}).status == 404


# DIMSE


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    """The same two studies over DICOM; the peer HEART is in the group, everybody else is not."""
    with retrieving(tmp_path_factory.mktemp("dimse")) as running:
        for study, patient, name in ((SEEN, "OPEN-ID", "Open^Patient"), (HIDDEN, "SECRET-ID", "Secret^Patient")):
            for ds in _images(study, patient, name):
                keep(running.pacs, ds)
        _limit(running.pacs.catalog)
        for title in ("HEART", "BRAIN"):
            known(running.pacs, title, 104)
        running.pacs.catalog.write(lambda conn: restrictions.set_members(conn, "heart", (), ("HEART",)), restrictions.KEYS)
        yield running


def _identifier(level: str, **keys: str) -> Dataset:
    ds = Dataset()
    ds.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(ds, keyword, value)
    return ds


def _associated(listener: Listener, title: str, *models: Any, **options: Any) -> Any:
    ae = AE(ae_title=title)
    for model in models:
        ae.add_requested_context(model)
    return ae.associate("127.0.0.1", listener.address.port, ae_title=listener.pacs.settings.aet, **options)


def _find(listener: Listener, title: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {"PATIENT": set(), "STUDY": set(), "SERIES": set(), "IMAGE": set()}
    patient_root, study_root = PatientRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelFind
    association = _associated(listener, title, patient_root, study_root)
    asked = {"PATIENT": _identifier("PATIENT", PatientID=""), "STUDY": _identifier("STUDY", StudyInstanceUID="", PatientName="")}
    for study in (SEEN, HIDDEN):
        asked[f"SERIES {study}"] = _identifier("SERIES", StudyInstanceUID=study, SeriesInstanceUID="")
        asked[f"IMAGE {study}"] = _identifier("IMAGE", StudyInstanceUID=study, SeriesInstanceUID=f"{study}.2", SOPInstanceUID="")
    for name, identifier in asked.items():
        level = name.split()[0]
        for _, answer in association.send_c_find(identifier, patient_root if level == "PATIENT" else study_root):
            if answer is not None:
                keyword = {"PATIENT": "PatientID", "STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}[
                    level
                ]
                found[level].add(str(answer[keyword].value))
    association.release()
    return found


def _get(listener: Listener, title: str, study: str) -> set[str]:
    received: set[str] = set()

    def stored(event: Any) -> int:
        received.add(event.dataset.SOPInstanceUID)
        return 0

    association = _associated(
        listener,
        title,
        StudyRootQueryRetrieveInformationModelGet,
        SecondaryCaptureImageStorage,
        ext_neg=[build_role(SecondaryCaptureImageStorage, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, stored)],
    )
    list(association.send_c_get(_identifier("STUDY", StudyInstanceUID=study), StudyRootQueryRetrieveInformationModelGet))
    association.release()
    return received


def _move(listener: Listener, title: str, study: str) -> set[str]:
    received: set[str] = set()

    def stored(event: Any) -> int:
        received.add(event.dataset.SOPInstanceUID)
        return 0

    ae = AE(ae_title="TARGET")
    ae.add_supported_context(SecondaryCaptureImageStorage)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, stored)])
    try:
        known(listener.pacs, "TARGET", server.socket.getsockname()[1])
        association = _associated(listener, title, StudyRootQueryRetrieveInformationModelMove)
        identifier = _identifier("STUDY", StudyInstanceUID=study)
        list(association.send_c_move(identifier, "TARGET", StudyRootQueryRetrieveInformationModelMove))
        association.release()
    finally:
        server.shutdown()
    return received


def _committed(listener: Listener, title: str, instance: str) -> bool:
    """Whether a request of a peer is answered so; checked as the worker does."""
    asked = Dataset()
    asked.TransactionUID = f"1.2.8.{len(title)}.{abs(hash((title, instance))) % 10**9}"
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = SecondaryCaptureImageStorage, instance
    asked.ReferencedSOPSequence = [item]
    association = _associated(listener, title, StorageCommitmentPushModel)
    status, _ = association.send_n_action(asked, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
    assert status.Status == 0
    association.release()
    catalog, claimed = listener.pacs.catalog, []
    until(lambda: claimed.append(commitment.claim(catalog, "test")) or claimed[-1] is not None)
    verdict = commitment.check(catalog, listener.pacs.stores, claimed[-1])
    commitment.finish(catalog, claimed[-1], verdict)
    return bool(verdict.committed)


@pytest.mark.parametrize("title", ["BRAIN", "NOBODY"])
def test_c_find_finds_nothing_hidden(listener: Listener, title: str) -> None:
    found, whole = _find(listener, title), _find(listener, "HEART")
    assert found == {"PATIENT": {"OPEN-ID"}, "STUDY": {SEEN}, "SERIES": {f"{SEEN}.1"}, "IMAGE": set()}
    assert whole["STUDY"] == {SEEN, HIDDEN}
    assert whole["IMAGE"] == {f"{SEEN}.2.1", f"{HIDDEN}.2.1"}


@pytest.mark.parametrize("retrieve", [_get, _move])
def test_c_get_and_c_move_send_nothing_hidden(listener: Listener, retrieve: Any) -> None:
    for title in ("BRAIN", "NOBODY"):
        assert retrieve(listener, title, HIDDEN) == set()
        assert retrieve(listener, title, SEEN) == {f"{SEEN}.1.1"}
    assert retrieve(listener, "HEART", HIDDEN) == {f"{HIDDEN}.1.1", f"{HIDDEN}.2.1"}


def test_commitment_of_peers_knows_nothing_hidden(listener: Listener) -> None:
    assert not _committed(listener, "BRAIN", f"{HIDDEN}.1.1")
    assert _committed(listener, "BRAIN", f"{SEEN}.1.1")
    assert _committed(listener, "HEART", f"{HIDDEN}.1.1")


def test_a_user_of_an_association_sees_what_the_user_may_see(tmp_path: Path) -> None:
    """PS3.7 D.3.3.7: whoever the calling AE title belongs to."""
    pacs = app.build(Settings(data=tmp_path, dicom=Address("127.0.0.1", 0), dicom_user_identity="check"))
    pacs.catalog.migrate()
    try:
        for ds in _images(HIDDEN, "SECRET-ID", "Secret^Patient"):
            keep(pacs, ds)
        _limit(pacs.catalog)
        known(pacs, "HEART", 104)
        pacs.catalog.write(lambda conn: restrictions.set_members(conn, "heart", (), ("HEART",)), restrictions.KEYS)
        users = Guarded(None, pacs.accounts)  # type: ignore[arg-type]
        users.user("insider", Role.VIEWER)
        change(pacs.accounts, users.ids["insider"], Change(groups=("heart",)))
        with listening(pacs, DicomLogins(pacs.accounts)) as running:
            for user, title, sees in (
                ("insider", "NOBODY", True),
                ("viewer", "HEART", False),
                ("admin", "NOBODY", True),
                (None, "HEART", True),
            ):
                named = [] if user is None else [_named(users.bearer(user))]
                association = _associated(running, title, StudyRootQueryRetrieveInformationModelFind, ext_neg=named)
                asked = _identifier("STUDY", StudyInstanceUID="")
                answers = list(association.send_c_find(asked, StudyRootQueryRetrieveInformationModelFind))
                association.release()
                assert len(answers) == 1 + sees, (user, title)
    finally:
        pacs.close()


def _named(token: str) -> UserIdentityNegotiation:
    item = UserIdentityNegotiation()
    item.user_identity_type, item.primary_field = 5, token.encode()
    return item


def test_every_dimse_service_is_looked_at() -> None:
    """C-STORE and C-ECHO show nothing; a report of a peer about a request of ours neither. All others are looked at above."""
    shows_nothing = {commands.C_ECHO_RQ, commands.C_STORE_RQ, commands.N_EVENT_REPORT_RQ, commands.N_EVENT_REPORT_RSP}
    assert set(_SERVICES) == shows_nothing | {commands.C_FIND_RQ, commands.C_GET_RQ, commands.C_MOVE_RQ, commands.N_ACTION_RQ}


def test_a_store_into_a_hidden_study_is_accepted_and_stays_hidden(listener: Listener, tmp_path: Path) -> None:
    ds = _images(HIDDEN, "SECRET-ID", "Secret^Patient")[0]
    ds.SOPInstanceUID = f"{HIDDEN}.1.2"
    file = tmp_path / "sent.dcm"
    file.write_bytes(part10(ds))
    association = _associated(listener, "BRAIN", SecondaryCaptureImageStorage)
    assert association.send_c_store(str(file)).Status == 0
    association.release()
    assert _get(listener, "BRAIN", HIDDEN) == set()
    assert f"{HIDDEN}.1.2" in _get(listener, "HEART", HIDDEN)
