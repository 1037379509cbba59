"""Settings: precedence, types, and what is said about mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pacslite import settings
from pacslite.errors import ConfigurationError
from pacslite.settings import Address, load


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "pacslite.toml"
    path.write_text(text)
    return path


def test_the_defaults_are_those_of_the_command_line_contract() -> None:
    s = load(environment={})
    assert (s.http.text, s.dicom.text, s.aet, s.auth) == ("127.0.0.1:8080", "127.0.0.1:11112", "PACSLITE", True)
    assert s.data == Path("data").absolute()
    assert s.resolved_storage_root == s.data / "storage"
    assert s.spool_directory == s.data / "spool"
    assert s.resolved_database_url == f"sqlite:///{s.data}/catalog.db"


def test_the_command_line_wins_over_the_environment_which_wins_over_the_file(tmp_path: Path) -> None:
    file = toml(tmp_path, 'aet = "FILE"\nhttp = "127.0.0.1:1"\nweb_threads = 3')
    s = load(file, {"PACSLITE_AET": "ENV", "PACSLITE_HTTP": "127.0.0.1:2"}, aet="OPTION")
    assert (s.aet, s.http.port, s.web_threads) == ("OPTION", 2, 3)


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    assert load(environment={"PACSLITE_CONFIG": str(toml(tmp_path, 'aet = "FILE"'))}).aet == "FILE"


def test_an_unknown_key_of_the_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="colour"):
        load(toml(tmp_path, "colour = 1"), {})


def test_an_unknown_variable_is_found_and_is_no_error() -> None:
    environment = {"PACSLITE_COLOUR": "1", "PACSLITE_AET": "A", "PACSLITE_SECRET_KEY_FILE": "x", "PATH": "", "PACSLITE_CONFIG": ""}
    assert settings.unknown_variables(environment) == ["PACSLITE_COLOUR"]


def test_a_secret_may_lie_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    assert load(environment={"PACSLITE_SECRET_KEY_FILE": str(tmp_path / "key")}).secret_key == "s3cret"


def test_a_secret_file_that_is_missing_is_an_error_that_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="PACSLITE_SECRET_KEY_FILE"):
        load(environment={"PACSLITE_SECRET_KEY_FILE": str(tmp_path / "none")})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PACSLITE_HTTP", "8080"),
        ("PACSLITE_HTTP", "127.0.0.1:70000"),
        ("PACSLITE_AUTH", "maybe"),
        ("PACSLITE_WEB_THREADS", "0"),
        ("PACSLITE_WEB_THREADS", "many"),
        ("PACSLITE_STORAGE", "tape"),
        ("PACSLITE_AET", "SEVENTEEN_LETTERS"),
        ("PACSLITE_AET", "BACK\\SLASH"),
        ("PACSLITE_AET", ""),
        ("PACSLITE_OIDC_ROLES", "[]"),
        ("PACSLITE_STORAGE", "s3"),
    ],
)
def test_a_wrong_value_is_refused(variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError):
        load(environment={variable: value})


def test_values_are_typed() -> None:
    s = load(
        environment={
            "PACSLITE_AUTH": "off",
            "PACSLITE_CORS_ORIGINS": "http://a, http://b",
            "PACSLITE_OIDC_ROLES": '{"doctors": "clinician"}',
        }
    )
    assert (s.auth, s.cors_origins, s.oidc_roles) == (False, ("http://a", "http://b"), {"doctors": "clinician"})


def test_what_is_shown_hides_secrets() -> None:
    shown = settings.shown(load(environment={"PACSLITE_SECRET_KEY": "s3cret", "PACSLITE_DATABASE_URL": "postgresql://u:pw@h/d"}))
    assert "s3cret" not in str(shown)
    assert "pw" not in str(shown)


@pytest.mark.parametrize(
    ("text", "host", "port"), [("127.0.0.1:80", "127.0.0.1", 80), ("[::1]:0", "::1", 0), (":11112", "127.0.0.1", 11112)]
)
def test_addresses_parse_and_print(text: str, host: str, port: int) -> None:
    assert Address.parse(text) == Address(host, port)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.3.2.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("127.0.0.1.evil.example", False),
    ],
)
def test_only_loopback_is_loopback(host: str, loopback: bool) -> None:
    assert Address(host, 1).is_loopback is loopback


def test_every_setting_has_a_sentence_of_help() -> None:
    assert all(field.metadata["help"].endswith(".") for field in settings.FIELDS.values())


def test_all_settings_of_the_rest_contract_exist() -> None:
    named = """DATA HTTP DICOM AET STORAGE STORAGE_ROOT DATABASE_URL S3_ENDPOINT S3_BUCKET S3_ACCESS_KEY S3_SECRET_KEY S3_REGION S3_PREFIX
        SECRET_KEY ADMIN_USER ADMIN_PASSWORD ACCESS_TOKEN_SECONDS CORS_ORIGINS MAX_UPLOAD_BYTES FILE_RATE_PER_MINUTE
        PUBLIC_URL METRICS_PUBLIC AUTH MATCH_IGNORE_CASE"""
    assert {name.lower() for name in named.split()} <= settings.FIELDS.keys()
