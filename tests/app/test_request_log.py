"""The line that each request leaves in the log."""

import json
import logging

import pytest

from jobs.logs import configure_logging


@pytest.fixture
def lines(caplog):
    """The requests' records."""
    caplog.set_level(logging.INFO, "app.requests")
    return lambda: [record for record in caplog.records if record.name == "app.requests"]


def told(record):
    return {
        name: getattr(record, name)
        for name in ("request_id", "method", "route", "status", "milliseconds", "bytes", "caller")
    }


def test_a_request_is_one_line_with_its_routes_template(client, ask, lines):
    asked = ask(prompt="a secret prompt", client_tag="a secret tag")
    answer = client.get(asked["links"]["self"] + "?wait=0", headers={"X-Request-Id": "mine"})
    posted, read = lines()
    assert (told(posted)["method"], told(posted)["status"]) == ("POST", 202)
    fields = told(read)
    assert 0 < fields.pop("milliseconds") < 60_000
    assert fields == {
        "request_id": "mine",
        "method": "GET",
        "route": "/v1/attributions/{attribution_id}",
        "status": 200,
        "bytes": len(answer.content),
        "caller": "local",
    }
    text = read.getMessage()
    assert text.startswith("mine GET /v1/attributions/{attribution_id} 200 in ")
    assert asked["id"] not in text
    assert "secret" not in " ".join(record.getMessage() for record in lines())


@pytest.mark.parametrize(
    ("method", "path", "headers", "route", "status"),
    [
        ("GET", "/secret/address", {}, "(none)", 404),
        ("PUT", "/v1/attributions", {}, "/v1/attributions", 405),
        ("GET", "/version", {"Host": "evil.example"}, "(none)", 421),
        ("POST", "/ask", {"Origin": "null"}, "(none)", 403),
        ("GET", "/static/page.js", {}, "/static/{path:path}", 200),
        ("GET", "/healthz", {}, "/healthz", 200),
    ],
)
def test_a_refused_request_is_a_line_too(client, lines, method, path, headers, route, status):
    client.request(method, path, headers=headers)
    (record,) = lines()
    assert (record.route, record.status) == (route, status)
    assert "secret" not in record.getMessage()


def test_a_request_that_broke_is_a_line_and_a_traceback(client, lines, monkeypatch):
    def broken(*_args):
        raise RuntimeError("broken")

    monkeypatch.setattr(client.app.state.service.store, "list", broken)
    client.get("/v1/attributions")
    (record,) = lines()
    assert (record.route, record.status) == ("/v1/attributions", 500)


def test_in_json_each_field_has_its_name(settings, client, capsys):
    root = logging.getLogger()
    before = root.handlers, root.level
    configure_logging(settings.model_copy(update={"log_format": "json"}))
    try:
        client.get("/version")
    finally:
        root.handlers, root.level = before
    (line,) = [found for found in map(json.loads, capsys.readouterr().err.splitlines()) if "route" in found]
    assert (line["route"], line["method"], line["status"], line["caller"]) == ("/version", "GET", 200, "-")
