"""What compressed pictures and videos say of themselves, whole and damaged."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pacslite.core import encapsulation, pictures
from pacslite.core.encapsulation import BulkPart
from pacslite.dicom import code_stream, video
from pacslite.dicom.from_json import Extent
from pacslite.errors import InstanceRefused
from tests.support.stow import mp4, mpeg2

COLOUR = np.arange(12 * 8 * 3, dtype=np.uint8).reshape(12, 8, 3)


def saved(kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(COLOUR).save(out, kind, **options)
    return out.getvalue()


WHOLE = {
    "jpeg": saved("JPEG"),
    "j2k": bytes(imagecodecs.jpeg2k_encode(COLOUR, codecformat="j2k")),
    "jp2": bytes(imagecodecs.jpeg2k_encode(COLOUR, codecformat="jp2")),
    "htj2k": bytes(imagecodecs.htj2k_encode(COLOUR[..., 0].copy())),
    "jls": bytes(imagecodecs.jpegls_encode(COLOUR)),
    "mp4": mp4(),
    "mpeg": mpeg2(),
    "png": saved("PNG"),
    "gif": saved("GIF"),
}


def reader(content: bytes) -> Callable[[int, int], bytes]:
    return lambda at, size: content[at : at + max(size, 0)]


@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_damage_is_refused_by_name_or_not_seen(name: str, data: st.DataObject) -> None:
    content = bytearray(WHOLE[name])
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, min(len(content), 400) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        video.describe(reader(damaged), len(damaged))
        code_stream.describe(reader(damaged))
        if name in ("png", "gif"):
            for _ in pictures.decode(reader(damaged), len(damaged), 10**6).pixels:
                pass
    except InstanceRefused:
        pass


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 7, 8, 64])
def test_frames_are_told_apart_wherever_pieces_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(encapsulation, "_PIECE_BYTES", piece)
    frames = [WHOLE["jpeg"] + b"\0" * (len(WHOLE["jpeg"]) % 2)] * 2 + [WHOLE["jpeg"]] * 2
    file = tmp_path / "bulk"
    file.write_bytes(b"before" + b"".join(frames))
    extent = Extent(file, 6, sum(map(len, frames)))
    found = encapsulation.frames_of([BulkPart(extent, "image/jpeg", "", "x")], 4, described=False).frames
    assert [file.read_bytes()[f.offset : f.offset + f.length] for f in found] == frames


def test_frames_beyond_4_gib_get_an_extended_table(tmp_path: Path) -> None:
    frames = [Extent(tmp_path, 0, 1 << 31)] * 3
    ready = encapsulation.encapsulated(frames)
    assert set(ready) == {0x7FE00010, 0x7FE00001, 0x7FE00002}
    single = encapsulation.encapsulated([Extent(tmp_path, 0, 5 << 30)])
    assert set(single) == {0x7FE00010}
    assert [s.length for s in single[0x7FE00010] if isinstance(s, Extent)] == [1 << 31, 1 << 31, 1 << 30]
