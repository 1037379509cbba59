"""Logging in by an OpenID provider: a real one (the npm package oidc-provider), and one that lies in every way that the standard names."""

from __future__ import annotations

import base64
import hmac
import json
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from pacslite import app
from pacslite.core import external_logins, users
from pacslite.core.access import Role
from pacslite.core.external_logins import new_attempt
from pacslite.errors import ConfigurationError, Forbidden, PeerError, Unauthenticated
from pacslite.oidc.provider import Provider
from pacslite.settings import load
from tests.support.http import WebServer, running
from tests.support.processes import until

_HERE = Path(__file__).resolve().parents[1] / "support/openid"
_KEPT = Path(__file__).resolve().parents[2] / ".cache/openid"
ROLES = '{"doctors": "clinician", "bosses": "admin"}'
CLIENT = "pacslite"


@dataclass
class Site:
    """The server, and the provider it trusts."""

    server: WebServer
    node: subprocess.Popen[str]
    issuer: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"


@pytest.fixture(scope="module")
def program() -> Path:
    """The provider's program with its packages, installed once from the lock and kept between runs."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs node and npm on PATH")
    _KEPT.mkdir(parents=True, exist_ok=True)
    lock = (_HERE / "package-lock.json").read_bytes()
    done = _KEPT / "installed.json"
    if not done.exists() or done.read_bytes() != lock:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(_HERE / name, _KEPT / name)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        told = subprocess.run(command, cwd=_KEPT, capture_output=True, text=True, timeout=300, check=False)
        if told.returncode:
            pytest.skip(f"npm could not install oidc-provider: {told.stderr[-300:]}")
        done.write_bytes(lock)
    shutil.copy(_HERE / "provider.mjs", _KEPT / "provider.mjs")
    return _KEPT / "provider.mjs"


@pytest.fixture(scope="module")
def site(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    node = subprocess.Popen(["node", str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert node.stdin is not None
    assert node.stdout is not None
    try:
        issuer = node.stdout.readline().strip()
        settings = {"auth": "1", "oidc_issuer": issuer, "oidc_client_id": CLIENT, "oidc_client_secret": "secret-of-the-client"}
        with running(tmp_path_factory.mktemp("oidc"), oidc_roles=ROLES, **settings) as server:
            server.root = ""
            found = Site(server, node, issuer)
            node.stdin.write(f"{found.url}/login/oidc/callback {found.url}/login?out=1\n")
            node.stdin.flush()
            wait_for(node, "ready")
            yield found
    finally:
        node.kill()
        node.wait()
        node.stdin.close()
        node.stdout.close()


def wait_for(node: subprocess.Popen[str], word: str) -> None:
    """Until the provider says a word; it says other things too."""
    assert node.stdout is not None
    for line in node.stdout:
        if line.strip() == word:
            return
    raise AssertionError(f"the provider ended without {word}")


def to_provider(site: Site, browser: requests.Session, then: str = "/account") -> str:
    """Where the login page's link leads a browser."""
    answer = browser.get(f"{site.url}/login/oidc", params={"next": then}, allow_redirects=False, timeout=20)
    assert answer.status_code == 303, answer.text
    return answer.headers["Location"]


def back_from_provider(site: Site, browser: requests.Session, url: str, name: str) -> str:
    """Logs in with the provider and consents; the address it sends the browser back to."""
    for prompt in ("login", "consent", "end"):
        while True:
            answer = browser.get(url, allow_redirects=False, timeout=20)
            if answer.status_code not in (302, 303):
                break
            url = requests.compat.urljoin(url, answer.headers["Location"])
            if url.startswith(site.url):
                return url
        sent = browser.post(url, {"prompt": prompt, "login": name, "password": "x"}, allow_redirects=False, timeout=20)
        url = requests.compat.urljoin(url, sent.headers["Location"])
    raise AssertionError("the provider does not come to an end")


def log_in(site: Site, name: str, browser: requests.Session) -> requests.Response:
    back = back_from_provider(site, browser, to_provider(site, browser), name)
    return browser.get(back, allow_redirects=False, timeout=20)


@pytest.fixture
def browser() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def whoami(site: Site, browser: requests.Session) -> dict[str, Any]:
    found: dict[str, Any] = browser.get(f"{site.url}/api/v1/users/me", timeout=20).json()
    return found


def test_the_flow_has_pkce_state_and_nonce_of_its_own_each_time(site: Site, browser: requests.Session) -> None:
    one, other = (parse_qs(urlsplit(to_provider(site, browser)).query) for _ in range(2))
    assert one["code_challenge_method"] == ["S256"]
    assert one["response_type"] == ["code"]
    for name in ("state", "nonce", "code_challenge"):
        assert len(one[name][0]) >= 43
        assert one[name] != other[name]


def test_who_logs_in_with_the_provider_has_an_account_with_the_role_of_the_groups(site: Site, browser: requests.Session) -> None:
    answer = log_in(site, "ann+doctors", browser)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/account")
    found = whoami(site, browser)
    assert (found["username"], found["role"]) == ("ann", "clinician")
    assert browser.get(f"{site.url}/dicom-web/studies", timeout=20).status_code == 204
    assert "has no password here" in browser.get(f"{site.url}/account", timeout=20).text
    with requests.Session() as again:
        log_in(site, "ann+doctors", again)
        assert whoami(site, again)["id"] == found["id"]


def test_who_has_no_group_of_ours_is_refused(site: Site, browser: requests.Session) -> None:
    answer = log_in(site, "bob+gardeners", browser)
    assert answer.status_code == 403
    assert "no role here" in answer.text
    assert browser.get(f"{site.url}/dicom-web/studies", timeout=20).status_code == 401


def test_the_same_name_or_address_takes_nobodys_account(site: Site, browser: requests.Session) -> None:
    pacs = app.build(load(environment={}, data=site.server.data))
    users.create(pacs.accounts, "local-chief", "correct horse battery", Role.ADMIN)
    pacs.close()
    answer = log_in(site, "local-chief+doctors", browser)
    assert answer.status_code == 403
    assert "Another account has this name" in answer.text
    # The same e-mail address and another subject is another user.
    with requests.Session() as other:
        log_in(site, "eve+doctors", other)
        assert whoami(site, other)["username"] == "eve"


def test_an_answer_without_the_browsers_own_state_is_refused(site: Site, browser: requests.Session) -> None:
    back = back_from_provider(site, browser, to_provider(site, browser), "ann+doctors")
    with requests.Session() as other:  # who is made to open somebody else's answer
        assert other.get(back, allow_redirects=False, timeout=20).status_code == 401
        to_provider(site, other)
        assert other.get(back, allow_redirects=False, timeout=20).status_code == 401
        assert other.get(f"{site.url}/dicom-web/studies", timeout=20).status_code == 401


def test_an_answer_serves_once(site: Site, browser: requests.Session) -> None:
    back = back_from_provider(site, browser, to_provider(site, browser), "ann+doctors")
    kept = {"pacslite_oidc": browser.cookies["pacslite_oidc"]}
    assert browser.get(back, allow_redirects=False, timeout=20).status_code == 303
    # Even with the cookie that the browser has thrown away: the provider gives nothing for a code that was used.
    replayed = requests.get(back, cookies=kept, allow_redirects=False, timeout=20)
    assert replayed.status_code == 401
    assert "invalid_grant" in replayed.text


def test_an_answer_of_another_issuer_is_refused(site: Site, browser: requests.Session) -> None:
    back = back_from_provider(site, browser, to_provider(site, browser), "ann+doctors")
    assert f"iss={requests.compat.quote(site.issuer, safe='')}" in back
    forged = back.partition("&iss=")[0] + "&iss=https%3A%2F%2Fevil.example"
    assert browser.get(forged, allow_redirects=False, timeout=20).status_code == 401


def test_new_keys_of_the_provider_count_without_a_restart(site: Site, browser: requests.Session) -> None:
    assert log_in(site, "ann+doctors", browser).status_code == 303
    site.node.send_signal(signal.SIGUSR2)
    wait_for(site.node, "rotated")

    def is_in() -> bool:
        with requests.Session() as other:
            return log_in(site, "ann+doctors", other).status_code == 303

    until(is_in, what="a login by the new keys")  # they are asked for anew at most every few seconds


def test_the_logout_goes_on_to_the_provider(site: Site, browser: requests.Session) -> None:
    log_in(site, "ann+doctors", browser)
    browser.post(f"{site.url}/logout", headers={"Origin": site.url}, allow_redirects=False, timeout=20)
    assert browser.get(f"{site.url}/dicom-web/studies", timeout=20).status_code == 401
    answer = browser.get(f"{site.url}/login/oidc/logout", allow_redirects=False, timeout=20)
    assert answer.headers["Location"].startswith(f"{site.issuer}/session/end?")
    assert browser.get(answer.headers["Location"], timeout=20).status_code == 200


class Rogue:
    """A provider whose every answer a test chooses, with a key of its own."""

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"})
        self.served = [self.key]
        self.token: str | None = None
        self.metadata: dict[str, Any] = {}
        self.issuer = ""

    def document(self) -> dict[str, Any]:
        ends = {name: f"{self.issuer}/{name}" for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")}
        algorithms = ["RS256", "HS256", "none"]
        return {"issuer": self.issuer, **ends, "id_token_signing_alg_values_supported": algorithms, **self.metadata}

    def sign(self, key: Any = None, header: dict[str, Any] | None = None, **claims: Any) -> str:
        now = int(time.time())
        values = {"iss": self.issuer, "sub": "ann", "aud": CLIENT, "iat": now, "exp": now + 300, **claims}
        values = {name: value for name, value in values.items() if value is not None}
        head = header or {"alg": "RS256", "kid": "one"}
        return str(jwt.encode(head, values, key or self.key, algorithms=["RS256", "HS256"]))


@pytest.fixture
def rogue() -> Iterator[Rogue]:
    found = Rogue()
    with _serving(found):
        yield found


@contextmanager
def _serving(rogue: Rogue) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            keys = {"keys": [key.as_dict(private=False) for key in rogue.served]}
            self._answer(keys if self.path == "/jwks_uri" else rogue.document())

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer({"access_token": "a", "token_type": "Bearer", **({"id_token": rogue.token} if rogue.token else {})})

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        rogue.issuer = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield
        server.shutdown()
        thread.join()


def claims_of(rogue: Rogue, token: str | None, nonce: str = "n", provider: Provider | None = None) -> dict[str, Any]:
    rogue.token = token
    attempt = new_attempt()
    attempt = type(attempt)(attempt.state, nonce, attempt.verifier)
    asked = provider or Provider(rogue.issuer, CLIENT, "secret", "openid")
    return asked.claims("code", None, attempt, "http://127.0.0.1/callback")


def test_an_honest_token_counts(rogue: Rogue) -> None:
    assert claims_of(rogue, rogue.sign(nonce="n"))["sub"] == "ann"


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "other"},
        {"nonce": None},
        {"nonce": "n", "iss": "https://evil.example"},
        {"nonce": "n", "aud": "another client"},
        {"nonce": "n", "aud": [CLIENT, "another client"], "azp": "another client"},
        {"nonce": "n", "aud": [CLIENT, "another client"]},
        {"nonce": "n", "exp": 1_000_000_000},
        {"nonce": "n", "exp": None},
        {"nonce": "n", "iat": None},
        {"nonce": "n", "iat": 9_999_999_999},
        {"nonce": "n", "nbf": 9_999_999_999},
        {"nonce": "n", "sub": None},
        {"nonce": "n", "at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
    ],
    ids=str,
)
def test_a_token_with_wrong_claims_does_not_count(rogue: Rogue, claims: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated):
        claims_of(rogue, rogue.sign(**claims))


def test_only_signatures_by_the_providers_private_key_count(rogue: Rogue) -> None:
    honest = rogue.sign(nonce="n")
    head, body, signature = honest.split(".")
    nothing = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    symmetric = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"one"}').decode().rstrip("=")
    mac = hmac.digest(rogue.key.as_pem(private=False), f"{symmetric}.{body}".encode(), "sha256")
    secret = OctKey.import_key("secret" * 6)
    forged = {
        "none": f"{nothing}.{body}.",
        "none with a signature": f"{nothing}.{body}.{signature}",
        "the public key as a shared secret": f"{symmetric}.{body}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}",
        "the client's secret": rogue.sign(secret, {"alg": "HS256"}, nonce="n"),
        "another key of that name": rogue.sign(RSAKey.generate_key(2048), nonce="n"),
        "an unknown key": rogue.sign(header={"alg": "RS256", "kid": "unknown"}, nonce="n"),
        "altered": f"{head}.{body[:-4]}AAAA.{signature}",
        "no token": "x",
    }
    for name, token in forged.items():
        with pytest.raises(Unauthenticated):
            print(name, claims_of(rogue, token))
    with pytest.raises(Unauthenticated):
        claims_of(rogue, None)


def test_a_key_that_comes_later_is_found_and_one_that_is_gone_does_not_count(rogue: Rogue) -> None:
    provider = Provider(rogue.issuer, CLIENT, "secret", "openid")
    assert claims_of(rogue, rogue.sign(nonce="n"), provider=provider)
    fresh = RSAKey.generate_key(2048, {"kid": "two", "use": "sig", "alg": "RS256"})
    rogue.served = [fresh]
    provider._keys_at -= 60  # as if the keys had been asked for a minute ago
    assert claims_of(rogue, rogue.sign(fresh, {"alg": "RS256", "kid": "two"}, nonce="n"), provider=provider)
    with pytest.raises(Unauthenticated):
        claims_of(rogue, rogue.sign(nonce="n"), provider=provider)


def test_a_provider_of_another_name_is_none(rogue: Rogue) -> None:
    rogue.metadata = {"issuer": "https://evil.example"}
    with pytest.raises(PeerError, match="another issuer"):
        claims_of(rogue, rogue.sign(nonce="n"))


def settings_of(tmp_path: Path, **more: str) -> Any:
    given = {"oidc_issuer": "https://id.example", "oidc_client_id": CLIENT, "oidc_roles": ROLES, **more}
    return load(environment={f"PACSLITE_{name.upper()}": value for name, value in given.items()}, data=tmp_path)


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({"groups": ["x", "doctors"]}, Role.CLINICIAN),
        ({"groups": ["doctors", "bosses"]}, Role.ADMIN),
        ({"groups": "bosses"}, Role.ADMIN),
        ({"groups": ["x"]}, None),
        ({"groups": {"bosses": 1}}, None),
        ({"groups": [["bosses"]]}, None),
        ({"email": "bosses", "roles": ["bosses"]}, None),
    ],
)
def test_roles_follow_from_groups(tmp_path: Path, claims: dict[str, Any], role: Role | None) -> None:
    if role is not None:
        assert external_logins.role_of(settings_of(tmp_path), claims) is role
    else:
        with pytest.raises(Forbidden):
            external_logins.role_of(settings_of(tmp_path), claims)
        assert external_logins.role_of(settings_of(tmp_path, oidc_default_role="viewer"), claims) is Role.VIEWER


def test_groups_may_lie_within_another_claim(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, oidc_role_claim="realm_access.roles")
    assert external_logins.role_of(settings, {"realm_access": {"roles": ["bosses"]}}) is Role.ADMIN


@pytest.mark.parametrize(
    "wrong",
    [
        {"oidc_issuer": "http://id.example"},
        {"oidc_issuer": "https://user:password@id.example"},
        {"oidc_client_id": ""},
        {"oidc_scopes": "profile"},
        {"oidc_roles": '{"x": "root"}'},
        {"oidc_default_role": "admin"},
    ],
)
def test_wrong_settings_are_told_at_the_start(tmp_path: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="oidc_"):
        settings_of(tmp_path, **wrong)
