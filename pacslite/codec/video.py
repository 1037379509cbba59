"""Videos by ffmpeg: what they are, an MP4 that every browser plays, and a picture of them.

ffmpeg is a program beside this one (`PATH`); without it nothing is made of videos. It reads one local file of a few known containers
and nothing else: no network, no playlists, no files that a file names. Whoever calls `make` or `look` does so in a process of its
own (`apart`), whose bounds ffmpeg has too; `probe` makes that process itself.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pacslite.codec import apart
from pacslite.errors import Unavailable, UndecodablePixels

TASK = "pacslite.codec.video:make"
MISSING = "ffmpeg and ffprobe are not installed on this machine."

# By the first name of libavformat's demuxers; playlists (hls, concat, dash) and whatever opens other files are not among them.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo"
_READING = ("-protocol_whitelist", "file", "-format_whitelist", _CONTAINERS)
_PROBE_BOUNDS = apart.Bounds(seconds=20, memory_bytes=2 * 1024**3, file_bytes=1024 * 1024)
_MOST_SAID = 4 * 1024 * 1024
_MOST_FRAME = 64 * 1024 * 1024
_LARGEST_DIMENSION = 16_384
_LARGEST_SERVED = 3840
_PICTURE_AT_S = 1.0
_FRAME_PIXELS = 1200
_MOST_BOXES = 1000
_ENDED_BY_US = "ffmpeg had to be ended: the video takes more memory, time or room than it may."


@dataclass(frozen=True, slots=True)
class Film:
    """What ffprobe says about a video; width and height as it is shown."""

    container: str
    codec: str
    pixel_format: str
    width: int
    height: int
    duration_s: float | None
    frame_rate: float | None
    audio_codec: str | None
    brand: str
    is_interlaced: bool
    is_tagged: bool
    streams: int


def is_there() -> bool:
    """Whether ffmpeg and ffprobe are on the path."""
    return shutil.which("ffmpeg") is not None and shutil.which("ffprobe") is not None


def probe(path: Path | str) -> Film:
    """What a video is. Raises UndecodablePixels with the reason when it cannot be read, Unavailable without ffprobe."""
    if shutil.which("ffprobe") is None:
        raise Unavailable(MISSING)
    return Film(**apart.run("pacslite.codec.video:look", os.fspath(path), bounds=_PROBE_BOUNDS))


def look(path: str) -> dict[str, Any]:
    """The fields of Film, for a file."""
    return asdict(film_of(path))


def film_of(path: str) -> Film:
    """What ffprobe says; raises UndecodablePixels."""
    command = ["ffprobe", "-v", "error", *_READING, "-show_format", "-show_streams", "-of", "json", _url(path)]
    said = json.loads(_run(command) or b"{}")
    streams, form = said.get("streams", []), said.get("format", {})
    films = [s for s in streams if s.get("codec_type") == "video" and not s.get("disposition", {}).get("attached_pic")]
    if not films or not films[0].get("codec_name") or not films[0].get("width"):
        raise UndecodablePixels("It has no moving picture that can be read.")
    film = films[0]
    width, height = int(film["width"]), int(film["height"])
    if max(width, height) > _LARGEST_DIMENSION:
        raise UndecodablePixels(f"The video is {width} x {height} pixels large; no dimension may be above {_LARGEST_DIMENSION}.")
    if _is_on_its_side(film):
        width, height = height, width
    sound = next((s for s in streams if s.get("codec_type") == "audio" and s.get("codec_name")), None)
    return Film(
        container=str(form.get("format_name", "")),
        codec=str(film["codec_name"]),
        pixel_format=str(film.get("pix_fmt", "")),
        width=width,
        height=height,
        duration_s=_number(form.get("duration")) or _number(film.get("duration")),
        frame_rate=_rate(film.get("avg_frame_rate")) or _rate(film.get("r_frame_rate")),
        audio_codec=str(sound["codec_name"]) if sound else None,
        brand=str(form.get("tags", {}).get("major_brand", "")).strip(),
        is_interlaced=film.get("field_order", "progressive") not in ("progressive", "unknown"),
        is_tagged=any("location" in name.lower() for s in (form, *streams) for name in s.get("tags", {})),
        streams=len(streams),
    )


def _is_on_its_side(stream: dict[str, Any]) -> bool:
    turns = [side.get("rotation") for side in stream.get("side_data_list", ())]
    return any(isinstance(turn, int | float) and round(turn / 90) % 2 for turn in turns)


def _number(text: Any) -> float | None:
    try:
        found = float(text)
    except (TypeError, ValueError):
        return None
    return found if 0 < found < 1e8 else None


def _rate(text: Any) -> float | None:
    above, _, below = str(text or "").partition("/")
    up, down = _number(above), _number(below or 1)
    return round(up / down, 3) if up and down else None


def _url(path: str) -> str:
    return f"file:{Path(path).resolve()}"


def _run(command: Sequence[str], most: int = _MOST_SAID) -> bytes:
    """What a program writes; raises UndecodablePixels with the last it said when it fails."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, preexec_fn=apart.die_with_parent)
    except FileNotFoundError as error:
        raise Unavailable(MISSING) from error
    if done.returncode < 0 or len(done.stdout) > most:
        raise UndecodablePixels(_ENDED_BY_US)
    if done.returncode and os.strerror(errno.ENOSPC).encode() in done.stderr:
        raise OSError(errno.ENOSPC, "no room for the video")
    if done.returncode:
        raise UndecodablePixels(f"The video cannot be read: {_reason(done.stderr)}")
    return done.stdout


def _reason(said: bytes) -> str:
    """The last thing it said, without the names of files."""
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else "unknown reason"
    return last.rpartition(": ")[2][:200] if "file:" in last else last[:200]


# An MP4 that every browser plays


def make(path: str, target: str | None, wanted: Sequence[tuple[str, int, int]], threads: int) -> dict[str, Any]:
    """Write the MP4 to `target` and the pictures; None for a target that is not to be made.

    Gives what was found out (`info`), whether the file as it is will do instead of an MP4 (`same`), and the reasons where something
    could not be made (`problem`, `picture_problem`).
    """
    film = film_of(path)
    result: dict[str, Any] = {"same": False, "problem": None, "picture_problem": None}
    if target is not None:
        try:
            result["same"] = is_fit(film, path)
            if not result["same"]:
                _convert(path, target, film, threads)
        except UndecodablePixels as error:
            result["problem"] = str(error)
    if wanted:
        try:
            _pictures(path, film, wanted)
        except UndecodablePixels as error:
            result["picture_problem"] = str(error)
    made = film_of(target) if target is not None and not result["same"] and not result["problem"] else film
    result["info"] = {
        "width": made.width,
        "height": made.height,
        "duration_s": made.duration_s or film.duration_s,
        "frame_rate": made.frame_rate,
        "video_codec": film.codec,
        "audio_codec": film.audio_codec,
        "container": film.container.partition(",")[0],
    }
    return result


def _has_codecs(film: Film) -> bool:
    return film.codec == "h264" and film.pixel_format == "yuv420p" and film.audio_codec in (None, "aac") and not film.is_interlaced


def is_fit(film: Film, path: str) -> bool:
    """Whether browsers play the file as it is: H.264 and AAC in an MP4 whose index comes first, and no place in its metadata."""
    is_mp4 = film.container.startswith("mov,mp4") and film.brand not in ("", "qt") and not film.brand.startswith("3g")
    is_small = film.streams <= 2 and max(film.width, film.height) <= _LARGEST_SERVED and film.width % 2 == film.height % 2 == 0
    return is_mp4 and is_small and _has_codecs(film) and not film.is_tagged and _begins_with_index(path)


def _begins_with_index(path: str) -> bool:
    """Whether `moov` comes before `mdat`, and every box is whole (ISO/IEC 14496-12, 4.2, 8.1 and 8.2)."""
    kinds: list[bytes] = []
    with open(path, "rb") as file:
        at, size = 0, os.fstat(file.fileno()).st_size
        while at + 8 <= size and len(kinds) < _MOST_BOXES:
            file.seek(at)
            head = file.read(16)
            length, kind = struct.unpack(">I4s", head[:8])
            if length == 1 and len(head) == 16:
                length = struct.unpack(">Q", head[8:])[0]
            if length < 8:
                return False
            kinds.append(kind)
            at += length
    is_first = b"moov" in kinds and b"mdat" in kinds and kinds.index(b"moov") < kinds.index(b"mdat")
    return is_first and at == size


def _convert(path: str, target: str, film: Film, threads: int) -> None:
    can_copy = _has_codecs(film) and film.container.startswith(("mov,mp4", "matroska"))
    if can_copy and film.width % 2 == film.height % 2 == 0 and max(film.width, film.height) <= _LARGEST_SERVED:
        try:
            _write_mp4(path, target, ["-c", "copy"], threads)
            return
        except UndecodablePixels:
            Path(target).unlink(missing_ok=True)  # what cannot be taken over is coded anew
    _write_mp4(path, target, _coding(film), threads)


def _coding(film: Film) -> list[str]:
    ratio = min(1.0, _LARGEST_SERVED / max(film.width, film.height))
    width, height = (max(2, int(side * ratio) // 2 * 2) for side in (film.width, film.height))
    filters = [*(["yadif=deint=interlaced"] if film.is_interlaced else []), f"scale={width}:{height}", "format=yuv420p"]
    return [
        *("-vf", ",".join(filters), "-c:v", "libx264", "-preset", "fast", "-crf", "20", "-profile:v", "high"),
        *("-c:a", "aac", "-b:a", "160k", "-ac", "2", "-max_muxing_queue_size", "1024"),
    ]


def _write_mp4(path: str, target: str, coding: Sequence[str], threads: int) -> None:
    command = [
        *("ffmpeg", "-nostdin", "-hide_banner", "-v", "error", "-threads", str(threads), *_READING, "-i", _url(path)),
        *("-map", "0:V:0", "-map", "0:a:0?", "-map_metadata", "-1", "-map_metadata:s", "-1", "-map_chapters", "-1", "-sn", "-dn"),
        *(*coding, "-threads", str(threads), "-filter_threads", str(threads), "-movflags", "+faststart", "-f", "mp4", "-y", _url(target)),
    ]
    _run(command)


def _pictures(path: str, film: Film, wanted: Sequence[tuple[str, int, int]]) -> None:
    """At one second, or in the middle of a shorter video; the first frame where there is none at that time."""
    from pacslite.codec.pictures import write_png

    length = film.duration_s
    times = [_PICTURE_AT_S] if length is None or length > _PICTURE_AT_S else []
    for at in (*times, *([length / 2] if length else []), 0.0):
        frame = _frame(path, at)
        if frame:
            write_png(frame, wanted)
            return
    raise UndecodablePixels("No frame of the video can be shown.")


def _frame(path: str, at_s: float) -> bytes:
    # Square pixels, no dimension above the largest picture; even where the pixels are not square, nothing is enlarged by more than that.
    fitted = f"scale='max(1,trunc(iw*sar*min(1,{_FRAME_PIXELS}/max(iw*sar,ih))))':'max(1,trunc(ih*min(1,{_FRAME_PIXELS}/max(iw*sar,ih))))'"
    command = [
        *("ffmpeg", "-nostdin", "-hide_banner", "-v", "error", "-threads", "1", *_READING, "-ss", f"{at_s:.3f}", "-i", _url(path)),
        *("-map", "0:V:0", "-frames:v", "1", "-vf", f"{fitted},setsar=1", "-f", "image2pipe", "-c:v", "png", "pipe:1"),
    ]
    return _run(command, _MOST_FRAME)
