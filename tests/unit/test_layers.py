"""Imports only point down, and each library has one owner (docs/architecture.md)."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "pacslite"
SOURCES = sorted(PACKAGE.rglob("*.py"))

BASE = frozenset(
    {"durability", "settings", "errors", "error_map", "logs", "metrics", "private", "resources", "run_state", "tracing", "pacslite"}
)
FOUNDATIONS = frozenset({"catalog", "storage", "codec", "webclient", "rates", "oidc"})
# What each part may import, besides itself and the base. `dicom` is there for everybody.
MAY = {
    **dict.fromkeys(BASE, frozenset()),
    "dicom": frozenset(),
    **dict.fromkeys(FOUNDATIONS, frozenset({"dicom"})),
    "core": FOUNDATIONS | {"dicom"},
    "web": frozenset({"core", "dicom"}),
    "dimse": FOUNDATIONS | {"core", "dicom"},
    "dicomweb": FOUNDATIONS | {"web", "core", "dicom"},
    "files": frozenset({"web", "core", "dicom"}),
    "admin": frozenset({"web", "core"}),
    "ui": frozenset({"web", "core"}),
    "samples": frozenset({"dicom"}),
}
# The modules at the top start roles and join the parts; they may import whatever they start.
TOP = frozenset(
    {
        "app",
        "cli",
        "roles",
        "supervisor",
        "listeners",
        "web_server",
        "worker",
        "job_kinds",
        "file_storage",
        "selftest",
        "selftest_file",
        "documents",
        "conformance",
        "__main__",
    }
)
OWNERS = {
    "sqlalchemy": {"catalog"},
    "alembic": {"catalog"},
    "boto3": {"storage"},
    "botocore": {"storage"},
    "pynetdicom": {"dimse"},
    "urllib3": {"webclient"},
    "limits": {"rates"},
    "jinja2": {"ui"},
    "authlib": {"oidc"},
    "requests": {"oidc"},
    "flask": {"web", "dicomweb", "admin", "ui", "files"},
    "werkzeug": {"web", "dicomweb", "admin", "ui", "files"},
    "imagecodecs": {"codec"},
    "gunicorn": {"web_server", "web"},  # web/incoming.py reads bodies by its reader
    "click": {"cli"},
    "argon2": {"core"},
    "jwt": {"core"},
    "prometheus_client": {"metrics", "roles"},
    "opentelemetry": {"tracing"},
}


def part_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return "pacslite" if first == "__init__.py" else first.removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """Dotted names of everything imported when the code runs; what only the type checker reads does not count."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def our_parts(names: set[str]) -> set[str]:
    parts = {name.split(".")[1] for name in names if name.startswith("pacslite.")}
    known = {part_of(path) for path in SOURCES}
    return {part if part in known else "pacslite" for part in parts}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    part = part_of(path)
    if part in TOP:
        return
    assert part in MAY, f"{part} has no place in the layers; give it one here and in docs/architecture.md"
    allowed = MAY[part] | BASE | {part}
    assert our_parts(imports_of(path)) <= allowed


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_each_library_has_one_owner(path: Path) -> None:
    used = {name.split(".")[0] for name in imports_of(path)}
    for library, owners in OWNERS.items():
        assert library not in used or part_of(path) in owners, f"{library} belongs to {', '.join(owners)}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 600


def test_there_are_no_drawers() -> None:
    drawers = {"utils", "helpers", "common", "manager", "base", "misc"}
    assert not [path for path in SOURCES if path.stem in drawers]


def test_whatever_is_imported_is_a_dependency_by_name() -> None:
    """And does not come with another one by chance; Flask and boto3 are what they are with their own halves."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["otel"]]
    declared = {re.split(r"[\[<>=;]", line)[0].lower().replace("_", "-") for line in lines} | {"werkzeug", "botocore"}
    imported = {name.split(".")[0] for path in SOURCES for name in imports_of(path)} - sys.stdlib_module_names - {"pacslite"}
    owners = packages_distributions()
    found = {name: {owner.lower().replace("_", "-") for owner in owners.get(name, ())} for name in imported}
    assert not {name: its for name, its in found.items() if not its & declared}
