"""Generated documents are those of this code, and what documents point to exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from pacslite import conformance, documents, settings
from pacslite.cli import _COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_the_page_of_settings_is_up_to_date() -> None:
    assert (ROOT / "docs/settings.md").read_text() == documents.settings_page(), "run `make docs`"


def test_the_conformance_statement_is_up_to_date() -> None:
    assert (ROOT / "docs/conformance.md").read_text() == conformance.page(), "run `make docs`"


def test_the_sample_of_settings_is_up_to_date() -> None:
    assert (ROOT / "conf/pacslite.toml").read_text() == documents.settings_sample(), "run `make docs`"


def test_the_sample_of_settings_can_be_loaded_with_every_key_set(tmp_path: Path) -> None:
    sample = re.sub(r"^#(\w+ = )", r"\1", documents.settings_sample(), flags=re.MULTILINE)
    assert tomllib.loads(sample).keys() == settings.FIELDS.keys()
    (tmp_path / "pacslite.toml").write_text(sample)
    assert settings.load(tmp_path / "pacslite.toml", {}) == settings.load(environment={})


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    missing = [t for t in targets if "://" not in t and not t.startswith("mailto:") and not (page.parent / t).exists()]
    assert not missing


@pytest.mark.parametrize("command", _COMMANDS)
def test_every_command_is_described_in_operations(command: str) -> None:
    assert f"`pacslite {command}" in (ROOT / "docs/operations.md").read_text()


def test_no_document_names_this_machine_or_a_package_registry() -> None:
    for page in PAGES:
        assert not re.search(r"/work/|/tmp/pv|pypi\.org|npmjs\.org|deb\.debian", page.read_text()), page
