"""dcmtk's dcm2json as the second opinion on DICOM JSON: what it writes, and what two writers may not say differently."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

needs_dcm2json = pytest.mark.skipif(shutil.which("dcm2json") is None, reason="dcmtk is not installed")


# What dcm2json 3.6.7 does otherwise: it shows UN where we use the dictionaries and knows fewer private ones, drops
# trailing `^` of names, rounds the last digit of FL and FD, keeps trailing NULs and
# stray elements of group 0002, shows non-ASCII codes as they are, and cannot write compressed pixels (it
# stops there, which is the end of those files but for padding). It gives up on some character sets altogether.
def dcm2json(path: Path) -> dict[str, Any] | None:
    """What dcm2json makes of a file; None when it gives up."""
    done = subprocess.run(["dcm2json", "-q", "-ee", "-fc", path], capture_output=True, check=False, timeout=30)
    text = done.stdout.decode("utf_8", "replace").rstrip()
    if done.returncode and text.endswith(",}"):
        text = text[:-2] + "}"
    loaded: dict[str, Any] | None = json.loads(text) if text.startswith("{") and text.endswith("}") else None
    return loaded


def _plain(value: Any, vr: str) -> Any:
    """A value without what the two writers may do differently."""
    if isinstance(value, dict):
        return {key: text.rstrip("^ \0") for key, text in value.items() if text.rstrip("^ \0")} or None
    if vr in ("DS", "IS", "FD", "SV", "UV") and value is not None:
        try:
            return float(f"{float(str(value).rstrip(chr(0))):.15g}")
        except ValueError:
            return str(value).strip(" \0")
    if vr == "FL" and isinstance(value, (int, float)):
        return f"{value:.6g}"
    return value.rstrip(" \0") or None if isinstance(value, str) else value


def differences(ours: dict[str, Any], theirs: dict[str, Any], path: str = "") -> list[str]:
    """Where our document says something else than dcm2json's; bulk data is left to other tests."""
    found: list[str] = []
    for key in sorted(set(ours) | {key for key in theirs if not key.startswith("0002")}):
        a, b, where = ours.get(key), theirs.get(key), path + key
        if a is None or b is None:
            if not (b is None and a is not None and key >= "7FE00010"):
                found.append(f"{where}: {a} / {b}")
        elif "UN" in (a["vr"], b["vr"]) or "BulkDataURI" in a or "\ufffd" in str(b):
            continue
        elif a["vr"] != b["vr"]:
            found.append(f"{where}: {a['vr']} / {b['vr']}")
        elif a["vr"] == "SQ":
            one, other = a.get("Value", []), b.get("Value", [])
            if len(one) != len(other):
                found.append(f"{where}: {len(one)} / {len(other)} items")
            for i, (x, y) in enumerate(zip(one, other, strict=False), 1):
                found += differences(x, y or {}, f"{where}/{i}/")
        else:
            one = [_plain(v, a["vr"]) for v in a.get("Value", [])]
            other = [_plain(v, b["vr"]) for v in b.get("Value", [])]
            if (one != other and any(one + other)) or a.get("InlineBinary") != b.get("InlineBinary"):
                found.append(f"{where}: {a} / {b}"[:300])
    return found
