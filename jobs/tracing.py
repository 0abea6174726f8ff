"""One trace for a question, from its request through the queue to the worker, where OpenTelemetry is set up.

It is set up by OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_ENDPOINT` above all), and its libraries are
imported only then. A span never holds pictures, prompts, tags, addresses, keys or owners.
"""

import contextlib
import os
import re
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from das.errors import SettingsError

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"
# W3C's, of the one version that there is.
TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
# A collector that doesn't answer may hold up the end of a process for so long.
FLUSH_S = 2.0

Value = str | int | float | bool


class Tracing:
    """Makes spans and sends them in the background. Without a provider it does nothing."""

    def __init__(self, provider: Any = None) -> None:
        self._provider = provider
        self._tracer = None if provider is None else provider.get_tracer("das")

    @property
    def active(self) -> bool:
        """Whether spans go anywhere."""
        return self._tracer is not None

    @contextlib.contextmanager
    def span(self, name: str, *, parent: str | None = None, server: bool = False) -> Iterator["Span"]:
        """A span for the length of the block, below `parent` (a traceparent) or else below the one around it."""
        if self._tracer is None:
            yield Span()
            return
        from opentelemetry.trace import SpanKind

        kind = SpanKind.SERVER if server else SpanKind.INTERNAL
        # Messages of exceptions may hold what a person wrote; the status alone says that there was one.
        with self._tracer.start_as_current_span(
            name, context=_context(parent), kind=kind, record_exception=False, set_status_on_exception=False
        ) as span:
            told = Span(span)
            try:
                yield told
            except BaseException as error:
                told.failed(type(error).__name__)
                raise

    def current(self) -> str | None:
        """The traceparent of the span around the caller; None without one."""
        if self._tracer is None:
            return None
        from opentelemetry import trace

        return _traceparent(trace.get_current_span())

    def past(
        self,
        name: str,
        began_ns: int,
        ended_ns: int,
        parent: str | None,
        failed: str | None = None,
        **told: Value,
    ) -> str | None:
        """A span of something that is over, by the clock; returns its traceparent."""
        if self._tracer is None:
            return None
        from opentelemetry.context import Context

        span = self._tracer.start_span(
            name, context=_context(parent) or Context(), start_time=began_ns, attributes=told
        )
        if failed:
            Span(span).failed(failed)
        span.end(ended_ns)
        return _traceparent(span)

    def close(self) -> None:
        """Send what is left, and wait a little for that."""
        if self._provider is not None:
            closing = threading.Thread(target=self._provider.shutdown, daemon=True)
            closing.start()
            closing.join(FLUSH_S)


class Span:
    """A span that is open, or none."""

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def tell(self, name: str | None = None, **told: Value) -> None:
        """Give it another name, and attributes; `__` in one of theirs stands for a dot."""
        if self._span is None:
            return
        if name is not None:
            self._span.update_name(name)
        self._span.set_attributes({key.replace("__", "."): value for key, value in told.items()})

    def failed(self, kind: str) -> None:
        """Say that it ended with an error of this kind."""
        if self._span is None:
            return
        from opentelemetry.trace import Status, StatusCode

        self._span.set_attribute("error.type", kind)
        self._span.set_status(Status(StatusCode.ERROR))


def configured() -> bool:
    """Whether OpenTelemetry is to be sent traces."""
    return _endpoint() is not None


def check_tracing() -> None:
    """See that what OpenTelemetry's variables ask for can be done.

    Raises:
        SettingsError: its libraries aren't installed, or the address or protocol can't be used.
    """
    found = _endpoint()
    if found is None:
        return
    variable, endpoint = found
    address = urlsplit(endpoint)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise SettingsError(f"{variable} has to be the http:// or https:// address of a collector")
    for name in PROTOCOLS:
        if os.environ.get(name, PROTOCOL) != PROTOCOL:
            raise SettingsError(f"{name} has to be {PROTOCOL}, or unset: traces are sent in no other way")
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f"{variable} is set, but OpenTelemetry isn't installed: pip install 'das-attribution[telemetry]',"
            " or take the variable away"
        ) from error


def open_tracing(name: str) -> Tracing:
    """The tracing of this process, which OpenTelemetry knows as `name` unless `OTEL_SERVICE_NAME` has another.

    It starts a thread: to be opened after a fork.

    Raises:
        SettingsError: as `check_tracing`.
    """
    if not configured():
        return Tracing()
    check_tracing()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    try:
        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": name}
        provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except ValueError as error:
        raise SettingsError(f"OpenTelemetry can't be set up as its variables ask: {error}") from error
    return Tracing(provider)


def _endpoint() -> tuple[str, str] | None:
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    return next(((name, value) for name in ENDPOINTS if (value := os.environ.get(name, "").strip())), None)


def _context(traceparent: str | None) -> Any:
    """OpenTelemetry's context below a traceparent; None where there is none, or none that can be read."""
    if traceparent is None or not TRACEPARENT.fullmatch(traceparent):
        return None
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    _, trace, span, flags = traceparent.split("-")
    above = SpanContext(int(trace, 16), int(span, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
    return set_span_in_context(NonRecordingSpan(above), Context())


def _traceparent(span: Any) -> str | None:
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
