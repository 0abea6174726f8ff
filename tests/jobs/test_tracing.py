"""Spans go to a collector that the test runs, or nowhere; what isn't right about the variables is said."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest

from das.errors import SettingsError
from jobs.models import ClaimedJob, utc_now
from jobs.tracing import TRACEPARENT, Tracing, check_tracing, open_tracing
from tests.collector import Collector, attributes, collecting
from worker import spans
from worker.spans import Marks

CALLERS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield collector


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)


def test_spans_are_below_the_callers_and_each_other(collector: Collector) -> None:
    tracing = open_tracing("das-api")
    with tracing.span("POST", parent=CALLERS, server=True) as request:
        request.tell("POST /v1/attributions", http__response__status_code=202)
        carried = tracing.current()
        with pytest.raises(ValueError, match="a prompt"), tracing.span("decoding"):
            raise ValueError("a prompt of somebody")
    assert tracing.current() is None
    tracing.close()
    service, above = collector.named("POST /v1/attributions")
    _, below = collector.named("decoding")
    assert service == "das-api"
    assert above.trace_id.hex() == below.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert above.parent_span_id.hex() == "b7ad6b7169203331"
    assert below.parent_span_id == above.span_id
    assert carried == f"00-{above.trace_id.hex()}-{above.span_id.hex()}-01"
    assert attributes(above)["http.response.status_code"] == 202
    # What an exception says may be what a person wrote.
    assert attributes(below) == {"error.type": "ValueError"}
    assert below.status.code == 2
    assert b"a prompt" not in below.SerializeToString()


def test_a_batch_is_told_below_the_request_of_each_of_its_jobs(collector: Collector) -> None:
    tracing = open_tracing("das-worker")
    marks = Marks()
    for stage in ("decoding", "scoring", "gradients", "gradients", "writing"):
        marks.reach(stage)
    job = ClaimedJob(
        id="att_1", token="t", attempt=2, created_at=utc_now() - timedelta(seconds=5), queue_wait_ms=5000.0,
        index_id="tiny@1", method="das-block", candidates="all", top_k=3, prompt="a secret", client_tag="Ada",
        input={}, traceparent=CALLERS, owner="somebody",
    )  # fmt: skip
    spans.tell(tracing, [job], marks, "ModelError")
    tracing.close()
    _, queue = collector.named("queue")
    _, answer = collector.named("answer")
    assert 4.9e9 < queue.end_time_unix_nano - queue.start_time_unix_nano < 30e9
    assert queue.parent_span_id.hex() == answer.parent_span_id.hex() == "b7ad6b7169203331"
    assert attributes(answer) == {
        "das.job_id": "att_1", "das.batch": 1, "das.attempt": 2, "error.type": "ModelError",
    }  # fmt: skip
    for stage in ("decoding", "scoring", "gradients", "writing"):
        assert collector.named(stage)[1].parent_span_id == answer.span_id
    for secret in (b"a secret", b"Ada", b"somebody"):
        assert all(secret not in span.SerializeToString() for _, span in collector.spans)


@pytest.mark.parametrize(
    "traceparent",
    ["", "00-1-2-01", f"00-{'0' * 32}-b7ad6b7169203331-01", f"00-{'a' * 32}-{'0' * 16}-01", CALLERS.upper(),
     CALLERS + "-x", "ff" + CALLERS[2:], "x" * 100_000],
)  # fmt: skip
def test_what_is_no_traceparent_begins_a_trace_of_its_own(traceparent: str, collector: Collector) -> None:
    tracing = open_tracing("das-api")
    with tracing.span("GET", parent=traceparent):
        carried = tracing.current()
    tracing.close()
    assert carried is not None
    assert TRACEPARENT.fullmatch(carried)
    assert collector.named("GET")[1].parent_span_id == b""


def test_without_a_collector_nothing_is_imported_and_nothing_is_done() -> None:
    tracing = Tracing()
    with tracing.span("GET", parent=CALLERS) as span:
        span.tell("GET /", http__route="/")
        assert tracing.current() is None
    assert tracing.past("queue", 1, 2, CALLERS) is None
    tracing.close()
    program = (
        "import sys, app.main, jobs.settings as s; from jobs.tracing import open_tracing;"
        "assert not open_tracing('x').active;"
        "print([name for name in sys.modules if name.startswith('opentelemetry.exporter')])"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}, "OTEL_EXPORTER_OTLP_ENDPOINT has to be the http://"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
         "OTEL_EXPORTER_OTLP_PROTOCOL has to be http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_BSP_SCHEDULE_DELAY": "-5"},
         "OpenTelemetry can't be set up"),
    ],
)  # fmt: skip
def test_variables_that_cannot_be_used(
    variables: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=sentence):
        open_tracing("das-api")


def test_libraries_that_are_missing_are_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, name)
    # None in `sys.modules` is how Python itself remembers that a module isn't there.
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(SettingsError, match=r"das-attribution\[telemetry\]"):
        check_tracing()
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    check_tracing()
