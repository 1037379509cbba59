"""The bytes of files over the wire: ranges, conditions, names, and URLs that need no login."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import pytest

from tests.support.file_samples import video
from tests.support.file_site import Site, file_site
from tests.support.files import any_photo
from tests.support.http import Answer


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with file_site(tmp_path_factory.mktemp("content")) as found:
        yield found


def test_content_comes_with_its_hash_as_etag(site: Site) -> None:
    data = any_photo()
    answer = site.content(site.upload(data)["id"])
    assert (answer.status, answer.body) == (200, data)
    assert answer.headers["etag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["content-length"] == str(len(data))
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


def test_what_the_caller_has_is_not_sent_again(site: Site) -> None:
    made = site.upload(any_photo())
    etag = f'"{made["file_hash"]}"'
    for known in (etag, f'"x", {etag}', f"W/{etag}", "*"):
        answer = site.content(made["id"], headers={"If-None-Match": known})
        assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", etag)
    assert site.content(made["id"], headers={"If-None-Match": '"other"'}).status == 200
    assert site.content(made["id"], headers={"If-Match": '"other"'}).status == 412


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-9", 206, slice(0, 10)),
        ("bytes=5-", 206, slice(5, None)),
        ("bytes=-7", 206, slice(-7, None)),
        ("bytes=0-99999999", 206, slice(0, None)),
        ("bytes=99999999-", 416, None),
        ("bytes=5-2", 200, slice(0, None)),
        ("items=0-1", 200, slice(0, None)),
    ],
)
def test_ranges(site: Site, asked: str, status: int, part: slice | None) -> None:
    data = any_photo()
    answer = site.content(site.upload(data)["id"], headers={"Range": asked})
    assert answer.status == status
    if part is None:
        assert answer.headers["content-range"] == f"bytes */{len(data)}"
    else:
        assert answer.body == data[part]


def test_a_range_of_what_has_changed_is_the_whole(site: Site) -> None:
    made = site.upload(any_photo())
    etag = f'"{made["file_hash"]}"'
    assert site.content(made["id"], headers={"Range": "bytes=0-3", "If-Range": etag}).status == 206
    newer = any_photo()
    site.version(made["id"], newer)
    answer = site.content(made["id"], headers={"Range": "bytes=0-3", "If-Range": etag})
    assert (answer.status, answer.body) == (200, newer)


def test_head_tells_everything_but_the_bytes(site: Site) -> None:
    made = site.upload(any_photo())
    whole, head = site.content(made["id"]), site.content(made["id"], method="HEAD")
    assert (head.status, head.body) == (200, b"")
    for name in ("etag", "content-length", "content-type", "content-disposition", "accept-ranges"):
        assert head.headers[name] == whole.headers[name]


def test_caches_keep_what_cannot_change(site: Site) -> None:
    made = site.upload(any_photo())
    assert site.content(made["id"]).headers["cache-control"] == "private, no-cache"
    for query in ("?version=1", "?variant=original"):
        assert site.content(made["id"], query).headers["cache-control"] == "private, max-age=86400, immutable"


@pytest.mark.parametrize(
    "name",
    [
        "röntgen bild.jpg",
        "写真 その1.jpg",
        "صورة.jpg",
        "a'b(c)*.jpg",
        "percent%41.jpg",
        "semi;colon.jpg",
        "e\u0301.jpg",
        "x" * 300 + ".jpg",
    ],
)
def test_names_of_any_language_come_back_in_safe_headers(site: Site, name: str) -> None:
    made = site.upload(any_photo(), name)
    expected = name if len(name) <= 255 else "x" * 251 + ".jpg"
    assert made["original_filename"] == expected
    header = site.content(made["id"]).headers["content-disposition"]
    assert header.isascii()
    assert name_in(header) == expected


def name_in(header: str) -> str:
    """As RFC 6266 4.3 has it: filename* goes before filename."""
    extended = re.search(r"filename\*=UTF-8''([^;]+)", header)
    plain = re.search(r'filename="([^"]*)"', header)
    assert plain is not None
    return unquote(extended[1]) if extended else plain[1]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (r"C:\Users\me\hand.jpg", "hand.jpg"),
        ("../../etc/hand.jpg", "hand.jpg"),
        ("a%0D%0ASet-Cookie: x=1.jpg", "aSet-Cookie: x=1.jpg"),
        ("a%22b.jpg", 'a"b.jpg'),
        ("\x01\x7fa.jpg", "a.jpg"),
        ("\u202egpj.exe.jpg", "gpj.exe.jpg"),
    ],
)
def test_names_that_could_do_harm_are_kept_without_it(site: Site, sent: str, kept: str) -> None:
    made = site.upload(any_photo(), sent)
    assert made["original_filename"] == kept
    answer = site.content(made["id"])
    assert "set-cookie" not in answer.headers
    assert name_in(answer.headers["content-disposition"]) == kept


def sign(site: Site, file_id: str, **form: int) -> str:
    made = site.json("POST", f"{file_id}/url", form)
    assert datetime.fromisoformat(made["expires_at"]) > datetime.now(UTC)
    url: str = made["url"]
    return url


def follow(site: Site, url: str, method: str = "GET", **headers: str) -> Answer:
    parts = urlsplit(url)
    return site.guarded.server.request(method, f"{parts.path}?{parts.query}", None, headers)


def test_a_signed_url_needs_no_login(site: Site) -> None:
    data = any_photo()
    url = sign(site, site.upload(data)["id"], expires_in=60)
    assert follow(site, url).body == data
    assert follow(site, url, Range="bytes=1-3").body == data[1:4]
    assert follow(site, url, "HEAD").headers["content-length"] == str(len(data))
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert follow(site, url, method).status in (401, 403, 405)


def test_a_signed_url_names_the_version_of_its_time(site: Site) -> None:
    data = any_photo()
    made = site.upload(data)
    url = sign(site, made["id"])
    site.version(made["id"], any_photo())
    assert follow(site, url).body == data


def test_an_altered_or_expired_url_is_refused(site: Site) -> None:
    made, other = site.upload(any_photo()), site.upload(any_photo())
    url = sign(site, made["id"])
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query))
    flipped = given["signature"][:-1] + ("0" if given["signature"][-1] != "0" else "1")
    altered = [
        {**given, "signature": flipped},
        {**given, "signature": ""},
        {**given, "expires": str(int(given["expires"]) + 1)},
        {**given, "version": "2"},
        {**given, "variant": "original"},
        {**given, "item": "0"},
        {**given, "more": "1"},
        {name: value for name, value in given.items() if name != "signature"},
        {name: value for name, value in given.items() if name != "expires"},
    ]
    for query in altered:
        assert follow(site, f"{parts.path}?{urlencode(query)}").status == 403, query
    assert follow(site, url.replace(made["id"], other["id"])).status == 403
    assert follow(site, url + "x").status == 403
    assert follow(site, url.replace(made["id"], "nothing")).status == 403
    assert follow(site, url).status == 200


def test_an_expired_url_is_refused(site: Site) -> None:
    from pacslite.core import file_content

    made = site.upload(any_photo())
    expires = str(int(datetime.now(UTC).timestamp()) - 1)
    key = site.guarded.accounts.keys.derive("file url")
    signature = file_content._signature(key, made["id"], file_content.Which(1), expires)
    query = urlencode({"version": 1, "expires": expires, "signature": signature})
    assert follow(site, f"/api/v1/files/{made['id']}/signed?{query}").status == 403


@pytest.mark.parametrize("seconds", [0, -1, 604_801, "60", 1.5])
def test_a_signed_url_lasts_from_a_second_to_a_week(site: Site, seconds: object) -> None:
    made = site.upload(any_photo())
    site.json("POST", f"{made['id']}/url", {"expires_in": seconds}, status=400)


def test_a_signed_url_without_a_form_lasts_an_hour(site: Site) -> None:
    made = site.upload(any_photo())
    answer = site.json("POST", f"{made['id']}/url")
    left = datetime.fromisoformat(answer["expires_at"]) - datetime.now(UTC)
    assert 3500 < left.total_seconds() <= 3601


def test_a_signed_url_ends_with_its_file(site: Site) -> None:
    made = site.upload(any_photo())
    url = sign(site, made["id"])
    site.status("DELETE", made["id"])
    assert follow(site, url).status == 410


def test_a_video_is_given_out_when_it_is_converted_and_as_it_was_sent_at_once(site: Site, tmp_path: Path) -> None:
    """No worker runs here: it stays pending."""
    sent = video(tmp_path / "a.avi")
    made = site.upload(sent, "a.avi", file_type="video")
    assert (made["processing"], made["file_hash"]) == ("pending", hashlib.sha256(sent).hexdigest())
    assert made["variants"]["thumbnail"] is None
    for query in ("", "?version=1", "?variant=thumbnail"):
        answer = site.content(made["id"], query)
        assert answer.status == 503, query
        assert int(answer.headers["retry-after"]) >= 1
    original = site.content(made["id"], "?variant=original")
    assert original.body == sent
    assert original.headers["content-type"].startswith("video/")


def test_what_has_no_pictures_has_no_variants(site: Site) -> None:
    made = site.upload(b"just words", "a.txt", file_type="document")
    assert made["variants"] == {}
    for variant in ("large", "medium", "thumbnail"):
        assert site.content(made["id"], f"?variant={variant}").status == 404
    content = site.content(made["id"])
    assert content.headers["content-disposition"].startswith("attachment")
