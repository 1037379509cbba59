"""What only the S3 store promises: clear words for each failure, presigned URLs, taking up a broken stream."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pacslite.errors import BlobMissing, StorageError
from pacslite.storage.keys import instance_key, new_version_id
from pacslite.storage.s3 import S3Options, S3Store
from pacslite.storage.spool import Spool
from tests.support.s3_server import serve_s3


def _key() -> str:
    return instance_key("1.1", "1.2", "1.3", new_version_id())


def _put(store: S3Store, spool: Spool, key: str, data: bytes) -> None:
    with spool.create() as writer:
        writer.write(data)
        store.put(writer.finish().path, key)


@contextmanager
def _breaking(endpoint: str, answers: list[int]) -> Iterator[str]:
    """A proxy that breaks each connection off after so many bytes of answer; once the list is used up it lets all through."""
    host, _, port = endpoint.removeprefix("http://").partition(":")
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def pump(source: socket.socket, target: socket.socket, limit: int | None) -> None:
        try:
            while data := source.recv(16384 if limit is None else min(16384, limit)):
                target.sendall(data)
                if limit is not None and (limit := limit - len(data)) == 0:
                    break
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            upstream = socket.create_connection((host, int(port)))
            limit = answers.pop(0) if answers else None
            pair = [threading.Thread(target=pump, args=a) for a in ((client, upstream, None), (upstream, client, limit))]
            for thread in pair:
                thread.start()
            threads.append(threading.Thread(target=_close_after, args=(pair, client, upstream)))
            threads[-1].start()

    acceptor = threading.Thread(target=serve)
    acceptor.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()


def _close_after(pair: list[threading.Thread], *ends: socket.socket) -> None:
    for thread in pair:
        thread.join()
    for end in ends:
        end.close()


def test_a_download_that_breaks_off_is_taken_up_where_it_broke(s3_options: S3Options, spool: Spool) -> None:
    key, data = _key(), os.urandom(900_000)
    _put(S3Store(s3_options), spool, key, data)
    with _breaking(s3_options.endpoint or "", [300_000, 200_000]) as endpoint:
        store = S3Store(dataclasses.replace(s3_options, endpoint=endpoint))
        with store.open(key, 10) as stream:
            assert stream.read() == data[10:]
        store.close()


def test_a_download_that_breaks_off_again_and_again_is_a_storage_error(s3_options: S3Options, spool: Spool) -> None:
    key = _key()
    _put(S3Store(s3_options), spool, key, os.urandom(900_000))
    with _breaking(s3_options.endpoint or "", [20_000] * 50) as endpoint:
        store = S3Store(dataclasses.replace(s3_options, endpoint=endpoint))
        with store.open(key) as stream, pytest.raises(StorageError, match="broke off 4 times"):
            stream.read()
        store.close()


def test_a_service_that_is_not_there_is_a_storage_error_that_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    store = S3Store(S3Options("bucket", f"http://127.0.0.1:{port}", access_key="a", secret_key="b"))
    with pytest.raises(StorageError, match="cannot be reached"):
        store.check()
    store.close()


def test_a_service_that_goes_away_fails_the_put_and_keeps_the_spool_file(tmp_path: Path, s3_options: S3Options, spool: Spool) -> None:
    with serve_s3(tmp_path / "s3") as server:
        store = S3Store(dataclasses.replace(s3_options, endpoint=server.endpoint))
        store.check()
        server.stop()
        file = spool.create().finish()
        with pytest.raises(StorageError, match="cannot be reached"):
            store.put(file.path, _key())
        assert file.path.exists()
        store.close()


def test_a_bucket_that_is_not_there_is_named(s3_options: S3Options) -> None:
    store = S3Store(dataclasses.replace(s3_options, bucket="nothere"))
    with pytest.raises(StorageError, match="no S3 bucket 'nothere'"):
        store.check()


def test_wrong_credentials_are_told(s3_options: S3Options, spool: Spool) -> None:
    store = S3Store(dataclasses.replace(s3_options, secret_key="wrong"))
    with pytest.raises(StorageError, match="refused the credentials"):
        store.check()
    with pytest.raises(StorageError) as caught:
        _put(store, spool, _key(), b"x")
    assert not isinstance(caught.value, BlobMissing)


def test_a_presigned_url_gives_the_bytes_to_anybody_at_the_public_endpoint(s3_options: S3Options, spool: Spool) -> None:
    store = S3Store(dataclasses.replace(s3_options, public_endpoint=(s3_options.endpoint or "").replace("127.0.0.1", "localhost")))
    key = _key()
    _put(store, spool, key, b"bytes")
    url = store.presign(key, 60)
    assert url.startswith("http://localhost:")
    with urllib.request.urlopen(url.replace("localhost", "127.0.0.1").replace("//127.0.0.1", "//localhost")) as answer:
        assert answer.read() == b"bytes"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url.replace("bytes", "other").replace("X-Amz-Expires=60", "X-Amz-Expires=6000"))
    caught.value.close()


def test_the_prefix_parts_two_systems_in_one_bucket(s3_options: S3Options, spool: Spool) -> None:
    one, two = S3Store(s3_options), S3Store(dataclasses.replace(s3_options, prefix=s3_options.prefix + "-other"))
    key = _key()
    _put(one, spool, key, b"one")
    _put(two, spool, key, b"two!")
    assert [(i.key, i.size_bytes) for i in one.list("")] == [(key, 3)]
    assert [(i.key, i.size_bytes) for i in two.list("")] == [(key, 4)]


def test_an_upload_of_which_less_arrived_is_no_success(s3_options: S3Options, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    store, key = S3Store(s3_options), _key()
    client = store.client()
    real = client.put_object

    def put_less(**arguments: Any) -> Any:
        return real(**{**arguments, "Body": arguments["Body"].read(3), "ContentLength": 3, "ContentMD5": "rL0Y20zC+Fzt72VPzMSk2A=="})

    monkeypatch.setattr(client, "put_object", put_less)
    file = spool.create()
    file.write(b"foobar")
    with pytest.raises(StorageError, match="6 bytes were sent to the S3 bucket, 3 arrived"):
        store.put(file.finish().path, key)
    assert list(store.list("")) == []


def test_a_part_that_fails_leaves_no_object_and_no_upload(s3_options: S3Options, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    store = S3Store(s3_options, part_bytes=65536)
    client, aborted = store.client(), []
    real = client.abort_multipart_upload
    monkeypatch.setattr(client, "complete_multipart_upload", lambda **_: (_ for _ in ()).throw(ConnectionError("gone")))
    monkeypatch.setattr(client, "abort_multipart_upload", lambda **a: aborted.append(real(**a)))
    with pytest.raises(StorageError):
        _put(store, spool, _key(), bytes(200_000))
    assert len(aborted) == 1
    assert list(store.list("")) == []


def test_the_store_is_made_without_importing_boto3() -> None:
    code = "import sys; from pacslite.storage.s3 import *; S3Store(S3Options('b')); sys.exit(any('boto' in m for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
