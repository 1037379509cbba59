"""Traces by OpenTelemetry: off unless `trace_endpoint` names a receiver (OTLP over HTTP) and the extra `otel` is installed.

Off, a span is one comparison and loads nothing. Spans carry what logs carry: no names, no values of requests, and of errors
the kind alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from pacslite import __version__
from pacslite.errors import ConfigurationError
from pacslite.settings import Settings

_FLUSH_MS = 3000
_OFF: AbstractContextManager[None] = nullcontext()
_tracer: Any = None
_provider: Any = None


def start(settings: Settings, role: str) -> None:
    """Trace from now on, if the settings say so; to be called once in a process, after the last fork. Raises ConfigurationError."""
    global _tracer, _provider
    if not settings.trace_endpoint:
        return
    check_installed()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    about = {"service.name": "pacslite", "service.version": __version__, "service.instance.id": settings.aet, "pacslite.role": role}
    _provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=settings.trace_endpoint, timeout=5)))
    _tracer = _provider.get_tracer("pacslite", __version__)


def check_installed() -> None:
    """Raises ConfigurationError without the extra."""
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace  # noqa: F401
    except ImportError:
        raise ConfigurationError("trace_endpoint: traces need OpenTelemetry; install pacslite[otel]") from None


def is_on() -> bool:
    """Whether anything is traced."""
    return _tracer is not None


def stop() -> None:
    """Send what is left, for a few seconds at most; nothing is traced afterwards."""
    global _tracer, _provider
    provider, _tracer, _provider = _provider, None, None
    if provider is not None:
        provider.force_flush(_FLUSH_MS)
        provider.shutdown()


def span(name: str, /, **attributes: str | int) -> AbstractContextManager[Any]:
    """Work inside the span at hand; the span, or None when nothing is traced."""
    return _OFF if _tracer is None else _span(name, None, "INTERNAL", attributes)


def entry(name: str, carrier: Mapping[str, str | None], /, **attributes: str | int) -> AbstractContextManager[Any]:
    """Work somebody asked for, whose `traceparent` and `tracestate` (W3C Trace Context) are taken over; the span, or None."""
    return _OFF if _tracer is None else _span(name, carrier, "SERVER", attributes)


@contextmanager
def _span(name: str, carrier: Mapping[str, str | None] | None, kind: str, attributes: dict[str, str | int]) -> Iterator[Any]:
    from opentelemetry.trace import SpanKind, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = None
    if carrier is not None:
        context = TraceContextTextMapPropagator().extract({key: value for key, value in carrier.items() if value})
    # The text of an error may hold what was sent: its kind has to do.
    options = {"record_exception": False, "set_status_on_exception": False}
    with _tracer.start_as_current_span(name, context=context, kind=SpanKind[kind], attributes=attributes, **options) as current:
        try:
            yield current
        except Exception as error:
            current.set_attribute("error.type", type(error).__name__)
            current.set_status(StatusCode.ERROR)
            raise
