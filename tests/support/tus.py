"""A client of tus 1.0.0 that says exactly what a test wants it to say, and the files it sends."""

from __future__ import annotations

import base64
import json
import socket
import struct
from dataclasses import dataclass, field

from tests.support.http import Answer, WebServer

UPLOADS = "/api/v1/files/uploads"
OCTETS = "application/offset+octet-stream"


def stl(size: int, seed: int = 0) -> bytes:
    """A binary STL model of about that many bytes: of any length, and other bytes for another seed."""
    count = max(1, (size - 84) // 50)
    face = struct.pack("<12fH", 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0)
    head = f"made by a test, {seed}".encode().ljust(80)
    varied = b"".join(struct.pack("<12fH", 0, 0, 1, 0, 0, n, 1, seed, n, 0, 1, n, 0) for n in range(min(count, 64)))
    return head + struct.pack("<I", count) + varied + face * (count - min(count, 64))


def encoded(values: dict[str, str]) -> str:
    """An `Upload-Metadata` header."""
    return ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in values.items())


@dataclass
class Tus:
    """Somebody who uploads for one patient."""

    server: WebServer
    patient_id: int
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def metadata(self) -> dict[str, str]:
        """What is said of a file, unless a test says otherwise."""
        return {"patient_id": str(self.patient_id), "file_type": "stl_model", "filename": "jaw.stl"}

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str | None) -> Answer:
        """One request; a header of None is left out."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"Tus-Resumable": "1.0.0", **self.headers, **named}
        return self.server.request(method, path, body, {name: value for name, value in sent.items() if value is not None})

    def create(
        self, length: int | None, body: bytes | None = None, metadata: dict[str, str] | None = None, **headers: str | None
    ) -> Answer:
        """POST."""
        told = {} if length is None else {"Upload_Length": str(length)}
        said = encoded(self.metadata if metadata is None else metadata)
        kind = {"Content_Type": OCTETS} if body is not None else {}
        return self.ask("POST", UPLOADS, body, **{"Upload_Metadata": said or None, **told, **kind, **headers})

    def begun(self, length: int | None, **headers: str | None) -> str:
        """The path of a new upload."""
        answer = self.create(length, **headers)
        assert answer.status == 201, answer.body
        return path_of(answer)

    def patch(self, path: str, offset: int, body: bytes, **headers: str | None) -> Answer:
        """PATCH."""
        return self.ask("PATCH", path, body, **{"Content_Type": OCTETS, "Upload_Offset": str(offset), **headers})

    def head(self, path: str) -> Answer:
        """HEAD."""
        return self.ask("HEAD", path)

    def offset(self, path: str) -> int:
        """How much the server has."""
        answer = self.head(path)
        assert answer.status == 200, answer
        return int(answer.headers["upload-offset"])

    def content(self, answer: Answer) -> bytes:
        """The file that an upload became."""
        found = self.server.request("GET", local(answer.headers["content-location"]) + "/content", None, self.headers)
        assert found.status == 200, found.body
        return found.body

    def sending(self, path: str, offset: int, announced: int, sent: bytes) -> socket.socket:
        """A PATCH in the middle: so many bytes were announced, these were sent."""
        lines = [f"PATCH {path} HTTP/1.1", f"Host: 127.0.0.1:{self.server.port}", "Tus-Resumable: 1.0.0", f"Content-Type: {OCTETS}"]
        lines += [f"Upload-Offset: {offset}", f"Content-Length: {announced}", *(f"{k}: {v}" for k, v in self.headers.items()), "", ""]
        connection = socket.create_connection(("127.0.0.1", self.server.port), timeout=30)
        connection.sendall("\r\n".join(lines).encode() + sent)
        return connection


def local(url: str) -> str:
    """The path of a URL of the server, which may be one already."""
    return url if url.startswith("/") else "/" + url.split("/", 3)[3]


def path_of(answer: Answer) -> str:
    """Where a new upload is."""
    return local(answer.headers["location"])


def client(server: WebServer, mrn: str = "TUS-1", **headers: str) -> Tus:
    """Somebody who uploads for a new patient."""
    server.root = ""
    body = json.dumps({"mrn": mrn, "name": "Upload^Test"}).encode()
    made = server.request("POST", "/api/v1/patients", body, {"Content-Type": "application/json", **headers})
    assert made.status == 201, made.body
    return Tus(server, json.loads(made.body)["id"], headers)
