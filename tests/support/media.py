"""Real pictures, videos and models for tests, made here by Pillow, libheif, ffmpeg and numpy."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Corners = NDArray[np.float64]


def photo(width: int = 1600, height: int = 1000) -> Image.Image:
    """A scene that tells where up and left are: red in the upper left corner, a white disc below the middle."""
    values = np.empty((height, width, 3), np.uint8)
    values[..., 0] = np.linspace(0, 200, width, dtype=np.uint8)[None]
    values[..., 1] = np.linspace(0, 200, height, dtype=np.uint8)[:, None]
    values[..., 2] = 120
    image = Image.fromarray(values)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width // 4, height // 4), fill=(255, 0, 0))
    draw.ellipse((width // 2, height // 2, width // 2 + height // 4, height // 2 + height // 4), fill="white")
    return image


def is_the_photo(image: Image.Image) -> bool:
    """Whether a picture shows the scene the right way up and in its colours, as far as a JPEG keeps them."""
    small = image.convert("RGB").resize((160, 100))
    red = np.array(small.getpixel((15, 10)))
    corner = np.array(small.getpixel((155, 95)))
    return bool(np.abs(red - (255, 0, 0)).max() < 30 and np.abs(corner - (195, 192, 120)).max() < 30)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    """A picture as Pillow writes it."""
    out = io.BytesIO()
    image.save(out, form, **options)  # type: ignore[arg-type]
    return out.getvalue()


def heic(image: Image.Image, directory: Path) -> bytes:
    """A picture as libheif writes it; skips the test where its program is not."""
    if shutil.which("heif-enc") is None:
        pytest.skip("heif-enc is not installed (package libheif-examples)")
    source, made = directory / "heic.png", directory / "made.heic"
    image.save(source)
    subprocess.run(["heif-enc", str(source), "-o", str(made)], check=True, capture_output=True, timeout=60)
    return made.read_bytes()


# What each container holds in these tests; the sound is a sine.
VIDEO_CODING = {
    "avi": ("-c:v", "mpeg4", "-c:a", "libmp3lame"),
    "mov": ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac", "-metadata", "location=+52.5+13.4/", "-metadata", "title=Maier"),
    "mkv": ("-c:v", "ffv1", "-c:a", "pcm_s16le"),
    "webm": ("-c:v", "libvpx", "-deadline", "realtime", "-c:a", "libvorbis"),
    "mpg": ("-c:v", "mpeg2video", "-c:a", "mp2"),
    "3gp": ("-c:v", "h263", "-s", "176x144", "-c:a", "aac"),
    "mp4": ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac", "-movflags", "+faststart"),
}


def video(directory: Path, extension: str, seconds: float = 1.6, size: str = "160x120", *more: str) -> Path:
    """A video of a second and a half: red up to 0.8 s, then blue."""
    made = directory / f"video-{size}-{seconds}.{extension}"
    colours = f"color=red:size={size}:rate=25:duration={min(0.8, seconds)}"
    scene = f"{colours}[a];color=blue:size={size}:rate=25:duration={max(0.04, seconds - 0.8)}[b];[a][b]concat=n=2:v=1:a=0"
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", scene, "-f", "lavfi", "-i", "sine", "-t", str(seconds)]
    subprocess.run([*command, *VIDEO_CODING[extension], *more, str(made)], check=True, timeout=60)
    return made


def ball(rings: int = 24, radius: float = 10.0) -> Corners:
    """The triangles of a closed ball; 2 * rings * (2 * rings - 2) of them."""
    polar, around = np.linspace(0, np.pi, rings + 1), np.linspace(0, 2 * np.pi, 2 * rings, endpoint=False)
    grid = np.stack(
        [
            np.outer(np.sin(polar), np.cos(around)),
            np.outer(np.sin(polar), np.sin(around)),
            np.outer(np.cos(polar), np.ones_like(around)),
        ],
        axis=2,
    )
    grid[0], grid[-1] = (0, 0, 1), (0, 0, -1)
    # To float32 first: equal corners have equal bits whatever the format.
    grid = (grid * radius).astype(np.float32).astype(np.float64)
    a, b = grid[:-1], grid[1:]
    c, d = np.roll(a, -1, axis=1), np.roll(b, -1, axis=1)
    lower, upper = np.stack([a, b, d], axis=2)[:-1].reshape(-1, 3, 3), np.stack([a, d, c], axis=2)[1:].reshape(-1, 3, 3)
    return np.concatenate([lower, upper])


def stl(corners: Corners) -> bytes:
    """A binary STL."""
    records = np.zeros(len(corners), np.dtype([("n", "<f4", 3), ("c", "<f4", (3, 3)), ("a", "<u2")]))
    records["c"] = corners
    return b"model".ljust(80) + len(corners).to_bytes(4, "little") + records.tobytes()


def ascii_stl(corners: Corners) -> bytes:
    """The same as text."""
    one = "facet normal 0 0 0\n outer loop\n" + "  vertex %.9g %.9g %.9g\n" * 3 + " endloop\nendfacet\n"
    return ("solid model\n" + "".join(one % tuple(c.ravel()) for c in corners) + "endsolid model\n").encode()


def _indexed(corners: Corners) -> tuple[Corners, NDArray[np.int64]]:
    places, numbers = np.unique(corners.reshape(-1, 3), axis=0, return_inverse=True)
    return places, numbers.reshape(-1, 3)


def obj(corners: Corners) -> bytes:
    """An OBJ whose faces name their vertices in all the ways there are: by number, with texture, counted back."""
    places, numbers = _indexed(corners)
    lines = ["# model", *(f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in places)]
    forms = ("{0}", "{0}/1", "{0}//2", "{0}/1/2")
    for at, (a, b, c) in enumerate(numbers + 1):
        form = forms[at % 4]
        back = a - len(places) - 1
        lines.append(f"f {back if at % 5 == 0 else form.format(a)} {form.format(b)} {form.format(c)}")
    return "\n".join(lines).encode() + b"\n"


def ply(corners: Corners, form: str = "binary_little_endian") -> bytes:
    """A PLY of that form, with a normal in its vertices and a colour in its faces."""
    places, numbers = _indexed(corners)
    head = f"ply\nformat {form} 1.0\ncomment model\nelement vertex {len(places)}\n"
    head += "".join(f"property float {name}\n" for name in ("x", "y", "z", "nx"))
    head += f"element face {len(numbers)}\nproperty list uchar int vertex_indices\nproperty uchar red\nend_header\n"
    if form == "ascii":
        rows = [f"{x:.9g} {y:.9g} {z:.9g} 0" for x, y, z in places] + [f"3 {a} {b} {c} 7" for a, b, c in numbers]
        return head.encode() + "\n".join(rows).encode() + b"\n"
    order = "<" if form == "binary_little_endian" else ">"
    vertices = np.zeros((len(places), 4), order + "f4")
    vertices[:, :3] = places
    faces = np.zeros(len(numbers), np.dtype([("n", "u1"), ("c", order + "i4", 3), ("red", "u1")]))
    faces["n"], faces["c"] = 3, numbers
    return head.encode() + vertices.tobytes() + faces.tobytes()
