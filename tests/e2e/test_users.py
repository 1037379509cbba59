"""`pacslite user`, the first administrator, and whole servers where people log in."""

from __future__ import annotations

import json
import os
import pty
import selectors
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from pacslite.web.messages import Request, Route
from tests.support.processes import environment, pacslite, serving

PASSWORD = "correct horse battery"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    assert pacslite("migrate", "--data", tmp_path / "data").returncode == 0
    return tmp_path / "data"


def user(data: Path, *arguments: str, password: str | None = None, status: int = 0) -> Any:
    ended = pacslite("user", *arguments, "--data", data, "--json", input=None if password is None else password + "\n")
    assert ended.returncode == status, ended.stderr
    return json.loads(ended.stdout) if status == 0 else ended.stderr


def login(url: str, name: str, password: str) -> requests.Response:
    return requests.post(f"{url}/api/v1/auth/login", json={"username": name, "password": password}, timeout=30)


def test_users_are_added_listed_changed_and_removed(data: Path) -> None:
    made = user(data, "add", "ann", "--role", "clinician", "--group", "radiology", password=PASSWORD)
    assert made | {"id": 0, "created_at": ""} == {
        "id": 0,
        "username": "ann",
        "role": "clinician",
        "created_at": "",
        "disabled": False,
        "groups": ["radiology"],
    }
    user(data, "add", "device", "--role", "service", "--no-password")
    assert [one["username"] for one in user(data, "list")] == ["ann", "device"]
    assert user(data, "set", "Ann", "--role", "admin")["groups"] == ["radiology"]
    assert user(data, "set", "ann", "--no-groups") | {"role": ""} == made | {"role": "", "groups": []}
    assert user(data, "passwd", "ann", password="another good one")["username"] == "ann"
    assert "last administrator" in user(data, "disable", "ann", status=3)
    assert user(data, "disable", "device")["disabled"] is True
    assert user(data, "enable", "device")["disabled"] is False
    assert user(data, "remove", "device")["username"] == "device"
    assert "no such user" in user(data, "remove", "device", status=3)
    assert "There is a user" in user(data, "add", "ANN", password=PASSWORD, status=3)


def test_weak_passwords_are_refused_and_never_arguments(data: Path) -> None:
    for weak in ("", "short", "password123"):
        assert "password:" in user(data, "add", "bob", password=weak, status=2)
    assert "No such option" in user(data, "add", "bob", "--password", "x", status=2)
    assert user(data, "list") == []


def shown_until(terminal: int, end: bytes) -> bytes:
    """What a terminal shows up to these bytes."""
    shown = b""
    with selectors.DefaultSelector() as selector:
        selector.register(terminal, selectors.EVENT_READ)
        while end not in shown:
            assert selector.select(60), f"{end!r} was not shown: {shown!r}"
            shown += os.read(terminal, 1024)
    return shown


def test_on_a_terminal_the_password_is_asked_for_twice_and_not_shown(data: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pacslite", "user", "add", "ann", "--data", str(data)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(), start_new_session=True)
    try:
        shown = b""
        for prompt in (b"Password:", b"confirmation:"):
            shown += shown_until(ours, prompt)
            os.write(ours, PASSWORD.encode() + b"\n")
        shown += shown_until(ours, b"ann may log in as viewer")
        assert PASSWORD.encode() not in shown
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


def test_the_first_start_prints_an_administrator_once_and_a_token_opens_everything(tmp_path: Path) -> None:
    with serving(tmp_path / "data", auth=True) as server:
        first = server.ready["first_administrator"]
        assert first["username"] == "admin"
        assert first["password"] not in server.logged()
        assert first["password"] not in (server.data / "run/serve.json").read_text()
        assert requests.get(f"{server.url}/dicom-web/studies", timeout=10).status_code == 401
        token = login(server.url, first["username"], first["password"]).json()["access_token"]
        asked = {"Authorization": f"Bearer {token}"}
        assert requests.get(f"{server.url}/dicom-web/studies", headers=asked, timeout=10).status_code == 204
        assert requests.get(f"{server.url}/health/ready", timeout=10).status_code == 200
        # A change by the command line counts at once in the running processes.
        user(server.data, "add", "second", "--role", "admin", password=PASSWORD)
        user(server.data, "disable", "admin")
        for _ in range(4):
            assert requests.get(f"{server.url}/dicom-web/studies", headers=asked, timeout=10).status_code == 401
        tested = pacslite("selftest", "--server", "--data", server.data)
        assert tested.returncode == 0, tested.stderr
        assert "retrieve over DICOMweb" in tested.stdout
        assert [one["username"] for one in user(server.data, "list")] == ["admin", "second"]
    with serving(tmp_path / "data", auth=True) as server:
        assert "first_administrator" not in server.ready
        assert login(server.url, "second", PASSWORD).status_code == 200


def test_the_environment_names_the_first_administrator_once(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text(PASSWORD + "\n")
    named = {"PACSLITE_ADMIN_USER": "chief", "PACSLITE_ADMIN_PASSWORD_FILE": str(secret)}
    with serving(tmp_path / "data", auth=True, scope="web", **named) as server:
        assert "first_administrator" not in server.ready
        assert login(server.url, "chief", PASSWORD).status_code == 200
    secret.write_text("another good one\n")
    with serving(tmp_path / "data", auth=True, scope="web", **named) as server:
        assert login(server.url, "chief", "another good one").status_code == 401


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("PACSLITE_SECRET_KEY", "short", "secret_key"),
        ("PACSLITE_ADMIN_PASSWORD", "short", "admin_password"),
        ("PACSLITE_PREVIOUS_SECRET_KEYS", "short", "previous_secret_keys"),
    ],
)
def test_bad_secrets_are_told_at_the_start_and_not_shown(tmp_path: Path, variable: str, value: str, told: str) -> None:
    ended = pacslite("serve", "--data", tmp_path, "--http", "127.0.0.1:0", "--dicom", "127.0.0.1:0", env=environment(**{variable: value}))
    assert ended.returncode == 2
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr


def test_without_logins_only_loopback_is_served(tmp_path: Path) -> None:
    from pacslite.core.access import Right
    from pacslite.errors import Forbidden
    from pacslite.settings import load
    from pacslite.web.authentication import authenticate

    ended = pacslite("serve", "--no-auth", "--data", tmp_path, "--http", "0.0.0.0:0", "--dicom", "127.0.0.1:0")
    assert ended.returncode == 2
    assert "--no-auth" in ended.stderr

    class Open:
        settings = load(environment={}, auth=False)

    route = Route("GET", "/x", lambda pacs, request: None, Right.ADMIN)  # type: ignore[arg-type,return-value]
    for address, served in (
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("", True),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
    ):
        request = Request({"REQUEST_METHOD": "GET", "PATH_INFO": "/x", "REMOTE_ADDR": address})
        if served:
            authenticate(Open, request, route)
            assert request.actor == "local"
        else:
            with pytest.raises(Forbidden):
                authenticate(Open, request, route)
