"""Installing the viewer: only the pinned package, only what is needed of it, free of its built-in base path."""

import gzip
import os
import stat
from pathlib import Path

import pytest

from pacslite.errors import Unavailable
from pacslite.ui import viewer_package
from tests.support.viewer_tarball import FILES, SCRIPT, SLIDES, UNTOUCHED, tarball, trust


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return trust(monkeypatch, tarball(tmp_path / "app.tgz", FILES))


def fake_npm(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    npm = directory / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{npm.parent}{os.pathsep}{os.environ['PATH']}")


def test_only_what_is_needed_is_installed(package: Path, tmp_path: Path) -> None:
    viewer = viewer_package.install(tmp_path, tarball=package)
    left_out = {"sw.js", "app-config.js", "ort/ort.wasm", f"{SLIDES}.map", f"{SCRIPT}.map"}
    assert set(viewer.files) == set(FILES) - left_out
    assert (viewer.directory / "LICENSE").read_bytes() == b"MIT"
    assert viewer == viewer_package.installed(tmp_path)


def test_no_built_in_base_path_is_left(package: Path, tmp_path: Path) -> None:
    directory = viewer_package.install(tmp_path, tarball=package).directory
    mark = viewer_package.BASE_MARK
    page = (directory / "index.html").read_text()
    assert (
        page
        == f'<script>window.PUBLIC_URL = \'{mark}\';</script><link href="{mark}app.bundle.css"><script src="{mark}app-config.js"></script>'
    )
    script = (directory / SCRIPT).read_text()
    assert "document.currentScript.src" in script
    assert "browserImportFunction(__webpack_require__.p + 'dicom-microscopy-viewer/a.js')" in script
    assert "url(0123456789abcdef0123.woff2)" in (directory / "app.bundle.css").read_text()
    assert '"assets/one.png"' in (directory / "manifest.json").read_text()
    assert '"one.png"' in (directory / "assets/manifest.webapp").read_text()


def test_no_script_asks_for_a_name_that_browsers_lack(package: Path, tmp_path: Path) -> None:
    directory = viewer_package.install(tmp_path, tarball=package).directory
    assert all(b"=e||__filename" not in path.read_bytes() for path in directory.glob("*.js"))


def test_a_rewritten_file_is_not_cached_for_ever(package: Path, tmp_path: Path) -> None:
    viewer = viewer_package.install(tmp_path, tarball=package)
    assert viewer.files[UNTOUCHED].fixed
    assert not viewer.files[SCRIPT].fixed


def test_large_texts_are_compressed_beforehand(package: Path, tmp_path: Path) -> None:
    viewer = viewer_package.install(tmp_path, tarball=package)
    packed = (viewer.directory / f"{SCRIPT}.gz").read_bytes()
    assert gzip.decompress(packed) == (viewer.directory / SCRIPT).read_bytes()
    assert viewer.files[SCRIPT].gzip_bytes == len(packed)
    assert viewer.files["init-service-worker.js"].gzip_bytes is None


def test_the_directory_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = tmp_path / "where"
    fake_npm(tmp_path, monkeypatch, f'while [ "$1" != --pack-destination ]; do shift; done; echo "$2" > {where}; exit 1')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Unavailable):
        viewer_package.install(Path("data"))
    assert Path(where.read_text().strip()).is_absolute()


def test_installing_again_fetches_nothing(package: Path, tmp_path: Path) -> None:
    first = viewer_package.install(tmp_path, tarball=package)
    assert viewer_package.install(tmp_path, tarball=tmp_path / "absent.tgz") == first


def test_a_viewer_of_another_revision_is_replaced(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = viewer_package.install(tmp_path, tarball=package).directory
    (old / "stray").touch()
    monkeypatch.setattr(viewer_package, "REVISION", viewer_package.REVISION + 1)
    assert viewer_package.installed(tmp_path) is None
    new = viewer_package.install(tmp_path, tarball=package)
    assert not (new.directory / "stray").exists()
    assert sorted(path.name for path in (tmp_path / "viewer").iterdir()) == [".lock", viewer_package.VERSION]


def test_another_tarball_is_refused_and_nothing_stays(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="SHA-512 is another"):
        viewer_package.install(tmp_path, tarball=tarball(tmp_path / "app.tgz", FILES))
    assert [path.name for path in (tmp_path / "viewer").iterdir()] == [".lock"]


def test_another_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = trust(monkeypatch, tarball(tmp_path / "app.tgz", FILES, version="3.12.9"))
    with pytest.raises(Unavailable, match=r"3\.12\.9"):
        viewer_package.install(tmp_path, tarball=other)


@pytest.mark.parametrize("name", ["../index.html", "assets/../../etc/passwd", "assets/../x", "/etc/passwd", "assets//..//x"])
def test_names_that_lead_out_are_never_needed(name: str) -> None:
    assert not viewer_package._is_needed(name)


def test_without_npm_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match=r"npm is not on PATH.*Install Node\.js"):
        viewer_package.install(tmp_path)


def test_npm_is_asked_for_the_pinned_version(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_npm(tmp_path, monkeypatch, f'echo "$@" > {tmp_path}/asked; cp {package} "$5/ohif-app.tgz"')
    steps: list[str] = []
    viewer_package.install(tmp_path / "data", progress=lambda step, done, total: steps.append(step))
    assert (tmp_path / "asked").read_text().startswith(f"pack @ohif/app@{viewer_package.VERSION} --ignore-scripts --pack-destination ")
    assert list(dict.fromkeys(steps)) == ["fetching", "unpacking"]


def test_what_npm_complains_of_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_npm(tmp_path, monkeypatch, "echo 'npm error code E404' >&2; exit 1")
    with pytest.raises(Unavailable, match=r"could not fetch .*code E404"):
        viewer_package.install(tmp_path / "data")


def test_a_silent_npm_is_ended_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_npm(tmp_path, monkeypatch, f"sleep 60 & echo $! > {tmp_path}/child; wait")
    monkeypatch.setattr(viewer_package, "_FETCH_TIMEOUT_S", 0.5)
    with pytest.raises(Unavailable, match="within"):
        viewer_package.install(tmp_path / "data")
    child = int((tmp_path / "child").read_text())
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z"
