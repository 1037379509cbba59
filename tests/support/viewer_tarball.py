"""A small stand-in for the viewer's npm package, with the same kinds of files and places to rewrite."""

import base64
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from pacslite.ui import viewer_package

SCRIPT = "app.bundle.0123456789abcdef0123.js"
SLIDES = "dicom-microscopy-viewer/dicomMicroscopyViewer.min.js"
UNTOUCHED = "85.bundle.0123456789abcdef0123.js"
FILES = {
    "index.html": b'<script>window.PUBLIC_URL = \'/\';</script><link href="/app.bundle.css"><script src="/app-config.js"></script>',
    "manifest.json": b'{"icons":[{"src":"/assets/one.png"}]}',
    "init-service-worker.js": b"//",
    "app.bundle.css": b"@font-face{src:url(/0123456789abcdef0123.woff2)}",
    SCRIPT: b"__webpack_require__.p = \"/\";browserImportFunction('/dicom-microscopy-viewer/a.js')" + b" " * 4000,
    UNTOUCHED: b"1",
    "86.bundle.0123456789abcdef0123.js": b"return true&&(e=e||__filename)",
    "assets/manifest.webapp": b'{"60":"/assets/one.png"}',
    "assets/one.png": b"png",
    "sw.js": b"importScripts('https://elsewhere')",
    "app-config.js": b"window.config = {}",
    "ort/ort.wasm": b"x",
    SLIDES: b"x",
    f"{SLIDES}.map": b"x",
    f"{SCRIPT}.map": b"x",
}


def tarball(path: Path, files: dict[str, bytes], *, name: str = "@ohif/app", version: str = viewer_package.VERSION) -> Path:
    described = json.dumps({"name": name, "version": version}).encode()
    contents = {"package.json": described, "LICENSE": b"MIT", **{f"dist/{key}": value for key, value in files.items()}}
    with tarfile.open(path, "w:gz") as archive:
        for key, value in contents.items():
            member = tarfile.TarInfo(f"package/{key}")
            member.size = len(value)
            archive.addfile(member, io.BytesIO(value))
    return path


def trust(monkeypatch: pytest.MonkeyPatch, path: Path) -> Path:
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    monkeypatch.setattr(viewer_package, "INTEGRITY", digest)
    return path
