"""Share links: one study or one file for whoever has the URL, for a time and so many uses, and never more than their maker may see."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pacslite import app
from pacslite.catalog import restrictions
from pacslite.catalog import shares as rows
from pacslite.catalog.restrictions import Named, Restriction
from pacslite.core import api_tokens, users
from pacslite.core.access import Right, Role
from pacslite.dicom.attributes import Level
from pacslite.web.authentication import SHARE_COOKIE
from pacslite.web.messages import Route
from tests.support.accounts import Guarded, guarded
from tests.support.data_sets import CONTENT_TYPE, body, image, part10
from tests.support.files import any_photo, form, of_json
from tests.support.http import Answer

SHARED, OTHER = "1.2.826.0.2.1", "1.2.826.0.2.2"
"""Two studies of one patient."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded(tmp_path_factory.mktemp("shares")) as found:
        made = [image(study=study, series=f"{study}.1", instance=f"{study}.1.1") for study in (SHARED, OTHER)]
        headers = {"Authorization": f"Bearer {found.bearer('admin')}", "Content-Type": CONTENT_TYPE}
        stored = found.server.request("POST", "/dicom-web/studies", body([part10(ds) for ds in made]), headers)
        assert stored.status == 200
        yield found


def share(site: Guarded, bearer: str, **form: Any) -> dict[str, Any]:
    answer = site.ask("POST", "/api/v1/shares", bearer, {"study_instance_uid": SHARED, "expires_in": 3600, **form})
    assert answer.status == 201, answer.body
    found: dict[str, Any] = json.loads(answer.body)
    return found


def follow(site: Guarded, made: dict[str, Any]) -> Answer:
    path = re.sub(r"^http://[^/]+", "", made["url"])
    return site.ask("GET", path)


def cookie_of(answer: Answer) -> str:
    assert answer.status == 302, answer.body
    return answer.headers["set-cookie"].partition(";")[0]


def opened(site: Guarded, made: dict[str, Any]) -> str:
    return cookie_of(follow(site, made))


def look(site: Guarded, cookie: str, path: str = f"/dicom-web/studies/{SHARED}/metadata", method: str = "GET", **headers: str) -> Answer:
    return site.ask(method, path, None, Cookie=cookie, **headers)


def test_a_link_leads_to_the_viewer_at_its_study(site: Guarded) -> None:
    answer = follow(site, share(site, site.bearer("viewer")))
    assert answer.status == 302
    assert answer.headers["location"] == f"/viewer/viewer?StudyInstanceUIDs={SHARED}"
    assert answer.headers["cache-control"] == "no-store"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{SHARE_COOKIE}=")
    for attribute in ("HttpOnly", "SameSite=Lax", "Path=/"):
        assert attribute in cookie
    assert 3500 < int(re.search(r"Max-Age=(\d+)", cookie)[1]) <= 3600  # type: ignore[index]


def test_a_link_shows_its_study_and_nothing_else(site: Guarded) -> None:
    cookie = opened(site, share(site, site.bearer("viewer")))
    assert look(site, cookie).status == 200
    assert look(site, cookie, f"/api/v1/studies/{SHARED}/archive").status == 200
    assert look(site, cookie, f"/dicom-web/studies/{SHARED}/series/{SHARED}.1/instances/{SHARED}.1.1/frames/1").status == 200
    assert look(site, cookie, f"/dicom-web/studies/{OTHER}/metadata").status == 404
    found = json.loads(look(site, cookie, "/dicom-web/studies?PatientID=T-1&includefield=all").body)
    assert [one["0020000D"]["Value"] for one in found] == [[SHARED]], "earlier studies of the patient are not shown"
    assert OTHER.encode() not in look(site, cookie, "/api/v1/changes").body


_READ = {Right.PUBLIC, Right.DICOMWEB_READ}


@pytest.mark.parametrize(
    "route", [r for r in app.routes() if r.right not in _READ and r.method != "OPTIONS"], ids=lambda r: f"{r.method} {r.rule}"
)
def test_a_link_gives_no_other_right(site: Guarded, route: Route) -> None:
    """Not even to look after the account of its maker."""
    cookie = opened(site, share(site, site.bearer("admin")))
    path = re.sub(r"<(?:\w+:)?(\w+)>", lambda found: {"study": SHARED, "series": f"{SHARED}.1"}.get(found[1], "1"), route.rule)
    assert look(site, cookie, path, route.method).status in (401, 403)


# Files


@pytest.fixture(scope="module")
def files(site: Guarded) -> dict[str, str]:
    """Files of the patient of both studies: two photos, and the instance of one study."""
    bearer = {"Authorization": f"Bearer {site.bearer('admin')}"}
    (patient,) = json.loads(site.ask("GET", "/api/v1/patients?q=T-1", site.bearer("admin")).body)["items"]
    dicom = part10(image(study=OTHER, series=f"{OTHER}.1", instance=f"{OTHER}.1.1"))
    found = {}
    for name, data in (("a.jpg", any_photo()), ("b.jpg", any_photo()), ("c.dcm", dicom)):
        content, headers = form({"patient_id": patient["id"], "file_type": "dicom" if name == "c.dcm" else "photo"}, [(name, data)])
        found[name] = of_json(site.server.request("POST", "/api/v1/files/upload", content, {**headers, **bearer}), 201)["id"]
    return found | {"patient": str(patient["id"])}


def share_file(site: Guarded, bearer: str, file_id: str, **form: Any) -> dict[str, Any]:
    made: dict[str, Any] = of_json(site.ask("POST", "/api/v1/shares", bearer, {"file_id": file_id, "expires_in": 3600, **form}), 201)
    return made


@pytest.mark.parametrize("name", ["a.jpg", "c.dcm"])
def test_a_link_to_a_file_leads_to_its_content_and_shows_nothing_else(site: Guarded, files: dict[str, str], name: str) -> None:
    made = share_file(site, site.bearer("viewer"), files[name])
    assert (made["file_id"], made["study_instance_uid"]) == (files[name], None)
    answer = follow(site, made)
    content = f"/api/v1/files/{files[name]}/content"
    assert answer.headers["location"] == content
    cookie = cookie_of(answer)
    assert look(site, cookie, content).status == 200
    assert look(site, cookie, content, "HEAD").status == 200
    assert look(site, cookie, content, Range="bytes=0-9").status == 206
    assert look(site, cookie, f"{content}?variant=thumbnail").status in (200, 503)  # made, or being made
    assert look(site, cookie, f"/api/v1/files/{files[name]}").status == 200
    for other in ({*files} & {"a.jpg", "b.jpg", "c.dcm"}) - {name}:
        assert look(site, cookie, f"/api/v1/files/{files[other]}/content").status == 404
    patient = files["patient"]
    for path in (f"patients/{patient}", f"patients/{patient}/timeline", f"patients/{patient}/archive", f"files/patient/{patient}/files"):
        assert look(site, cookie, f"/api/v1/{path}").status == 404, path
    assert json.loads(look(site, cookie, "/api/v1/patients").body)["total"] == 0, "whose it is, a link does not tell"
    for path in (f"/dicom-web/studies/{OTHER}/metadata", "/dicom-web/studies", "/api/v1/changes", "/api/v1/shares"):
        assert look(site, cookie, path).status == 403, path
    for method, path in (("POST", "url"), ("PATCH", ""), ("DELETE", ""), ("POST", "undelete")):
        assert look(site, cookie, f"/api/v1/files/{files[name]}/{path}".rstrip("/"), method).status in (401, 403)


@pytest.mark.parametrize(
    "route",
    [r for r in app.routes() if r.right not in {Right.PUBLIC, Right.FILES_READ} and r.method != "OPTIONS"],
    ids=lambda r: f"{r.method} {r.rule}",
)
def test_a_link_to_a_file_gives_no_other_right(site: Guarded, files: dict[str, str], route: Route) -> None:
    cookie = opened(site, share_file(site, site.bearer("admin"), files["a.jpg"]))
    values = {"study": OTHER, "series": f"{OTHER}.1", "file_id": files["a.jpg"], "patient_id": files["patient"]}
    path = re.sub(r"<(?:\w+:)?(\w+)>", lambda found: values.get(found[1], "1"), route.rule)
    assert look(site, cookie, path, route.method).status in (401, 403)


def test_a_link_to_a_study_shows_no_files(site: Guarded, files: dict[str, str]) -> None:
    cookie = opened(site, share(site, site.bearer("admin")))
    for path in (f"files/{files['a.jpg']}", f"files/{files['a.jpg']}/content", f"patients/{files['patient']}/archive"):
        assert look(site, cookie, f"/api/v1/{path}").status == 403


def test_a_link_to_a_file_ends_when_revoked_or_used_up_or_with_the_file(site: Guarded, files: dict[str, str]) -> None:
    viewer, content = site.bearer("viewer"), f"/api/v1/files/{files['b.jpg']}/content"
    made = share_file(site, viewer, files["b.jpg"], max_uses=1)
    cookie = opened(site, made)
    assert follow(site, made).status == 410
    assert look(site, cookie, content).status == 200
    assert site.ask("DELETE", f"/api/v1/shares/{made['id']}", viewer).status == 204
    assert look(site, cookie, content).status == 401
    limited = share_file(site, viewer, files["b.jpg"])
    cookie = opened(site, limited)
    path = f"/api/v1/files/{files['b.jpg']}"
    assert site.ask("PUT", f"{path}/access", site.bearer("admin"), {"groups": []}).status == 200
    assert look(site, cookie, content).status == 401, "its maker does not see the file any more"
    assert follow(site, limited).status == 410
    assert site.ask("POST", "/api/v1/shares", viewer, {"file_id": files["b.jpg"], "expires_in": 60}).status == 404
    assert site.ask("PUT", f"{path}/access", site.bearer("admin"), {}).status == 200
    assert look(site, cookie, content).status == 200
    assert site.ask("DELETE", path, site.bearer("admin")).status == 204
    assert look(site, cookie, content).status == 401
    assert site.ask("POST", "/api/v1/shares", viewer, {"file_id": files["b.jpg"], "expires_in": 60}).status == 410
    assert site.ask("POST", f"{path}/undelete", site.bearer("admin")).status == 200


def test_a_link_is_to_a_study_or_to_a_file(site: Guarded, files: dict[str, str]) -> None:
    for given in ({}, {"file_id": files["a.jpg"], "study_instance_uid": SHARED}):
        assert site.ask("POST", "/api/v1/shares", site.bearer("viewer"), {"expires_in": 60, **given}).status == 400
    assert site.ask("POST", "/api/v1/shares", site.bearer("viewer"), {"expires_in": 60, "file_id": "x"}).status == 404
    dicom_alone = site.api_token("admin", frozenset({Right.DICOMWEB_READ})).secret
    assert site.ask("POST", "/api/v1/shares", dicom_alone, {"expires_in": 60, "file_id": files["a.jpg"]}).status == 403


def test_links_to_files_are_on_record(site: Guarded, files: dict[str, str]) -> None:
    made = share_file(site, site.bearer("viewer"), files["a.jpg"])
    cookie = opened(site, made)
    look(site, cookie, f"/api/v1/files/{files['a.jpg']}/content")
    site.ask("DELETE", f"/api/v1/shares/{made['id']}", site.bearer("viewer"))
    log = json.loads(site.ask("GET", "/api/v1/audit?limit=1000", site.bearer("admin")).body)["items"]
    mine = [entry for entry in log if entry["object_id"] == made["id"]]
    assert {entry["action"] for entry in mine} == {"share.create", "share.use", "share.revoke"}
    assert {entry["patient_id"] for entry in mine} == {int(files["patient"])}
    reads = [entry for entry in log if entry["action"] == "file.read" and entry["actor"] == f"share:{made['id']}"]
    assert {entry["object_id"] for entry in reads} == {files["a.jpg"]}


def test_a_link_shares_nothing_on(site: Guarded) -> None:
    cookie = opened(site, share(site, site.bearer("admin")))
    assert look(site, cookie, "/api/v1/shares").status == 403
    form = {"study_instance_uid": SHARED, "expires_in": 60}
    assert site.ask("POST", "/api/v1/shares", None, form, Cookie=cookie).status in (401, 403)


def test_uses_are_counted_and_bounded_also_at_once(site: Guarded) -> None:
    made = share(site, site.bearer("viewer"), max_uses=3)
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: follow(site, made).status, range(8)))
    assert sorted(statuses) == [302] * 3 + [410] * 5
    listed = json.loads(site.ask("GET", "/api/v1/shares", site.bearer("viewer")).body)
    assert next(one for one in listed["items"] if one["id"] == made["id"])["uses"] == 3
    assert all(one["url"] is None for one in listed["items"])


def test_a_link_that_is_revoked_or_over_ends_what_it_opened(site: Guarded) -> None:
    viewer = site.bearer("viewer")
    made = share(site, viewer)
    cookie = opened(site, made)
    assert site.ask("DELETE", f"/api/v1/shares/{made['id']}", site.bearer("clinician")).status == 404, "somebody else's"
    assert site.ask("DELETE", f"/api/v1/shares/{made['id']}", viewer).status == 204
    assert look(site, cookie).status == 401
    assert follow(site, made).status == 410
    over = share(site, viewer)
    cookie = opened(site, over)

    def end(conn: Any) -> None:
        conn.execute(rows.table.update().where(rows.table.c.id == over["id"]).values(expires_at="2020-01-01T00:00:00.000000Z"))

    site.accounts.catalog.write(end)
    assert look(site, cookie).status == 401
    assert follow(site, over).status == 410


@pytest.mark.parametrize("change", [users.Change(disabled=True), users.Change(role=Role.SERVICE), None])
def test_a_link_ends_with_the_access_of_its_maker(site: Guarded, change: users.Change | None) -> None:
    name = f"maker{0 if change is None else 1 + bool(change.disabled)}"
    site.user(name, Role.VIEWER)
    made = share(site, site.bearer(name))
    cookie = opened(site, made)
    assert look(site, cookie).status == 200
    named = Named(Level.STUDY, SHARED)
    if change is not None:
        users.change(site.accounts, site.ids[name], change)
    else:
        site.accounts.catalog.write(lambda conn: restrictions.restrict(conn, named, Restriction(())), restrictions.KEYS)
    try:
        assert look(site, cookie).status == 401
        assert follow(site, made).status == 410
    finally:
        site.accounts.catalog.write(lambda conn: restrictions.restrict(conn, named, Restriction()), restrictions.KEYS)


def test_a_link_made_with_a_token_ends_with_it(site: Guarded) -> None:
    token = site.api_token("viewer", frozenset({Right.DICOMWEB_READ}))
    cookie = opened(site, share(site, token.secret))
    assert look(site, cookie).status == 200
    api_tokens.remove(site.accounts, site.accounts.recognize(site.bearer("viewer")), token.token.id)
    assert look(site, cookie).status == 401


def test_nobody_shares_what_they_do_not_see(site: Guarded) -> None:
    named = Named(Level.STUDY, OTHER)
    site.accounts.catalog.write(lambda conn: restrictions.restrict(conn, named, Restriction(())), restrictions.KEYS)
    viewer = site.bearer("viewer")
    answers = [
        site.ask("POST", "/api/v1/shares", viewer, {"study_instance_uid": uid, "expires_in": 60}) for uid in (OTHER, "1.2.826.0.2.9")
    ]
    assert [answer.status for answer in answers] == [404, 404]
    details = [json.loads(answer.body)["detail"] for answer in answers]
    assert details[0] == details[1]
    assert site.ask("POST", "/api/v1/shares", None, {"study_instance_uid": SHARED, "expires_in": 60}).status == 401
    site.accounts.catalog.write(lambda conn: restrictions.restrict(conn, named, Restriction()), restrictions.KEYS)


def test_tokens_and_cookies_cannot_be_made_up(site: Guarded) -> None:
    made = share(site, site.bearer("viewer"))
    token = made["url"].rpartition("/")[2]
    cookie = opened(site, made)
    value = cookie.partition("=")[2]
    for wrong in (token[:-1] + ("A" if token[-2] != "A" else "B") + token[-1], token[::-1], "A" * 43, value, "..", "x" * 5000, made["id"]):
        assert site.ask("GET", f"/share/{wrong}").status in (404, 414, 431), wrong
    for wrong in (token, value[:-4] + "AAAA", "A" * 43):
        assert look(site, f"{SHARE_COOKIE}={wrong}").status == 401


def test_the_token_of_a_link_is_not_on_record(site: Guarded) -> None:
    made = share(site, site.bearer("viewer"), max_uses=1)
    assert [follow(site, made).status for _ in range(2)] == [302, 410]
    token = made["url"].rpartition("/")[2].encode()
    log = site.ask("GET", "/api/v1/audit?limit=1000", site.bearer("admin")).body
    assert token not in log
    assert token not in site.server.log.read_bytes()


@pytest.mark.parametrize(
    "form", [{}, {"expires_in": 0}, {"expires_in": 10**9}, {"max_uses": 0}, {"study_instance_uid": "x"}, {"file_id": "1"}, {"more": 1}]
)
def test_forms_are_checked(site: Guarded, form: dict[str, Any]) -> None:
    given = {"study_instance_uid": SHARED, "expires_in": 60, **form} if form else {}
    assert site.ask("POST", "/api/v1/shares", site.bearer("viewer"), given).status == 400
