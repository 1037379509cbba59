"""DICOM associations measured: memory while many are held, memory while a large object is sent, C-MOVE over 1, 2 and 4 of them.

    python bench/dimse.py [associations] [send] [move]

A server of its own for each part, in a temporary directory, on free ports. Foreign programs are dcmtk's (getscu, movescu, storescp).
Memory is the proportional set size of the server's whole process tree.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from pacslite.settings import Address
from tests.support.certificates import Authority
from tests.support.data_sets import image, new_uid, part10
from tests.support.dimse import Peer
from tests.support.processes import Server, pacslite, serving

MIB = 1024**2


def tree(pid: int) -> list[int]:
    """The process and all below it."""
    found = [pid]
    for at in found:
        for task in Path(f"/proc/{at}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def memory(pid: int) -> int:
    """PSS of the tree in bytes."""
    total = 0
    for one in tree(pid):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


@contextmanager
def peak(pid: int) -> Iterator[list[int]]:
    """The highest memory in the block, looked at every 20 ms."""
    seen, done = [memory(pid)], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            seen[0] = max(seen[0], memory(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def associations(place: Path) -> None:
    """Memory at 0, 100 and 200 associations over two processes, each after a C-ECHO, plain and over TLS."""
    authority = Authority.make(place / "ca")
    pair = authority.issue("server")
    secure = {
        "PACSLITE_DICOM_TLS": "127.0.0.1:0",
        "PACSLITE_DICOM_TLS_CERTIFICATE": str(pair.certificate),
        "PACSLITE_DICOM_TLS_KEY": str(pair.key),
        "PACSLITE_DICOM_TLS_CA": str(authority.certificate),
    }
    for name, tls in (("plain", False), ("TLS", True)):
        with serving(place / name, PACSLITE_MAX_ASSOCIATIONS="150", **secure) as server, ExitStack() as stack:
            address = Address.parse(server.ready["dicom_tls" if tls else "dicom"])
            context = authority.client_context(pair)
            figures = [memory(server.pid)]
            for _ in range(2):
                for _ in range(100):
                    peer = stack.enter_context(Peer(address))
                    if tls:
                        peer.sock = context.wrap_socket(peer.sock, server_hostname=address.host)
                    peer.associate()
                    assert peer.echo() == 0
                figures.append(memory(server.pid))
        shown = ", ".join(f"{count}: {figure / MIB:.1f} MiB" for count, figure in zip((0, 100, 200), figures, strict=True))
        print(f"associations held, {name:<6} {shown}; {(figures[2] - figures[0]) / 200 / 1024:.0f} KiB each", flush=True)


def send(place: Path) -> None:
    """Memory over idle while 500 MB go out by C-GET and by C-MOVE."""
    study = new_uid()
    frames = np.zeros((1000, 512, 512), "u2")
    frames[:] = np.arange(512, dtype="u2")
    (place / "large.dcm").write_bytes(part10(image(frames, study=study)))
    wanted = ["-S", "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}", "-aec", "PACSLITE"]
    with receiver(place / "got", []) as port, serving(place / "send") as server:
        pacslite("peer", "add", "STORESCP", "127.0.0.1", str(port), "--data", str(server.data))
        subprocess.run(["storescu", "-aec", "PACSLITE", *server.dicom, str(place / "large.dcm")], check=True)
        time.sleep(2)
        idle = memory(server.pid)
        for command in (["getscu", "+B", "-od", str(place / "got")], ["movescu", "-aem", "STORESCP"]):
            begun = time.monotonic()
            with peak(server.pid) as seen:
                subprocess.run([*command, *wanted, *server.dicom], check=True)
            size = max(file.stat().st_size for file in (place / "got").iterdir())
            took = time.monotonic() - begun
            over = (seen[0] - idle) / MIB
            print(f"{command[0]:<8} {size / 1e6:.0f} MB in {took:.1f} s: {over:+.1f} MiB over idle ({idle / MIB:.1f} MiB)", flush=True)
            for file in (place / "got").iterdir():
                file.unlink()


def move(place: Path) -> None:
    """C-MOVE of 600 slices of 0.5 MB to storescp, which forks for each association and throws away, over 1, 2 and 4 associations."""
    study, series = new_uid(), new_uid()
    pixels = np.random.default_rng(1).integers(0, 4096, (1, 512, 512), "u2")
    (place / "slices").mkdir()
    for number in range(600):
        (place / "slices" / f"{number}.dcm").write_bytes(part10(image(pixels, study=study, series=series, number=number)))
    wanted = ["-S", "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}", "-aec", "PACSLITE", "-aem", "STORESCP"]
    with serving(place / "move") as first:
        pacslite("import", str(place / "slices"), "--data", str(first.data))
    rates: dict[int, list[float]] = {1: [], 2: [], 4: []}
    with receiver(place / "moved", ["--fork", "--ignore"]) as port:
        pacslite("peer", "add", "STORESCP", "127.0.0.1", str(port), "--data", str(place / "move"))
        for _ in range(3):
            for count, rate in rates.items():
                with serving(place / "move", PACSLITE_MOVE_ASSOCIATIONS=str(count)) as server:
                    subprocess.run(["echoscu", "-aec", "PACSLITE", *server.dicom], check=True)
                    rate.append(600 / timed(["movescu", *wanted], server))
    for count, rate in rates.items():
        print(f"move_associations = {count}: {', '.join(f'{one:.0f}' for one in sorted(rate))} instances/s", flush=True)


def timed(command: list[str], server: Server) -> float:
    begun = time.monotonic()
    subprocess.run([*command, *server.dicom], check=True)
    return time.monotonic() - begun


@contextmanager
def receiver(directory: Path, options: list[str]) -> Iterator[int]:
    """storescp on a free port."""
    directory.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    process = subprocess.Popen(["storescp", "+B", *options, "-od", str(directory), str(port)])
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait()


PARTS = {"associations": associations, "send": send, "move": move}


def main() -> None:
    """Runs the parts named, else all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which; all when none is named")
    for name in parser.parse_args().parts or PARTS:
        place = Path(tempfile.mkdtemp(prefix="pacslite-bench-"))
        try:
            PARTS[name](place)
        finally:
            shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
