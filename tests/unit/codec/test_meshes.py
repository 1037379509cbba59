"""Models: exact figures by a stream, a picture from a sample, in little memory; damaged ones fail with a reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pacslite.codec import apart, meshes
from pacslite.errors import UndecodablePixels
from tests.support import media
from tests.support.media import Corners, ball

BIG_ENDIAN: Callable[[Corners], bytes] = lambda corners: media.ply(corners, "binary_big_endian")  # noqa: E731
AS_TEXT: Callable[[Corners], bytes] = lambda corners: media.ply(corners, "ascii")  # noqa: E731
WRITERS = [
    pytest.param(media.stl, "stl", id="stl"),
    pytest.param(media.ascii_stl, "stl", id="stl as text"),
    pytest.param(media.obj, "obj", id="obj"),
    pytest.param(media.ply, "ply", id="ply"),
    pytest.param(BIG_ENDIAN, "ply", id="ply, big endian"),
    pytest.param(AS_TEXT, "ply", id="ply as text"),
]


def figures(data: bytes, kind: str, directory: Path) -> dict[str, Any]:
    """What is found out about a model; its picture is `picture.jpg`."""
    source = directory / "model"
    source.write_bytes(data)
    return meshes.make(str(source), kind, [(str(directory / "picture.jpg"), 400, 85)], str(directory))


def shades(directory: Path) -> NDArray[np.float64]:
    """The brightness of the pixels of the picture."""
    with Image.open(directory / "picture.jpg") as picture:
        return np.asarray(picture.convert("L"), float)


@pytest.mark.parametrize(("write", "kind"), WRITERS)
def test_a_closed_model(tmp_path: Path, write: Callable[[Corners], bytes], kind: str) -> None:
    found = figures(write(ball()), kind, tmp_path)
    assert (found["triangles"], found["degenerate_triangles"], found["is_watertight"]) == (2208, 0, True)
    assert found["dimensions"] == pytest.approx([20, 20, 20])
    assert found["bounds"][0] == pytest.approx([-10, -10, -10])


@pytest.mark.parametrize(("write", "kind"), WRITERS)
def test_a_hole_of_one_triangle(tmp_path: Path, write: Callable[[Corners], bytes], kind: str) -> None:
    found = figures(write(np.delete(ball(), 700, axis=0)), kind, tmp_path)
    assert (found["triangles"], found["is_watertight"]) == (2207, False)


def test_a_triangle_too_many_and_one_twice(tmp_path: Path) -> None:
    corners = ball()
    assert not figures(media.stl(np.concatenate([corners, corners[5:6]])), "stl", tmp_path)["is_watertight"]
    # Two balls are closed, even where they are the same ball: then an edge has four triangles.
    assert figures(media.stl(np.concatenate([corners, corners + 50])), "stl", tmp_path)["is_watertight"]
    assert not figures(media.stl(np.concatenate([corners, corners])), "stl", tmp_path)["is_watertight"]


def test_degenerate_triangles_are_counted_and_do_not_matter(tmp_path: Path) -> None:
    corners = ball()
    point, line = np.repeat(corners[:1, :1], 3, axis=1), corners[:1][:, [0, 1, 1]]
    on_a_line = np.array([[[0, 0, 0], [1, 0, 0], [2, 0, 0]]], float)
    found = figures(media.stl(np.concatenate([corners, point, line])), "stl", tmp_path)
    assert (found["degenerate_triangles"], found["is_watertight"]) == (2, True)
    assert figures(media.stl(on_a_line), "stl", tmp_path)["degenerate_triangles"] == 1


def test_both_zeros_are_one_place(tmp_path: Path) -> None:
    corners = np.where(ball() == 0, -0.0, ball())
    corners[::2] += 0.0
    assert figures(media.stl(corners), "stl", tmp_path)["is_watertight"]


def test_polygons_are_cut_into_triangles(tmp_path: Path) -> None:
    cube = "".join(f"v {x} {y} {z}\n" for x in (0, 2) for y in (0, 3) for z in (0, 4))
    faces = "f 1 2 4 3\nf 5 7 8 6\nf 1 5 6 2\nf 3 4 8 7\nf 1 3 7 5\nf 2 6 8 4\n"
    found = figures((faces + cube).encode(), "obj", tmp_path)  # faces before vertices will do as well
    assert (found["triangles"], found["is_watertight"], found["dimensions"]) == (12, True, [2, 3, 4])


def test_many_triangles_are_read_exactly_and_drawn_from_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = media.ply(ball(100))
    whole = figures(model, "ply", tmp_path)
    full = shades(tmp_path)
    monkeypatch.setattr(meshes, "SAMPLE", 10_000)
    assert figures(model, "ply", tmp_path) == whole
    sampled = shades(tmp_path)
    assert whole["triangles"] == 39_600
    assert np.abs(full - sampled).mean() < 6


def test_the_picture_shows_the_model_on_white(tmp_path: Path) -> None:
    figures(media.stl(ball()), "stl", tmp_path)
    grey = shades(tmp_path)
    assert grey.shape == (400, 400)
    assert grey[:10].min() > 245
    # A ball fills its circle without gaps, lighter where the light comes from.
    y, x = np.mgrid[:400, :400]
    assert grey[(x - 200) ** 2 + (y - 200) ** 2 < 170**2].max() < 250
    assert grey[120, 160] > grey[300, 280] + 40


def test_a_wall_is_filled(tmp_path: Path) -> None:
    wall = np.array([[[-1, 0, -1], [1, 0, -1], [1, 0, 1]], [[-1, 0, -1], [1, 0, 1], [-1, 0, 1]]], float)
    figures(media.stl(wall), "stl", tmp_path)
    grey = shades(tmp_path)
    assert grey[150:250, 150:250].std() < 2
    assert grey[200, 200] < 245


BROKEN = {
    "stl too short": ("stl", media.stl(ball())[:-20]),
    "stl of no length": ("stl", b""),
    "stl with no number": ("stl", media.stl(np.full((1, 3, 3), np.nan))),
    "stl with an infinite one": ("stl", media.stl(np.full((1, 3, 3), np.inf))),
    "stl ends in a triangle": ("stl", b"solid a\nfacet normal 0 0 1\nouter loop\nvertex 1 2 3\nvertex 1 2 3\n"),
    "stl of words": ("stl", b"solid a\nvertex one two three\nvertex 1 2 3\nvertex 1 2 3\n"),
    "obj without faces": ("obj", b"v 1 2 3\n"),
    "obj names what is not there": ("obj", b"v 1 2 3\nf 1 2 3\n"),
    "obj counts back too far": ("obj", b"v 1 2 3\nf -1 -2 -3\n"),
    "obj of words": ("obj", b"v one two three\nf 1 1 1\n"),
    "obj with a huge number": ("obj", b"v 1 2 3\nf 1 1 99999999999999999999999\n"),
    "obj with an endless line": ("obj", b"v " + b"1 " * 1_000_000),
    "obj with many corners": ("obj", b"v 1 2 3\nf " + b"1 " * 20_000),
    "ply too short": ("ply", media.ply(ball())[:-20]),
    "ply too short as text": ("ply", media.ply(ball(), "ascii")[:-2000]),
    "ply of an unknown type": ("ply", b"ply\nformat ascii 1.0\nelement vertex 1\nproperty quad x\nend_header\n1\n"),
    "ply with too many faces": ("ply", media.ply(ball()).replace(b"element face ", b"element face 9999")),
    "ply without coordinates": ("ply", b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float a\nend_header\n1\n"),
    "ply without an end": ("ply", b"ply\nformat ascii 1.0\n"),
    "ply faces first": (
        "ply",
        b"ply\nformat ascii 1.0\nelement face 1\nproperty list uchar int vertex_indices\nelement vertex 3\nproperty float x\nend_header\n",
    ),
    "ply of points": (
        "ply",
        b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\nend_header\n1 2 3\n",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_fails_with_a_reason(tmp_path: Path, name: str) -> None:
    kind, data = BROKEN[name]
    with pytest.raises(UndecodablePixels):
        figures(data, kind, tmp_path)


def test_a_large_model_takes_little_memory(tmp_path: Path) -> None:
    """More triangles than are drawn; the process with all its libraries stays within 64 MiB."""
    source = tmp_path / "model.stl"
    source.write_bytes(media.stl(ball(380)))
    wanted = [(str(tmp_path / f"{pixels}.jpg"), pixels, 80) for pixels in (1200, 800, 200)]
    bounds = apart.Bounds(120, 3 * 1024**3, 2 * 1024**3)
    found, most_kib = apart.run("tests.support.peak_memory:measured", meshes.TASK, str(source), "stl", wanted, str(tmp_path), bounds=bounds)
    assert found["is_watertight"]
    assert found["triangles"] > meshes.SAMPLE
    assert most_kib < 64 * 1024, most_kib
