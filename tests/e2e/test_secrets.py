"""What a server that was used leaves in its logs, answers, files and process list: no names, no passwords, no tokens."""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click
import pytest

from pacslite import cli, settings
from tests.support.data_sets import CONTENT_TYPE, body, image, part10
from tests.support.metrics import scrape
from tests.support.processes import Server, environment, pacslite, serving

NAME, PATIENT = "Quietperson^Zacharias", "HUSHID4711"
SECRETS = {
    "PACSLITE_SECRET_KEY": "marked-secret-key-0123456789-abcdefghij",
    "PACSLITE_ADMIN_PASSWORD": "marked-Admin-Pass-77",
    "PACSLITE_S3_SECRET_KEY": "marked-s3-secret",
    "PACSLITE_DICOM_TLS_KEY_PASSWORD": "marked-key-password",
}
TOKEN, PASSWORD = "marked-bearer-token-xyz", "marked-typed-password"
MARKS = [*SECRETS.values(), TOKEN, PASSWORD, base64.b64encode(f"u:{PASSWORD}".encode()).decode(), "Quietperson", "QUIETPERSON", PATIENT]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("secrets")
    secret_file = directory / "s3.secret"
    secret_file.write_text(SECRETS["PACSLITE_S3_SECRET_KEY"] + "\n")
    given = {name: value for name, value in SECRETS.items() if name != "PACSLITE_S3_SECRET_KEY"}
    with serving(
        directory / "data",
        "--dimse-processes",
        "1",
        PACSLITE_LOG_LEVEL="debug",
        PACSLITE_ACCESS_LOG="1",
        PACSLITE_S3_SECRET_KEY_FILE=str(secret_file),
        **given,
    ) as it:
        _use(it, directory)
        yield it


def ask(server: Server, method: str, path: str, content: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with closing(http.client.HTTPConnection(server.ready["http"], timeout=60)) as connection:
        connection.request(method, path, content, named)
        answer = connection.getresponse()
        return answer.status, answer.read()


def _use(server: Server, directory: Path) -> None:
    """Everything a caller can do, with a name or a secret in it."""
    ds = image()
    ds.PatientName, ds.PatientID = NAME, PATIENT
    stored = part10(ds)
    study = f"/dicom-web/studies/{ds.StudyInstanceUID}"
    instance = f"{study}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"
    for content in (stored, stored[:-30], b"junk " + NAME.encode()):
        ask(server, "POST", "/dicom-web/studies", body([content]), Content_Type=CONTENT_TYPE, Authorization=f"Bearer {TOKEN}")
    basic = "Basic " + base64.b64encode(f"u:{PASSWORD}".encode()).decode()
    paths = ["/dicom-web/studies", f"/api/v1/nothing/{NAME}", f"/{NAME}", study + "/metadata", instance, instance + "/rendered", "/metrics"]
    for path in paths:
        ask(server, "GET", f"{path}?PatientName={NAME}&PatientID={PATIENT}&access_token={TOKEN}", Authorization=basic)
    login = json.dumps({"username": "u", "password": PASSWORD}).encode()
    ask(server, "POST", "/api/v1/auth/login", login, Content_Type="application/json")
    ask(server, "POST", "/api/v1/peers", login, Content_Type="application/json")
    ask(server, "POST", "/api/v1/auth/login", login[:-4], Content_Type="application/json")
    ask(server, "GET", "/dicom-web/studies", Cookie=f"session={TOKEN}", X_Request_ID=NAME)
    _use_dicom(server, directory, stored, ds.StudyInstanceUID)
    ask(server, "DELETE", study)


def _use_dicom(server: Server, directory: Path, stored: bytes, study: str) -> None:
    file = directory / "sent.dcm"
    file.write_bytes(stored)
    called = ["-aec", server.ready["aet"], *server.dicom]
    search = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"PatientName={NAME}", "-k", f"PatientID={PATIENT}", "-k", "StudyInstanceUID"]
    fetch = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}", "-k", f"PatientName={NAME}"]
    (directory / "got").mkdir()
    for command in (
        ["storescu", *called, str(file)],
        ["findscu", "-S", *search, *called],
        ["getscu", "-S", *fetch, "-od", str(directory / "got"), *called],
        ["movescu", "-S", *fetch, "-aem", "NOBODY", *called],
        ["findscu", "-S", "-k", f"QueryRetrieveLevel={NAME}", *called],
    ):
        assert shutil.which(command[0])
        subprocess.run(command, capture_output=True, timeout=60, check=False)


def test_everything_was_used(server: Server) -> None:
    counted = scrape(server.url)
    for operation in ("C-STORE", "C-FIND", "C-GET", "C-MOVE"):
        assert counted.sum("pacslite_dimse_operation_seconds_count", operation=operation) > 0
    for route in ("stow", "qido", "metadata", "rendered", "retrieve", "delete", "none"):
        assert counted.sum("pacslite_http_request_seconds_count", route=route) > 0, route


def test_no_log_line_names_a_patient_or_a_secret(server: Server) -> None:
    logged = server.logged()
    assert logged.count('"message": "request"') > 10
    assert [mark for mark in MARKS if mark in logged] == []


def test_lines_are_json_with_what_the_contract_says(server: Server) -> None:
    lines = [json.loads(line) for line in server.logged().splitlines()]
    assert all({"time", "level", "message"} <= line.keys() for line in lines)
    requests = [line for line in lines if line["message"] == "request"]
    assert all(
        line["request_id"] and {"method", "route", "status", "actor", "address", "bytes", "duration_ms"} <= line.keys() for line in requests
    )
    assert {line["actor"] for line in requests if line["status"] == 200} >= {"local"}
    assert any(line.get("action") and line.get("object_id") and line.get("outcome") for line in lines)


def test_error_pages_and_settings_shown_hold_no_secret(server: Server, tmp_path: Path) -> None:
    for path in ("/nothing", "/dicom-web/studies?limit=x", "/api/v1/jobs/none", "/health/ready", "/metrics"):
        _, content = ask(server, "GET", path, Authorization=f"Bearer {TOKEN}")
        assert [mark for mark in MARKS if mark.encode() in content] == []
    more = {
        "PACSLITE_DATABASE_URL": "postgresql://u:marked-db-password@h/d",
        "PACSLITE_S3_ENDPOINT": "https://u:marked-url-password@s3.example",
        "PACSLITE_ANALYSIS_SERVICES": json.dumps({"a": {"url": "https://u:marked-url-password@a.example", "api_key": "marked-api-key"}}),
    }
    for form in ([], ["--json"]):
        told = pacslite("config", "show", *form, env=environment(**SECRETS, **more))
        assert told.returncode == 0, told.stderr
        assert "marked" not in told.stdout + told.stderr
        assert "***" in told.stdout


def test_no_command_line_holds_a_secret_and_no_process_dumps_its_memory(server: Server) -> None:
    found = list(_processes(server.pid))
    assert len(found) >= 5  # supervisor, gunicorn and its workers, listener, worker
    for pid in found:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert [mark for mark in MARKS if mark.encode() in words] == []
        limits = Path(f"/proc/{pid}/limits").read_text()
        soft, hard = next(line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core file size"))
        assert soft in ("0", "1")
        assert hard in ("0", "1")


def _processes(pid: int) -> Iterator[int]:
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield from _processes(int(child))


def test_files_and_directories_are_for_owner_and_group_and_secrets_for_the_owner(server: Server) -> None:
    """Directories 0750, files 0640 or less; what holds a secret 0600."""
    seen = 0
    for directory, _, files in os.walk(server.data):
        # The directory of the data itself was made before, by the test.
        assert directory == str(server.data) or Path(directory).stat().st_mode & 0o7777 & ~0o750 == 0, directory
        for name in files:
            path = Path(directory, name)
            try:
                mode = path.stat().st_mode & 0o7777
            except FileNotFoundError:
                continue  # gone meanwhile
            seen += 1
            assert mode & ~0o640 == 0, (path, oct(mode))
            if "secret" in name or path.suffix == ".key":
                assert mode == 0o600, (path, oct(mode))
    assert seen > 10


def test_every_secret_may_come_from_a_file(tmp_path: Path) -> None:
    named = [name for name, field in settings.FIELDS.items() if field.metadata["secret"]]
    assert {"secret_key", "admin_password", "s3_secret_key", "database_url"} <= set(named)
    given = {}
    for name in named:
        file = tmp_path / name
        file.write_text(f"marked-{name}-0123456789-0123456789\n")
        given[f"{settings.variable(name)}_FILE"] = str(file)
    loaded = settings.load(environment=given)
    assert {name: getattr(loaded, name) for name in named} == {name: f"marked-{name}-0123456789-0123456789" for name in named}
    assert settings.unknown_variables(given) == []
    assert "marked" not in json.dumps(settings.shown(loaded))
    looks_secret = {name for name in settings.FIELDS if any(word in name for word in ("password", "secret"))} - {"password_min_length"}
    assert looks_secret <= set(named)


def _options(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Parameter]]:
    yield from ((path, parameter) for parameter in command.params)
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _options(inner, (*path, name))


def test_no_command_takes_a_secret_as_an_argument() -> None:
    """A command line is in the process list, and in the history of the shell."""
    taken = []
    for path, parameter in _options(cli.cli):
        words = {parameter.name or "", *(option.strip("-") for option in parameter.opts)}
        secret = any(word in name for name in words for word in ("password", "token", "secret"))
        harmless = getattr(parameter, "is_flag", False) or all(name.endswith(("file", "stdin", "id")) for name in words)
        if secret and not harmless:
            taken.append((path, parameter.name))
    assert taken == []
