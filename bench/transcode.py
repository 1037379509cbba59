"""What a frame of 512 x 512 x 16 bits costs in each transfer syntax, both ways: in the codec, and through a codec process.

python bench/transcode.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import numpy as np

from pacslite.codec.encoders import encode_frame, native_bytes, transcode_frame
from pacslite.codec.pixels import PixelDescription, decode_frame
from pacslite.codec.processes import CodecProcesses
from pacslite.codec.transcode import TASK
from pacslite.core.result_cache import ResultCache
from pacslite.dicom.syntaxes import EXPLICIT, IRREVERSIBLE, REVERSIBLE

ROUNDS = 15


def slice_of_a_phantom() -> np.ndarray:
    """Rings with noise, 12 bits stored."""
    y, x = np.mgrid[0:512, 0:512]
    rings = (np.hypot(y - 256, x - 256) * 6) % 2500
    return (rings + np.random.default_rng(1).normal(0, 12, rings.shape)).clip(0, 4095).astype("u2")


def milliseconds(work: Callable[[], object]) -> float:
    """The median time."""
    work()
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def main() -> None:
    """Prints the table."""
    pixels, description = slice_of_a_phantom(), PixelDescription(512, 512, 16, 12)
    native = native_bytes(pixels, description)
    began = time.perf_counter()
    codecs = CodecProcesses(2, 60)
    codecs.run("os:getpid")
    print(f"start of a codec process    {(time.perf_counter() - began) * 1000:6.1f} ms")
    print(f"an empty task               {milliseconds(lambda: codecs.run('os:getpid')):6.2f} ms\n")
    print(f"{'transfer syntax':26} {'size':>6} {'encode':>8} {'decode':>8} {'apart':>8}   ms; apart: decode in a codec process")
    for uid in sorted(REVERSIBLE | IRREVERSIBLE, key=lambda uid: [int(part) for part in uid.split(".")]):
        shown = description if uid not in IRREVERSIBLE or not uid.endswith(".50") else PixelDescription(512, 512, 8, 8)
        source = native if shown is description else native_bytes((pixels >> 4).astype("u1"), shown)
        array = decode_frame(source, shown, EXPLICIT).array
        data = encode_frame(array, "MONOCHROME2", shown, uid).data
        encode = milliseconds(lambda: encode_frame(array, "MONOCHROME2", shown, uid))  # noqa: B023 - called at once
        decode = milliseconds(lambda: transcode_frame(data, shown, uid, EXPLICIT))  # noqa: B023
        apart = milliseconds(lambda: codecs.run(TASK, data, shown, uid, EXPLICIT))  # noqa: B023
        print(f"{uid:26} {len(data) / len(source):6.2f} {encode:8.2f} {decode:8.2f} {apart:8.2f}")
    with TemporaryDirectory() as folder:
        cache = ResultCache(Path(folder), 1 << 30)
        cache.open("kept", lambda: iter((native,)))[0].close()
        print(f"\na frame out of the cache    {milliseconds(lambda: cache.open('kept', lambda: iter(()))[0].close()):6.2f} ms")
        numbers = iter(range(1000))
        made = milliseconds(lambda: cache.open(f"n{next(numbers)}", lambda: iter((native,)))[0].close())
        print(f"a frame into the cache      {made:6.2f} ms")
    data = encode_frame(pixels, "MONOCHROME2", description, "1.2.840.10008.1.2.4.90").data
    began = time.perf_counter()
    list(codecs.run_each((TASK, data, description, "1.2.840.10008.1.2.4.90", EXPLICIT) for _ in range(100)))
    print(f"100 frames of JPEG 2000, two processes: {time.perf_counter() - began:.2f} s")
    threads = [Thread(target=codecs.run, args=(TASK, data, description, "1.2.840.10008.1.2.4.90", EXPLICIT)) for _ in range(8)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"8 at once, two processes: {(time.perf_counter() - began) * 1000:.0f} ms")
    codecs.close()


if __name__ == "__main__":
    main()
