"""What ffmpeg is given to read, and what not: one local file of a known container, no playlist, no other file, no network."""

from __future__ import annotations

from pathlib import Path

import pytest

from pacslite.codec import apart, video
from pacslite.errors import Unavailable, UndecodablePixels
from tests.support import media
from tests.support.processes import until

BOUNDS = apart.Bounds(60, 3 * 1024**3, 100_000_000)


def make(path: Path, target: Path | None, bounds: apart.Bounds = BOUNDS) -> dict[str, object]:
    picture = path.with_suffix(".jpg")
    found: dict[str, object] = apart.run(video.TASK, str(path), target and str(target), [(str(picture), 200, 75)], 1, bounds=bounds)
    return found


def test_what_a_video_is(tmp_path: Path) -> None:
    film = video.probe(media.video(tmp_path, "webm"))
    assert (film.codec, film.audio_codec, film.width, film.height) == ("vp8", "vorbis", 160, 120)
    assert film.duration_s == pytest.approx(1.6, abs=0.1)


def test_odd_sizes_become_even(tmp_path: Path) -> None:
    source, target = media.video(tmp_path, "mkv", 0.5, "161x121"), tmp_path / "made.mp4"
    assert make(source, target)["problem"] is None
    made = video.probe(target)
    assert (made.width, made.height) == (160, 120)


def test_a_phone_held_upright(tmp_path: Path) -> None:
    level = media.video(tmp_path, "mp4")
    upright = tmp_path / "upright.mp4"
    video._run(["ffmpeg", "-v", "error", "-i", str(level), "-c", "copy", "-metadata:s:v", "rotate=90", str(upright)])
    target = tmp_path / "made.mp4"
    info = make(upright, target)["info"]
    assert isinstance(info, dict)
    assert (info["width"], info["height"]) == (120, 160)


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile /etc/hostname\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>',
        b"[Script Info]\nTitle: x\n",
        b"\x7fELF" + bytes(200),
        b"",
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.m3u8", "a.avi"])
def test_lists_of_other_files_are_refused(tmp_path: Path, content: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UndecodablePixels):
        video.probe(path)


@pytest.mark.parametrize(
    "content",
    [
        "ffconcat version 1.0\nfile {0}\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-VERSION:3\n#EXTINF:1.6,\n{0}\n#EXT-X-ENDLIST\n",
    ],
)
def test_a_list_that_names_a_video_beside_it_is_refused(tmp_path: Path, content: str) -> None:
    other, path = media.video(tmp_path, "mpg"), tmp_path / "list.avi"
    path.write_text(content.format(other.name))
    with pytest.raises(UndecodablePixels):
        video.probe(path)


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    video._run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac", str(path)])
    with pytest.raises(UndecodablePixels, match="no moving picture"):
        video.probe(path)


def test_a_cut_mp4_is_not_served_as_it_is(tmp_path: Path) -> None:
    whole = media.video(tmp_path, "mp4")
    assert video.is_fit(video.film_of(str(whole)), str(whole))
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    assert not video.is_fit(video.film_of(str(cut)), str(cut))


def test_the_time_is_bounded_and_nothing_is_left_running(tmp_path: Path) -> None:
    source = media.video(tmp_path, "mkv", 30, "640x480")
    with pytest.raises(UndecodablePixels, match="not done within"):
        make(source, tmp_path / "made.mp4", apart.Bounds(0.5, 3 * 1024**3, 100_000_000))
    _wait_until_gone(str(source))


def test_the_size_of_what_is_written_is_bounded(tmp_path: Path) -> None:
    source = media.video(tmp_path, "mkv", 3, "320x240")
    assert make(source, tmp_path / "made.mp4", apart.Bounds(60, 3 * 1024**3, 2000))["problem"]


def test_the_memory_is_bounded(tmp_path: Path) -> None:
    found = make(media.video(tmp_path, "avi"), tmp_path / "made.mp4", apart.Bounds(60, 3 * 1024**3, 10**8))
    assert found["problem"] is None
    with pytest.raises(UndecodablePixels):
        apart.run("tests.support.peak_memory:allocate", 10**9, bounds=apart.Bounds(60, 512 * 1024**2, 10**8))


def test_a_stopped_job_ends_it(tmp_path: Path) -> None:
    source = media.video(tmp_path, "mkv", 30, "640x480")
    with pytest.raises(apart.Stopped):
        apart.run(video.TASK, str(source), str(tmp_path / "made.mp4"), [], 1, bounds=BOUNDS, is_stopping=lambda: True)
    _wait_until_gone(str(source))


def test_without_ffprobe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not video.is_there()
    with pytest.raises(Unavailable, match="not installed"):
        video.probe(tmp_path / "a.mp4")


def _wait_until_gone(word: str) -> None:
    """What was killed is gone when the kernel has cleaned up after it."""
    until(lambda: not _running(word), what=f"the end of {word}")


def _running(word: str) -> list[str]:
    """The processes that name a word and are not over."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (directory / "cmdline").read_bytes():
                found.append(directory.name)
        except OSError:
            continue
    return found
