"""Generated documents are those of this code, and what documents point to exists."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from pacslite import conformance, documents, settings
from pacslite.cli import _COMMANDS
from pacslite.codec import render_options
from pacslite.dicom.attributes import ATTRIBUTES
from pacslite.dicomweb.capabilities import FACTS
from pacslite.dicomweb.routes import ROUTES as DICOMWEB
from pacslite.dimse.contexts import Service
from pacslite.dimse.negotiation import STORAGE_CLASSES, TRANSFER_SYNTAXES, service_of
from pacslite.web.markdown_page import as_html

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_the_page_of_settings_is_up_to_date() -> None:
    assert (ROOT / "docs/settings.md").read_text() == documents.settings_page(), "run `make docs`"


def test_the_conformance_statement_is_up_to_date() -> None:
    assert (ROOT / "docs/conformance.md").read_text() == conformance.page(), "run `make docs`"


def test_the_conformance_statement_has_every_transaction_syntax_and_class() -> None:
    page = conformance.page()
    for route in DICOMWEB:
        assert f"| {FACTS[route.handler.__name__].title} | {route.method} | " in page
    assert all(f"| {uid} | " in page for uid in TRANSFER_SYNTAXES)
    assert all((f"| {uid} | " in page) == (service_of(uid) is Service.STORAGE) for uid in STORAGE_CLASSES)
    assert all(f"| {attribute.keyword} | " in page for attribute in ATTRIBUTES)
    assert all(f"`{media_type}`" in page for media_type in render_options.IMAGE_TYPES)


def test_the_conformance_statement_can_be_read_in_a_browser() -> None:
    page = as_html(conformance.page())
    assert page.count("<h2>") == conformance.page().count("\n## ")
    assert page.count("<tr>") == len(re.findall(r"^\|", conformance.page(), re.MULTILINE)) - page.count("<table>")
    assert "<td>1.2.840.10008.1.2.4.201</td>" in page
    assert not re.search(r"\*\*|`|^- ", page, re.MULTILINE)


def test_markup_of_a_page_is_escaped() -> None:
    page = as_html("# A <b>\n\n- one\n  goes on\n- `two <i>`\n\n| a | b |\n|---|---|\n| [x](y.md) | **z** & |\n")
    assert "<h1>A &lt;b&gt;</h1>" in page
    assert "<li>one goes on</li><li><code>two &lt;i&gt;</code></li></ul>" in page
    assert "<tr><td>x</td><td><b>z</b> &amp;</td></tr>" in page


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


@pytest.mark.parametrize("package", ["core", "dicom", "catalog", "storage", "codec", "dimse", "web", "dicomweb", "files"])
def test_the_map_of_the_architecture_has_every_module(package: str) -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    table = page[page.index("## Where to find what") :].partition("The other packages:")[0 if package == "core" else 2]
    if package != "core":
        (table,) = re.findall(rf"^\| `{package}/` .*$", table, re.MULTILINE)
    named = re.findall(r"`([a-z0-9_]+\*?)`", table)
    modules = {path.stem for path in (ROOT / "pacslite" / package).glob("*.py")} - {"__init__"}
    unnamed = sorted(module for module in modules if not any(fnmatchcase(module, name) for name in named))
    assert not unnamed, f"docs/architecture.md says nothing of {', '.join(unnamed)}"
    gone = sorted(name for name in named if package != "core" and not any(fnmatchcase(module, name) for module in modules))
    assert not gone, f"docs/architecture.md names {', '.join(gone)}, which there is not"
