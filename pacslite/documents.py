"""Documents made from the code: `python -m pacslite.documents DOCS CONF` writes docs/settings.md, docs/conformance.md
and conf/pacslite.toml.

A test fails when they are not up to date.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, get_type_hints

from pacslite.settings import FIELDS, Address, Settings, variable

_KINDS: dict[Any, str] = {
    bool: "on or off",
    int: "whole number",
    str: "text",
    Address: "HOST:PORT",
    Address | None: "HOST:PORT",
    Path: "path",
    tuple[str, ...]: "list",
}
_HEAD = """# Settings

Made by `make docs` from `pacslite/settings.py`. Each setting has a default, a key in the TOML file (`--config FILE` or
`PACSLITE_CONFIG`), and an environment variable. What is given later in this row wins: default, file, environment, command line.
An unknown key of the file or an unknown option is an error that names it; an unknown `PACSLITE_*` variable is one warning.
Secrets (marked `*`) may be given as a file: `PACSLITE_..._FILE` names it. `pacslite config show` prints what is in force.
A list is written with commas in a variable, as a list in the file. `conf/pacslite.toml` is a sample with every key.

| Key | Variable | Kind | Default | |
|---|---|---|---|---|
"""
_SAMPLE_HEAD = """# Every setting of pacslite with its default; docs/settings.md is the same as a table.
# Made by `make docs`. Remove the # before a line to set it.
"""


def settings_page() -> str:
    """docs/settings.md."""
    hints = get_type_hints(Settings)
    rows = []
    for name, field in FIELDS.items():
        meta = field.metadata
        kind = " or ".join(f"`{choice}`" for choice in meta["choices"]) or _KINDS.get(hints[name], _kind_of(hints[name]))
        secret = "*" if meta["secret"] else ""
        shown = _default(name)
        default = f"`{shown}`" if shown else "none"
        rows.append(f"| `{name}`{secret} | `{variable(name)}` | {kind} | {default} | {meta['help']} |")
    return _HEAD + "\n".join(rows) + "\n"


def settings_sample() -> str:
    """conf/pacslite.toml."""
    lines = []
    for name, field in FIELDS.items():
        value = _default_value(name)
        lines += ["", f"# {field.metadata['help']}", f"#{name} = {_toml(value)}"]
    return _SAMPLE_HEAD + "\n".join(lines) + "\n"


def _kind_of(hint: Any) -> str:
    if hint == str | None:
        return "text"
    return "path" if hint == Path | None else "JSON object"


def _default_value(name: str) -> Any:
    value = getattr(Settings(), name)
    if isinstance(value, Address):
        return value.text
    return str(value) if isinstance(value, Path) else value


def _default(name: str) -> str:
    value = _default_value(name)
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(value)
    if value in (None, {}):
        return ""
    return str(value)


def _toml(value: Any) -> str:
    if value is None:
        return '""'
    if isinstance(value, dict):
        return "{}"
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def write(docs: Path, conf: Path) -> None:
    """Writes all documents."""
    from pacslite import conformance

    (docs / "settings.md").write_text(settings_page())
    (docs / "conformance.md").write_text(conformance.page())
    (conf / "pacslite.toml").write_text(settings_sample())


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
