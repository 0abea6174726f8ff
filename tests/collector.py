"""A collector of traces on loopback: what takes OpenTelemetry's OTLP over HTTP and keeps the spans."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass
class Collector:
    """What was received: spans as OTLP has them, with the name of the service that sent each."""

    url: str
    spans: list[tuple[str, Any]] = field(default_factory=list)

    def named(self, name: str, patience_s: float = 90.0) -> tuple[str, Any]:
        """The one span of this name, waited for."""
        deadline = time.monotonic() + patience_s
        while True:
            found = [(service, span) for service, span in list(self.spans) if span.name == name]
            if found:
                assert len(found) == 1, found
                return found[0]
            assert time.monotonic() < deadline, (name, [span.name for _, span in self.spans])
            time.sleep(0.05)


def attributes(span: Any) -> dict[str, Any]:
    """A span's attributes as Python has them."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """A collector for the length of the block."""

    class Receive(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                named = {each.key: each.value.string_value for each in resource.resource.attributes}
                for scope in resource.scope_spans:
                    collector.spans.extend((named["service.name"], span) for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receive)
    collector = Collector(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
