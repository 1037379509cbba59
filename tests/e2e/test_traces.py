"""Traces go to a receiver of OTLP over HTTP, and to nobody when none is set."""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.data_sets import CONTENT_TYPE, body, image, part10
from tests.support.processes import environment, pacslite, serving, until

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
NAME = "Quietperson^Zacharias"


class Receiver:
    """What has come: each span with the role of its process."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []

    def take(self, content: bytes) -> None:
        """One export request."""
        for resource in trace_service.ExportTraceServiceRequest.FromString(content).resource_spans:
            about = {one.key: one.value.string_value for one in resource.resource.attributes}
            assert about["service.name"] == "pacslite"
            self.spans += [(about["pacslite.role"], span) for scope in resource.scope_spans for span in scope.spans]

    def named(self, begin: str) -> list[tuple[str, Any]]:
        """The spans whose names begin like this."""
        return [(role, span) for role, span in list(self.spans) if span.name.startswith(begin)]


@contextmanager
def receiving() -> Iterator[tuple[str, Receiver]]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                import gzip

                content = gzip.decompress(content)
            receiver.take(content)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.server_port}/v1/traces", receiver
        finally:
            listener.shutdown()
            thread.join()


def attributes(span: Any) -> dict[str, str]:
    return {one.key: one.value.string_value or str(one.value.int_value) for one in span.attributes}


def test_requests_operations_and_ingest_are_spans_of_the_callers_trace(tmp_path: Path) -> None:
    with receiving() as (url, receiver):
        options = {"PACSLITE_TRACE_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        with serving(tmp_path / "data", "--web-processes", "1", "--dimse-processes", "1", **options) as server:
            ds = image()
            ds.PatientName = NAME
            headers = {"Content-Type": CONTENT_TYPE, "traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01", "X-Request-ID": "traced-1"}
            with closing(http.client.HTTPConnection(server.ready["http"], timeout=60)) as connection:
                connection.request("POST", "/dicom-web/studies", body([part10(ds)]), headers)
                assert connection.getresponse().status == 200
            file = tmp_path / "sent.dcm"
            file.write_bytes(part10(image()))
            subprocess.run(["storescu", "-aec", server.ready["aet"], *server.dicom, str(file)], check=True, capture_output=True, timeout=60)
            until(lambda: receiver.named("POST /dicom-web/studies") and len(receiver.named("ingest")) == 2, what="the spans")
            until(lambda: receiver.named("dimse C-STORE"), what="the span of the C-STORE")
    ((role, request),) = receiver.named("POST /dicom-web/studies")
    assert (role, request.trace_id.hex(), request.parent_span_id.hex()) == ("web", TRACE_ID, PARENT_ID)
    assert attributes(request)["http.response.status_code"] == "200"
    assert attributes(request)["request_id"] == "traced-1"
    ((_, operation),) = receiver.named("dimse C-STORE")
    ingests = dict(receiver.named("ingest"))
    assert ingests["web"].parent_span_id == request.span_id
    assert ingests["web"].trace_id == request.trace_id
    assert ingests["dimse"].parent_span_id == operation.span_id
    assert "Quietperson" not in str([span for _, span in receiver.spans])


def test_without_an_endpoint_nothing_of_it_is_loaded(tmp_path: Path) -> None:
    program = (
        "import sys; from pacslite import app, tracing; from pacslite.settings import load\n"
        "settings = load(); pacs = app.build(settings); pacs.catalog.migrate(); app.observe(settings, 'web')\n"
        "with tracing.span('x') as span: print(span, tracing.is_on(), any(name.startswith('opentelemetry') for name in sys.modules))\n"
        "pacs.close()"
    )
    env = environment(PACSLITE_DATA=str(tmp_path / "data"))
    told = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout.split() == ["None", "False", "False"]


def test_an_endpoint_that_is_none_is_said_at_the_start(tmp_path: Path) -> None:
    for url in ("collector:4318", "https://u:password@collector/v1/traces"):
        told = pacslite("config", "check", "--data", tmp_path / "data", env=environment(PACSLITE_TRACE_ENDPOINT=url))
        assert told.returncode == 2
        assert "trace_endpoint" in told.stderr
        assert "password@" not in told.stderr
