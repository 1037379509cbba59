"""The command line as a person or a script meets it: exit codes, messages, no tracebacks."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from pacslite import cli
from tests.support import data_sets
from tests.support.processes import pacslite, serving


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("PACSLITE_CONFIG", "PACSLITE_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    assert cli.run(["migrate", "--data", str(tmp_path / "data")]) == 0
    return tmp_path / "data"


def run(data: Path, *arguments: str | Path) -> int:
    return cli.run([*map(str, arguments), "--data", str(data)])


def folder_of(tmp_path: Path, count: int = 3) -> Path:
    folder = tmp_path / "folder/nested"
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number}.dcm").write_bytes(data_sets.part10(data_sets.image()))
    (folder / "notes.txt").write_text("not DICOM")
    return folder.parent


def test_help_lists_every_command_and_loads_little() -> None:
    helped = pacslite("--help")
    assert helped.returncode == 0
    assert all(f"  {name} " in helped.stdout for name in cli._COMMANDS)
    code = (
        "import sys; from pacslite import cli; cli.run(['--help']); sys.exit(bool({'flask', 'sqlalchemy', 'pydicom'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_commands_about_accounts_and_peers_load_nothing_that_reads_images(tmp_path: Path) -> None:
    assert pacslite("migrate", "--data", str(tmp_path)).returncode == 0
    for command in (["user", "list"], ["peer", "list"]):
        code = f"import sys; from pacslite import cli; assert cli.run({[*command, '--data', str(tmp_path)]!r}) == 0; print(*sys.modules)"
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert not {"pydicom", "numpy", "flask", "sqlalchemy.orm", "pacslite.core.ingest"} & set(ran.stdout.split()), command


def test_servers_collect_garbage_as_python_does_though_their_start_does_not() -> None:
    code = (
        "import gc; from pacslite import cli, roles; gc.set_threshold(cli._START_ALLOCATIONS);"
        "roles.load(('worker',), 'sqlite:///catalog.db'); print(gc.get_threshold() == (700, 10, 10), gc.get_freeze_count() > 10_000)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True True\n"


def test_servers_load_no_client_for_downloads_and_can_later() -> None:
    code = (
        "import sys; from pacslite import roles; roles.load(('web', 'dimse', 'worker'), 'sqlite:///catalog.db');"
        "print('requests' in sys.modules); import pacslite.oidc.provider; print('requests' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\nTrue\n"


@pytest.mark.parametrize("name", cli._COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([name, "--help"]) == 0
    assert "Usage:" in capsys.readouterr().out


def test_an_unknown_option_is_an_error_that_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["serve", "--colour"]) == 2
    assert "--colour" in capsys.readouterr().err


def test_an_unknown_key_of_the_file_is_an_error_that_names_it(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.toml").write_text("colour = 1\n")
    for arguments in (["config", "show", "--config", "p.toml"], ["--config", "p.toml", "config", "show"]):
        assert cli.run(arguments) == 2
        assert "colour" in capsys.readouterr().err


def test_an_unknown_variable_is_one_line_of_warning(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PACSLITE_COLOUR", "1")
    monkeypatch.setenv("PACSLITE_SHAPE", "1")
    assert run(data, "peer", "list") == 0
    assert capsys.readouterr().err.count("\n") == 1


def test_migrate_tells_whether_something_is_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fresh = tmp_path / "fresh"
    assert run(fresh, "migrate", "--check") == 1
    assert run(fresh, "migrate") == 0
    assert run(fresh, "migrate", "--check", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["up_to_date"] is True


def test_looking_for_a_catalog_makes_none(tmp_path: Path) -> None:
    assert cli.run(["migrate", "--check", "--data", str(tmp_path / "mistyped")]) == 1
    assert not (tmp_path / "mistyped").exists()


def test_a_database_that_does_not_answer_is_told_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PACSLITE_DATABASE_URL", "postgresql+psycopg://u:secret@127.0.0.1:1/db")
    assert cli.run(["migrate", "--data", str(tmp_path / "data")]) == 3
    said = capsys.readouterr().err
    assert "the catalog cannot be reached: " in said
    assert "refused" in said
    assert "secret" not in said


def test_an_address_that_is_none_is_told_with_its_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["serve", "--dicom", "99"]) == 2
    assert "dicom: '99' is not HOST:PORT" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["echo", "remove"])
def test_a_peer_nobody_added_is_told_alike(data: Path, action: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data, "peer", action, "NOBODY") == 1
    assert "there is no peer 'NOBODY'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "code"), [("pacs_1.example.org", 0), ("::1", 0), ("10.0.0.1", 0), ("bad host", 2), ("a..b", 2), ("h/x", 2)]
)
def test_a_peer_has_the_name_or_address_of_a_host(data: Path, host: str, code: int) -> None:
    assert run(data, "peer", "add", "PEER", host, "104") == code


def test_a_catalog_that_is_not_migrated_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "fresh", "peer", "list") == 3
    assert "pacslite migrate" in capsys.readouterr().err


def test_import_counts_and_does_nothing_twice(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path)
    assert run(data, "import", folder) == 0
    assert "3 stored" in capsys.readouterr().out
    assert run(data, "import", "--json", folder) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["stored"], summary["already_there"], summary["not_dicom"]) == (0, 3, 1)


def test_import_says_what_was_refused_and_why(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.dcm").write_bytes(data_sets.part10(data_sets.image())[:600])
    assert run(data, "import", tmp_path / "broken.dcm") == 1
    assert "refused" in capsys.readouterr().out


def test_import_of_nothing_is_told_apart(data: Path, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("x")
    assert run(data, "import", tmp_path / "x.txt") == 2
    assert run(data, "import", tmp_path / "missing") == 2


def test_verify_finds_damage_and_sending_again_heals_it(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path, 2)
    assert run(data, "import", folder) == 0
    assert run(data, "verify", "--deep") == 0
    missing, damaged = sorted((data / "storage/radiology").rglob("*.dcm"))
    missing.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\1")
    capsys.readouterr()
    assert run(data, "verify", "--quick", "--json") == 1
    assert [d["problem"] for d in json.loads(capsys.readouterr().out)["damaged"]] == ["missing"]
    assert run(data, "verify", "--deep", "--json", "--repair") == 1
    assert sorted(d["problem"] for d in json.loads(capsys.readouterr().out)["damaged"]) == ["hash", "missing"]
    assert run(data, "import", folder) == 0
    assert run(data, "verify", "--deep") == 0


def test_reindex_makes_the_catalog_again_from_the_storage(data: Path, tmp_path: Path) -> None:
    assert run(data, "import", folder_of(tmp_path)) == 0
    for file in data.glob("catalog.db*"):
        file.unlink()
    assert run(data, "reindex", "--yes") == 0
    with closing(sqlite3.connect(data / "catalog.db")) as connection:
        assert connection.execute("SELECT count(*) FROM instance").fetchone() == (3,)
    assert run(data, "verify", "--deep") == 0


def test_reindex_asks_first(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = pacslite("reindex", "--data", data, input="n\n")
    assert ended.returncode == 130
    assert "Traceback" not in ended.stderr


def test_peers_are_kept(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data, "peer", "add", "SCANNER", "127.0.0.1", "1", "--allow", "store") == 0
    capsys.readouterr()
    assert run(data, "peer", "list", "--json") == 0
    (kept,) = json.loads(capsys.readouterr().out)
    assert (kept["ae_title"], kept["port"], kept["allow"]) == ("SCANNER", 1, ["store"])
    assert run(data, "peer", "echo", "SCANNER") == 1
    assert "failed" in capsys.readouterr().out
    assert run(data, "peer", "remove", "SCANNER") == 0
    assert run(data, "peer", "remove", "SCANNER") == 1
    assert run(data, "peer", "echo", "SCANNER") == 1


@pytest.mark.parametrize("title", ["", " PADDED ", "SEVENTEEN_LETTERS", "BACK\\SLASH"])
def test_a_title_that_is_none_is_refused(data: Path, title: str) -> None:
    assert run(data, "peer", "add", title, "127.0.0.1", "104") == 2


def test_config_shows_hides_and_checks(data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PACSLITE_SECRET_KEY", "s3cret")
    assert run(data, "config", "show", "--json") == 0
    shown = capsys.readouterr().out
    assert "s3cret" not in shown
    assert json.loads(shown)["data"] == str(data)
    assert run(data, "config", "check") == 0
    monkeypatch.setenv("PACSLITE_HTTP", "0.0.0.0:80")
    assert run(data, "config", "check") == 0
    monkeypatch.setenv("PACSLITE_AUTH", "off")
    assert run(data, "config", "check") == 2
    assert cli.run(["config", "sample"]) == 0


def test_the_self_test_leaves_nothing(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data, "selftest") == 0
    assert [line.split("  ")[0].strip() for line in capsys.readouterr().out.splitlines()] == [
        "store",
        "verify",
        "url",
        "retrieve",
        "clean up",
    ]
    assert not [path for path in (data / "storage").rglob("*") if path.suffix in (".dcm", ".txt")]
    assert run(data, "selftest", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], [one["step"] for one in told["steps"]]) == (True, ["store", "verify", "url", "retrieve", "clean up"])
    assert run(data, "backup", str(data.parent / "backup")) == 0  # nothing that was deleted is looked for
    assert run(data, "verify", "--deep") == 0


def test_the_self_test_stores_an_instance_and_a_file_and_keeps_what_is_asked(tmp_path: Path) -> None:
    assert run(tmp_path / "fresh", "selftest", "--keep") == 0
    assert len(list((tmp_path / "fresh/storage/radiology").rglob("*.dcm"))) == 1
    assert len(list((tmp_path / "fresh/storage/patients").rglob("documents/*_doc_*.txt"))) == 1
    assert run(tmp_path / "fresh", "verify", "--deep") == 0


def test_the_self_test_that_fails_says_why(data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACSLITE_S3_BUCKET", "none")
    monkeypatch.setenv("PACSLITE_S3_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("PACSLITE_S3_ACCESS_KEY", "x")
    monkeypatch.setenv("PACSLITE_S3_SECRET_KEY", "x")
    monkeypatch.setenv("PACSLITE_STORAGE", "s3")
    assert run(data, "selftest") == 1
    assert "selftest failed after 'prepare'" in capsys.readouterr().err
    assert run(data, "selftest", "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["failed_after"]) == (False, "prepare")


def test_the_self_test_goes_through_a_running_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(tmp_path / "data", "--dimse-processes", "1", "--web-processes", "1"):
        ended = pacslite("selftest", "--server", "--data", tmp_path / "data")
        assert ended.returncode == 0, ended.stderr
        assert "retrieve over DICOMweb" in ended.stdout
        assert pacslite("reindex", "--yes", "--data", tmp_path / "data").returncode == 3


def test_cleanup_removes_old_spool_files(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "spool/left.dcm").write_bytes(b"x")
    assert run(data, "cleanup") == 0
    assert (data / "spool/left.dcm").exists()
    assert run(data, "cleanup", "--older-than-hours", "0", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["spool_files"] == 1


def test_samples_can_be_taken_in_twice(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data, "samples", "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert first["stored"] > 30
    assert run(data, "samples", "--json") == 0
    assert json.loads(capsys.readouterr().out)["already_there"] == first["stored"]


def test_a_directory_that_cannot_be_made_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file/data", "migrate") == 2
    assert "--data" in capsys.readouterr().err
